"""How many at once, in virtual time, against stores of several kinds."""

import heapq
import random
from collections.abc import Callable
from itertools import count

import pytest

from worker.climb import LEAST, MOST, START, Climb


class World:
    """A worker with tasks without end. `takes` tells how many seconds one takes that begins now, one of so
    many; `answers` tells whether it fails, and whether it is a plea for patience."""

    def __init__(
        self,
        takes: Callable[[int], float],
        answers: Callable[[int], tuple[bool, bool]] = lambda _: (False, False),
        most: int = MOST,
    ) -> None:
        self.now = 0.0
        self.climb = Climb(most=most, clock=lambda: self.now)
        self.takes, self.answers = takes, answers
        self.waiting = 10**9
        self._running: list[tuple[float, int, float]] = []
        self._number = count()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            while len(self._running) < self.climb.limit and self.waiting:
                self.waiting -= 1
                took = self.takes(len(self._running) + 1)
                heapq.heappush(self._running, (self.now + took, next(self._number), took))
            if not self._running:
                self.now = until
                return
            self.now, _, took = heapq.heappop(self._running)
            failed, patience = self.answers(len(self._running) + 1)
            self.climb.note(took, len(self._running) + 1, failed=failed, patience=patience)


def far(milliseconds: float, most: float = 1e9) -> Callable[[int], float]:
    """A store so far away; more than `most` tasks a second wait for each other."""
    rng = random.Random(3)

    def takes(beside: int) -> float:
        return max(4 * milliseconds / 1000, beside / most) * rng.uniform(0.8, 1.2)

    return takes


def test_a_store_far_away_is_asked_by_as_many_as_it_takes() -> None:
    world = World(far(40))
    world.run(60)
    assert world.climb.limit == MOST


def test_it_grows_to_where_the_machine_is_full_and_not_far_beyond() -> None:
    """400 a second at 160 ms each are 64 at once."""
    world = World(far(40, most=400))
    world.run(300)
    assert 56 <= world.climb.limit <= 110


def test_a_store_next_door_gets_no_more_than_at_the_start() -> None:
    world = World(far(1, most=400))
    world.run(300)
    assert world.climb.limit <= START * 1.3


def test_a_store_that_asks_for_patience_is_given_way_and_tried_again() -> None:
    world = World(far(40), lambda beside: (False, beside > 50))
    world.run(20)
    peak = world.climb.limit
    world.run(200)
    assert peak <= 63
    assert 15 <= world.climb.limit <= 63


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_while_many_fail_it_gives_way_to_the_least(share: float) -> None:
    rng = random.Random(5)
    world = World(far(40), lambda _: (rng.random() < share, False))
    world.run(120)
    assert world.climb.limit == LEAST


def test_a_few_that_fail_are_no_reason() -> None:
    rng = random.Random(5)
    world = World(far(40), lambda _: (rng.random() < 0.02, False))
    world.run(60)
    assert world.climb.limit > 200


def test_what_has_little_to_do_stays_as_it_is() -> None:
    world = World(far(40))
    for _ in range(600):
        world.waiting = 5
        world.run(0.5)
    assert world.climb.limit == START


def test_it_stays_within_its_bounds() -> None:
    world = World(far(40), most=100)
    world.run(100)
    assert world.climb.limit == 100
