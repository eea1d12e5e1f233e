"""The store port's contract, on memory, on moto (which keeps every key) and on SeaweedFS (which checks)."""

import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from common.errors import Corrupt, RouteDown, SourceMoved, UploadGone
from common.store.memory import MemoryStore
from common.store.port import Bucket, Entry, Store, Stream
from common.store.s3 import S3Store
from demo.weed import Weed, settings_for
from tests.lab.keys import AWKWARD, LONG

STORES = ("memory", "moto", "seaweedfs")

MANGLED = {
    "memory": set[str](),
    "moto": set[str](),
    # It takes keys for paths, and counts the bucket's own path among a key's 1024 bytes.
    "seaweedfs": {key for key in AWKWARD if {"", ".", ".."} & {*key.split("/")} or {"\\", "\0"} & {*key}}
    | {*LONG},
}
"""What the tests' servers themselves cannot keep."""


@pytest.fixture(scope="session")
def weed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    weed = Weed(tmp_path_factory.mktemp("weed"))
    try:
        weed.start()
        yield weed.endpoint
    finally:
        weed.stop()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("moto_url" if request.param == "moto" else "weed_url")
    opened = await S3Store.open("test", settings_for(url))
    yield opened
    await opened.close()


@pytest.fixture
async def bucket(store: Store) -> Bucket:
    name = f"b{uuid4().hex[:12]}"
    if isinstance(store, MemoryStore):
        return store.create(name)
    assert isinstance(store, S3Store)
    made = store.bucket(name)
    await made.create()
    return made


async def listed(bucket: Bucket, prefix: str = "") -> list[Entry]:
    return [entry async for entry in bucket.list(prefix)]


async def body_of(bucket: Bucket, key: str) -> bytes | None:
    async with bucket.read(key) as reading:
        return await reading.body() if reading else None


@pytest.mark.parametrize("size", [0, 1, 70_000, 9 * 2**20])
async def test_what_was_written_is_read_back_whole(bucket: Bucket, size: int) -> None:
    body = bytes(n % 251 for n in range(size))
    headers = {
        "content-type": "text/x-test",
        "content-language": "ru",
        "content-disposition": 'attachment; filename="x"',
        "cache-control": "max-age=60",
        "content-encoding": "gzip",
    }
    await bucket.write("key", body, headers=headers, metadata={"colour": "blue", "with-dash": "1"})
    async with bucket.read("key") as reading:
        assert reading is not None
        state = reading.state
        assert await reading.body() == body
    assert (state.size, dict(state.headers), dict(state.metadata)) == (
        size,
        headers,
        {"colour": "blue", "with-dash": "1"},
    )
    assert await bucket.head("key") == state


async def test_an_overwrite_has_another_identity_and_the_same_state_the_same(bucket: Bucket) -> None:
    await bucket.write("key", b"one", headers={}, metadata={})
    first = await bucket.head("key")
    again = await bucket.head("key")
    await bucket.write("key", b"two", headers={}, metadata={})
    second = await bucket.head("key")
    assert first is not None
    assert again is not None
    assert second is not None
    assert first.identity == again.identity != second.identity


async def test_a_missing_key_is_none_and_deleting_it_is_fine(bucket: Bucket) -> None:
    assert await bucket.head("missing") is None
    assert await body_of(bucket, "missing") is None
    await bucket.delete("missing")


async def test_a_missing_bucket_is_never_a_missing_key(store: Store) -> None:
    missing = store.bucket(f"missing-{uuid4().hex[:8]}")
    with pytest.raises(RouteDown):
        await missing.head("key")
    with pytest.raises(RouteDown):
        async with missing.read("key"):
            pass
    with pytest.raises(RouteDown):
        await missing.check()


async def test_a_deleted_object_is_gone(bucket: Bucket) -> None:
    await bucket.write("key", b"x", headers={}, metadata={})
    await bucket.delete("key")
    assert await bucket.head("key") is None
    assert await listed(bucket) == []


async def test_a_listing_tells_keys_etags_and_sizes_below_a_prefix(bucket: Bucket) -> None:
    for key in ("a/1", "a/2", "b/1"):
        await bucket.write(key, key.encode(), headers={}, metadata={})
    state = await bucket.head("a/1")
    assert state is not None
    assert [entry.key for entry in await listed(bucket, "a/")] == ["a/1", "a/2"]
    assert (await listed(bucket))[0] == Entry("a/1", state.etag, 3)
    await bucket.check()


