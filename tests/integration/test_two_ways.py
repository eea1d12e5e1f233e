"""Two routes that keep two buckets equal both ways: every change of a bucket, the mirror's own too, is told
by a hook of that side."""

import random
from email.utils import formatdate

import pytest

from common.errors import NotSupported
from common.queue.port import Done, Retry
from common.store.mark import PUT_WITHIN, Body, mark_for, origin_of
from common.store.memory import MemoryReading
from common.store.port import MARK
from common.task import Claim, Task
from common.telemetry import Action
from tests.lab.lanes import LIVE
from tests.lab.world import Spy, World
from worker.plan import SETTLED

CREATED, REMOVED = Claim.CREATED, Claim.REMOVED


class Both(World):
    """A world that tells of each change on either side."""

    def __init__(self) -> None:
        super().__init__(two_ways=True)
        for side, route in ((self.source, "r"), (self.target, "back")):
            side.after = lambda verb, key, route=route: self.tell(
                key, REMOVED if verb == "delete" else CREATED, route=route
            )

    async def write(self, side: Spy, key: str, body: bytes) -> None:
        """Have somebody write on one side."""
        await side.write(key, body, headers={}, metadata={})

    async def equal(self) -> bool:
        """Whether all is done, and both sides hold the same."""
        await self.work()
        same = await self.contents(self.source) == await self.contents(self.target)
        return same and await self.idle()

    def age(self, side: Spy, key: str, seconds: float) -> None:
        """Have the object be as old as that."""
        objects = side.bucket._objects
        state, content = objects[key].state, objects[key].content
        at = formatdate(self.clock.now - seconds, usegmt=True)
        object.__setattr__(state, "last_modified", at)
        objects[key] = MemoryReading(state, content)


@pytest.fixture
def both() -> Both:
    return Both()


async def test_what_is_written_on_either_side_comes_to_the_other_and_not_back(both: Both) -> None:
    await both.write(both.source, "here", b"1")
    await both.write(both.target, "there", b"2")
    assert await both.equal()
    assert await both.contents(both.source) == {"here": b"1", "there": b"2"}
    assert sorted(both.touched()) == ["write target"] * 2  # one by its user
    assert both.looks() == []


async def test_an_object_whose_copy_has_another_etag_does_not_go_to_and_fro(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.mirror.SMALL", 3)
    await both.write(both.source, "k", b"large as it is")
    assert await both.equal()
    here, there = await both.on(both.source, "k"), await both.on(both.target, "k")
    assert here.etag != there.etag
    assert both.journal.count("complete_upload target") == 1
    assert both.journal.count("complete_upload source") == 0


async def test_a_copy_is_overwritten_where_it_is_and_the_other_side_follows(both: Both) -> None:
    await both.write(both.source, "k", b"1")
    assert await both.equal()
    await both.write(both.target, "k", b"2")
    assert await both.equal()
    await both.write(both.source, "k", b"3")
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"3"}


@pytest.mark.parametrize("name", ["source", "target"])
async def test_what_is_copied_or_renamed_within_one_side_comes_to_the_other(both: Both, name: str) -> None:
    """Their own tool takes the metadata along, and our mark with it."""
    side = both.source if name == "source" else both.target
    await both.write(both.source, "k", b"body")
    assert await both.equal()
    there = await both.on(side, "k")
    await side.write("copied/k", b"body", headers={}, metadata=there.metadata)
    await side.write("renamed/k", b"body", headers={}, metadata=there.metadata)
    await side.delete("k")
    both.clock.now += 2 * SETTLED
    assert await both.equal()
    assert await both.contents(both.source) == {"copied/k": b"body", "renamed/k": b"body"}


async def test_what_is_renamed_and_back_on_the_copys_side_comes_to_the_other(both: Both) -> None:
    """The bytes and the key are those of the copy again, and so is the mark. Its date is not."""
    await both.write(both.source, "k", b"body")
    assert await both.equal()
    copy = await both.on(both.target, "k")
    await both.target.bucket.delete("k")
    await both.tell("k", REMOVED, route="back")
    assert await both.equal()
    assert await both.contents(both.source) == {}
    for _ in range(2 * PUT_WITHIN):  # a second passes with each
        await both.target.bucket.write("other", b"", headers={}, metadata={})
    await both.target.bucket.delete("other")
    await both.write(both.target, "k", b"")
    await both.target.write("k", b"body", headers={}, metadata=copy.metadata)
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"body"}


async def test_what_a_wrong_no_such_key_deleted_comes_back_though_it_is_a_copy(both: Both) -> None:
    await both.write(both.target, "k", b"body")
    assert await both.equal()
    both.source.is_wrong(2)
    await both.tell("k", REMOVED)
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"body"}
    assert await both.contents(both.target) == {"k": b"body"}


