"""Buckets of one name in several stores: each store's hooks have a URL, and run the routes of that store."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.queue.memory import MemoryQueue
from common.settings import Settings
from receiver import handshake
from tests.integration.test_receiver import SETTINGS, Receiver, of, record, serving, taken

GENERAL, CEPH, ROOT = (
    "http://89.208.199.220/webhook",
    "https://hooks.example.org/webhook/caf%C3%A9-of-ceph",
    "http://test.com",
)
PATHS = {GENERAL: "/webhook", CEPH: "/webhook/caf%C3%A9-of-ceph", ROOT: "/"}

ALIKE: dict[str, Any] = {
    "stores": {
        "mcs": {"endpoint": "https://hb.bizmrg.com", "key_encoding": "raw"},
        "old": {"endpoint": "https://hb.vkcs.cloud", "key_encoding": "raw"},
        "ceph": {"endpoint": "http://10.0.0.1:8000", "key_encoding": "raw", "public_url": CEPH},
        "minio": {"endpoint": "http://10.0.0.2:9000", "key_encoding": "url", "public_url": ROOT},
        "aws": {},
    },
    "routes": [
        {"name": "of-mcs", "source": "mcs:photos", "target": "aws:one"},
        {"name": "of-mcs-runs", "source": "old:photos", "exec": "/bin/true"},
        {"name": "of-ceph", "source": "ceph:photos", "target": "aws:two"},
        {"name": "of-ceph-only", "source": "ceph:only", "target": "aws:three"},
        {"name": "of-minio", "source": "minio:photos", "target": "aws:four", "prefix": "in/"},
    ],
}

RUN = {GENERAL: ["of-mcs", "of-mcs-runs"], CEPH: ["of-ceph"], ROOT: ["of-minio"]}


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    for name, value in ALIKE.items():
        monkeypatch.setitem(SETTINGS, name, value)
    async with serving(MemoryQueue(), public_url=GENERAL) as server:
        yield server


@pytest.mark.parametrize("url", RUN)
async def test_a_hook_runs_the_routes_of_its_own_url_and_no_others(receiver: Receiver, url: str) -> None:
    answer = await receiver.post(of(record("in/k", "photos")), path=PATHS[url])
    assert (answer.status, answer.body["queued"]) == (200, len(RUN[url]))
    assert [task.route for task in await receiver.tasks()] == RUN[url]


async def test_a_bucket_of_another_url_is_of_no_route_there(receiver: Receiver) -> None:
    for url in (GENERAL, ROOT):
        answer = await receiver.post(of(record("k", "only")), path=PATHS[url])
        assert (answer.status, answer.body) == (200, taken(unrouted=1))
    assert await receiver.is_empty()
    assert (await receiver.post(of(record("k", "only")), path=PATHS[CEPH])).body["queued"] == 1


@pytest.mark.parametrize("url", RUN)
async def test_a_subscription_is_confirmed_with_the_url_that_was_registered(
    receiver: Receiver, url: str
) -> None:
    topic, stamp, token = "mcs1|photos|s3:ObjectCreated:*", "2020-06-15T15:01:13+03:00", "E2itMqAM"
    asked = {"Type": "SubscriptionConfirmation", "TopicArn": topic, "Timestamp": stamp, "Token": token}
    answer = await receiver.post(asked, path=PATHS[url])
    assert answer.body == {"signature": handshake.sign(url, topic, stamp, token)}
    strangers = await receiver.post(asked | {"TopicArn": "mcs1|only|x"}, path=PATHS[url])
    assert strangers.status == (200 if url == CEPH else 403)


async def test_the_paths_are_told_to_nobody(receiver: Receiver) -> None:
    for path in ("/openapi.json", "/docs"):
        answer = await receiver.request("GET", path)
        assert "of-ceph" not in str(answer.body)
    for path in PATHS.values():
        assert (await receiver.request("GET", path)).status == 404
    settings = Settings.model_validate(SETTINGS)
    assert {"caf%C3%A9-of-ceph", "café-of-ceph"} <= set(settings.secrets())


async def test_stores_alone_can_have_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ALIKE.items():
        monkeypatch.setitem(SETTINGS, name, value)
    monkeypatch.setitem(SETTINGS, "routes", ALIKE["routes"][2:])
    async with serving(MemoryQueue(), public_url=None) as server:
        assert (await server.post(of(record("in/k", "photos")), path=PATHS[ROOT])).body["queued"] == 1
        assert (await server.post(of(record("in/k", "photos")), path="/webhook")).status == 404
        assert [task.route for task in await server.tasks()] == ["of-minio"]
