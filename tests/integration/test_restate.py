"""A copy of an object onto itself, on real servers: other headers, metadata and tags, and no byte travels."""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from common.errors import NotSupported, SourceMoved
from common.store.s3 import S3Bucket, S3Store
from demo.weed import Weed, settings_for
from tests.contract.test_store import MANGLED
from tests.lab.keys import AWKWARD

FOLLOWS = {"content-type": "image/png", "cache-control": "no-store", "content-encoding": "gzip"}


@pytest.fixture(scope="module")
def weed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    weed = Weed(tmp_path_factory.mktemp("weed"))
    try:
        weed.start()
        yield weed.endpoint
    finally:
        weed.stop()


@pytest.fixture(params=["moto", "seaweedfs"])
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def bucket(server: str, request: pytest.FixtureRequest) -> AsyncIterator[S3Bucket]:
    url = request.getfixturevalue("moto_url" if server == "moto" else "weed_url")
    store = await S3Store.open("test", settings_for(url))
    made = store.bucket(f"b{uuid4().hex[:12]}")
    await made.create()
    yield made
    await store.close()


async def written(bucket: S3Bucket, key: str, body: bytes = b"body", **headers: str) -> str:
    """Write an object; return its ETag."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    await bucket.write(key, body, headers={"content-type": "text/plain", **sent}, metadata={"old": "1"})
    state = await bucket.head(key)
    assert state is not None
    return state.etag


async def body_of(bucket: S3Bucket, key: str) -> bytes:
    async with bucket.read(key) as reading:
        assert reading is not None
        return await reading.body()


async def test_headers_and_metadata_are_replaced_and_the_bytes_stay(bucket: S3Bucket) -> None:
    etag = await written(bucket, "k", content_language="ru", x_amz_tagging="a=1")
    await bucket.restate("k", etag=etag, headers=FOLLOWS, metadata={"new": "2"})
    state = await bucket.head("k")
    assert state is not None
    assert (state.etag, state.size) == (etag, 4)
    assert dict(state.metadata) == {"new": "2"}
    assert {name: state.headers.get(name) for name in FOLLOWS} == FOLLOWS
    assert "content-language" not in state.headers
    assert await body_of(bucket, "k") == b"body"


async def tags_of(bucket: S3Bucket, key: str) -> str:
    bucket._ask_tags = "always"
    state = await bucket.head(key)
    assert state is not None
    return state.tags


async def test_tags_are_replaced_and_so_is_their_end(bucket: S3Bucket) -> None:
    etag = await written(bucket, "k", x_amz_tagging="a=1&b=2")
    assert await tags_of(bucket, "k") == "a=1&b=2"
    await bucket.restate("k", etag=etag, headers={"x-amz-tagging": "c=with%20space"}, metadata={})
    assert await tags_of(bucket, "k") == "c=with%20space"
    await bucket.restate("k", etag=etag, headers={}, metadata={})
    assert await tags_of(bucket, "k") == ""


async def test_every_legal_key_is_copied_onto_itself(server: str, bucket: S3Bucket) -> None:
    for key in [key for key in AWKWARD if key not in MANGLED[server]]:
        etag = await written(bucket, key, key.encode())
        await bucket.restate(key, etag=etag, headers={}, metadata={"n": "1"})
        state = await bucket.head(key)
        assert state is not None, repr(key)
        assert dict(state.metadata) == {"n": "1"}, repr(key)
        assert await body_of(bucket, key) == key.encode(), repr(key)


async def test_an_empty_object_is_copied_onto_itself(bucket: S3Bucket) -> None:
    etag = await written(bucket, "empty", b"")
    await bucket.restate("empty", etag=etag, headers={}, metadata={"n": "1"})
    state = await bucket.head("empty")
    assert state is not None
    assert (state.size, dict(state.metadata)) == (0, {"n": "1"})


@pytest.mark.parametrize("server", ["moto"], indirect=True)  # SeaweedFS keeps no classes
async def test_class_and_encryption_are_those_that_are_asked_for(bucket: S3Bucket) -> None:
    etag = await written(bucket, "k")
    placement = {"x-amz-storage-class": "STANDARD_IA", "x-amz-server-side-encryption": "AES256"}
    await bucket.restate("k", etag=etag, headers=placement, metadata={})
    answer = await bucket._ask("HEAD", "k")
    assert {name: answer.headers[name] for name in placement} == placement


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)  # moto does not compare
async def test_another_state_is_left_as_it_is(bucket: S3Bucket) -> None:
    etag = await written(bucket, "k", b"before")
    await written(bucket, "k", b"after")
    with pytest.raises((SourceMoved, NotSupported)):
        await bucket.restate("k", etag=etag, headers={}, metadata={"n": "1"})
    state = await bucket.head("k")
    assert state is not None
    assert dict(state.metadata) == {"old": "1"}


async def test_what_is_gone_has_moved(bucket: S3Bucket) -> None:
    with pytest.raises(SourceMoved):
        await bucket.restate("gone", etag="0" * 32, headers={}, metadata={})
