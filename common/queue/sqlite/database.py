"""The queue's file as one thread has it open: transactions, the queue's time, and a file that is taken away.

WAL with `synchronous=FULL` syncs before a commit returns.
"""

import ctypes
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from common.errors import ConfigError, QueueAway
from common.queue.sqlite import schema
from common.queue.sqlite.trouble import Damaged, damaged, explained

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

BUSY = 1.5
"""Seconds to wait for another process's transaction: less than a receiver has for its answer."""

OPENING = 60.0
"""Seconds to wait for another process that brings a large file of an older version up to date."""

LOOKED_AT = 64 * 2**20
"""Bytes of a file up to which whoever only looks at it checks it whole first, as whoever uses it does."""

NOTE_EVERY = 30.0
"""Seconds between two notes in the file of how late it is."""


@dataclass(slots=True)
class _Open:
    """A connection, which files it has open, and what makes the queue's time of the monotonic clock."""

    db: sqlite3.Connection
    files: list[tuple[int, int] | None]
    shift: float
    noted: float
    """The queue's time that the file tells."""


class Database:
    """An open file. Every call comes from one and the same thread; `now` may come from any.

    The queue's time is this machine's monotonic clock, which all processes here share and nobody sets, with a
    `shift` that the file keeps: it goes on after a reboot from where it was, so that what waits then comes no
    sooner than asked. To open raises `ConfigError` for what only a person can mend, `QueueAway` for what may
    pass; whatever goes wrong later is `QueueAway`.
    """

    def __init__(self, path: Path, *, create: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._create = create
        self._damaged = ""
        self.wrote = False
        try:
            self._now = _open(path, clock, create=create)
        except (sqlite3.Error, OSError) as error:
            raise explained(error, path) from error

    def now(self) -> float:
        """Return the queue's time in seconds."""
        return self._clock() + self._now.shift

    def transact(self, operations: list[Operation[object]]) -> list[object]:
        """Run `operations` in one transaction. When it returns, what they wrote is durable, in the file that
        has its name; `wrote` says whether they wrote anything."""
        if self._damaged:
            raise QueueAway(self._damaged)  # what can still be written may be what can never be read
        try:
            results = self._commit(self._now.db, operations)
            if _identities(self._path) != self._now.files:
                self._go_on_elsewhere()
        except (sqlite3.Error, OSError, ConfigError) as error:
            why = error if isinstance(error, ConfigError) else explained(error, self._path)
            self._damaged = str(why) if isinstance(why, Damaged) else ""
            raise QueueAway(str(why)) from error
        return results

    def _commit(self, db: sqlite3.Connection, operations: list[Operation[object]]) -> list[object]:
        now, before = self.now(), db.total_changes
        note = now - self._now.noted > NOTE_EVERY
        with _transaction(db):
            results = [operation(db) for operation in operations]
            if note:
                db.execute("UPDATE clock SET last = max(last, ?)", (now,))
        if note:
            self._now.noted = now
        self.wrote = db.total_changes > before
        return results

    def _go_on_elsewhere(self) -> None:
        """Bring what is in a file that has lost its name over to the one that has it now; a new one, if none
        has. Raises `QueueAway` in any case: what was just written may have come too late for that."""
        old = self._now
        main, *beside = _files(self._path)
        if not self._create:
            raise QueueAway(f"{main}: the file was deleted or replaced while in use")
        with _transaction(old.db):  # several processes may do this: one after the other
            if _identity(main) == old.files[0]:
                raise QueueAway(
                    f"{main}: {beside[0].name} or {beside[1].name} was deleted. Stop every hookmirror that "
                    "uses this file, and start again"
                )
            for file, opened in zip(beside, old.files[1:], strict=True):
                if _identity(file) == opened:  # SQLite would take it for the new file's
                    file.unlink()
            new = _open(self._path, self._clock, create=True)
            with _closing_on_error(new.db), _transaction(new.db):
                count = _bring_over(old.db, new.db, later=new.shift - old.shift)
        _never_close(old.db)
        self._now = new
        raise QueueAway(
            f"{main}: the file was deleted or replaced while in use. Going on with the one that is there "
            f"now; messages brought over to it: {count}"
        )

    def close(self) -> None:
        """Close the file."""
        if _identity(self._path) == self._now.files[0]:
            self._now.db.close()
        else:
            _never_close(self._now.db)


def _open(path: Path, clock: Callable[[], float], *, create: bool) -> _Open:
    db = _connect(path, clock, create=create)
    with _closing_on_error(db):
        shift, noted = _shift(db, clock)
        return _Open(db, _identities(path), shift, noted)


@contextmanager
def _closing_on_error(db: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _files(path: Path) -> list[Path]:
    """Return what the queue's file consists of. Each is lost when another inode has its name."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def _identities(path: Path) -> list[tuple[int, int] | None]:
    return [_identity(file) for file in _files(path)]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path, clock: Callable[[], float], *, create: bool) -> sqlite3.Connection:
    with _one_at_a_time(path.parent):
        return _prepared(path, clock, create=create)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for whoever opens a file in `folder`. SQLite itself lets nobody wait for a change of the journal
    mode: of two processes that start together one would be refused."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _prepared(path: Path, clock: Callable[[], float], *, create: bool) -> sqlite3.Connection:
    if create:
        _create(path)
    elif not path.exists():
        raise ConfigError(
            f"{path}: there is no such file, so nothing was ever queued here. Start hookmirror with this "
            "configuration first:  hookmirror up  (or name another:  --config FILE)"
        )
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    db = sqlite3.connect(uri, uri=True, timeout=OPENING, isolation_level=None, check_same_thread=False)
    with _closing_on_error(db):
        schema.check(db, path, create=create)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # NORMAL in WAL loses the last commits with the power
        schema.bring_up(db, clock)
        looked_at = create or path.stat().st_size <= LOOKED_AT
        if looked_at and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise damaged(path, found.splitlines()[-1])
        db.execute(f"PRAGMA busy_timeout = {round(BUSY * 1000)}")
    return db


def _create(path: Path) -> None:
    """Make an empty file if there is none. Nobody else may read it: it names the objects."""
    if not path.exists():
        main, *beside = _files(path)
        for file in beside:
            file.unlink(missing_ok=True)  # of a file that is gone
        os.close(os.open(main, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _shift(db: sqlite3.Connection, clock: Callable[[], float]) -> tuple[float, float]:
    """Return what makes the queue's time of `clock`, and the queue's time that was noted last."""
    shift, last = db.execute("SELECT shift, last FROM clock").fetchone()
    if clock() + shift >= last:
        return shift, last
    # The clock has begun anew: the machine was started since. It was off for we know not how long, and has
    # been on for what the clock says; so much has passed at least.
    db.execute("UPDATE clock SET shift = last WHERE shift = ?", (shift,))
    return _shift(db, clock)


def _bring_over(old: sqlite3.Connection, new: sqlite3.Connection, *, later: float) -> int:
    """Copy every message and mark, once for all processes. `later` is how much later it is in the new file.
    Return how many messages."""
    if old.execute("UPDATE clock SET moved = 1 WHERE moved = 0 RETURNING moved").fetchall() == []:
        return 0
    columns = "lane, body, attempt, failures, returned, holder, dead, why, at"
    messages = old.execute(f"SELECT {columns}, due + ? FROM message ORDER BY id", (later,))  # noqa: S608
    marks = old.execute("SELECT key, holder, at, until + ? FROM mark", (later,))
    sql = f"INSERT INTO message ({columns}, due) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    count = new.executemany(sql, messages).rowcount
    new.executemany("INSERT OR IGNORE INTO mark (key, holder, at, until) VALUES (?, ?, ?, ?)", marks)
    return count


def _never_close(db: sqlite3.Connection) -> None:
    """Keep `db` open until the process ends: who closes a file last deletes the -wal beside its name, which
    is another file's by now."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))
