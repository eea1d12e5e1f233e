"""The action `exec`: run a program, as `program BUCKET KEY copy|delete` or as `program STACK STATUS`."""

import asyncio
import os
import signal
import tempfile
from asyncio.subprocess import STDOUT, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

from common.errors import ActionFailed, ActionRefused, ConfigError
from common.routes import OnFailure
from common.settings import for_programs
from common.telemetry import Action, log
from worker.actions import Order
from worker.verdict import Outcome

AGAIN = 75
"""The exit code that asks for another try: EX_TEMPFAIL of sysexits.h."""

KEEP = 4096
"""Bytes of a program's output that are kept for the log: the last ones, which say how it ended."""

GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL for a program that is out of time."""

CHUNK = 2**16


class Program:
    """The program at `path`; `timeout` is in seconds, `on_failure` says what an exit code means that is
    neither 0 nor 75. Raises `ConfigError` when there is no such program."""

    def __init__(self, path: str, *, timeout: float, on_failure: OnFailure = "retry") -> None:
        self._path = Path(path).absolute()  # a bare name is a file here: nothing is searched for in PATH
        self._timeout = timeout
        self._on_failure = on_failure
        if not self._path.is_file() or not os.access(self._path, os.X_OK):
            raise ConfigError(f"exec: {self._path} is no program. Put it there, and:  chmod +x {self._path}")

    async def __call__(self, order: Order) -> Outcome:
        """Run the program for `order`, to its end or to the time limit; nothing of it is left running.

        Raises `ActionFailed` or `ActionRefused`. A cancelled run is killed at once.
        """
        tail = _Tail()
        try:
            code = await self._run(order, tail)
        finally:
            self._tell(order, tail)
        if code == 0:
            return Outcome(Action.EXECUTED, order.verb)
        if code is None:
            raise ActionFailed(f"{self._path.name}: not done within {self._timeout:g} s: killed")
        how = f"ended by {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        why = f"{self._path.name}: {how}" + (f": {tail.last_line}" if tail.last_line else "")
        if code == AGAIN or self._on_failure == "retry":
            raise ActionFailed(why)
        raise ActionRefused(why)

    async def _run(self, order: Order, tail: "_Tail") -> int | None:
        """Return the exit code, below 0 for a signal; None when the time was up."""
        async with self._started(order, tail) as process:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    return await process.wait()
            _kill_group(process, signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await process.wait()
            return None

    @asynccontextmanager
    async def _started(self, order: Order, tail: "_Tail") -> AsyncIterator[Process]:
        """The program at work, its output on the way to `tail`; at the end of the block its group is dead."""
        async with _pipe(tail) as writing:
            try:
                # No pipes of asyncio's: with them `wait` waits for whoever has inherited them, too.
                with _holding(order.document()) as document:
                    process = await create_subprocess_exec(
                        str(self._path),
                        *order.arguments(),
                        stdin=document,
                        stdout=writing,
                        stderr=STDOUT,
                        env=for_programs() | order.variables(),
                        start_new_session=True,
                    )
            except ValueError as error:  # a NUL
                raise ActionRefused(f"this key cannot be handed to a program: {error}") from error
            except OSError as error:
                raise ActionFailed(f"{self._path} cannot be started: {error}") from error
            finally:
                os.close(writing)
            try:
                yield process
            finally:
                _kill_group(process, signal.SIGKILL)
                await process.wait()

    def _tell(self, order: Order, tail: "_Tail") -> None:
        if tail.total:
            task = order.task
            log(
                Action.OUTPUT,
                tail.text,
                program=self._path.name,
                left_out=tail.left_out,
                task=task.id,
                route=task.route,
                key=task.key,
            )


class _Tail:
    """The end of an output, and how long all of it was."""

    def __init__(self) -> None:
        self.total = 0
        self._kept = b""

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self._kept = (self._kept + chunk)[-KEEP:]

    @property
    def left_out(self) -> int:
        """Bytes that came before what is kept."""
        return self.total - len(self._kept)

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()

    @property
    def last_line(self) -> str:
        return self.text.rpartition("\n")[2][:200]


@asynccontextmanager
async def _pipe(tail: _Tail) -> AsyncIterator[int]:
    """A pipe that is read into `tail` to its end; gives the end to write to, which the caller closes."""
    reading, writing = os.pipe()
    stream = asyncio.StreamReader(limit=CHUNK)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", 0)
    )

    async def drain() -> None:
        while chunk := await stream.read(CHUNK):
            tail.add(chunk)

    draining = asyncio.create_task(drain())
    try:
        yield writing
    finally:
        # Who has left the group may hold the pipe open: what is in it is read, he is not waited for.
        await asyncio.wait([draining], timeout=1)
        draining.cancel()
        transport.close()


def _holding(content: bytes) -> IO[bytes]:
    """Return a file of no name that holds `content`: a program that reads none of it breaks nothing."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.seek(0)
    return file


def _kill_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone, or of another user by its own doing
        os.killpg(process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
