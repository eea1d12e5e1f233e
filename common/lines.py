"""Log lines on their way out: a log that nobody drains stops nothing."""

import atexit
import contextlib
import fcntl
import logging
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator

ROOM = 10_000
"""Lines that wait to be written. Behind these, lines are dropped."""

FLUSH_WITHIN = 2.0
"""Seconds for the last lines at the end of a process."""


class LineWriter(logging.Handler):
    """Writes each line to the open file `fd`, from a thread: a full pipe or a log driver that hangs keeps
    that waiting, and not the program. What finds no room is dropped and counted, and a line made by
    `told(count)` says so when there is room again.

    `turns` is an open file that all processes have which write to `fd`: else a line that a pipe takes in
    parts would be broken by another's."""

    def __init__(self, fd: int, told: Callable[[int], str], room: int = ROOM) -> None:
        super().__init__()
        self._crowded = 0  # dropped for lack of room, counted by whoever logs
        self._failed = 0  # not written, counted by the writer
        self._told = told
        self._fd = fd
        self.turns: int | None = None
        self._lines: queue.Queue[str | None] = queue.Queue(room)
        self._said = 0  # of the dropped, as the writer has told
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def dropped(self) -> int:
        """How many lines nobody will see."""
        return self._crowded + self._failed

    def emit(self, record: logging.LogRecord) -> None:
        """Take the line for `record`. Never blocks."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of the library does
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._crowded += 1

    def close(self) -> None:
        """Write what waits, within FLUSH_WITHIN seconds, and end."""
        atexit.unregister(self.close)
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=FLUSH_WITHIN)
            self._thread.join(FLUSH_WITHIN)
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
            if (dropped := self.dropped) > self._said:
                count, self._said = dropped - self._said, dropped
                self._write(self._told(count))

    def _write(self, line: str) -> None:
        # No buffer of Python's: its lock, held by a thread that waits, would not let the process end.
        left = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        with _turn(self.turns):
            while left:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:  # somebody who shares the pipe made it so
                    select.select([], [self._fd], [], 1.0)
                except OSError:  # a full disk, a closed pipe
                    self._failed += 1
                    return


@contextlib.contextmanager
def _turn(file: int | None) -> Iterator[None]:
    """Nobody else who has this `file` is in here meanwhile. The lock goes with a process that is killed."""
    if file is None:
        yield
        return
    fcntl.lockf(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)
