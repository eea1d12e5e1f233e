"""Look back: the source is read again after each write, and a look is published only in doubt."""

import hashlib
import random
from dataclasses import replace
from typing import Any

import pytest

from common.errors import (
    KeyBusy,
    NotForThis,
    NotSupported,
    QueueAway,
    Refused,
    RouteDown,
    StoreAway,
    Throttled,
)
from common.queue.port import Bury, Done, Lane, Retry
from common.store.mark import mark_for, mark_on, origin_of
from common.store.port import MARK, State
from common.task import Claim, Task
from common.telemetry import Action
from tests.lab.lanes import LIVE
from tests.lab.world import D, World
from worker import mirror, writes
from worker.mirror import LAPS
from worker.plan import Rules, in_step

CREATED, REMOVED = Claim.CREATED, Claim.REMOVED

UNSURE = [TimeoutError(), StoreAway("PUT target: reset", unsure=True), Throttled("503", unsure=True)]


@pytest.fixture
def world() -> World:
    return World()


async def test_after_a_thousand_hooks_the_queue_is_empty_at_once_and_nothing_was_published(
    world: World,
) -> None:
    rng = random.Random(7)
    hooks: list[tuple[str, Claim, str | None]] = []
    for step in range(700):
        key = f"k{rng.randrange(60)}"
        if rng.random() < 0.7:
            state = await world.put(key, rng.choice([b"", b"same", b"%d" % step]))
            hooks.append((key, CREATED, state.etag))
        else:
            await world.source.bucket.delete(key)
            hooks.append((key, REMOVED, None))
    hooks += rng.sample(hooks, 300)
    rng.shuffle(hooks)
    for key, claim, etag in hooks:
        await world.tell(key, claim, etag=etag)
    assert len(await world.work()) == 1000
    assert await world.idle()
    assert world.looks() == []
    assert await world.contents(world.target) == await world.contents(world.source)


async def test_hooks_that_are_worked_between_the_changes_leave_nothing_behind_either(world: World) -> None:
    rng = random.Random(8)
    for step in range(300):
        key = f"k{rng.randrange(5)}"
        true = CREATED if rng.random() < 0.7 else REMOVED
        if true is CREATED:
            await world.put(key, b"%d" % step)
        else:
            await world.source.bucket.delete(key)
        for claim in (true, rng.choice([CREATED, REMOVED])):
            await world.tell(key, claim)
        if rng.random() < 0.5:
            await world.work()
    await world.work()
    assert await world.idle()
    assert world.looks() == []
    assert await world.contents(world.target) == await world.contents(world.source)


async def test_a_source_that_moves_while_it_is_copied_is_copied_again_in_the_same_attempt(
    world: World,
) -> None:
    await world.put("k", b"first")
    await world.tell("k", CREATED)

    async def change(verb: str, key: str) -> None:
        world.target.after = None
        await world.put("k", b"second")

    world.target.after = change
    assert await world.work() == [Done(Action.COPIED)]
    assert await world.contents(world.target) == {"k": b"second"}
    assert await world.idle()


async def test_a_source_that_is_removed_while_it_is_copied_is_deleted_in_the_same_attempt(
    world: World,
) -> None:
    await world.put("k", b"first")
    await world.tell("k", CREATED)

    async def remove(verb: str, key: str) -> None:
        world.target.after = None
        await world.source.bucket.delete("k")

    world.target.after = remove
    assert await world.work() == [Done(Action.DELETED)]
    assert await world.contents(world.target) == {}


@pytest.mark.parametrize("claim", [CREATED, REMOVED, None])
async def test_one_wrong_no_such_key_is_not_believed(world: World, claim: Claim | None) -> None:
    await world.mirror("k", b"precious")
    new = await world.put("k", b"new") if claim is CREATED else await world.on(world.source, "k")
    world.source.is_wrong(1)
    await world.tell("k", claim)
    await world.work()
    assert "delete target" not in world.touched()
    assert (await world.on(world.target, "k")).etag == new.etag
    assert await world.idle()


async def test_a_no_such_key_that_was_wrong_twice_is_mended_in_the_same_attempt(world: World) -> None:
    await world.mirror("k", b"precious")
    world.source.is_wrong(2)
    await world.tell("k", REMOVED)
    assert await world.work() == [Done(Action.COPIED)]
    assert world.touched() == ["delete target", "write target"]
    assert await world.contents(world.target) == {"k": b"precious"}
    assert await world.idle()


