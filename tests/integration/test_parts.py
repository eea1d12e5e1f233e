"""Large objects, copied in parts: whole, in step with what the source is now, and gone on with by anybody."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from common.errors import Corrupt, Refused, StoreAway, Throttled
from common.queue.memory import MemoryQueue
from common.queue.port import Delivery, Kind
from common.store.mark import origin_of
from common.store.memory import MemoryBucket, MemoryReading, MemoryStore
from common.store.pace import Meter
from common.store.port import Begun, Part, Stream
from common.task import Claim, Task
from tests.lab.lanes import LIVE
from worker import parts, spans
from worker.attempt import Attempt
from worker.brake import Brake
from worker.job import SMALL, Route
from worker.mirror import Mirror
from worker.plan import Rules, in_step
from worker.spans import MIB, part_size
from worker.transfer import Budget, InOrder

TIB = 2**40
LARGEST = 10_000 * 5 * 2**30
BODY = random.Random(1).randbytes(SMALL + 5 * MIB + 17)


class Clock:
    """The time as the tests have it: for the queue's waits, and for how long a copy may take."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """One route between two buckets in memory, and a queue."""

    def __init__(self) -> None:
        store = MemoryStore()
        self.source, self.target = store.create("source"), store.create("target")
        self.clock = Clock()
        self.queue = MemoryQueue(self.clock)
        self.attempt = self.worker()
        self.turns = 0

    def worker(self, queue: MemoryQueue | None = None) -> Attempt:
        """Another worker on the same queue, or one that holds its deliveries through `queue`."""
        mirror = Mirror(self.queue, look_after=1200, budget=Budget(64 * MIB), brake=Brake({}))
        mirror._parts = parts.PartsCopy(Budget(64 * MIB), self.queue, clock=self.clock)
        routes = {"r": Route("r", self.source, self.target)}
        return Attempt(queue or self.queue, mirror, routes, attempts=3, rng=random.Random(1))

    async def put(self, body: bytes, key: str = "k") -> None:
        await self.source.write(key, body, headers={"content-type": "a/b"}, metadata={"n": "1"})
        await self.tell(key)

    async def tell(self, key: str = "k") -> None:
        await self.queue.publish(Task(route="r", key=key, claim=Claim.CREATED).encode(), lane=LIVE)

    async def work(self) -> None:
        """Do what is ready, and what becomes ready by that, without waiting for any look."""
        deliveries = self.queue.deliveries(LIVE, 10)
        while (await self.queue.counts()).ready[Kind.LIVE]:
            self.turns += 1
            await self.attempt(await anext(deliveries))
        await close(deliveries)

    async def in_step(self) -> bool:
        ours, theirs = await body(self.source), await body(self.target)
        return ours == theirs

    async def open_uploads(self) -> int:
        return len([upload async for upload in self.target.uploads()])


async def close(deliveries: object) -> None:
    assert isinstance(deliveries, AsyncIterator)
    await deliveries.aclose()  # type: ignore[attr-defined]


async def body(bucket: MemoryBucket, key: str = "k") -> bytes | None:
    async with bucket.read(key) as reading:
        return await reading.body() if reading else None


async def test_a_large_object_arrives_whole_with_its_headers_and_mark() -> None:
    world = World()
    await world.put(BODY)
    await world.work()
    assert await world.in_step()
    source, target = await world.source.head("k"), await world.target.head("k")
    assert source is not None
    assert target is not None
    assert in_step(source, target, Rules(origin_of(world.source.place), origin_of(world.target.place)))
    assert (dict(target.headers), target.metadata["n"]) == ({"content-type": "a/b"}, "1")
    assert target.etag.endswith("-2")
    assert await world.open_uploads() == 0


async def test_a_large_object_in_step_is_not_copied_again() -> None:
    world = World()
    await world.put(BODY)
    await world.work()
    before = await world.target.head("k")
    await world.queue.publish(Task(route="r", key="k", claim=Claim.CREATED).encode(), lane=LIVE)
    await world.work()
    assert await world.target.head("k") == before


async def test_when_time_is_up_the_task_goes_on_elsewhere_and_repeats_no_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    monkeypatch.setattr(parts, "AT_ONCE", 1)
    uploaded: list[int] = []
    original = MemoryBucket.upload_part

    async def slow(self: MemoryBucket, key: str, upload: str, number: int, body: bytes) -> str:
        uploaded.append(number)
        world.clock.now += parts.CONTINUE_AFTER
        return await original(self, key, upload, number, body)

    monkeypatch.setattr(MemoryBucket, "upload_part", slow)
    await world.put(BODY)
    await world.work()
    assert uploaded == [1, 2]
    assert world.turns == 4  # begun; a part; the other, and a second look at the first; the end
    assert await world.in_step()
    assert (await world.queue.counts()).dead == 0


