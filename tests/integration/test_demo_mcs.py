"""The stand-in for MCS over a real S3 server, with a small receiver of hooks."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from common.errors import HookmirrorError, RouteDown
from common.store.s3 import S3Bucket, S3Store
from demo.events import Subscription, signature, write_configuration
from demo.mcs import Mcs
from demo.outbox import Habits
from demo.signed import SignedRequests
from demo.weed import Weed, settings_for
from demo.workload import PARTS, Kind, Step, User

BUCKET = "myfiles-ash"
EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")


class Subscriber:
    """Answers confirmations, and keeps the records of hooks. The first `refusals` hooks get a 503."""

    def __init__(self, *, honest: bool = True, refusals: int = 0) -> None:
        self.records: list[dict[str, Any]] = []
        self.confirmations: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.url = ""
        self._honest = honest
        self._refusals = refusals

    async def handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if body.get("Type") == "SubscriptionConfirmation":
            self.confirmations.append(body)
            url = self.url if self._honest else self.url + "/"
            answer = signature(url, body["TopicArn"], body["Timestamp"], body["Token"])
            return web.json_response({"signature": answer})
        if self._refusals:
            self._refusals -= 1
            return web.Response(status=503, headers={"Retry-After": "0"})
        self.headers.append(request.headers["X-Amz-Sns-Message-Type"])
        self.records += body["Records"]
        return web.json_response({})

    @property
    def told(self) -> list[tuple[str, str]]:
        return sorted((r["eventName"], r["s3"]["object"]["key"]) for r in self.records)


@asynccontextmanager
async def listening(subscriber: Subscriber) -> AsyncIterator[Subscriber]:
    app = web.Application()
    app.router.add_post("/webhook", subscriber.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    subscriber.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
    try:
        yield subscriber
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    server = Weed(tmp_path_factory.mktemp("weed"))
    server.start()
    yield server
    server.stop()


class Lab:
    """A stand-in with a bucket behind it, and a user of both."""

    def __init__(self, mcs: Mcs, bucket: S3Bucket, direct: S3Bucket, requests: SignedRequests) -> None:
        self.mcs, self.bucket, self.direct, self.requests = mcs, bucket, direct, requests
        self.user = User(bucket, requests, rng=random.Random(1))

    async def register(self, *subscriptions: Subscription) -> None:
        await self.requests("PUT", BUCKET, query="notification", body=write_configuration([*subscriptions]))


@asynccontextmanager
async def lab_over(weed: Weed, habits: Habits | None = None) -> AsyncIterator[Lab]:
    async with Mcs(weed.settings, habits=habits, rng=random.Random(3)) as mcs:
        settings = settings_for(mcs.endpoint)
        store, direct = await S3Store.open("t", settings), await S3Store.open("t", weed.settings)
        try:
            async with SignedRequests(settings) as requests:
                lab = Lab(mcs, store.bucket(BUCKET), direct.bucket(BUCKET), requests)
                await lab.bucket.create()
                yield lab
        finally:
            await store.close()
            await direct.close()


async def unsigned(url: str, body: bytes) -> int:
    """Return the status of a PUT that nobody has signed."""
    async with aiohttp.ClientSession() as session, session.put(url, data=body) as answer:
        return answer.status


async def test_a_hook_comes_for_each_change_after_the_handshake(weed: Weed) -> None:
    async with lab_over(weed) as lab, listening(Subscriber()) as subscriber:
        await lab.bucket.write("unheard", b"", headers={}, metadata={})
        await lab.register(Subscription("7", subscriber.url, EVENTS))
        await lab.bucket.write("a+b %2F/é?&#", b"hello", headers={"content-type": "text/x"}, metadata={})
        large = Step(Kind.PUT, "large", "large", PARTS + 1, 5, metadata={"a": "1"})
        copy = Step(Kind.COPY, "copy", "large", source="a+b %2F/é?&#")
        await lab.user.work([large, copy, Step(Kind.DELETE, "unheard", "unheard")])
        await lab.mcs.drained()
        state = await lab.direct.head("large")
    assert subscriber.confirmations[0]["TopicArn"] == f"mcs2883541269|{BUCKET}|{','.join(EVENTS)}"
    assert subscriber.told == [
        ("s3:ObjectCreated:CompleteMultipartUpload", "large"),
        ("s3:ObjectCreated:Copy", "copy"),
        ("s3:ObjectCreated:Put", "a+b %2F/é?&#"),
        ("s3:ObjectRemoved:Delete", "unheard"),
    ]
    by_key = {r["s3"]["object"]["key"]: r["s3"] for r in subscriber.records}
    assert by_key["copy"]["object"]["eTag"] == "5d41402abc4b2a76b9719d911017c592"
    assert by_key["copy"]["object"]["size"] == 5
    assert state is not None
    assert (by_key["large"]["object"]["eTag"], by_key["large"]["object"]["size"]) == (state.etag, PARTS + 1)
    assert {record["configurationId"] for record in by_key.values()} == {"7"}
    assert set(subscriber.headers) == {"Notification"}


async def test_what_passes_through_is_not_changed(weed: Weed) -> None:
    body = bytes(range(256)) * 5000
    headers = {"content-type": "text/plain", "cache-control": "no-cache"}
    async with lab_over(weed) as lab:
        await lab.bucket.write("k", body, headers=headers, metadata={"a": "b"})
        async with lab.bucket.read("k") as proxied, lab.direct.read("k") as direct:
            assert proxied is not None
            assert direct is not None
            assert proxied.state == direct.state
            assert await proxied.body() == await direct.body() == body
        assert await lab.bucket.head("k") == await lab.direct.head("k")
        assert await lab.bucket.head("no such key") is None


async def test_a_failed_request_sends_no_hook(weed: Weed) -> None:
    async with lab_over(weed) as lab, listening(Subscriber()) as subscriber:
        await lab.register(Subscription("1", subscriber.url, EVENTS))
        with pytest.raises(HookmirrorError):
            await lab.requests("PUT", BUCKET, "copy", headers={"x-amz-copy-source": f"/{BUCKET}/nothing"})
        assert await unsigned(f"{lab.mcs.endpoint}/{BUCKET}/k", b"x") == 403
        await lab.mcs.drained()
        assert lab.mcs.sent.events == 0


async def test_many_deleted_at_once_are_many_hooks(weed: Weed) -> None:
    async with lab_over(weed) as lab, listening(Subscriber()) as subscriber:
        for key in ("one", "two"):
            await lab.bucket.write(key, b"x", headers={}, metadata={})
        await lab.register(Subscription("1", subscriber.url, EVENTS))
        body = b"<Delete><Object><Key>one</Key></Object><Object><Key>two</Key></Object></Delete>"
        await lab.requests("POST", BUCKET, query="delete", body=body)
        await lab.mcs.drained()
    assert subscriber.told == [("s3:ObjectRemoved:Delete", "one"), ("s3:ObjectRemoved:Delete", "two")]


async def test_a_wrong_signature_registers_nothing(weed: Weed) -> None:
    async with lab_over(weed) as lab, listening(Subscriber(honest=False)) as subscriber:
        with pytest.raises(HookmirrorError, match="wrong signature"):
            await lab.register(Subscription("1", subscriber.url, EVENTS))
        with pytest.raises(HookmirrorError, match="has not answered"):
            await lab.register(Subscription("1", "http://127.0.0.1:9/webhook", EVENTS))
        with pytest.raises(HookmirrorError, match="404"):
            await lab.register(Subscription("1", subscriber.url + "/elsewhere", EVENTS))
        await lab.bucket.write("k", b"", headers={}, metadata={})
        assert b"SimpleTopic" not in (await lab.requests("GET", BUCKET, query="notification")).body
        assert lab.mcs.sent.events == 0


async def test_registering_replaces_the_list_and_asks_only_who_is_new(weed: Weed) -> None:
    async with lab_over(weed) as lab, listening(Subscriber()) as subscriber:
        first = Subscription("1", subscriber.url, EVENTS)
        second = Subscription("2", subscriber.url, EVENTS, prefix="in/")
        await lab.register(first)
        await lab.register(first, second)
        answer = await lab.requests("GET", BUCKET, query="notification")
        assert answer.body == write_configuration([first, second])
        assert len(subscriber.confirmations) == 2
        await lab.register()
        await lab.bucket.write("in/k", b"", headers={}, metadata={})
        assert lab.mcs.sent.events == 0


async def test_only_the_owner_registers_and_only_on_a_bucket(weed: Weed) -> None:
    async with lab_over(weed) as lab, listening(Subscriber()) as subscriber:
        body = write_configuration([Subscription("1", subscriber.url, EVENTS)])
        assert await unsigned(f"{lab.mcs.endpoint}/{BUCKET}?notification", body) == 403
        with pytest.raises(RouteDown, match="NoSuchBucket"):
            await lab.requests("PUT", "missing", query="notification", body=body)
    assert subscriber.confirmations == []


async def test_hooks_come_at_least_once_in_any_order(weed: Weed) -> None:
    habits = Habits(duplicates=0.5, spread=0.5, batch=3)
    keys = [f"k{n:02d}" for n in range(30)]
    async with lab_over(weed, habits) as lab, listening(Subscriber(refusals=3)) as subscriber:
        await lab.register(Subscription("1", subscriber.url, EVENTS))
        for key in keys:
            await lab.bucket.write(key, b"x", headers={}, metadata={})
        await lab.mcs.drained()
        sent = lab.mcs.sent
    told = [record["s3"]["object"]["key"] for record in subscriber.records]
    assert set(told) == set(keys)
    assert list(dict.fromkeys(told)) != keys
    assert (sent.events, sent.records, sent.refused, sent.abandoned) == (30, len(told), 3, 0)
    assert len(told) > 30
    assert sent.hooks < len(told)
