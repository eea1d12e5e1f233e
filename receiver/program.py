"""The receiver put together: from settings to a running HTTP server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import uvicorn

from common.errors import ConfigError
from common.queue.port import Queue
from common.queue.sqlite import SqliteQueue
from common.settings import Settings
from common.telemetry import Action, log
from receiver.app import make_app
from receiver.spool import Drainer, SpoolingPublisher

GRACE = 10
"""Seconds for the hooks in hand to be answered after a stop."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, for all of its programs."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: Settings, queue: Queue, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then answer what has come in. Raises `ConfigError` for a taken port, or a
    spool that cannot be used."""
    # The server ends first, for its last hooks may go to the spool.
    async with _spooling(settings, queue) as spool:
        await _serve(settings, queue, spool, stop)
    log(Action.STOPPED, "receiver stopped")


async def _serve(
    settings: Settings, queue: Queue, spool: SpoolingPublisher | None, stop: asyncio.Event
) -> None:
    receiver = settings.receiver
    config = uvicorn.Config(
        make_app(settings, queue, spool),
        http="httptools",
        loop="none",  # we run inside the loop that there is
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    with _listen(receiver.host, receiver.port) as listener:
        server = _Server(config)
        log(
            Action.STARTED,
            "receiver started",
            host=receiver.host,
            port=listener.getsockname()[1],
            path=receiver.path,
        )
        serving = asyncio.create_task(server.serve([listener]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping
        await serving


@asynccontextmanager
async def _spooling(settings: Settings, queue: Queue) -> AsyncIterator[SpoolingPublisher | None]:
    """The spool before `queue`, drained meanwhile; None when none is configured."""
    path = settings.receiver.spool
    if path is None:
        yield None
        return
    spool = await _open_spool(path, settings.queue.url)
    publisher = SpoolingPublisher(queue, spool)
    draining = asyncio.create_task(Drainer(queue, spool, publisher).run())
    try:
        yield publisher
    finally:
        # The drainer before the file it reads, and both before the queue, which the caller closes.
        draining.cancel()
        await asyncio.wait([draining])
        await spool.close()


async def _open_spool(path: Path, queue_url: str) -> SqliteQueue:
    if _is_queue(path, queue_url):
        raise ConfigError(f"receiver.spool: {path} is the queue itself. Leave it out, or name another file.")
    try:
        return await SqliteQueue.open(path)
    except ConfigError as error:
        raise ConfigError(
            f"receiver.spool: {path} cannot be opened. Name a file in a folder that can be written."
        ) from error


def _is_queue(path: Path, queue_url: str) -> bool:
    scheme, _, file = queue_url.partition(":///")
    return scheme == "sqlite" and Path(unquote(file)).resolve() == path.resolve()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer is not to wait for an ack
        return listener
    except OSError as error:
        raise ConfigError(
            f"receiver: cannot listen on {host}:{port}: {error.strerror}. Set another:  port = 8081"
        ) from error
