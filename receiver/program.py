"""The receiver put together: from settings to a running HTTP server."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from common.errors import ConfigError
from common.queue.port import Queue
from common.settings import Settings
from common.telemetry import Action, log
from receiver.app import make_app

GRACE = 10
"""Seconds for the hooks in hand to be answered after a stop."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, for all of its programs."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: Settings, queue: Queue, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then answer what has come in. Raises `ConfigError` for a taken port."""
    receiver = settings.receiver
    config = uvicorn.Config(
        make_app(settings, queue),
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
    log(Action.STOPPED, "receiver stopped")


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
