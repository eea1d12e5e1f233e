"""The tables of the queue's file, and how a file of an older version gets them.

Depths are kept by triggers, so that they are told without counting, whoever writes and however it ends:
`depth` has the messages of each lane, and `due_in` how many of them fall due in each second. What falls due
changes no row.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import ConfigError

VERSION = 1
"""What `PRAGMA user_version` says of a file with these tables; 0 was before it was said."""

# `due` is the queue's time (`now`); a lease is a due time in the future. Of a dead message it is when it was
# buried, which is the order of the dead, for `at`, the wall clock, may be set back.
# `holder` names who leases the message, NULL for nobody; `returned` counts the holders that died with it;
# `why` and `at` are set when it is dead. A lane is written as its name.
_MESSAGE = """
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
)"""

_MARK = """
CREATE TABLE IF NOT EXISTS mark (
    key    TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    at     REAL NOT NULL,
    until  REAL NOT NULL
) WITHOUT ROWID"""

_ADD = (
    "INSERT INTO depth VALUES (NEW.dead, NEW.lane, 1) ON CONFLICT (dead, lane) DO UPDATE SET n = n + 1;"
    " INSERT INTO due_in SELECT NEW.lane, CAST(NEW.due AS INTEGER), 1 WHERE NEW.dead = 0"
    " ON CONFLICT (lane, second) DO UPDATE SET n = n + 1;"
)
_TAKE_OFF = (
    "UPDATE depth SET n = n - 1 WHERE dead = OLD.dead AND lane = OLD.lane;"
    " UPDATE due_in SET n = n - 1"
    " WHERE OLD.dead = 0 AND lane = OLD.lane AND second = CAST(OLD.due AS INTEGER);"
    " DELETE FROM due_in WHERE lane = OLD.lane AND second = CAST(OLD.due AS INTEGER) AND n = 0;"
)

_DEPTHS = (
    "CREATE TABLE depth"
    " (dead INTEGER, lane TEXT, n INTEGER NOT NULL, PRIMARY KEY (dead, lane)) WITHOUT ROWID",
    "CREATE TABLE due_in"
    " (lane TEXT, second INTEGER, n INTEGER NOT NULL, PRIMARY KEY (lane, second)) WITHOUT ROWID",
    "INSERT INTO depth SELECT dead, lane, count(*) FROM message GROUP BY dead, lane",
    "INSERT INTO due_in"
    " SELECT lane, CAST(due AS INTEGER), count(*) FROM message WHERE dead = 0"
    " GROUP BY lane, CAST(due AS INTEGER)",
    f"CREATE TRIGGER message_comes AFTER INSERT ON message BEGIN {_ADD} END",
    f"CREATE TRIGGER message_goes AFTER DELETE ON message BEGIN {_TAKE_OFF} END",
    f"CREATE TRIGGER message_moves AFTER UPDATE OF dead, lane, due ON message BEGIN {_TAKE_OFF} {_ADD} END",
)

_INDEXES = (
    "CREATE INDEX IF NOT EXISTS message_next ON message (lane, due) WHERE dead = 0",
    "CREATE INDEX IF NOT EXISTS message_held ON message (lane, due) WHERE holder IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS message_buried ON message (due) WHERE dead = 1",
    "CREATE INDEX IF NOT EXISTS mark_until ON mark (until)",
)


def check(db: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Raise `ConfigError` for a file that is not ours; for an empty one too, unless it is to be made ours."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    if tables and "message" not in tables:
        raise ConfigError(f"{path}: this is another program's database. Name another file")
    if not tables and not create:
        raise ConfigError(f"{path}: there is no queue in this file")
    if _version(db) > VERSION:
        raise ConfigError(
            f"{path}: a newer hookmirror has written this file. Run that one, or name another file"
        )


def bring_up(db: sqlite3.Connection, clock: Callable[[], float]) -> None:
    """Give the file what it lacks, in one transaction."""
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    if _version(db) != VERSION:  # else another process has done it meanwhile
        _migrate(db, clock)
    db.execute("COMMIT")  # an error closes the connection, and so undoes it


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _migrate(db: sqlite3.Connection, clock: Callable[[], float]) -> None:
    db.execute(_MESSAGE)
    db.execute(_MARK)
    if "returned" not in {row[1] for row in db.execute("PRAGMA table_info(message)")}:
        db.execute("ALTER TABLE message ADD COLUMN returned INTEGER NOT NULL DEFAULT 0")
    for name in ("message_due", "message_when", "message_dead"):
        db.execute(f"DROP INDEX IF EXISTS {name}")
    for name in ("message_comes", "message_goes", "message_moves"):
        db.execute(f"DROP TRIGGER IF EXISTS {name}")
    for name in ("depth", "due_in", "clock"):
        db.execute(f"DROP TABLE IF EXISTS {name}")
    db.execute("UPDATE message SET due = at, holder = NULL WHERE dead = 1")
    for statement in (*_INDEXES, *_DEPTHS):
        db.execute(statement)
    db.execute(
        "CREATE TABLE clock (shift REAL NOT NULL, last REAL NOT NULL, moved INTEGER NOT NULL DEFAULT 0)"
    )
    # It begins as the wall clock, by which older versions have written what is due.
    monotonic, wall = clock(), time.time()
    db.execute("INSERT INTO clock (shift, last) VALUES (?, ?)", (wall - monotonic, wall - 1))
    db.execute(f"PRAGMA user_version = {VERSION}")
