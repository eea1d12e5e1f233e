"""A proxy before an S3 server that makes the trouble of a bad week, by rate and from a seed."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

import aiohttp
from aiohttp import web
from yarl import URL

LATENCY = (0.02, 0.4)
"""Seconds from and to which a slow request waits before it is sent on."""

LATE = (0.3, 2.0)
"""Seconds from and to which a write waits whose client has been cut off."""


class Fault(StrEnum):
    """What can happen to a request."""

    SLOW = "slow"
    RESET = "reset"
    """The connection is cut, and nothing was sent on."""
    UNANSWERED = "unanswered"
    """It was sent on and took effect; the connection is cut before the answer."""
    LATE = "late"
    """A write: the connection is cut now, the write lands a while later."""
    INTERNAL_ERROR = "500"
    SLOW_DOWN = "503"
    ACCESS_DENIED = "403"
    BUCKET = "bucket"
    """One of the three answers above, to a question about the bucket itself."""
    TRUNCATED = "truncated"
    FLIPPED = "flipped"
    """One bit of an object read is another."""
    FLIPPED_IN = "flipped in"
    """One bit of an object written is another: the store is to refuse it."""


ANSWERS = {
    Fault.INTERNAL_ERROR: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.ACCESS_DENIED: (403, "AccessDenied"),
}

Rates = Mapping[Fault, int]
"""How seldom each fault comes: in one of so many of the requests that it can befall, on average."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def about_bucket(self) -> bool:
        """Whether it is about a bucket rather than an object."""
        return "/" not in self.path.partition("?")[0].strip("/")

    @property
    def writes(self) -> bool:
        """Whether it changes an object, or a part of one."""
        return self.method in {"PUT", "DELETE"} or (self.method == "POST" and "uploadId=" in self.path)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets. `cut` bytes at the end of the body do not arrive, and the connection is gone."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int = 0


class _Dice:
    """Says when a fault comes again: after 1 to 2 * `rate` - 1 chances, so that it comes at all."""

    def __init__(self, rate: int, seed: str) -> None:
        self._rate = rate
        self.rng = random.Random(seed)
        self._left = self._draw()

    def _draw(self) -> int:
        return self.rng.randint(1, 2 * self._rate - 1)

    def falls(self) -> bool:
        """Take one chance."""
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._draw()
        return True


