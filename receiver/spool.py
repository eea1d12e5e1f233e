"""The spool: a file beside the receiver that takes hooks while the broker is away, and gives them up later.

A record is acknowledged when it is durable, in the queue or here. What is here a `Drainer` moves to the
queue: published there first, deleted here then, so that a crash in between makes a duplicate and no gap.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from functools import partial

from common.errors import HookmirrorError, QueueAway
from common.queue.port import RETURNED, DeadLetter, Delivery, Done, Lane, Publisher, Queue, Retry
from common.telemetry import Action, log

PATIENCE = 1.0
"""Seconds for the queue to confirm, before a record goes to the spool: the sender waits meanwhile."""

AVOID = 5.0
"""Seconds for which a queue that failed is not asked on a sender's time; the drainer asks it on its own."""

PROBE = 1.0
"""Seconds between two tries of the drainer to reach an absent queue, and between its looks for burials."""

AT_ONCE = 64
"""Spooled records on their way to the queue at the same time."""

REPORT = 5.0
"""Seconds between two log lines that say how many records came and went."""


class SpoolingPublisher:
    """The queue's way in, with the spool behind it: raises `QueueAway` only when neither takes a record.

    `clock` is in seconds. `spooled` counts the records that the queue did not take.
    """

    def __init__(
        self, queue: Publisher, spool: Queue, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._avoid_until: float | None = None
        self.spooled = 0

    @property
    def away(self) -> bool:
        """Whether the queue has failed lately: records go to the spool without asking it."""
        return self._avoid_until is not None and self._clock() < self._avoid_until

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        """See the port."""
        await self._put(lambda to: to.publish(body, lane=lane, delay=delay))

    async def publish_all(self, bodies: Mapping[Lane, Collection[bytes]]) -> None:
        """See the port."""
        await self._put(lambda to: to.publish_all(bodies), sum(map(len, bodies.values())))

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        """See the port."""
        await self._put(lambda to: to.bury(body, lane=lane, why=why))

    async def _put(self, put: Callable[[Publisher], Awaitable[None]], count: int = 1) -> None:
        if not self.away:
            try:
                async with asyncio.timeout(PATIENCE):
                    await put(self._queue)
            except Exception as error:  # noqa: BLE001 - whatever it was, the record is not to be lost for it
                self.failed(error)
            else:
                self.answered()
                return
        # One that timed out may be in the queue all the same: then it is there twice, which does no harm.
        await put(self._spool)
        self.spooled += count

    async def check(self) -> None:
        """See the port: the spool takes what the queue does not."""
        await self._spool.check()

    def failed(self, error: Exception) -> None:
        """The queue has failed: leave it alone for a while."""
        if self._avoid_until is None:
            why = str(error) or "the queue has not confirmed in time"
            log(Action.QUEUE, f"{why}; hooks go to the spool meanwhile", level=logging.WARNING)
        self._avoid_until = self._clock() + AVOID

    def answered(self) -> None:
        """The queue has taken a record: it is back."""
        if self._avoid_until is not None:
            log(Action.QUEUE, "the queue is back, hooks go there again")
        self._avoid_until = None


class Drainer:
    """Moves what is in the spool to the queue, for ever, and finds out when an absent queue is back.

    One record at a time while the queue is away, many at once when it is there. Order is not kept.
    """

    def __init__(self, queue: Publisher, spool: Queue, publisher: SpoolingPublisher) -> None:
        self._queue = queue
        self._spool = spool
        self._publisher = publisher
        self._away: set[Lane] = set()
        self._drained: set[Lane] = set()
        self.drained = 0

    async def run(self) -> None:
        """Drain until cancelled. What was under way then stays in the spool."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(partial(self._drain_lanes, group)))
            group.create_task(self._for_ever(self._drain_burials))
            group.create_task(self._report())

    async def _drain_lanes(self, group: asyncio.TaskGroup) -> None:
        """Begin to drain each lane that has come to the spool."""
        for lane in (await self._spool.counts()).lanes:
            if lane not in self._drained:
                self._drained.add(lane)
                group.create_task(self._for_ever(partial(self._drain, lane)))

    async def _for_ever(self, drain: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await drain()
            except Exception as error:  # noqa: BLE001 - a drainer that ended would keep the records for ever
                log(Action.FAILED, f"the spool: {error!r}; trying again", level=logging.ERROR)
            await asyncio.sleep(PROBE)

    async def _drain(self, lane: Lane) -> None:
        """Move messages until one cannot be moved; while the queue is away, one as a probe."""
        probing = lane in self._away
        limit = 1 if probing else AT_ONCE
        async with (
            asyncio.TaskGroup() as group,
            aclosing(self._spool.deliveries(lane, limit)) as deliveries,  # type: ignore[type-var]
        ):
            async for delivery in deliveries:
                moving = group.create_task(self._move(delivery))
                if probing:
                    await moving
                if probing or lane in self._away:
                    break

    async def _move(self, delivery: Delivery) -> None:
        there = await self._try(self._queue.publish(delivery.body, lane=delivery.lane), delivery.lane)
        # Not counted: a record that waits for the broker for a week is none the worse for it.
        verdict = Done("drained") if there else Retry(PROBE, "the queue is away", counts=False)
        try:
            await self._spool.settle(delivery, verdict)
        except HookmirrorError as error:
            log(Action.LOST, f"left in the spool, comes back: {error}", level=logging.WARNING)

    async def _drain_burials(self) -> None:
        """Move the dead letters there are, until one cannot be moved."""
        while letters := await self._spool.buried(AT_ONCE):
            for letter in letters:
                if not await self._try(self._pass_on(letter), letter.lane):
                    return
                await self._spool.drop({letter.id})

    def _pass_on(self, letter: DeadLetter) -> Awaitable[None]:
        """Older versions buried here what receivers had died with too often. No worker has seen it: it is to
        blame for nothing, and goes to its lane."""
        if letter.why.startswith(RETURNED):
            return self._queue.publish(letter.body, lane=letter.lane)
        return self._queue.bury(letter.body, lane=letter.lane, why=letter.why)

    async def _try(self, put: Awaitable[None], lane: Lane) -> bool:
        """Whether the queue took it, in `lane`."""
        try:
            await put
        except Exception as error:  # noqa: BLE001 - it stays in the spool, and the log line says why
            self._away.add(lane)
            self._publisher.failed(error)
            return False
        self._away.discard(lane)
        self._publisher.answered()
        self.drained += 1
        return True

    async def _report(self) -> None:
        said = (0, 0)
        while True:
            await asyncio.sleep(REPORT)
            try:
                said = await self._say(*said)
            except QueueAway as error:
                log(Action.QUEUE, f"the spool: {error}", level=logging.WARNING)

    async def _say(self, spooled: int, drained: int) -> tuple[int, int]:
        """Log what has changed since it was so many, and return how many it is now."""
        now = self._publisher.spooled, self.drained
        if now == (spooled, drained):
            return now
        left = await waiting(self._spool)
        if came := now[0] - spooled:
            log(Action.SPOOLED, f"{came} records came to the spool", level=logging.WARNING, left=left)
        if went := now[1] - drained:
            log(Action.DRAINED, f"{went} records went from the spool to the queue", left=left)
        return now


async def waiting(spool: Queue) -> int:
    """Return how many records are in the spool. Raises `QueueAway` when it cannot be read."""
    counts = await spool.counts()
    return sum(counts.ready.values()) + counts.waiting + (counts.held or 0) + counts.dead
