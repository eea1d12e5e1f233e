"""A process: settings, logs, the queue, signals, an exit code. What receiver, worker and `up` share."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import uvloop

from common import settings as configuration
from common import telemetry
from common.admin import admin
from common.allocator import return_large_blocks
from common.errors import ConfigError, HookmirrorError
from common.metrics import Metrics
from common.queue import open_queue
from common.queue.port import Queue
from common.settings import Settings
from common.telemetry import Action, log

Program = Callable[[Settings, Queue, asyncio.Event, Metrics], Awaitable[None]]
"""Runs until the event is set, then winds up. The queue is open before and closed after it; what it counts
is served for as long."""

Telling = Callable[[Settings, Metrics, Queue, asyncio.Event], AbstractAsyncContextManager[None]]
"""Tells, inside its block, whoever asks what is counted. May set the event, to stop the programs."""

EXIT_CONFIG = 2


def say_notes(settings: Settings) -> None:
    """Log what was put right while the configuration was read."""
    for note in settings.notes:
        log(Action.STARTED, note, level=logging.WARNING)


def main(config: str | Path | None, *programs: Program) -> int:
    """Run `programs` in this process until SIGTERM or SIGINT; return the exit code, as `carry_out` does."""
    return carry_out(config, lambda settings: serve(settings, programs))


def carry_out(
    config: str | Path | None,
    work: Callable[[Settings], Coroutine[Any, Any, None]],
    begin: Callable[[Settings], None] = say_notes,
) -> int:
    """Read the configuration, `begin`, and do `work` with it; return the exit code.

    0 after a stop that was asked for, 2 when the configuration must be changed, 1 for anything else.
    """
    try:
        settings = configuration.start(config)
        begin(settings)
        if not settings.all_routes:
            raise ConfigError("routes: there is none: add  [[routes]]  with source and target")
        return_large_blocks()
        uvloop.run(work(settings))
    except ConfigError as error:
        sys.stderr.write(f"hookmirror: {error}\n")
        return EXIT_CONFIG
    except HookmirrorError as error:
        sys.stderr.write(f"hookmirror: {error}\n")
        return 1
    except Exception as error:  # noqa: BLE001 - nobody but us can read a traceback
        sys.stderr.write(f"hookmirror: {telemetry.unexpected(error)}\n")
        return 1
    return 0


def at_the_port(
    settings: Settings, metrics: Metrics, queue: Queue, _: asyncio.Event
) -> AbstractAsyncContextManager[None]:
    """Tell it at `metrics.port`: a `Telling`."""
    return admin(settings.metrics, metrics, queue)


async def serve(settings: Settings, programs: Sequence[Program], telling: Telling = at_the_port) -> None:
    """Run `programs` until a signal, or until `telling` stops them."""
    stop = stop_by_signal(settings.worker.drain)
    queue = await open_queue(
        settings.queue.url,
        look_after=settings.worker.look_after,
        management=settings.queue.management_url,
        routes=[route.id for route in settings.all_routes],
    )
    gc.freeze()  # what was imported stays for good: no collection need walk through it again
    metrics = Metrics(route.id for route in settings.all_routes)
    try:
        async with telling(settings, metrics, queue, stop):
            await run_all([program(settings, queue, stop, metrics) for program in programs], stop)
    finally:
        await queue.close()


async def run_all(programs: list[Awaitable[None]], stop: asyncio.Event) -> None:
    """Run `programs` to their end. One that fails sets `stop`, and what it raised is raised when all have
    ended."""
    tasks = [asyncio.ensure_future(program) for program in programs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stop.set()  # one that failed takes the others down in good order
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


def stop_by_signal(drain: float, at_once: Callable[[], None] = lambda: None) -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set. A second SIGINT calls `at_once` and ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop, number, drain, at_once)
    return stop


def _stop(stop: asyncio.Event, number: int, drain: float, at_once: Callable[[], None]) -> None:
    name = signal.Signals(number).name
    if stop.is_set() and number == signal.SIGINT:
        at_once()
        log(Action.STOPPED, f"{name} again: ended at once. What was in hand comes back")
        telemetry.flush()
        os._exit(128 + number)
    if not stop.is_set():
        log(
            Action.STOPPING,
            f"{name}: nothing new is taken; what is in hand has {drain:.0f} s to finish. Ctrl-C ends at once",
        )
    stop.set()
