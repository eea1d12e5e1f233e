"""By seeded chance all happens that may, and the target ends up equal to the source."""

import random

import pytest

from common.errors import RouteDown, StoreAway, Throttled
from common.queue.port import Kind
from common.task import Claim
from tests.lab.world import D, World

CREATED, REMOVED = Claim.CREATED, Claim.REMOVED

Event = tuple[str, Claim | None, str | None]


class Turmoil:
    """A world in which, by seeded chance, all happens that may: changes, events that come twice, out of order
    or from a forger, stores that fail before or after a write, workers that die."""

    def __init__(self, seed: int, *, eventual: bool) -> None:
        self.rng = random.Random(seed)
        self.world = World(attempts=10_000, eventual=eventual)
        self.world.source.before = self.world.target.before = self._fail_sometimes
        self.world.target.after = self._lose_the_answer
        self.untold: list[Event] = []

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share

    def _fail_sometimes(self, verb: str, key: str) -> None:
        if self._chance(0.2):
            raise self.rng.choice([StoreAway("500"), Throttled("SlowDown"), RouteDown("403"), TimeoutError()])

    def _lose_the_answer(self, verb: str, key: str) -> None:
        if self._chance(0.1):
            raise self.rng.choice([StoreAway("reset", unsure=True), TimeoutError()])

    async def change(self, step: int) -> None:
        key = self.rng.choice(["a", "b", "//c"])
        if self._chance(0.4):
            state = await self.world.put(key, b"%d" % step)
            self.untold.append((key, CREATED, state.etag))
        elif self._chance(0.4):
            await self.world.source.bucket.delete(key)
            self.untold.append((key, REMOVED, None))
        if self._chance(0.2):
            self.untold.append((key, self.rng.choice([CREATED, REMOVED, None]), None))  # forged

    async def deliver(self) -> None:
        self.rng.shuffle(self.untold)
        while self.untold and self._chance(0.6):
            event = self.untold[0] if self._chance(0.2) else self.untold.pop()  # some come twice
            await self._tell(event)

    async def deliver_all(self) -> None:
        for event in self.untold:
            await self._tell(event)

    async def _tell(self, event: Event) -> None:
        key, claim, etag = event
        await self.world.tell(key, claim, etag=etag)

    async def work(self) -> None:
        if self._chance(0.2) and (await self.world.queue.counts()).ready[Kind.LIVE]:
            await self.world.take()  # by a worker that dies with it
            await self.world.queue.close()
        if self._chance(0.5):
            await self.world.work()
            self.world.clock.now += self.rng.choice([0, 1, 30, D])

    async def calm(self) -> None:
        """Let all that is left be done, at first with stores that still fail."""
        for _ in range(30):
            await self.world.work()
            self.world.clock.now += 3600
        self.world.source.before = self.world.target.before = self.world.target.after = None
        await self.world.work_until_idle()


@pytest.mark.parametrize("eventual", [False, True], ids=["strong", "eventual"])
@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_the_target_ends_up_equal_to_the_source(seed: int, eventual: bool) -> None:
    turmoil = Turmoil(seed, eventual=eventual)
    for step in range(40):
        await turmoil.change(step)
        await turmoil.deliver()
        await turmoil.work()
    await turmoil.deliver_all()
    await turmoil.calm()
    world = turmoil.world
    assert await world.contents(world.target) == await world.contents(world.source)
    assert await world.letters() == []
