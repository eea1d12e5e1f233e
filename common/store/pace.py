"""How fast a store is asked: limits that were configured, and patience when the store asks for it.

A `Meter` lets so many units a second pass, in the order in which they were asked for. A `Pace` is a
store's: requests by a meter, and one slowing down for the whole process, so that a store which answers
503 SlowDown is not asked again at once by everybody else.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

from common.errors import Throttled
from common.remembered import Remembered
from common.telemetry import Action, log

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

BURST = 0.05
"""Seconds' worth of units that may pass at once after a rest: timers are not exact, and what one of them
oversleeps is caught up."""

HOLD = 1.0
"""Seconds in which a store that asked for patience, and did not say how much, is asked nothing."""

LONGEST_HOLD = 30.0
"""Seconds; a store that asks for more is tried again after these."""

SHORT_HOLD = 10.0
"""The same where something has gone well since the last cut: it may have been meant for a few objects."""

SLOWEST = 1.0
"""Requests a second at which the slowing down ends."""

LEAST_SEEN = 10.0
"""Requests a second from which the first cut starts at least: a lone request says little of the load."""

RECOVERY = 20.0
"""Seconds in which a pace regains what one cut started from."""

LATELY = 5.0
"""Seconds within which two objects must be refused for everybody to slow down."""

SHARE = 20
"""One of so many requests of the last second must be refused too: a few bad objects are no busy store."""

PATIENCE = 25.0
"""Seconds for which a request waits for its turn: shorter than a worker's write may take in all."""


