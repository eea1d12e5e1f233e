"""The queue's file for a program of coroutines: one thread in which all SQL runs, a batch to a transaction.

What arrives during one commit shares the next.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from common.errors import QueueAway
from common.queue.sqlite.database import Database, Operation
from common.telemetry import Action, log

T = TypeVar("T")


class SqliteFile:
    """An open file. Make one with `open`."""

    def __init__(self, database: Database, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread
        self._batch: list[tuple[Operation[object], asyncio.Future[object]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._failing = False
        self.now = database.now

    @classmethod
    async def open(
        cls, path: Path, *, create: bool, clock: Callable[[], float] = time.monotonic
    ) -> "SqliteFile":
        """Open the file; `create` makes it when it is not there. Raises `ConfigError` when that cannot be,
        and `QueueAway` when it may be later."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-queue")
        opening = partial(Database, path, create=create, clock=clock)
        try:
            database = await asyncio.get_running_loop().run_in_executor(thread, opening)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(database, thread)

    async def run(self, operation: Operation[T]) -> T:
        """Run `operation` with whatever else is waiting, in one transaction, and return its result.
        Raises `QueueAway` when nothing can be read or written, or not for certain into this file."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._batch.append((operation, future))  # type: ignore[arg-type]  # each future gets its own result
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        while self._batch:
            batch, self._batch = self._batch, []
            operations = [operation for operation, _ in batch]
            try:
                results = await loop.run_in_executor(self._thread, self._database.transact, operations)
            except Exception as error:  # noqa: BLE001 - handed to whoever waits: a lost one would hang him
                self._fail(batch, error)
                continue
            if self._failing and self._database.wrote:  # a full disk can be read
                self._failing = False
                log(Action.QUEUE, "the queue file can be used again")
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _fail(self, batch: list[tuple[Operation[object], asyncio.Future[object]]], error: Exception) -> None:
        """Tell everyone in `batch` that nothing of it happened. The first failure is said here: who takes
        waits it out without a word."""
        if isinstance(error, QueueAway) and not self._failing:
            self._failing = True
            log(Action.QUEUE, str(error), level=logging.WARNING)
        for _, future in batch:
            if not future.done():
                future.set_exception(error)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown(wait=False)
