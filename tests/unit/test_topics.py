"""A store that calls no URL itself: its topics do. Which of them call us?"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from common.settings import Settings
from common.store.notifications import TOPIC, Hook
from common.store.topics import read
from console import cli
from console.hooks.wanted import compare, needed
from demo.weed import free_ports

URL = "http://hooks.example.org/webhook/3f9c0a77e1b24d58"

ANSWER = (
    '<ListTopicsResponse xmlns="https://sns.amazonaws.com/doc/2010-03-31/"><ListTopicsResult><Topics>'
    "<member><User></User><Name>mine</Name><EndPoint><EndpointAddress>{url}</EndpointAddress>"
    "<EndpointArgs>Version=2010-03-31&amp;push-endpoint={url}</EndpointArgs><EndpointTopic>mine</EndpointTopic>"
    "<HasStoredSecret>False</HasStoredSecret><Persistent>True</Persistent></EndPoint>"
    "<TopicArn>arn:aws:sns:default::mine</TopicArn><OpaqueData></OpaqueData></member>"
    "<member><User></User><Name>other</Name><EndPoint><EndpointAddress>http://h/a?b=1&amp;c</EndpointAddress>"
    "</EndPoint><TopicArn>arn:aws:sns:default::other</TopicArn></member>"
    "</Topics></ListTopicsResult></ListTopicsResponse>"
)
"""As Ceph 16.2.15 answers."""

TOPICS = {"arn:aws:sns:default::mine": URL, "arn:aws:sns:default::other": "http://h/a?b=1&c"}


def settings(**more: object) -> Settings:
    return Settings.model_validate(
        {
            "receiver": {"public_url": URL},
            "stores": {"a": {"endpoint": "http://127.0.0.1:1"}, "b": {"endpoint": "http://127.0.0.1:2"}},
            "routes": [{"source": "a:from", "target": "b:to", **more}],
        }
    )


def hook(name: str, *events: str, prefix: str = "") -> Hook:
    return Hook(TOPIC, name, f"arn:aws:sns:default::{name}", events, prefix)


CREATED, REMOVED = "s3:ObjectCreated:*", "s3:ObjectRemoved:*"


def test_the_urls_of_topics_are_read_from_the_answer() -> None:
    assert read(ANSWER.format(url=URL)) == TOPICS
    assert read("<html>what is this</html>") == {}


@pytest.mark.parametrize(
    ("hooks", "route", "needs"),
    [
        ([], {}, 1),
        ([hook("other", CREATED, REMOVED)], {}, 1),
        ([hook("unknown", CREATED, REMOVED)], {}, 1),
        ([hook("mine", CREATED)], {}, 1),
        ([hook("mine", CREATED, REMOVED)], {}, 0),
        ([hook("mine", CREATED), hook("mine", REMOVED)], {}, 0),
        ([hook("mine", "s3:ObjectCreated:Put", REMOVED)], {}, 1),
        ([hook("mine", CREATED, REMOVED, prefix="photos/")], {}, 1),
        ([hook("mine", CREATED, REMOVED, prefix="photos/")], {"prefix": "photos/2026/"}, 0),
    ],
)
def test_a_topic_serves_that_calls_our_url_for_all_that_is_needed(
    hooks: list[Hook], route: dict[str, str], needs: int
) -> None:
    configured = settings(**route)
    found = compare(hooks, needed(configured, "a:from"), settings=configured, topics=TOPICS)
    assert len(found.missing) == needs
    assert found.surplus == ()
    assert len(found.serving) == sum(hook.id == "mine" for hook in hooks)
    assert len(found.others) == sum(hook.id != "mine" for hook in hooks)


CONFIG = """\
[queue]
url = "sqlite:///queue.db"
[receiver]
public_url = "{url}"
[stores.ceph]
endpoint = "http://127.0.0.1:{port}"
access_key_id = "accesskey"
secret_access_key = "secretofsomelength"
[[routes]]
source = "ceph:pics"
target = "ceph:copy"
"""

NOTIFIED = (
    '<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TopicConfiguration><Id>one</Id>'
    "<Topic>arn:aws:sns:default::{topic}</Topic><Event>s3:ObjectCreated:*</Event>"
    "<Event>s3:ObjectRemoved:*</Event></TopicConfiguration></NotificationConfiguration>"
)


@asynccontextmanager
async def store(
    folder: Path, answer: Callable[[web.Request], Awaitable[web.Response]]
) -> AsyncIterator[None]:
    """A store that gives `answer` to everything, and in `folder` a configuration that names it."""
    [port] = free_ports(1)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    (folder / "hookmirror.toml").write_text(CONFIG.format(url=URL, port=port))
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("mine", "ceph:pics: a topic calls the public URL: one"),
        ("other", "ceph:pics: no topic of this bucket calls the public URL"),
    ],
)
async def test_a_check_tells_topics_that_call_our_url_from_others(
    topic: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(text=NOTIFIED.format(topic=topic), content_type="application/xml")
        asked.append(await request.text())
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256")
        return web.Response(text=ANSWER.format(url=URL), content_type="application/xml")

    monkeypatch.setattr("console.hooks.answer.problem", lambda url, bucket: "")
    async with store(tmp_path, answer):
        result = await _run(tmp_path, "check")
        assert said in result.output
        assert "Action=ListTopics" in asked[0]
        assert result.exit_code == (0 if topic == "mine" else 1)
        assert ("docs/senders.md" in result.output) == (topic == "other")
        assert "hooks add" not in result.output
        told = json.loads((await _run(tmp_path, "check", "--json")).stdout)
        assert told["ok"] == (topic == "mine")
        changed = await _run(tmp_path, "add" if topic == "other" else "remove")
        assert changed.exit_code == 1
        assert "docs/senders.md" in changed.output


@pytest.mark.parametrize(
    ("status", "away"), [(503, True), (500, True), (501, False), (403, False), (400, False)]
)
async def test_a_store_that_does_not_answer_for_its_topics_is_not_taken_for_one_without(
    status: int,
    away: bool,
    tmp_path: Path,
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(text=NOTIFIED.format(topic="mine"), content_type="application/xml")
        return web.Response(status=status)

    async with store(tmp_path, answer):
        result = await _run(tmp_path, "list")
    assert ("its topics could not be asked for" in result.output) == away
    assert result.exit_code == int(away)


async def _run(folder: Path, *arguments: str) -> Result:
    whole = ("hooks", *arguments, "--config", str(folder / "hookmirror.toml"))
    return await asyncio.to_thread(CliRunner().invoke, cli.hookmirror, whole)
