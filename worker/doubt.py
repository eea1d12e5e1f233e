"""What one operation of a route has come to of late: who passed, who failed, and whether it works at all.

Pure: the time is an argument, in epoch seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from common.task import Trouble

STREAK = 5
"""So many different objects that fail, with none that passed in between, are no accident."""

REFUSED = 10
"""So many different objects that are refused for good in a row, each for its own fault as it seems, and none
that passed in between: it may be everybody's."""

SILENT_FOR = 30.0
"""Seconds for which one object has failed, with none that passed in between: nothing may work any more."""

UNDECIDED = 24 * 3600.0
"""Seconds after which an object's failures count though no other has passed since they began."""

LATELY = 60.0
"""Seconds: before an object is given up another must have passed within them."""

KNOWN_BAD = 3
"""The attempt from which an object's failures say nothing of the route: twice already others passed."""

PROBE = 30.0
"""Seconds at most between one trial and the next, so that it is noticed when the operation works again."""

LONGEST_REST = 600.0
"""Seconds at most between two trials of an object: each may read all of its bytes, and reading costs."""

FORGOTTEN = 2 * LONGEST_REST
"""Seconds without a failure after which a doubt is over: what failed is dead or gone."""

TRIALS = 4
"""So many objects that failed before may be tried at once while the operation is in doubt."""

ROUND_ENDS = 35.0
"""Seconds without an object that was turned away for want of a place, after which there are places for all:
whoever was turned away has come back by then."""

CROWD = 200
"""From so many on that were turned away, they come back less often."""

TURNED_AWAY, TURNED_AWAY_IN_A_CROWD = 5.0, 30.0
"""Seconds."""


def rest(trouble: Trouble) -> float:
    """Return the seconds between an object's last failure and its next trial."""
    return min(3.0 * trouble.spared, LONGEST_REST) if trouble.spared > 10 else 0.0


@dataclass(slots=True)
class Operation:
    """One operation of one route, as this process has seen it. `doubt` says why it may not work, "" while
    it does, and `doubted` since when."""

    doubt: str = ""
    doubted: float = 0.0
    _cause: str = ""
    """What the doubt is about."""
    _caused: float = float("-inf")
    """When that was seen last."""
    _last: tuple[str, float] = ("", float("-inf"))
    """The key that passed last, and when."""
    _before: tuple[str, float] = ("", float("-inf"))
    """The same of the last other key."""
    _failing: set[str] = field(default_factory=set)
    """Keys that failed since; no more of them than it takes."""
    _refused: set[str] = field(default_factory=set)
    """Keys that were refused for good since; no more of them than it takes."""
    _failed: float = float("-inf")
    """When one failed last."""
    _trials: int = 0
    _tried: float = float("-inf")
    _round: float = float("-inf")
    """When the round began: each object is tried once in it before any is tried again."""
    _crowded: float = float("-inf")
    _turned_away: int = 0

    def passed(self, key: str, now: float) -> str:
        """Take note that `key` passed. Return the doubt that this ends, "" for none."""
        if self._last[0] != key:
            self._before = self._last
        self._last = (key, now)
        self._failing.clear()
        self._refused.clear()
        ended, self.doubt = self.doubt, ""
        return ended

    def refused(self, key: str) -> bool:
        """Take note that `key` was refused for good, by its own fault as it seems. Return whether so many
        were, and none passed, that it may be everybody's."""
        if len(self._refused) < REFUSED:
            self._refused.add(key)
        return len(self._refused) >= REFUSED

    def passed_since(self, key: str, since: float) -> bool:
        """Whether another than `key` has passed at `since` or after."""
        _, other = self._before if self._last[0] == key else self._last
        return other >= since

    def failed(self, key: str, trouble: Trouble, why: str, now: float, cause: str = "") -> bool:
        """Take note that `key` failed for `cause`, with `trouble` from now on. Return whether a doubt has
        begun, or has another cause by now."""
        self.lapse(now)
        self._failed = now
        if len(self._failing) < STREAK:
            self._failing.add(key)
        silent = now - trouble.since >= SILENT_FOR and self._last[1] < trouble.since
        if self.doubt:
            return self._another(cause, why, now)
        if not (silent or len(self._failing) >= STREAK):
            return False
        self.doubt, self.doubted, self._cause, self._caused = why, now, cause, now
        self._round = self._crowded = float("-inf")
        return True

    def _another(self, cause: str, why: str, now: float) -> bool:
        """Whether the doubt has another cause, and the one that was told is not seen any more."""
        if cause != self._cause and now - self._caused <= LATELY:
            return False
        another, self._caused = cause != self._cause, now
        if another:
            self.doubt, self._cause = why, cause
        return another

    def lapse(self, now: float) -> None:
        """End a doubt that nothing has fed for long: a route that has nothing to do is not in doubt."""
        if now - self._failed > FORGOTTEN:
            self._failing.clear()
            self.doubt = ""

    def wait(self, trouble: Trouble | None, now: float) -> float:
        """Return 0 to let a task in, else in how many seconds it is to come again. What is new is let in; of
        what failed before, while in doubt, a few at a time and each in its turn."""
        if trouble is None or not self.doubt:
            return 0.0
        rested = not 0 <= now - trouble.at < rest(trouble)
        due = rested and (trouble.at < self._round or now - self._crowded > ROUND_ENDS)
        if self._trials >= TRIALS:
            return self._turn_away(now) if due else TURNED_AWAY_IN_A_CROWD
        if not due and now - self._tried < PROBE:
            return TURNED_AWAY_IN_A_CROWD
        self._tried = now
        return 0.0

    @contextmanager
    def trial(self, trouble: Trouble | None) -> Iterator[None]:
        """The block tries a task that was let in."""
        counted = trouble is not None and bool(self.doubt)
        self._trials += counted
        try:
            yield
        finally:
            self._trials -= counted

    def _turn_away(self, now: float) -> float:
        if now - self._crowded > ROUND_ENDS:
            self._round, self._turned_away = now, 0
        self._crowded = now
        self._turned_away += 1
        return TURNED_AWAY if self._turned_away < CROWD else TURNED_AWAY_IN_A_CROWD
