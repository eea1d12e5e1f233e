"""Everything stopped, and too much at once: what a worker does with a route that is down, and with a flood
of deletes. On a queue and stores in memory, with a clock that is told the time."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import pytest

from common.errors import HookmirrorError, RouteDown, StoreAway
from common.queue.memory import MemoryQueue
from common.queue.port import Done, Lane, Retry
from common.routes import BrakeSettings, RouteSettings
from common.store.memory import MemoryBucket, MemoryReading, MemoryStore
from common.store.port import State
from common.tables import StoreSettings
from common.task import Claim, Task
from common.telemetry import Action
from console import brake as command
from receiver.dialects.s3 import parse, records
from receiver.routing import Routing
from tests.lab.clock import Clock
from tests.lab.samples import sample
from worker.attempt import Attempt, Attempted, Observer
from worker.blame import Blame
from worker.brake import Brake
from worker.job import Route
from worker.mirror import Mirror
from worker.transfer import Budget

DAY = 24 * 3600
D = 1200
KEYS = [f"k{number}" for number in range(10)]


class Bucket(MemoryBucket):
    """A bucket that can be away altogether, or refuse to be written."""

    away: HookmirrorError | None = None
    shut: HookmirrorError | None = None
    private = ""
    forbidden: frozenset[str] = frozenset()

    @property
    def _objects(self):  # type: ignore[no-untyped-def]
        if self.away is not None:
            raise self.away
        return super()._objects

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[MemoryReading | None]:
        async with super().read(self._let_in(key)) as reading:
            yield reading

    async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
        return await super().head(self._let_in(key), proof=proof, tags=tags)

    def _let_in(self, key: str) -> str:
        if key == self.private:
            raise RouteDown(f"GET {self.name}: AccessDenied")
        return key

    async def write(
        self,
        key: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
        over: str | None = None,
    ) -> str:
        if self.shut is not None:
            raise self.shut
        if key in self.forbidden:
            raise RouteDown(f"PUT {self.name}: AccessDenied")
        return await super().write(key, body, headers=headers, metadata=metadata, over=over)


class World:
    """One source, two routes from it to a target each, and a worker."""

    def __init__(self, brake: BrakeSettings | None = None) -> None:
        self.clock = Clock()
        self.queue = MemoryQueue(self.clock)
        self.store = MemoryStore()
        for name in ("source", "good"):
            self.store.create(name)
        contents = self.store._contents
        self.source, self.good, self.bad = (Bucket(name, contents) for name in ("source", "good", "bad"))
        routes = {"good": Route("good", self.source, self.good), "bad": Route("bad", self.source, self.bad)}
        limits = Brake({"good": brake} if brake else {}, self.clock)
        mirror = Mirror(self.queue, look_after=D, budget=Budget(2**20), brake=limits)
        rng = random.Random(1)
        self.blame = Blame(mirror, clock=self.clock, sleep=self.clock.sleep, rng=rng)
        self.seen: list[Attempted] = []
        note: Observer = lambda attempted: self.seen.append(attempted)  # noqa: E731
        self.attempt = Attempt(self.queue, self.blame, routes, attempts=12, observers=(note,), rng=rng)

    async def put(self, *keys: str) -> None:
        for key in keys:
            await self.source.write(key, f"{key} now".encode(), headers={}, metadata={})

    async def tell(self, route: str, *keys: str, claim: Claim | None = Claim.CREATED) -> None:
        for key in keys:
            await self.queue.publish(Task(route=route, key=key, claim=claim).encode(), lane=Lane(route))

    async def work(self) -> None:
        """Do all that is due now."""
        while ready := [lane for lane, depth in (await self.queue.counts()).lanes.items() if depth.ready]:
            for lane in ready:
                async with aclosing(self.queue.deliveries(lane, 100)) as deliveries:  # type: ignore[type-var]
                    await self.attempt(await anext(deliveries))
        await self.clock.others()

    async def work_for(self, seconds: int, *, step: int = 300) -> None:
        for _ in range(0, seconds, step):
            await self.work()
            await self.clock.pass_(step)
        await self.work()

    async def work_until_idle(self) -> None:
        for _ in range(200):
            await self.work()
            if not (await self.queue.counts()).waiting:
                return
            await self.clock.pass_(60)
        raise AssertionError("the work has no end")

    async def contents(self, bucket: Bucket) -> list[str]:
        return [entry.key async for entry in bucket.list()]

    async def dead(self) -> int:
        return (await self.queue.counts()).dead

    def attempts(self, route: str) -> int:
        """The highest number that an attempt at a task of `route` had."""
        return max(a.delivery.attempt for a in self.seen if a.task and a.task.route == route)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.blame:
        yield world


async def test_the_tasks_of_a_route_whose_bucket_is_missing_wait_while_the_other_goes_on(
    world: World,
) -> None:
    await world.put(*KEYS)
    for key in KEYS:
        await world.tell("bad", key)
        await world.tell("good", key)
    await world.work()
    assert await world.contents(world.good) == KEYS
    waits = [a.verdict for a in world.seen if a.task and a.task.route == "bad"]
    assert len(waits) == len(KEYS)
    assert all(isinstance(wait, Retry) and not wait.counts and wait.after == 30 for wait in waits)
    assert list(world.blame.paused()) == ["bad"]
    assert "NoSuchBucket" in world.blame.paused()["bad"]


async def test_when_the_bucket_is_there_the_probe_finds_out_and_all_ends_in_step(world: World) -> None:
    await world.put(*KEYS)
    await world.tell("bad", *KEYS)
    await world.work_for(600)
    assert world.blame.paused()
    world.store.create("bad")
    await world.clock.pass_(40)
    assert world.blame.paused() == {}
    await world.work()
    assert await world.contents(world.bad) == KEYS, "within the patience of their last wait"
    await world.work_until_idle()
    assert await world.dead() == 0


AWAY = [
    StoreAway("PUT bad: no answer"),
    RouteDown("PUT bad: unreachable"),
    RouteDown("PUT bad: InvalidAccessKeyId"),
    RouteDown("PUT bad: RequestTimeTooSkewed"),
]


@pytest.mark.parametrize("error", AWAY, ids=str)
@pytest.mark.parametrize("side", ["source", "bad"])
async def test_an_outage_of_a_day_puts_nothing_into_the_dead_letters(
    world: World, error: HookmirrorError, side: str
) -> None:
    world.store.create("bad")
    bucket: Bucket = getattr(world, side)
    await world.put(*KEYS)
    await world.tell("bad", *KEYS)
    bucket.away = error
    await world.work_for(DAY)
    assert world.attempts("bad") == 1
    bucket.away = None
    await world.put("later")
    await world.tell("bad", "later")
    await world.work_until_idle()
    assert await world.contents(world.bad) == [*KEYS, "later"]
    assert await world.dead() == 0


async def test_a_day_with_credentials_that_may_not_write_puts_nothing_into_the_dead_letters(
    world: World,
) -> None:
    """Both buckets answer their checks; but nothing passes, so that no try counts."""
    world.store.create("bad")
    world.bad.shut = RouteDown("PUT bad: AccessDenied")
    await world.put(*KEYS)
    await world.tell("bad", *KEYS)
    await world.work_for(DAY, step=900)
    assert world.blame.paused()
    assert world.attempts("bad") == 1
    world.bad.shut = None
    await world.work_until_idle()
    assert await world.contents(world.bad) == KEYS
    assert await world.dead() == 0


async def test_one_object_that_is_refused_ends_as_a_dead_letter_with_its_reason_and_stops_nobody(
    world: World,
) -> None:
    await world.put("bad key", *KEYS)
    await world.tell("good", "bad key", *KEYS)
    world.source.private = "bad key"
    later = [f"later {number}" for number in range(100)]
    for key in later:
        await world.put(key)
        await world.tell("good", key)
        await world.work_for(600, step=30)
    assert world.blame.paused() == {}
    assert await world.contents(world.good) == sorted([*KEYS, *later])
    [letter] = await world.queue.buried(10)
    assert letter.attempt == 12
    assert letter.why.endswith("AccessDenied (attempt 12 of 12)")


async def test_ten_objects_that_may_not_be_written_stop_nobody_and_end_as_dead_letters(
    world: World,
) -> None:
    """A policy that refuses some keys; both buckets answer their checks."""
    forbidden = [f"forbidden/{number}" for number in range(10)]
    world.good.forbidden = frozenset(forbidden)
    await world.put(*forbidden)
    await world.tell("good", *forbidden)
    await world.work_for(60, step=5)
    for number in range(200):
        key = f"good/{number}"
        await world.put(key)
        await world.tell("good", key)
        await world.work()
        assert key in await world.contents(world.good), "at once"
        await world.work_for(300, step=30)
    await world.work_for(6 * 3600)
    letters = await world.queue.buried(100)
    assert sorted(Task.decode(letter.body).key for letter in letters) == forbidden
    assert not world.blame.paused()


async def test_forged_hooks_pause_nothing(world: World) -> None:
    for number in range(6):
        await world.tell("good", f"{number}" * 1500, f"no such key {number}")
        await world.put(f"small {number}")
        forged = Task(route="good", key=f"small {number}", claim=Claim.CREATED, size=9 * 2**20)
        await world.queue.publish(forged.encode(), lane=Lane("good"))
    await world.work()
    assert not world.blame.paused()
    await world.work_until_idle()
    assert {letter.why.partition(":")[0] for letter in await world.queue.buried(100)} == {"Refused"}
    assert await world.dead() == 6
    assert await world.contents(world.good) == [f"small {number}" for number in range(6)]


GONE = [f"old/{number}" for number in range(30)]


@pytest.fixture
async def braked() -> AsyncIterator[World]:
    """A target full of objects that the source has no more, and a brake at ten deletes."""
    world = World(BrakeSettings(deletes=10, window=300))
    for key in GONE:
        await world.good.write(key, b"old", headers={}, metadata={})
    async with world.blame:
        yield world


async def test_a_flood_of_deletes_is_held_and_nothing_of_it_is_lost(braked: World) -> None:
    await braked.tell("good", *GONE, claim=Claim.REMOVED)
    await braked.work_until_idle()
    assert await braked.contents(braked.good) == sorted(GONE[10:])
    letters = await braked.queue.buried(100)
    assert [Task.decode(letter.body).key for letter in letters] == GONE[10:]
    assert all(letter.why.startswith(command.HELD) for letter in letters)


async def test_released_deletes_are_looked_at_again_and_go_through(braked: World) -> None:
    await braked.tell("good", *GONE, claim=Claim.REMOVED)
    await braked.work_until_idle()
    back = GONE[20]
    await braked.put(back)  # recreated while its delete was held
    await braked.tell("good", back)
    held = await command._ids(braked.queue, "good")
    assert len(held) == 20
    await command._release(braked.queue, held)
    await braked.work()
    done = [a.verdict for a in braked.seen[-21:]]
    assert done.count(Done(Action.DELETED)) == 19, "approved deletes are not held again"
    await braked.work_until_idle()
    assert await braked.contents(braked.good) == [back]
    async with braked.good.read(back) as reading:
        assert reading is not None
        assert await reading.body() == f"{back} now".encode()
    assert await braked.dead() == 0


@pytest.mark.parametrize("name", ["mcs/lifecycle_expiration", "aws/lifecycle_expiration"])
async def test_objects_that_a_lifecycle_rule_expires_count_as_deletes(braked: World, name: str) -> None:
    [record] = records(sample(name))
    event = parse(record)
    assert event.claim is Claim.REMOVED
    route = RouteSettings(name="good", source=f"s:{event.bucket}", target="t:good")
    [task] = Routing([route], {"s": StoreSettings()}).tasks(event, received=0.0)[:1]
    for key in GONE:
        await braked.queue.publish(task.model_copy(update={"key": key}).encode(), lane=Lane("good"))
    await braked.work_until_idle()
    assert await braked.dead() == 20
    assert len(await braked.contents(braked.good)) == 20
