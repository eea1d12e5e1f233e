"""What the broker does to us, in the log: once for each cause, however many connections it meets."""

import logging
import time
from collections.abc import Callable

from common.telemetry import Action, log

QUIET = 30.0
"""Seconds for which the same words must not have been heard before they are written again."""


class Notices:
    """Writes lines. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}

    def say(self, words: str, *, level: int = logging.WARNING) -> None:
        """Write `words`, unless they were heard a moment ago."""
        now = self._clock()
        self._heard = {known: at for known, at in self._heard.items() if now - at < QUIET}
        if words not in self._heard:
            log(Action.QUEUE, words, level=level)
        self._heard[words] = now
