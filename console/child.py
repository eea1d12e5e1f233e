"""`python -m console.child`: one process of several. `console.supervisor` starts it and gives it a line, a
socket on which it is asked what it counts, and told to stop; the line's end is the end of the supervisor."""

import asyncio
import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from common import service, telemetry
from common.admin import sampled
from common.merge import families
from common.metrics import Metrics, harmless
from common.queue.port import Queue
from common.service import Program
from common.settings import Settings
from common.telemetry import Action, log, without_secrets
from console.line import TELL

LAST_WITHIN = 2.0
"""Seconds for the last answer to go out."""


def program(name: str) -> Program:
    """Return the program "receiver" or "worker". It is imported now: who only supervises does without it."""
    run: Program = importlib.import_module(f"{name}.program").run
    return run


@asynccontextmanager
async def on_the_line(
    line: socket.socket, settings: Settings, metrics: Metrics, queue: Queue, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Answer the supervisor inside the block, and once more at its end: a `service.Telling`."""
    reader, writer = await asyncio.open_unix_connection(sock=line)
    heeding = asyncio.create_task(_heed(reader, writer, metrics, stop))
    try:
        async with sampled(settings.metrics, metrics, queue):
            yield
    finally:
        heeding.cancel()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(LAST_WITHIN):
                _tell(writer, metrics)
                await writer.drain()
                writer.close()
                await writer.wait_closed()


async def _heed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, metrics: Metrics, stop: asyncio.Event
) -> None:
    with suppress(OSError):
        while order := await reader.readline():
            if order == TELL:
                _tell(writer, metrics)
            else:
                stop.set()
    if not stop.is_set():
        log(Action.STOPPING, "the supervisor is gone: this process ends too", level=logging.WARNING)
    stop.set()


@harmless
def _tell(writer: asyncio.StreamWriter, metrics: Metrics) -> None:
    """Tell how things are, as one line."""
    state = metrics.state() if metrics.state else {}
    writer.write(without_secrets(json.dumps([families(metrics.registry), state])).encode() + b"\n")


def main(name: str, number: str, line: str, turns: str, config: str) -> int:
    """Run the program `name` as process `number`; the line and the file for turns are open files."""
    for file in (line, turns):
        os.set_inheritable(int(file), False)  # the programs of `exec` routes have no business with them
    end = socket.socket(fileno=int(line))
    return service.carry_out(
        config or None,
        lambda settings: service.serve(settings, [program(name)], partial(on_the_line, end)),
        begin=lambda _: telemetry.share(int(turns), process=int(number)),
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
