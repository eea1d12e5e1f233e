"""The HTTP side: routes, and one table from error to status."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from common.errors import BadRequest, HookmirrorError, Slow, TooMany
from common.queue.port import Publisher, Queue
from common.settings import Settings
from common.telemetry import Action, log
from receiver.admission import Admission, Call, Door, Visit
from receiver.hook import HookEndpoint
from receiver.intake import Answer, Intake
from receiver.metrics import HookMetrics
from receiver.pages import add_pages
from receiver.ready import Readiness
from receiver.routing import Routing, StackRouting
from receiver.sns import SnsTopics
from receiver.spool import SpoolingPublisher
from receiver.stacks import GREETING, StackEndpoint

RETRY_AFTER = 5
"""Seconds after which a sender is asked to come again when the queue is away."""

Endpoint = Callable[[AsyncIterator[bytes], Visit], Awaitable[Answer]]

GREETINGS = {Door.FRONT: "hookmirror: webhooks are taken here", Door.STACKS_SEEN: GREETING}

LOOKING = ["GET", "HEAD"]
OTHER_METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]


def make_app(
    settings: Settings,
    queue: Queue,
    metrics: HookMetrics,
    spool: SpoolingPublisher | None = None,
    *,
    topics: SnsTopics,
) -> FastAPI:
    """Return the application: hooks at the paths of `receiver.public_url` and of the stores' own, stack
    notifications at that of `receiver.stack_url`, /ping, /healthz, /readyz, /openapi.json and /docs.

    Hooks go to `queue`; with a `spool`, through it. `topics` opens Amazon's envelopes.
    """
    endpoints = _endpoints(settings, spool or queue, metrics, topics)
    paths = [inlet.path for inlet in settings.inlets]
    admission = Admission(settings.receiver, time.monotonic, paths)
    readiness = Readiness(queue, spool)
    app = FastAPI(title="hookmirror receiver", docs_url=None, redoc_url=None, openapi_url=None)

    async def receive(request: Request) -> Response:
        """Take a subscription confirmation, records or a stack notification, of whoever may call."""
        try:
            call = _call(request)
            visit = admission.admit(call)
            if visit.door in GREETINGS:
                return PlainTextResponse(GREETINGS[visit.door] + "\n")
            answer = await endpoints[call.path](request.stream(), visit)
        except (HookmirrorError, ClientDisconnect) as error:
            metrics.refused(error)
            return _refusal(error)
        except Exception:
            metrics.failed()
            raise
        metrics.answered(answer.outcome)
        return JSONResponse(answer.body)

    # Any path, for a route would compare the secret one in a time that tells how much of it was right. First,
    # and plain: FastAPI would look for parameters and dependencies on every hook.
    app.add_route("/{path:path}", receive, methods=["POST"])

    @app.api_route("/ping", methods=LOOKING, response_class=PlainTextResponse)
    async def ping() -> str:
        return "Pong"

    @app.api_route("/healthz", methods=LOOKING)
    async def healthz() -> dict[str, str]:
        """The process runs. Not a word on the queue: nobody shall restart us for the broker's sake."""
        return {"status": "alive"}

    async def readyz(_: Request) -> Response:
        ready = await readiness.ask()
        status = HTTPStatus.OK if ready.yes else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(ready.body, status, media_type="application/json")

    app.add_route("/readyz", readyz, methods=LOOKING)
    add_pages(app, settings.receiver, paths)
    app.add_route("/{path:path}", receive, methods=OTHER_METHODS)
    return app


def _endpoints(
    settings: Settings, publisher: Publisher, metrics: HookMetrics, topics: SnsTopics
) -> dict[str, Endpoint]:
    """Return who takes what is posted, by decoded path."""
    endpoints: dict[str, Endpoint] = {}
    intake = Intake(publisher, metrics)
    for inlet in settings.inlets:
        routing = Routing(inlet.routes, settings.stores)
        endpoints[unquote(inlet.path)] = HookEndpoint(intake, routing, inlet.url, topics)
    if settings.receiver.stack_path is not None:
        stacks = StackEndpoint(intake, StackRouting(settings.stack_routes))
        endpoints[unquote(settings.receiver.stack_path)] = stacks
    return endpoints


def _call(request: Request) -> Call:
    return Call(
        peer=request.client.host if request.client else "",
        forwarded=request.headers.getlist("x-forwarded-for"),
        method=request.method,
        path=request.scope["path"],
    )


def _headers(error: BadRequest) -> dict[str, str]:
    if isinstance(error, TooMany):
        return {"Retry-After": "1"}
    return {"Connection": "close"} if isinstance(error, Slow) else {}


def _refusal(error: Exception) -> Response:
    """The one table from error to status: a sentence, and a 5xx only for a queue or a sender that is away."""
    if isinstance(error, BadRequest):
        # Who sends too many shall not fill the log as well; they are counted.
        level = logging.DEBUG if isinstance(error, TooMany) else logging.WARNING
        log(Action.HOOK_REFUSED, str(error), level=level, status=error.status)
        return JSONResponse({"error": error.answer}, error.status, _headers(error))
    if isinstance(error, ClientDisconnect):
        log(Action.HOOK_REFUSED, "the sender went away before the end of its body", level=logging.WARNING)
        return JSONResponse({"error": "incomplete"}, HTTPStatus.BAD_REQUEST)
    log(Action.HOOK_DEFERRED, str(error), level=logging.WARNING, status=503)
    return JSONResponse(
        {"error": "this cannot be taken now, send it again"},
        HTTPStatus.SERVICE_UNAVAILABLE,
        {"Retry-After": str(RETRY_AFTER)},
    )
