"""Who is next: places shared fairly between lanes. Pure; `worker/pool.py` asks it.

A lane may have so many places as its limit says, and no more than a few times what is left free then. So
whoever comes finds a free place, however long the work of the others takes; and lanes that all have much to
do end up with the same share each. Of those that wait, the one whose turn is longest ago is next: live lanes
before bulk lanes, but for a share that is bulk's.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

from common.queue.port import Kind, Lane

GREED = {Kind.LIVE: 3, Kind.BULK: 1}
"""How many times what is left free: with n live lanes at work that is one part in 1 + 3n of all places."""

BULK_SHARE = 8
"""Bulk lanes have at least one place in so many while they have work."""

Limit = Callable[[Lane], int]
"""Returns how many places a lane may have now when no other has work."""


def places(most: int) -> int:
    """Return how many places there must be in all, so that a lane alone may have `most`."""
    return most + max(1, -(-most // GREED[Kind.LIVE]))


class Fair:
    """`all_` places for lanes, each of which has its `limit`."""

    def __init__(self, all_: int, limit: Limit) -> None:
        self._all = all_
        self._limit = limit
        self._taken: Counter[Lane] = Counter()
        self._turns = count(1)
        self._last: dict[Lane, int] = {}

    def may(self, lane: Lane) -> bool:
        """Whether a place is free that `lane` may have."""
        free = self._all - self._taken.total()
        taken = self._taken[lane]
        return free > 0 and (not taken or taken < min(self._limit(lane), GREED[lane.kind] * (free - 1)))

    def next(self, waiting: Iterable[Lane]) -> Lane | None:
        """Return whose turn it is of those `waiting`; None when none of them may have a place."""
        may = [lane for lane in waiting if self.may(lane)]
        bulk = sum(taken for lane, taken in self._taken.items() if lane.kind is Kind.BULK)
        first = Kind.BULK if bulk < max(1, self._taken.total() // BULK_SHARE) else Kind.LIVE
        return min(may, key=lambda lane: (lane.kind is not first, self._last.get(lane, 0)), default=None)

    def taken_by(self, lane: Lane) -> int:
        """Return how many places `lane` has."""
        return self._taken[lane]

    def take(self, lane: Lane) -> None:
        """It has one place more."""
        self._taken[lane] += 1
        self._last[lane] = next(self._turns)

    def free(self, lane: Lane) -> None:
        """It has one place less."""
        self._taken[lane] -= 1
