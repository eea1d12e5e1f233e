"""What waits costs little: a busy key is not asked for every second, a paused route fills no log."""

import asyncio
import logging
import random
from contextlib import aclosing

import pytest

from common.errors import KeyBusy, RouteDown, SourceMoved, StoreAway, Throttled
from common.queue.memory import MemoryQueue
from common.queue.port import Delivery, Lane, Retry
from common.store.memory import MemoryStore
from common.task import Task
from common.telemetry import Action
from worker import attempt
from worker.attempt import BUSY_WAIT, Attempt, Attempted, Observer, log_attempt
from worker.job import Job, Route
from worker.verdict import Continue, Outcome


class Bench:
    """An attempt on a queue in memory; its act waits for `gate`, or fails with `error`."""

    def __init__(self) -> None:
        self.now = 50.0
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None
        self.seen: list[Attempted] = []
        self.queue = MemoryQueue(lambda: self.now)
        store = MemoryStore()
        routes = {"r": Route("r", store.create("s"), store.create("t"))}
        observers: tuple[Observer, ...] = (self.note, log_attempt)
        self.attempt = Attempt(
            self.queue,
            self.act,
            routes,
            attempts=2,
            observers=observers,
            rng=random.Random(1),
            clock=lambda: self.now,
        )

    def note(self, attempted: Attempted) -> None:
        self.seen.append(attempted)

    async def act(self, _: Job) -> Outcome | Continue:
        if self.error is not None:
            raise self.error
        self.begun.set()
        await self.gate.wait()
        return Outcome(Action.COPIED)

    async def take(self, key: str = "k") -> Delivery:
        await self.queue.publish(Task(route="r", key=key).encode(), lane=Lane.LIVE)
        async with aclosing(self.queue.deliveries(Lane.LIVE, 100)) as deliveries:  # type: ignore[type-var]
            return await anext(deliveries)

    async def come(self, key: str = "k") -> Retry:
        """Let another delivery of `key` come, which has to wait; return how."""
        await self.attempt(await self.take(key))
        verdict = self.seen[-1].verdict
        assert isinstance(verdict, Retry)
        return verdict


async def test_a_busy_key_is_waited_for_as_long_again_as_it_is_busy() -> None:
    bench = Bench()
    first = asyncio.create_task(bench.attempt(await bench.take()))
    await bench.begun.wait()
    waits = []
    for busy_for in (0, 0.2, 3, 20, 600):
        bench.now = 50.0 + busy_for
        waits.append((await bench.come()).after)
    assert waits == [KeyBusy.patience, KeyBusy.patience, 3, 20, BUSY_WAIT]
    bench.gate.set()
    await first


async def test_a_key_that_was_busy_long_and_is_so_again_is_waited_for_shortly() -> None:
    bench = Bench()
    first = asyncio.create_task(bench.attempt(await bench.take()))
    await bench.begun.wait()
    bench.gate.set()
    await first
    bench.now += 600
    bench.gate.clear()
    bench.begun.clear()
    second = asyncio.create_task(bench.attempt(await bench.take()))
    await bench.begun.wait()
    assert (await bench.come()).after == KeyBusy.patience
    bench.gate.set()
    await second


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (StoreAway("500"), logging.WARNING),
        (Throttled("SlowDown"), logging.INFO),
        (SourceMoved("it changed"), logging.INFO),
        (RouteDown("the route is paused"), logging.DEBUG),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_a_try_that_counts_is_a_warning(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int
) -> None:
    caplog.set_level(logging.DEBUG, logger="hookmirror")
    bench = Bench()
    bench.error = error
    await bench.come()
    assert [record.levelno for record in caplog.records] == [level]


async def test_a_thousand_tasks_that_wait_for_a_paused_route_write_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="hookmirror")
    bench = Bench()
    bench.error = RouteDown("the route is paused")
    for number in range(1000):
        await bench.come(f"k{number}")
    assert caplog.records == []


async def test_what_hangs_is_cut_off_before_the_broker_takes_the_delivery_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt, "HOLD_WITHIN", 0.01)
    bench = Bench()
    verdict = await bench.come()  # the gate never opens
    assert verdict.counts
    bench.gate.set()
    await bench.attempt(await bench.take())  # the key is free again
    assert [type(attempted.result) for attempted in bench.seen] == [StoreAway, Outcome]
