"""What a server bears from those who connect: slow, endless or malformed requests, and too many at once.

uvicorn bounds none of that before a request is handed on: a head may take for ever and be as long as it
likes, so may a body that nobody reads any more, and `limit_concurrency` refuses good requests for the sake
of connections that have not said anything yet.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes. `body_within` is of the connection: who reads a body may well have less patience."""

    connections: int = 800
    head_within: float = 5.0
    body_within: float = 6.0
    idle_within: float = 5.0
    head: int = 16 * 1024
    message: int = 2 * 2**20
    """A whole request, in the bytes of its transfer encoding. The rest of a body that was refused is let run
    in up to here: an answer is lost when the connection is closed on a sender that is still sending."""


Refused = Callable[[str], None]
"""Takes note of a refusal, by its reason: `slow`, `too_large`, `not_http` or `crowded`."""

_ANSWERS = {
    "slow": (HTTPStatus.REQUEST_TIMEOUT, "too slow", ""),
    "too_large": (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too large", ""),
    "not_http": (HTTPStatus.BAD_REQUEST, "not HTTP", ""),
    "crowded": (HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "retry-after: 5\r\n"),
}


_HOP = {b"upgrade", b"http2-settings"}
"""What belongs to an upgrade, in lower case."""


class _HeadTooLarge(Exception):
    pass


def _stays(header: tuple[bytes, bytes]) -> bytes:
    """Return the line of a header without what asks for an upgrade; empty when nothing else is in it."""
    name, value = header
    if name == b"connection":
        value = b",".join(token for token in value.split(b",") if token.strip().lower() not in _HOP)
    return b"" if name in _HOP or not value else b"%s: %s" % (name, value)


class Guard(HttpToolsProtocol):
    """uvicorn's protocol within `limits`. Each refusal is told to `refused`."""

    def __init__(self, *args: Any, limits: Limits, refused: Refused, **more: Any) -> None:
        super().__init__(*args, **more)
        self.timeout_keep_alive = limits.idle_within  # type: ignore[assignment] # it goes to call_later
        self._limits = limits
        self._refused = refused
        self._deadline: asyncio.TimerHandle | None = None
        self._begun = self._headed = self._ended = 0
        """Requests on this connection that have begun, whose head is complete, and that are complete."""
        self._timed = (0, 0, 0)
        self._head = self._message = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse("crowded")
        else:
            self._deadline = self.loop.call_later(self._limits.head_within, self._expired)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer, which holds us."""
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes as long as they are within the limits."""
        if self.transport.is_closing():
            return
        self._message += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self.transport.is_closing():
            return
        if self._begun > self._headed and self._message > self._limits.head:
            self._refuse("too_large")
        elif self._begun > self._ended and self._message > self._limits.message:
            self.transport.close()  # it was answered long ago, or its framing is larger than any body
        else:
            self._set_deadline()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _stay(self, rest: bytes) -> None:
        """Read a request that asks for an upgrade as if it did not, as HTTP allows: curl --http2 and Java's
        client ask on every one. The parser has ended at its head; `rest` is the body, and what comes behind.
        """
        if self.parser.get_method() == b"CONNECT":  # which is an upgrade whatever its headers say
            self.send_400_response("")
            return
        version, lines = self.parser.get_http_version().encode(), list(map(_stays, self.headers))
        head = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version),
            *filter(None, lines),
            b"",
            rest,
        ]
        self._begun -= 1
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"\r\n".join(head))

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begun += 1
        self._head = self._message = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        self._weigh(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind a body."""
        self._weigh(len(name) + len(value) + 32)  # as HTTP/2 counts: a short one takes memory too
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: from here on the application has its say."""
        if self.parser.should_upgrade():
            return  # it comes again, see `_stay`
        self._headed += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self.parser.should_upgrade():
            return
        self._ended += 1
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser has not taken."""
        self._refuse("too_large" if self._head > self._limits.head else "not_http")

    def _weigh(self, size: int) -> None:
        self._head += size
        if self._head > self._limits.head:
            raise _HeadTooLarge  # the parser ends with it, and uvicorn calls send_400_response

    def _set_deadline(self) -> None:
        """Give what is under way its time, once: bytes that come in bring no more of it."""
        at = (self._begun, self._headed, self._ended)
        if self._begun > self._headed:
            seconds = self._limits.head_within
        elif self._begun > self._ended:
            seconds = self._limits.body_within
        elif self._is_answering():
            self._forget_deadline()
            return
        else:  # bytes that begin no request, after which uvicorn's own timer for the idle is off
            seconds = self._limits.head_within
        if self._deadline is None or at != self._timed:
            self._forget_deadline()
            self._timed = at
            self._deadline = self.loop.call_later(seconds, self._expired)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._begun > self._headed:
            self._refuse("slow")
            return
        if not self._begun:
            self._refused("slow")
        # Of a body, whoever reads it has answered before, or never will; and an answer to a request that has
        # not begun would be taken for that of the next.
        self.transport.close()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None until the first request, whatever its annotation says
        return cycle is not None and not cycle.response_complete

    def _refuse(self, reason: str) -> None:
        """Answer with the reason, unless another answer is under way, and close."""
        self._forget_deadline()
        self._refused(reason)
        if not self._is_answering():
            status, words, more = _ANSWERS[reason]
            body = f'{{"error": "{words}"}}'
            self.transport.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n{more}"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
            )
        self.transport.close()
