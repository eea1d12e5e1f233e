"""What a sender of stack notifications gets from a real receiver, and who merely looks at the address."""

import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.queue.memory import MemoryQueue
from common.telemetry import LineFormatter, as_json, hide
from tests.integration.test_receiver import BY_CLOUD_MONITOR, AwayQueue, Receiver, of, record, taken
from tests.integration.test_stacks import PATH, SIGNED, Site, body
from tests.lab.samples import names, raw


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
async def server(site: Site) -> AsyncIterator[Receiver]:
    site.routes = [{"name": "failures", "stack": "prod-*", "status": ["*_FAILED"], "log": True}]
    async with site.receives(MemoryQueue()) as server:
        yield server


FAILED = body(status="CREATE_FAILED")


@pytest.mark.parametrize(
    ("data", "status", "answer"),
    [
        (FAILED, 200, taken(queued=1)),
        (body(), 200, taken(ignored=1)),
        (body("other", "CREATE_FAILED"), 200, taken(unrouted=1)),
        (b"{", 200, taken(buried=1)),
        (b"[" * 100_000, 200, taken(buried=1)),
        (b"[]", 200, taken(buried=1)),
        (json.dumps(of(record())).encode(), 200, taken(buried=1)),
        (b"x" * 300_000, 413, {"error": "too large"}),
    ],
)
async def test_a_notification_is_answered_by_what_it_is(
    server: Receiver, data: bytes, status: int, answer: Any
) -> None:
    got = await server.post(data, path=PATH)
    assert (got.status, got.body) == (status, answer)
    assert len(await server.tasks()) == (answer.get("queued", 0))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (json.dumps(of(record())).encode(), "S3 records, which belong to receiver.public_url"),
        (json.dumps(BY_CLOUD_MONITOR).encode(), "Cloud Monitor's form of a ROS event"),
        (b'{"StackId": "i", "Status": "?"}', "Status is no word of capital letters"),
        (gzip.compress(FAILED, mtime=0), "gzip body"),
    ],
)
async def test_what_is_no_notification_is_kept_whole_and_says_what_it_is(
    server: Receiver, data: bytes, words: str
) -> None:
    assert (await server.post(data, path=PATH)).body == taken(buried=1)
    [letter] = await server.queue.buried(10)
    assert letter.body == data
    assert letter.why.startswith(f"Unreadable: {words}")


@pytest.mark.parametrize("name", names(of="ros/"))
async def test_every_sample_is_acknowledged(site: Site, name: str) -> None:
    site.routes = [{"log": True}]
    async with site.receives(MemoryQueue()) as server:
        assert (await server.post(raw(name), path=PATH)).body == taken(queued=1)


async def test_the_address_can_be_tried_in_a_browser(server: Receiver) -> None:
    for path, words in (
        (PATH, "stack notifications are taken here by POST"),
        ("/", "webhooks are taken here"),
    ):
        answer = await server.request("GET", path)
        assert (answer.status, answer.body) == (200, f"hookmirror: {words}\n")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        head = await server.request("HEAD", path)
        assert (head.status, head.body) == (200, "")
    asked = [
        ("PUT", PATH),
        ("DELETE", "/"),
        ("POST", "/"),
        ("GET", f"{PATH}/"),
        ("GET", "/stacks"),
        ("GET", "/webhook"),
    ]
    assert {(await server.request(method, path)).status for method, path in asked} == {404}


async def test_notifications_go_to_no_other_path_and_hooks_not_to_theirs(server: Receiver) -> None:
    for path in ("/webhook", "/stacks/3f9c0a7b5d1e42d8"):
        assert (await server.post(FAILED, path=path)).status == 404
    assert await server.is_empty()


async def test_a_browser_and_a_sender_are_admitted_alike(site: Site) -> None:
    site.routes = [{"log": True}]
    site.about = {"allowed_networks": ["198.51.100.0/24"], "trusted_proxies": ["127.0.0.1"], "burst": 2}
    site.about |= {"requests_per_second": 0.01}
    async with site.receives(MemoryQueue()) as server:
        for method, path in (("POST", PATH), ("GET", PATH), ("GET", "/")):
            assert (await server.request(method, path, data=body())).status == 403
        told = {"X-Forwarded-For": "198.51.100.7"}
        assert (await server.request("GET", "/", headers=told)).status == 200
        assert (await server.post(body(), path=PATH, headers=told)).status == 200
        assert (await server.post(body(), path=PATH, headers=told)).status == 429
        assert (await server.request("GET", PATH, headers=told)).status == 429


async def test_the_path_of_notifications_is_written_to_no_log_and_the_outputs_neither(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="hookmirror")
    site.routes = [{"log": True}]
    async with site.receives(MemoryQueue()) as server:
        await server.post(raw("ros/create_complete"), path=PATH)
        await server.post(b"{", path=PATH)
        await server.request("GET", PATH)
        await server.request("PUT", PATH)
    hide("all", *site.settings(0).secrets())
    formatter = LineFormatter(as_json)
    lines = [formatter.format(record) for record in caplog.records]
    assert not [line for line in lines if PATH.rpartition("/")[2] in line or SIGNED in line]
    hook, _ = [json.loads(line) for line in lines if json.loads(line)["action"] == "hook"]
    assert (hook["stack"], hook["status"], hook["queued"]) == ("test-web-hook", "CREATE_COMPLETE", 1)


async def test_notifications_are_counted_and_are_no_sign_that_hooks_come(server: Receiver) -> None:
    await server.post(FAILED, path=PATH)
    await server.post(body(), path=PATH)
    await server.post(body("other"), path=PATH)
    value = server.metrics.registry.get_sample_value
    assert value("hookmirror_hooks_total", {"outcome": "notified"}) == 2
    assert value("hookmirror_hooks_total", {"outcome": "accepted"}) == 0
    assert value("hookmirror_hooks_total", {"outcome": "unrouted"}) == 1
    assert value("hookmirror_records_total", {"outcome": "queued"}) == 1
    assert value("hookmirror_records_total", {"outcome": "ignored"}) == 1
    assert value("hookmirror_tasks_received_total", {"route": "failures"}) == 1
    assert value("hookmirror_last_hook_timestamp_seconds") == 0


async def test_a_queue_that_is_away_asks_the_sender_to_come_again(site: Site) -> None:
    site.routes = [{"log": True}]
    async with site.receives(AwayQueue()) as server:
        answer = await server.post(body(), path=PATH)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
