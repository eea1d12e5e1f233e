"""Everything at once: bad clouds, killed workers, a killed broker, stopped workers, a restless source.

What is drawn comes from HOOKMIRROR_TEST_SEED, which the run's header names. The long forms are marked `soak`.
"""

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.faults import Fault, Faults, faults
from tests.lab.gate import gate
from tests.lab.programs import REMOVED, Program, Site, deliver, in_step, record
from tests.lab.rabbit import Broker, RabbitNode
from tests.lab.until import until

MIB = 2**20

SOURCE_FAULTS = {
    Fault.SLOW: 4,
    Fault.RESET: 40,
    Fault.UNANSWERED: 50,
    Fault.INTERNAL_ERROR: 40,
    Fault.SLOW_DOWN: 200,
    Fault.ACCESS_DENIED: 250,
    Fault.BUCKET: 10,
    Fault.TRUNCATED: 40,
    Fault.FLIPPED: 40,
}
TARGET_FAULTS = {
    Fault.SLOW: 4,
    Fault.RESET: 40,
    Fault.UNANSWERED: 40,
    Fault.LATE: 25,
    Fault.INTERNAL_ERROR: 40,
    Fault.SLOW_DOWN: 200,
    Fault.ACCESS_DENIED: 250,
    Fault.BUCKET: 10,
    Fault.FLIPPED_IN: 40,
}
LOOK_AFTER = 9
"""D: longer than a write can be late here, with the tries of a request before it."""


@dataclass(frozen=True)
class Storm:
    """How much of it."""

    events: int
    keys: int
    workers: int
    kills: int
    broker_kills: int
    within: float
    """Seconds for the queue to become quiet at the end: what met many faults waits minutes for its turn."""


STORMS = [
    pytest.param(Storm(200, 40, 2, 6, 1, 300), id="short", marks=pytest.mark.timeout(600)),
    pytest.param(
        Storm(1000, 200, 4, 50, 3, 600), id="long", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]
    ),
]


@dataclass
class Plan:
    """What happens, in which order, as drawn: nothing here depends on the run."""

    changes: list[tuple[str, bytes | None]]
    """A key and its new body at the source, None for a delete."""
    due: list[list[int]]
    """Which changes are told of, in one hook, after each change."""
    blows: dict[int, str]
    """What is killed after a change."""


