"""The bytes of one read: under a budget, and checked against what the source promised."""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from common.errors import Corrupt, StoreAway
from common.store.pace import Meter
from common.store.port import Reading

READ_WITHIN = 240.0
"""Seconds for a body to arrive: RabbitMQ takes a delivery back that is held for long."""

_MD5 = re.compile(r"[0-9a-f]{32}")


class Budget:
    """Bytes of object data in memory at once, first come first served.

    A plain semaphore counts one at a time; here an object takes its size, and a large one that waits
    is not overtaken for ever by small ones.
    """

    def __init__(self, size: int) -> None:
        self._free = self.size = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of the budget (at most all of it) inside the block."""
        size = min(size, self.size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            # Either its bytes come back, or those behind it no longer wait for it.
            self._give(size if turn.done() and not turn.cancelled() else 0)
            raise
        try:
            yield
        finally:
            self._give(size)

    def _give(self, size: int) -> None:
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif size <= self._free:
                self._waiting.popleft()
                self._free -= size
                turn.set_result(None)
            else:
                return


class InOrder:
    """The MD5 of a whole body whose parts come in any order: each waits for its turn."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._next = 1
        self._turn = asyncio.Condition()
        self._given_up = False

    async def add(self, number: int, body: bytes) -> None:
        """Take part `number` (from 1) when all before it have been taken."""
        async with self._turn:
            await self._turn.wait_for(lambda: self._next == number or self._given_up)
            await asyncio.to_thread(self._md5.update, body)
            self._next += 1
            self._turn.notify_all()

    async def give_up(self) -> None:
        """Some part will not come: keep none of the others waiting. The digest is that of nothing then."""
        async with self._turn:
            self._given_up = True
            self._turn.notify_all()

    def digest(self) -> str:
        """Return the MD5 of what was taken, in hex."""
        return self._md5.hexdigest()


@asynccontextmanager
async def turn(budget: Budget, size: int, meter: Meter, *, within: float) -> AsyncIterator[bool]:
    """Hold `size` bytes of `budget` inside the block, once `meter` lets them pass.

    Yields False, with nothing held, when that has not come about within so many seconds: on a slow route
    the line is long, and RabbitMQ takes a delivery back that is held for long.
    """
    async with AsyncExitStack() as held:
        try:
            async with asyncio.timeout(within):
                await held.enter_async_context(budget.take(size))
                await meter.take(size)
        except TimeoutError:
            await held.aclose()
            came = False
        else:
            came = True
        yield came


async def fetch(reading: Reading) -> bytes:
    """Return the body being read, proven to be that of its state: `Corrupt` when its MD5 is not the ETag.

    An ETag that is no MD5 (of a multipart or an encrypted object) proves nothing and is let pass.
    """
    state = reading.state
    try:
        async with asyncio.timeout(READ_WITHIN):
            body = await reading.body()
    except TimeoutError as error:
        raise StoreAway(f"the source has not sent {state.size} bytes within {READ_WITHIN:.0f} s") from error
    if _MD5.fullmatch(state.etag) and not state.opaque:
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if digest != state.etag:
            raise Corrupt(f"the bytes have MD5 {digest}, the source says {state.etag}")
    return body
