"""Serving HTTP inside the loop that there is, until told to stop."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import uvicorn

from common.errors import ConfigError
from common.guard import Guard, Limits, Refused

App = Callable[..., Awaitable[Any]]
"""An ASGI application."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, for all of its programs."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _unheeded(_: str) -> None:
    pass


async def serve(
    app: App,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    grace: int,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
    refused: Refused = _unheeded,
) -> None:
    """Serve `app` on `listener` until `stop` is set, then answer what has come in, for `grace` seconds.

    What is beyond `limits` never comes to `app`; `refused` is told of it.
    """
    guard = partial(Guard, limits=limits, refused=refused)
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], guard),  # which is called with what the class would be
        ws="none",
        loop="none",  # we run inside the loop that there is
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # else X-Forwarded-For would be believed of whoever calls from this machine
        timeout_graceful_shutdown=grace,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    await serving


def listen(table: str, host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `ConfigError`, which names the key in the `table` of the
    configuration."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # all addresses there are, and not only the new ones
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer is not to wait for an ack
        return listener
    except OSError as error:
        raise ConfigError(f"{table}.{_mended(error, host, port)}") from None


def _mended(error: OSError, host: str, port: int) -> str:
    """Return the key that keeps us from listening, and what to write."""
    if error.errno == errno.EADDRINUSE:
        return f"port = {port}: another program has this port of {host}: write another one, like {port + 1}"
    if error.errno == errno.EACCES:
        return f"port = {port}: this user may not listen on a port below 1024: write one above, like 8080"
    return f'host = "{host}": this machine has no such address: write one of its own, or "0.0.0.0" for all'
