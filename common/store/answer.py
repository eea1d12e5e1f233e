"""An HTTP answer under way: parsed as it comes, read as it is wanted."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from httptools import HttpParserError, HttpResponseParser

MAX_HEAD = 2**16
"""Bytes of an answer's headers."""

_TOO_LARGE = f"the headers have more than {MAX_HEAD} bytes"

HIGH, LOW = 2**19, 2**17
"""Bytes read ahead of whoever reads a body, at which no more is read for a while; and when it goes on."""


class Broken(Exception):
    """No whole answer came to a request that was sent, or may have been. `unheard`: not a byte of one, and
    the connection is closed."""

    def __init__(self, message: str, *, unheard: bool = False) -> None:
        super().__init__(message)
        self.unheard = unheard


class Line(Protocol):
    """The connection on which an answer comes."""

    def waits(self) -> None:
        """Somebody waits from now on."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def released(self, *, clean: bool) -> None:
        """The answer is no longer needed."""


class Response:
    """One answer. `headers` have their names in lower case; bytes that are no UTF-8 are in them as halves of
    surrogate pairs."""

    def __init__(self, line: Line, method: str) -> None:
        self.method = method
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_begun = False
        """The headers are there."""
        self._line: Line | None = line
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._fed = self._head = 0
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._broken: Broken | None = None
        self._keeps = False
        self._news: asyncio.Future[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what comes next."""
        return self._news is not None

    async def begins(self) -> None:
        """Return when the headers are there."""
        while not self.has_begun:
            await self.news()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises `Broken` when it does not come whole."""
        while chunk := await self._next():
            yield chunk

    async def read(self, most: float = math.inf) -> bytes:
        """Return the body; of one longer than `most` bytes the beginning. Raises `Broken`."""
        came, size = [], 0
        while size <= most and (chunk := await self._next()):
            came.append(chunk)
            size += len(chunk)
        return came[0] if len(came) == 1 else b"".join(came)

    def release(self) -> None:
        """Let go of the answer, read or not."""
        if self._line:
            self._line.released(clean=self._ended and self._keeps)
            self._line = None

    def feed(self, data: bytes) -> bool:
        """Take what came. False when it is no answer: the connection is of no more use."""
        if self._parser is None:
            self._keeps = False  # more than was asked for
            return True
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            if not self._ended:
                self.ends(_TOO_LARGE if self._head > MAX_HEAD else "the answer is no HTTP")
                return False
            self._keeps = False  # the answer is whole: what stands behind it is nobody's
        if not self.has_begun and self._fed > MAX_HEAD:
            self.ends(_TOO_LARGE)
            return False
        if self._ended:
            self._parser = None  # it refers to this
        elif self._held > HIGH and not self._paused and self._line:
            self._paused = True
            self._line.pause()
        self.wake()
        return True

    def ends(self, why: str = "", *, silent: bool = False) -> None:
        """Nothing more will come: the connection was closed, or is given up because of `why`."""
        if self._ended or self._broken:
            return
        if self.has_begun and not why and self._lasts_until_closed:
            self._ended = True
        else:
            unheard = not silent and not self._fed
            where = "the body broke off" if self.has_begun else "no answer"
            self._broken = Broken(f"{where}: {why or 'the connection was closed'}", unheard=unheard)
        self._keeps = False
        self.wake()

    async def news(self) -> None:
        """Wait until there is something new. Raises `Broken` when there never will be."""
        if self._broken:
            raise self._broken
        if self._line:
            self._line.waits()
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None
        if self._broken:
            raise self._broken

    def wake(self) -> None:
        """There is something new."""
        if self._news and not self._news.done():
            self._news.set_result(None)

    async def _next(self) -> bytes:
        """Return what comes next of the body, b"" at its end."""
        while not self._chunks:
            if self._ended:
                return b""
            await self.news()
        chunk = self._chunks.popleft()
        self._held -= len(chunk)
        if self._paused and self._held < LOW and self._line:
            self._paused = False
            self._line.resume()
        return chunk

    @property
    def _lasts_until_closed(self) -> bool:
        return "content-length" not in self.headers and "transfer-encoding" not in self.headers

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; of several with one name the values are joined, as HTTP has it."""
        if self.has_begun:
            return  # behind a chunked body, or of an answer nobody asked for
        self._head += len(name) + len(value) + 4
        if self._head > MAX_HEAD:
            raise ValueError(_TOO_LARGE)  # httptools makes an HttpParserError of it
        key, text = name.decode("latin-1").lower(), value.strip(b" \t").decode(errors="surrogateescape")
        self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """All headers are there, of this answer or of one that only says that it is under way."""
        if self.has_begun or self._parser is None:
            self._keeps = False
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self.status, self.has_begun = status, True
        self._keeps = self._parser.should_keep_alive()
        tunnel = self.method == "CONNECT" and status == 200
        self._ended = self.method == "HEAD" or tunnel or status in {204, 304}

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if self._ended:
            self._keeps = False  # of an answer that has none
            return
        self._chunks.append(data)
        self._held += len(data)

    def on_message_complete(self) -> None:
        """The end of the answer, or of one that only says that it is under way."""
        if self.has_begun:
            self._ended = True
