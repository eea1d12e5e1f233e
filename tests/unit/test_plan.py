"""What to do about a key, as tables over everything that can be seen."""

import hashlib
import itertools
from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.store.mark import Body, mark_for, mark_on, origin_of, proven_md5
from common.store.port import MARK, MAX_RESTATED, State
from common.task import Claim
from worker.plan import (
    SETTLED,
    Copy,
    Delete,
    Deletes,
    Foreign,
    Heed,
    Restate,
    Rules,
    Settle,
    Skip,
    Step,
    Why,
    doubtful,
    heed,
    in_step,
    moved,
    plan,
    sight,
)

HERE, THERE, ELSEWHERE = map(origin_of, ("here", "there", "elsewhere"))

RULES = Rules(HERE, THERE)
OWNED, KEEP = replace(RULES, deletes="owned"), replace(RULES, deletes="keep")
TAKES_OVER = replace(RULES, takes_over=frozenset({ELSEWHERE}))
WAY, BACK = Rules(HERE, THERE, two_ways=True), Rules(THERE, HERE, two_ways=True)


def md5(body: str) -> str:
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def day(number: int) -> str:
    """A Last-Modified, `number` seconds after another."""
    return formatdate(1_700_000_000 + number, usegmt=True)


TYPED = {"content-type": "a/b"}
SOURCE = State(md5("one"), 10, day(0), "v1", TYPED, {"n": "1"}, "tag=1")
NEWER = State(md5("two"), 10, day(9), "v2", TYPED, {"n": "1"}, "tag=1")
RESTATED = replace(SOURCE, last_modified=day(9), version="v2", metadata={"n": "2"})
PARTS = replace(SOURCE, etag="etag-2")
SEALED = replace(SOURCE, opaque=True)


def copy_of(source: State, origin: bytes = HERE, *, etag: str | None = None, **more: object) -> State:
    """What the target has after we wrote `source` there; `etag` where it gives one of its own."""
    mark = mark_for(source, origin, body=Body.of(proven_md5(source) if etag is None else "", source.size))
    metadata = {**source.metadata, MARK: str(mark)}
    tag = source.etag if etag is None else etag
    return replace(source, etag=tag, last_modified=day(5), version="", metadata=metadata, **more)  # type: ignore[arg-type]


def old_copy_of(source: State, **more: object) -> State:
    """What the target has after an earlier version of ours wrote `source` there."""
    metadata = {**source.metadata, MARK: source.identity}
    return replace(source, last_modified=day(5), version="", metadata=metadata, **more)  # type: ignore[arg-type]


def unmarked(source: State, **more: object) -> State:
    """What somebody else's tool made of `source`."""
    return replace(source, last_modified=day(5), version="", **more)  # type: ignore[arg-type]


def remade(copy: State, **metadata: str) -> State:
    """The same with other metadata, and our mark."""
    return replace(copy, metadata={**copy.metadata, **metadata})


STRANGER = State(md5("other"), 10, day(5))
FOREIGN = copy_of(NEWER, ELSEWHERE)

IN_STEP = Skip(Why.IN_STEP)