class Faults:
    """Passes requests on whole, and each fault befalls some of them. Every request that was sent on runs
    to its end, whether its client still lives or not.

    Each fault has a random source of its own, from `seed` and its name: which of the requests that it
    can befall it does befall depends on nothing else.
    """

    def __init__(self, upstream: str, rates: Rates, seed: str) -> None:
        self._upstream = upstream
        self._dice = {fault: _Dice(rate, f"{seed}/{fault}") for fault, rate in rates.items() if rate}
        self._session: aiohttp.ClientSession | None = None
        self._running: set[asyncio.Task[Answer | None]] = set()
        self.endpoint = ""
        self.taken = 0
        """Requests so far."""
        self.done: Counter[Fault] = Counter()
        """How often each fault came."""
        self.orphans = 0
        """Writes that were carried out after their client had gone."""

    def calm(self) -> None:
        """Make no more trouble. Late writes that are under way still land."""
        self._dice.clear()

    @property
    def busy(self) -> int:
        """Requests under way, those whose client is gone too."""
        return len(self._running)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take a request, send it on perhaps, answer perhaps."""
        try:
            return await self._handle(request)
        except ConnectionError:
            return web.Response()  # nobody is there to read it

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.taken += 1
        asked = Asked(request.method, request.raw_path, dict(request.headers), body)
        # A task of its own: what was sent on is to go on when its client is gone.
        answer = await asyncio.shield(self._spawn(asked))
        gone = request.transport is None or request.transport.is_closing()
        self.orphans += gone and asked.writes
        if answer is None:
            return self._hang_up(request)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if asked.method != "HEAD":  # its Content-Length tells of a body that does not come
            response.content_length = len(answer.body)
        await response.prepare(request)
        if asked.method != "HEAD":
            await response.write(answer.body[: len(answer.body) - answer.cut])
        return self._hang_up(request, response) if answer.cut else response

    @staticmethod
    def _hang_up(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        if request.transport is not None:
            (request.transport.close if response else request.transport.abort)()
        return response or web.StreamResponse()

    def _spawn(self, asked: Asked, *, late: bool = False) -> asyncio.Task[Answer | None]:
        task = asyncio.create_task(self._land(asked) if late else self._serve(asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _befalls(self, fault: Fault) -> bool:
        dice = self._dice.get(fault)
        falls = dice is not None and dice.falls()
        self.done[fault] += falls
        return falls

    def _within(self, fault: Fault, low: float, high: float) -> float:
        """Draw a number from the fault's random source."""
        return self._dice[fault].rng.uniform(low, high) if fault in self._dice else low

    async def _serve(self, asked: Asked) -> Answer | None:
        """Return the answer; None when the connection is to be cut."""
        if asked.about_bucket:
            if self._befalls(Fault.BUCKET):
                return _refusal(self._dice[Fault.BUCKET].rng.choice(list(ANSWERS)))
            return await self._forward(asked)
        if self._befalls(Fault.SLOW):
            await asyncio.sleep(self._within(Fault.SLOW, *LATENCY))
        for fault in ANSWERS:
            if self._befalls(fault):
                return _refusal(fault)
        return None if self._befalls(Fault.RESET) else await self._effect(asked)

    async def _effect(self, asked: Asked) -> Answer | None:
        """Send it on, now or late, whole or not; return the answer, None when the connection is to be cut."""
        if asked.writes and self._befalls(Fault.LATE):
            self._spawn(asked, late=True)
            return None
        if asked.method == "PUT" and asked.body and self._befalls(Fault.FLIPPED_IN):
            asked = replace(asked, body=self._flip(asked.body, Fault.FLIPPED_IN))
        answer = await self._forward(asked)
        return None if self._befalls(Fault.UNANSWERED) else self._spoilt(asked, answer)

    def _spoilt(self, asked: Asked, answer: Answer) -> Answer:
        if asked.method != "GET" or answer.status not in {200, 206} or not answer.body:
            return answer
        if self._befalls(Fault.TRUNCATED):
            return replace(answer, cut=int(self._within(Fault.TRUNCATED, 1, len(answer.body))))
        if self._befalls(Fault.FLIPPED):
            return replace(answer, body=self._flip(answer.body, Fault.FLIPPED))
        return answer

    def _flip(self, body: bytes, fault: Fault) -> bytes:
        place = int(self._within(fault, 0, len(body) - 1))
        return b"%b%c%b" % (body[:place], body[place] ^ 1, body[place + 1 :])

    async def _land(self, asked: Asked) -> Answer | None:
        await asyncio.sleep(self._within(Fault.LATE, *LATE))
        self.orphans += 1
        return await self._forward(asked)

    async def _forward(self, asked: Asked) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
            )
        url = URL(f"{self._upstream}{asked.path}", encoded=True)
        async with self._session.request(
            asked.method, url, headers=asked.headers, data=asked.body, allow_redirects=False
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k not in {"Transfer-Encoding", "Connection"}}
            return Answer(answer.status, kept, await answer.read())

    async def close(self) -> None:
        """Let what was sent on end, then close the connections."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


def _refusal(fault: Fault) -> Answer:
    status, code = ANSWERS[fault]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>As drawn.</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)


@asynccontextmanager
async def faults(upstream: str, rates: Rates, seed: str) -> AsyncIterator[Faults]:
    """A proxy on a free port of loopback, before the server at `upstream`."""
    proxy = Faults(upstream, rates, seed)
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    proxy.endpoint = f"http://{host}:{port}"
    try:
        yield proxy
    finally:
        proxy.calm()
        await proxy.close()
        await runner.cleanup()
