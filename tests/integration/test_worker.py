"""The worker on a queue and stores in memory: what it does to the target, in which order, and what never."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from common.backoff import RUNGS
from common.errors import (
    ConfigError,
    Corrupt,
    LostDelivery,
    QueueAway,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
)
from common.queue.memory import MemoryQueue
from common.queue.port import Bury, DeadLetter, Delivery, Done, Lane, Retry, Verdict
from common.store.memory import MemoryBucket, MemoryReading, MemoryStore
from common.store.port import MARK, Begun, Entry, OpenUpload, Part, Reading, State, Stream
from common.task import Claim, Task
from common.telemetry import Action
from tests.lab.until import until
from worker import mirror
from worker.attempt import Attempt, Attempted, Observer, log_attempt
from worker.brake import Brake
from worker.job import Route
from worker.mirror import Mirror
from worker.plan import Deletes
from worker.pool import Pool
from worker.transfer import Budget

D = 1200
"""The write-ahead look comes after so many seconds."""


class Clock:
    """The time, which moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A place where somebody can be held: `reached` tells that he is there, `open` lets him go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


Before = Callable[[str, str], Any]


class Spy:
    """A bucket that writes down what is asked of it, and first does what `before` says."""

    def __init__(self, bucket: MemoryBucket, journal: list[str], side: str) -> None:
        self.bucket = bucket
        self.name = bucket.name
        self.before: Before | None = None
        self._journal = journal
        self._side = side

    async def _note(self, verb: str, key: str) -> None:
        self._journal.append(f"{verb} {self._side}")
        if self.before is not None:
            result = self.before(verb, key)
            if asyncio.iscoroutine(result):
                await result

    def fail(self, error: BaseException, *verbs: str) -> None:
        """From now on raise `error` for `verbs`, or for all."""

        def raise_it(verb: str, key: str) -> None:
            if not verbs or verb in verbs:
                raise error

        self.before = raise_it

    def hold(self, verb: str, key: str | None = None) -> Gate:
        """Hold whoever comes for `verb` (of `key`) until the gate is opened."""
        gate = Gate()

        async def wait(asked: str, of: str) -> None:
            if asked == verb and key in {None, of}:
                await gate()

        self.before = wait
        return gate

    @asynccontextmanager
    async def read_range(self, key: str, start: int, end: int, *, etag: str) -> AsyncIterator[Reading]:
        await self._note("read_range", key)
        async with self.bucket.read_range(key, start, end, etag=etag) as reading:
            yield reading

    async def part_size(self, key: str, *, etag: str, size: int) -> int | None:
        await self._note("part_size", key)
        return await self.bucket.part_size(key, etag=etag, size=size)

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        await self._note("create_upload", key)
        return await self.bucket.create_upload(key, headers=headers, metadata=metadata)

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        await self._note("upload_part", key)
        return await self.bucket.upload_part(key, upload, number, body)

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        await self._note("parts", key)
        return await self.bucket.parts(key, upload)

    async def complete_upload(self, key: str, upload: str, etags: Sequence[str]) -> str:
        await self._note("complete_upload", key)
        return await self.bucket.complete_upload(key, upload, etags)

    async def abort_upload(self, key: str, upload: str) -> None:
        await self._note("abort_upload", key)
        await self.bucket.abort_upload(key, upload)

    def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        return self.bucket.uploads(prefix)

    async def head(self, key: str, *, proof: bool = True) -> State | None:
        await self._note("head", key)
        return await self.bucket.head(key, proof=proof)

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[MemoryReading | None]:
        await self._note("read", key)
        async with self.bucket.read(key) as reading:
            yield reading

    async def write(
        self, key: str, body: bytes, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        await self._note("write", key)
        await self.bucket.write(key, body, headers=headers, metadata=metadata)

    async def delete(self, key: str) -> None:
        await self._note("delete", key)
        await self.bucket.delete(key)

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        return self.bucket.list(prefix)

    async def check(self) -> None:
        await self.bucket.check()


class SpyQueue(MemoryQueue):
    """A queue that writes down the looks that were promised."""

    def __init__(self, clock: Clock, journal: list[str]) -> None:
        super().__init__(clock)
        self._journal = journal
        self.away = False

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        if delay:
            assert Task.decode(body).claim is None
            self._journal.append(f"promise a look after {delay:.0f}")
        if self.away:
            raise QueueAway("no confirm")
        await super().publish(body, lane=lane, delay=delay)


@dataclass
class World:
    """A source, a target, a queue and one worker between them."""

    deletes: Deletes = "mirror"
    target_prefix: str = ""
    attempts: int = 2
    observers: tuple[Observer, ...] = ()
    journal: list[str] = field(default_factory=list)
    seen: list[Attempted] = field(default_factory=list)

    def __post_init__(self) -> None:
        store = MemoryStore()
        self.clock = Clock()
        self.queue = SpyQueue(self.clock, self.journal)
        self.source = Spy(store.create("source"), self.journal, "source")
        self.target = Spy(store.create("target"), self.journal, "target")
        self.attempt = self.attempt_on(self.queue)

    def attempt_on(self, queue: MemoryQueue) -> Attempt:
        """What another worker does, that holds its deliveries through `queue`."""
        route = Route("r", self.source, self.target, self.target_prefix, self.deletes)
        act = Mirror(queue, look_after=D, budget=Budget(2**20), brake=Brake({}))
        observers: tuple[Observer, ...] = (*self.observers, self.note)
        return Attempt(
            queue, act, {"r": route}, attempts=self.attempts, observers=observers, rng=random.Random(1)
        )

    def note(self, attempted: Attempted) -> None:
        """An observer that keeps what it is told."""
        self.seen.append(attempted)

    async def put(self, key: str, body: bytes, **metadata: str) -> State:
        """Put an object on the source; return its state."""
        await self.source.bucket.write(key, body, headers={"content-type": "text/x"}, metadata=metadata)
        return await self.on(self.source, key)

    @staticmethod
    async def on(side: Spy, key: str) -> State:
        state = await side.bucket.head(key)
        assert state is not None, f"{side.name} has no {key}"
        return state

    async def contents(self, side: Spy) -> dict[str, bytes]:
        found = {}
        async for entry in side.list():
            async with side.bucket.read(entry.key) as reading:
                assert reading is not None
                found[entry.key] = reading.content
        return found

    async def tell(
        self, key: str, claim: Claim | None, *, etag: str | None = None, lane: Lane = Lane.LIVE
    ) -> Task:
        """Queue what a hook says about `key`."""
        task = Task(route="r", key=key, claim=claim, etag=etag)
        await self.queue.publish(task.encode(), lane=lane)
        return task

    async def work(self) -> list[Verdict | None]:
        """Do everything that is due now, one after the other; return the verdicts."""
        before = len(self.seen)
        for lane in Lane:
            async with aclosing(self.queue.deliveries(lane, 100)) as deliveries:  # type: ignore[type-var]
                while (await self.queue.counts()).ready[lane]:
                    await self.attempt(await anext(deliveries))
        return [attempted.verdict for attempted in self.seen[before:]]

    async def work_until_idle(self) -> None:
        """Do everything, and let the time pass that it waits for."""
        for _ in range(100):
            await self.work()
            if not (await self.queue.counts()).waiting:
                return
            self.clock.now += 3600
        raise AssertionError("the work has no end")

    async def take(self, queue: MemoryQueue | None = None) -> Delivery:
        """Take the next delivery, and leave it to the test."""
        async with aclosing((queue or self.queue).deliveries(Lane.LIVE, 100)) as deliveries:  # type: ignore[type-var]
            return await anext(deliveries)

    @property
    def outcome(self) -> Verdict | None:
        return self.seen[-1].verdict

    async def letters(self) -> list[DeadLetter]:
        return await self.queue.buried(100)

    def touched(self) -> list[str]:
        """What was done to the target."""
        return [entry for entry in self.journal if entry in {"write target", "delete target"}]


@pytest.fixture
def world() -> World:
    return World()


CREATED, REMOVED = Claim.CREATED, Claim.REMOVED


async def test_a_created_object_is_copied_with_its_headers_its_metadata_and_its_identity(
    world: World,
) -> None:
    source = await world.put("k", b"body", owner="me")
    await world.tell("k", CREATED, etag=source.etag)
    assert await world.work() == [Done(Action.COPIED)]
    assert await world.contents(world.target) == {"k": b"body"}
    copy = await world.on(world.target, "k")
    assert dict(copy.headers) == {"content-type": "text/x"}
    assert dict(copy.metadata) == {"owner": "me", MARK: source.identity}
    assert copy.carries(source)


async def test_an_empty_object_is_copied_too(world: World) -> None:
    await world.put("k", b"")
    await world.tell("k", CREATED)
    await world.work()
    assert await world.contents(world.target) == {"k": b""}


async def test_the_target_prefix_goes_before_the_key_for_copies_and_deletes_alike() -> None:
    world = World(target_prefix="from-mcs/")
    await world.put("/k", b"body")
    await world.tell("/k", CREATED)
    await world.work()
    assert await world.contents(world.target) == {"from-mcs//k": b"body"}
    await world.source.bucket.delete("/k")
    await world.tell("/k", REMOVED)
    await world.work()
    assert await world.contents(world.target) == {}


async def test_a_removed_object_is_deleted(world: World) -> None:
    await world.target.bucket.write("k", b"old", headers={}, metadata={})
    await world.tell("k", REMOVED)
    assert await world.work() == [Done(Action.DELETED)]
    assert await world.contents(world.target) == {}


@pytest.mark.parametrize("claim", [CREATED, REMOVED])
async def test_a_look_is_promised_before_the_target_is_touched(world: World, claim: Claim) -> None:
    await world.target.bucket.write("k", b"old", headers={}, metadata={})
    if claim is CREATED:
        await world.put("k", b"body")
    await world.tell("k", claim)
    await world.work()
    [touch] = world.touched()
    assert world.journal.index(f"promise a look after {D}") < world.journal.index(touch)
    assert (await world.queue.counts()).waiting == 1


@pytest.mark.parametrize("claim", [CREATED, REMOVED, None])
async def test_a_target_is_not_touched_while_no_look_can_be_promised(
    world: World, claim: Claim | None
) -> None:
    await world.target.bucket.write("k", b"old", headers={}, metadata={})
    if claim is not REMOVED:
        await world.put("k", b"new")
    await world.tell("k", claim)
    world.queue.away = True
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert not verdict.counts
    assert world.touched() == []
    world.queue.away = False
    await world.work_until_idle()
    assert await world.contents(world.target) == await world.contents(world.source)


async def test_the_promised_look_finds_all_in_step_and_is_the_last(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.work()
    world.clock.now += D - 1
    assert await world.work() == []
    world.clock.now += 1
    world.journal.clear()
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.journal == ["head source", "head target"]  # nothing read, nothing promised, nothing touched
    counts = await world.queue.counts()
    assert (counts.waiting, counts.held, counts.dead) == (0, 0, 0)


async def test_the_look_after_a_write_mends_what_a_write_that_came_late_has_done(world: World) -> None:
    await world.put("k", b"new")
    await world.tell("k", CREATED)
    await world.work()
    await world.target.bucket.write("k", b"from a dead worker", headers={}, metadata={MARK: "older"})
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"new"}


async def test_the_look_after_a_delete_mends_an_object_that_came_back_late(world: World) -> None:
    await world.target.bucket.write("k", b"old", headers={}, metadata={})
    await world.tell("k", REMOVED)
    await world.work()
    await world.target.bucket.write("k", b"from a dead worker", headers={}, metadata={MARK: "older"})
    await world.work_until_idle()
    assert await world.contents(world.target) == {}


FORGED = [
    # what is on both sides, the claim, its ETag; what is asked for at once, and after D
    (b"body", CREATED, None, ["read source", "head target"], []),
    (b"body", CREATED, "the right one", ["read source", "head target"], []),
    (b"body", CREATED, "another", ["read source", "head target"], ["head source"]),
    (b"body", REMOVED, None, ["read source"], ["head source"]),
    (None, CREATED, "another", ["read source"], ["read source"]),
    (None, REMOVED, None, ["read source", "head target"], []),
]


@pytest.mark.parametrize(("body", "claim", "etag", "now", "later"), FORGED)
async def test_a_forged_event_changes_nothing_that_is_in_step_and_costs_as_little_as_is_safe(
    world: World, body: bytes | None, claim: Claim, etag: str | None, now: list[str], later: list[str]
) -> None:
    if body is not None:
        source = await world.put("k", body)
        await world.tell("k", CREATED)
        etag = source.etag if etag == "the right one" else etag
    await world.work_until_idle()
    world.journal.clear()
    await world.tell("k", claim, etag=etag)
    await world.work()
    assert [entry for entry in world.journal if "promise" not in entry] == now
    assert len(world.journal) - len(now) == bool(later)  # a look, if there is any doubt
    world.journal.clear()
    world.clock.now += D
    await world.work_until_idle()
    assert world.journal == later
    assert await world.contents(world.target) == await world.contents(world.source)


async def test_a_removal_that_a_stale_source_denies_is_done_by_the_look(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.work_until_idle()
    await world.tell("k", REMOVED)
    assert await world.work() == [Done(Action.LOOK_LATER)]
    await world.source.bucket.delete("k")  # what it shows at last
    await world.work_until_idle()
    assert await world.contents(world.target) == {}


async def test_created_but_absent_never_deletes_and_is_looked_at_again_later(world: World) -> None:
    await world.target.bucket.write("k", b"precious", headers={}, metadata={})
    await world.tell("k", CREATED)
    assert await world.work() == [Done(Action.LOOK_LATER)]
    assert world.touched() == []
    assert world.journal.count(f"promise a look after {D}") == 1
    await world.put("k", b"it was only slow")
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"it was only slow"}


async def test_created_but_absent_is_no_end_while_no_look_can_be_promised(world: World) -> None:
    await world.tell("k", CREATED)
    world.queue.away = True
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)