async def test_a_source_that_never_rests_is_tried_again_uncounted_and_without_its_claim(
    world: World,
) -> None:
    await world.put("k", b"0")
    await world.tell("k", CREATED)
    world.target.after = lambda verb, key: world.put("k", b"%d" % len(world.journal))
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert verdict.why.startswith("SourceMoved")
    assert not verdict.counts
    assert len(world.touched()) == LAPS
    again = world.again(verdict)
    assert (again.claim, again.doubt) == (None, False)
    world.target.after = None
    await world.work_until_idle()
    assert await world.contents(world.target) == await world.contents(world.source)
    assert world.looks() == []


@pytest.mark.parametrize("small", [3, 100])
async def test_a_source_that_describes_itself_otherwise_each_time_is_copied_by_its_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """Two gateways that differ in a header; a proxy that says when each answer expires."""
    monkeypatch.setattr(mirror, "SMALL", small)
    await world.put("k", b"body")
    world.source.shows = lambda verb, key, state: (
        replace(state, headers={"expires": str(len(world.journal))}) if state else None
    )
    await world.tell("k", CREATED)
    await world.work_until_idle()
    assert await world.letters() == []
    assert await world.contents(world.target) == {"k": b"body"}
    world.journal.clear()
    for claim in (CREATED, None, REMOVED):
        await world.tell("k", claim)
    await world.work_until_idle()
    assert world.touched() == []
    await world.put("k", b"another")
    await world.tell("k", CREATED)
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"another"}


def two_faced(verb: str, key: str, state: State | None) -> State | None:
    """A store whose HEAD leaves out a header."""
    return replace(state, headers={}) if state and verb == "head" else state


async def test_a_get_and_a_head_that_differ_in_one_header_write_once(world: World) -> None:
    world.source.shows = two_faced
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    assert await world.work() == [Done(Action.COPIED)]
    assert world.touched() == ["write target", "restate target"]  # found out here: described as HEAD does
    world.journal.clear()
    for claim in (CREATED, CREATED, None, REMOVED):
        await world.tell("k", claim)
    assert await world.work() == [Done(Action.SKIPPED)] * 4
    assert world.touched() == []
    await world.put("other", b"body")
    await world.tell("other", CREATED)
    await world.work()
    assert world.touched() == ["write target"]
    assert await world.idle()


@pytest.mark.parametrize(
    "other", [{"etag": "0" * 32}, {"size": 3}, {"size": 0}, None], ids=["etag", "size", "empty", "absent"]
)
@pytest.mark.parametrize("odd", ["head", "read"])
@pytest.mark.parametrize("claim", [CREATED, None])
async def test_a_get_and_a_head_that_tell_of_different_objects_are_a_failure_that_counts(
    world: World, other: dict[str, Any] | None, odd: str, claim: Claim | None
) -> None:
    """Nothing moves there, and nothing is written again and again."""

    def differs(verb: str, key: str, state: State | None) -> State | None:
        if verb != odd or state is None:
            return state
        return replace(state, **other) if other else None

    await world.put("k", b"body")
    world.source.shows = differs
    await world.tell("k", claim)
    await world.work_until_idle()
    assert len(world.touched()) <= 1
    if (other, odd) == (None, "head"):
        assert await world.idle()  # an absence that the other denies is none
    else:
        [letter] = await world.letters()
        assert "different objects" in letter.why


@pytest.mark.parametrize("claim", [CREATED, REMOVED, None])
async def test_a_delivery_that_came_back_publishes_one_look_at_its_end(
    world: World, claim: Claim | None
) -> None:
    if claim is not REMOVED:
        await world.put("k", b"body")
    await world.put_there("k", b"old")
    await world.tell("k", claim)
    await world.come_back()
    [verdict] = await world.work()
    assert isinstance(verdict, Done)
    assert world.looks() == [f"publish a look after {D}"]
    assert world.journal[-1] == world.looks()[0]
    [look] = world.queue.published
    assert (look.claim, look.doubt) == (None, False)
    world.clock.now += D - 1
    assert await world.work() == []
    world.clock.now += 1
    assert await world.work() == [Done(Action.SKIPPED)]
    assert await world.idle()


async def test_a_delivery_that_came_back_keeps_its_claim(world: World) -> None:
    """Its holder may have died before any write: a created event never deletes."""
    await world.put_there("k", b"precious")
    await world.tell("k", CREATED)
    await world.come_back()
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.touched() == []
    await world.put("k", b"body")
    world.source.fail(StoreAway("503"))
    await world.tell("k", CREATED)
    await world.come_back()
    [verdict] = await world.work()
    again = world.again(verdict)
    assert (again.claim, again.doubt) == (CREATED, True)


