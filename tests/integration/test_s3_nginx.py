"""The S3 store behind a real nginx, as people put it before their stores."""

import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from common.errors import Refused, RouteDown, StoreAway, TryAgain
from common.store import wire
from common.store.port import State
from common.store.s3 import S3Bucket, S3Store
from demo.weed import Weed, settings_for
from tests.lab.nginx import nginx
from worker.transfer import fetch

TEXT = b"what can be compressed well, " * 100
HEADERS = {"content-type": "text/plain"}

GZIP = "gzip on; gzip_min_length 1; gzip_proxied any; gzip_types *; gzip_http_version 1.0;"

SETUPS = {
    "as it comes": "",
    "compressing": GZIP,
    "compressing, unbuffered": f"{GZIP} proxy_buffering off;",
    "unbuffered": "proxy_buffering off; proxy_request_buffering off;",
    "caching nothing": f"{GZIP} proxy_force_ranges on;",
}


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made = Weed(tmp_path_factory.mktemp("weed"))
    try:
        made.start()
        yield made.endpoint
    finally:
        made.stop()


@pytest.fixture(params=["moto", "seaweedfs"])
def upstream(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("moto_url" if request.param == "moto" else "weed")
    return url


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PAUSES", (0, 0))


@asynccontextmanager
async def opened(url: str, name: str) -> AsyncIterator[S3Bucket]:
    store = await S3Store.open("test", settings_for(url))
    try:
        yield store.bucket(name)
    finally:
        await store.close()


@asynccontextmanager
async def filled(upstream: str) -> AsyncIterator[S3Bucket]:
    """A bucket with a text, reached without nginx."""
    async with opened(upstream, f"b{uuid4().hex[:12]}") as bucket:
        await bucket.create()
        await bucket.write("text", TEXT, headers=HEADERS, metadata={"a": "b"})
        yield bucket


def same(one: State | None, other: State | None) -> bool:
    assert one is not None
    assert other is not None
    return one.identity == other.identity


@pytest.mark.parametrize("lines", SETUPS.values(), ids=SETUPS)
async def test_every_kind_of_object_goes_both_ways_as_it_is(
    upstream: str, tmp_path: Path, lines: str
) -> None:
    packed = gzip.compress(TEXT)
    bodies = {"text": TEXT, "empty": b"", "packed": packed, "large": TEXT * 300}
    with nginx(tmp_path, upstream, lines) as url:
        async with filled(upstream) as behind, opened(url, behind.name) as bucket:
            for key, body in bodies.items():
                more = {"content-encoding": "gzip"} if key == "packed" else {}
                await bucket.write(key, body, headers=HEADERS | more, metadata={})
                for way in (bucket, behind):
                    async with way.read(key) as reading:
                        assert reading is not None
                        assert await fetch(reading) == body
                        assert dict(reading.state.headers) == HEADERS | more
                        assert same(reading.state, await way.head(key))
            state = await bucket.head("large")
            assert state is not None
            async with bucket.read_range("large", 5, 50, etag=state.etag) as reading:
                assert await reading.body() == (TEXT * 300)[5:50]
            assert {entry.key async for entry in bucket.list()} == set(bodies)
            await bucket.delete("text")
            assert await behind.head("text") is None


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("default_type text/html; return 200 '<html>We are back soon.</html>';", (StoreAway, RouteDown)),
        ("return 502;", StoreAway),
        ("return 301 https://elsewhere.invalid/;", RouteDown),
        ("return 451;", Refused),
    ],
)
async def test_a_page_of_nginx_is_no_object_and_takes_none(
    upstream: str, tmp_path: Path, location: str, expected: type[Exception] | tuple[type[Exception], ...]
) -> None:
    with nginx(tmp_path, upstream, location=location) as url:
        async with filled(upstream) as behind, opened(url, behind.name) as bucket:
            for call in (bucket.head("text"), bucket.delete("text"), bucket.check()):
                with pytest.raises(expected):
                    await call
            with pytest.raises(expected):
                await bucket.write("text", b"another", headers={}, metadata={})
            with pytest.raises(expected):
                async with bucket.read("text"):
                    pass
            assert same(await behind.head("text"), await behind.head("text"))


async def test_a_page_in_place_of_an_error_is_no_object(upstream: str, tmp_path: Path) -> None:
    """A maintenance page for what the store behind does not answer, with status 200."""
    page = "error_page 502 504 =200 /page; "
    lines = f"{page} location = /page {{ default_type text/html; return 200 '<html>soon</html>'; }}"
    with nginx(tmp_path, "http://127.0.0.1:1", lines, location="proxy_pass http://127.0.0.1:1;") as url:
        async with opened(url, "bucket") as bucket:
            with pytest.raises(StoreAway):
                await bucket.head("text")
            with pytest.raises(StoreAway) as raised:
                await bucket.write("text", TEXT, headers={}, metadata={})
            assert raised.value.unsure


async def test_a_page_that_is_a_file_is_no_object_either(upstream: str, tmp_path: Path) -> None:
    """It has an ETag, a date and a length, and takes every write."""
    (tmp_path / "soon.html").write_text("<html>soon</html>")
    lines = f"error_page 502 504 =200 /soon.html; location = /soon.html {{ root {tmp_path}; }}"
    down = "http://127.0.0.1:1"
    async with filled(upstream) as behind:
        with (
            nginx(tmp_path / "up", upstream) as good,
            nginx(tmp_path / "down", down, lines, location=f"proxy_pass {down};") as page,
        ):
            async with opened(page, behind.name) as bucket:
                with pytest.raises(TryAgain):  # what it was before nobody knows
                    await bucket.head("text")
            async with opened(good, behind.name) as bucket:
                assert await bucket.head("text") is not None
                async with opened(page, behind.name) as paged:
                    bucket._way = paged._way  # the store is down from now on
                    with pytest.raises(StoreAway, match=r"a success without x-amzn?-request-?id"):
                        await bucket.head("text")
                    with pytest.raises(StoreAway, match=r"a success without x-amzn?-request-?id") as raised:
                        await bucket.write("text", TEXT, headers={}, metadata={})
                    assert raised.value.unsure


async def test_a_proxy_that_compresses_unasked_is_found_out(upstream: str, tmp_path: Path) -> None:
    """It says to itself that everybody takes gzip: the ETag is weak then, and the bytes are others."""
    with (
        nginx(tmp_path / "one", upstream, GZIP) as compressing,
        nginx(
            tmp_path / "two",
            compressing,
            location="proxy_set_header Accept-Encoding gzip; proxy_set_header Host $http_host; "
            "proxy_pass $upstream$request_uri;",
        ) as url,
    ):
        async with filled(upstream) as behind, opened(url, behind.name) as bucket:
            with pytest.raises(StoreAway, match=r"weak.*compression"):
                async with bucket.read("text"):
                    pass


async def test_headers_that_nginx_does_not_take_are_the_objects_fault(upstream: str, tmp_path: Path) -> None:
    async with filled(upstream) as behind:
        with nginx(tmp_path, upstream) as url:
            async with opened(url, behind.name) as bucket:
                with pytest.raises(Refused, match="headers and metadata"):
                    await bucket.write("k", b"", headers={}, metadata={"a": "v" * 9000})