async def test_every_legal_key_goes_through_as_it_is(request: pytest.FixtureRequest, bucket: Bucket) -> None:
    keys = [key for key in AWKWARD if key not in MANGLED[request.node.callspec.params["store"]]]
    for key in keys:
        await bucket.write(key, key.encode(), headers={}, metadata={})
    assert {entry.key for entry in await listed(bucket)} == set(keys)
    assert {key: await body_of(bucket, key) for key in keys} == {key: key.encode() for key in keys}
    for key in keys:
        await bucket.delete(key)
    assert await listed(bucket) == []


MIB = 2**20


async def test_a_range_is_read_of_the_state_it_is_pinned_to(bucket: Bucket) -> None:
    await bucket.write("key", bytes(range(100)), headers={}, metadata={})
    first = await bucket.head("key")
    assert first is not None
    async with bucket.read_range("key", 10, 20, etag=first.etag) as reading:
        assert (reading.state.size, await reading.body()) == (10, bytes(range(10, 20)))
    async with bucket.read_range("key", 10, 20, etag=first.etag) as reading:
        assert b"".join([chunk async for chunk in reading.chunks()]) == bytes(range(10, 20))
    await bucket.write("key", b"another", headers={}, metadata={})
    for _ in ("overwritten", "deleted"):
        with pytest.raises(SourceMoved):
            async with bucket.read_range("key", 0, 5, etag=first.etag):
                pass
        await bucket.delete("key")


async def one_by_one(
    body: bytes, *, piece: int = 2**16, fails: Exception | None = None
) -> AsyncIterator[bytes]:
    for start in range(0, len(body), piece):
        yield body[start : start + piece]
    if fails:
        raise fails


async def test_a_part_may_pass_through_without_being_held(bucket: Bucket) -> None:
    body = random.Random(7).randbytes(5 * MIB + 3)
    md5 = hashlib.md5(body, usedforsecurity=False)
    upload = (await bucket.create_upload("key", headers={}, metadata={})).id
    etag = await bucket.upload_part("key", upload, 1, Stream(one_by_one(body), len(body), md5.digest()))
    assert etag == md5.hexdigest()
    await bucket.complete_upload("key", upload, [etag])
    assert await body_of(bucket, "key") == body


async def test_a_part_that_does_not_arrive_as_announced_is_none(bucket: Bucket) -> None:
    body = bytes(5 * MIB)
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    upload = (await bucket.create_upload("key", headers={}, metadata={})).id
    breaks_off = Stream(one_by_one(body[: MIB + 1], fails=Corrupt("broke off")), len(body), md5)
    with pytest.raises(Corrupt, match="broke off"):
        await bucket.upload_part("key", upload, 1, breaks_off)
    assert await bucket.parts("key", upload) == {}


@pytest.mark.parametrize("store", ["memory", "seaweedfs"], indirect=True)  # moto takes any Content-MD5
async def test_a_part_whose_bytes_are_not_those_announced_is_refused(bucket: Bucket) -> None:
    body = bytes(5 * MIB)
    upload = (await bucket.create_upload("key", headers={}, metadata={})).id
    md5 = hashlib.md5(b"another", usedforsecurity=False).digest()
    with pytest.raises(Corrupt):
        await bucket.upload_part("key", upload, 1, Stream(one_by_one(body), len(body), md5))
    assert await bucket.parts("key", upload) == {}


async def test_an_object_is_made_of_its_parts(bucket: Bucket) -> None:
    bodies = [b"a" * 5 * MIB, b"b" * 5 * MIB, b"c"]
    begun = await bucket.create_upload(
        "folder/key +é", headers={"content-type": "text/x"}, metadata={"colour": "blue"}
    )
    upload = begun.id
    assert [(o.key, o.id) async for o in bucket.uploads("folder/")] == [("folder/key +é", upload)]
    for number in (3, 1, 2):
        await bucket.upload_part("folder/key +é", upload, number, bodies[number - 1])
    parts = await bucket.parts("folder/key +é", upload)
    assert {number: part.size for number, part in parts.items()} == {1: 5 * MIB, 2: 5 * MIB, 3: 1}
    assert await bucket.head("folder/key +é") is None
    etag = await bucket.complete_upload("folder/key +é", upload, [parts[n].etag for n in (1, 2, 3)])
    state = await bucket.head("folder/key +é")
    assert state is not None
    assert (state.etag, state.size, dict(state.metadata)) == (etag, 10 * MIB + 1, {"colour": "blue"})
    assert etag == multipart_etag(bodies)
    assert await body_of(bucket, "folder/key +é") == b"".join(bodies)


