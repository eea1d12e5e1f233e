"""N deliveries at once; stop, drain; and one alone that may be what kills its workers. Knows no S3."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing

from common.queue.port import Consumer, Delivery, Lane

Handle = Callable[[Delivery], Coroutine[object, object, None]]

SUSPECT = 3
"""What came back unsettled so often is worked on alone: if it kills its worker, it takes nobody along."""

OTHERS_WITHIN = 60.0
"""Seconds for which a suspect waits for the others to end. A copy in parts may take longer: then it may die
with the suspect, once or twice, until it is a suspect itself."""

ALONE_FOR = 60.0
"""Seconds for which the others wait for a suspect: most are innocent, and may be large."""


class Pool:
    """Takes deliveries from each lane, at most `limits[lane]` at once, and hands them to `handle`."""

    def __init__(self, consumer: Consumer, handle: Handle, limits: Mapping[Lane, int]) -> None:
        self._consumer = consumer
        self._handle = handle
        self._limits = limits
        # The queue's own limit counts what is unsettled. After a lost channel that starts again from
        # nothing while the old attempts still run: these count them too.
        self._room = {lane: asyncio.Semaphore(limit) for lane, limit in limits.items()}
        self._running: set[asyncio.Task[None]] = set()
        self._suspects: list[Delivery] = []

    @property
    def in_hand(self) -> int:
        """How many deliveries are being handled now."""
        return len(self._running)

    async def run(self, stop: asyncio.Event, *, drain: float) -> int:
        """Work until `stop` is set, then drain for at most `drain` seconds.

        Returns the number of deliveries that were cut off; they come back to others. Raises what a
        queue that cannot be used at all raises (`ConfigError`).
        """
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stopped.done():
                await self._work(stopped)
                if self._suspects:
                    suspect, *others = self._suspects
                    self._suspects = []
                    for other in others:
                        await self._consumer.give_back(other)
                    await self._alone(suspect, stopped)
        finally:
            # First stop taking, so that nothing new begins; then let finish what has begun; only then may
            # the caller close the queue, which gives back what is still unsettled, and the stores last.
            stopped.cancel()
            cut_off = await self._drain(drain)
        return cut_off

    async def _work(self, stopped: asyncio.Task[bool]) -> None:
        """Take from every lane until a suspect comes or it is time to stop. What was not yet begun is given
        back: whoever dies with a suspect would otherwise die with that too."""
        takers = [asyncio.create_task(self._take(lane)) for lane in self._limits]
        try:
            await asyncio.wait([*takers, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for taker in takers:
                taker.cancel()
            ends = await asyncio.gather(*takers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _take(self, lane: Lane) -> None:
        """Begin what comes; return when a suspect has come."""
        room = self._room[lane]
        async with aclosing(self._consumer.deliveries(lane, self._limits[lane])) as deliveries:  # type: ignore[type-var]
            while True:
                await room.acquire()
                try:
                    delivery = await anext(deliveries)
                except BaseException:
                    room.release()
                    raise
                if delivery.returned >= SUSPECT:
                    room.release()
                    self._suspects.append(delivery)  # here, where it may be cancelled, nothing is waited for
                    return
                self._begin(delivery).add_done_callback(lambda _: room.release())

    def _begin(self, delivery: Delivery) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(self._handle(delivery))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _alone(self, suspect: Delivery, stopped: asyncio.Task[bool]) -> None:
        """Work on `suspect` when the others have ended, and let none begin before it has, within bounds."""
        await _ended(self._running, stopped, within=OTHERS_WITHIN)
        if stopped.done():
            await self._consumer.give_back(suspect)
        else:
            await _ended({self._begin(suspect)}, stopped, within=ALONE_FOR)

    async def _drain(self, patience: float) -> int:
        if not self._running:
            return 0
        _, late = await asyncio.wait(self._running, timeout=patience)
        for task in late:
            task.cancel()  # stays unsettled: never rejected, never acknowledged
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)


async def _ended(running: set[asyncio.Task[None]], stopped: asyncio.Task[bool], *, within: float) -> None:
    """Return when all of `running` have ended, or `stopped` has, or after `within` seconds."""
    if running:
        all_of_them = asyncio.ensure_future(asyncio.wait(set(running)))
        await asyncio.wait([all_of_them, stopped], timeout=within, return_when=asyncio.FIRST_COMPLETED)
        all_of_them.cancel()
