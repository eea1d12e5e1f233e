"""The embedded queue. The only package that knows sqlite3."""

from common.queue.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
