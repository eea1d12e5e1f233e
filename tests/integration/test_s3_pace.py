"""One pace for all that a store is asked: objects, listings, buckets. Counted at the server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import cast

import pytest

from common.errors import HookmirrorError, Throttled
from common.store import pace
from common.store.s3 import S3Bucket, S3Store
from tests.integration.test_s3_faults import Answer, Request, Server, error, found, settings_of
from tests.lab.until import until

XML = (("Content-Type", "application/xml"),)

SLACK = 0.03
"""Seconds: a timer, and the way to the server, are not exact."""


def page(number: int = 1, of: int = 1) -> Answer:
    """A page of a listing, and what says that there are more."""
    last = number == of
    more = "" if last else f"<NextContinuationToken>after {number}</NextContinuationToken>"
    return Answer(
        200,
        f"<ListBucketResult><Name>b</Name><IsTruncated>{str(not last).lower()}</IsTruncated>{more}<Contents>"
        "<Key>k</Key><Size>1</Size><ETag>e</ETag></Contents></ListBucketResult>".encode(),
        XML,
    )


def page_of_uploads(number: int, of: int) -> Answer:
    last = number == of
    return Answer(
        200,
        f"<ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>{str(not last).lower()}</IsTruncated>"
        f"<NextKeyMarker>k{number}</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>"
        "<Upload><Key>k</Key><UploadId>u</UploadId><Initiated>2020-01-01T00:00:00Z</Initiated></Upload>"
        "</ListMultipartUploadsResult>".encode(),
        XML,
    )


@dataclass
class Timed(Server):
    """A server that notes when each request came."""

    came: list[float] = field(default_factory=list)

    async def _request(self, reader: asyncio.StreamReader) -> Request | None:  # type: ignore[override]
        request = await Server._request(reader)
        if request is not None:
            self.came.append(time.monotonic())
        return request

    def assert_no_faster_than(self, rate: float, began: float) -> None:
        """A way to the server that takes time makes the first requests late, and none early."""
        for number, came in enumerate(self.came):
            assert number <= rate * (came - began + pace.BURST) + 1


@pytest.fixture
async def server() -> AsyncIterator[Timed]:
    server = Timed([found()])
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


Opener = Callable[[float | None], Awaitable[S3Store]]


@pytest.fixture
async def opened(server: Timed) -> AsyncIterator[Opener]:
    """Opens a store with a limit of so many requests a second."""
    stores: list[S3Store] = []

    async def opened(limit: float | None) -> S3Store:
        settings = settings_of(server).model_copy(update={"max_requests_per_second": limit})
        stores.append(await S3Store.open("mcs", settings))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


async def count(listing: AsyncIterator[object]) -> int:
    return len([line async for line in listing])


@pytest.mark.parametrize("kind", ["objects", "uploads"])
async def test_each_page_of_a_listing_takes_its_turn(server: Timed, opened: Opener, kind: str) -> None:
    make = page if kind == "objects" else page_of_uploads
    server.answers = [make(n, 8) for n in range(1, 9)]
    bucket = (await opened(20)).bucket("b")
    began = time.monotonic()
    assert await count(bucket.list() if kind == "objects" else bucket.uploads()) == 8
    assert len(server.came) == 8
    server.assert_no_faster_than(20, began)


async def test_objects_listings_and_buckets_share_one_pace(server: Timed, opened: Opener) -> None:
    answer = page()
    server.answers = [Answer(200, answer.body, (*answer.headers, *found().headers))]
    bucket = (await opened(50)).bucket("b")
    began = time.monotonic()
    calls: list[Awaitable[object]] = [count(bucket.list()) for _ in range(10)]
    calls += [bucket.write("k", b"", headers={}, metadata={}) for _ in range(10)]
    calls += [bucket.create() for _ in range(10)]
    await asyncio.gather(*calls)
    assert len(server.came) == 30
    server.assert_no_faster_than(50, began)


async def test_a_check_waits_in_no_line_and_yet_counts(server: Timed, opened: Opener) -> None:
    """Who asks whether everything has stopped gives a bucket 15 seconds, and a line may be longer."""
    server.answers = [Answer(200, page().body, found().headers)]
    bucket = answered(await opened(4), "b")
    began = time.monotonic()
    line = [asyncio.create_task(bucket.head(f"k{n}")) for n in range(6)]
    await until(lambda: server.came, "the first of the line has come")
    await bucket.check()
    paths = [request.path for request in server.requests]
    assert paths.index("/b/?list-type=2&max-keys=1") <= 3, "five wait in line"
    await asyncio.gather(*line)
    assert len(server.came) == 7
    server.assert_no_faster_than(4, began)


Call = Callable[[S3Bucket], Awaitable[object]]

CALLS: Mapping[str, Call] = {
    "list": lambda bucket: count(bucket.list()),
    "uploads": lambda bucket: count(bucket.uploads()),
    "check": lambda bucket: bucket.check(),
    "create": lambda bucket: bucket.create(),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
@pytest.mark.parametrize("refusal", [error(503, "SlowDown"), error(429)], ids=["503", "429"])
async def test_a_bucket_call_that_is_refused_slows_the_whole_store(
    server: Timed, opened: Opener, monkeypatch: pytest.MonkeyPatch, call: Call, refusal: Answer
) -> None:
    monkeypatch.setattr(pace, "HOLD", 0.3)
    server.answers = [refusal, found()]
    store = await opened(None)
    with suppress(HookmirrorError):  # whatever comes of it: an answer that is no listing, or patience asked
        await call(store.bucket("b"))
    assert store._pace.rate <= pace.LEAST_SEEN
    await answered(store, "another").head("k")
    assert server.came[1] - server.came[0] > 0.3 - SLACK, "nobody asks before the rest is over"


def answered(store: S3Store, name: str) -> S3Bucket:
    """A bucket that has answered as one when it was asked before."""
    bucket = store.bucket(name)
    bucket._answers = True
    return bucket


async def refuse_two(store: S3Store) -> None:
    """Have two objects refused: one alone says nothing of the store."""
    for key in ("k", "l"):
        with pytest.raises(Throttled):
            await store.bucket("b").head(key)


@calls
async def test_a_rest_that_a_store_asked_for_is_kept_by_bucket_calls(
    server: Timed, opened: Opener, call: Call
) -> None:
    server.answers = [*[error(503, "SlowDown", ("Retry-After", "20"))] * 2, found()]
    store = await opened(None)
    store._pace._patience = 0.1
    await refuse_two(store)
    with pytest.raises(Throttled, match="mcs"):
        await call(store.bucket("b"))
    assert len(server.came) == 2


async def test_a_check_while_the_store_rests_says_so_at_once_and_for_how_long(
    server: Timed, opened: Opener
) -> None:
    server.answers = [*[error(503, "SlowDown", ("Retry-After", "20"))] * 2, found()]
    store = await opened(None)
    await refuse_two(store)
    began = time.monotonic()
    with pytest.raises(Throttled) as raised:
        await store.bucket("b").check()
    assert time.monotonic() - began < 1
    assert 19 < raised.value.retry_after <= 20
    assert len(server.came) == 2


async def test_a_check_that_is_refused_tells_how_long_to_wait(server: Timed, opened: Opener) -> None:
    server.answers = [error(503, "SlowDown", ("Retry-After", "17"))]
    with pytest.raises(Throttled) as raised:
        await (await opened(None)).bucket("b").check()
    assert 16 < raised.value.retry_after <= 17
    assert len(server.came) == 1, "a store that asks for patience is not asked again at once"


async def test_good_answers_to_listings_let_a_pace_recover(
    server: Timed, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "HOLD", 0.05)
    monkeypatch.setattr(pace, "RECOVERY", 1.0)
    server.answers = [error(503, "SlowDown"), page()]
    store = await opened(None)
    async with aclosing(cast("AsyncIterator[object]", store.bucket("b").list())) as listing:  # type: ignore[type-var]
        assert await anext(listing), "tried again by itself, after the rest"
    slow = store._pace.rate
    for _ in range(4):
        await count(store.bucket("b").list())
    assert store._pace.rate > slow
