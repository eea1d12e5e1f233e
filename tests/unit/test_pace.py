"""How fast a store is asked: on a clock of the test's own."""

import asyncio
import itertools
import math

import pytest

from common.errors import Throttled
from common.store import pace
from common.store.pace import Meter, Pace


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps = 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(rate: float | None, clock: Clock) -> Meter:
    return Meter(rate, clock=clock, sleep=clock.sleep)


def pace_of(clock: Clock, limit: float | None = None) -> Pace:
    return Pace(limit, name="test", clock=clock, sleep=clock.sleep)


async def turns(pace: Pace, count: int) -> list[float]:
    """Ask for so many turns one after the other; return their moments."""
    return [await pace.turn() for _ in range(count)]


async def load(pace: Pace, clock: Clock, seconds: float, per_second: float) -> None:
    """Requests that are offered for so many seconds, each answered well."""
    end = clock.now + seconds
    while clock.now < end:
        pace.went_well(await pace.turn())
        await clock.sleep(1 / per_second)


async def test_without_a_limit_nobody_waits(clock: Clock) -> None:
    await turns(pace_of(clock), 1000)
    assert clock.sleeps == 0


@pytest.mark.parametrize("rate", [0.5, 10, 1000])
async def test_no_stretch_of_time_sees_more_than_the_rate(clock: Clock, rate: float) -> None:
    taken = await turns(pace_of(clock, rate), 300)
    for first, last in itertools.combinations(range(0, 300, 7), 2):
        assert last - first <= rate * (taken[last] - taken[first] + pace.BURST) + 1


async def test_a_limit_is_used_to_the_full_though_timers_oversleep(clock: Clock) -> None:
    async def late(seconds: float) -> None:
        await clock.sleep(seconds + 0.002)

    slow = Pace(1000, clock=clock, sleep=late)
    began = clock.now
    await turns(slow, 5000)
    assert clock.now - began < 5.1


async def test_a_rest_is_not_saved_up(clock: Clock) -> None:
    limited = pace_of(clock, 100)
    await turns(limited, 1)
    clock.now += 3600
    began = clock.now
    await turns(limited, 100)
    assert clock.now - began > 0.9


async def test_whoever_comes_first_goes_first(clock: Clock) -> None:
    limited, order = pace_of(clock, 10), list[int]()

    async def ask(number: int) -> None:
        await limited.turn()
        order.append(number)

    await asyncio.gather(*(ask(number) for number in range(50)))
    assert order == list(range(50))
    assert clock.sleeps <= 50  # one timer a turn, and no polling


async def test_one_that_is_cancelled_takes_no_turn_and_stops_nobody(clock: Clock) -> None:
    limited = meter(1, clock)
    await limited.take()
    first, second = asyncio.create_task(limited.take()), asyncio.create_task(limited.take())
    second.cancel()
    await asyncio.sleep(0)
    began = clock.now
    await first
    await limited.take()
    assert clock.now - began <= 2


async def test_a_large_take_passes_and_those_behind_it_wait_for_it(clock: Clock) -> None:
    route = meter(1000, clock)
    began = clock.now
    await route.take(64_000)
    assert clock.now == began
    await route.take(10)
    assert clock.now - began == pytest.approx(64, abs=pace.BURST)


async def test_a_store_that_asks_for_a_rest_gets_it_from_everybody(clock: Clock) -> None:
    asked = pace_of(clock)
    sent = await asked.turn()
    asked.slowed(sent, 17)
    began = clock.now
    taken = await asyncio.gather(*(asked.turn() for _ in range(3)))
    assert min(taken) == pytest.approx(began + 17)


async def test_a_rest_without_end_ends(clock: Clock) -> None:
    asked = pace_of(clock)
    asked.slowed(await asked.turn(), 86_400)
    began = clock.now
    await asked.turn()
    assert clock.now - began <= pace.LONGEST_HOLD


async def test_those_already_in_line_wait_too(clock: Clock) -> None:
    limited = pace_of(clock, 1)
    sent = await limited.turn()
    waiting = asyncio.create_task(limited.turn())
    await asyncio.sleep(0)
    limited.slowed(sent, 9)
    assert await waiting >= sent + 9


async def test_a_cut_halves_what_was_seen_and_a_burst_of_refusals_is_one_cut(clock: Clock) -> None:
    asked = pace_of(clock)
    sent = [await asked.turn() for _ in range(200)]
    for moment in sent:
        asked.slowed(moment)
    assert asked.rate == 100
    asked.slowed(await asked.turn())
    assert asked.rate == 50


@pytest.mark.parametrize("retry_after", [0, 30])
async def test_one_object_that_is_refused_for_ever_slows_down_nobody(clock: Clock, retry_after: int) -> None:
    asked = pace_of(clock)
    began = clock.now
    for number in range(300):
        asked.went_well(await asked.turn())
        if number % 3 == 0:
            asked.slowed(await asked.turn(), retry_after, about="bad")
        await clock.sleep(0.005)
    assert asked.rate == math.inf
    assert clock.now - began < 1.6


