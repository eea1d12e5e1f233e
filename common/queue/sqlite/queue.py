"""The embedded queue: two SQLite tables, messages and marks, for one machine and any number of its processes.

A lease is a due time in the future: a held message is one whose `due` has not come yet, so a dead
holder's messages become due by themselves and nothing has to sweep. The holder renews its leases
while it lives. All this goes by the queue's own time; the wall clock is only told to people (`at`).
"""

import asyncio
import json
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from common.errors import ConfigError, LostDelivery, QueueAway
from common.queue.port import (
    Bury,
    Counts,
    DeadLetter,
    Delivery,
    Depth,
    Done,
    Lane,
    Move,
    Verdict,
    after_verdict,
    check_delay,
    mark_lives,
)
from common.queue.sqlite.dead import DeadLetters, failures_of
from common.queue.sqlite.file import SqliteFile

LEASE = 15.0
"""How long a dead holder's messages stay away, in seconds."""

POLL = 0.2
"""How often other processes' messages are looked for, in seconds; our own wake us at once."""

# Of each lane: all, those whose time is to come, of these the leased, and since when the first is due. Its
# cost does not grow with the messages: of them it looks at those that fall due within this second, and at the
# leased.
_COUNTS = """
SELECT dead, lane, n,
    (SELECT coalesce(sum(n), 0) FROM due_in WHERE lane = depth.lane AND second > :second)
    + (SELECT count(*) FROM message
       WHERE dead = 0 AND lane = depth.lane AND due > :now AND due < :second + 1),
    (SELECT count(*) FROM message WHERE holder IS NOT NULL AND lane = depth.lane AND due > :now),
    (SELECT min(due) FROM message WHERE dead = 0 AND lane = depth.lane AND due > 0)
FROM depth WHERE n > 0"""

_DUE = """
SELECT lane FROM depth WHERE dead = 0 AND n > 0
    AND EXISTS (SELECT 1 FROM message WHERE dead = 0 AND lane = depth.lane AND due <= ?)"""


