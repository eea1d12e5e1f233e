"""A process's end of its line to the supervisor."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.metrics import Metrics, WorkerFamilies
from common.queue.memory import MemoryQueue
from common.settings import Settings
from console.child import on_the_line
from console.line import STOP, TELL
from tests.lab.until import until

Supervisor = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["r"])


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def supervisor(metrics: Metrics, stop: asyncio.Event) -> AsyncIterator[Supervisor]:
    """Who asks, with a process at the other end."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    async with on_the_line(theirs, Settings(), metrics, MemoryQueue(), stop):
        yield reader, writer
    writer.close()


async def test_it_tells_what_it_counts_and_how_its_routes_are(
    supervisor: Supervisor, metrics: Metrics
) -> None:
    reader, writer = supervisor
    WorkerFamilies(metrics.registry).in_hand.set(3)
    metrics.state = lambda: {"r": {"in_progress": 3}}
    writer.write(TELL)
    families, state = json.loads(await reader.readline())
    kind, _, samples = families["hookmirror_deliveries_in_hand"]
    assert (kind, samples) == ("gauge", [["hookmirror_deliveries_in_hand", {}, 3]])
    assert state == {"r": {"in_progress": 3}}


async def test_it_stops_when_it_is_told_to_and_tells_how_things_are_all_the_same(
    supervisor: Supervisor, stop: asyncio.Event
) -> None:
    reader, writer = supervisor
    writer.write(STOP + TELL)
    assert json.loads(await reader.readline())
    assert stop.is_set()


async def test_it_stops_when_the_supervisor_is_gone(supervisor: Supervisor, stop: asyncio.Event) -> None:
    supervisor[1].transport.abort()
    await until(stop.is_set, "it stops")


async def test_a_report_that_fails_keeps_it_from_no_stop(
    supervisor: Supervisor, metrics: Metrics, stop: asyncio.Event
) -> None:
    def fails() -> dict[str, dict[str, Any]]:
        raise LookupError("a defect")

    metrics.state = fails
    supervisor[1].write(TELL + STOP)
    await until(stop.is_set, "it stops")


async def test_its_last_words_come_unasked(metrics: Metrics, stop: asyncio.Event) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    async with on_the_line(theirs, Settings(), metrics, MemoryQueue(), stop):
        pass
    assert json.loads(await reader.readline())
    assert await reader.read() == b""
    writer.close()
