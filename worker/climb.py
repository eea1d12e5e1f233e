"""How many tasks of one lane at once, found out: more while that gets more done. Pure; `clock` is in seconds.

Time is cut into windows. One in which the limit was reached for most of the time is held against the one
before: after a step up the rate must have grown, else the step is taken back and the next is a while away.
A window with failures of the stores, with a plea for patience, or with attempts that take twice as long as at
the last step up and get no more done, is a step down.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from common.errors import RouteDown, StoreAway, Throttled, TryAgain
from common.queue.port import Lane
from worker.attempt import Attempted

START, LEAST, MOST = 32, 4, 512
"""How many at once at first, at the least and at the most."""

WINDOW = 1.0
"""Seconds of a window at least. It is longer until as many attempts have ended as may run at once."""

FIRST_UP, UP, DOWN = 2.0, 1.25, 0.7
"""What a step up and a step down multiply the limit by; the first steps up are long ones."""

GAIN, MUCH = 1.04, 1.3
"""By so much the rate must grow for a step up to stay, and for the next one to be a long one again."""

REST = 20.0
"""Seconds from a step that was taken back, or a step down, to the next step up."""

FAILING = 0.1
"""The share of attempts that fail at a store, from which on it is given way."""

SLOWER = 2.0
"""So many times as long as before an attempt takes, from which on it is given way."""


@dataclass(slots=True)
class _Window:
    began: float
    ended: int = 0
    full: int = 0
    failed: int = 0
    patience: bool = False
    seconds: float = 0.0

    def rate(self, now: float) -> float:
        """Attempts a second."""
        return self.ended / (now - self.began)

    @property
    def takes(self) -> float:
        """The mean seconds of an attempt."""
        return self.seconds / self.ended


class Climb:
    """The limit; `note` each attempt that is over."""

    def __init__(
        self,
        start: int = START,
        least: int = LEAST,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = start
        self._least, self._most = least, most
        self._clock = clock
        self._window = _Window(clock())
        self._before: tuple[int, float, float] | None = None  # limit, rate and seconds before the step up
        self._rests_until = self._window.began
        self._up = FIRST_UP

    def note(self, seconds: float, in_hand: int, *, failed: bool = False, patience: bool = False) -> None:
        """An attempt is over that took so many seconds, one of `in_hand`. `failed`: at a store; `patience`:
        one has asked for that."""
        window, now = self._window, self._clock()
        window.ended += 1
        window.seconds += seconds
        window.full += in_hand >= self.limit
        window.failed += failed
        window.patience |= patience
        if now - window.began >= WINDOW and window.ended >= self.limit:
            self._step(window, now)
            self._window = _Window(now)

    def _step(self, window: _Window, now: float) -> None:
        rate, takes, before = window.rate(now), window.takes, self._before
        self._before = None
        if before and rate < before[1] * MUCH:
            self._up = UP
        if window.patience or window.failed > FAILING * window.ended:
            self._go(self.limit * DOWN)
            self._up = UP
            self._rests_until = now + REST
        elif window.full * 2 < window.ended:
            return  # nothing waits for us
        elif before and rate < before[1] * GAIN:
            slower = takes > SLOWER * before[2]
            self._go(before[0] * DOWN if slower else before[0])
            self._rests_until = now + REST
        elif self.limit < self._most and now >= self._rests_until:
            self._before = self.limit, rate, takes
            self._go(self.limit * self._up)

    def _go(self, limit: float) -> None:
        self.limit = min(self._most, max(self._least, round(limit)))


class Steady:
    """The same limit for every lane."""

    def __init__(self, most: int) -> None:
        self.most = most

    def limit(self, _: Lane) -> int:
        """Return how many of a lane may be in hand at once."""
        return self.most

    def note(self, attempted: Attempted, in_hand: int) -> None:
        """Do nothing."""


class Climbs:
    """A limit for each lane: where one store asks for patience, the routes of others go on. Only the lanes of
    `routes` climb; the others start programs, or call somebody, who did not ask for hundreds at once."""

    most = MOST

    def __init__(self, routes: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._routes = routes
        self._clock = clock
        self._climbs: dict[Lane, Climb] = {}

    def limit(self, lane: Lane) -> int:
        """Return how many of `lane` may be in hand at once now."""
        return self._climbs[lane].limit if lane in self._climbs else START

    def note(self, attempted: Attempted, in_hand: int) -> None:
        """Take note of an attempt that is over, one of `in_hand` of its lane. What was turned away, or waits
        for another, tells nothing."""
        result, lane = attempted.result, attempted.delivery.lane
        if lane.route not in self._routes or (isinstance(result, TryAgain) and not result.counts):
            return
        if lane not in self._climbs:
            self._climbs[lane] = Climb(clock=self._clock)
        self._climbs[lane].note(
            attempted.seconds,
            in_hand,
            failed=isinstance(result, StoreAway | RouteDown),
            patience=isinstance(result, Throttled),
        )
