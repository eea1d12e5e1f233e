"""The brake: too many deletes at once are held for a person; a bucket may have been emptied by mistake."""

import time
from collections.abc import Callable, Mapping

from common.errors import BrakeOn
from common.routes import BrakeSettings


class Brake:
    """Counts the deletes that each route wants, in this process. `clock` is in seconds."""

    def __init__(
        self, limits: Mapping[str, BrakeSettings], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._wanted: dict[str, dict[str, float]] = {}

    def admit(self, route: str, key: str, *, approved: bool) -> None:
        """Let a delete of `key` pass, or raise `BrakeOn`. An approved one passes uncounted, and one that is
        tried again counts once.

        Held deletes count too: the brake stays on for as long as the flood lasts, and a window longer.
        """
        limit = self._limits.get(route)
        if approved or limit is None:
            return
        now = self._clock()
        wanted = self._wanted.setdefault(route, {})
        wanted.pop(key, None)
        wanted[key] = now
        if len(wanted) > limit.deletes + 1:
            del wanted[next(iter(wanted))]
        if self._too_many(wanted, limit, now):
            raise BrakeOn(
                f"brake: more than {limit.deletes} deletes within {limit.window:.0f} s. If they are meant:  "
                f"hookmirror brake release '{route}'"
            )

    def holds(self, route: str) -> bool:
        """Whether the brake of `route` is on: it held a delete, and the flood is not over by a window."""
        limit, wanted = self._limits.get(route), self._wanted.get(route)
        return bool(limit and wanted and self._too_many(wanted, limit, self._clock()))

    @staticmethod
    def _too_many(wanted: dict[str, float], limit: BrakeSettings, now: float) -> bool:
        return len(wanted) > limit.deletes and now - next(iter(wanted.values())) < limit.window
