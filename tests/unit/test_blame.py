"""Who is to blame, in virtual time: attempts, blame and queue as they are, an act that fails as told."""

import asyncio
import heapq
import logging
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from itertools import pairwise
from typing import cast

import pytest

from common.errors import (
    ActionFailed,
    Corrupt,
    KeyBusy,
    QueueAway,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    UploadGone,
)
from common.queue.memory import MemoryQueue
from common.queue.port import DeadLetter
from common.store.memory import MemoryStore
from common.task import Task, Trouble
from common.telemetry import Action
from tests.lab.clock import Clock
from tests.lab.lanes import LIVE
from worker.attempt import Attempt, Attempted
from worker.blame import Blame
from worker.doubt import FORGOTTEN, PROBE, REFUSED, TRIALS, Operation
from worker.job import Job, Route, Stage
from worker.verdict import Outcome

DAY = 24 * 3600.0
AT_ONCE = 32
PROOF = {"copy": Action.COPIED, "parts": Action.COPIED, "delete": Action.DELETED, "act": Action.EXECUTED}

DENIED = RouteDown("PUT target: AccessDenied")
EVERY_ERROR = [
    DENIED,
    StoreAway("PUT target: InternalError"),
    Throttled("PUT target: SlowDown"),
    Throttled("PUT target: SlowDown", retry_after=120),
    Corrupt("PUT target: BadDigest"),
    UploadGone("POST target: NoSuchUpload"),
    SourceMoved("412, and nothing had changed", counts=True),
    ActionFailed("exit code 1"),
    RuntimeError("a defect of ours"),
    Refused("PUT target: InvalidArgument", own=False),
]

Fault = Callable[[str, str], Exception | None]


