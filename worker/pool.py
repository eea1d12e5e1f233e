"""Many deliveries at once, from many lanes; stop, drain; and one alone that may be what kills its workers.
Knows no S3."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import aclosing

from common.queue.port import Consumer, Delivery, Lane
from worker.fair import Fair, Limit
from worker.gate import Gate

Handle = Callable[[Delivery], Coroutine[object, object, None]]

SUSPECT = 3
"""What came back unsettled so often is worked on alone: if it kills its worker, it takes nobody along."""

OTHERS_WITHIN = 60.0
"""Seconds for which a suspect waits for the others to end. A copy in parts may take longer: then it may die
with the suspect, once or twice, until it is a suspect itself."""

ALONE_FOR = 60.0
"""Seconds for which the others wait for a suspect: most are innocent, and may be large."""


TURN_WITHIN = 30.0
"""Seconds for which a delivery, and those that came behind it, wait for a place before others may have them:
RabbitMQ takes back what is held for 30 minutes, and counts it as returned."""


class Pool:
    """Takes deliveries from `lanes`, fairly, in all at most `places` at once and of each at most its `limit`,
    and hands them to `handle`. `gate` tells of a route whether its lanes are taken from."""

    def __init__(
        self,
        consumer: Consumer,
        handle: Handle,
        lanes: Collection[Lane],
        places: int,
        limit: Limit,
        gate: Callable[[str], Gate] = lambda _: Gate(),
    ) -> None:
        self._consumer = consumer
        self._handle = handle
        self._gates = {lane: gate(lane.route) for lane in lanes}
        self._limit = limit
        self._fair = Fair(places, limit)
        self._waiting: dict[Lane, asyncio.Future[None]] = {}
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
        takers = [asyncio.create_task(self._serve(lane)) for lane in self._gates]
        try:
            await asyncio.wait([*takers, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for taker in takers:
                taker.cancel()
            ends = await asyncio.gather(*takers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _serve(self, lane: Lane) -> None:
        """Take from `lane` whenever its gate is open; return when a suspect has come."""
        gate = self._gates[lane]
        while True:
            await gate.opened.wait()
            taking, closed = asyncio.create_task(self._take(lane)), asyncio.create_task(gate.closed.wait())
            try:
                await asyncio.wait({taking, closed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                closed.cancel()
                await _end(taking)
            if not taking.cancelled():
                taking.result()
            if self._suspects:
                return

    async def _take(self, lane: Lane) -> None:
        """Begin what comes; return when a suspect has come, when the lane's limit has changed, or when the
        line has been long for long: then what came and has not begun goes back to others."""
        loop = asyncio.get_running_loop()
        until, limit = loop.time() + TURN_WITHIN, self._limit(lane)
        async with aclosing(self._consumer.deliveries(lane, limit)) as deliveries:  # type: ignore[type-var]
            async for delivery in deliveries:
                if delivery.returned >= SUSPECT:
                    self._suspects.append(delivery)  # here, where it may be cancelled, nothing is waited for
                    return
                if not self._waiting and self._fair.may(lane):
                    self._fair.take(lane)
                elif not await self._turn(lane, delivery):
                    return
                self._begin(delivery, lane)
                if self._limit(lane) != limit or (self._waiting and loop.time() > until):
                    return

    def limit_of(self, lane: Lane) -> int:
        """How many of `lane` may be in hand at once now."""
        return self._limit(lane)

    def in_hand_of(self, lane: Lane) -> int:
        """How many of the deliveries that are being handled are of `lane`; one alone is of none."""
        return self._fair.taken_by(lane)

    async def _turn(self, lane: Lane, delivery: Delivery) -> bool:
        """Wait for a place; False when there was none for long, and `delivery` has been given back."""
        turn = self._waiting[lane] = asyncio.get_running_loop().create_future()
        self._next()
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._freed(lane)
            await self._consumer.give_back(delivery)
            if not isinstance(error, TimeoutError):
                raise
            return False
        finally:
            del self._waiting[lane]
        return True

    def _next(self) -> None:
        """Give the places that are free to those who wait."""
        while lane := self._fair.next(lane for lane, turn in self._waiting.items() if not turn.done()):
            self._fair.take(lane)
            self._waiting[lane].set_result(None)

    def _freed(self, lane: Lane) -> None:
        self._fair.free(lane)
        self._next()

    def _begin(self, delivery: Delivery, lane: Lane | None = None) -> asyncio.Task[None]:
        """Begin the work; in the end the place is free that `lane` has taken for it."""
        task: asyncio.Task[None] = asyncio.create_task(self._handle(delivery))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if lane is not None:
            task.add_done_callback(lambda _: self._freed(lane))
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


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel `task` and return when it has ended, even when cancelled meanwhile: what it took goes back."""
    task.cancel()
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def _ended(running: set[asyncio.Task[None]], stopped: asyncio.Task[bool], *, within: float) -> None:
    """Return when all of `running` have ended, or `stopped` has, or after `within` seconds."""
    if running:
        all_of_them = asyncio.ensure_future(asyncio.wait(set(running)))
        await asyncio.wait([all_of_them, stopped], timeout=within, return_when=asyncio.FIRST_COMPLETED)
        all_of_them.cancel()