COMPARED: dict[str, tuple[State, State | None, Step]] = {
    "nothing there": (SOURCE, None, Copy()),
    "a stranger's object": (SOURCE, STRANGER, Copy()),
    "our copy": (SOURCE, copy_of(SOURCE), IN_STEP),
    "our copy in other parts": (SOURCE, copy_of(SOURCE, etag="other-3"), IN_STEP),
    "our copy of parts": (PARTS, copy_of(PARTS, etag="other-3"), IN_STEP),
    "our copy, encrypted there": (SOURCE, copy_of(SOURCE, etag=md5("?"), opaque=True), IN_STEP),
    "our copy, described otherwise since": (SOURCE, copy_of(SOURCE, headers={}), Restate()),
    "our copy, other metadata since": (SOURCE, remade(copy_of(SOURCE), n="2"), Restate()),
    "our copy, one more in its metadata": (SOURCE, remade(copy_of(SOURCE), m="2"), Restate()),
    "our copy, something empty besides": (SOURCE, remade(copy_of(SOURCE), m=""), IN_STEP),
    "our copy, its tags not known": (SOURCE, copy_of(SOURCE, tags=""), IN_STEP),
    "our copy, copied to another key": (SOURCE, replace(copy_of(SOURCE), key="b"), IN_STEP),
    "our copy of another size": (SOURCE, copy_of(SOURCE, size=9), Copy()),
    "our copy of another object": (SOURCE, copy_of(NEWER), Copy()),
    "our copy, its bytes replaced": (SOURCE, replace(copy_of(SOURCE), etag=md5("evil")), Copy()),
    "an old copy": (SOURCE, old_copy_of(SOURCE), IN_STEP),
    "an old copy in other parts": (SOURCE, old_copy_of(SOURCE, etag="other-3"), IN_STEP),
    "an old copy, encrypted there": (SOURCE, old_copy_of(SOURCE, etag=md5("?"), opaque=True), IN_STEP),
    "an old copy, its bytes replaced": (SOURCE, old_copy_of(SOURCE, etag=md5("evil")), Copy()),
    "an old copy of another size": (SOURCE, old_copy_of(SOURCE, size=9), Copy()),
    "an old copy of another object": (SOURCE, old_copy_of(NEWER), Copy()),
    "an old copy, described otherwise since": (RESTATED, old_copy_of(SOURCE), Restate()),
    "unmarked, the same in all": (SOURCE, unmarked(SOURCE), IN_STEP),
    "unmarked, a part's ETag": (PARTS, unmarked(PARTS), IN_STEP),
    "unmarked, another type": (SOURCE, unmarked(SOURCE, headers={"content-type": "x/y"}), Restate()),
    "unmarked, no type": (SOURCE, unmarked(SOURCE, headers={}), Restate()),
    "unmarked, one more header": (SOURCE, unmarked(SOURCE, headers={**TYPED, "expires": "0"}), Restate()),
    "unmarked, a type where there is none": (replace(SOURCE, headers={}), unmarked(SOURCE), IN_STEP),
    "unmarked, other metadata": (SOURCE, unmarked(SOURCE, metadata={}), Restate()),
    "unmarked, other tags": (SOURCE, unmarked(SOURCE, tags=""), Restate()),
    "unmarked, another ETag": (SOURCE, unmarked(SOURCE, etag="x-2"), Copy()),
    "unmarked, another size": (SOURCE, unmarked(SOURCE, size=9), Copy()),
    "a mark that is rubbish": (SOURCE, unmarked(SOURCE, metadata={"n": "1", MARK: "x"}), IN_STEP),
    "described otherwise since": (RESTATED, copy_of(SOURCE), Restate()),
    "in parts, described otherwise since": (
        replace(PARTS, last_modified=day(9), tags=""),
        copy_of(PARTS, etag="other-3"),
        Restate(),
    ),
    "encrypted, described otherwise since": (
        replace(SEALED, last_modified=day(9), tags=""),
        copy_of(SEALED, etag=md5("?"), opaque=True),
        Restate(),
    ),
    "another's copy": (SOURCE, FOREIGN, Foreign(ELSEWHERE)),
    "another's copy of the same": (SOURCE, copy_of(SOURCE, ELSEWHERE), IN_STEP),
    "its own object, brought back by hand with the mark of a copy": (SOURCE, copy_of(NEWER, THERE), Copy()),
    "another's copy of the same, described otherwise": (
        RESTATED,
        copy_of(SOURCE, ELSEWHERE),
        Foreign(ELSEWHERE),
    ),
    "another's copy, its bytes replaced": (SOURCE, replace(FOREIGN, etag=md5("evil")), Copy()),
}


@pytest.mark.parametrize(("source", "target", "step"), COMPARED.values(), ids=COMPARED)
@pytest.mark.parametrize("rules", [RULES, OWNED, KEEP], ids=lambda rules: rules.deletes)
def test_a_source_that_is_there(source: State, target: State | None, step: Step, rules: Rules) -> None:
    assert plan(source, target, rules) == step


