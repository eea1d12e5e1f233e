"""Everything stopped, or only this object: who is paused, for how long, and what it costs."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from common.errors import (
    ActionFailed,
    Corrupt,
    HookmirrorError,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    TryAgain,
)
from common.queue.port import Lane
from common.store.memory import MemoryBucket, MemoryStore
from common.task import Task
from common.telemetry import Action
from worker import pause
from worker.job import Job, Route
from worker.pause import STREAK, WAITS, Pauses
from worker.verdict import Continue, Outcome

DENIED = RouteDown("PUT target: AccessDenied")


class Checked(MemoryBucket):
    """A bucket whose check fails as it is told, and is counted."""

    wrong: BaseException | None = None
    checks = 0
    gate: asyncio.Event | None = None

    async def check(self) -> None:
        self.checks += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.wrong is not None:
            raise self.wrong


class Timer:
    """A clock, and a sleep that ends when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self._turn = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._turn.clear()
        await self._turn.wait()
        self.now += seconds

    async def tick(self) -> None:
        """Let one wait of the probe pass, and all that follows from it."""
        await settle()
        self._turn.set()
        await settle()


async def settle() -> None:
    """Let everybody go on who can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Bench:
    """Pauses before an act that fails as it is told."""

    def __init__(self) -> None:
        self.source, self.target = bucket("source"), bucket("target")
        self.fails: Mapping[str, BaseException] | BaseException | None = None
        self.outcome = Outcome(Action.COPIED)
        self.acted: list[str] = []
        self.timer = Timer()
        self.pauses = Pauses(self.act, clock=self.timer, sleep=self.timer.sleep, rng=random.Random(1))

    async def act(self, job: Job) -> Outcome:
        self.acted.append(job.task.key)
        error = self.fails.get(job.task.key) if isinstance(self.fails, Mapping) else self.fails
        if error is not None:
            raise error
        return self.outcome

    async def do(self, key: str = "k", route: str = "r") -> Outcome | Continue | Exception:
        """What becomes of a task; an error as a value."""
        target = self.target if route == "r" else bucket("elsewhere")
        job = Job(
            Task(route=route, key=key), Route(route, self.source, target), 1, Lane.LIVE, held=lambda: True
        )
        try:
            return await self.pauses(job)
        except (HookmirrorError, RuntimeError) as error:
            return error

    async def break_down(self) -> None:
        """Pause the route in doubt."""
        self.fails = DENIED
        for number in range(STREAK):
            await self.do(f"{number}")
        self.acted.clear()


def bucket(name: str) -> Checked:
    return Checked(name, MemoryStore().create(name)._contents)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with opened() as bench:
        yield bench


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    bench = Bench()
    async with bench.pauses:
        yield bench


def costs(result: Outcome | Continue | Exception) -> bool:
    """Whether the try counts as an attempt."""
    assert isinstance(result, TryAgain)
    return result.counts


def actions(caplog: pytest.LogCaptureFixture) -> list[Action]:
    return [record.action for record in caplog.records if hasattr(record, "action")]


STOPPED = [
    RouteDown("head target: AccessDenied"),
    RouteDown("NoSuchBucket: target"),
    RouteDown("head target: RequestTimeTooSkewed"),
    StoreAway("head target: Could not connect to the endpoint URL"),
    OSError("no route to host"),
    ValueError("nobody knows this one"),
]


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("wrong", STOPPED, ids=str)
@pytest.mark.parametrize("error", [DENIED, StoreAway("PUT target: no answer"), Corrupt("broke off")])
async def test_a_route_whose_bucket_fails_its_check_is_paused_and_the_task_is_not_to_blame(
    bench: Bench, error: TryAgain, wrong: BaseException, side: str
) -> None:
    bench.fails = error
    getattr(bench, side).wrong = wrong
    result = await bench.do()
    assert isinstance(result, RouteDown)
    assert not costs(result)
    assert result.__cause__ is error
    assert list(bench.pauses.paused()) == ["r"]


async def test_a_paused_route_touches_no_store_and_says_why(bench: Bench) -> None:
    bench.fails, bench.target.wrong = DENIED, RouteDown("NoSuchBucket: target")
    await bench.do("a")
    bench.acted.clear()
    checks = bench.target.checks
    for _ in range(100):
        result = await bench.do("b")
        assert isinstance(result, RouteDown)
        assert "NoSuchBucket: target" in str(result)
    assert bench.acted == []
    assert bench.target.checks == checks


async def test_the_other_routes_go_on(bench: Bench) -> None:
    bench.fails, bench.target.wrong = {"a": DENIED}, RouteDown("NoSuchBucket: target")
    await bench.do("a")
    assert isinstance(await bench.do("b"), RouteDown)
    assert await bench.do("b", route="other") == bench.outcome
    assert list(bench.pauses.paused()) == ["r"]


async def test_the_alarm_and_its_end_are_one_line_each(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hookmirror")
    bench.fails, bench.target.wrong = DENIED, RouteDown("NoSuchBucket: target")
    await asyncio.gather(*(bench.do(f"{number}") for number in range(10)))
    for _ in range(10):
        await bench.timer.tick()
    assert actions(caplog) == [Action.PAUSED]
    [alarm] = caplog.records
    assert alarm.levelno == logging.ERROR
    assert "NoSuchBucket" in alarm.getMessage()
    bench.fails = bench.target.wrong = None
    await bench.timer.tick()
    assert actions(caplog) == [Action.PAUSED, Action.RESUMED]
    assert caplog.records[-1].fields["seconds"] > 100  # type: ignore[attr-defined]


async def test_of_many_that_fail_together_one_asks_for_all(bench: Bench) -> None:
    bench.fails, bench.source.wrong = StoreAway("no answer"), StoreAway("no answer")
    results = await asyncio.gather(*(bench.do(f"{number}") for number in range(32)))
    assert not any(costs(result) for result in results)
    assert bench.source.checks == 1


async def test_the_route_goes_on_when_both_buckets_answer(bench: Bench) -> None:
    bench.fails, bench.source.wrong = StoreAway("no answer"), StoreAway("no answer")
    await bench.do()
    bench.fails, bench.source.wrong, bench.target.wrong = None, None, StoreAway("now this one")
    await bench.timer.tick()
    assert isinstance(await bench.do(), RouteDown)
    bench.target.wrong = None
    await bench.timer.tick()
    assert await bench.do() == bench.outcome
    assert bench.pauses.paused() == {}
    slept = len(bench.timer.slept)
    await bench.timer.tick()
    assert len(bench.timer.slept) == slept, "nobody probes a route that works"


async def test_the_probe_asks_less_and_less_often_and_with_jitter(bench: Bench) -> None:
    bench.fails, bench.source.wrong = DENIED, DENIED
    await bench.do()
    for _ in range(12):
        await bench.timer.tick()
    expected = [*WAITS, *[WAITS[-1]] * 8][: len(bench.timer.slept)]
    for slept, wait in zip(bench.timer.slept, expected, strict=True):
        assert 0.8 * wait <= slept <= 1.2 * wait
    assert len(set(bench.timer.slept[-5:])) == 5


async def test_a_check_that_never_ends_is_an_answer_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pause, "CHECK_WITHIN", 0)
    bench.fails, bench.target.gate = StoreAway("no answer"), asyncio.Event()
    assert isinstance(await bench.do(), RouteDown)
    assert "no answer within" in bench.pauses.paused()["r"]


async def test_a_throttled_check_is_no_outage_and_no_attempt(bench: Bench) -> None:
    bench.fails, bench.target.wrong = StoreAway("500"), Throttled("SlowDown", retry_after=60)
    result = await bench.do()
    assert isinstance(result, Throttled)
    assert result.retry_after == 60
    assert bench.pauses.paused() == {}


@pytest.mark.parametrize("error", [DENIED, StoreAway("PUT target: 500"), Corrupt("MD5")])
async def test_one_object_that_is_refused_uses_up_its_attempts_and_pauses_nobody(
    bench: Bench, error: TryAgain
) -> None:
    bench.fails = {"bad": error}
    for _ in range(12):
        result = await bench.do("bad")
        assert costs(result)
        assert str(error) in str(result)
        assert await bench.do("good") == bench.outcome
    assert bench.pauses.paused() == {}


async def test_the_same_object_again_and_again_is_one_object(bench: Bench) -> None:
    bench.fails = DENIED
    for _ in range(10 * STREAK):
        assert costs(await bench.do("bad"))
    assert bench.pauses.paused() == {}


@pytest.mark.parametrize(
    "error", [Throttled("SlowDown"), SourceMoved("412"), Refused("too large"), RuntimeError("a defect")]
)
async def test_what_says_nothing_of_the_route_is_passed_on_as_it_is(bench: Bench, error: Exception) -> None:
    bench.fails = error
    for number in range(2 * STREAK):
        assert await bench.do(f"{number}") is error
    assert bench.source.checks == 0


async def test_many_different_objects_refused_in_a_row_are_the_route_after_all(bench: Bench) -> None:
    bench.fails = DENIED
    results = [await bench.do(f"{number}") for number in range(STREAK + 10)]
    assert [costs(result) for result in results] == [True] * (STREAK - 1) + [False] * 11
    assert len(bench.acted) == STREAK


async def test_a_success_in_between_shows_that_it_is_the_objects(bench: Bench) -> None:
    bench.fails = {f"bad {number}": DENIED for number in range(50)}
    for number in range(50):
        assert costs(await bench.do(f"bad {number}"))
        if number % (STREAK - 1) == 0:
            await bench.do("good")
    assert bench.pauses.paused() == {}


async def test_a_task_that_had_nothing_to_do_shows_nothing(bench: Bench) -> None:
    bench.fails = {f"bad {number}": DENIED for number in range(STREAK)}
    bench.outcome = Outcome(Action.SKIPPED)
    for number in range(STREAK):
        await bench.do("in step")
        await bench.do(f"bad {number}")
    assert "r" in bench.pauses.paused()


async def test_in_doubt_one_task_at_a_time_is_let_through_and_costs_nothing(bench: Bench) -> None:
    await bench.break_down()
    for number in range(40):  # a day of it
        assert isinstance(await bench.do("before"), RouteDown)
        await bench.timer.tick()
        results = [await bench.do(f"{number} {n}") for n in range(5)]
        assert not any(costs(result) for result in results)
        assert bench.acted.pop() == f"{number} 0"
        assert bench.acted == []


async def test_in_doubt_a_copy_that_goes_through_ends_the_pause(bench: Bench) -> None:
    await bench.break_down()
    bench.fails = None
    assert isinstance(await bench.do(), RouteDown)
    await bench.timer.tick()
    assert await bench.do() == bench.outcome
    assert await bench.do() == bench.outcome
    assert bench.pauses.paused() == {}
    bench.fails = DENIED
    assert costs(await bench.do()), "the count begins anew"


async def test_in_doubt_a_trial_with_nothing_to_do_gives_its_place_to_the_next(bench: Bench) -> None:
    await bench.break_down()
    bench.fails, bench.outcome = None, Outcome(Action.SKIPPED)
    await bench.timer.tick()
    for _ in range(3):
        assert await bench.do() == bench.outcome
    assert "r" in bench.pauses.paused()
    bench.outcome = Outcome(Action.DELETED)
    await bench.do()
    assert bench.pauses.paused() == {}


async def test_in_doubt_nobody_is_let_through_while_a_bucket_does_not_answer(bench: Bench) -> None:
    await bench.break_down()
    bench.target.wrong = StoreAway("gone altogether")
    await bench.timer.tick()
    await bench.do()
    assert bench.acted == []


async def test_what_was_under_way_when_the_route_was_paused_is_not_counted(bench: Bench) -> None:
    gate = asyncio.Event()

    async def slow(job: Job) -> Outcome:
        await gate.wait()
        raise StoreAway("timed out at last")

    pauses = Pauses(slow, sleep=bench.timer.sleep)
    bench.pauses = pauses
    async with pauses:
        tasks = [asyncio.create_task(bench.do(f"{number}")) for number in range(3)]
        await settle()
        bench.source.wrong = StoreAway("no answer")
        gate.set()
        assert not any(costs(result) for result in await asyncio.gather(*tasks))


async def test_probes_end_with_the_worker() -> None:
    async with opened() as bench:
        bench.fails, bench.source.wrong = DENIED, DENIED
        await bench.do()
        await settle()
        assert len(asyncio.all_tasks()) == 2
    assert len(asyncio.all_tasks()) == 1


async def act_on(bench: Bench, key: str, error: Exception | None = None) -> Outcome | Continue | Exception:
    """What becomes of a task of a route that has an action and no target."""

    async def act(job: Job) -> Outcome | Continue:
        if error is not None:
            raise error
        return Continue(job.task, "waits") if key == "waits" else Outcome(Action.EXECUTED)

    bench.pauses._act = act
    route = Route("action", bench.source, None)
    try:
        return await bench.pauses(Job(Task(route="action", key=key), route, 1, Lane.LIVE, held=lambda: True))
    except HookmirrorError as caught:
        return caught


async def test_an_action_that_fails_for_many_keys_pauses_its_route_and_one_that_is_done_ends_that(
    bench: Bench,
) -> None:
    failed = ActionFailed("exit code 1")
    for number in range(STREAK - 1):
        assert await act_on(bench, f"{number}", failed) is failed
        assert isinstance(await act_on(bench, "waits"), Continue)  # which proves nothing
    assert isinstance(await act_on(bench, "last", failed), RouteDown)
    assert isinstance(await act_on(bench, "other"), RouteDown)
    await bench.timer.tick()
    assert await act_on(bench, "other") == Outcome(Action.EXECUTED)
    assert bench.pauses.paused() == {}


async def test_a_route_for_stacks_that_fails_for_many_of_them_is_paused_though_it_has_no_bucket(
    bench: Bench,
) -> None:
    failed: Exception | None = ActionFailed("exit code 1")

    async def act(job: Job) -> Outcome | Continue:
        if failed is not None:
            raise failed
        return Outcome(Action.LOGGED)

    async def come(stack: str) -> Outcome | Continue:
        route = Route("stacks", None, None)
        return await bench.pauses(
            Job(Task(route="stacks", key=stack), route, 1, Lane.LIVE, held=lambda: True)
        )

    bench.pauses._act = act
    for number in range(STREAK - 1):
        with pytest.raises(ActionFailed):
            await come(f"{number}")
    with pytest.raises(RouteDown, match=f"{STREAK} stacks failed and none went through: exit code 1"):
        await come("last")
    failed = None
    with pytest.raises(RouteDown):
        await come("other")
    await bench.timer.tick()
    assert await come("other") == Outcome(Action.LOGGED)
    assert bench.pauses.paused() == {}
