"""The port for operators: `/metrics`, `/healthz`, and of a worker `/state`. Not the hooks' port, which is
public."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from common.errors import QueueAway
from common.metrics import Metrics, QueueDepths
from common.queue.port import Inspector
from common.tables import MetricsSettings
from common.telemetry import Action, log, without_secrets
from common.web import App, listen, serve

SAMPLE_EVERY = 10.0
"""Seconds from one question how deep the queue is to the next."""

ANSWER_WITHIN = 5.0
"""Seconds for the queue to say so."""

GRACE = 1
"""Seconds for a scrape in hand to be answered after a stop."""

TEXT = "text/plain; charset=utf-8"


class Counted(Protocol):
    """Who knows what is asked for here: the `Metrics` of this process, or those of several together."""

    port: int | None

    @property
    def state(self) -> Callable[[], dict[str, dict[str, Any]]] | None:
        """What tells how each route is; None when nothing here works for routes."""

    async def alive(self) -> bool:
        """Learn how things are; return whether there is anybody to say so."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return every metric and the content type."""


@asynccontextmanager
async def admin(settings: MetricsSettings, metrics: Metrics, queue: Inspector) -> AsyncIterator[None]:
    """Serve `metrics` inside the block, with the depths of `queue`; nothing when no port is configured.

    Raises `ConfigError` for a taken port.
    """
    async with served(settings, metrics), sampled(settings, metrics, queue):
        yield


@asynccontextmanager
async def served(settings: MetricsSettings, counted: Counted) -> AsyncIterator[None]:
    """Serve what is `counted` inside the block, if a port is configured. Raises as `admin` does."""
    if settings.port is None:
        yield
        return
    with listen("metrics", settings.host, settings.port) as listener:
        counted.port = int(listener.getsockname()[1])
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(make_app(counted), listener, stop, grace=GRACE))
        try:
            yield
        finally:
            stop.set()
            await _ended(serving)


@asynccontextmanager
async def sampled(settings: MetricsSettings, metrics: Metrics, queue: Inspector) -> AsyncIterator[None]:
    """Ask `queue` for its depths inside the block, if anybody is to hear of them."""
    if settings.port is None:
        yield
        return
    sampling = asyncio.create_task(repeat(lambda: sample(metrics.queue, queue)))
    try:
        yield
    finally:
        sampling.cancel()
        await _ended(sampling)


async def _ended(task: asyncio.Task[None]) -> None:
    for end in await asyncio.gather(task, return_exceptions=True):
        if isinstance(end, Exception):
            log(Action.FAILED, f"the metrics: {end!r}", level=logging.ERROR)


def make_app(counted: Counted) -> App:
    """Return the ASGI application."""

    async def app(scope: Mapping[str, Any], _: object, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "http":
            status, content_type, body = _answer(counted, scope, alive=await counted.alive())
            headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def _answer(counted: Counted, scope: Mapping[str, Any], *, alive: bool) -> tuple[int, str, bytes]:
    """Return status, content type and body."""
    if scope["method"] not in {"GET", "HEAD"}:
        return 405, TEXT, b"GET only\n"
    if scope["path"] == "/metrics":
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        body, content_type = counted.render(accept.decode("latin-1"))
        return 200, content_type, body
    if scope["path"] == "/healthz":  # that the loop comes round to this is all it says
        if not alive:
            return 503, "application/json", b'{"status":"no process answers"}'
        return 200, "application/json", b'{"status":"alive"}'
    if scope["path"] == "/state" and counted.state is not None:
        return 200, "application/json", without_secrets(json.dumps(counted.state())).encode()
    return 404, TEXT, b"here are /metrics and /healthz, and of a worker /state\n"


async def sample(depths: QueueDepths, queue: Inspector) -> None:
    """Ask `queue` how deep it is."""
    counts = None
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            counts = await queue.counts()
    except (QueueAway, TimeoutError):
        pass  # hookmirror_queue_up says so, and so do the log lines of who needs it
    finally:
        depths.counts, depths.asked = counts, True


async def repeat(take: Callable[[], Awaitable[object]], every: float = SAMPLE_EVERY) -> None:
    """Take a sample every so many seconds until cancelled; one that fails is logged."""
    while True:
        try:
            await take()
        except Exception as error:  # noqa: BLE001 - one bad sample is no reason to take no other
            log(Action.FAILED, f"the metrics: {error!r}", level=logging.ERROR)
        await asyncio.sleep(every)
