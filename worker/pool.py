"""N deliveries at once; stop, drain. Knows no S3."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing

from common.queue.port import Consumer, Delivery, Lane

Handle = Callable[[Delivery], Coroutine[object, object, None]]


class Pool:
    """Takes deliveries from each lane, at most `limits[lane]` at once, and hands them to `handle`."""

    def __init__(self, consumer: Consumer, handle: Handle, limits: Mapping[Lane, int]) -> None:
        self._consumer = consumer
        self._handle = handle
        self._limits = limits
        self._running: set[asyncio.Task[None]] = set()

    @property
    def in_hand(self) -> int:
        """How many deliveries are being handled now."""
        return len(self._running)

    async def run(self, stop: asyncio.Event, *, drain: float) -> int:
        """Work until `stop` is set, then drain for at most `drain` seconds.

        Returns the number of deliveries that were cut off; they come back to others. Raises what a
        queue that cannot be used at all raises (`ConfigError`).
        """
        takers = [asyncio.create_task(self._take(lane, limit)) for lane, limit in self._limits.items()]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*takers, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First stop taking, so that nothing new begins; then let finish what has begun; only then may
            # the caller close the queue, which gives back what is still unsettled, and the stores last.
            stopped.cancel()
            for taker in takers:
                taker.cancel()
            ends = await asyncio.gather(*takers, return_exceptions=True)
            cut_off = await self._drain(drain)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        return cut_off

    async def _take(self, lane: Lane, limit: int) -> None:
        # The queue's own limit counts what is unsettled. After a lost channel that starts again from
        # nothing while the old attempts still run: the semaphore counts those too.
        room = asyncio.Semaphore(limit)
        async with aclosing(self._consumer.deliveries(lane, limit)) as deliveries:  # type: ignore[type-var]
            async for delivery in deliveries:
                await room.acquire()
                task: asyncio.Task[None] = asyncio.create_task(self._handle(delivery))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                task.add_done_callback(lambda _: room.release())

    async def _drain(self, patience: float) -> int:
        if not self._running:
            return 0
        _, late = await asyncio.wait(self._running, timeout=patience)
        for task in late:
            task.cancel()  # stays unsettled: never rejected, never acknowledged
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)
