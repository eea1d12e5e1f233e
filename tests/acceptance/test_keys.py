"""Every legal key, byte for byte, from the hook that names it to the target, over real processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.settings import PREFIX
from common.store.s3 import S3Bucket, S3Store
from demo.weed import ACCESS_KEY, SECRET_KEY, settings_for
from tests.lab.keys import AWKWARD, as_aws, as_it_is, as_minio
from tests.lab.programs import REMOVED, Site, deliver, record, site

CREATED = "s3:ObjectCreated:Put"

BODIES = {key: f"{number} {key}".encode() for number, key in enumerate(AWKWARD) if "\0" not in key}
"""A key with NUL is no reading of a hook: some stores hold one, and no other tool would write it."""

RECORDS_A_HOOK = 10

QUIET_WITHIN = 120.0
"""Seconds; moto answers each of some six thousand requests in a few milliseconds of processor time."""

WRITINGS: dict[str, tuple[Callable[[str], str], ...]] = {
    "auto": (as_it_is, as_aws, as_minio),
    "raw": (as_it_is,),
    "url": (as_aws,),
}
"""How a source writes its keys into events, for each `key_encoding` that it may be configured with."""


@dataclass(frozen=True)
class Pass:
    """A source with one `key_encoding`, and the target of its own."""

    encoding: str
    source: S3Bucket
    target: S3Bucket

    async def tell(self, hook_url: str, event: str) -> None:
        """Send the event of every key, once for each different form in which this source may write it."""
        writings = WRITINGS[self.encoding]
        written = [form for key in BODIES for form in dict.fromkeys(write(key) for write in writings)]
        records = [record(key, event, bucket=self.source.name) for key in written]
        hooks = [records[n : n + RECORDS_A_HOOK] for n in range(0, len(records), RECORDS_A_HOOK)]
        await at_once(deliver(hook_url, *hook) for hook in hooks)


async def at_once(calls: Iterable[Awaitable[object]]) -> None:
    """Make all the calls, a few at a time."""
    room = asyncio.Semaphore(8)

    async def one(call: Awaitable[object]) -> None:
        async with room:
            await call

    await asyncio.gather(*map(one, calls))


async def contents(bucket: S3Bucket) -> dict[str, bytes]:
    """Return every key that the bucket lists, with the bytes it has there."""
    found = {}
    async for entry in bucket.list():
        async with bucket.read(entry.key) as reading:
            assert reading is not None
            found[entry.key] = await reading.body()
    return found


@asynccontextmanager
async def passes(url: str) -> AsyncIterator[list[Pass]]:
    """Three sources and their targets, new and empty, on the S3 server at `url`."""
    store = await S3Store.open("all", settings_for(url))
    made = [Pass(e, store.bucket(f"from-{e}"), store.bucket(f"to-{e}")) for e in WRITINGS]
    try:
        for each in made:
            await each.source.create()
            await each.target.create()
        yield made
    finally:
        await store.close()


def configure(environ: pytest.MonkeyPatch, url: str) -> None:
    """Have the programs know the sources, each a store with its own `key_encoding`, and the routes."""
    for encoding in WRITINGS:
        store = {
            "endpoint": url,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "key_encoding": encoding,
        }
        for name, value in store.items():
            environ.setenv(f"{PREFIX}STORES__{encoding}__{name}".upper(), value)
    routes = [f'{{"source": "{e}:from-{e}", "target": "aws:to-{e}"}}' for e in WRITINGS]
    environ.setenv(f"{PREFIX}ROUTES", f"[{', '.join(routes)}]")


@pytest.fixture
async def here(moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A site whose servers keep every key: SeaweedFS takes keys for paths."""
    configure(monkeypatch, moto_url)
    async with site(tmp_path, f"sqlite:///{tmp_path}/queue.db", moto_url, moto_url) as made:
        yield made


@pytest.mark.timeout(300)
async def test_every_legal_key_comes_and_goes_as_it_is_however_its_sender_writes_it(here: Site) -> None:
    await here.run("up")
    async with passes(here.source_endpoint) as made:
        for each in made:
            source = each.source
            await at_once(source.write(key, body, headers={}, metadata={}) for key, body in BODIES.items())
            await each.tell(here.hook_url, CREATED)
        await here.quiet(QUIET_WITHIN)
        for each in made:
            assert {entry.key async for entry in each.source.list()} == {*BODIES}
            assert await contents(each.target) == BODIES
            await at_once(each.source.delete(key) for key in BODIES)
            await each.tell(here.hook_url, REMOVED)
        await here.quiet(QUIET_WITHIN)
        for each in made:
            assert await contents(each.source) == await contents(each.target) == {}
    assert (await here.counts()).dead == 0
