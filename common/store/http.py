"""A client of HTTP/1.1 that does what a store needs and no more (docs/decisions/0018).

Nothing is sent twice but a GET or a HEAD, on a fresh connection when a kept one turned out to be closed.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from select import POLLIN, poll
from typing import cast
from urllib.parse import unquote, urlsplit

from common.errors import ConfigError
from common.store.answer import Broken, Response
from common.store.port import Stream

CONNECT_WITHIN = 5.0
"""Seconds for a connection to one address, TLS included."""

ADDRESSES = 4
"""How many addresses of a name are tried."""

SILENCE = 30.0
"""Seconds without a byte, when one is due, after which a connection is given up."""

IDLE = 20.0
"""Seconds for which a connection is kept that nobody uses."""

PIECE = 2**16
"""Bytes; a body up to this size goes out with its headers in one write, a larger one bit by bit."""


class Unreached(Exception):
    """No connection came about: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach a server: directly, or by a proxy. `login` is a header line for the proxy, or ""."""

    host: str
    port: int
    tls: bool
    netloc: str
    proxy: tuple[str, int] | None = None
    login: str = ""

    def __hash__(self) -> int:
        return hash(self.netloc)  # asked for at every request

    @classmethod
    def to(cls, url: str, proxy: str | None) -> "Way":
        """Return the way to the server of `url`, by the proxy with that URL if there is one."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        if proxy is None:
            return cls(host, port, tls, parts.netloc)
        by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if by.scheme != "http":
            raise ConfigError(
                f"the proxy {by.hostname}: {by.scheme}:// is not spoken here. Name one of http://"
            )
        named = f"{unquote(by.username or '')}:{unquote(by.password or '')}"
        login = f"proxy-authorization: Basic {b64encode(named.encode()).decode()}\r\n" if by.username else ""
        return cls(host, port, tls, parts.netloc, (by.hostname or "", by.port or 80), login)


class Client:
    """Sends requests and keeps connections. `trusted` says which certificates of servers are believed."""

    def __init__(self, trusted: ssl.SSLContext | None = None) -> None:
        self._trusted = trusted
        self._kept: dict[Way, list[_Connection]] = {}
        self._open: set[_Connection] = set()

    async def request(
        self,
        way: Way,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Stream | None = None,
        *,
        silence: float = SILENCE,
    ) -> Response:
        """Return the answer to one request, its body to be read; `release` it in the end. `path` goes out as
        it is; `silence` is how many seconds it may take until a byte comes. Raises `Unreached` when nothing
        was sent, and `Broken` after that."""
        absolute = way.proxy and not way.tls
        target = f"http://{way.netloc}{path}" if absolute else path
        head = _head(method, target, headers, way.login if absolute else "")
        if kept := self._take(way):
            try:
                return await kept.exchange(method, head, body, silence)
            except Broken as error:
                if not error.unheard or method not in {"GET", "HEAD"}:
                    raise
        return await (await self._connect(way)).exchange(method, head, body, silence)

    def close(self) -> None:
        """Close every connection, whatever goes on there."""
        for connection in [*self._open]:
            connection.abort()
        self._kept.clear()

    def keep(self, connection: "_Connection") -> None:
        """Keep a connection for the next request."""
        self._kept.setdefault(connection.way, []).append(connection)

    def forget(self, connection: "_Connection") -> None:
        """It is closed."""
        self._open.discard(connection)
        kept = self._kept.get(connection.way, [])
        if connection in kept:
            kept.remove(connection)

    def _take(self, way: Way) -> "_Connection | None":
        kept = self._kept.get(way)
        while kept:
            connection = kept.pop()
            if connection.is_quiet():
                return connection
            connection.abort()
        return None

    async def _connect(self, way: Way) -> "_Connection":
        host, port = way.proxy or (way.host, way.port)
        context = None if way.proxy else self._context(way)
        loop = asyncio.get_running_loop()
        failure = f"{host}:{port}: no address"
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                found = await loop.getaddrinfo(host, port, type=1)
        except OSError as error:  # a TimeoutError is one
            raise Unreached(f"{host}:{port}: {_words(error)}") from None
        for *_, address in found[:ADDRESSES]:
            connection = _Connection(self, way)
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await loop.create_connection(
                        lambda made=connection: made,
                        str(address[0]),
                        port,
                        ssl=context,
                        server_hostname=way.host if context else None,
                    )
                    if way.proxy and way.tls:
                        await self._tunnel(connection)
            except OSError as error:
                connection.abort()
                failure = f"{host}:{port}: {_words(error)}"
            except Broken as error:
                connection.abort()
                failure = f"the proxy {host}:{port}: {error}"
            except BaseException:
                connection.abort()
                raise
            else:
                self._open.add(connection)
                return connection
        raise Unreached(failure)

    async def _tunnel(self, connection: "_Connection") -> None:
        """Have the proxy lead to the server, and speak TLS with that."""
        way = connection.way
        to = f"[{way.host}]:{way.port}" if ":" in way.host else f"{way.host}:{way.port}"
        head = _head("CONNECT", to, {"host": to}, way.login)
        answer = await connection.exchange("CONNECT", head, None)
        if answer.status != 200:
            raise Broken(f"it answers {answer.status} to CONNECT")
        await connection.secure(self._context(way))

    def _context(self, way: Way) -> ssl.SSLContext | None:
        if way.tls and self._trusted is None:
            self._trusted = ssl.create_default_context()
        return self._trusted if way.tls else None