@pytest.mark.parametrize(("size", "step"), [(MAX_RESTATED, Restate()), (MAX_RESTATED + 1, Copy())])
def test_what_is_too_large_to_be_copied_onto_itself_is_copied(size: int, step: Step) -> None:
    source = replace(SOURCE, size=size)
    assert plan(replace(source, last_modified=day(9), tags=""), copy_of(source), RULES) == step


def test_a_description_is_compared_as_it_would_be_written() -> None:
    def described(state: State) -> tuple[dict[str, str], dict[str, str]]:
        return {**TYPED, "x-amz-storage-class": "STANDARD_IA"}, {"n": "encoded"}

    rules = replace(RULES, described=described)
    assert in_step(SOURCE, unmarked(SOURCE, metadata={"n": "encoded"}), rules)
    assert not in_step(SOURCE, unmarked(SOURCE), rules)


@pytest.mark.parametrize("source", [SOURCE, NEWER, PARTS, SEALED, replace(SOURCE, size=0)])
@pytest.mark.parametrize(
    "target",
    [None, STRANGER, copy_of(SOURCE), old_copy_of(NEWER), unmarked(SOURCE, tags=""), unmarked(PARTS)],
)
@pytest.mark.parametrize("rules", [RULES, TAKES_OVER, WAY], ids=["one way", "takes over", "two ways"])
def test_a_step_once_done_leaves_nothing_to_do(source: State, target: State | None, rules: Rules) -> None:
    if plan(source, target, rules) in {Copy(), Restate()}:
        assert plan(source, copy_of(source), rules) == IN_STEP


def test_what_a_route_takes_over_is_its_own() -> None:
    assert plan(SOURCE, FOREIGN, TAKES_OVER) == Copy()
    assert plan(SOURCE, copy_of(replace(SOURCE, tags=""), ELSEWHERE), TAKES_OVER) == Restate()
    assert plan(SOURCE, copy_of(SOURCE, ELSEWHERE), TAKES_OVER) == IN_STEP
    assert plan(None, FOREIGN, TAKES_OVER) == Delete()
    assert plan(None, FOREIGN, replace(TAKES_OVER, deletes="owned")) == Delete()


VOID = replace(copy_of(SOURCE), etag=md5("evil"))
"""Bytes that somebody else put under our mark."""

REMOVED: dict[str, tuple[State | None, dict[Deletes, Step]]] = {
    "nothing": (None, dict.fromkeys(("mirror", "owned", "keep"), Skip(Why.ABSENT))),
    "our copy": (copy_of(SOURCE), {"mirror": Delete(), "owned": Delete(), "keep": Skip(Why.KEPT)}),
    "an old copy": (old_copy_of(SOURCE), {"mirror": Delete(), "owned": Delete(), "keep": Skip(Why.KEPT)}),
    "a stranger's": (
        STRANGER,
        {"mirror": Delete(), "owned": Skip(Why.NOT_OWNED), "keep": Skip(Why.KEPT)},
    ),
    "a stranger's under our mark": (
        VOID,
        {"mirror": Delete(), "owned": Skip(Why.NOT_OWNED), "keep": Skip(Why.KEPT)},
    ),
    "another's copy": (
        FOREIGN,
        {"mirror": Foreign(ELSEWHERE), "owned": Skip(Why.NOT_OWNED), "keep": Skip(Why.KEPT)},
    ),
}


@pytest.mark.parametrize(("target", "steps"), REMOVED.values(), ids=REMOVED)
@pytest.mark.parametrize("deletes", ["mirror", "owned", "keep"])
@pytest.mark.parametrize("claim", [Claim.REMOVED, Claim.CREATED, None])
def test_a_source_that_is_proven_absent_is_deleted_as_the_route_allows(
    target: State | None, steps: dict[Deletes, Step], deletes: Deletes, claim: Claim | None
) -> None:
    assert plan(None, target, replace(RULES, deletes=deletes), claim=claim) == steps[deletes]