@pytest.mark.parametrize("born", ["source", "target"])
async def test_one_wrong_no_such_key_removes_nothing_on_either_side(both: Both, born: str) -> None:
    await both.write(both.source if born == "source" else both.target, "k", b"body")
    assert await both.equal()
    both.source.is_wrong(1)
    both.journal.clear()
    await both.tell("k", REMOVED)
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"body"}
    assert not any(entry.startswith("delete") for entry in both.journal)


@pytest.mark.parametrize("born", ["source", "target"])
async def test_the_echo_of_a_removal_by_the_mirror_removes_nothing(both: Both, born: str) -> None:
    """The bucket tells of it before what was wrongly removed is copied back."""
    await both.write(both.source if born == "source" else both.target, "k", b"body")
    assert await both.equal()
    both.source.is_wrong(2)
    task = Task(route="back", key="k", claim=REMOVED, received=both.clock.now)

    async def at_once(verb: str, key: str) -> None:
        if verb == "delete":
            both.target.after = None
            await both.queue.twin().publish(task.encode(), lane=LIVE)
            await both.attempt(await both.take())

    both.target.after = at_once
    await both.tell("k", REMOVED)
    await both.work()
    both.target.after = None
    assert await both.contents(both.source) == {"k": b"body"}
    assert await both.contents(both.target) == {"k": b"body"}


async def test_nothing_is_removed_while_it_is_on_its_way_to_the_other_side(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal told of a bucket that a new large object has not reached yet."""
    for module in ("mirror", "writes"):
        monkeypatch.setattr(f"worker.{module}.SMALL", 3)
    await both.put("k", b"large as it is")
    both.age(both.source, "k", 2 * SETTLED)
    state = await both.on(both.source, "k")
    await both.queue.first(f"r/k/{state.identity.rpartition(';')[0]}", "its worker", at=1.0, within=1.0)
    await both.tell("k", REMOVED, route="back")
    [verdict] = await both.work()
    assert isinstance(verdict, Retry)
    assert "KeyBusy" in verdict.why
    assert await both.contents(both.source) == {"k": b"large as it is"}


@pytest.mark.parametrize("first", ["source", "target"])
async def test_of_two_writes_at_once_the_later_is_kept(both: Both, first: str) -> None:
    sides = [both.source, both.target] if first == "source" else [both.target, both.source]
    for number, side in enumerate(sides):
        await both.write(side, "k", b"%d" % number)
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"1"}


async def test_two_copies_that_cross_end_equal(both: Both) -> None:
    """Each side holds the other's: neither is a copy of what the other has now."""
    await both.write(both.source, "k", b"older")
    await both.write(both.target, "k", b"later")
    here, there = both.source.bucket._objects["k"], both.target.bucket._objects["k"]
    for side, crossed in ((both.target, here), (both.source, there)):
        origin = origin_of((both.source if side is both.target else both.target).place)
        mark = mark_for(crossed.state, origin, key="k", body=Body.of(crossed.state.etag, 5))
        await side.bucket.write("k", crossed.content, headers={}, metadata={MARK: str(mark)})
    assert await both.contents(both.source) == {"k": b"later"}
    assert await both.contents(both.target) == {"k": b"older"}
    for route in ("r", "back"):
        await both.tell("k", CREATED, route=route)
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"later"}


@pytest.mark.parametrize("where", ["source", "target"])
async def test_what_is_removed_on_either_side_does_not_come_back(both: Both, where: str) -> None:
    await both.write(both.source, "k", b"1")
    assert await both.equal()
    await (both.source if where == "source" else both.target).delete("k")
    assert await both.equal()
    assert await both.contents(both.source) == {}


@pytest.mark.parametrize("claim", [CREATED, REMOVED, None])
async def test_a_hook_of_a_side_that_has_nothing_deletes_no_new_object_of_the_other(
    both: Both, claim: Claim | None
) -> None:
    """Its own hook may not have come yet."""
    await both.target.bucket.write("k", b"new", headers={}, metadata={})
    both.age(both.target, "k", -5)  # written after the event was told
    await both.tell("k", claim)
    await both.work()
    assert await both.idle()
    assert await both.contents(both.target) == {"k": b"new"}


async def test_a_removal_of_what_is_young_on_the_other_side_waits_until_it_is_known(both: Both) -> None:
    await both.target.bucket.write("k", b"young", headers={}, metadata={})
    both.age(both.target, "k", 10)
    await both.tell("k", REMOVED)
    [verdict] = await both.work()
    assert isinstance(verdict, Retry)
    assert (verdict.after, verdict.counts) == (SETTLED - 10, False)
    assert both.again(verdict).claim is REMOVED
    both.clock.now += verdict.after
    assert await both.work() == [Done(Action.DELETED), Done(Action.SKIPPED)]
    assert await both.equal()