class World:
    """A route in virtual time: a queue, a worker that does `AT_ONCE` tasks at once, and an act that takes
    `takes` seconds and fails with what `fault` says of a key and an operation (which the key begins with)."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue = MemoryQueue(self.clock)
        self.fault: Fault = lambda _key, _stage: None
        self.takes = 0.02
        self.came: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.tries: defaultdict[str, list[float]] = defaultdict(list)
        self.most_at_once: Counter[str] = Counter()
        self.seen: list[Attempted] = []
        self._running: set[asyncio.Task[None]] = set()
        self.start()

    def start(self) -> None:
        """Begin a worker that knows nothing of one before."""
        store, rng = MemoryStore(), random.Random(1)
        route = Route("r", store.create("source"), store.create("target"))
        self.blame = Blame(self._act, clock=self.clock, sleep=self.clock.sleep, rng=rng)
        self.attempt = Attempt(
            self.queue,
            self.blame,
            {"r": route},
            attempts=12,
            rng=rng,
            clock=self.clock,
            observers=(self._note,),
        )

    def _note(self, attempted: Attempted) -> None:
        self.seen.append(attempted)

    async def _act(self, job: Job) -> Outcome:
        key, stage = job.task.key, job.task.key.partition(" ")[0]
        self.tries[key].append(self.clock.now)
        await self.clock.sleep(self.takes)
        if error := self.fault(key, "read"):
            raise error
        if stage != "skip":
            job.learned.stage = cast(Stage, stage)
            if error := self.fault(key, stage):
                raise error
        self.done[key] = self.clock.now
        return Outcome(PROOF.get(stage, Action.SKIPPED))

    async def tell(self, *keys: str) -> None:
        for key in keys:
            self.came[key] = self.clock.now
            await self.queue.publish(Task(route="r", key=key).encode(), lane=LIVE)

    async def work_for(
        self, seconds: float, *, every: float = 0.0, tell: Callable[[], str] | None = None
    ) -> None:
        """Let time pass; meanwhile what `tell` names comes in, `every` so many seconds."""
        end = self.clock.now + seconds
        due = self.clock.now + every if tell else float("inf")
        async with aclosing(self.queue.deliveries(LIVE, AT_ONCE)) as deliveries:  # type: ignore[type-var]
            while True:
                while len(self._running) < AT_ONCE and self.queue._next(LIVE):
                    running = asyncio.create_task(self.attempt(await anext(deliveries)))
                    self._running.add(running)
                    running.add_done_callback(self._running.discard)
                await self.clock.others()
                if len(self._running) < AT_ONCE and self.queue._next(LIVE):
                    continue
                waiting = (m.due for m in self.queue._messages.values() if m.holder is None)
                moment = min(
                    self.clock.next, due, min((at for at in waiting if at > self.clock.now), default=end)
                )
                if moment > end:
                    break
                await self.clock.pass_until(moment)
                if tell and moment >= due:
                    await self.tell(tell())
                    due += every
                if moment == end:
                    break
        await self.clock.pass_until(end)

    async def dead(self) -> list[DeadLetter]:
        return await self.queue.buried(100_000)

    def waited(self, key: str) -> float:
        return self.done.get(key, self.clock.now) - self.came[key]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for running in world._running:
        running.cancel()


def numbered(prefix: str) -> Callable[[], str]:
    """Return what names one key after the other."""
    numbers = iter(range(10**9))
    return lambda: f"{prefix}{next(numbers)}"


def refusing(error: Exception, *, if_: Callable[[str], bool] = lambda key: "bad" in key) -> Fault:
    return lambda key, stage: error if if_(key) and stage == key.partition(" ")[0] else None


def alarms(caplog: pytest.LogCaptureFixture, action: Action = Action.PAUSED) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "action", None) == action]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="hookmirror")
    return caplog


@pytest.mark.parametrize("count", [10, 200])
@pytest.mark.parametrize("error", [DENIED, StoreAway("500"), Throttled("SlowDown")], ids=str)
async def test_a_good_object_waits_a_minute_at_most_however_many_bad_ones_there_are(
    world: World, error: Exception, count: int
) -> None:
    chance = random.Random(count)
    bad = [f"copy bad {number}" for number in range(count)]
    # And a good one fails by accident now and then.
    world.fault = lambda key, stage: (
        error if "bad" in key else StoreAway("by accident") if chance.random() < 0.02 else None
    )
    await world.tell(*bad)
    await world.work_for(3600, every=7, tell=numbered("copy good "))
    good = [key for key in world.came if "good" in key]
    assert len(good) > 500
    assert max(map(world.waited, good[:-10])) <= 60


@pytest.mark.parametrize("error", EVERY_ERROR, ids=repr)
async def test_what_fails_while_others_pass_ends_as_a_dead_letter_after_its_attempts(
    world: World, error: Exception
) -> None:
    world.fault = refusing(error)
    await world.tell("copy bad")
    await world.work_for(DAY, every=50, tell=numbered("copy good "))
    [letter] = await world.dead()
    assert type(error).__name__ in letter.why
    if not isinstance(error, Refused):
        assert letter.why.endswith("(attempt 12 of 12)")
        assert [failure.attempt for failure in letter.failures] == list(range(1, 13))
        assert all(str(error) in failure.why for failure in letter.failures)
    assert len(world.tries["copy bad"]) <= 24
    assert not world.blame.paused()


@pytest.mark.parametrize("every", [30, 900, 4000])
async def test_what_fails_ends_as_a_dead_letter_however_seldom_others_pass(
    world: World, every: float
) -> None:
    world.fault = refusing(DENIED)
    await world.tell("copy bad 1", "copy bad 2")
    good = numbered("copy good ")
    for _ in range(72):
        await world.work_for(3600, every=every - 1e-6, tell=good)
        if len(await world.dead()) == 2:
            return
    raise AssertionError("not within three days")


@pytest.mark.parametrize(
    ("stage", "keys", "error"),
    [
        *(("copy", 2, error) for error in EVERY_ERROR if not getattr(error, "retry_after", 0)),
        *((stage, keys, DENIED) for stage in ("parts", "delete", "act") for keys in (1, 20)),
    ],
    ids=str,
)
async def test_while_nothing_passes_an_operation_nothing_is_buried_and_it_is_alarmed_within_a_minute(
    world: World, stage: str, keys: int, error: Exception, log: pytest.LogCaptureFixture
) -> None:
    """Of the others a million may pass."""
    other = "skip" if stage == "copy" else "copy"
    await world.tell(*(f"{name} before {number}" for name in (stage, other) for number in range(5)))
    await world.work_for(60)
    world.fault = refusing(error, if_=lambda key: key.startswith(stage))
    told = [f"{stage} {number}" for number in range(keys)]
    await world.tell(*told)
    await world.work_for(60, every=13, tell=numbered(f"{other} "))
    [alarm] = alarms(log)
    assert alarm.levelno == logging.ERROR
    assert list(world.blame.paused()) == ["r"]
    assert stage in world.blame.paused()["r"]
    whole_day = error is DENIED and keys <= 2
    await world.work_for(DAY - 120 if whole_day else 3600, every=600, tell=numbered(f"{other} "))
    assert await world.dead() == []
    assert len(alarms(log)) == 1
    world.fault = lambda _key, _stage: None
    mended = world.clock.now
    await world.work_for(120)
    assert set(told) <= set(world.done)
    assert min(world.done[key] for key in told) - mended <= 31
    assert max(world.done[key] for key in told) - mended <= 61
    assert not world.blame.paused()
    assert len(alarms(log, Action.RESUMED)) == 1


async def test_reads_that_are_all_refused_bury_nothing_for_a_day_and_then_count_after_all(
    world: World,
) -> None:
    world.fault = lambda _key, _stage: StoreAway("HEAD source: 500")
    await world.tell("copy 1", "copy 2")
    await world.work_for(DAY - 60)
    assert await world.dead() == []
    await world.work_for(DAY)
    assert len(await world.dead()) == 2, "no error is uncounted for ever"


async def test_a_worker_that_is_started_anew_each_hour_forgets_nothing(world: World) -> None:
    world.fault = refusing(DENIED)
    await world.tell("copy bad")
    for _ in range(23):
        await world.work_for(3600)
        world.start()
    assert await world.dead() == []
    for _ in range(24):
        await world.work_for(3600)
        world.start()
    assert len(await world.dead()) == 1


async def test_an_outage_after_many_attempts_does_not_bury_at_the_last(world: World) -> None:
    """Good objects that have failed eleven times by bad luck, when all stops."""
    world.fault = lambda _key, _stage: StoreAway("500")
    await world.tell("skip before")
    for number in range(5):
        task = Task(
            route="r", key=f"copy {number}", trouble=Trouble(at=world.clock.now - 1, since=0, spared=0)
        )
        await world.queue.publish(task.encode(), lane=LIVE)
    for message in world.queue._messages.values():
        message.attempt = 12
    world.fault = lambda key, _stage: None if key == "skip before" else StoreAway("500")
    world.blame._act = world._act
    for message in world.queue._messages.values():
        message.due = world.clock.now + (0 if message.body.find(b"before") >= 0 else 100)
    await world.work_for(6 * 3600)
    assert await world.dead() == []


async def test_in_doubt_the_stores_are_asked_seldom(world: World) -> None:
    world.fault = refusing(DENIED, if_=lambda _: True)
    await world.tell(*(f"copy {number}" for number in range(50)))
    await world.work_for(2 * 3600)
    assert max(map(len, world.tries.values())) < 100, "each more and more seldom"
    every_try = sorted(at for tried in world.tries.values() for at in tried)
    assert max(b - a for a, b in pairwise(every_try)) <= 2 * PROBE, (
        "and yet it is noticed when it works again"
    )


@pytest.mark.parametrize(("stage", "wait"), [("act", 600), ("copy", 30)])
async def test_who_takes_events_is_waited_for_as_long_as_asked_and_a_store_no_longer_than_half_a_minute(
    world: World, stage: str, wait: int
) -> None:
    world.fault = refusing(Throttled("429", retry_after=600), if_=lambda _: True)
    await world.tell(f"{stage} 1")
    await world.work_for(1300)
    apart = [b - a for a, b in pairwise(world.tries[f"{stage} 1"])]
    assert apart == pytest.approx([wait + world.takes] * len(apart), abs=PROBE if stage == "copy" else 1)


async def test_a_first_failure_that_passes_at_the_second_try_costs_nothing(world: World) -> None:
    failed = iter([True])
    world.fault = lambda key, _stage: StoreAway("500") if next(failed, False) else None
    await world.tell("copy 1")
    await world.work_for(10)
    assert world.waited("copy 1") < 2
    assert [attempted.delivery.attempt for attempted in world.seen] == [1, 1]
    assert not world.blame.paused()


@pytest.mark.parametrize("error", [KeyBusy("busy"), QueueAway("away"), SourceMoved("it changed")], ids=repr)
async def test_what_waits_for_something_else_is_neither_an_attempt_nor_a_doubt(
    world: World, error: Exception
) -> None:
    world.fault = lambda key, _stage: error if "bad" in key else None
    await world.tell(*(f"copy bad {number}" for number in range(6)))
    await world.work_for(300, every=60, tell=numbered("copy good "))
    assert await world.dead() == []
    assert {attempted.delivery.attempt for attempted in world.seen} == {1}
    assert not world.blame.paused()


async def test_six_objects_that_are_refused_for_what_they_are_pause_nothing(
    world: World, log: pytest.LogCaptureFixture
) -> None:
    world.fault = lambda key, stage: Refused("KeyTooLongError") if "forged" in key else None
    await world.tell(
        *(f"copy forged {number}" for number in range(6)), *(f"copy {'x' * 1500}{n}" for n in range(6))
    )
    await world.work_for(5)
    assert len(await world.dead()) == 12
    assert not world.blame.paused()
    assert alarms(log) == []
    assert not any("xxx" in key for key in world.tries), "no store is asked for a key that none takes"


async def test_what_a_read_refuses_is_dead_at_once(world: World) -> None:
    world.fault = lambda key, stage: Refused("GET: InvalidArgument", own=False) if stage == "read" else None
    await world.tell("copy 1")
    await world.work_for(1)
    assert len(await world.dead()) == 1


async def test_a_known_bad_object_raises_no_alarm_on_a_quiet_route(
    world: World, log: pytest.LogCaptureFixture
) -> None:
    world.fault = refusing(DENIED)
    await world.tell("copy bad")
    await world.work_for(600, every=2, tell=numbered("copy good "))
    log.clear()
    await world.work_for(2 * 3600, every=3000, tell=numbered("copy later "))
    assert alarms(log) == []


def trouble(at: float, spared: int = 1) -> Trouble:
    return Trouble(at=at, since=at, spared=spared, stage="copy")


def in_doubt(now: float) -> Operation:
    operation = Operation()
    for number in range(5):
        operation.failed(f"{number}", trouble(now), "nothing passes", now)
    assert operation.doubt
    return operation


def test_what_is_refused_to_one_after_the_other_is_no_objects_own_fault() -> None:
    operation = Operation()
    refused = [operation.refused(f"{number % (REFUSED + 1)}") for number in range(REFUSED + 3)]
    assert refused == [False] * (REFUSED - 1) + [True] * 4
    operation.passed("good", 1.0)
    assert not operation.refused("bad")


def test_a_doubt_ends_when_nothing_has_failed_for_long() -> None:
    """What failed is dead by then, or was dropped: nobody is to be woken for a route that has nothing to
    do."""
    operation = in_doubt(0.0)
    operation.lapse(FORGOTTEN)
    assert operation.doubt
    operation.failed("more", trouble(600.0), "still", 600.0)
    operation.lapse(600.0 + FORGOTTEN)
    assert operation.doubt
    operation.lapse(601.0 + FORGOTTEN)
    assert not operation.doubt
    assert not operation.failed("new", trouble(9000.0), "one alone", 9000.0)


@pytest.mark.parametrize(("count", "takes"), [(10, 20.0), (2000, 0.02)])
def test_each_of_many_that_wait_is_tried_before_any_is_tried_for_the_third_time(
    count: int, takes: float
) -> None:
    """Whoever comes first is not preferred, though some always come first: the even ones here."""
    rng, operation = random.Random(count), in_doubt(0.0)
    failed = dict.fromkeys(range(count), 0.0)
    tries: Counter[int] = Counter()
    events: list[tuple[float, int, ExitStack | None]]
    events = [(30 + key % 2 + rng.random(), key, None) for key in failed]
    heapq.heapify(events)
    while max(tries.values(), default=0) < 3:
        now, key, block = heapq.heappop(events)
        before = trouble(failed[key])
        if block is not None:
            block.close()
            failed[key] = now
            heapq.heappush(events, (now + 30, key, None))
        elif wait := operation.wait(before, now):
            heapq.heappush(events, (now + wait, key, None))
        else:
            block = ExitStack()
            block.enter_context(operation.trial(before))
            tries[key] += 1
            heapq.heappush(events, (now + takes, key, block))
        assert operation._trials <= TRIALS
    assert len(tries) == count, "somebody starves"
