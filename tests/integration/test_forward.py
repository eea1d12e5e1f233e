"""The action `forward` against a real HTTP server: what it sends, and what each answer makes of the task."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from common.errors import ActionFailed, ActionRefused, ConfigError, HookmirrorError, Throttled
from common.queue.port import Lane
from common.store.memory import MemoryBucket, MemoryStore
from common.tables import RouteSettings
from common.task import Claim, Task
from common.telemetry import Action
from tests.integration.test_s3_tls import authority  # noqa: F401 - a fixture
from tests.lab.proxy import proxy
from worker.actions import Acting
from worker.brake import Brake
from worker.forward import Forward, refusal, signature, wait_asked
from worker.job import Job, Route
from worker.verdict import Outcome

KEYS = bytes(range(32)), b"k" * 24
SECRETS = [f"whsec_{base64.b64encode(key).decode()}" for key in KEYS]
NOW = 1_700_000_000


@dataclass
class Taker:
    """Somebody who takes events: keeps each request, answers as told."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    hang: asyncio.Event = field(default_factory=asyncio.Event)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.hang.set()

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.taken.append(({**headers, ":path": request.path_qs}, await request.read()))
        await self.hang.wait()
        return web.Response(status=self.status, headers=self.headers, text=self.body)


@asynccontextmanager
async def taking(context: ssl.SSLContext | None = None) -> AsyncIterator[Taker]:
    taker = Taker()
    application = web.Application()
    application.router.add_route("*", "/{anything:.*}", taker.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    taker.url = f"{'https' if context else 'http'}://127.0.0.1:{port}/hooks?token=t"
    try:
        yield taker
    finally:
        taker.hang.set()
        await runner.cleanup()


@pytest.fixture
async def taker() -> AsyncIterator[Taker]:
    async with taking() as taker:
        yield taker


def task(**fields: Any) -> Task:
    known: dict[str, Any] = {"route": "r", "key": "фото 1.jpg", "claim": Claim.REMOVED, "received": 1.5e9}
    return Task(**known | fields)


async def send(url: str, task: Task, source: MemoryBucket | None = None, **route: Any) -> Any:
    """Do one job of a route that forwards to `url`."""
    known: dict[str, Any] = {"secret": " ".join(SECRETS), "timeout": 10}
    settings = RouteSettings(source="mcs:myfiles", forward=url, **known | route)
    bucket = source or MemoryStore().create("myfiles")
    async with Forward(settings, clock=lambda: NOW) as forward:
        acting = Acting(forward, look_after=1200, brake=Brake({}))
        return await acting(Job(task, Route("r", bucket, None), 1, Lane.LIVE, lambda: True))


async def refused(url: str, **route: Any) -> HookmirrorError:
    with pytest.raises(HookmirrorError) as caught:
        await send(url, task(), **route)
    return caught.value


async def test_an_event_arrives_as_a_cloud_event(taker: Taker) -> None:
    sent = task(claim=Claim.CREATED, etag="e", size=4, event="s3:ObjectCreated:Put")
    source = MemoryStore().create("myfiles")
    await source.write(sent.key, b"body", headers={}, metadata={})
    assert await send(taker.url, sent, source) == Outcome(Action.FORWARDED, "copy")
    ((headers, body),) = taker.taken
    assert headers[":path"] == "/hooks?token=t"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    event = json.loads(body)
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": sent.id,
        "source": "s3://myfiles",
        "type": "hookmirror.object.copy",
        "subject": "фото 1.jpg",
        "time": "2017-07-14T02:40:00+00:00",
        "datacontenttype": "application/json",
    }
    assert data["object"]["size"] == 4
    assert data["event"] == {"name": "s3:ObjectCreated:Put", "claim": "created", "etag": "e", "size": 4}