@pytest.mark.parametrize("retry_after", [0, 30])
async def test_several_that_are_refused_for_ever_while_others_go_well_slow_everybody_down_once(
    clock: Clock, retry_after: int
) -> None:
    asked = pace_of(clock)
    began, waited = clock.now, []
    while clock.now - began < 1000:
        before = clock.now
        asked.went_well(await asked.turn())
        waited.append(clock.now - before)
        for number in range(6):
            asked.slowed(await asked.turn(), retry_after, about=f"bad {number}")
        await clock.sleep(5)
    assert max(waited) <= 31
    assert sum(wait > 1 for wait in waited) <= 2
    assert asked.rate == math.inf


async def test_a_store_that_refuses_all_there_is_is_left_in_peace_though_they_come_again(
    clock: Clock,
) -> None:
    asked = pace_of(clock)
    for number in range(60):
        asked.slowed(await asked.turn(), about=f"k{number % 6}")
    assert asked.rate == pace.SLOWEST


async def test_objects_that_are_refused_one_after_the_other_slow_down_everybody_at_the_second(
    clock: Clock,
) -> None:
    asked = pace_of(clock)
    sent = [await asked.turn() for _ in range(40)]
    asked.slowed(sent[0], about="a")
    assert asked.rate == math.inf
    asked.slowed(sent[1], about="b")
    assert asked.rate == 20
    began = clock.now
    await asked.turn()
    assert clock.now - began == pytest.approx(pace.HOLD)


async def test_a_few_that_are_refused_among_very_many_slow_down_nobody(clock: Clock) -> None:
    asked = pace_of(clock)
    for number in range(1000):
        sent = await asked.turn()
        if number % 50:
            asked.went_well(sent)
        else:
            asked.slowed(sent, 30, about=f"bad {number}")
        await clock.sleep(0.001)
    assert asked.rate == math.inf


async def test_two_objects_refused_at_long_intervals_are_two_single_ones(clock: Clock) -> None:
    asked = pace_of(clock)
    for number in range(20):
        asked.slowed(await asked.turn(), about=f"bad {number % 2}")
        await clock.sleep(pace.LATELY + 1)
    assert asked.rate == math.inf


async def test_a_good_answer_to_what_was_sent_before_a_cut_says_nothing(clock: Clock) -> None:
    asked = pace_of(clock)
    early = await asked.turn()
    asked.slowed(early)
    clock.now += 10
    rate = asked.rate
    asked.went_well(early)
    assert asked.rate == rate


async def test_a_pace_never_falls_to_nothing(clock: Clock) -> None:
    asked = pace_of(clock)
    for _ in range(50):
        asked.slowed(await asked.turn())
    assert asked.rate == pace.SLOWEST
    began = clock.now
    await turns(asked, 5)
    assert clock.now - began < 10


@pytest.mark.parametrize("limit", [None, 1000])
async def test_a_pace_recovers_steadily_and_in_the_end_altogether(clock: Clock, limit: float | None) -> None:
    asked = pace_of(clock, limit)
    for moment in [await asked.turn() for _ in range(200)]:
        asked.slowed(moment)
    rates = [asked.rate]
    while asked.rate != (limit or math.inf):
        await load(asked, clock, 1, 400)
        rates.append(asked.rate)
        assert len(rates) < 100
    assert rates == sorted(rates)
    assert 20 < len(rates) < 60  # seconds
    assert max(b - a for a, b in itertools.pairwise(rates[:-1])) <= 15  # a second's growth, no jump


async def test_a_long_silence_is_no_recovery(clock: Clock) -> None:
    asked = pace_of(clock)
    asked.slowed(await asked.turn())
    clock.now += 3600
    asked.went_well(await asked.turn())
    assert asked.rate < pace.LEAST_SEEN


@pytest.mark.parametrize("told", [False, True])
async def test_a_store_that_takes_so_much_and_no_more_is_asked_for_about_that(
    clock: Clock, told: bool
) -> None:
    """A stand-in that refuses what comes above 100 a second, as a bucket of tokens does."""
    asked, tokens, last, served, refused = pace_of(clock), 100.0, clock.now, 0, 0
    end = clock.now + 300
    while clock.now < end:
        sent = await asked.turn()
        tokens, last = min(100.0, tokens + (sent - last) * 100), sent
        if tokens >= 1:
            tokens, served = tokens - 1, served + 1
            asked.went_well(sent)
        else:
            refused += 1
            asked.slowed(sent, about=f"{sent}" if told else None)
        await clock.sleep(0.001)
    assert served > 0.5 * 300 * 100
    assert refused < 0.01 * served


async def test_whoever_waits_too_long_for_a_turn_is_better_off_in_the_queue() -> None:
    asked = Pace(name="mcs", patience=0.01)
    asked.slowed(await asked.turn(), 30)
    with pytest.raises(Throttled, match="mcs"):
        await asked.turn()


async def test_one_that_overtakes_waits_for_nobody_and_those_in_line_wait_for_it(clock: Clock) -> None:
    asked = pace_of(clock, 1)
    await turns(asked, 1)
    began = clock.now
    assert [asked.overtake() for _ in range(3)] == [began] * 3
    assert await asked.turn() == pytest.approx(began + 4, abs=pace.BURST)


async def test_nobody_overtakes_while_the_store_rests(clock: Clock) -> None:
    asked = pace_of(clock)
    asked.slowed(await asked.turn(), 17)
    clock.now += 5
    with pytest.raises(Throttled, match="test") as raised:
        asked.overtake()
    assert raised.value.retry_after == pytest.approx(12)
    clock.now += 12
    assert asked.overtake() == clock.now
