"""Places shared between lanes, in virtual time."""

import heapq
import random
from collections import Counter, defaultdict
from itertools import count

import pytest

from common.queue.port import Kind, Lane
from worker.fair import BULK_SHARE, Fair, places

A, B, C = Lane("a"), Lane("b"), Lane("c")
A_BULK, B_BULK = Lane("a", Kind.BULK), Lane("b", Kind.BULK)


class World:
    """Lanes with tasks that take so many seconds each; `left` is how many there are."""

    def __init__(self, alone: int, seconds: dict[Lane, float]) -> None:
        self.fair = Fair(places(alone), lambda _: alone)
        self.seconds = seconds
        self.left: Counter[Lane] = Counter()
        self.now = 0.0
        self.held: Counter[Lane] = Counter()
        self.done: Counter[Lane] = Counter()
        self.worked: defaultdict[Lane, float] = defaultdict(float)
        """Seconds of places."""
        self._ends: list[tuple[float, int, Lane]] = []
        self._number = count()

    def begin(self) -> None:
        while lane := self.fair.next([lane for lane, left in self.left.items() if left]):
            self.fair.take(lane)
            self.left[lane] -= 1
            self.held[lane] += 1
            heapq.heappush(self._ends, (self.now + self.seconds[lane], next(self._number), lane))

    def run(self, until: float) -> None:
        self.begin()
        while self._ends and self._ends[0][0] <= until:
            end, _, lane = heapq.heappop(self._ends)
            for each, held in self.held.items():
                self.worked[each] += held * (end - self.now)
            self.now = end
            self.held[lane] -= 1
            self.done[lane] += 1
            self.fair.free(lane)
            self.begin()
        self.now = until


@pytest.mark.parametrize("alone", [1, 2, 3, 4, 7, 32, 512])
def test_a_lane_alone_has_as_many_places_as_it_may_have_alone(alone: int) -> None:
    world = World(alone, {A: 1.0})
    world.left[A] = 10 * alone
    world.begin()
    assert world.held[A] == alone
    assert alone < places(alone) <= alone * 4 / 3 + 1


def test_behind_200_000_slow_tasks_of_one_route_another_begins_at_once() -> None:
    world = World(32, {A: 600.0, B: 0.1})
    world.left[A] = 200_000
    world.run(1000.0)
    world.left[B] = 100
    world.run(1002.0)
    assert world.done[B] == 100
    assert world.held[A] == 32, "which do not give up what they have for it"


@pytest.mark.parametrize("routes", [2, 3, 5, 9])
def test_lanes_that_all_have_much_to_do_have_the_same_share(routes: int) -> None:
    lanes = [Lane(f"{number}") for number in range(routes)]
    rng = random.Random(routes)
    world = World(32, {lane: rng.uniform(0.1, 10) for lane in lanes})
    world.left = Counter(dict.fromkeys(lanes, 10**6))
    world.run(1000.0)
    shares = [world.worked[lane] for lane in lanes]
    assert max(shares) <= 2.0 * min(shares)
    assert sum(world.held.values()) < places(32), "and who comes next finds a place"


def test_live_goes_before_bulk_and_bulk_never_goes_below_its_share() -> None:
    world = World(32, {A: 1.0, B: 1.0, A_BULK: 1.0, B_BULK: 1.0})
    world.left = Counter({A: 10**6, B: 10**6, A_BULK: 10**6, B_BULK: 10**6})
    world.run(500.0)
    live, bulk = world.worked[A] + world.worked[B], world.worked[A_BULK] + world.worked[B_BULK]
    assert live > 2 * bulk
    assert bulk >= 500 * (places(32) // BULK_SHARE) * 0.95
    assert world.worked[A_BULK] == pytest.approx(world.worked[B_BULK], rel=0.1)


def test_a_live_task_begins_at_once_beside_a_bulk_lane_that_had_all_places_to_itself() -> None:
    world = World(32, {A: 0.1, A_BULK: 600.0})
    world.left[A_BULK] = 10**6
    world.run(10.0)
    assert 10 < world.held[A_BULK] <= 32
    world.left[A] = 1
    world.run(10.2)
    assert world.done[A] == 1


def test_no_place_is_given_twice_and_none_is_lost() -> None:
    rng = random.Random(7)
    lanes = [A, B, C, A_BULK, B_BULK]
    world = World(5, {lane: rng.uniform(0.1, 3) for lane in lanes})
    for _ in range(500):
        world.left[rng.choice(lanes)] += rng.randint(0, 3)
        world.run(world.now + rng.uniform(0, 2))
        assert sum(world.held.values()) <= places(5)
        assert all(0 <= held <= 5 for held in world.held.values())
    world.run(world.now + 10_000)
    assert not +world.left
    assert not +world.held
