"""The receiver put together: from settings to a running HTTP server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

from common.admin import repeat
from common.errors import ConfigError
from common.guard import Limits
from common.metrics import Metrics
from common.queue.port import Queue
from common.queue.sqlite import SqliteQueue
from common.settings import Settings
from common.telemetry import Action, log
from common.web import listen, serve
from receiver.app import make_app
from receiver.metrics import HookMetrics, SpoolMetrics
from receiver.sns import SnsTopics
from receiver.spool import Drainer, SpoolingPublisher

GRACE = 10
"""Seconds for the hooks in hand to be answered after a stop."""


async def run(
    settings: Settings,
    queue: Queue,
    stop: asyncio.Event,
    metrics: Metrics,
    *,
    make_topics: Callable[[tuple[str, ...]], SnsTopics] = SnsTopics,
) -> None:
    """Serve until `stop` is set, then answer what has come in. Raises `ConfigError` for a taken port, or a
    spool that cannot be used."""
    receiver = settings.receiver
    # The server ends first, for its last hooks may go to the spool, or wait for Amazon.
    async with _spooling(settings, queue, metrics) as spool, make_topics(receiver.sns_topics) as topics:
        counts = HookMetrics(metrics)
        app = make_app(settings, queue, counts, spool, topics=topics)
        limits = Limits(connections=receiver.max_connections)
        with listen("receiver", receiver.host, receiver.port) as listener:
            log(
                Action.STARTED,
                "receiver started",
                host=receiver.host,
                port=listener.getsockname()[1],
                **metrics.started(),
            )
            for sentence in settings.exposed():
                log(Action.EXPOSED, sentence, level=logging.WARNING)
            await serve(app, listener, stop, grace=GRACE, limits=limits, refused=counts.turned_away)
    log(Action.STOPPED, "receiver stopped")


@asynccontextmanager
async def _spooling(
    settings: Settings, queue: Queue, metrics: Metrics
) -> AsyncIterator[SpoolingPublisher | None]:
    """The spool before `queue`, drained meanwhile; None when none is configured."""
    path = settings.receiver.spool
    if path is None:
        yield None
        return
    spool = await _open_spool(path, settings.queue.url)
    publisher = SpoolingPublisher(queue, spool)
    sample = SpoolMetrics(metrics, publisher, spool).sample
    tasks = [asyncio.create_task(Drainer(queue, spool, publisher).run()), asyncio.create_task(repeat(sample))]
    try:
        yield publisher
    finally:
        # Who reads the file before it is closed, and both before the queue, which the caller closes.
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await spool.close()


async def _open_spool(path: Path, queue_url: str) -> SqliteQueue:
    if _is_queue(path, queue_url):
        raise ConfigError(f"receiver.spool: {path} is the queue itself. Leave it out, or name another file.")
    return await SqliteQueue.open(path, name="receiver.spool")


def _is_queue(path: Path, queue_url: str) -> bool:
    scheme, _, file = queue_url.partition(":///")
    return scheme == "sqlite" and Path(unquote(file)).resolve() == path.resolve()