def draw(storm: Storm, rng: random.Random) -> Plan:
    """Draw a plan: every change is told of one to three times, shuffled."""
    keys = [f"folder {n % 5}/object {n} +%é.bin" for n in range(storm.keys)]
    sizes = (0, 10, 5000, 70_000, 300_000)
    changes: list[tuple[str, bytes | None]] = [
        (rng.choice(keys), None if rng.random() < 0.3 else rng.randbytes(rng.choice(sizes)))
        for _ in range(storm.events)
    ]
    for large in rng.sample(range(storm.events), 4):
        changes[large] = changes[large][0], rng.randbytes(9 * MIB)
    due: list[list[int]] = [[] for _ in changes]
    for number in range(storm.events):
        for _ in range(rng.randint(1, 3)):
            due[min(number + rng.randrange(storm.events // 3), storm.events - 1)].append(number)
    for told in due:
        rng.shuffle(told)
    moments = rng.sample(range(storm.events // 20, storm.events), storm.kills + storm.broker_kills)
    blows = ["worker"] * storm.kills + ["broker"] * storm.broker_kills
    return Plan(changes, due, dict(zip(moments, blows, strict=True)))


@dataclass
class Crew:
    """The programs of a site: a receiver, and workers to be killed and replaced."""

    site: Site
    workers: list[Program] = field(default_factory=list)
    killed: list[Program] = field(default_factory=list)

    async def muster(self, workers: int) -> None:
        """Start the receiver and `workers`."""
        programs = [self.site.launch(name) for name in ("receiver", *["worker"] * workers)]
        for program in programs:
            await program.started()
        self.workers = programs[1:]

    async def lose(self, victim: Program) -> None:
        """`kill -9` a worker and put another in its place."""
        assert not victim.ended(), f"a worker ended by itself:\n{victim.words()[-3000:]}"
        victim.kill()
        self.killed.append(victim)
        self.workers[self.workers.index(victim)] = await self.site.run("worker")

    def check(self) -> None:
        """Fail when a program ended by itself, buried something, or fell over something."""
        for program in self.site.programs:
            assert program in self.killed or not program.ended(), program.words()[-3000:]
            assert "raceback" not in program.words(), program.words()[-10_000:]
            assert not program.did("buried")
            assert not program.did("failed")


@asynccontextmanager
async def bad_clouds(site: Site, seed: int) -> AsyncIterator[tuple[Faults, Faults]]:
    """Put a proxy of faults before both clouds of `site`."""
    async with (
        faults(site.source_endpoint, SOURCE_FAULTS, f"{seed}/source") as source,
        faults(site.target_endpoint, TARGET_FAULTS, f"{seed}/target") as target,
    ):
        site.source_endpoint, site.target_endpoint = source.endpoint, target.endpoint
        yield source, target


async def change(site: Site, key: str, body: bytes | None) -> dict[str, Any]:
    """Write or delete an object at the source; return the record of it."""
    if body is None:
        await site.source.delete(key)
        return record(key, REMOVED)
    metadata = {"length": str(len(body))}
    await site.source.write(key, body, headers={"content-type": "text/x-test"}, metadata=metadata)
    return record(key, size=len(body))


class Driver:
    """Carries a plan out: changes the source, tells of it, kills."""

    def __init__(self, site: Site, crew: Crew, broker: Broker, rng: random.Random) -> None:
        self._site, self._crew, self._broker, self._rng = site, crew, broker, rng
        self._room = asyncio.Semaphore(16)
        self._hooks: list[asyncio.Task[None]] = []
        self._told = 0
        self.left_out = 0
        """Kills of a broker that is not ours to kill."""

    async def carry_out(self, plan: Plan, source: Faults) -> None:
        """Return when every change is made and every hook is taken. Never far ahead of the workers, so
        that the blows fall while they work: every record makes a worker ask `source` at least once."""
        records: list[dict[str, Any]] = []
        for number, (key, body) in enumerate(plan.changes):
            records.append(await change(self._site, key, body))
            if plan.due[number]:
                self._hooks.append(asyncio.create_task(self._tell([records[n] for n in plan.due[number]])))
            await until(lambda: source.taken >= self._told // 2, "the workers keep up", 120)
            if number in plan.blows:
                await self._strike(plan.blows[number])
        await asyncio.gather(*self._hooks)

    async def go_on(self, wanted: Callable[[], object], source: Faults) -> None:
        """Change more objects for as long as something is `wanted`: chance may keep a fault from a short
        plan, and hooks that find nothing to do write nothing."""
        for number in itertools.count():
            if not wanted():
                return
            body = self._rng.randbytes(self._rng.choice((5000, 70_000)))
            await self._tell([await change(self._site, f"more/{number % 20}", body)])
            await until(lambda: source.taken >= self._told // 2, "the workers keep up", 120)

    async def _tell(self, records: list[dict[str, Any]]) -> None:
        async with self._room:
            await deliver(self._site.hook_url, *records, within=120)
            self._told += len(records)

    async def _strike(self, whom: str) -> None:
        if whom == "worker":
            await self._crew.lose(self._rng.choice(self._crew.workers))
        elif isinstance(self._broker, RabbitNode):
            self._broker.kill()
            await asyncio.to_thread(self._broker.start)
        else:
            self.left_out += 1


@pytest.fixture
async def patient(over_rabbit: Site, rabbit: Broker) -> Site:
    """A site whose looks come later than any write of these tests can be late."""
    over_rabbit.look_after = LOOK_AFTER
    await rabbit.wipe(LOOK_AFTER)
    return over_rabbit


@pytest.mark.parametrize("storm", STORMS)
async def test_bad_clouds_killed_workers_and_a_killed_broker_lose_nothing(
    patient: Site, rabbit: Broker, storm: Storm, seed: int
) -> None:
    rng = random.Random(seed)
    plan = draw(storm, rng)
    crew = Crew(patient)
    driver = Driver(patient, crew, rabbit, rng)
    async with bad_clouds(patient, seed) as (source, target):
        await crew.muster(storm.workers)
        await driver.carry_out(plan, source)
        async with asyncio.timeout(storm.within):
            await driver.go_on(lambda: missing(source, target), source)
        source.calm()
        target.calm()
        await in_step(patient, source, target, within=storm.within)
        crew.check()
        print(report(storm, driver.left_out, source, target))  # noqa: T201 - what a person wants to know
    assert len(crew.killed) == storm.kills
    assert [entry async for entry in patient.source.list()]


def missing(source: Faults, target: Faults) -> list[Fault]:
    """Which faults have not come yet. Nobody need ask about the bucket itself."""
    drawn = [(source, fault) for fault in SOURCE_FAULTS] + [(target, fault) for fault in TARGET_FAULTS]
    return [fault for proxy, fault in drawn if not proxy.done[fault] and fault is not Fault.BUCKET]


def report(storm: Storm, left_out: int, source: Faults, target: Faults) -> str:
    """What was done to whom."""
    done = {
        name: {str(fault): times for fault, times in proxy.done.items() if times}
        for name, proxy in (("source", source), ("target", target))
    }
    return (
        f"{storm}\n{left_out} kills of the broker left out: it is somebody else's\n"
        f"requests: {source.taken} at the source, {target.taken} at the target; faults: {done}; "
        f"writes carried out after their client had gone: {target.orphans}"
    )


STOPS = [
    pytest.param(2.0, 4, id="short"),
    pytest.param(60.0, 90, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]
"""Seconds that a worker is stopped, and D, which must be longer when the write is in flight meanwhile."""


@pytest.mark.parametrize("where", ["reading", "writing"])
@pytest.mark.parametrize(("seconds", "look_after"), STOPS)
async def test_a_worker_stopped_in_mid_copy_and_continued_spoils_nothing(
    over_rabbit: Site, rabbit: Broker, where: str, seconds: float, look_after: int, seed: int
) -> None:
    site, rng = over_rabbit, random.Random(seed)
    site.look_after = look_after
    await rabbit.wipe(site.look_after)
    async with gate(site.source_endpoint) as source, gate(site.target_endpoint) as target:
        held, method = (source, "GET") if where == "reading" else (target, "PUT")
        held.holds = lambda asked, _: asked == method and not held.held
        site.source_endpoint, site.target_endpoint = source.endpoint, target.endpoint
        crew = Crew(site)
        await crew.muster(1)
        await deliver(site.hook_url, await change(site, "k", rng.randbytes(12 * MIB)))
        await until(lambda: held.held, "the copy is under way")
        zombie = crew.workers[0]
        zombie.send(signal.SIGSTOP)
        survivor = await site.run("worker")
        newer = await change(site, "k", rng.randbytes(11 * MIB))
        stopped = asyncio.create_task(asyncio.sleep(seconds))  # how long is the point here
        # The stopped one is still given every other task, until the broker misses its heartbeats.
        await asyncio.gather(*(deliver(site.hook_url, newer) for _ in range(3)))
        await until(lambda: survivor.did("copied"), "another worker makes the newer copy", 60)
        await stopped
        zombie.send(signal.SIGCONT)
        held.open.set()
        await held.landed()
        await in_step(site, within=site.look_after * 3 + 60)
        crew.check()


OVERWRITES = [
    pytest.param(10, id="short"),
    pytest.param(100, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(1200)]),
]


@pytest.mark.parametrize("times", OVERWRITES)
async def test_a_large_object_overwritten_all_the_while_it_is_copied_arrives_in_its_last_state(
    patient: Site, times: int, seed: int
) -> None:
    rng = random.Random(seed)
    crew = Crew(patient)
    slow = {Fault.SLOW: 1}
    async with (
        faults(patient.source_endpoint, slow, f"{seed}/source") as source,
        faults(patient.target_endpoint, slow, f"{seed}/target") as target,
    ):
        patient.source_endpoint, patient.target_endpoint = source.endpoint, target.endpoint
        await crew.muster(2)
        hooks = []
        for _ in range(times):
            body = rng.randbytes(40 * MIB - rng.choice((0, 1, MIB, 5 * MIB)))
            told = await change(patient, "large", body)
            hooks.append(asyncio.create_task(deliver(patient.hook_url, told)))
            asked = source.taken
            await until(lambda: source.taken > asked, "a worker reads it")  # noqa: B023 - awaited here
        await asyncio.gather(*hooks)
        await in_step(patient, source, target, within=300)
        crew.check()


async def test_a_large_object_arrives_whole_through_clouds_that_flip_bits(patient: Site, seed: int) -> None:
    crew = Crew(patient)
    outward = {Fault.FLIPPED: 3, Fault.TRUNCATED: 5, Fault.UNANSWERED: 7}
    inward = {Fault.FLIPPED_IN: 3, Fault.LATE: 5, Fault.UNANSWERED: 7}
    async with (
        faults(patient.source_endpoint, outward, f"{seed}/source") as source,
        faults(patient.target_endpoint, inward, f"{seed}/target") as target,
    ):
        patient.source_endpoint, patient.target_endpoint = source.endpoint, target.endpoint
        await crew.muster(1)
        await deliver(
            patient.hook_url, await change(patient, "large", random.Random(seed).randbytes(40 * MIB))
        )
        await until(lambda: source.done[Fault.FLIPPED] and target.done[Fault.FLIPPED_IN], "bits flip")
        source.calm()
        target.calm()
        await in_step(patient, source, target, within=300)
        crew.check()


async def test_a_bit_that_flipped_before_a_worker_was_killed_between_parts_does_not_stay(
    patient: Site, seed: int
) -> None:
    crew = Crew(patient)
    async with (
        faults(patient.source_endpoint, {Fault.FLIPPED: 2}, f"{seed}/source") as source,
        gate(patient.target_endpoint) as target,
    ):
        target.holds = lambda method, _: method == "PUT" and not target.open.is_set()
        patient.source_endpoint, patient.target_endpoint = source.endpoint, target.endpoint
        await crew.muster(1)
        await deliver(
            patient.hook_url, await change(patient, "large", random.Random(seed).randbytes(40 * MIB))
        )
        await until(lambda: len(target.held) > 1 and source.done[Fault.FLIPPED], "parts are under way")
        source.calm()
        crew.workers[0].kill()
        crew.killed.append(crew.workers[0])
        target.open.set()
        await target.landed()
        await patient.run("worker")
        await in_step(patient, source, within=120)
        crew.check()
