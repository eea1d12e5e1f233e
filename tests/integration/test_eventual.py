"""The mirror of a source that may show old states: no write without a look that was promised before it."""

import pytest

from common.errors import Refused, StoreAway
from common.queue.port import Done, Retry
from common.store.port import MARK, State
from common.task import Claim
from common.telemetry import Action
from tests.lab.world import D, World

CREATED, REMOVED = Claim.CREATED, Claim.REMOVED


@pytest.fixture
def world() -> World:
    return World(eventual=True)


@pytest.mark.parametrize("claim", [CREATED, REMOVED])
async def test_a_look_is_promised_before_the_target_is_touched(world: World, claim: Claim) -> None:
    await world.target.bucket.write("k", b"old", headers={}, metadata={})
    if claim is CREATED:
        await world.put("k", b"body")
    await world.tell("k", claim)
    await world.work()
    [touch] = world.touched()
    assert world.journal.index(f"publish a look after {D}") < world.journal.index(touch)
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
    (None, CREATED, "another", ["read source", "head source"], ["read source", "head source"]),
    (None, REMOVED, None, ["read source", "head source", "head target"], []),
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
    assert [entry for entry in world.journal if "publish" not in entry] == now
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
    assert world.journal.count(f"publish a look after {D}") == 1
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
    assert world.journal.count(f"publish a look after {D}") == 1


@pytest.mark.parametrize("error", [StoreAway("the PUT failed"), Refused("the PUT is refused")])
async def test_a_write_that_never_succeeds_does_not_multiply_looks(error: Exception) -> None:
    world = World(attempts=4, eventual=True)
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


async def test_a_target_that_changes_what_it_is_given_ends_as_a_dead_letter_that_says_so() -> None:
    world = World(attempts=3, eventual=True)
    await world.put("k", b"body")
    await world.tell("k", CREATED)

    async def garble(verb: str, key: str) -> None:
        await world.target.bucket.write(key, b"garbled", headers={}, metadata={})

    world.target.after = garble
    await world.work_until_idle()
    [letter] = await world.letters()
    assert letter.why.startswith("NeverInStep: written 3 times and never found in sync")
    assert len(world.touched()) == 3


async def test_a_target_that_drops_the_mark_and_keeps_the_rest_is_in_step() -> None:
    world = World(attempts=3, eventual=True)
    await world.put("k", b"body")
    await world.tell("k", CREATED)

    def drop(verb: str, key: str, state: State | None) -> State | None:
        return State(state.etag, state.size, state.last_modified, "", state.headers) if state else None

    world.target.shows = drop
    await world.work_until_idle()
    assert await world.letters() == []
    assert world.touched() == ["write target"]


async def test_a_source_that_moves_while_it_is_copied_is_left_to_the_promised_look(world: World) -> None:
    await world.put("k", b"first")
    await world.tell("k", CREATED)

    async def change(verb: str, key: str) -> None:
        world.target.after = None
        await world.put("k", b"second")

    world.target.after = change
    assert await world.work() == [Done(Action.COPIED)]
    assert await world.contents(world.target) == {"k": b"first"}
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"second"}


async def test_a_delivery_that_came_back_publishes_no_look_but_those_before_its_writes(world: World) -> None:
    await world.mirror("k", b"body")
    await world.work_until_idle()
    world.journal.clear()
    await world.tell("k", None)
    await world.come_back()
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.looks() == []