class _Connection(asyncio.Protocol):
    """One connection, and the answer that is under way on it, if any."""

    def __init__(self, client: Client, way: Way) -> None:
        self.way = way
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: Response | None = None
        self._sent = True
        self._full = False
        self._since = self._loop.time()
        self._silence = SILENCE
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._poll = poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), POLLIN)
        self._timer = self._loop.call_later(min(SILENCE, IDLE), self._look)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._since = self._loop.time()
        if self._answer is None:
            self.abort()  # nobody has asked for anything
        elif not self._answer.feed(data):
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self._timer:
            self._timer.cancel()
        self._client.forget(self)
        if self._answer:
            self._answer.ends(f"the connection broke ({_words(error)})" if error else "")

    def pause_writing(self) -> None:
        """See asyncio."""
        self._full = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self._full = False
        if self._answer:
            self._answer.wake()

    def waits(self) -> None:
        """From now on something is to come."""
        self._since = self._loop.time()

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport:
            self._transport.resume_reading()

    def is_quiet(self) -> bool:
        """Whether it is open, and nothing has come that was not asked for: not even its end, which the event
        loop may not have seen yet."""
        if self._transport is None or self._transport.is_closing() or self._poll.poll(0):
            return False
        return self._loop.time() - self._since < IDLE

    def abort(self) -> None:
        """Close at once. What is still under way here is broken."""
        if self._transport:
            self._transport.abort()

    async def secure(self, context: ssl.SSLContext | None) -> None:
        """Speak TLS from now on."""
        if self._transport is None or context is None:
            raise Broken("closed")
        self._answer = None
        self._transport = await self._loop.start_tls(
            self._transport, self, context, server_hostname=self.way.host
        )

    async def exchange(
        self, method: str, head: bytes, body: bytes | Stream | None, silence: float = SILENCE
    ) -> Response:
        """Send a request; return its answer when the headers are there. Raises `Broken`."""
        answer = self._answer = Response(self, method)
        self._silence = silence
        try:
            await self._send(head, body, answer)
            await answer.begins()
        except BaseException:
            self.abort()
            raise
        return answer

    async def _send(self, head: bytes, body: bytes | Stream | None, answer: Response) -> None:
        if not isinstance(body, Stream) and (not body or len(body) <= PIECE):
            self._write(head + body if body else head)
            return
        self._sent, left = False, body.size if isinstance(body, Stream) else len(body)
        self._write(head)
        async for piece in body.chunks if isinstance(body, Stream) else _pieces(body):
            left -= len(piece)
            if answer.has_begun:  # a refusal that did not wait for the rest
                return
            self._write(piece)
            while self._full and not answer.has_begun:
                await answer.news()
        if left:
            raise Broken(f"the body has {abs(left)} bytes {'less' if left > 0 else 'more'} than announced")
        self._sent = True

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is None:
            raise Broken("the connection was closed while the request was sent")
        self._transport.write(data)

    def released(self, *, clean: bool) -> None:
        """The answer is no longer needed. `clean`: it came whole, and the server goes on listening."""
        self._answer = None
        if clean and self._sent and self._transport and not self._transport.is_closing():
            self._since = self._loop.time()
            self._client.keep(self)
        else:
            self.abort()

    def _look(self) -> None:
        """Give up what has been silent for too long; look again when it may be."""
        left = min(SILENCE, IDLE)
        if self._answer is None or self._answer.is_awaited:
            left = (self._silence if self._answer else IDLE) - (self._loop.time() - self._since)
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        if self._answer:
            self._answer.ends(f"not a byte within {self._silence:.0f} s", silent=True)
        self.abort()


def _head(method: str, target: str, headers: Mapping[str, str], more: str = "") -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a line end in a header")
    return f"{method} {target} HTTP/1.1\r\n{lines}{more}\r\n".encode(errors="surrogateescape")


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    """Yield `body` bit by bit, without a copy."""
    whole = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield whole[start : start + PIECE]


def _words(error: Exception) -> str:
    """Return what happened, without what it happened to."""
    if isinstance(error, TimeoutError) and not error.strerror:
        return f"no answer within {CONNECT_WITHIN:.0f} s"
    said = error.strerror if isinstance(error, OSError) else ""
    return said or type(error).__name__
