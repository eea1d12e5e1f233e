"""How long to wait before the next attempt: one pure function."""

import random
from collections.abc import Sequence

RUNGS: tuple[int, ...] = (1, 5, 30, 120, 600, 1200, 3600)
"""The waits there are, in seconds. RabbitMQ has one queue for each, so a wait is always one of them."""


def delay(attempt: int, rng: random.Random, *, rungs: Sequence[int] = RUNGS) -> int:
    """Return the wait in seconds after attempt number `attempt` (from 1) failed.

    The waits climb the rungs; jitter is drawn by choosing between the rung and the one below it,
    at the cap too, so that tasks which failed together do not come back together for ever.
    Raises ValueError when `attempt` is less than 1.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    top = min(attempt - 1, len(rungs) - 1)
    return rungs[rng.randint(max(top - 1, 0), top)]


def rung(seconds: float, rungs: Sequence[int] = RUNGS) -> int:
    """Return the shortest rung that is no shorter than `seconds`. Raises ValueError beyond the last."""
    for step in sorted(rungs):
        if step >= seconds:
            return step
    raise ValueError(f"no wait is as long as {seconds} s; the longest is {max(rungs)} s")