class SqliteQueue:
    """One handle on the file."""

    def __init__(self, file: SqliteFile, lease: float) -> None:
        self._file = file
        self._run = file.run
        self._now = file.now
        self._dead = DeadLetters(file)
        self._lease = lease
        self._news: dict[Lane, asyncio.Event] = defaultdict(asyncio.Event)
        self._held: dict[int, tuple[str, float, Lane]] = {}  # id -> (holder, lease end, lane)
        self._renewer = asyncio.create_task(self._renew())
        self._poller: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        create: bool = True,
        name: str = "queue.url",
        lease: float = LEASE,
        clock: Callable[[], float] = time.monotonic,
    ) -> "SqliteQueue":
        """Open the file; `create` makes it when it is not there. `clock` is in seconds, the same for every
        process, and never set back. Raises `ConfigError` for what only a person can mend, `QueueAway` for
        what may pass; both name the configuration's key, `name`."""
        try:
            return cls(await SqliteFile.open(path, create=create, clock=clock), lease)
        except (ConfigError, QueueAway) as error:
            raise type(error)(f"{name}: {error}") from error

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        """See the port."""
        check_delay(delay)
        row = (lane.name, body, self._now() + delay)
        await self._run(lambda db: db.execute("INSERT INTO message (lane, body, due) VALUES (?, ?, ?)", row))
        self._news[lane].set()

    async def publish_all(self, bodies: Mapping[Lane, Collection[bytes]]) -> None:
        """See the port."""
        now = self._now()
        rows = [(lane.name, body, now) for lane, some in bodies.items() for body in some]
        sql = "INSERT INTO message (lane, body, due) VALUES (?, ?, ?)"
        await self._run(lambda db: db.executemany(sql, rows))
        for lane in bodies:
            self._news[lane].set()

    async def check(self) -> None:
        """See the port. A message is written and deleted in one transaction: that takes as many pages of a
        full disk as one that stays, and nobody sees it."""

        def pretend(db: sqlite3.Connection) -> None:
            sql = "INSERT INTO message (lane, body, due) VALUES (?, ?, 0)"
            row = db.execute(sql, (Lane("").name, bytes(512)))
            db.execute("DELETE FROM message WHERE id = ?", (row.lastrowid,))

        await self._run(pretend)

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        """See the port."""
        row = (lane.name, body, self._now(), why, time.time())
        sql = "INSERT INTO message (lane, body, due, dead, why, at) VALUES (?, ?, ?, 1, ?, ?)"
        await self._run(lambda db: db.execute(sql, row))

    async def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
        """See the port."""
        news = self._news[lane]
        self._poller = self._poller or asyncio.create_task(self._poll())
        while True:
            news.clear()
            room = limit - sum(held[2] == lane for held in self._held.values())
            taken = await self._take(lane, room) if room > 0 else []
            given = 0
            try:
                for delivery in taken:
                    given += 1
                    yield delivery
            finally:
                await self._give_back(taken[given:])
            if not taken:
                await news.wait()

    async def _take(self, lane: Lane, room: int) -> list[Delivery]:
        now, holder = self._now(), uuid.uuid4().hex

        def lease(db: sqlite3.Connection) -> list[tuple[int, bytes, int, str, int]]:
            # A holder's name on a message that is due again means that the holder died with it.
            rows = db.execute(
                "UPDATE message SET returned = returned + (holder IS NOT NULL), holder = ?, due = ?"
                " WHERE id IN (SELECT id FROM message WHERE dead = 0 AND lane = ? AND due <= ?"
                "              ORDER BY due LIMIT ?)"
                " RETURNING id, body, attempt, failures, returned",
                (holder, now + self._lease, lane.name, now, room),
            )
            return rows.fetchall()

        leasing = asyncio.ensure_future(self._run(lease))
        try:
            rows = await asyncio.shield(leasing)
        except QueueAway:
            return []  # asked again after the next wait; a full disk is waited out like an absent broker
        except asyncio.CancelledError:
            # Leased by now, or soon: nobody will see it, and nobody else could until the lease has run out.
            await asyncio.wait([leasing])
            if leasing.exception() is None:
                await self._unlease([(row[0], holder) for row in leasing.result()])
                self._news[lane].set()
            raise
        self._held.update({row[0]: (holder, now + self._lease, lane) for row in rows})
        return [
            Delivery(body, attempt, (id_, holder), lane, failures_of(failures), returned)
            for id_, body, attempt, failures, returned in rows
        ]

    async def give_back(self, delivery: Delivery) -> None:
        """See the port."""
        await self._give_back([delivery])

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        receipts = [_receipt(d) for d in deliveries]
        for receipt in receipts:
            self._let_go(*receipt)
        await self._unlease(receipts)
        for delivery in deliveries:
            self._news[delivery.lane].set()

    def _let_go(self, id_: int, holder: str) -> None:
        """Hold it no more; unless it ran out and was taken here again, under another name."""
        if self._held.get(id_, ("",))[0] == holder:
            del self._held[id_]

    async def _unlease(self, receipts: list[tuple[int, str]]) -> None:
        sql = "UPDATE message SET holder = NULL, due = 0 WHERE id = ? AND holder = ? AND dead = 0"
        if receipts:
            with suppress(QueueAway):  # then the leases run out
                await self._run(lambda db: db.executemany(sql, receipts))

    async def _poll(self) -> None:
        """Wake who waits for a lane in which something has become due, or was put by another process: one
        question for all lanes, however many there are."""
        while True:
            await asyncio.sleep(POLL)
            for lane in await self._due():
                self._news[lane].set()

    async def _due(self) -> list[Lane]:
        now = self._now()
        try:
            rows = await self._run(lambda db: db.execute(_DUE, (now,)).fetchall())
        except Exception:  # noqa: BLE001 - whoever takes meets it himself, and says so; nobody may wait for ever
            return list(self._news)
        return [Lane.named(name) for (name,) in rows]

    async def _renew(self) -> None:
        """Keep the leases of what this process holds, for as long as the work takes."""
        while True:
            await asyncio.sleep(self._lease / 3)
            held = [(id_, holder) for id_, (holder, _, _) in self._held.items()]
            if held:
                await self._extend(held)

    async def _extend(self, held: list[tuple[int, str]]) -> None:
        until = self._now() + self._lease

        def extend(db: sqlite3.Connection) -> list[int]:
            sql = "UPDATE message SET due = ? WHERE id = ? AND holder = ? AND dead = 0"
            return [id_ for id_, holder in held if db.execute(sql, (until, id_, holder)).rowcount]

        try:
            kept = await self._run(extend)
        except QueueAway:
            return  # the leases run on; the next round tries again, and `holds` says when they ended
        for id_, holder in held:
            if id_ not in kept:
                self._let_go(id_, holder)
            elif (current := self._held.get(id_)) and current[0] == holder:
                self._held[id_] = (holder, until, current[2])

    def holds(self, delivery: Delivery) -> bool:
        """See the port."""
        id_, holder = _receipt(delivery)
        held = self._held.get(id_)
        return held is not None and held[0] == holder and self._now() < held[1]

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """See the port."""
        id_, holder = _receipt(delivery)
        now, at = self._now(), time.time()

        def end(db: sqlite3.Connection) -> int:
            mine = "WHERE id = ? AND holder = ? AND dead = 0"
            if isinstance(verdict, Done):
                return db.execute(f"DELETE FROM message {mine}", (id_, holder)).rowcount  # noqa: S608
            failures = json.dumps([asdict(f) for f in after_verdict(delivery, verdict, at)])
            values: tuple[str | float | bytes, ...]
            if isinstance(verdict, Bury):
                change = "holder = NULL, dead = 1, body = ?, why = ?, at = ?, due = ?"
                values = (verdict.body or delivery.body, verdict.why, at, now)
            elif isinstance(verdict, Move):
                change = "holder = NULL, body = ?, lane = ?, due = ?"
                values = (verdict.body or delivery.body, verdict.lane.name, now)
            else:
                attempt = delivery.attempt + verdict.counts
                change = "holder = NULL, returned = 0, body = ?, attempt = ?, due = ?"
                values = (verdict.body or delivery.body, attempt, now + verdict.after)
            sql = f"UPDATE message SET failures = ?, {change} {mine}"  # noqa: S608 - no value is in the text
            return db.execute(sql, (failures, *values, id_, holder)).rowcount

        try:
            changed = await self._run(end)
        finally:
            self._let_go(id_, holder)  # if nothing was written, the lease is to run out
        self._news[delivery.lane].set()
        if isinstance(verdict, Move):
            self._news[verdict.lane].set()
        if not changed:
            raise LostDelivery("the lease ran out and the message went to another holder")

    async def counts(self) -> Counts:
        """See the port."""
        now = self._now()
        rows = await self._run(lambda db: db.execute(_COUNTS, {"now": now, "second": int(now)}).fetchall())
        lanes, dead = dict[Lane, Depth](), 0
        for buried, name, total, to_come, held, first in rows:
            if buried:
                dead += total
            else:
                ready = total - to_come
                oldest = max(now - first, 0.0) if ready and first else 0.0  # given back, it has none
                lanes[Lane.named(name)] = Depth(ready, to_come - held, held, oldest)
        return Counts(
            lanes,
            waiting=sum(depth.waiting or 0 for depth in lanes.values()),
            held=sum(depth.held or 0 for depth in lanes.values()),
            dead=dead,
        )

    def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """See the port."""
        return self._dead.letters()

    async def buried(self, limit: int) -> list[DeadLetter]:
        """See the port."""
        return await self._dead.buried(limit)

    async def replay(self, ids: Collection[str] | None = None) -> set[str]:
        """See the port."""
        return await self._dead.replay(ids)

    async def drop(self, ids: Collection[str]) -> set[str]:
        """See the port."""
        return await self._dead.drop(ids)

    async def first(self, key: str, holder: str, *, at: float, within: float) -> bool:
        """See the port."""
        now = self._now()
        row = (key, holder, at, now + mark_lives(within), within)

        def mark(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM mark WHERE until <= ?", (now,))
            rows = db.execute(
                "INSERT INTO mark (key, holder, at, until) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
                " SET holder = excluded.holder, at = excluded.at, until = excluded.until"
                " WHERE mark.holder = excluded.holder OR abs(mark.at - excluded.at) >= ? RETURNING key",
                row,
            )
            return bool(rows.fetchall())

        return await self._run(mark)

    async def close(self) -> None:
        """Give the leases back at once and close the file."""
        if self._renewer.cancelled() or self._renewer.cancelling():
            return
        self._renewer.cancel()
        if self._poller is not None:
            self._poller.cancel()
        held = [(id_, holder) for id_, (holder, _, _) in self._held.items()]
        self._held.clear()
        sql = (
            "UPDATE message SET holder = NULL, returned = returned + 1, due = 0"
            " WHERE id = ? AND holder = ? AND dead = 0"
        )
        try:
            if held:
                with suppress(QueueAway):  # then the leases run out
                    await self._run(lambda db: db.executemany(sql, held))
        finally:
            await self._file.close()


def _receipt(delivery: Delivery) -> tuple[int, str]:
    if not isinstance(delivery.receipt, tuple):
        raise TypeError("a delivery of another queue")
    return delivery.receipt
