"""How long to wait before the next attempt."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.backoff import RUNGS, delay, rung
from common.queue.port import MAX_DELAY

RANDOMS = st.randoms(use_true_random=False)
LADDERS = st.lists(st.integers(1, MAX_DELAY), min_size=1, max_size=9, unique=True).map(sorted)


def drawn(attempt: int, rungs: Sequence[int] = RUNGS) -> set[int]:
    """Every wait that two hundred draws give."""
    rng = random.Random(attempt)
    return {delay(attempt, rng, rungs=rungs) for _ in range(200)}


def test_the_rungs_climb_to_the_longest_wait_a_queue_takes() -> None:
    assert list(RUNGS) == sorted(set(RUNGS))
    assert RUNGS[0] >= 1
    assert RUNGS[-1] == MAX_DELAY


@given(st.integers(1, 10_000), RANDOMS, LADDERS)
def test_a_wait_is_always_a_rung(attempt: int, rng: random.Random, rungs: list[int]) -> None:
    assert delay(attempt, rng, rungs=rungs) in rungs


@given(st.integers(1, 50), RANDOMS, LADDERS)
def test_waits_climb_one_rung_an_attempt_with_one_of_jitter(
    attempt: int, rng: random.Random, rungs: list[int]
) -> None:
    place = rungs.index(delay(attempt, rng, rungs=rungs))
    top = min(attempt - 1, len(rungs) - 1)
    assert top - 1 <= place <= top


def test_the_first_wait_is_the_shortest() -> None:
    assert drawn(1) == {RUNGS[0]}


@pytest.mark.parametrize("attempt", [2, 5, len(RUNGS), len(RUNGS) + 1, 100])
def test_there_is_jitter_at_every_height_and_at_the_cap_too(attempt: int) -> None:
    top = min(attempt, len(RUNGS)) - 1
    assert drawn(attempt) == {RUNGS[top - 1], RUNGS[top]}


def test_one_rung_is_ladder_enough() -> None:
    assert drawn(7, rungs=(3,)) == {3}


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_are_counted_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match="from 1"):
        delay(attempt, random.Random(0))


@given(st.floats(0, MAX_DELAY), LADDERS)
def test_a_rung_is_the_shortest_that_is_no_shorter_than_asked(seconds: float, rungs: list[int]) -> None:
    if seconds > max(rungs):
        with pytest.raises(ValueError, match="the longest is"):
            rung(seconds, rungs)
        return
    found = rung(seconds, rungs)
    assert found in rungs
    assert found >= seconds
    assert not [step for step in rungs if seconds <= step < found]


@pytest.mark.parametrize(("seconds", "step"), [(0, 1), (1, 1), (1.01, 5), (5, 5), (601, 1200), (3600, 3600)])
def test_a_wait_is_rounded_up_to_a_rung(seconds: float, step: int) -> None:
    assert rung(seconds) == step


def test_the_order_in_which_rungs_are_given_is_of_no_account() -> None:
    assert rung(3, (3600, 1, 2, 5)) == 5
