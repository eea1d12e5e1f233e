"""What to do about a key, as tables over everything that can be seen."""

import itertools

import pytest

from common.store.port import MARK, State
from common.task import Claim
from worker.plan import (
    Copy,
    Delete,
    Deletes,
    Heed,
    Skip,
    Step,
    Why,
    contradicts,
    differs,
    heed,
    plan,
    sight,
    uncovers,
)

SOURCE = State("etag", 10, "Mon", "v1")
NEWER = State("etag2", 11, "Tue", "v2")


def copy_of(source: State) -> State:
    """The target as hookmirror writes it."""
    return State(source.etag, source.size, "later", metadata={MARK: source.identity})


STRANGER = State("other", 10, "later")
"""Something on the target that hookmirror did not write."""

ADOPTED = State("etag", 10, "whenever")
"""The same bytes, copied by somebody else."""

DELETES: tuple[Deletes, ...] = ("mirror", "owned", "keep")


@pytest.mark.parametrize(
    ("target", "step"),
    [
        (None, Copy()),
        (copy_of(SOURCE), Skip(Why.IN_STEP)),
        (ADOPTED, Skip(Why.IN_STEP)),
        (copy_of(NEWER), Copy()),
        (STRANGER, Copy()),
    ],
)
@pytest.mark.parametrize("deletes", DELETES)
def test_a_source_that_is_there_is_copied_unless_the_target_carries_it(
    target: State | None, step: Step, deletes: Deletes
) -> None:
    assert plan(SOURCE, target, deletes) == step


KEPT = Skip(Why.KEPT)
FOREIGN = Skip(Why.NOT_OWNED)


@pytest.mark.parametrize(
    ("target", "deletes", "step"),
    [
        (None, "mirror", Skip(Why.ABSENT)),
        (None, "owned", Skip(Why.ABSENT)),
        (None, "keep", Skip(Why.ABSENT)),
        (copy_of(SOURCE), "mirror", Delete()),
        (copy_of(SOURCE), "owned", Delete()),
        (copy_of(SOURCE), "keep", KEPT),
        (STRANGER, "mirror", Delete()),
        (STRANGER, "owned", FOREIGN),
        (STRANGER, "keep", KEPT),
    ],
)
def test_a_source_that_is_proven_absent_is_deleted_as_the_route_allows(
    target: State | None, deletes: Deletes, step: Step
) -> None:
    assert plan(None, target, deletes) == step


def test_nothing_is_ever_deleted_while_the_source_has_it() -> None:
    targets = (None, copy_of(SOURCE), ADOPTED, STRANGER)
    for target, deletes in itertools.product(targets, DELETES):
        assert plan(SOURCE, target, deletes) != Delete()


def test_a_step_once_done_leaves_nothing_to_do_for_a_look() -> None:
    assert plan(SOURCE, copy_of(SOURCE)) == Skip(Why.IN_STEP)
    assert plan(None, None) == Skip(Why.ABSENT)


def test_deletes_are_mirrored_unless_told_otherwise() -> None:
    assert plan(None, STRANGER) == Delete()


@pytest.mark.parametrize(
    ("source", "claim", "etag", "contradiction", "difference"),
    [
        (SOURCE, None, None, False, False),
        (SOURCE, None, "other", False, False),  # a look claims nothing
        (None, None, None, False, False),
        (SOURCE, Claim.CREATED, None, False, False),
        (SOURCE, Claim.CREATED, "etag", False, False),
        (SOURCE, Claim.CREATED, "other", False, True),  # an old state, or a newer one
        (None, Claim.CREATED, None, True, False),
        (None, Claim.CREATED, "etag", True, False),
        (None, Claim.REMOVED, None, False, False),
        (None, Claim.REMOVED, "etag", False, False),
        (SOURCE, Claim.REMOVED, None, True, False),
        (SOURCE, Claim.REMOVED, "etag", True, False),
    ],
)
def test_a_source_in_another_state_than_claimed_contradicts_or_differs(
    source: State | None, claim: Claim | None, etag: str | None, contradiction: bool, difference: bool
) -> None:
    assert contradicts(source, claim) is contradiction
    assert differs(source, claim, etag) is difference