SEEN = [
    None,
    STRANGER,
    FOREIGN,
    VOID,
    *[make(s) for make in (unmarked, copy_of, old_copy_of) for s in (SOURCE, NEWER, PARTS, SEALED)],
    copy_of(SOURCE, THERE),
]


def test_nothing_is_ever_deleted_while_the_source_has_it() -> None:
    for rules, source, target in itertools.product([RULES, OWNED, KEEP, WAY, BACK], SEEN, SEEN):
        if source is not None:
            assert not isinstance(plan(source, target, rules, claim=Claim.REMOVED), Delete | Settle)


def test_one_way_nothing_is_left_to_another_but_a_copy_that_crossed_with_one() -> None:
    """Whoever copies the other way may be another installation, and the two would swap for ever."""
    swap = (copy_of(NEWER, THERE), copy_of(SOURCE))
    for rules, source, target in itertools.product([RULES, OWNED, KEEP], [*SEEN, *swap], [*SEEN, *swap]):
        step = plan(source, target, rules)
        assert step != Skip(Why.OWN_COPY)
        assert not isinstance(step, Settle)
        if step == Skip(Why.LATER_THERE):
            assert source is not None
            assert target is not None
            assert [mark.origin for side in (source, target) if (mark := mark_on(side))] == [THERE, HERE]


# Two ways -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", [None, "other-3"])
@pytest.mark.parametrize("opaque", [False, True])
def test_our_own_copy_is_in_step_from_both_sides_whatever_the_etags(etag: str | None, opaque: bool) -> None:
    here = SOURCE
    there = copy_of(here, HERE, etag=etag, opaque=opaque)
    assert plan(here, there, WAY) == IN_STEP
    assert plan(there, here, BACK) == IN_STEP


def test_an_old_copy_is_in_step_from_both_sides() -> None:
    here, there = PARTS, old_copy_of(PARTS, etag="other-3")
    assert plan(here, there, WAY) == IN_STEP
    assert plan(there, here, BACK) == IN_STEP


def test_a_change_goes_to_the_other_side_and_only_there() -> None:
    there = copy_of(SOURCE)
    for here, step in ((NEWER, Copy()), (RESTATED, Restate())):
        assert plan(here, there, WAY) == step
        assert plan(there, here, BACK) == Skip(Why.LATER_THERE)


def test_a_copy_that_was_renamed_on_its_own_side_is_an_object_of_that_side() -> None:
    """Its user's tool took the mark along. Nobody at the source has ever seen the new key."""
    renamed = replace(copy_of(SOURCE), key="renamed")
    assert plan(renamed, None, BACK) == Copy()
    assert plan(None, renamed, WAY, claim=Claim.CREATED) == Skip(Why.LATER_THERE)
    assert plan(None, renamed, OWNED) == Skip(Why.NOT_OWNED)


def test_a_copy_whose_original_is_gone_is_not_brought_back() -> None:
    there = copy_of(SOURCE)
    assert plan(there, None, BACK) == Skip(Why.OWN_COPY)
    assert plan(None, there, WAY) == Delete()


def test_one_way_a_copy_is_brought_back_to_an_empty_bucket() -> None:
    """The mirror turned round: what was the target is the source now."""
    there = copy_of(SOURCE)
    assert plan(there, None, Rules(THERE, HERE)) == Copy()
    assert plan(there, SOURCE, Rules(THERE, HERE)) == IN_STEP
    assert plan(there, NEWER, Rules(THERE, HERE)) == Copy()


bodies = st.sampled_from("abc")
times = st.integers(0, 3)


@st.composite
def natives(draw: st.DrawFn) -> State:
    """An object that somebody wrote."""
    body, size = draw(bodies), draw(st.sampled_from([1, 1, 2]))
    return State(md5(body), size, day(draw(times)), metadata=draw(st.sampled_from([{}, {"n": "1"}])))


def copied_at(at: int, was: State, origin: bytes) -> State:
    """A copy, `at` that time, of what `was` on the other side."""
    return replace(copy_of(was, origin), last_modified=day(at))


