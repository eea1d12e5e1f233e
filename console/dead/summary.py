"""Many dead letters in a few lines: by route and reason."""

from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from common.queue.port import DeadLetter, Oldest, Queue
from common.telemetry import one_line
from console.dead.letter import Entry, clock
from console.dead.options import entries
from console.dead.where import NO_ROUTE


@dataclass(slots=True)
class Group:
    """The dead letters of one route that have one reason: how many, from when to when, the key of one."""

    count: int = 0
    oldest: float = float("inf")
    newest: float = 0.0
    example: str | None = None

    def add(self, entry: Entry) -> None:
        """Count `entry` in."""
        self.count += 1
        at = entry.letter.at
        if at < self.oldest:
            self.oldest, self.example = at, entry.key
        self.newest = max(self.newest, at)


@dataclass(slots=True)
class Summary:
    """The groups, and how many dead letters were seen besides."""

    groups: dict[tuple[str | None, str], Group] = field(default_factory=dict)
    seen: int = 0

    def see(self, entry: Entry, *, meant: bool = True) -> None:
        """Take note of `entry`, which counts when it is meant."""
        self.seen += 1
        if meant:
            self.groups.setdefault((entry.route, entry.reason), Group()).add(entry)

    @property
    def count(self) -> int:
        """How many are meant."""
        return sum(group.count for group in self.groups.values())

    def sorted(self) -> list[tuple[tuple[str | None, str], Group]]:
        """The groups, the largest first."""
        return sorted(self.groups.items(), key=lambda item: (-item[1].count, item[0][0] or "", item[0][1]))

    def as_list(self) -> list[dict[str, Any]]:
        """Return the groups as plain values."""
        return [
            {
                "route": route,
                "reason": reason,
                "count": group.count,
                "oldest": group.oldest,
                "newest": group.newest,
                "example": group.example,
            }
            for (route, reason), group in self.sorted()
        ]

    def as_table(self) -> Table:
        """Return the groups as a table."""
        table = Table(
            "dead letters", "route", "reason", "oldest", "newest", "a key", box=None, header_style="bold"
        )
        table.columns[0].justify = "right"
        for column in (table.columns[2], table.columns[3], table.columns[4]):
            column.no_wrap = True
        for (route, reason), group in self.sorted():
            # Text, since a plain string would be read as markup: a key may hold [/red] or :smile:.
            table.add_row(
                str(group.count),
                Text(one_line(route or NO_ROUTE)),
                reason,
                clock(group.oldest),
                clock(group.newest),
                Text(one_line(group.example or "(no task)")),
            )
        return table


@dataclass(slots=True)
class Survey:
    """What going once over the dead letters found of those that are meant. `dead` is how many the queue
    said that there are, `ids` those meant, `oldest` the first of them."""

    dead: int
    summary: Summary = field(default_factory=Summary)
    ids: list[str] = field(default_factory=list)
    oldest: list[DeadLetter] = field(default_factory=list)

    @property
    def unseen(self) -> int:
        """How many there must be besides what was seen: for a moment in somebody else's hands."""
        return max(0, self.dead - self.summary.seen)


async def survey(
    queue: Queue, meant: Callable[[Entry], bool], limit: int = 0, *, named: Collection[str] = ()
) -> Survey:
    """Go over the dead letters and return what there is of those that are `meant`; when they are `named` by
    their ids, no further than to the last of them."""
    found, oldest = Survey((await queue.counts()).dead), Oldest(limit)
    async with aclosing(entries(queue)) as all_:
        async for entry in all_:
            chosen = meant(entry)
            found.summary.see(entry, meant=chosen)
            if chosen:
                found.ids.append(entry.letter.id)
                oldest.add(entry.letter)
                if len(found.ids) == len(named):
                    break
    found.oldest = oldest.letters()
    return found