async def test_an_event_of_another_state_than_is_read_is_looked_at_again(world: World) -> None:
    await world.put("k", b"old state, from a stale read")
    await world.tell("k", CREATED)
    await world.work_until_idle()
    await world.tell("k", CREATED, etag="of the new state")
    assert await world.work() == [Done(Action.SKIPPED)]
    await world.put("k", b"new state")  # what the source shows at last
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"new state"}


async def test_a_copy_of_another_state_than_was_told_of_promises_one_look_not_two(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED, etag="another")
    await world.work()
    assert world.journal.count(f"promise a look after {D}") == 1


async def test_duplicates_and_late_events_end_in_the_latest_state(world: World) -> None:
    first = await world.put("k", b"first")
    second = await world.put("k", b"second")
    for etag in (second.etag, first.etag, second.etag):
        await world.tell("k", CREATED, etag=etag)
    await world.tell("k", REMOVED)
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"second"}
    assert await world.letters() == []


async def test_a_delivery_that_came_back_compares_before_it_writes(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.work()
    await world.tell("k", CREATED)
    await world.take(other := world.queue.twin())
    await other.close()  # its holder died
    world.journal.clear()
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.touched() == []


async def test_a_large_object_is_compared_before_it_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.work()
    monkeypatch.setattr(mirror, "SMALL", 3)
    world.journal.clear()
    await world.tell("k", CREATED)
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.touched() == []


async def test_a_copy_made_by_somebody_else_is_adopted(world: World) -> None:
    await world.put("k", b"body")
    await world.target.bucket.write("k", b"body", headers={}, metadata={})
    await world.tell("k", None)
    assert await world.work() == [Done(Action.SKIPPED)]


async def test_a_changed_object_with_the_same_bytes_is_copied_again(world: World) -> None:
    """Its metadata may have changed, and the ETag does not tell."""
    await world.put("k", b"body", version="1")
    await world.tell("k", CREATED)
    await world.work()
    await world.put("k", b"body", version="2")
    await world.tell("k", None)
    await world.work()
    assert (await world.on(world.target, "k")).metadata["version"] == "2"


@pytest.mark.parametrize("claim", [REMOVED, None])
@pytest.mark.parametrize(
    ("deletes", "mark", "left"),
    [
        ("mirror", {}, False),
        ("mirror", {MARK: "x"}, False),
        ("owned", {}, True),
        ("owned", {MARK: "x"}, False),
        ("keep", {}, True),
        ("keep", {MARK: "x"}, True),
    ],
)
async def test_a_delete_goes_as_far_as_the_route_allows(
    deletes: Deletes, mark: dict[str, str], left: bool, claim: Claim | None
) -> None:
    world = World(deletes)
    await world.target.bucket.write("k", b"old", headers={}, metadata=mark)
    await world.tell("k", claim)
    await world.work_until_idle()
    assert ("k" in await world.contents(world.target)) is left


@pytest.mark.parametrize(
    "error",
    [
        RouteDown("GET source: AccessDenied"),
        RouteDown("NoSuchBucket: source"),
        StoreAway("GET source: 500"),
        StoreAway("GET source: 404"),
        Throttled("GET source: SlowDown"),
        Corrupt("broke off"),
        SourceMoved("412"),
        Refused("InvalidObjectState"),
        TimeoutError(),
        ConnectionResetError(),
        RuntimeError("a defect"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)
@pytest.mark.parametrize("claim", [REMOVED, CREATED, None])
async def test_only_a_proof_of_absence_ever_deletes(
    world: World, error: Exception, claim: Claim | None
) -> None:
    await world.target.bucket.write("k", b"precious", headers={}, metadata={})
    await world.tell("k", claim)
    world.source.fail(error)
    for _ in range(4):
        await world.work()
        world.clock.now += 3600
    assert world.touched() == []
    assert not any(isinstance(attempted.verdict, Done) for attempted in world.seen)


async def test_a_missing_bucket_is_no_missing_object(world: World) -> None:
    await world.target.bucket.write("k", b"precious", headers={}, metadata={})
    world.source.bucket = MemoryStore().bucket("no such bucket")
    await world.tell("k", REMOVED)
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert world.touched() == []


@pytest.mark.parametrize(
    "body", [b"", b"no task", b"\xff\x00", b'{"v": 2, "route": "r", "key": "k"}', bytes(range(256))]
)
async def test_a_body_that_is_no_task_is_buried_with_its_bytes(world: World, body: bytes) -> None:
    await world.queue.publish(body, lane=Lane.LIVE)
    [verdict] = await world.work()
    assert isinstance(verdict, Bury)
    [letter] = await world.letters()
    assert letter.body == body
    assert letter.why.startswith("Unreadable: not a task")


async def test_a_task_of_a_route_that_is_not_here_is_retried_and_then_buried(world: World) -> None:
    await world.queue.publish(Task(route="to come", key="k").encode(), lane=Lane.LIVE)
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert verdict.counts
    assert '"to come"' in verdict.why
    await world.work_until_idle()
    [letter] = await world.letters()
    assert letter.why.startswith("UnknownRoute")


async def test_a_store_error_is_retried_and_buried_after_the_last_attempt(world: World) -> None:
    await world.put("k", b"body")
    task = await world.tell("k", CREATED)
    world.target.fail(StoreAway("PUT target: 500"), "write")
    [first] = await world.work()
    assert isinstance(first, Retry)
    assert first.after in RUNGS
    assert await world.work() == []  # not before its time
    world.clock.now += first.after
    [second] = await world.work()
    assert second == Bury("StoreAway: PUT target: 500 (attempt 2 of 2)")
    [letter] = await world.letters()
    assert (letter.body, letter.attempt) == (task.encode(), 2)
    assert [failure.attempt for failure in letter.failures] == [1, 2]


async def test_a_task_that_failed_once_succeeds_at_its_next_attempt(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.target.fail(StoreAway("PUT target: 500"), "write")
    await world.work()
    world.target.before = None
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"body"}
    assert await world.letters() == []


async def test_waiting_for_a_turn_is_no_attempt_and_never_buries(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.source.fail(Throttled("no turn", retry_after=90, counts=False))
    for _ in range(20):
        [verdict] = await world.work()
        assert isinstance(verdict, Retry)
        assert verdict.after >= 90
        world.clock.now += verdict.after
    world.source.before = None
    await world.work()
    assert world.seen[-1].delivery.attempt == 1
    assert await world.contents(world.target) == {"k": b"body"}


async def test_an_object_that_no_store_will_ever_take_is_buried_at_once(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.target.fail(Refused("PUT target: EntityTooLarge"), "write")
    assert await world.work() == [Bury("Refused: PUT target: EntityTooLarge")]


async def test_bytes_that_are_not_those_promised_are_never_written(world: World) -> None:
    await world.put("k", b"body")
    state = await world.on(world.source, "k")
    objects = world.source.bucket._objects
    objects["k"] = MemoryReading(state, b"bodX")
    await world.tell("k", CREATED)
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert verdict.why.startswith("Corrupt")
    assert world.touched() == []


async def test_an_object_that_moves_between_the_look_and_the_read_is_tried_again(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", None)

    async def vanish(verb: str, key: str) -> None:
        if verb == "read":
            await world.source.bucket.delete("k")

    world.source.before = vanish
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert verdict.why.startswith("SourceMoved")
    assert world.touched() == []


async def test_a_write_that_takes_too_long_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "WRITE_WITHIN", 0)
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    gate = world.target.hold("write")
    [verdict] = await world.work()
    assert gate.reached.is_set()
    assert isinstance(verdict, Retry)
    assert verdict.why.startswith("StoreAway")


def test_every_write_ends_before_its_look_comes() -> None:
    signature_is_valid = 15 * 60
    assert mirror.WRITE_WITHIN + signature_is_valid < D


async def test_one_key_is_worked_on_once_at_a_time_and_others_go_ahead(world: World) -> None:
    await world.put("a", b"a")
    await world.put("b", b"b")
    gate = world.source.hold("read", "a")
    for key in ("a", "a", "b"):
        await world.tell(key, CREATED)
    first = asyncio.create_task(world.attempt(await world.take()))
    await gate.reached.wait()
    await world.attempt(await world.take())
    busy = world.outcome
    assert isinstance(busy, Retry)
    assert (busy.why.split(":")[0], busy.counts) == ("KeyBusy", False)
    await world.attempt(await world.take())
    assert world.outcome == Done(Action.COPIED)
    gate.open.set()
    await first
    world.source.before = None
    await world.work_until_idle()
    assert await world.contents(world.target) == {"a": b"a", "b": b"b"}


async def test_a_key_is_free_again_after_an_attempt_that_failed(world: World) -> None:
    await world.put("k", b"body")
    world.source.fail(StoreAway("500"))
    for _ in range(2):
        await world.tell("k", CREATED)
        await world.attempt(await world.take())
    assert all(isinstance(a.verdict, Retry) and a.verdict.why == "StoreAway: 500" for a in world.seen)


@pytest.mark.parametrize("claim", [CREATED, REMOVED])
async def test_a_delivery_that_is_lost_on_the_way_touches_nothing(world: World, claim: Claim) -> None:
    if claim is CREATED:
        await world.put("k", b"body")
    await world.target.bucket.write("k", b"old", headers={}, metadata={})
    await world.tell("k", claim)
    holder = world.queue.twin()
    delivery = await world.take(holder)
    gate = world.source.hold("read")
    attempt = asyncio.create_task(world.attempt_on(holder)(delivery))
    await gate.reached.wait()
    await holder.close()  # the connection is gone, the message goes to another worker
    gate.open.set()
    await attempt
    assert world.touched() == []
    assert world.seen[-1].verdict is None
    assert isinstance(world.seen[-1].result, LostDelivery)
    assert (await world.take()).returned == 1


@pytest.mark.parametrize("error", [QueueAway("no answer"), LostDelivery("gone"), RuntimeError("a defect")])
async def test_a_delivery_that_cannot_be_settled_stays_unsettled_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuse(delivery: Delivery, verdict: Verdict) -> None:
        raise error

    await world.put("k", b"body")
    await world.tell("k", CREATED)
    delivery = await world.take()
    with monkeypatch.context() as patch:
        patch.setattr(world.queue, "settle", refuse)
        await world.attempt(delivery)
    assert world.seen[-1].verdict is None
    assert world.seen[-1].result is error
    assert world.queue.holds(delivery)
    await world.queue.close()
    assert await world.work() == [Done(Action.SKIPPED)]


async def test_an_observer_that_raises_changes_nothing() -> None:
    calls: list[Attempted] = []

    def broken(attempted: Attempted) -> None:
        calls.append(attempted)
        raise RuntimeError("an observer")

    world = World(observers=(broken,))
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    assert await world.work() == [Done(Action.COPIED)]
    assert len(calls) == len(world.seen) == 1  # and the next observer is told all the same
    assert (await world.queue.counts()).held == 0


async def test_an_observer_is_told_what_happened(world: World) -> None:
    await world.put("k", b"body")
    task = await world.tell("k", CREATED)
    await world.work()
    world.clock.now += D
    await world.work()
    copied, looked = world.seen
    assert (copied.task, copied.delivery.attempt, copied.verdict) == (task, 1, Done(Action.COPIED))
    assert copied.seconds >= 0
    assert copied.lag is not None
    assert copied.lag >= 0
    assert looked.lag is None  # a look has no hook to be late for


async def test_every_end_of_an_attempt_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hookmirror")
    world = World(observers=(log_attempt,), attempts=1)
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.target.bucket.write("gone", b"old", headers={}, metadata={})
    await world.tell("gone", REMOVED)
    await world.tell("absent", CREATED)
    await world.queue.publish(b"no task", lane=Lane.LIVE)
    await world.queue.publish(Task(route="unknown", key="k").encode(), lane=Lane.LIVE)
    await world.work()
    world.source.fail(Throttled("no turn", counts=False))
    await world.tell("k", CREATED)
    await world.work()
    actions = [getattr(record, "action", None) for record in caplog.records]
    assert actions == [
        Action.COPIED,
        Action.DELETED,
        Action.LOOK_LATER,
        Action.BURIED,
        Action.BURIED,
        Action.RETRIED,
    ]


async def test_settling_is_finished_even_when_the_pool_loses_patience(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, settle = Gate(), world.queue.settle

    async def slowly(delivery: Delivery, verdict: Verdict) -> None:
        await gate()
        await settle(delivery, verdict)

    monkeypatch.setattr(world.queue, "settle", slowly)
    await world.tell("k", REMOVED)
    delivery = await world.take()
    attempt = asyncio.create_task(world.attempt(delivery))
    await gate.reached.wait()
    attempt.cancel()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert not world.queue.holds(delivery)


LIMITS = {Lane.LIVE: 3, Lane.BULK: 1}


async def test_the_pool_works_on_so_many_at_once_in_each_lane_and_no_more(world: World) -> None:
    running: dict[Lane, int] = dict.fromkeys(Lane, 0)
    peak = dict(running)
    gate = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        running[delivery.lane] += 1
        peak[delivery.lane] = max(peak[delivery.lane], running[delivery.lane])
        await gate.wait()
        running[delivery.lane] -= 1
        await world.queue.settle(delivery, Done("ok"))

    for number in range(10):
        for lane in Lane:
            await world.tell(f"{number}", None, lane=lane)
    stop = asyncio.Event()
    pool = asyncio.create_task(Pool(world.queue, handle, LIMITS).run(stop, drain=20))
    await until(lambda: running == LIMITS, "both lanes are full")
    gate.set()

    async def empty() -> bool:
        counts = await world.queue.counts()
        return sum(counts.ready.values()) + (counts.held or 0) == 0

    await until(empty, "everything is done")
    stop.set()
    assert await pool == 0
    assert peak == LIMITS


async def test_a_stop_lets_finish_what_has_begun_and_begins_nothing_new(world: World) -> None:
    await world.put("a", b"a")
    await world.put("b", b"b")
    gate = world.source.hold("read", "a")
    await world.tell("a", CREATED)
    stop = asyncio.Event()
    pool = asyncio.create_task(Pool(world.queue, world.attempt, LIMITS).run(stop, drain=20))
    await gate.reached.wait()
    stop.set()
    await until(lambda: len(asyncio.all_tasks()) == 3, "test, pool and attempt are left, and nobody takes")
    await world.tell("b", CREATED)
    gate.open.set()
    assert await pool == 0
    assert await world.contents(world.target) == {"a": b"a"}
    counts = await world.queue.counts()
    assert (counts.ready[Lane.LIVE], counts.held) == (1, 0)


async def test_what_is_cut_off_stays_unsettled_and_comes_back_to_another(world: World) -> None:
    await world.put("a", b"a")
    await world.tell("a", CREATED)
    gate = world.source.hold("read", "a")
    stop = asyncio.Event()
    pool = asyncio.create_task(Pool(world.queue, world.attempt, LIMITS).run(stop, drain=0))
    await gate.reached.wait()
    stop.set()
    assert await pool == 1
    counts = await world.queue.counts()
    assert (counts.held, counts.dead, world.touched(), world.seen) == (1, 0, [], [])
    await world.queue.close()
    assert (await world.take(world.queue.twin())).returned == 1


async def test_a_queue_that_cannot_be_used_at_all_ends_the_pool(world: World) -> None:
    class Misdeclared(MemoryQueue):
        async def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
            if lane is Lane.BULK:
                raise ConfigError("an argument differs")
            async for delivery in super().deliveries(lane, limit):
                yield delivery

    with pytest.raises(ConfigError, match="differs"):
        await Pool(Misdeclared(), world.attempt, LIMITS).run(asyncio.Event(), drain=20)


@pytest.mark.parametrize("error", [StoreAway("the PUT failed"), Refused("the PUT is refused")])
async def test_a_write_that_never_succeeds_does_not_multiply_looks(error: Exception) -> None:
    world = World(attempts=4)
    world.target.fail(error, "write")
    await world.source.bucket.write("k", b"body", headers={}, metadata={})
    await world.tell("k", CREATED)
    most = 0
    for _ in range(200):
        await world.work()
        counts = await world.queue.counts()
        most = max(most, counts.waiting)
        world.clock.now += 600
    counts = await world.queue.counts()
    assert most <= 2 * 4
    assert counts.waiting == 0
    assert 1 <= counts.dead <= 4 + 1


async def test_an_object_larger_than_any_upload_is_buried_unread(world: World) -> None:
    await world.source.bucket.write("k", b"", headers={}, metadata={})
    world.source.bucket._objects["k"] = MemoryReading(State("etag-2", 2**50), b"")
    await world.tell("k", CREATED)
    [verdict] = await world.work()
    assert isinstance(verdict, Bury)
    assert verdict.why.startswith("Refused")


Event = tuple[str, Claim | None, str | None]


class Turmoil:
    """A world in which, by seeded chance, all happens that may: changes, events that come twice, out of order
    or from a forger, stores that fail, workers that die."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(attempts=10_000)
        self.world.source.before = self.world.target.before = self._fail_sometimes
        self.untold: list[Event] = []

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share

    def _fail_sometimes(self, verb: str, key: str) -> None:
        if self._chance(0.2):
            raise self.rng.choice([StoreAway("500"), Throttled("SlowDown"), RouteDown("403"), TimeoutError()])

    async def change(self, step: int) -> None:
        key = self.rng.choice(["a", "b", "//c"])
        if self._chance(0.4):
            state = await self.world.put(key, b"%d" % step)
            self.untold.append((key, CREATED, state.etag))
        elif self._chance(0.4):
            await self.world.source.bucket.delete(key)
            self.untold.append((key, REMOVED, None))
        if self._chance(0.2):
            self.untold.append((key, self.rng.choice([CREATED, REMOVED, None]), None))  # forged

    async def deliver(self) -> None:
        self.rng.shuffle(self.untold)
        while self.untold and self._chance(0.6):
            event = self.untold[0] if self._chance(0.2) else self.untold.pop()  # some come twice
            await self._tell(event)

    async def deliver_all(self) -> None:
        for event in self.untold:
            await self._tell(event)

    async def _tell(self, event: Event) -> None:
        key, claim, etag = event
        await self.world.tell(key, claim, etag=etag)

    async def work(self) -> None:
        if self._chance(0.2) and (await self.world.queue.counts()).ready[Lane.LIVE]:
            await self.world.take()  # by a worker that dies with it
            await self.world.queue.close()
        if self._chance(0.5):
            await self.world.work()
            self.world.clock.now += self.rng.choice([0, 1, 30, D])

    async def calm(self) -> None:
        """Let all that is left be done, at first with stores that still fail."""
        for _ in range(30):
            await self.world.work()
            self.world.clock.now += 3600
        self.world.source.before = self.world.target.before = None
        await self.world.work_until_idle()


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_the_target_ends_up_equal_to_the_source(seed: int) -> None:
    turmoil = Turmoil(seed)
    for step in range(40):
        await turmoil.change(step)
        await turmoil.deliver()
        await turmoil.work()
    await turmoil.deliver_all()
    await turmoil.calm()
    world = turmoil.world
    assert await world.contents(world.target) == await world.contents(world.source)
    assert await world.letters() == []