async def test_a_part_that_fails_is_repeated_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(parts, "AT_ONCE", 1)
    uploaded: list[int] = []
    original = MemoryBucket.upload_part

    async def flaky(self: MemoryBucket, key: str, upload: str, number: int, body: bytes) -> str:
        uploaded.append(number)
        if uploaded == [1, 2]:
            raise StoreAway("a reset")
        return await original(self, key, upload, number, body)

    monkeypatch.setattr(MemoryBucket, "upload_part", flaky)
    await world.put(BODY)
    await world.work()
    world.clock.now += 3600
    await world.work()
    assert uploaded == [1, 2, 2]
    assert await world.in_step()


async def test_a_source_overwritten_during_the_copy_ends_with_the_newest_and_no_upload_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    original = MemoryBucket.upload_part
    changes = iter(range(20))

    async def disturbed(self: MemoryBucket, key: str, upload: str, number: int, body: bytes) -> str:
        if (change := next(changes, None)) is not None:
            await world.put(BODY + bytes([change]))
        return await original(self, key, upload, number, body)

    monkeypatch.setattr(MemoryBucket, "upload_part", disturbed)
    await world.put(BODY)
    for _ in range(100):
        await world.work()
        world.clock.now += 1300
    assert await world.in_step()
    assert await world.open_uploads() == 0
    assert (await world.queue.counts()).dead == 0


async def test_a_source_deleted_during_the_copy_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    original = MemoryBucket.upload_part

    async def vanishing(self: MemoryBucket, key: str, upload: str, number: int, body: bytes) -> str:
        await world.source.delete("k")
        return await original(self, key, upload, number, body)

    monkeypatch.setattr(MemoryBucket, "upload_part", vanishing)
    await world.put(BODY)
    for _ in range(5):
        await world.work()
        world.clock.now += 1300
    assert await body(world.target) is None
    assert await world.open_uploads() == 0


async def test_bytes_that_are_not_the_sources_never_become_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    flip_each_read(monkeypatch)
    await world.put(BODY)
    for _ in range(10):
        await world.work()
        world.clock.now += 3600
    assert await body(world.target) is None
    [letter] = await world.queue.buried(10)
    assert letter.why.startswith("Corrupt")
    assert await world.open_uploads() == 0


def flip_each_read(
    monkeypatch: pytest.MonkeyPatch, *, also: Callable[[int], bool] = lambda _: True
) -> list[int]:
    """Flip a bit in each read of a range for whose number (from 1) `also` is true; return the starts read."""
    original = MemoryBucket.read_range
    starts: list[int] = []

    @asynccontextmanager
    async def flipped(
        self: MemoryBucket, key: str, start: int, end: int, *, etag: str
    ) -> AsyncIterator[MemoryReading]:
        starts.append(start)
        async with original(self, key, start, end, etag=etag) as reading:
            content = bytearray(reading.content)
            content[0] ^= also(len(starts))
            yield MemoryReading(reading.state, bytes(content))

    monkeypatch.setattr(MemoryBucket, "read_range", flipped)
    return starts


async def test_parts_too_large_to_be_held_pass_through_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "HELD_SHARE", 64)
    starts = flip_each_read(monkeypatch, also=lambda _: False)
    world = World()
    await world.put(BODY)
    await world.work()
    assert await world.in_step()
    assert sorted(starts) == [0, 0, 8 * MIB, 8 * MIB]  # each once for its MD5 and once for the target


async def test_a_bit_flipped_in_either_read_of_a_part_that_passes_through_costs_a_repetition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "HELD_SHARE", 64)
    monkeypatch.setattr(parts, "AT_ONCE", 1)
    starts = flip_each_read(monkeypatch, also=lambda number: number in {1, 4})
    world = World()
    await world.put(BODY)
    await world.work()
    assert await world.in_step()
    assert starts == [0, 0, 0, 0, 0, 0, 8 * MIB, 8 * MIB]


