"""Two ways over real processes and real S3: what is written on either side is on both, and rests."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from common.store.s3 import S3Bucket, S3Store
from demo.compare import compare
from demo.events import Subscription, write_configuration
from demo.mcs import Mcs
from demo.outbox import Habits
from demo.signed import SignedRequests
from demo.weed import Weed, settings_for
from tests.lab.programs import Site
from tests.lab.until import until

pytestmark = pytest.mark.timeout(300)

BACK = """
[[routes]]
source = "aws:target"
target = "mcs:source"
"""

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")

SEED = 20261126


@dataclass
class Both:
    """Two buckets as their users have them, and the services between."""

    site: Site
    sides: tuple[S3Bucket, S3Bucket]
    clouds: tuple[Mcs, Mcs]

    async def rest(self, within: float = 90.0) -> None:
        """Return when no hook is under way, nothing is in the queue, and both sides hold the same."""

        async def resting() -> bool:
            await self.site.quiet(within)
            return not any(cloud.pending for cloud in self.clouds) and not await compare(*self.sides)

        await until(resting, "both sides hold the same and nothing is under way", within)
        assert (await self.site.counts()).dead == 0

    async def everywhere(self, key: str, body: bytes | None) -> bool:
        """Whether both sides hold just this, None for nothing."""
        return [await content(side, key) for side in self.sides] == [body, body]

    def copied(self) -> int:
        """How many copies the services have made."""
        return sum(program.did("copied") for program in self.site.programs)


async def content(side: S3Bucket, key: str) -> bytes | None:
    async with side.read(key) as reading:
        return await reading.body() if reading else None


@asynccontextmanager
async def both_ways(site: Site, clouds: tuple[Weed, Weed], habits: Habits | None) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        rng = random.Random(SEED)
        front = [
            await stack.enter_async_context(Mcs(cloud.settings, habits=habits, rng=rng)) for cloud in clouds
        ]
        site.source_endpoint, site.target_endpoint = front[0].endpoint, front[1].endpoint
        site.routes = BACK
        await site.run("up")
        sides = []
        for cloud, name in zip(front, ("source", "target"), strict=True):
            settings = settings_for(cloud.endpoint)
            requests = await stack.enter_async_context(SignedRequests(settings))
            wanted = write_configuration([Subscription("1", site.hook_url, EVENTS)])
            await requests("PUT", name, query="notification=", body=wanted)
            store = await S3Store.open(name, settings)
            stack.push_async_callback(store.close)
            sides.append(store.bucket(name))
        yield Both(site, (sides[0], sides[1]), (front[0], front[1]))


@pytest.fixture
async def both(over_sqlite: Site, clouds: tuple[Weed, Weed]) -> AsyncIterator[Both]:
    async with both_ways(over_sqlite, clouds, None) as both:
        yield both


async def put(side: S3Bucket, key: str, body: bytes) -> None:
    await side.write(key, body, headers={"content-type": "text/x"}, metadata={"n": str(len(body))})


async def test_what_is_written_overwritten_and_removed_on_either_side_is_on_both(both: Both) -> None:
    here, there = both.sides
    await put(here, "k", b"written here")
    await until(lambda: both.everywhere("k", b"written here"), "it comes over")
    await put(there, "k", b"overwritten there")
    await until(lambda: both.everywhere("k", b"overwritten there"), "it comes back")
    await there.delete("k")
    await until(lambda: both.everywhere("k", None), "it is removed here too")
    await put(there, "k2", b"written there")
    await until(lambda: both.everywhere("k2", b"written there"), "it comes over")
    await here.delete("k2")
    await until(lambda: both.everywhere("k2", None), "a copy that is removed removes what it is of", 90)
    await both.rest()


async def test_a_large_object_goes_over_once_and_does_not_come_back(both: Both) -> None:
    body = random.Random(SEED).randbytes(20 * 2**20)
    await put(both.sides[0], "large", body)
    await until(lambda: both.everywhere("large", body), "it comes over")
    await both.rest()
    assert both.copied() == 1  # though the ETags of both sides are not the same


async def test_what_is_written_on_both_sides_at_once_ends_equal_and_nothing_goes_to_and_fro(
    over_sqlite: Site, clouds: tuple[Weed, Weed]
) -> None:
    late = Habits(duplicates=0.3, spread=1.0, batch=5)
    async with both_ways(over_sqlite, clouds, late) as both:
        keys = [f"k{n}" for n in range(40)]
        for key in keys:
            for side, body in zip(both.sides, (b"here", b"there"), strict=True):
                await put(side, key, body)
        await both.rest()
        found = {await content(both.sides[0], key) for key in keys}
        assert found <= {b"here", b"there"}
        before = both.copied()
        assert before <= 4 * len(keys)
        await both.rest()
        assert both.copied() == before
