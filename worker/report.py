"""What a worker says of its routes when `hookmirror status` asks: an observer of attempts."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from common.queue.port import Kind, Lane
from worker.attempt import Attempted
from worker.blame import PROOF, Blame
from worker.brake import Brake
from worker.pool import Pool
from worker.verdict import Outcome

STEP = 10.0
"""Seconds that are counted together."""

LATELY = 300.0
"""Seconds for which rate and lag are told."""


class Recent:
    """What was done of late, of one route."""

    def __init__(self) -> None:
        self.last: float | None = None
        self._steps: deque[list[float]] = deque()
        """Of each: when it began, how many were done, how many of these a hook had brought, and the sum of
        their lags."""

    def note(self, lag: float | None, now: float) -> None:
        """One more is done, `lag` seconds after its hook came; None when no hook brought it."""
        self.last = now
        if not self._steps or now - self._steps[-1][0] >= STEP:
            self._steps.append([now, 0, 0, 0.0])
        step = self._steps[-1]
        step[1] += 1
        if lag is not None:
            step[2] += 1
            step[3] += max(lag, 0.0)

    def tell(self, now: float) -> dict[str, float | None]:
        """Return how many were done a minute in the last LATELY seconds, the mean lag in seconds of those
        that hooks brought (None for none of them), and when the last one was, in epoch seconds."""
        while self._steps and now - self._steps[0][0] > LATELY:
            self._steps.popleft()
        done, brought, lags = (sum(step[part] for step in self._steps) for part in (1, 2, 3))
        return {
            "per_minute": done * 60 / LATELY,
            "lag": lags / brought if brought else None,
            "last": self.last,
        }


class Report:
    """Of `routes`. `clock` is in epoch seconds."""

    def __init__(
        self,
        routes: Iterable[str],
        pool: Pool,
        blame: Blame,
        brake: Brake,
        oldest: Callable[[str], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = tuple(routes)
        self._pool, self._blame, self._brake, self._oldest = pool, blame, brake, oldest
        self._clock = clock
        self._recent: defaultdict[str, Recent] = defaultdict(Recent)

    def note(self, attempted: Attempted) -> None:
        """Take note of an attempt that is over: an `Observer`."""
        result, task = attempted.result, attempted.task
        if task is not None and isinstance(result, Outcome) and result.action in PROOF:
            self._recent[task.route].note(attempted.lag, self._clock())

    def tell(self) -> dict[str, dict[str, Any]]:
        """Return of each route why and since when it is paused, or in doubt, if it is; whether its brake is
        on; how many tasks are in progress here, and how many may be; the age of the oldest event known here;
        and what was done of late."""
        now, paused = self._clock(), self._blame.paused()
        return {
            route: {
                "paused": paused.get(route),
                "doubt": route in paused and self._blame.is_doubtful(route),
                "since": self._blame.since(route) if route in paused else None,
                "brake": self._brake.holds(route),
                "in_progress": sum(self._pool.in_hand_of(Lane(route, kind)) for kind in Kind),
                "at_once": self._pool.limit_of(Lane(route)),
                "oldest": self._oldest(route),
                **self._recent[route].tell(now),
            }
            for route in self._routes
        }