class Meter:
    """Lets `rate` units a second pass (None: any number), first come first served.

    What is larger than the rate passes too, and those behind it wait the longer. In any T seconds at
    most `rate * (T + BURST)` units pass, and one take more. `clock` is in seconds.
    """

    def __init__(
        self, rate: float | None = None, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.rate = math.inf if rate is None else rate
        self._clock = clock
        self._sleep = sleep
        self._line = asyncio.Lock()  # fair: whoever comes first is woken first
        self._due = -math.inf
        self._held = -math.inf

    async def take(self, units: float = 1) -> None:
        """Return when `units` may pass; whoever is cancelled while waiting takes nothing."""
        async with self._line:
            # Asked again after each sleep: a hold may have come meanwhile.
            while (wait := max(self._due, self._held) - self._clock()) > 0:
                await self._sleep(wait)
            self._due = max(self._due, self._clock() - BURST) + units / self.rate

    def take_if_free(self, units: float = 1) -> bool:
        """Let `units` pass if nobody waits and nothing is to be waited for; return whether they may."""
        now = self._clock()
        if self._line.locked() or max(self._due, self._held) > now:
            return False
        self._due = max(self._due, now - BURST) + units / self.rate
        return True

    def take_now(self, units: float = 1) -> float:
        """Let `units` pass before all that wait, who wait the longer for it. Return 0; or, while nothing may
        pass at all, for how many seconds, with nothing taken."""
        now = self._clock()
        if self._held > now:
            return self._held - now
        self._due = max(self._due, now - BURST) + units / self.rate
        return 0.0

    def hold(self, seconds: float) -> None:
        """Let nothing pass for `seconds` from now."""
        self._held = max(self._held, self._clock() + seconds)


class Pace:
    """How fast one store is asked by this process: at `limit` requests a second (None: as they come),
    and slower when it asks for that.

    On Throttled the pace is cut to half and everybody waits for as long as the store asked; while
    answers are good it grows back steadily until the cut is forgotten. Requests sent before a cut say
    nothing of the pace after it, so a hundred refusals of one burst are one cut.
    """

    def __init__(
        self,
        limit: float | None = None,
        *,
        name: str = "",
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        patience: float = PATIENCE,
    ) -> None:
        self._limit = math.inf if limit is None else limit
        self._name = name
        self._clock = clock
        self._patience = patience
        self._meter = Meter(limit, clock=clock, sleep=sleep)
        self._turns: deque[float] = deque()  # when, of the last second; how fast we are
        self._allowed = math.inf
        self._before = math.inf  # the pace that the last cut started from
        self._cut_at = self._grown_at = -math.inf
        self._refused: Remembered[float] = Remembered()  # when which object was refused last
        self._lately: dict[str, float] = {}  # the refusals of late that may tell of the store
        self._well = -math.inf  # when the last request that went well was sent

    @property
    def rate(self) -> float:
        """Requests a second that may go out now; infinity for any number."""
        return self._meter.rate

    async def turn(self) -> float:
        """Return when the next request may go out; the value, its moment, goes to `slowed` or `went_well`.

        Raises `Throttled` when it has not come within `patience` seconds: the delivery is better off in
        the queue. A signature is to be made after the turn, lest it grow old.
        """
        if self._meter.take_if_free():  # a timeout that is not needed would cost more than all else here
            return self._noted()
        try:
            async with asyncio.timeout(self._patience):
                await self._meter.take()
        except TimeoutError as error:
            raise Throttled(
                f"{self._name}: no turn to ask within {self._patience:.0f} s", counts=False
            ) from error
        return self._noted()

    def overtake(self) -> float:
        """Take a turn at once, like `turn`, for the question whether a bucket answers at all: asked seldom,
        and whoever asks it must not take a long line for a silent store. Raises `Throttled` while the store
        is left in peace."""
        if left := self._meter.take_now():
            raise Throttled(f"{self._name}: the store asked for patience", retry_after=left, counts=False)
        return self._noted()

    def _noted(self) -> float:
        now = self._clock()
        self._turns.append(now)
        while now - self._turns[0] > 1:
            self._turns.popleft()
        return now

    def slowed(self, sent: float, retry_after: float = 0, *, about: str | None = None) -> None:
        """The store refused a request that was `sent` then, and asks for `retry_after` seconds of rest.

        `about` is the object that the request was about, None for no one in particular. A single one that is
        refused says nothing of the store, nor do several that are refused again and again while others go
        well: their tasks wait, and nobody else.
        """
        if about is not None and self._alone(about):
            return
        longest = LONGEST_HOLD if self._well <= self._cut_at else SHORT_HOLD
        self._meter.hold(min(retry_after or HOLD, longest))
        if sent <= self._cut_at:
            return
        now = self._clock()
        seen = max(LEAST_SEEN, self._in_the_last_second(now))
        self._before = min(self._limit, seen) if math.isinf(self._allowed) else self._allowed
        self._cut_at = self._grown_at = now
        self._allow(max(self._before / 2, SLOWEST))
        log(
            Action.THROTTLED,
            f"the store asks for patience: at most {self._allowed:.0f} requests a second now",
            level=logging.WARNING,
            store=self._name,
        )

    def _alone(self, about: str) -> bool:
        """Whether the refusal is the object's own affair: others have gone well since it was refused before,
        or hardly another was refused of late."""
        now, before = self._clock(), self._refused.get(about)
        self._refused.put(about, now)
        if before is not None and self._well > before:
            return True
        self._lately = {one: at for one, at in self._lately.items() if now - at <= LATELY} | {about: now}
        count = len(self._lately)
        return count < 2 or count * SHARE < self._in_the_last_second(now)

    def _in_the_last_second(self, now: float) -> int:
        return sum(now - turn <= 1 for turn in self._turns)

    def went_well(self, sent: float) -> None:
        """The store answered a request that was `sent` then."""
        self._well = max(self._well, sent)
        if math.isinf(self._allowed) or sent <= self._cut_at:
            return
        now = self._clock()
        # A long silence proves no more than a second of good answers.
        grown = self._allowed + self._before * min(now - self._grown_at, 1.0) / RECOVERY
        self._grown_at = now
        self._allow(math.inf if grown > min(2 * self._before, self._limit) else grown)
        if math.isinf(self._allowed):
            log(Action.THROTTLED, "the store takes requests as before", store=self._name)

    def _allow(self, rate: float) -> None:
        self._allowed = rate
        self._meter.rate = min(rate, self._limit)