async def test_an_event_goes_by_the_proxy_that_the_environment_names(
    taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with proxy() as passing:
        monkeypatch.setenv("http_proxy", passing.url)
        await send(taker.url, task())
    assert passing.seen == [f"POST {taker.url}"]
    assert len(taker.taken) == 1


async def test_each_secret_signs_as_standard_webhooks_says_and_the_id_is_that_of_the_task(
    taker: Taker,
) -> None:
    sent = task()
    for _ in range(2):
        await send(taker.url, sent)
    for headers, body in taker.taken:
        assert headers["webhook-id"] == sent.id
        assert headers["webhook-timestamp"] == str(NOW)
        content = f"{sent.id}.{NOW}.{body.decode()}".encode()
        digests = [hmac.new(key, content, hashlib.sha256).digest() for key in KEYS]
        expected = [f"v1,{base64.b64encode(digest).decode()}" for digest in digests]
        assert headers["webhook-signature"].split(" ") == expected


def test_the_signature_is_that_of_the_specification() -> None:
    # The vector that the reference libraries test themselves with.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_done(taker: Taker, status: int) -> None:
    taker.status = status
    assert await send(taker.url, task()) == Outcome(Action.FORWARDED, "delete")


@pytest.mark.parametrize(
    ("status", "headers", "kind", "after"),
    [
        (429, {"Retry-After": "7"}, Throttled, 7),
        (429, {}, Throttled, 0),
        (503, {"Retry-After": "120"}, Throttled, 120),
        (503, {}, ActionFailed, 0),
        (500, {"Retry-After": "9"}, ActionFailed, 9),
        (502, {}, ActionFailed, 0),
        (408, {}, ActionFailed, 0),
        (401, {}, ActionFailed, 0),
        (404, {}, ActionFailed, 0),
        (400, {}, ActionRefused, None),
        (413, {}, ActionRefused, None),
        (422, {"Retry-After": "9"}, ActionRefused, None),
        (410, {}, ActionRefused, None),
        (304, {}, ActionFailed, 0),
    ],
)
async def test_an_answer_decides_what_becomes_of_the_task(
    taker: Taker, status: int, headers: dict[str, str], kind: type[Exception], after: float | None
) -> None:
    taker.status, taker.headers = status, headers
    error = await refused(taker.url)
    assert type(error) is kind
    assert str(status) in str(error)
    assert getattr(error, "retry_after", None) == after


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_nobody_else_hears_of_the_event(taker: Taker, status: int) -> None:
    async with taking() as elsewhere:
        taker.status, taker.headers = status, {"Location": elsewhere.url}
        error = await refused(taker.url)
        assert elsewhere.taken == []
    assert isinstance(error, ActionFailed)
    assert "redirects are refused" in str(error)


async def test_the_beginning_of_a_refusal_is_told_and_no_more_of_it(taker: Taker) -> None:
    taker.status, taker.body = 400, "no such\nlist " + "x" * 1_000_000
    error = await refused(taker.url)
    assert str(error).startswith("forward: answered 400: no such list xxx")
    assert len(str(error)) < 300


async def test_no_answer_in_time_is_tried_again(taker: Taker) -> None:
    taker.hang.clear()
    error = await refused(taker.url, timeout=0.2)
    assert isinstance(error, ActionFailed)
    assert "no answer within 0.2 s" in str(error)
    assert len(taker.taken) == 1


async def test_nobody_there_is_tried_again() -> None:
    async with taking() as gone:
        url = gone.url
    assert isinstance(await refused(url), ActionFailed)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("5", 5),
        (" 5 ", 5),
        ("-5", 0),
        ("soon", 0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float) -> None:
    assert wait_asked(value, NOW) == seconds


def test_every_status_that_is_no_success_has_a_verdict() -> None:
    for status in [*range(100, 200), *range(300, 600)]:
        assert isinstance(refusal(status, "", None, NOW), ActionFailed | ActionRefused | Throttled)


def served_by(folder: Path, name: str = "server.pem") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / name)
    return context


async def test_over_tls_only_whom_the_authorities_know_hears_of_an_event(authority: Path) -> None:  # noqa: F811
    folder = authority.parent
    async with taking(served_by(folder)) as taker:
        assert await send(taker.url, task(), ca_bundle=authority) == Outcome(Action.FORWARDED, "delete")
        taker.taken.clear()
        assert isinstance(await refused(taker.url), ActionFailed)  # nobody the system knows
        assert taker.taken == []
    async with taking(served_by(folder, "other.pem")) as other:  # a certificate for another address
        assert isinstance(await refused(other.url, ca_bundle=authority), ActionFailed)
        assert other.taken == []


def test_a_bundle_that_holds_no_certificate_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    keys: dict[str, Any] = {"secret": SECRETS[0], "ca_bundle": tmp_path / "ca.pem"}
    route = RouteSettings(source="mcs:a", forward="https://a", **keys)
    with pytest.raises(ConfigError, match="PEM certificates"):
        Forward(route)
