"""What SQLite and the system say of a file that cannot be used, in words that say what to do about it.

Source of the codes: https://sqlite.org/rescode.html
"""

import errno
import os
import sqlite3
from pathlib import Path

from common.errors import ConfigError, HookmirrorError, QueueAway

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_PASSES = "hookmirror goes on by itself then"


def explained(error: sqlite3.Error | OSError, path: Path) -> HookmirrorError:
    """Return what `error` means for the file at `path`: `ConfigError` for what only a person can mend, and
    `QueueAway` for what may pass."""
    if isinstance(error, OSError):
        if error.errno in _NO_ROOM:
            return _full(path)
        return _not_to_be_opened(path, error.strerror or str(error))
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return _full(path)
    if name.startswith("SQLITE_IOERR"):
        return QueueAway(
            f"{path}: the disk fails, or a limit on its use is reached ({name}). See the system's log, the "
            f"quota and the limit on file sizes; {_PASSES}"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return QueueAway(
            f"{path}: another process keeps it locked. See who has it open (fuser {path}); {_PASSES}"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return _not_to_be_opened(path, str(error))
    return QueueAway(f"{path}: {error} ({name or type(error).__name__})")


class Damaged(ConfigError):
    """The file's bytes are no database, or not the one they were."""


def damaged(path: Path, found: str) -> Damaged:
    """Return what to say of a file that is damaged as `found` says."""
    return Damaged(
        f"{path}: the file is damaged ({found}). Stop hookmirror, and move the file away to begin a new one. "
        "What can be read of the old one can be saved: see docs/operations.md"
    )


def _full(path: Path) -> QueueAway:
    return QueueAway(f"{path}: the disk is full. Make room in {path.parent}; {_PASSES}")


def _not_to_be_opened(path: Path, said: str) -> ConfigError:
    """Say why `path` cannot be opened for reading and writing, as far as it can be seen."""
    folder = path.parent
    if path.is_dir():
        why = "this is a folder. Name a file"
    elif not folder.is_dir():
        why = f"there is no folder {folder}. Make it, or name a file in another"
    elif _read_only(folder):
        why = f"{folder} is on a file system that is read-only. Name a file in a folder that can be written"
    elif _may(folder, os.X_OK) and path.exists() and not _may(path, os.R_OK | os.W_OK):
        why = f"no permission to read and write it. {_whose(path)}"
    elif not _may(folder, os.W_OK | os.X_OK):
        why = f"no permission to write in {folder}, where SQLite keeps files beside it. {_whose(folder)}"
    else:
        why = f"it cannot be opened ({said}). Name a file in a folder that can be written"
    return ConfigError(f"{path}: {why}")


def _may(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _whose(path: Path) -> str:
    try:
        owner = path.owner()
    except (KeyError, OSError):
        owner = str(path.stat().st_uid)
    return f"It belongs to {owner}: run hookmirror as {owner}, or give it to the user that runs hookmirror"
