"""The HTTP side: routes, and one table from error to status."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from common.errors import BadRequest, HookmirrorError, QueueAway, Slow, TooMany
from common.queue.port import Publisher, Queue
from common.settings import Settings
from common.telemetry import Action, log
from receiver.admission import Admission, Call, Door
from receiver.hook import HookEndpoint
from receiver.metrics import HookMetrics
from receiver.pages import add_pages
from receiver.routing import Routing, StackRouting
from receiver.sns import SnsTopics
from receiver.spool import SpoolingPublisher
from receiver.stacks import GREETING, StackEndpoint

READY_WITHIN = 1.0
"""Seconds for the queue to say how deep it is, when there is a spool to go on with."""

RETRY_AFTER = 5
"""Seconds after which a sender is asked to come again when the queue is away."""

Endpoint = Callable[[AsyncIterator[bytes]], Awaitable[dict[str, Any]]]

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
    more = [inlet.path for inlet in settings.inlets[1:]]
    admission = Admission(settings.receiver, time.monotonic, more)
    app = FastAPI(title="hookmirror receiver", docs_url=None, redoc_url=None, openapi_url=None)

    async def receive(request: Request) -> Response:
        """Take a subscription confirmation, records or a stack notification, of whoever may call."""
        try:
            call = _call(request)
            door = admission.admit(call)
            if door in GREETINGS:
                return PlainTextResponse(GREETINGS[door] + "\n")
            answer = await endpoints[call.path](request.stream())
        except (HookmirrorError, ClientDisconnect) as error:
            metrics.refused(error)
            return _refusal(error)
        except Exception:
            metrics.failed()
            raise
        metrics.answered(answer)
        _log_hook(answer)
        return JSONResponse(answer)

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

    @app.api_route("/readyz", methods=LOOKING)
    async def readyz() -> Response:
        """Hooks can be taken: the queue answers, or there is a spool that does."""
        return await _ready(queue, spool)

    add_pages(app, settings.receiver, more)
    app.add_route("/{path:path}", receive, methods=OTHER_METHODS)
    return app


def _endpoints(
    settings: Settings, publisher: Publisher, metrics: HookMetrics, topics: SnsTopics
) -> dict[str, Endpoint]:
    """Return who takes what is posted, by decoded path."""
    endpoints: dict[str, Endpoint] = {}
    for inlet in settings.inlets:
        routing = Routing(inlet.routes, settings.stores)
        endpoints[unquote(inlet.path)] = HookEndpoint(publisher, routing, inlet.url, metrics, topics)
    if settings.receiver.stack_path is not None:
        stacks = StackEndpoint(publisher, StackRouting(settings.stack_routes), metrics)
        endpoints[unquote(settings.receiver.stack_path)] = stacks
    return endpoints


def _call(request: Request) -> Call:
    return Call(
        peer=request.client.host if request.client else "",
        forwarded=request.headers.getlist("x-forwarded-for"),
        method=request.method,
        path=request.scope["path"],
    )


async def _ready(queue: Queue, spool: SpoolingPublisher | None) -> Response:
    try:
        return JSONResponse(await _readiness(queue, spool))
    except QueueAway as error:
        return JSONResponse({"status": "waiting", "why": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)


async def _readiness(queue: Queue, spool: SpoolingPublisher | None) -> dict[str, str]:
    """Return what /readyz says of a receiver that can take hooks. Raises `QueueAway` when it cannot."""
    if spool is None:
        await queue.counts()
        return {"status": "ready"}
    await spool.check()
    if not spool.away:
        with suppress(QueueAway, TimeoutError):
            async with asyncio.timeout(READY_WITHIN):
                await queue.counts()
                return {"status": "ready"}
    return {"status": "ready", "queue": "away, spooling"}


def _log_hook(answer: dict[str, Any]) -> None:
    if "buried" in answer:  # a stack notification has a line of its own, with its name
        level = logging.WARNING if answer["buried"] else logging.INFO
        log(Action.HOOK, "hook queued", level=level, **answer)


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
