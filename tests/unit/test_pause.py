"""A route whose bucket fails its check: it is paused, probed, and goes on. And it costs its tasks nothing."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from common.errors import (
    ActionFailed,
    Corrupt,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    TryAgain,
)
from common.store.failures import NO_CREDENTIALS, UNREACHABLE, elsewhere
from common.store.memory import MemoryBucket, MemoryStore
from common.task import Task
from common.telemetry import Action
from tests.lab.lanes import LIVE
from worker import pause
from worker.blame import Blame
from worker.doubt import REFUSED
from worker.job import Job, Route
from worker.pause import CHECK_LASTS, WAITS
from worker.verdict import Blamed, Continue, Outcome

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
    """Blame before an act that fails as it is told."""

    def __init__(self) -> None:
        self.source, self.target = bucket("source"), bucket("target")
        self.fails: Mapping[str, BaseException] | BaseException | None = None
        self.outcome = Outcome(Action.COPIED)
        self.acted: list[str] = []
        self.timer = Timer()
        self.blame = Blame(self.act, clock=self.timer, sleep=self.timer.sleep, rng=random.Random(1))

    async def act(self, job: Job) -> Outcome:
        self.acted.append(job.task.key)
        error = self.fails.get(job.task.key) if isinstance(self.fails, Mapping) else self.fails
        if error is not None:
            raise error
        return self.outcome

    async def do(self, key: str = "k", route: str = "r") -> Outcome | Continue | Exception:
        """What becomes of a task; an error as a value."""
        target = self.target if route == "r" else bucket("elsewhere")
        opened = Route(route, self.source, target)
        try:
            return await self.blame(Job(Task(route=route, key=key), opened, 1, LIVE, held=lambda: True))
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            return error


def bucket(name: str) -> Checked:
    return Checked(name, MemoryStore().create(name)._contents)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with opened() as bench:
        yield bench


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    bench = Bench()
    async with bench.blame:
        yield bench


def turned_away(result: object) -> bool:
    """Whether it waits for a paused route: no attempt, and nothing was tried that it carries on."""
    return (
        isinstance(result, Blamed)
        and isinstance(result.error, RouteDown)
        and not result.counts
        and result.trouble is None
        and result.after == 30
    )


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
    bench: Bench, error: Exception, wrong: BaseException, side: str
) -> None:
    bench.fails = error
    getattr(bench, side).wrong = wrong
    result = await bench.do()
    assert turned_away(result)
    assert isinstance(result, Blamed)
    assert result.__cause__ is error
    assert list(bench.blame.paused()) == ["r"]


async def test_a_paused_route_touches_no_store_and_says_why(bench: Bench) -> None:
    bench.fails, bench.target.wrong = DENIED, RouteDown("NoSuchBucket: target")
    await bench.do("a")
    bench.acted.clear()
    checks = bench.target.checks
    for _ in range(100):
        result = await bench.do("b")
        assert turned_away(result)
        assert "NoSuchBucket: target" in str(result)
    assert bench.acted == []
    assert bench.target.checks == checks


async def test_the_other_routes_go_on(bench: Bench) -> None:
    bench.fails, bench.target.wrong = {"a": DENIED}, RouteDown("NoSuchBucket: target")
    await bench.do("a")
    assert turned_away(await bench.do("b"))
    assert await bench.do("b", route="other") == bench.outcome
    assert list(bench.blame.paused()) == ["r"]


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
    assert all(map(turned_away, results))
    assert bench.source.checks == 1


async def test_a_good_check_is_believed_for_some_seconds_by_all_that_fail(bench: Bench) -> None:
    bench.fails = DENIED
    for number in range(100):
        await bench.do(f"{number}")
    assert (bench.source.checks, bench.target.checks) == (1, 1)
    bench.timer.now += CHECK_LASTS
    bench.target.wrong = RouteDown("NoSuchBucket: target")
    assert turned_away(await bench.do())


async def test_the_route_goes_on_when_both_buckets_answer(bench: Bench) -> None:
    bench.fails, bench.source.wrong = StoreAway("no answer"), StoreAway("no answer")
    await bench.do()
    bench.fails, bench.source.wrong, bench.target.wrong = None, None, StoreAway("now this one")
    await bench.timer.tick()
    assert turned_away(await bench.do())
    bench.target.wrong = None
    await bench.timer.tick()
    assert await bench.do() == bench.outcome
    assert bench.blame.paused() == {}
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
    assert turned_away(await bench.do())
    assert "no answer within" in bench.blame.paused()["r"]


async def test_a_bucket_that_asks_for_patience_is_there(bench: Bench) -> None:
    bench.fails, bench.target.wrong = StoreAway("500"), Throttled("SlowDown", retry_after=60)
    result = await bench.do()
    assert isinstance(result, Blamed)
    assert result.error is bench.fails
    assert bench.blame.paused() == {}


@pytest.mark.parametrize(
    "error", [SourceMoved("412"), Refused("too large"), Throttled("no turn", counts=False)], ids=repr
)
async def test_what_says_nothing_of_the_route_is_passed_on_as_it_is(bench: Bench, error: Exception) -> None:
    bench.fails = error
    for number in range(REFUSED - 1):
        assert await bench.do(f"{number}") is error
    assert bench.source.checks == 0
    assert bench.blame.paused() == {}


async def test_probes_end_with_the_worker() -> None:
    async with opened() as bench:
        bench.fails, bench.source.wrong = DENIED, DENIED
        await bench.do()
        await settle()
        assert len(asyncio.all_tasks()) == 2
    assert len(asyncio.all_tasks()) == 1


async def test_an_action_has_one_bucket_to_check_and_a_route_for_stacks_none(bench: Bench) -> None:
    bench.fails = ActionFailed("exit code 1")
    for route in (Route("action", bench.source, None), Route("stacks", None, None)):
        for number in range(5):
            task = Task(route=route.id, key=f"{number}")
            with pytest.raises(Blamed, match="exit code 1"):
                await bench.blame(Job(task, route, 1, LIVE, held=lambda: True))
        assert "exit code 1" in bench.blame.paused()[route.id]
    assert "stacks fail" in bench.blame.paused()["stacks"]
    assert bench.source.checks == 1


async def test_at_the_start_every_bucket_is_checked_once_and_what_is_wrong_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hookmirror")
    bench = Bench()
    bench.source.wrong, bench.target.wrong = RouteDown("GET source: NoSuchBucket"), DENIED
    async with bench.blame as blame:
        blame.greet([Route("r", bench.source, bench.target)])
        await settle()
        assert (bench.source.checks, bench.target.checks) == (1, 1)
        assert not bench.acted
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "GET source: NoSuchBucket" in said
    assert "AccessDenied" in said


def down(code: str, message: str, ahead: float | None = None) -> RouteDown:
    error = RouteDown(message)
    error.code, error.ahead = code, ahead
    return error


SIDES = ("store mcs at https://hb.example, bucket from", "store aws at AWS, eu-central-1, bucket to")


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (
            down("AccessDenied", "GET to: AccessDenied: no", 0.4),
            ["AccessDenied", "s3:ListBucket", "a policy", "hardly the clock"],
        ),
        (
            down("RequestTimeTooSkewed", "GET to: skewed", 1200),
            ["the clock of this machine is 1200 s behind"],
        ),
        (down("AccessDenied", "GET to: 403", -2000), ["the clock of this machine is 2000 s ahead of"]),
        (down("NoSuchBucket", "NoSuchBucket: to"), ["NoSuchBucket", "sent no Date"]),
        (down(UNREACHABLE, "GET to: unreachable: refused"), ["Unreachable", "is down", "is misspelt"]),
        (down(NO_CREDENTIALS, "stores.aws: no credentials"), ["NoCredentials", "no role", "profile"]),
        (StoreAway("GET to: 500"), ["StoreAway (GET to: 500)", "a proxy before it"]),
    ],
    ids=str,
)
async def test_the_sentence_names_route_store_endpoint_code_and_three_likely_causes(
    wrong: TryAgain, parts: list[str], bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fails, bench.target.wrong = DENIED, wrong
    route = Route("photos", bench.source, bench.target, sides=SIDES)
    with pytest.raises(Blamed):
        await bench.blame(Job(Task(route="photos", key="k"), route, 1, LIVE, held=lambda: True))
    [line] = [record.getMessage() for record in caplog.records]
    for part in ("route photos paused", SIDES[1], "(1)", "(2)", "(3)", *parts):
        assert part in line
    assert SIDES[0] not in line
    assert bench.blame.paused()["photos"] in line


async def test_a_wrong_region_says_what_to_set_and_guesses_nothing(bench: Bench) -> None:
    bench.fails, bench.target.wrong = DENIED, elsewhere("to", "eu-west-1", "aws", "us-east-1")
    await bench.do()
    assert 'Set:  region = "eu-west-1"' in bench.blame.paused()["r"]
    assert "Likely causes" not in bench.blame.paused()["r"]


async def test_another_cause_is_another_line_and_the_reason_that_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fails = bench.target.wrong = down("AccessDenied", "GET to: AccessDenied")
    await bench.do()
    for _ in range(3):
        await bench.timer.tick()
    bench.target.wrong = down("NoSuchBucket", "NoSuchBucket: to")
    for _ in range(3):
        await bench.timer.tick()
    assert actions(caplog) == [Action.PAUSED, Action.PAUSED]
    assert "NoSuchBucket" in bench.blame.paused()["r"]
    assert "AccessDenied" not in bench.blame.paused()["r"]
