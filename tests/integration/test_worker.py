"""The worker on a queue and stores in memory: what it does to the target, in which order, and what never."""

import asyncio
import logging
from collections.abc import AsyncIterator

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
from common.queue.port import Bury, Delivery, Done, Kind, Lane, Retry, Verdict
from common.store.mark import Body, mark_for, origin_of
from common.store.memory import MemoryReading, MemoryStore
from common.store.port import MARK, State
from common.task import Claim, Task
from common.telemetry import Action
from tests.lab.lanes import BULK, LIVE
from tests.lab.until import until
from tests.lab.world import D, Gate, World
from worker import mirror, writes
from worker.attempt import Attempted, log_attempt
from worker.fair import places
from worker.plan import Deletes
from worker.pool import Pool
from worker.verdict import Outcome


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
    mark = mark_for(source, origin_of(world.source.place), key="k", body=Body.of(source.etag, 4), put=1)
    assert dict(copy.metadata) == {"owner": "me", MARK: str(mark)}
    assert await world.idle()


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
    await world.come_back()
    world.journal.clear()
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.touched() == []
    assert world.looks() == [f"publish a look after {D}"]  # its holder may have had a write under way


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
    await world.put("k", b"body", owner="me")
    await world.put_there("k", b"body", owner="me")
    await world.tell("k", None)
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.seen[-1].result == Outcome(Action.SKIPPED, "in sync", size=4)


async def test_a_copy_made_by_somebody_else_without_its_description_is_given_it(world: World) -> None:
    await world.put("k", b"body", owner="me")
    await world.put_there("k", b"body")
    await world.tell("k", None)
    assert await world.work() == [Done(Action.COPIED)]
    assert (await world.on(world.target, "k")).metadata["owner"] == "me"
    assert world.touched() == ["restate target"]


async def test_a_change_of_metadata_alone_is_restated_and_no_byte_is_read(world: World) -> None:
    await world.mirror("k", b"body", version="1")
    await world.put("k", b"body", version="2")
    await world.tell("k", None)
    assert await world.work() == [Done(Action.COPIED)]
    assert (await world.on(world.target, "k")).metadata["version"] == "2"
    assert "read source" not in world.journal


OLD_MARK = {MARK: State("etag", 3, "Mon").identity}