def directions(here: State, there: State) -> list[Step]:
    return [plan(here, there, WAY), plan(there, here, BACK)]


def decided(steps: list[Step]) -> bool:
    """Whether exactly one side is told to write, and the other that it will."""
    writes = [isinstance(step, Copy | Restate) for step in steps]
    return sorted(writes) == [False, True] and steps[writes.index(False)] == Skip(Why.LATER_THERE)


@given(natives(), natives())
def test_of_two_natives_exactly_one_is_copied(here: State, there: State) -> None:
    steps = directions(here, there)
    assert decided(steps) or steps == [IN_STEP, IN_STEP]


@given(natives(), natives(), times, times)
def test_of_two_copies_that_crossed_exactly_one_is_copied(
    here: State, there: State, first: int, second: int
) -> None:
    """Here is a copy of what was there, there of what was here: the swap."""
    steps = directions(copied_at(first, there, THERE), copied_at(second, here, HERE))
    assert decided(steps) or steps == [IN_STEP, IN_STEP]


@given(natives(), natives(), times)
def test_of_a_copy_and_what_replaced_its_original_the_original_s_side_is_copied(
    was: State, now: State, at: int
) -> None:
    steps = directions(now, copied_at(at, was, HERE))
    equal = steps in ([IN_STEP, IN_STEP], [Restate(), IN_STEP])  # the same again, of another date
    assert equal or (decided(steps) and steps[1] == Skip(Why.LATER_THERE))


@given(natives(), natives(), natives(), times)
def test_a_swap_ends_with_what_was_written_later(here: State, there: State, was: State, at: int) -> None:
    swapped = copied_at(at, there, THERE), copied_at(at, here, HERE)
    steps = directions(*swapped)
    ages = [mark.written for state in swapped if (mark := mark_on(state))]
    if decided(steps) and ages[0] != ages[1]:
        assert isinstance(steps[ages.index(max(ages))], Copy | Restate)


TOLD = 1_700_001_000.0


@pytest.mark.parametrize(
    ("claim", "born", "now", "step"),
    [
        (Claim.REMOVED, 0, TOLD, Delete()),
        (Claim.REMOVED, 1000 - SETTLED, TOLD, Delete()),
        (Claim.REMOVED, 1001 - SETTLED, TOLD, Settle(1)),
        (Claim.REMOVED, 999, TOLD, Settle(SETTLED - 1)),
        (Claim.REMOVED, 999, TOLD + SETTLED, Delete()),
        (Claim.REMOVED, 1000, TOLD + 9000, Skip(Why.LATER_THERE)),
        (Claim.REMOVED, 5000, TOLD + 9000, Skip(Why.LATER_THERE)),
        (Claim.CREATED, 0, TOLD, Skip(Why.LATER_THERE)),
        (None, 0, TOLD, Skip(Why.LATER_THERE)),
    ],
)
def test_what_somebody_wrote_there_is_deleted_only_when_a_removal_was_told_after_it(
    claim: Claim | None, born: int, now: float, step: Step
) -> None:
    there = replace(STRANGER, last_modified=day(born))
    assert plan(None, there, WAY, claim=claim, told=TOLD, now=now) == step


@pytest.mark.parametrize(
    ("deletes", "target", "step"),
    [
        ("keep", STRANGER, Skip(Why.KEPT)),
        ("keep", copy_of(SOURCE), Skip(Why.KEPT)),
        ("owned", STRANGER, Skip(Why.NOT_OWNED)),
        ("owned", copy_of(SOURCE), Delete()),
        ("mirror", FOREIGN, Foreign(ELSEWHERE)),
    ],
)
def test_two_ways_delete_no_more_than_one(deletes: Deletes, target: State, step: Step) -> None:
    rules = replace(WAY, deletes=deletes)
    assert plan(None, target, rules, claim=Claim.REMOVED, told=TOLD, now=TOLD) == step


def test_a_copy_of_a_copy_is_as_old_as_the_first() -> None:
    there = copied_at(7, SOURCE, HERE)
    assert BACK.age(there) == WAY.age(SOURCE) == 1_700_000_000
    assert RULES.age(there) == 1_700_000_007, "of no bucket of ours: as old as it is here"


