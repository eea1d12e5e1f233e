"""The queue's file: its tables, and one thread in which all SQL runs, a batch to a transaction.

WAL with `synchronous=FULL` syncs before a commit returns; what arrives during one commit shares the next.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from common.errors import ConfigError, QueueAway

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

# `holder` names who leases the message, NULL for nobody; `returned` counts the holders that died with it;
# `why` and `at` are set when it is dead.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    lane     TEXT NOT NULL,
    body     BLOB NOT NULL,
    due      REAL NOT NULL,
    attempt  INTEGER NOT NULL DEFAULT 1,
    failures TEXT NOT NULL DEFAULT '[]',
    returned INTEGER NOT NULL DEFAULT 0,
    holder   TEXT,
    dead     INTEGER NOT NULL DEFAULT 0,
    why      TEXT,
    at       REAL
);
DROP INDEX IF EXISTS message_due;
CREATE INDEX IF NOT EXISTS message_when ON message (dead, lane, due, holder);
CREATE INDEX IF NOT EXISTS message_dead ON message (at, id) WHERE dead = 1;
CREATE TABLE IF NOT EXISTS mark (
    key    TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    at     REAL NOT NULL,
    until  REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mark_until ON mark (until);
"""


class SqliteFile:
    """An open file. Make one with `open`."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread
        self._batch: list[tuple[Operation[object], asyncio.Future[object]]] = []
        self._committing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> "SqliteFile":
        """Open the file, making it when it is not there. Raises `ConfigError` when that cannot be."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-queue")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _connect, path)
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise ConfigError(
                f"queue.url: {path}: {error}. Name a file in a folder that can be written."
            ) from error
        return cls(connection, thread)

    async def run(self, operation: Operation[T]) -> T:
        """Run `operation` with whatever else is waiting, in one transaction, and return its result.
        Raises `QueueAway` when the file cannot be written."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._batch.append((operation, future))  # type: ignore[arg-type]  # each future gets its own result
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        while self._batch:
            batch, self._batch = self._batch, []
            try:
                results = await loop.run_in_executor(self._thread, self._transact, [op for op, _ in batch])
            except Exception as error:  # noqa: BLE001 - handed to whoever waits: a lost one would hang him
                _fail(batch, error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _transact(self, operations: list[Operation[object]]) -> list[object]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(self._connection) for operation in operations]
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return results

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)


def _connect(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)  # it names the objects: nobody else reads it
    connection = sqlite3.connect(path, timeout=1.5, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # NORMAL in WAL loses the last commits with the power
    connection.executescript(_SCHEMA)
    _migrate(connection)
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Give a file of an older version what it lacks. Another process may do so in the same moment."""
    connection.execute("BEGIN IMMEDIATE")
    columns = {row[1] for row in connection.execute("PRAGMA table_info(message)")}
    if "returned" not in columns:
        connection.execute("ALTER TABLE message ADD COLUMN returned INTEGER NOT NULL DEFAULT 0")
    connection.execute("COMMIT")


def _fail(batch: list[tuple[Operation[object], asyncio.Future[object]]], error: Exception) -> None:
    """Tell everyone in `batch` that nothing of it happened: locked too long, the disk full."""
    if isinstance(error, sqlite3.Error):
        error = QueueAway(f"the queue file cannot be written: {error}")
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