class EncryptingBucket(MemoryBucket):
    """A bucket whose ETags of parts are no MD5s though they look so, as with SSE-KMS on AWS."""

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        begun = await super().create_upload(key, headers=headers, metadata=metadata)
        return Begun(begun.id, opaque=True)

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        return seal(await super().upload_part(key, upload, number, body))

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        found = await super().parts(key, upload)
        return {number: Part(seal(part.etag), part.size) for number, part in found.items()}

    async def complete_upload(
        self, key: str, upload: str, etags: Sequence[str], *, over: str | None = None
    ) -> str:
        return await super().complete_upload(key, upload, [seal(etag) for etag in etags], over=over)


def seal(etag: str) -> str:
    """Make an ETag another one, and that one the first again."""
    return etag[::-1]


def encrypting() -> World:
    """A world whose target encrypts, and whose source tells the size of its parts."""
    world = World()
    world.target = EncryptingBucket("target", world.target._contents)
    world.attempt = world.worker()
    return world


async def put_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = (await world.source.create_upload("k", headers={}, metadata={})).id
    pieces = [BODY[: 8 * MIB], BODY[8 * MIB :]]
    etags = [await world.source.upload_part("k", upload, n, piece) for n, piece in enumerate(pieces, 1)]
    await world.source.complete_upload("k", upload, etags)

    async def tells(self: MemoryBucket, key: str, *, etag: str, size: int) -> int:
        return 8 * MIB

    monkeypatch.setattr(MemoryBucket, "part_size", tells)
    await world.queue.publish(Task(route="r", key="k", claim=Claim.CREATED).encode(), lane=LIVE)


async def test_an_object_of_parts_arrives_on_a_target_whose_etags_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = encrypting()
    await put_in_parts(world, monkeypatch)
    await world.work()
    assert await world.in_step()


async def test_a_copy_gone_on_with_arrives_on_a_target_whose_etags_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = encrypting()
    monkeypatch.setattr(parts, "AT_ONCE", 1)
    monkeypatch.setattr(parts, "CONTINUE_AFTER", 0)
    await world.put(BODY)
    await world.work()
    assert await world.in_step()
    assert await world.open_uploads() == 0


async def test_a_flipped_bit_is_found_though_the_targets_etags_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = encrypting()
    flip_each_read(monkeypatch)
    await put_in_parts(world, monkeypatch)
    for _ in range(5):
        await world.work()
        world.clock.now += 3600
    assert await body(world.target) is None
    assert (await world.queue.buried(1))[0].why.startswith("Corrupt")


async def test_large_parts_on_a_slow_route_pass_one_after_another_and_none_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All at once they would share what the route lets through, and none would end in its time."""
    world = World()
    monkeypatch.setattr(parts, "HELD_SHARE", 64)
    monkeypatch.setattr(parts, "READ_WITHIN", 2.0)
    monkeypatch.setattr(parts, "CONTINUE_AFTER", 0.3)
    mirror = Mirror(world.queue, look_after=1200, budget=Budget(64 * MIB), brake=Brake({}))
    route = Route("r", world.source, world.target, meter=Meter(20 * MIB))
    world.attempt = Attempt(world.queue, mirror, {"r": route}, attempts=1, rng=random.Random(1))
    await world.put(random.Random(2).randbytes(5 * 8 * MIB))
    await world.work()
    assert await world.in_step()
    assert (await world.queue.counts()).dead == 0


async def test_a_copy_whose_turn_does_not_come_goes_back_to_the_queue_and_uses_up_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    monkeypatch.setattr(parts, "CONTINUE_AFTER", 0.2)
    budget = Budget(64 * MIB)
    mirror = Mirror(world.queue, look_after=1200, budget=budget, brake=Brake({}))
    routes = {"r": Route("r", world.source, world.target)}
    world.attempt = Attempt(world.queue, mirror, routes, attempts=1, rng=random.Random(1))
    await world.put(BODY)
    deliveries = world.queue.deliveries(LIVE, 10)
    async with budget.take(60 * MIB):  # room for no part
        for _ in range(3):
            await world.attempt(await asyncio.wait_for(anext(deliveries), 5))
    await close(deliveries)
    assert (await world.queue.counts()).dead == 0
    await world.work()
    assert await world.in_step()


async def test_a_part_that_comes_broken_is_not_read_again_when_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A delivery that is held for too long is taken back, and all others of its channel with it."""
    world = World()
    reads: list[int] = []

    @asynccontextmanager
    async def broken(
        self: MemoryBucket, key: str, start: int, end: int, *, etag: str
    ) -> AsyncIterator[MemoryReading]:
        reads.append(start)
        world.clock.now += 90
        raise Corrupt("it broke off")
        yield

    monkeypatch.setattr(MemoryBucket, "read_range", broken)
    monkeypatch.setattr(parts, "AT_ONCE", 1)
    await world.put(BODY)
    deliveries = world.queue.deliveries(LIVE, 10)
    for _ in range(2):
        await world.attempt(await anext(deliveries))
    await close(deliveries)
    assert len(reads) == 2  # the second was begun after 90 s, a third would have been after 180


