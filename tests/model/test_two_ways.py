"""Two routes that keep two buckets equal both ways have no counterexample, and each mutant has one."""

import itertools
import multiprocessing
from collections.abc import Iterator

import pytest

from tests.model.two_ways import Explorer, Script

EMPTY, SAME, ONE, OTHER = ("", ""), ("x", "x"), ("x", ""), ("x", "y")
"""What is on either side at the beginning."""

LEAST_WORLDS = 300_000


def scripts(length: int) -> Iterator[Script]:
    """Every script of so many steps: on either side something new is written, or what is there is removed."""
    yield from itertools.product(
        *[[(side, letter) for side in (0, 1) for letter in (new, "")] for new in "abc"[:length]]
    )


CROSSED: list[Script] = [((0, "a"), (1, "b")), ((1, "a"), (0, "b")), ((0, "a"), (1, ""))]
"""On both sides at once: where most can happen."""

THREE: list[Script] = [
    ((0, "a"), (1, "b"), (0, "c")),
    ((0, "a"), (1, "b"), (1, "")),
    ((0, "a"), (0, ""), (1, "b")),
    ((0, "a"), (1, ""), (1, "b")),
]

WRITTEN_FIRST = [script for script in scripts(2) if script[0][1]]
"""Where something was just removed, one right answer and one wrong one may come together."""

LOOKS: list[tuple[int, ...]] = [(0,), (1,), (0, 1)]
"""Sides of two buckets that were never the same, of which a job asks."""

SHIPPED = [
    *[
        Explorer(script, doubled=1, crashes=1, before=before)
        for script in scripts(1)
        for before in (EMPTY, SAME, ONE, OTHER)
    ],
    *[Explorer(script, before=before) for script in scripts(2) for before in (SAME, ONE, OTHER)],
    *[Explorer(script, doubled=1) for script in scripts(2)],
    *[Explorer(script, crashes=1) for script in scripts(2)],
    *[Explorer(script, doubled=1, lies=1, before=SAME) for script in scripts(1)],
    *[Explorer(script, lies=1, before=before) for script in WRITTEN_FIRST for before in (EMPTY, SAME)],
    *[Explorer(script, doubled=1, crashes=1) for script in CROSSED],
    *[Explorer(script) for script in THREE],
    *[Explorer((), before=OTHER, asked=asked, crashes=1) for asked in LOOKS],
]


def explore(explorer: Explorer) -> tuple[int, list[str]]:
    """Return the number of worlds and the way to a wrong one."""
    return explorer.explore()


@pytest.mark.timeout(600)
def test_no_interleaving_leaves_two_buckets_apart() -> None:
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.map(explore, SHIPPED, chunksize=1)
    assert [way for _, way in results if way] == []
    worlds = sum(count for count, _ in results)
    print(f"{worlds} worlds explored")  # noqa: T201 - for whoever runs it with -s
    assert worlds >= LEAST_WORLDS


MUTANTS = {
    "writes on no condition": (
        [Explorer(script, conditional=False) for script in CROSSED],
        "ends with a, not with b",
    ),
    "nothing handed over between buckets that never were the same": (
        [Explorer((), before=OTHER, asked=asked, hands_over=False) for asked in LOOKS],
        "ends with x here, y there",
    ),
    "an absence is believed at the first answer": (
        [Explorer(script, lies=1, before=SAME, asks_twice=False) for script in WRITTEN_FIRST],
        "ends with",
    ),
    "the rules for one way": ([Explorer(script, two_ways=False) for script in CROSSED], "ends with"),
}


@pytest.mark.parametrize(("mutants", "symptom"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught(mutants: list[Explorer], symptom: str) -> None:
    ways = [way for mutant in mutants if (way := explore(mutant)[1])]
    assert ways
    assert all(way[-1].startswith(symptom) for way in ways)


def test_from_two_empty_buckets_every_change_has_a_hook_and_nothing_need_be_handed_over() -> None:
    for script in scripts(2):
        assert explore(Explorer(script, doubled=1, hands_over=False))[1] == []
