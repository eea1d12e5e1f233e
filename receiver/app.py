"""The HTTP side: routes, and one table from error to status."""

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from common.errors import BadRequest, HookmirrorError, QueueAway
from common.queue.port import Queue
from common.settings import Settings
from common.telemetry import Action, log
from receiver.hook import HookEndpoint
from receiver.routing import Routing

RETRY_AFTER = 5
"""Seconds after which a sender is asked to come again when the queue is away."""


def make_app(settings: Settings, queue: Queue) -> FastAPI:
    """Return the application: hooks at the path of `receiver.public_url`, /ping, /healthz, /readyz."""
    hook = HookEndpoint(queue, Routing(settings.routes, settings.stores), settings.receiver.public_url)
    app = FastAPI(title="hookmirror receiver", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(unquote(settings.receiver.path))  # paths are matched decoded
    async def receive(request: Request) -> Response:
        """Take a subscription confirmation or records."""
        try:
            answer = await hook(request.stream())
        except (HookmirrorError, ClientDisconnect) as error:
            return _refusal(error)
        _log_hook(answer)
        return JSONResponse(answer)

    @app.get("/ping", response_class=PlainTextResponse)
    async def ping() -> str:
        return "Pong"

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process runs. Not a word on the queue: nobody shall restart us for the broker's sake."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """Hooks can be taken: the queue answers."""
        try:
            await queue.counts()
        except QueueAway as error:
            return JSONResponse({"status": "waiting", "why": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"status": "ready"})

    return app


def _log_hook(answer: dict[str, Any]) -> None:
    if "signature" not in answer:
        level = logging.WARNING if answer["buried"] else logging.INFO
        log(Action.HOOK, "hook queued", level=level, **answer)


def _refusal(error: Exception) -> Response:
    """The one table from error to status: a sentence, and never a 5xx but for the queue."""
    if isinstance(error, BadRequest):
        log(Action.HOOK_REFUSED, str(error), level=logging.WARNING, status=error.status)
        return JSONResponse({"error": str(error)}, error.status)
    if isinstance(error, ClientDisconnect):
        log(Action.HOOK_REFUSED, "the sender went away before the end of its body", level=logging.WARNING)
        return JSONResponse({"error": "incomplete"}, HTTPStatus.BAD_REQUEST)
    log(Action.HOOK_DEFERRED, str(error), level=logging.WARNING, status=503)
    return JSONResponse(
        {"error": "the queue cannot take the hook now, send it again"},
        HTTPStatus.SERVICE_UNAVAILABLE,
        {"Retry-After": str(RETRY_AFTER)},
    )