async def test_no_end_in_doubt_while_its_look_cannot_be_published(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.come_back()
    world.queue.away = True
    [verdict] = await world.work()
    assert isinstance(verdict, Retry)
    assert (verdict.why.split(":")[0], verdict.counts) == (QueueAway.__name__, False)
    assert world.again(verdict).doubt
    world.queue.away = False
    await world.work_until_idle()
    assert await world.idle()


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("error", UNSURE, ids=repr)
@pytest.mark.parametrize("claim", [CREATED, REMOVED])
async def test_a_write_whose_end_is_not_known_is_tried_again_in_doubt_and_without_its_claim(
    world: World, claim: Claim, error: Exception, lands: bool
) -> None:
    await world.put_there("k", b"old")
    if claim is CREATED:
        await world.put("k", b"new")
    await world.tell("k", claim)
    if lands:
        world.target.fail_after(error)
    else:
        world.target.fail(error, "write", "delete")
    [verdict] = await world.work()
    again = world.again(verdict)
    assert (again.claim, again.doubt) == (None, True)
    assert world.looks() == []
    world.target.before = world.target.after = None
    world.clock.now += 600
    await world.work()
    assert world.looks() == [f"publish a look after {D}"]
    await world.work_until_idle()
    assert len(world.looks()) == 1
    assert await world.contents(world.target) == await world.contents(world.source)


async def test_a_write_that_comes_late_is_mended_by_the_look(world: World) -> None:
    await world.put("k", b"new")
    await world.tell("k", CREATED)
    world.target.fail(TimeoutError(), "write")
    await world.work()
    world.target.before = None
    world.clock.now += 600
    await world.work()
    await world.put_there("k", b"from the write that timed out")
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"new"}


async def test_an_object_that_is_gone_after_a_write_of_unknown_end_is_deleted(world: World) -> None:
    """Its removal may have been done before the write landed."""
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.target.fail_after(TimeoutError())
    await world.work()
    world.target.before = world.target.after = None
    await world.source.bucket.delete("k")
    await world.work_until_idle()
    assert await world.contents(world.target) == {}


@pytest.mark.parametrize("error", [StoreAway("HEAD source: 503"), Throttled("SlowDown"), RouteDown("403")])
async def test_a_look_back_that_fails_is_no_doubt_but_the_claim_has_had_its_day(
    world: World, error: Exception
) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.target.after = lambda verb, key: world.source.fail(error)
    [verdict] = await world.work()
    again = world.again(verdict)
    assert (again.claim, again.doubt) == (None, False)
    world.source.before = world.target.after = None
    await world.work_until_idle()
    assert world.touched() == ["write target"]
    assert world.looks() == []


@pytest.mark.parametrize("error", [StoreAway("PUT target: 500"), Throttled("SlowDown"), RouteDown("403")])
async def test_a_write_that_was_refused_is_no_doubt_and_keeps_the_claim(
    world: World, error: Exception
) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.target.fail(error, "write")
    [verdict] = await world.work()
    again = world.again(verdict)
    assert (again.claim, again.doubt) == (CREATED, False)