# What an event is worth -----------------------------------------------------------------------------------

VERSIONED = State("etag", 10, "Mon", keeps_versions=True)

AGREED = [(None, None), (SOURCE, None), (None, Claim.REMOVED), (SOURCE, Claim.CREATED)]
CONTRADICTED = [(None, Claim.CREATED), (SOURCE, Claim.REMOVED)]
UNCOVERED = (VERSIONED, Claim.REMOVED)


@pytest.mark.parametrize(
    ("seen", "strong", "eventual"),
    [
        *[(seen, Heed.ACT, Heed.ACT) for seen in AGREED],
        *[(seen, Heed.OVERTAKEN, Heed.LATER) for seen in CONTRADICTED],
        (UNCOVERED, Heed.ACT, Heed.ACT),
    ],
)
def test_an_event_that_the_source_contradicts_is_overtaken_but_for_a_version_that_came_back(
    seen: tuple[State | None, Claim | None], strong: Heed, eventual: Heed
) -> None:
    assert heed(*seen, eventual=False) is strong
    assert heed(*seen, eventual=True) is eventual


@pytest.mark.parametrize(
    ("source", "claim", "etag", "size", "doubt"),
    [
        (SOURCE, None, "other", 11, False),  # a look claims nothing
        (None, Claim.CREATED, "other", None, False),
        (None, Claim.REMOVED, None, None, False),
        (SOURCE, Claim.CREATED, None, None, False),
        (SOURCE, Claim.CREATED, SOURCE.etag, 10, False),
        (SOURCE, Claim.CREATED, "other", None, True),
        (SOURCE, Claim.CREATED, None, 11, True),
        (SOURCE, Claim.CREATED, SOURCE.etag, 11, True),
        (SOURCE, Claim.REMOVED, None, None, False),
        (VERSIONED, Claim.REMOVED, None, None, True),
        (VERSIONED, Claim.CREATED, "etag", 10, False),
    ],
)
def test_a_source_that_may_show_an_old_state_leaves_a_doubt_where_it_is_not_what_was_told(
    source: State | None, claim: Claim | None, etag: str | None, size: int | None, doubt: bool
) -> None:
    assert doubtful(source, claim, etag, size) is doubt


def test_what_was_seen_of_the_source_tells_its_states_apart() -> None:
    assert len({sight(None), sight(SOURCE), sight(NEWER), sight(RESTATED)}) == 4
    assert sight(SOURCE) == sight(replace(SOURCE))


@pytest.mark.parametrize(
    ("now", "really"),
    [
        (SOURCE, False),
        (replace(SOURCE, headers={}), False),
        (replace(SOURCE, metadata={}, tags=""), False),
        (replace(SOURCE, etag="x"), True),
        (replace(SOURCE, size=1), True),
        (replace(SOURCE, last_modified="x"), True),
        (replace(SOURCE, version="x"), True),
        (None, True),
    ],
)
def test_a_source_has_moved_when_its_bytes_or_its_date_have(now: State | None, really: bool) -> None:
    assert moved(SOURCE, now) is really
    assert moved(now, SOURCE) is really


def test_the_identity_tells_states_apart_that_differ_in_one_thing() -> None:
    bare = State("etag", 10, "Mon", "v1")
    states = [
        bare,
        State("x", 10, "Mon", "v1"),
        State("etag", 1, "Mon", "v1"),
        State("etag", 10, "x", "v1"),
        State("etag", 10, "Mon", "x"),
        State("etag", 10, "Mon", "v1", {"content-type": "a/b"}),  # rewritten within the same second
        State("etag", 10, "Mon", "v1", {}, {"x": "y"}),
        State("etag", 10, "Mon", "v1", {}, {}, "x=y"),
    ]
    assert len({state.identity for state in states}) == len(states)


def test_the_identity_ignores_our_own_mark() -> None:
    assert replace(SOURCE, metadata={"n": "1", MARK: "x"}).identity == SOURCE.identity