async def test_an_upload_that_somebody_aborted_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    original = MemoryBucket.parts
    asked = iter((True,))

    async def aborted(self: MemoryBucket, key: str, upload: str) -> object:
        if next(asked, False):
            await self.abort_upload(key, upload)
        return await original(self, key, upload)

    monkeypatch.setattr(MemoryBucket, "parts", aborted)
    await world.put(BODY)
    for _ in range(3):
        await world.work()
        world.clock.now += 3600
    assert await world.in_step()


async def test_a_body_is_hashed_in_order_whatever_comes_first() -> None:
    whole = InOrder()
    pieces = [b"a" * 100, b"b" * 50, b"c"]
    await asyncio.gather(*(whole.add(n, pieces[n - 1]) for n in (3, 1, 2)))
    assert whole.digest() == hashlib.md5(b"".join(pieces), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("size", "etag", "theirs", "part"),
    [
        (100 * MIB, "0" * 32, None, 8 * MIB),
        (100 * MIB, "0" * 32 + "-13", None, 8 * MIB),
        (100 * MIB, "0" * 32 + "-20", None, 5 * MIB),
        (100 * MIB, "0" * 32 + "-7", 15 * MIB, 15 * MIB),
        (100 * MIB, "0" * 32 + "-7", None, 16 * MIB),
        (100 * MIB, "0" * 32 + "-2", 64 * MIB, 64 * MIB),
        (100 * MIB, "0" * 32 + "-2", 3 * MIB, 64 * MIB),  # theirs makes no two parts
        (300_000 * MIB, "0" * 32, None, 30 * MIB),
        (10 * TIB, "0" * 32, None, 1049 * MIB),
        (LARGEST, "0" * 32, None, 5 * 1024 * MIB),
        (LARGEST, "0" * 32 + "-10000", 5 * 1024 * MIB, 5 * 1024 * MIB),
    ],
)
def test_the_part_size_follows_the_sources_where_it_can_be_told(
    size: int, etag: str, theirs: int | None, part: int
) -> None:
    assert part_size(size, etag, theirs) == part