async def test_a_write_that_is_refused_for_good_is_dead_at_once(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.target.fail(Refused("EntityTooLarge"), "write")
    assert await world.work() == [Bury("Refused: EntityTooLarge")]
    assert world.looks() == []


async def test_a_read_that_failed_is_no_doubt(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    world.source.fail(StoreAway("503", unsure=True))
    [verdict] = await world.work()
    assert not world.again(verdict).doubt
    world.source.before = None
    await world.work_until_idle()
    assert world.looks() == []


async def test_a_retry_for_a_busy_key_and_a_move_keep_the_doubt(world: World) -> None:
    await world.put("k", b"body")
    world.attempt._busy["r", "k"] = 0.0
    await world.tell("k", CREATED, route="r")
    await world.come_back()
    [verdict] = await world.work()
    assert isinstance(world.seen[-1].result, KeyBusy)
    again = world.again(verdict)
    assert (again.claim, again.doubt) == (CREATED, True)
    await world.tell("k", CREATED, route="to come", lane=LIVE)
    await world.come_back()
    await world.attempt(await world.take())
    assert (await anext(world.queue.deliveries(Lane("to come"), 1))).returned == 1


async def test_doubt_goes_with_a_copy_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "SMALL", 3)
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.come_back()
    verdicts = await world.work()
    assert [world.again(verdict).doubt for verdict in verdicts[:-1]] == [True]
    assert verdicts[-1] == Done(Action.COPIED)
    assert world.looks() == [f"publish a look after {D}"]


async def test_a_created_event_of_an_object_that_is_gone_is_overtaken_at_once(world: World) -> None:
    await world.put_there("k", b"precious")
    await world.tell("k", CREATED)
    assert await world.work() == [Done(Action.SKIPPED)]
    assert await world.idle()
    assert world.journal == ["read source", "head source"]


async def test_a_target_that_garbles_what_it_is_given_ends_a_hook_with_one_write(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)

    async def garble(verb: str, key: str) -> None:
        await world.put_there(key, b"garbled")

    world.target.after = garble
    await world.work()
    assert world.touched() == ["write target"]
    assert await world.idle()


async def test_bytes_replaced_under_our_mark_are_noticed_by_the_next_look(world: World) -> None:
    await world.mirror("k", b"body")
    copy = await world.on(world.target, "k")
    await world.target.bucket.write("k", b"evil", headers=copy.headers, metadata=copy.metadata)
    await world.tell("k", None)
    assert await world.work() == [Done(Action.COPIED)]
    assert await world.contents(world.target) == {"k": b"body"}


async def test_a_copy_with_an_older_mark_stays_and_gets_the_new_one_when_it_is_written_next(
    world: World,
) -> None:
    source = await world.put("k", b"body")
    await world.put_there("k", b"body", **{MARK: source.identity})
    await world.tell("k", CREATED)
    assert await world.work() == [Done(Action.SKIPPED)]
    assert world.touched() == []
    changed = await world.put("k", b"body", owner="me")
    await world.tell("k", CREATED)
    await world.work()
    copy = await world.on(world.target, "k")
    rules = Rules(origin_of(world.source.place), origin_of(world.target.place))
    assert len(copy.metadata[MARK]) == 40
    assert in_step(changed, copy, rules)


def copied_from(place: str, key: str = "k") -> dict[str, str]:
    """The metadata of a copy from another bucket."""
    return {MARK: str(mark_for(State("etag", 6), origin_of(place), key=key))}


FOREIGN, UNKNOWN = copied_from("elsewhere/photos"), copied_from("who knows")


@pytest.mark.parametrize("claim", [CREATED, REMOVED, None])
@pytest.mark.parametrize(("mark", "owner"), [(FOREIGN, "old:photos"), (UNKNOWN, "that no route here names")])
async def test_a_copy_of_another_source_is_a_dead_letter_that_names_the_owner(
    world: World, claim: Claim | None, mark: dict[str, str], owner: str
) -> None:
    if claim is not REMOVED:
        await world.put("k", b"ours")
    await world.put_there("k", b"theirs", **mark)
    await world.tell("k", claim)
    [verdict] = await world.work()
    assert isinstance(verdict, Bury)
    assert verdict.why.startswith("Foreign: target/k is a copy from ")
    assert owner in verdict.why
    assert world.touched() == []


async def test_what_a_route_takes_over_is_its_own() -> None:
    world = World(takes_over=("elsewhere/photos",))
    await world.put("k", b"ours")
    for key in ("k", "gone"):
        await world.put_there(key, b"theirs", **copied_from("elsewhere/photos", key))
    for key in ("k", "gone"):
        await world.tell(key, None)
    await world.work()
    assert await world.contents(world.target) == {"k": b"ours"}
    mark = mark_on(await world.on(world.target, "k"))
    assert mark is not None
    assert mark.origin == origin_of(world.source.place)


async def test_a_target_that_takes_no_copy_onto_itself_is_given_the_bytes_and_not_asked_again(
    world: World,
) -> None:
    world.target.fail(NotSupported("501"), "restate")
    for key in ("a", "b"):
        await world.put(key, b"body", owner="me")
        await world.put_there(key, b"body")
        await world.tell(key, None)
    assert await world.work() == [Done(Action.COPIED)] * 2
    assert world.touched() == ["restate target", "write target", "write target"]
    assert (await world.on(world.target, "a")).metadata["owner"] == "me"
    assert await world.idle()


async def test_one_object_that_is_not_copied_onto_itself_says_nothing_of_the_others(world: World) -> None:
    for key in ("a", "b"):
        await world.put(key, b"body", owner="me")
        await world.put_there(key, b"body")

    async def only_a(verb: str, key: str) -> None:
        if (verb, key) == ("restate", "a"):
            raise NotForThis("400")

    world.target.before = only_a
    for key in ("a", "b"):
        await world.tell(key, None)
    assert await world.work() == [Done(Action.COPIED)] * 2
    assert world.touched() == ["restate target", "write target", "restate target"]


async def test_tags_that_a_copy_of_ours_lacks_are_put_there_at_a_look(world: World) -> None:
    await world.put("k", b"body")
    await world.source.bucket.tag("k", "a=1")
    await world.tell("k", CREATED)
    await world.work()
    await world.target.bucket.tag("k", "")
    world.journal.clear()
    await world.tell("k", None)
    assert await world.work() == [Done(Action.COPIED)]
    assert (await world.on(world.target, "k")).tags == "a=1"
    assert await world.idle()


async def test_what_somebody_changed_on_a_copy_of_ours_is_put_right_at_a_look(world: World) -> None:
    source = await world.put("k", b"body", owner="me")
    await world.tell("k", CREATED, etag=source.etag)
    await world.work()
    copy = await world.on(world.target, "k")
    changed = {**copy.metadata, "owner": "you"}
    await world.target.bucket.restate("k", etag=copy.etag, headers=copy.headers, metadata=changed)
    world.journal.clear()
    await world.tell("k", None)
    assert await world.work() == [Done(Action.COPIED)]
    assert world.touched() == ["restate target"]
    assert (await world.on(world.target, "k")).metadata["owner"] == "me"


async def test_a_source_that_is_described_otherwise_now_and_then_has_no_copy_described_for_ever(
    world: World,
) -> None:
    """A proxy before it says when each answer expires, in whole seconds."""
    second = 0
    world.source.shows = lambda verb, key, state: (
        replace(state, headers={"expires": f"{second}"}) if state else None
    )
    await world.put("k", b"body")
    for _ in range(10):
        second += 1
        await world.tell("k", None)
        await world.work()
    assert world.touched() == ["write target", *["restate target"] * mirror.LAPS]


async def test_a_target_that_alters_what_it_is_given_is_not_given_it_at_each_event(world: World) -> None:
    def altered(verb: str, key: str, state: State | None) -> State | None:
        return replace(state, headers={**state.headers, "cache-control": "private"}) if state else None

    world.target.shows = altered
    for key in ("a", "b"):
        await world.put(key, b"body")
        await world.tell(key, CREATED)
    await world.work()
    world.journal.clear()
    for _ in range(3):
        for key in ("a", "b"):
            await world.tell(key, None)
            await world.work()
    assert world.touched() == ["restate target"]  # how it is found out


@pytest.mark.parametrize("joins", [False, True])
async def test_bytes_replaced_under_the_mark_of_a_large_object_described_anew_are_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch, joins: bool
) -> None:
    """Amazon makes one part of several when it copies an object onto itself: then their number shows it."""
    for module in (mirror, writes):
        monkeypatch.setattr(module, "SMALL", 3)
    if joins:
        restate = world.target.bucket.restate

        async def joining(key: str, **more: Any) -> None:
            await restate(key, **more)
            objects = world.target.bucket._objects
            md5 = hashlib.md5(objects[key].content, usedforsecurity=False).hexdigest()
            objects[key] = replace(objects[key], state=replace(objects[key].state, etag=md5))

        monkeypatch.setattr(world.target.bucket, "restate", joining)
    await world.put("k", b"large")
    await world.tell("k", CREATED)
    await world.work_until_idle()
    await world.source.bucket.restate(
        "k", etag=(await world.on(world.source, "k")).etag, headers={}, metadata={"n": "1"}
    )
    await world.tell("k", None)
    await world.work_until_idle()
    copy = await world.on(world.target, "k")
    assert copy.metadata["n"] == "1"
    assert mark_on(copy) is not None
    await world.target.bucket.write("k", b"longer and other", headers={}, metadata=copy.metadata)
    await world.tell("k", None)
    await world.work_until_idle()
    assert await world.contents(world.target) == {"k": b"large"}


