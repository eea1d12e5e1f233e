"""Which dead letters are meant: pure, one predicate for all commands."""

import re
from dataclasses import dataclass
from datetime import datetime

from console.dead.letter import ALL_REASONS, REASONS, Entry

FIELDS = ("route", "reason", "key-prefix", "since")

NO_ROUTE = "-"
"""What --route says for dead letters that are no task."""

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Where:
    """The dead letters that agree in each field that is given, with any of its values. Nothing given: all."""

    routes: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    since: float | None = None

    def __bool__(self) -> bool:
        return self != Where()

    def __call__(self, entry: Entry) -> bool:
        """Whether `entry` is meant."""
        if self.routes and (entry.route or NO_ROUTE) not in self.routes:
            return False
        if self.reasons and entry.reason not in self.reasons:
            return False
        if self.prefixes and not (entry.key or "").startswith(self.prefixes):
            return False
        return self.since is None or entry.letter.at >= self.since


def where(conditions: list[tuple[str, str]], now: float) -> Where:
    """Return what pairs of field and value say. Raises ValueError, with a sentence, for what says nothing."""
    given: dict[str, list[str]] = {name: [] for name in FIELDS}
    for name, value in conditions:
        if name not in given:
            raise ValueError(f'"{name}" is no field of a dead letter: name one of {", ".join(FIELDS)}')
        given[name].append(value)
    if len(given["since"]) > 1:
        raise ValueError("since is given twice: give one time")
    return Where(
        frozenset(given["route"]),
        frozenset(map(_reason, given["reason"])),
        tuple(given["key-prefix"]),
        moment(given["since"][0], now) if given["since"] else None,
    )


def condition(text: str) -> tuple[str, str]:
    """Return field and value of "FIELD=VALUE". Raises ValueError with a sentence."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f'"{text}" names no value: write FIELD=VALUE, like reason=StoreAway')
    return name.strip().replace("_", "-"), value


def _reason(text: str) -> str:
    known = {name.casefold(): name for name in ALL_REASONS}
    if text.casefold() not in known:
        raise ValueError(
            f'"{text}" is no reason: name one of {", ".join(REASONS)}, '
            "or what a store called it, like AccessDenied"
        )
    return known[text.casefold()]


def moment(text: str, now: float) -> float:
    """Return the time that `text` names, in epoch seconds: so long before `now` (2h, 3d), or a time as
    2026-11-22T10:00, in this machine's zone unless it says another. Raises ValueError with a sentence."""
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(
            f'"{text}" is no time: write 90s, 45m, 2h, 3d, 1w, or a time as 2026-11-22T10:00'
        ) from None
