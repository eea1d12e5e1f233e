"""An object's tags, as different stores tell of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from common.errors import RouteDown, StoreAway
from common.routes import RouteSettings
from common.settings import Settings
from common.store.port import State
from common.store.s3 import S3Bucket, S3Store
from tests.integration.test_s3_faults import Answer, Request, Server, error, found, settings_of
from worker.program import open_route, open_stores

COUNTED = ("x-amz-tagging-count", "1")

TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"


@dataclass
class Tagged(Server):
    """A store with one object, tagged, that says so in the answers to `counts`."""

    counts: set[str] = field(default_factory=set)
    document: Answer = field(default_factory=lambda: Answer(200, TAGS))

    async def _request(self, reader: asyncio.StreamReader) -> Request | None:  # type: ignore[override]
        request = await Server._request(reader)
        if request is not None and "?tagging" in request.path:
            self.answers = [self.document]
        elif request is not None:
            self.answers = [found(COUNTED) if request.method in self.counts else found()]
        return request

    @property
    def asked_for_tags(self) -> int:
        return sum("?tagging" in request.path for request in self.requests)


@pytest.fixture
async def server() -> AsyncIterator[Tagged]:
    server = Tagged(counts={"GET", "HEAD"})
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def bucket_of(server: Server, stack: AsyncExitStack, ask: str = "auto") -> S3Bucket:
    store = await S3Store.open("test", settings_of(server).model_copy(update={"tags": ask}))
    stack.push_async_callback(store.close)
    bucket = store.bucket("b")
    bucket._answers = True  # as a bucket, when it was asked before
    return bucket


async def head(bucket: S3Bucket) -> State:
    state = await bucket.head("k")
    assert state is not None
    return state


async def read(bucket: S3Bucket) -> State:
    async with bucket.read("k") as reading:
        assert reading is not None
        await reading.body()
        return reading.state


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("<Tag><Key>a</Key><Value>1</Value></Tag><Tag><Key>b</Key><Value>2</Value></Tag>", "a=1&b=2"),
        ("<Tag><Key>b</Key><Value>2</Value></Tag><Tag><Key>a</Key><Value>1</Value></Tag>", "a=1&b=2"),
        ("<Tag>\n  <Value>1</Value>\n  <Key>a</Key>\n</Tag>", "a=1"),
        ("<Tag><Key>a</Key><Value></Value></Tag>", "a="),
        ("<Tag><Key>a</Key><Value/></Tag>", "a="),
        ("<Tag><Key>a</Key></Tag>", "a="),
        ("<Tag><Key>a b</Key><Value>1+1=2&amp;3</Value></Tag>", "a%20b=1%2B1%3D2%263"),
        ("<Tag><Key>&lt;a&gt;</Key><Value>&amp;lt; &#34;x&#x22;</Value></Tag>", "%3Ca%3E=%26lt%3B%20%22x%22"),
        ("<Tag><Key>имя</Key><Value>😀/</Value></Tag>", "%D0%B8%D0%BC%D1%8F=%F0%9F%98%80%2F"),
        ("", ""),
    ],
)
async def test_tags_are_understood_whatever_they_hold(
    server: Tagged, stack: AsyncExitStack, document: str, expected: str
) -> None:
    server.document = Answer(200, f"<Tagging><TagSet>{document}</TagSet></Tagging>".encode())
    assert (await head(await bucket_of(server, stack))).tags == expected


@pytest.mark.parametrize(
    "document",
    [b"<Tag><Value>1</Value></Tag>", b"<Tag><Key>\xff</Key><Value/></Tag>"],
    ids=["no key", "no UTF-8"],
)
async def test_tags_that_cannot_be_understood_are_never_taken_for_none(
    server: Tagged, stack: AsyncExitStack, document: bytes
) -> None:
    server.document = Answer(200, document)
    with pytest.raises(StoreAway, match="tags"):
        await head(await bucket_of(server, stack))


async def test_tags_that_may_not_be_read_are_an_error_that_says_so(
    server: Tagged, stack: AsyncExitStack
) -> None:
    server.document = error(403, "AccessDenied")
    with pytest.raises(RouteDown, match=r"GET the tags of an object in b: AccessDenied"):
        await head(await bucket_of(server, stack))


async def test_an_object_without_tags_costs_no_request_more(server: Tagged, stack: AsyncExitStack) -> None:
    server.counts = set()
    bucket = await bucket_of(server, stack)
    assert (await read(bucket)).tags == (await head(bucket)).tags == ""
    assert server.asked == "GET HEAD"


async def test_a_store_that_counts_tags_only_at_a_get_shows_one_object_and_not_two(
    server: Tagged, stack: AsyncExitStack
) -> None:
    """Else each look would find another identity than was copied, and copy again."""
    server.counts = {"GET"}
    bucket = await bucket_of(server, stack)
    state = await read(bucket)
    assert state.tags == "a=1"
    assert (await head(bucket)).identity == state.identity
    assert (await head(bucket)).identity == (await read(bucket)).identity


async def test_whether_a_head_counts_tags_is_asked_only_once(server: Tagged, stack: AsyncExitStack) -> None:
    bucket = await bucket_of(server, stack)
    for _ in range(3):
        assert (await read(bucket)).tags == "a=1"
    assert server.asked.split().count("HEAD") == 1


async def test_a_store_that_never_says_that_there_are_tags_can_be_asked_always(
    server: Tagged, stack: AsyncExitStack
) -> None:
    server.counts = set()
    bucket = await bucket_of(server, stack, "always")
    assert (await head(bucket)).tags == (await read(bucket)).tags == "a=1"


async def test_tags_can_be_left_alone(server: Tagged, stack: AsyncExitStack) -> None:
    bucket = await bucket_of(server, stack, "never")
    assert (await head(bucket)).tags == (await read(bucket)).tags == ""
    assert server.asked_for_tags == 0


async def test_tags_are_read_but_where_they_are_not_asked_for(server: Tagged, stack: AsyncExitStack) -> None:
    route = RouteSettings(source="mcs:b", target="aws:b")
    settings = Settings.model_construct(
        stores={"mcs": settings_of(server), "aws": settings_of(server)}, routes=(route,)
    )
    opened = open_route(route, settings, await open_stores(settings, stack))
    for bucket in opened.buckets:
        assert isinstance(bucket, S3Bucket)
        bucket._answers = True  # as a bucket, when it was asked before
    await opened.target.head("k", tags=False)
    assert server.asked_for_tags == 0
    await opened.source.head("k")
    assert server.asked_for_tags == 1