@pytest.mark.parametrize("store", ["seaweedfs"], indirect=True)  # moto does not tell
@pytest.mark.parametrize(
    ("sizes", "told"),
    [((5 * MIB, 5 * MIB, 7), 5 * MIB), ((5 * MIB,), 5 * MIB), ((6 * MIB, 5 * MIB, 7), None)],
)
async def test_the_size_of_the_parts_is_told_when_they_are_of_one_size(
    bucket: Bucket, sizes: tuple[int, ...], told: int | None
) -> None:
    upload = (await bucket.create_upload("key", headers={}, metadata={})).id
    etags = [await bucket.upload_part("key", upload, n, bytes(size)) for n, size in enumerate(sizes, 1)]
    etag = await bucket.complete_upload("key", upload, etags)
    assert await bucket.part_size("key", etag=etag, size=sum(sizes)) == told


def multipart_etag(bodies: list[bytes]) -> str:
    """The ETag S3 gives an object of these parts."""
    digests = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in bodies)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(bodies)}"


async def test_an_aborted_upload_is_gone_and_leaves_no_object(bucket: Bucket) -> None:
    upload = (await bucket.create_upload("key", headers={}, metadata={})).id
    await bucket.upload_part("key", upload, 1, b"x")
    await bucket.abort_upload("key", upload)
    await bucket.abort_upload("key", upload)
    assert [o async for o in bucket.uploads()] == []
    with pytest.raises(UploadGone):
        await bucket.parts("key", upload)
    assert await bucket.head("key") is None


async def test_a_copy_onto_itself_gives_other_headers_metadata_and_tags_and_keeps_the_bytes(
    bucket: Bucket,
) -> None:
    more = {"x-amz-tagging": "a=1"}
    etag = await bucket.write("key", b"body", headers={"content-type": "a/b"}, metadata={"n": "1"})
    await bucket.restate("key", etag=etag, headers={"content-type": "c/d", **more}, metadata={"m": "2"})
    state = await bucket.head("key")
    assert state is not None
    assert (state.etag, state.size, state.tags) == (etag, 4, "a=1")
    assert (state.headers["content-type"], dict(state.metadata)) == ("c/d", {"m": "2"})
    assert await body_of(bucket, "key") == b"body"


@pytest.mark.parametrize("url", ["moto_url", "weed_url"])
async def test_an_endpoint_that_names_the_bucket_proves_no_absence(
    url: str, request: pytest.FixtureRequest
) -> None:
    """Each of its requests is about a key below the bucket's name: every object would seem to be gone."""
    endpoint, name = request.getfixturevalue(url), f"b{uuid4().hex[:12]}"
    for address in (endpoint, f"{endpoint}/{name}"):
        store = await S3Store.open("test", settings_for(address))
        bucket = store.bucket(name)
        try:
            if address == endpoint:
                await bucket.create()
                await bucket.write("key", b"body", headers={}, metadata={})
                assert await bucket.head("another") is None
                continue
            with pytest.raises(RouteDown, match="must not name the bucket"):
                await bucket.head("key")
        finally:
            await store.close()


async def test_tags_replace_those_there_were_and_change_nothing_else(bucket: Bucket) -> None:
    await bucket.write("key", b"body", headers={"x-amz-tagging": "old=1"}, metadata={"n": "1"})
    before = await bucket.head("key", tags=False)
    tags = "a=1&b=%2B%3A%3D%2F&c=&d%20e=f"
    await bucket.tag("key", tags)
    state = await bucket.head("key")
    assert before is not None
    assert state is not None
    assert (state.tags, state.etag, dict(state.metadata)) == (tags, before.etag, {"n": "1"})


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_a_write_on_a_condition_replaces_only_what_it_was_told(bucket: Bucket) -> None:
    first = await bucket.write("key", b"1", headers={}, metadata={}, over="")
    with pytest.raises(SourceMoved):
        await bucket.write("key", b"2", headers={}, metadata={}, over="")
    second = await bucket.write("key", b"2", headers={}, metadata={}, over=first)
    with pytest.raises(SourceMoved):
        await bucket.write("key", b"3", headers={}, metadata={}, over=first)
    with pytest.raises(SourceMoved):
        await bucket.restate("key", etag=first, headers={}, metadata={})
    with pytest.raises(SourceMoved):
        await bucket.delete("key", over=first)
    assert await body_of(bucket, "key") == b"2"
    await bucket.delete("key", over=second)
    assert await bucket.head("key") is None
