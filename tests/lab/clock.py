"""Virtual time: it moves when it is told to, and then wakes whoever has slept long enough."""

import asyncio
import heapq
import itertools


class Clock:
    """The time in seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def __call__(self) -> float:
        return self.now

    @property
    def next(self) -> float:
        """When the next sleeper is to be woken; infinity for never."""
        return self._sleepers[0][0] if self._sleepers else float("inf")

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds have passed."""
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._count), awake))
        await awake

    async def pass_(self, seconds: float) -> None:
        """Let so many seconds pass."""
        await self.pass_until(self.now + seconds)

    async def pass_until(self, until: float) -> None:
        """Let time pass until then."""
        while self._sleepers and self._sleepers[0][0] <= until:
            self.now, _, awake = heapq.heappop(self._sleepers)
            if not awake.done():
                awake.set_result(None)
            await self.others()
        self.now = max(self.now, until)

    @staticmethod
    async def others() -> None:
        """Let everybody go on who can."""
        for _ in range(20):
            await asyncio.sleep(0)
