"""A process: settings, logs, the queue, signals, an exit code. What receiver, worker and `up` share."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

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

EXIT_CONFIG = 2


def main(config: str | Path | None, *programs: Program) -> int:
    """Run `programs` in this process until SIGTERM or SIGINT; return the exit code.

    0 after a stop that was asked for, 2 when the configuration must be changed, 1 for anything else.
    """
    try:
        settings = configuration.start(config)
        for note in settings.notes:
            log(Action.STARTED, note, level=logging.WARNING)
        if not settings.all_routes:
            raise ConfigError("routes: there is none: add  [[routes]]  with source and target")
        return_large_blocks()
        uvloop.run(_serve(settings, programs))
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


async def _serve(settings: Settings, programs: tuple[Program, ...]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop, number, settings.worker.drain)
    queue = await open_queue(
        settings.queue.url,
        look_after=settings.worker.look_after,
        management=settings.queue.management_url,
    )
    gc.freeze()  # what was imported stays for good: no collection need walk through it again
    metrics = Metrics(route.id for route in settings.all_routes)
    try:
        async with admin(settings.metrics, metrics, queue):
            await _run([program(settings, queue, stop, metrics) for program in programs], stop)
    finally:
        await queue.close()


async def _run(programs: list[Awaitable[None]], stop: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(program) for program in programs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stop.set()  # one that failed takes the others down in good order
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


def _stop(stop: asyncio.Event, number: int, drain: float) -> None:
    name = signal.Signals(number).name
    if stop.is_set() and number == signal.SIGINT:
        log(Action.STOPPED, f"{name} again: ended at once. What was in hand comes back")
        telemetry.flush()
        os._exit(128 + number)
    if not stop.is_set():
        log(
            Action.STOPPING,
            f"{name}: nothing new is taken; what is in hand has {drain:.0f} s to finish. Ctrl-C ends at once",
        )
    stop.set()