@pytest.mark.parametrize("claim", [REMOVED, None])
@pytest.mark.parametrize(
    ("deletes", "mark", "left"),
    [
        ("mirror", {}, False),
        ("mirror", OLD_MARK, False),
        ("owned", {}, True),
        ("owned", OLD_MARK, False),
        ("keep", {}, True),
        ("keep", OLD_MARK, True),
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
    await world.queue.publish(body, lane=LIVE)
    [verdict] = await world.work()
    assert isinstance(verdict, Bury)
    [letter] = await world.letters()
    assert letter.body == body
    assert letter.why.startswith("Unreadable: not a task")


@pytest.mark.parametrize("kind", Kind)
async def test_a_task_in_a_lane_that_is_not_its_routes_goes_on_there_untried(
    world: World, kind: Kind
) -> None:
    task = Task(route="to come", key="k")
    await world.queue.publish(task.encode(), lane=Lane("", kind))
    await world.attempt(await anext(world.queue.deliveries(Lane("", kind), 1)))
    assert (await world.queue.counts()).besides(["r"]) == {"to come": 1}
    moved = await anext(world.queue.deliveries(Lane("to come", kind), 1))
    assert (Task.decode(moved.body), moved.attempt, moved.returned) == (task, 1, 0)
    assert world.seen == []


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


@pytest.mark.parametrize(
    "error",
    [Throttled("no turn", retry_after=90, counts=False), RouteDown("the route is paused", counts=False)],
)
async def test_waiting_for_a_turn_is_no_attempt_and_never_buries(world: World, error: Exception) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.source.fail(error)
    for _ in range(20):
        [verdict] = await world.work()
        assert isinstance(verdict, Retry)
        assert verdict.after >= (90 if isinstance(error, Throttled) else RouteDown.patience)
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


async def test_an_object_that_is_gone_between_the_look_and_the_read_is_looked_at_again(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", None)

    async def vanish(verb: str, key: str) -> None:
        if verb == "read":
            await world.source.bucket.delete("k")

    world.source.before = vanish
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.touched() == []


async def test_a_write_that_takes_too_long_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "WRITE_WITHIN", 0)
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    gate = world.target.hold("write")
    [verdict] = await world.work()
    assert gate.reached.is_set()
    assert isinstance(verdict, Retry)
    assert verdict.why.startswith("StoreAway")


def test_every_write_ends_before_a_look_comes() -> None:
    signature_is_valid = 15 * 60
    assert max(writes.WRITE_WITHIN, writes.WORK_WITHIN) + signature_is_valid < D


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
    back = await world.take()
    assert (back.attempt, back.returned) == (1, 1)


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
    await world.tell("k", None)
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
    await world.queue.publish(b"no task", lane=LIVE)
    await world.queue.publish(Task(route="unknown", key="k").encode(), lane=LIVE)
    await world.work()
    world.source.fail(Throttled("no turn", counts=False))
    await world.tell("k", CREATED)
    await world.work()
    actions = [getattr(record, "action", None) for record in caplog.records]
    assert actions == [
        Action.COPIED,
        Action.DELETED,
        Action.SKIPPED,
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


LIMITS = {LIVE: 3, BULK: 1}
SHARED = list(LIMITS), places(LIMITS[LIVE]), lambda _: LIMITS[LIVE]


async def test_the_pool_works_on_so_many_at_once_in_each_lane_and_no_more(world: World) -> None:
    running: dict[Lane, int] = dict.fromkeys(LIMITS, 0)
    peak = dict(running)
    gate = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        running[delivery.lane] += 1
        peak[delivery.lane] = max(peak[delivery.lane], running[delivery.lane])
        await gate.wait()
        running[delivery.lane] -= 1
        await world.queue.settle(delivery, Done("ok"))

    for number in range(10):
        for lane in LIMITS:
            await world.tell(f"{number}", None, lane=lane)
    stop = asyncio.Event()
    pool = asyncio.create_task(Pool(world.queue, handle, *SHARED).run(stop, drain=20))
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
    pool = asyncio.create_task(Pool(world.queue, world.attempt, *SHARED).run(stop, drain=20))
    await gate.reached.wait()
    stop.set()
    await until(lambda: len(asyncio.all_tasks()) == 3, "test, pool and attempt are left, and nobody takes")
    await world.tell("b", CREATED)
    gate.open.set()
    assert await pool == 0
    assert await world.contents(world.target) == {"a": b"a"}
    counts = await world.queue.counts()
    assert (counts.ready[Kind.LIVE], counts.held) == (1, 0)


async def test_what_is_cut_off_stays_unsettled_and_comes_back_to_another(world: World) -> None:
    await world.put("a", b"a")
    await world.tell("a", CREATED)
    gate = world.source.hold("read", "a")
    stop = asyncio.Event()
    pool = asyncio.create_task(Pool(world.queue, world.attempt, *SHARED).run(stop, drain=0))
    await gate.reached.wait()
    stop.set()
    assert await pool == 1
    counts = await world.queue.counts()
    assert (counts.held, counts.dead, world.touched(), world.seen) == (1, 0, [], [])
    await world.queue.close()
    back = await world.take(world.queue.twin())
    assert (back.attempt, back.returned) == (1, 1)


async def test_a_queue_that_cannot_be_used_at_all_ends_the_pool(world: World) -> None:
    class Misdeclared(MemoryQueue):
        async def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
            if lane == BULK:
                raise ConfigError("an argument differs")
            async for delivery in super().deliveries(lane, limit):
                yield delivery

    with pytest.raises(ConfigError, match="differs"):
        await Pool(Misdeclared(), world.attempt, *SHARED).run(asyncio.Event(), drain=20)


async def test_an_object_larger_than_any_upload_is_buried_unread(world: World) -> None:
    await world.source.bucket.write("k", b"", headers={}, metadata={})
    world.source.bucket._objects["k"] = MemoryReading(State("etag-2", 2**50), b"")
    await world.tell("k", CREATED)
    [verdict] = await world.work()
    assert isinstance(verdict, Bury)
    assert verdict.why.startswith("Refused")