async def test_a_key_that_the_target_takes_for_another_touches_nothing(world: World) -> None:
    """SeaweedFS keeps objects as files."""
    await world.mirror("docs/k", b"body")
    head = world.target.bucket.head

    async def aliased(key: str, **more: Any) -> State | None:
        return await head(key.replace("//", "/").lstrip("/"), **more)

    world.target.bucket.head = aliased  # type: ignore[method-assign]
    for key in ("docs//k", "/docs/k"):
        for claim in (REMOVED, None, CREATED):
            await world.tell(key, claim)
    verdicts = await world.work()
    assert {type(verdict) for verdict in verdicts} <= {Bury, Done}
    assert sum(isinstance(verdict, Bury) for verdict in verdicts) == 4, "created and absent is overtaken"
    await world.put("/docs/k", b"another")
    await world.tell("/docs/k", CREATED)
    [verdict] = await world.work()
    assert isinstance(verdict, Bury)
    assert 'the target takes the key "/docs/k" for "docs/k"' in verdict.why
    assert world.touched() == []


async def test_a_copy_onto_itself_that_finds_another_object_starts_over(world: World) -> None:
    await world.put("k", b"body", owner="me")
    await world.put_there("k", b"body")

    async def replace_it(verb: str, key: str) -> None:
        if verb == "restate":
            world.target.before = None
            await world.put_there("k", b"another")

    world.target.before = replace_it
    await world.tell("k", None)
    assert await world.work() == [Done(Action.COPIED)]
    assert world.touched() == ["restate target", "write target"]
    assert await world.contents(world.target) == {"k": b"body"}


