"""Several worker processes under one: started, started again, stopped together, and told of as one."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from common import telemetry
from common.admin import repeat, served
from common.errors import ConfigError
from common.merge import families, merge, render, together
from common.metrics import Metrics
from common.service import EXIT_CONFIG, run_all, stop_by_signal
from common.settings import Settings
from common.tables import WorkerSettings
from common.telemetry import Action, log
from console.line import Line

SHORTEST, LONGEST = 1.0, 30.0
"""Seconds before a process that ended is started again: twice as many each time."""

FORGIVEN = 60.0
"""Seconds of life after which the pauses begin anew."""

ASK_EVERY = 1.0
"""Seconds: what a process counted since it was asked last is lost when it is killed."""

LATE = 5.0
"""Seconds after `worker.drain` for a process to end, before it is killed."""


def how_many(worker: WorkerSettings) -> int:
    """Return the number of worker processes."""
    return len(os.sched_getaffinity(0)) if worker.processes == "auto" else worker.processes


class Pauses:
    """How long to wait before a process that ended is started again."""

    def __init__(self) -> None:
        self._next = SHORTEST

    def after(self, lived: float) -> float:
        """Return the seconds to wait after one that lived for so many."""
        if lived >= FORGIVEN:
            self._next = SHORTEST
        pause, self._next = self._next, min(2 * self._next, LONGEST)
        return pause


class Child:
    """One process, and those that take its place when it dies. `number` is its name in the log."""

    def __init__(self, name: str, number: int, config: str | None, turns: int) -> None:
        self.line = Line()
        self._title = f"{name} process {number}" if number else name
        self._number, self._turns, self._config = number, turns, config or ""
        self._command = [sys.executable, "-m", "console.child", name, str(number)]
        self._process: subprocess.Popen[bytes] | None = None

    async def keep(self, stop: asyncio.Event, drain: float) -> None:
        """Have one running until `stop` is set; then it has `drain` seconds. Raises `ConfigError` when the
        configuration must be changed."""
        pauses = Pauses()
        while not stop.is_set():
            began = time.monotonic()
            code = await self._live(stop, drain)
            if code == EXIT_CONFIG:
                raise ConfigError(f"{self._title} cannot start: what it says above must be changed")
            if stop.is_set():
                return
            pause = pauses.after(time.monotonic() - began)
            said = f"{self._title} {end(code)}: it is started again in {pause:.0f} s"
            log(Action.FAILED, said, level=logging.ERROR, process=self._number, exit=code)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    async def _live(self, stop: asyncio.Event, drain: float) -> int:
        """Run one process to its end; return its exit code."""
        process, socket_ = self._start()
        self._process = process
        killing = asyncio.create_task(self._kill_late(stop, drain))
        try:
            await self.line.listen(socket_, stop)
            return await asyncio.to_thread(process.wait)
        finally:
            killing.cancel()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        files = (theirs.fileno(), self._turns)
        command = [*self._command, *map(str, files), self._config]
        # A terminal's Ctrl-C goes to all processes: one that we are stopping already would take it for the
        # second. What is blocked here stays blocked there.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                return subprocess.Popen(command, pass_fds=files), ours  # noqa: S603 - ourselves
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    async def _kill_late(self, stop: asyncio.Event, drain: float) -> None:
        await stop.wait()
        await asyncio.sleep(drain + LATE)
        log(Action.STOPPING, f"{self._title} does not end, and is killed", level=logging.ERROR)
        self.kill()

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()


def end(code: int) -> str:
    """Return how a process with this exit code ended."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Together:
    """What all children tell, and we ourselves: `common.admin.Counted`."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._own = Metrics()
        self.port: int | None = None

    async def alive(self) -> bool:
        """See `Counted`."""
        return any(await asyncio.gather(*(line.ask() for line in self._lines)))

    def state(self) -> dict[str, dict[str, Any]]:
        """See `Counted`."""
        return together(line.state for line in self._lines)

    def render(self, accept: str) -> tuple[bytes, str]:
        """See `Counted`."""
        told = [families(self._own.registry), *(line.families for line in self._lines)]
        return render(merge(told), accept)


async def supervise(settings: Settings, names: Sequence[str], config: str | None) -> None:
    """Run the programs `names`, as many workers as are configured, until SIGTERM or SIGINT."""
    many, drain = how_many(settings.worker), settings.worker.drain
    numbered = [("receiver", 0)] * ("receiver" in names) + [("worker", one + 1) for one in range(many)]
    turns = os.memfd_create("turns")
    telemetry.share(turns)
    children = [Child(name, number, config, turns) for name, number in numbered]

    def kill_all() -> None:
        for child in children:
            child.kill()

    stop = stop_by_signal(drain, at_once=kill_all)
    counted = Together([child.line for child in children])
    async with served(settings.metrics, counted):
        fields = {} if counted.port is None else {"metrics_port": counted.port}
        log(Action.STARTED, "supervisor started", processes=len(children), **fields)
        asking = asyncio.create_task(repeat(counted.alive, ASK_EVERY))
        try:
            await run_all([child.keep(stop, drain) for child in children], stop)
        finally:
            asking.cancel()
    log(Action.STOPPED, "supervisor stopped")
