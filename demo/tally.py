"""What happened, counted from the log lines of the services: they are what an operator would see."""

import statistics
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENDS = ("copied", "deleted", "skipped", "look_later", "retried", "buried", "lost")
"""The actions that end an attempt."""


@dataclass(slots=True)
class Tally:
    """Counts by `action`, the lags of the tasks that came from hooks, and the last warnings.

    `attempts` ended; `turns` of them only waited, because their key or their store was busy.
    """

    actions: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    lags: list[float] = field(default_factory=list)
    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    attempts: int = 0
    turns: int = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Count one line."""
        action = str(line.get("action"))
        self.actions[action] += 1
        if action in ENDS:
            self.attempts += 1
        if action == "retried" and not line.get("counts", True):
            self.turns += 1
        if action == "copied":
            self.bytes += int(line.get("size", 0))
        if action in {"copied", "deleted", "skipped"} and "lag" in line:
            self.lags.append(float(line["lag"]))
        if line.get("level") in {"warning", "error", "critical"} and line.get("counts", True):
            self.warnings.append(f"{action}: {line.get('message')}")

    @property
    def retried(self) -> int:
        """Attempts that failed and were made again."""
        return self.actions["retried"] - self.turns

    def lag(self, percent: int) -> float | None:
        """Return the lag that `percent` of the hooks did not exceed, in seconds; None before the first."""
        if len(self.lags) < 2:
            return self.lags[0] if self.lags else None
        return statistics.quantiles(self.lags, n=100, method="inclusive")[percent - 1]