async def test_a_target_whose_etags_are_no_md5s_is_found_in_step(world: World) -> None:
    def sealed(verb: str, key: str, state: State | None) -> State | None:
        return replace(state, etag=state.etag[::-1]) if state else None

    world.target.shows = sealed
    write = world.target.bucket.write

    async def answers(*args: object, **more: object) -> str:
        return (await write(*args, **more))[::-1]  # type: ignore[arg-type]

    world.target.bucket.write = answers  # type: ignore[method-assign]
    for key in ("a", "b"):
        await world.put(key, b"body")
        for _ in range(4):
            await world.tell(key, CREATED)
    await world.work()
    assert world.touched().count("write target") == 3  # the first is how it is found out
    for key in ("a", "b"):
        assert mark_on(sealed("", key, await world.on(world.target, key)) or State("", 0)) is not None


async def test_a_one_way_route_writes_on_no_condition(world: World) -> None:
    await world.put_there("k", b"old")
    await world.put("k", b"new")
    await world.tell("k", None)
    await world.work()
    await world.source.bucket.delete("k")
    await world.tell("k", REMOVED)
    await world.work()
    assert world.target.overs == [None, None]


async def test_a_task_that_was_queued_before_is_understood(world: World) -> None:
    await world.put("k", b"body")
    old = Task(route="r", key="k", claim=CREATED, seen="something", tries=3)
    await world.queue.twin().publish(old.encode(), lane=LIVE)
    assert await world.work() == [Done(Action.COPIED)]


async def test_tags_that_a_target_takes_with_no_copy_onto_itself_are_put_by_themselves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ceph takes none."""
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.work()
    restate = world.target.bucket.restate

    async def without_tags(key: str, **more: Any) -> None:
        await restate(key, **more)
        await world.target.bucket.tag(key, "")

    monkeypatch.setattr(world.target.bucket, "restate", without_tags)
    await world.source.bucket.tag("k", "a=1")
    world.journal.clear()
    await world.tell("k", None)
    await world.work()
    touched = [entry for entry in world.journal if entry in {"restate target", "tag target"}]
    assert touched == ["restate target", "tag target"]
    assert (await world.on(world.target, "k")).tags == "a=1"


async def test_tags_that_came_with_the_copy_are_not_put_again(world: World) -> None:
    await world.put("k", b"body")
    await world.tell("k", CREATED)
    await world.work()
    await world.source.bucket.tag("k", "a=1")
    world.journal.clear()
    await world.tell("k", None)
    await world.work()
    assert "restate target" in world.journal
    assert "tag target" not in world.journal
    assert (await world.on(world.target, "k")).tags == "a=1"


async def test_a_worker_that_died_before_the_tags_leaves_them_to_the_next(world: World) -> None:
    await world.put("k", b"body")
    await world.source.bucket.tag("k", "a=1")
    await world.tell("k", CREATED)
    await world.work()
    await world.target.bucket.tag("k", "")  # as they are, had it died there
    await world.tell("k", CREATED)
    await world.take(other := world.queue.twin())
    await other.close()
    await world.work()
    assert (await world.on(world.target, "k")).tags == "a=1"
