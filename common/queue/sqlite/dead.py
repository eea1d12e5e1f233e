"""The dead letters in the embedded queue's file."""

import json
import sqlite3
from collections.abc import AsyncGenerator, Collection
from functools import partial
from itertools import chain, islice

from common.queue.port import DeadLetter, Failure, Lane
from common.queue.sqlite.file import SqliteFile

PAGE = 1000
"""Dead letters that are read or changed in one transaction."""


class DeadLetters:
    """Those in `file`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """See `Inspector`."""
        behind = (0.0, 0)
        while page := await self._page(PAGE, behind):
            for _, letter in page:
                yield letter
            behind = (page[-1][0], int(page[-1][1].id))

    async def buried(self, limit: int) -> list[DeadLetter]:
        """See `Inspector`."""
        return [letter for _, letter in await self._page(limit, (0.0, 0))]

    async def _page(self, limit: int, behind: tuple[float, int]) -> list[tuple[float, DeadLetter]]:
        """Return the next dead letters `behind` the one of that time and id, each with its time."""
        sql = (
            "SELECT due, id, body, lane, why, at, attempt, failures FROM message"
            " WHERE dead = 1 AND (due, id) > (?, ?) ORDER BY due, id LIMIT ?"
        )
        rows = await self._file.run(lambda db: db.execute(sql, (*behind, limit)).fetchall())
        return [
            (due, DeadLetter(str(id_), body, Lane.named(lane), why, at, attempt, failures_of(failures)))
            for due, id_, body, lane, why, at, attempt, failures in rows
        ]

    async def replay(self, ids: Collection[str] | None = None) -> set[str]:
        """See `Inspector`."""
        if ids is None:
            sql = "SELECT id FROM message WHERE dead = 1"
            ids = await self._file.run(lambda db: [str(row[0]) for row in db.execute(sql)])
        change = (
            "UPDATE message SET dead = 0, attempt = 1, returned = 0, due = :now, why = NULL, at = NULL"
            " WHERE dead = 1"
        )
        return await self._each(change, ids)

    async def drop(self, ids: Collection[str]) -> set[str]:
        """See `Inspector`."""
        return await self._each("DELETE FROM message WHERE dead = 1", ids)

    async def _each(self, statement: str, ids: Collection[str]) -> set[str]:
        """Run `statement` for each of `ids`, PAGE to a transaction: a longer one would make other processes
        wait longer for the file than they do. Return the ids it touched."""
        one, rest, now = f"{statement} AND id = :id RETURNING id", iter(ids), self._file.now()
        found: set[str] = set()

        def change(db: sqlite3.Connection, batch: list[str]) -> set[str]:
            rows = (db.execute(one, {"id": id_, "now": now}).fetchall() for id_ in batch)
            return {str(row[0]) for row in chain.from_iterable(rows)}

        while batch := list(islice(rest, PAGE)):
            found |= await self._file.run(partial(change, batch=batch))
        return found


def failures_of(text: str) -> tuple[Failure, ...]:
    """Return the failures that a row tells."""
    return tuple(Failure(**entry) for entry in json.loads(text))
