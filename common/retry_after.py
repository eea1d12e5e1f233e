"""Retry-After: how long who answered asks to be left alone. Pure."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def wait_asked(value: str | None, now: float) -> float:
    """Return the seconds that a Retry-After asks for: a number, or a date; 0 for none or nonsense.

    `now` is in epoch seconds.
    """
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now, 0.0)
