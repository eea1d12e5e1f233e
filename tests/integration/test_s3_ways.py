"""The ways to a store: a bucket in the host's name or in the path, and a proxy that the environment names."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from common.errors import RouteDown, StoreAway, TryAgain
from common.store import wire
from common.store.s3 import S3Bucket, S3Store
from common.tables import StoreSettings
from demo.weed import settings_for
from tests.lab.proxy import Proxy, proxy

KEYS = ("plain", "a//b", "trailing/", "..", "a b+c%20d", "имя/файл")


@pytest.fixture(scope="module")
def moto_port() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment that names none."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(wire, "PAUSES", ())


@pytest.fixture
async def passing() -> AsyncIterator[Proxy]:
    async with proxy() as made:
        yield made


def settings(endpoint: str, addressing: str) -> StoreSettings:
    return settings_for(endpoint).model_copy(update={"addressing": addressing})


@asynccontextmanager
async def opened(endpoint: str, addressing: str = "path") -> AsyncIterator[S3Bucket]:
    """A bucket of a store at `endpoint`, not made yet."""
    store = await S3Store.open("test", settings(endpoint, addressing))
    try:
        yield store.bucket(f"b{uuid4().hex[:12]}")
    finally:
        await store.close()


async def use(bucket: S3Bucket) -> None:
    """Every kind of call, with keys that a way may mangle."""
    await bucket.create()
    await bucket.check()
    for key in KEYS:
        await bucket.write(key, key.encode(), headers={}, metadata={})
        async with bucket.read(key) as reading:
            assert reading is not None
            assert await reading.body() == key.encode()
        assert await bucket.head(key) is not None
    upload = (await bucket.create_upload("large", headers={}, metadata={})).id
    assert [other.id async for other in bucket.uploads()] == [upload]
    await bucket.abort_upload("large", upload)
    assert {entry.key async for entry in bucket.list()} == set(KEYS)
    await bucket.delete("plain")
    assert await bucket.head("plain") is None


# moto takes the first label of a host for a bucket, unless the host begins with "localhost".
@pytest.mark.parametrize(
    ("host", "addressing", "in_host"),
    [
        ("s3.test", "virtual", True),
        ("localhost.test", "path", False),
        ("localhost.test", "auto", False),  # an endpoint that is named need not know buckets in its host
    ],
)
async def test_a_bucket_is_named_in_the_host_or_in_the_path_by_objects_and_listings_alike(
    moto_port: int,
    passing: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    addressing: str,
    in_host: bool,
) -> None:
    monkeypatch.setenv("http_proxy", passing.url)  # only the proxy knows where such a host is
    async with opened(f"http://{host}:{moto_port}", addressing) as bucket:
        await use(bucket)
    assert len(passing.seen) > 3 * len(KEYS)
    for url in (urlsplit(seen.partition(" ")[2]) for seen in passing.seen):
        named = (
            url.hostname == f"{bucket.name}.{host}"
            if in_host
            else (url.hostname == host and url.path.startswith(f"/{bucket.name}"))
        )
        assert named, url


@pytest.mark.parametrize(
    ("addressing", "endpoint", "name", "expected"),
    [
        ("auto", None, "files", "https://files.s3.eu-central-1.amazonaws.com"),
        ("virtual", None, "files", "https://files.s3.eu-central-1.amazonaws.com"),
        ("path", None, "files", "https://s3.eu-central-1.amazonaws.com/files"),
        # A certificate for *.s3.amazonaws.com covers no further dot.
        ("auto", None, "my.files", "https://s3.eu-central-1.amazonaws.com/my.files"),
        ("auto", "https://hb.example.org/", "files", "https://hb.example.org/files"),
        ("virtual", "https://hb.example.org/", "files", "https://files.hb.example.org"),
    ],
)
async def test_where_a_bucket_is(addressing: str, endpoint: str | None, name: str, expected: str) -> None:
    update = {"endpoint": endpoint, "region": "eu-central-1"}
    store = await S3Store.open("test", settings("http://x", addressing).model_copy(update=update))
    try:
        bucket = store.bucket(name)
        assert f"https://{bucket._way.netloc}{bucket._prefix}" == expected
    finally:
        await store.close()


Call = Callable[[S3Bucket], Awaitable[object]]

CALLS: dict[str, Call] = {
    "objects": lambda bucket: bucket.head("k"),
    "buckets": lambda bucket: bucket.check(),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.mark.parametrize(
    "spared",
    ["127.0.0.1", "example.org,127.0.0.1", "127.0.0.1:{port}", "*"],
)
async def test_what_no_proxy_names_is_reached_without_one(
    moto_port: int, passing: Proxy, monkeypatch: pytest.MonkeyPatch, spared: str
) -> None:
    monkeypatch.setenv("http_proxy", passing.url)
    monkeypatch.setenv("no_proxy", spared.format(port=moto_port))
    async with opened(f"http://127.0.0.1:{moto_port}") as bucket:
        await use(bucket)
    assert passing.seen == []


@pytest.mark.parametrize("spared", ["", "example.org", "127.0.0.1:1"])
async def test_what_no_proxy_does_not_name_goes_through_it(
    moto_port: int, passing: Proxy, monkeypatch: pytest.MonkeyPatch, spared: str
) -> None:
    monkeypatch.setenv("http_proxy", passing.url)
    monkeypatch.setenv("no_proxy", spared)
    async with opened(f"http://127.0.0.1:{moto_port}") as bucket:
        await use(bucket)
    assert len(passing.seen) > 3 * len(KEYS)


async def test_a_proxy_for_https_is_none_for_http(
    moto_port: int, passing: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", passing.url)
    async with opened(f"http://127.0.0.1:{moto_port}") as bucket:
        await use(bucket)
    assert passing.seen == []


async def test_a_proxy_that_asks_who_we_are_is_told(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy("me:se/cret") as asking:
        monkeypatch.setenv("http_proxy", asking.url.replace("se/cret", "se%2Fcret"))
        async with opened(f"http://127.0.0.1:{moto_port}") as bucket:
            await use(bucket)
    assert len(asking.seen) > 3 * len(KEYS)


@calls
async def test_a_proxy_that_is_away_is_an_error_of_ours(
    moto_port: int, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    async with opened(f"http://127.0.0.1:{moto_port}") as bucket:
        with pytest.raises((RouteDown, StoreAway)) as raised:
            await call(bucket)
    assert "secret" not in str(raised.value)


@calls
async def test_a_proxy_that_refuses_us_is_no_missing_object(
    moto_port: int, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    async with proxy("me:secret") as asking:
        monkeypatch.setenv("http_proxy", asking.url.replace("secret", "wrong"))
        async with opened(f"http://127.0.0.1:{moto_port}") as bucket:
            with pytest.raises(TryAgain):
                await call(bucket)
