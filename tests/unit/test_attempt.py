"""What waits costs little: a busy key is not asked for every second, a paused route fills no log."""

import asyncio
import logging
import random
from contextlib import aclosing
from dataclasses import replace

import pytest

from common.errors import KeyBusy, Refused, RouteDown, SourceMoved, StoreAway, Throttled
from common.queue.memory import MemoryQueue
from common.queue.port import MAX_RETURNS, Bury, Delivery, Done, Retry
from common.store.memory import MemoryStore
from common.task import Claim, Task, Trouble
from common.telemetry import Action
from tests.lab.lanes import LIVE
from worker import blame
from worker.attempt import BUSY_WAIT, Attempt, Attempted, Observer, carried, log_attempt
from worker.blame import Blame
from worker.job import Job, Learned, Route
from worker.verdict import Blamed, Continue, Outcome


def spared(error: Exception) -> Blamed:
    return Blamed(error, counts=False, after=30, trouble=None)


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
        await self.queue.publish(Task(route="r", key=key).encode(), lane=LIVE)
        async with aclosing(self.queue.deliveries(LIVE, 100)) as deliveries:  # type: ignore[type-var]
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
        (Throttled("no turn", counts=False), logging.INFO),
        (SourceMoved("it changed"), logging.INFO),
        (RouteDown("AccessDenied"), logging.WARNING),
        (spared(StoreAway("500")), logging.INFO),
        (spared(RouteDown("AccessDenied")), logging.INFO),
        (spared(RouteDown("the route is paused", counts=False)), logging.DEBUG),
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
    bench.error = spared(RouteDown("the route is paused", counts=False))
    for number in range(1000):
        await bench.come(f"k{number}")
    assert caplog.records == []


async def test_what_hangs_is_cut_off_before_the_broker_takes_the_delivery_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blame, "HOLD_WITHIN", 0.01)
    bench = Bench()
    bench.attempt._act = Blame(bench.act)
    await bench.come()  # the gate never opens
    bench.gate.set()
    await bench.attempt(await bench.take())  # the key is free again
    assert [type(attempted.result) for attempted in bench.seen] == [StoreAway, Outcome]


async def come_back(bench: Bench, times: int) -> Delivery:
    """A delivery that came back unsettled so often."""
    return replace(await bench.take(), returned=times)


async def test_what_came_back_unsettled_too_often_is_buried_before_anything_is_tried() -> None:
    bench = Bench()
    bench.gate.set()
    await bench.attempt(await come_back(bench, MAX_RETURNS - 1))
    assert bench.begun.is_set()
    bench.begun.clear()
    await bench.attempt(await come_back(bench, MAX_RETURNS))
    assert not bench.begun.is_set()
    verdict = bench.seen[-1].verdict
    assert isinstance(verdict, Bury)
    assert verdict.why.startswith(f"CameBack: came back unsettled {MAX_RETURNS} times")


async def test_returns_are_no_attempts() -> None:
    bench = Bench()
    bench.error = StoreAway("500")
    await bench.attempt(await come_back(bench, 11))
    assert isinstance(bench.seen[-1].verdict, Retry), "the first of two attempts"


async def test_a_delivery_that_came_back_is_in_doubt_and_its_retry_says_so() -> None:
    bench = Bench()
    bench.error = StoreAway("500")
    await bench.attempt(await come_back(bench, 1))
    verdict = bench.seen[-1].verdict
    assert isinstance(verdict, Retry)
    assert verdict.body is not None
    assert Task.decode(verdict.body).doubt


def test_what_comes_back_carries_what_was_learned_and_nothing_else() -> None:
    task = Task(route="r", key="k", claim=Claim.CREATED)
    learned = Learned()
    assert carried(task, learned, StoreAway("500")) == task
    learned.doubt = True
    assert carried(task, learned, StoreAway("500")) == task.model_copy(update={"doubt": True})
    learned.wrote = True
    trouble = Trouble(at=2, since=1, spared=3, stage="copy")
    blamed = Blamed(StoreAway("500"), counts=False, after=30, trouble=trouble)
    back = carried(task, learned, blamed)
    assert (back.claim, back.doubt, back.trouble) == (None, True, trouble)
    assert Task.decode(back.encode()) == back
    assert (back.id, back.key, back.received) == (task.id, task.key, task.received)


@pytest.mark.parametrize("eventual", [False, True])
async def test_only_on_a_source_that_may_show_old_states_a_promised_look_stands_for_a_retry(
    eventual: bool,
) -> None:
    """Elsewhere it is another route's."""
    bench = Bench()
    bench.attempt._routes = {"r": replace(bench.attempt._routes["r"], eventual=eventual)}

    async def promises_and_fails(job: Job) -> Outcome | Continue:
        job.learned.promises.append(job.task.look())
        raise StoreAway("503")

    bench.attempt._act = promises_and_fails
    await bench.attempt(await bench.take())
    assert isinstance(bench.seen[-1].verdict, Done if eventual else Retry)


async def test_what_a_dead_letter_went_through_is_forgotten_when_it_is_sent_back() -> None:
    bench = Bench()
    trouble = Trouble(at=1.0, since=1.0, spared=3, stage="copy")
    bench.error = Blamed(Refused("no"), counts=True, after=0.0, trouble=trouble)
    await bench.attempt(await bench.take())
    [letter] = await bench.queue.buried(10)
    assert Task.decode(letter.body).trouble is None