@pytest.mark.parametrize("size", [10 * TIB, 10 * TIB + 1, LARGEST - 1, LARGEST])
def test_no_object_takes_more_parts_than_s3_has_numbers_for(size: int) -> None:
    assert -(-size // part_size(size, "0" * 32, None)) <= 10_000


def test_what_is_larger_than_s3_takes_is_refused() -> None:
    with pytest.raises(Refused, match=r"48\.8 TiB"):
        part_size(LARGEST + 1, "0" * 32, None)


def test_the_etag_of_parts_is_the_one_s3_gives() -> None:
    digests = [hashlib.md5(x, usedforsecurity=False) for x in (b"a", b"b")]
    whole = hashlib.md5(b"".join(d.digest() for d in digests), usedforsecurity=False).hexdigest()
    assert spans.etag_of_parts([d.hexdigest() for d in digests]) == f"{whole}-2"
    assert spans.etag_of_parts(["no md5"]) is None


async def take(queue: MemoryQueue) -> Delivery:
    deliveries = queue.deliveries(LIVE, 10)
    delivery = await anext(deliveries)
    await close(deliveries)
    return delivery


async def test_two_hooks_for_one_large_object_on_two_workers_copy_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    starts = flip_each_read(monkeypatch, also=lambda _: False)
    await world.put(BODY)
    await world.tell()
    queues = [world.queue.twin(), world.queue.twin()]
    workers = [world.worker(queue) for queue in queues]
    for _ in range(20):
        for queue, worker in zip(queues, workers, strict=True):
            if (await world.queue.counts()).ready[Kind.LIVE]:
                await worker(await take(queue))
        world.clock.now += parts.CLAIMED_WAIT
    counts = await world.queue.counts()
    assert (counts.waiting, counts.held, counts.dead) == (0, 0, 0)
    assert await world.in_step()
    assert sorted(starts) == [0, 8 * MIB]
    assert await world.open_uploads() == 0


async def test_a_large_copy_that_was_removed_is_made_again_at_once() -> None:
    world = World()
    await world.put(BODY)
    await world.tell()
    await world.work()
    assert await world.in_step()
    await world.target.delete("k")
    await world.tell()  # a task of its own, to which nobody's claim is in the way
    await world.work()
    assert await world.in_step()
    assert (await world.queue.counts()).waiting == 0


async def test_whoever_copies_an_object_goes_on_with_it_after_its_worker_died() -> None:
    world = World()
    await world.put(BODY)
    await world.attempt(await take(world.queue))  # the upload has begun, and is its message's
    await take(other := world.queue.twin())
    await other.close()
    await world.work()
    assert await world.in_step()
    assert await world.open_uploads() == 0


async def test_what_another_worker_has_copied_meanwhile_is_not_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The claim may be lost, with the queue that keeps it."""
    world = World()
    completed: list[str] = []
    original = MemoryBucket.complete_upload

    async def noted(
        self: MemoryBucket, key: str, upload: str, etags: Sequence[str], *, over: str | None = None
    ) -> str:
        completed.append(upload)
        return await original(self, key, upload, etags, over=over)

    async def everybody(key: str, holder: str, *, at: float, within: float) -> bool:
        return True

    monkeypatch.setattr(MemoryBucket, "complete_upload", noted)
    monkeypatch.setattr(world.queue, "first", everybody)
    await world.put(BODY)
    await world.tell()
    await world.work()
    assert len(completed) == 1
    assert await world.in_step()
    assert await world.open_uploads() == 0
    assert (await world.queue.counts()).waiting == 0


@pytest.mark.parametrize("change", ["overwritten", "removed"])
async def test_a_source_that_moves_when_its_parts_are_copied_is_never_completed(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    world = World()
    original = MemoryBucket.parts
    asked = iter((True,))

    async def listed(self: MemoryBucket, key: str, upload: str) -> dict[int, Part]:
        found = await original(self, key, upload)
        if len(found) == 2 and next(asked, False):
            await (world.put(BODY[:-1]) if change == "overwritten" else world.source.delete("k"))
        return found

    monkeypatch.setattr(parts, "AT_ONCE", 1)
    monkeypatch.setattr(parts, "CONTINUE_AFTER", 0)
    monkeypatch.setattr(MemoryBucket, "parts", listed)
    await world.put(BODY)
    for _ in range(10):
        await world.work()
        world.clock.now += parts.CLAIMED_WAIT
    assert next(asked, None) is None
    assert await world.in_step()
    assert await world.open_uploads() == 0
    assert (await world.queue.counts()).dead == 0


@pytest.mark.parametrize("error", [StoreAway("reset", unsure=True), Throttled("503", unsure=True)])
async def test_an_upload_whose_beginning_got_no_answer_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world = World()
    original = MemoryBucket.create_upload
    answers = iter((error,))

    async def unanswered(self: MemoryBucket, key: str, **description: Mapping[str, str]) -> Begun:
        begun = await original(self, key, **description)
        if error := next(answers, None):
            raise error
        return begun

    monkeypatch.setattr(MemoryBucket, "create_upload", unanswered)
    neighbour = await original(world.target, "k2", headers={}, metadata={})
    await world.put(BODY)
    await world.work()
    assert await world.open_uploads() == 2
    world.clock.now += 600
    await world.work()
    assert await world.in_step()
    assert [upload.id async for upload in world.target.uploads()] == [neighbour.id]


async def test_an_upload_whose_beginning_its_worker_did_not_survive_is_not_left_behind() -> None:
    world = World()
    await world.put(BODY)
    await world.target.create_upload("k", headers={}, metadata={})
    await take(other := world.queue.twin())
    await other.close()
    await world.work()
    assert await world.in_step()
    assert await world.open_uploads() == 0


async def test_a_large_object_that_get_and_head_describe_differently_is_copied_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    original = MemoryBucket.read

    @asynccontextmanager
    async def otherwise(self: MemoryBucket, key: str) -> AsyncIterator[MemoryReading | None]:
        async with original(self, key) as reading:
            assert reading is not None
            yield MemoryReading(replace(reading.state, headers={}), reading.content)

    monkeypatch.setattr(MemoryBucket, "read", otherwise)
    await world.put(BODY)
    await world.tell()
    await world.work()
    world.clock.now += 600
    await world.work()
    monkeypatch.undo()
    assert await world.in_step()
    assert world.turns <= 4
    assert (await world.queue.counts()).waiting == 0
