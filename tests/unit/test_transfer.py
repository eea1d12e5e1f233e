"""The bytes on their way: how many at once, whether they are whole, what is sent along."""

import asyncio
import hashlib
import random
from contextlib import suppress

import pytest

from common.errors import Corrupt
from common.store.memory import MemoryReading
from common.store.port import State
from worker.transfer import Budget, fetch


class Taker:
    """Somebody who takes `size` of a budget and holds it until released."""

    def __init__(self, budget: Budget, size: int) -> None:
        self.holds = False
        self._release = asyncio.Event()
        self.task = asyncio.create_task(self._take(budget, size))

    async def _take(self, budget: Budget, size: int) -> None:
        async with budget.take(size):
            self.holds = True
            try:
                await self._release.wait()
            finally:
                self.holds = False

    async def release(self) -> None:
        self._release.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def settled(*takers: Taker) -> list[bool]:
    """Who holds, once everybody who can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)  # one round of the loop, no time
    return [taker.holds for taker in takers]


async def test_what_fits_is_had_at_once() -> None:
    budget = Budget(10)
    takers = [Taker(budget, size) for size in (4, 6, 0)]
    assert await settled(*takers) == [True, True, True]
    for taker in takers:
        await taker.release()


async def test_what_does_not_fit_waits_until_enough_is_given_back() -> None:
    budget = Budget(10)
    one, two, big = Taker(budget, 5), Taker(budget, 5), Taker(budget, 8)
    assert await settled(one, two, big) == [True, True, False]
    await one.release()
    assert await settled(big) == [False]
    await two.release()
    assert await settled(big) == [True]
    await big.release()


async def test_a_large_one_that_waits_is_not_overtaken_by_small_ones() -> None:
    budget = Budget(10)
    first, big, small = Taker(budget, 5), Taker(budget, 10), Taker(budget, 1)
    assert await settled(first, big, small) == [True, False, False]
    await first.release()
    assert await settled(big, small) == [True, False]
    await big.release()
    assert await settled(small) == [True]
    await small.release()


async def test_more_than_all_of_it_takes_all_of_it_and_no_more() -> None:
    budget = Budget(10)
    huge, small = Taker(budget, 10**12), Taker(budget, 1)
    assert await settled(huge, small) == [True, False]
    await huge.release()
    assert await settled(small) == [True]
    await small.release()


async def test_an_error_gives_back_what_was_held() -> None:
    budget = Budget(10)
    with pytest.raises(ValueError, match="inside"):
        async with budget.take(10):
            raise ValueError("inside")
    after = Taker(budget, 10)
    assert await settled(after) == [True]
    await after.release()


async def test_a_holder_that_is_cancelled_gives_back_what_it_held() -> None:
    budget = Budget(10)
    holder, waiter = Taker(budget, 10), Taker(budget, 10)
    assert await settled(holder, waiter) == [True, False]
    await holder.cancel()
    assert await settled(waiter) == [True]
    await waiter.release()


async def test_a_waiter_that_is_cancelled_lets_those_behind_it_pass_at_once() -> None:
    budget = Budget(10)
    holder, big, small = Taker(budget, 8), Taker(budget, 10), Taker(budget, 2)
    assert await settled(holder, big, small) == [True, False, False]
    await big.cancel()
    assert await settled(holder, small) == [True, True]
    await holder.release()
    await small.release()


async def test_the_turn_is_given_back_when_cancellation_and_turn_meet() -> None:
    budget = Budget(10)
    async with budget.take(10):
        waiter = Taker(budget, 10)
        await settled(waiter)
    waiter.task.cancel()  # it has its turn and has not run since
    with suppress(asyncio.CancelledError):
        await waiter.task
    after = Taker(budget, 10)
    assert await settled(after) == [True]
    await after.release()


@pytest.mark.parametrize("seed", range(5))
async def test_a_crowd_never_holds_more_than_the_budget_and_all_get_their_turn(seed: int) -> None:
    rng, limit = random.Random(seed), 100
    budget, held, peak, served = Budget(limit), 0, 0, 0

    async def member(size: int) -> None:
        nonlocal held, peak, served
        async with budget.take(size):
            held += min(size, limit)
            peak = max(peak, held)
            try:
                for _ in range(rng.randint(0, 3)):
                    await asyncio.sleep(0)
            finally:
                held -= min(size, limit)
        served += 1

    members = [asyncio.create_task(member(rng.choice([0, 1, 10, 60, 100, 500]))) for _ in range(200)]
    for victim in rng.sample(members, 40):
        await asyncio.sleep(0)
        victim.cancel()
    ends = await asyncio.gather(*members, return_exceptions=True)
    assert 0 < peak <= limit
    assert served == ends.count(None) >= 160
    last = Taker(budget, limit)
    assert await settled(last) == [True]
    await last.release()


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


async def test_a_body_with_the_md5_that_was_promised_is_fetched() -> None:
    assert await fetch(MemoryReading(State(md5(b"body"), 4), b"body")) == b"body"


async def test_an_empty_body_is_fetched() -> None:
    assert await fetch(MemoryReading(State(md5(b""), 0), b"")) == b""


async def test_a_body_with_another_md5_is_corrupt() -> None:
    with pytest.raises(Corrupt, match=md5(b"promised")):
        await fetch(MemoryReading(State(md5(b"promised"), 4), b"body"))


@pytest.mark.parametrize("etag", [md5(b"x") + "-2", "", "0x8D4BCC2E4835CD0", md5(b"x").upper(), "x" * 32])
async def test_an_etag_that_is_no_md5_proves_nothing(etag: str) -> None:
    assert await fetch(MemoryReading(State(etag, 4), b"body")) == b"body"