async def test_a_removal_of_what_has_come_meanwhile_is_the_copys_and_not_the_objects(both: Both) -> None:
    """The event is of an older object: the new one comes here by its own hook before the time is up."""
    await both.tell("k", REMOVED)
    await both.write(both.target, "k", b"young")
    both.age(both.target, "k", 10)
    await both.work()
    both.clock.now += SETTLED
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"young"}


async def test_writes_are_on_the_condition_that_nothing_else_is_there(both: Both) -> None:
    await both.write(both.source, "k", b"1")
    await both.work()
    assert both.target.overs == [""]
    there = await both.on(both.target, "k")
    await both.write(both.source, "k", b"2")
    await both.work()
    assert both.target.overs[1:] == [there.etag]
    there = await both.on(both.target, "k")
    await both.source.delete("k")
    await both.work()
    assert both.target.overs[2:] == [there.etag]


@pytest.mark.parametrize("verb", ["write", "complete_upload"])
async def test_a_write_that_finds_another_object_starts_over(
    both: Both, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.mirror.SMALL", 3 if verb == "complete_upload" else 100)
    await both.write(both.source, "k", b"first")

    async def come_before(asked: str, key: str) -> None:
        if asked == verb:
            both.target.before = None
            await both.put_there("k", b"later")
            await both.tell("k", CREATED, route="back")

    both.target.before = come_before
    await both.work()
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"later"}
    assert [a for a in both.seen if isinstance(a.verdict, Retry) and a.verdict.counts] == []


async def test_a_delete_that_finds_another_object_starts_over(both: Both) -> None:
    await both.write(both.source, "k", b"first")
    assert await both.equal()
    await both.source.bucket.delete("k")
    await both.tell("k", REMOVED)

    async def come_before(asked: str, key: str) -> None:
        if asked == "delete":
            both.target.before = None
            await both.put_there("k", b"later")
            both.age(both.target, "k", -1)
            await both.tell("k", CREATED, route="back")

    both.target.before = come_before
    await both.work()
    assert await both.equal()
    assert await both.contents(both.source) == {"k": b"later"}


async def test_a_target_that_refuses_conditions_is_written_without(both: Both) -> None:
    for key in ("a", "b"):
        await both.write(both.source, key, b"1")

    def refuse(verb: str, key: str) -> None:
        if verb in {"write", "delete"} and both.target.overs[-1] is not None:
            raise NotSupported("501 A header you provided implies functionality that is not implemented")

    both.target.before = refuse
    assert await both.equal()
    assert both.target.overs == ["", None, None]
    await both.source.delete("a")
    await both.source.delete("b")
    assert await both.equal()
    assert await both.contents(both.target) == {}
    assert [over is None for over in both.target.overs[3:]] == [False, True, True]


async def test_a_target_that_refuses_every_write_says_so(both: Both) -> None:
    await both.write(both.source, "k", b"1")
    both.target.fail(NotSupported("501 MethodNotAllowed"), "write")
    await both.work_until_idle()
    [letter] = await both.letters()
    assert letter.why.startswith("NotSupported: 501 MethodNotAllowed")


async def test_a_mirror_turned_round_copies_back_what_is_missing_and_nothing_else() -> None:
    """One way at a time: what was the target is the source now, and holds our copies."""
    world = World()
    for key in ("same", "lost"):
        await world.mirror(key, b"body")
    await world.source.bucket.delete("lost")
    route = world.routes()["r"]
    turned = World()
    turned.source, turned.target = world.target, world.source
    turned.attempt = turned.attempt_on(turned.queue)
    for key in ("same", "lost"):
        await turned.tell(key, None)
    assert await turned.work() == [Done(Action.SKIPPED), Done(Action.COPIED)]
    assert await world.contents(world.source) == {"same": b"body", "lost": b"body"}
    assert route.rules.home == turned.routes()["r"].rules.origin


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_written_on_both_sides_they_end_equal_and_with_the_last(seed: int) -> None:
    both, rng, last = Both(), random.Random(seed), {}
    for step in range(60):
        side, key = rng.choice([both.source, both.target]), rng.choice("ab")
        last[key] = b"%d" % step
        await both.write(side, key, last[key])
        if rng.random() < 0.3:
            await _shuffle(both, rng)
            await both.work()
    await _shuffle(both, rng)
    assert await both.equal()
    assert await both.contents(both.source) == last


async def _shuffle(both: Both, rng: random.Random) -> None:
    """Bring the hooks that wait into another order, and double some."""
    messages = list(both.queue._messages.values())
    bodies = [message.body for message in messages] + [m.body for m in messages if rng.random() < 0.3]
    both.queue._messages.clear()
    rng.shuffle(bodies)
    for body in bodies:
        await both.queue.twin().publish(body, lane=LIVE)