def test_a_size_that_is_not_the_source_s_is_another_state_too() -> None:
    assert differs(SOURCE, Claim.CREATED, None, 11)
    assert differs(SOURCE, Claim.CREATED, "etag", 11)
    assert not differs(SOURCE, Claim.CREATED, None, 10)
    assert not differs(SOURCE, None, None, 11)


VERSIONED = State("etag", 10, "Mon", keeps_versions=True)


@pytest.mark.parametrize(
    ("source", "claim", "uncovered"),
    [
        (VERSIONED, Claim.REMOVED, True),
        (VERSIONED, Claim.CREATED, False),
        (VERSIONED, None, False),
        (State("etag", 10, "Mon"), Claim.REMOVED, False),
        (None, Claim.REMOVED, False),
    ],
)
def test_where_versions_are_kept_a_removal_may_have_brought_an_older_state_back(
    source: State | None, claim: Claim | None, uncovered: bool
) -> None:
    assert uncovers(source, claim) is uncovered


AGREED = [(None, None), (SOURCE, None), (None, Claim.REMOVED), (SOURCE, Claim.CREATED)]
OVERTAKEN = [(None, Claim.CREATED), (SOURCE, Claim.REMOVED)]
UNCOVERED = (VERSIONED, Claim.REMOVED)


@pytest.mark.parametrize(
    ("seen", "strong", "eventual"),
    [
        *[(seen, Heed.ACT, Heed.ACT) for seen in AGREED],
        *[(seen, Heed.OVERTAKEN, Heed.LATER) for seen in OVERTAKEN],
        (UNCOVERED, Heed.ACT, Heed.LATER),
    ],
)
def test_an_event_that_the_source_contradicts_is_overtaken_but_for_a_version_that_came_back(
    seen: tuple[State | None, Claim | None], strong: Heed, eventual: Heed
) -> None:
    assert heed(*seen, eventual=False) is strong
    assert heed(*seen, eventual=True) is eventual


def test_what_was_seen_of_the_source_tells_its_states_apart() -> None:
    assert len({sight(None), sight(SOURCE), sight(NEWER)}) == 3
    assert sight(SOURCE) == sight(State("etag", 10, "Mon", "v1"))


@pytest.mark.parametrize(
    ("target", "carried"),
    [
        (copy_of(SOURCE), True),
        (ADOPTED, True),
        (State("etag", 11), False),  # unmarked: ETag and size both count
        (State("other", 10), False),
        (State("md5-2", 10, metadata={MARK: SOURCE.identity}), True),  # another part size, another ETag
        (
            State("etag", 9, metadata={MARK: SOURCE.identity}),
            False,
        ),  # the mark of a whole, the bytes of a part
        (State("etag", 10, metadata={MARK: ""}), False),
        (State("etag", 10, metadata={MARK: NEWER.identity}), False),
        (State("etag", 10, metadata={MARK: State("etag", 10, "Tue", "v1").identity}), False),
        (State("etag", 10, metadata={MARK: State("etag", 10, "Mon", "v2").identity}), False),
        (State("etag", 10, metadata={"other": "x"}), True),
    ],
)
def test_a_target_carries_the_source_by_its_mark_or_is_adopted_by_etag_and_size(
    target: State, carried: bool
) -> None:
    assert target.carries(SOURCE) is carried


def test_the_identity_tells_states_apart_that_differ_in_one_thing() -> None:
    states = [
        SOURCE,
        State("x", 10, "Mon", "v1"),
        State("etag", 1, "Mon", "v1"),
        State("etag", 10, "x", "v1"),
        State("etag", 10, "Mon", "x"),
        State("etag", 10, "Mon", "v1", {"content-type": "a/b"}),  # rewritten within the same second
        State("etag", 10, "Mon", "v1", {}, {"x": "y"}),
    ]
    assert len({state.identity for state in states}) == len(states)


def test_the_identity_ignores_our_own_mark() -> None:
    assert State("etag", 10, "Mon", "v1", {}, {MARK: "x"}).identity == SOURCE.identity
