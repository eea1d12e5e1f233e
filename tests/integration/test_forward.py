"""The action `forward` against a real HTTP server: what it sends, and what each answer makes of the task."""

import asyncio
import base64
import hashlib
import hmac
import html
import json
import random
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from pydantic import SecretStr

from common.errors import ActionFailed, ActionRefused, ConfigError, HookmirrorError, Throttled
from common.routes import RouteSettings
from common.store.memory import MemoryBucket, MemoryStore
from common.task import Claim, Task
from common.telemetry import Action
from tests.integration.test_s3_tls import authority  # noqa: F401 - a fixture
from tests.lab.lanes import LIVE
from tests.lab.proxy import proxy
from worker.actions import Acting, ObjectOrder
from worker.brake import Brake
from worker.forward import Forward, refusal, signature
from worker.job import Job, Route
from worker.verdict import Outcome, judge

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
    echoes: bool = False

    def __post_init__(self) -> None:
        self.hang.set()

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer = str(request.transport and request.transport.get_extra_info("peername"))
        self.taken.append(({**headers, ":path": request.path_qs, ":from": peer}, await request.read()))
        await self.hang.wait()
        if self.echoes:
            told = [html.escape(request.raw_path), request.path_qs, json.dumps(request.path)]
            self.body = f"cannot POST {' '.join(told)} {headers['webhook-signature']} sorry"
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
        return await acting(Job(task, Route("r", bucket, None), 1, LIVE, lambda: True))


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
        (407, {}, ActionFailed, 0),
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


@dataclass
class Closing:
    """A server that closes each connection it has answered on: `at_once`, or when the next request comes."""

    at_once: bool = False
    answers: bool = True
    connections: int = 0
    answered: list[bytes] = field(default_factory=list)
    unanswered: list[bytes] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.answers:
            self.answered.append(await self.request(reader))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
        if not self.at_once and (asked := await self.request(reader)):
            self.unanswered.append(asked)
        writer.close()
        self.closed.set()

    @staticmethod
    async def request(reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        return head + await reader.readexactly(length)


@asynccontextmanager
async def closing(closing: Closing, context: ssl.SSLContext | None = None) -> AsyncIterator[Closing]:
    server = await asyncio.start_server(closing.talk, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    closing.url = f"{'https' if context else 'http'}://127.0.0.1:{port}/hooks"
    async with server:
        yield closing


def forwarding(url: str, **route: Any) -> Forward:
    known: dict[str, Any] = {"secret": " ".join(SECRETS), "timeout": 10}
    return Forward(RouteSettings(source="mcs:a", forward=url, **known | route), clock=lambda: NOW)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_kept_connection_that_is_closed_as_the_next_request_comes_costs_no_attempt(
    authority: Path,  # noqa: F811
    *,
    tls: bool,
) -> None:
    context, trust = (served_by(authority.parent), {"ca_bundle": authority}) if tls else (None, {})
    async with closing(Closing(), context) as there, forwarding(there.url, **trust) as forward:
        orders = [ObjectOrder(task(), "myfiles", None) for _ in range(3)]
        for order in orders:
            assert await forward(order) == Outcome(Action.FORWARDED, "delete")
    assert len(there.answered) == len(orders)
    for order, request in zip(orders, there.answered, strict=True):
        assert order.task.id.encode() in request
    (again,) = (request for request in there.answered if b"connection: close" in request.lower())
    (first,) = there.unanswered
    assert again.lower().replace(b"connection: close\r\n", b"") == first.lower()  # under the same id


async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt() -> None:
    async with closing(Closing(at_once=True)) as there, forwarding(there.url) as forward:
        for _ in range(3):
            there.closed.clear()
            assert await forward(ObjectOrder(task(), "myfiles", None)) == Outcome(Action.FORWARDED, "delete")
            await there.closed.wait()
    assert there.connections == len(there.answered) == 3


async def test_a_new_connection_that_is_closed_without_an_answer_is_an_attempt_and_sent_once() -> None:
    async with closing(Closing(answers=False)) as there:
        error = await refused(there.url)
    assert isinstance(error, ActionFailed)
    assert str(error) == "forward: the connection was closed before the answer"
    assert there.connections == len(there.unanswered) == 1


async def test_both_tries_together_have_one_time_limit(taker: Taker) -> None:
    async with forwarding(taker.url, timeout=0.5) as forward:
        assert await forward(ObjectOrder(task(), "myfiles", None)) == Outcome(Action.FORWARDED, "delete")
        taker.hang.clear()
        with pytest.raises(ActionFailed, match=r"no answer within 0\.5 s"):
            await forward(ObjectOrder(task(), "myfiles", None))
    assert len(taker.taken) == 2


async def test_connections_are_kept(taker: Taker) -> None:
    async with forwarding(taker.url) as forward:
        for _ in range(3):
            await forward(ObjectOrder(task(), "myfiles", None))
    assert len({headers[":from"] for headers, _ in taker.taken}) == 1


SECRET_PARTS = ["T0PSECRETPATH", "s3cr3t", "käse brot", "pr0xypass"]


async def nowhere(taker: Taker) -> str:
    async with taking() as gone:
        return gone.url


async def not_tls(taker: Taker) -> str:
    return taker.url.replace("http://", "https://")


async def no_name(taker: Taker) -> str:
    return "http://no-such-host.invalid/hooks?token=t"


async def no_http(taker: Taker) -> str:
    return await raw(b"NOTHING LIKE HTTP\r\n\r\n")


async def cut(taker: Taker) -> str:
    return await raw(b"HTTP/1.1 400 Bad\r\nX-A")


async def silent(taker: Taker) -> str:
    return await raw(b"")


SERVERS: list[asyncio.Server] = []


async def raw(answer: bytes) -> str:
    """Start a server that answers so, and closes the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Closing.request(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    SERVERS.append(await asyncio.start_server(talk, "127.0.0.1", 0))
    return f"http://127.0.0.1:{SERVERS[-1].sockets[0].getsockname()[1]}/hooks?token=t"


@pytest.fixture
async def servers() -> AsyncIterator[None]:
    yield
    while SERVERS:
        SERVERS.pop().close()


def secretly(url: str) -> str:
    """Put secrets into the path and the query of `url`."""
    return url.partition("/hooks")[0] + "/T0PSECRETPATH/k%C3%A4se%20brot?sig=s3cr3t"


def shows_no_secret(error: Exception) -> None:
    seen = "".join(traceback.format_exception(error))
    seen += repr(error) + str(judge(error, 1, attempts=1, rng=random.Random(1)))
    for part in [*SECRET_PARTS, *map(quote, SECRET_PARTS), *SECRETS, "v1,", "webhook-signature"]:
        assert part.lower() not in seen.lower()


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(
    ("place", "why"),
    [
        (nowhere, "no connection: Connection refused"),
        (not_tls, "no TLS there: "),
        (no_name, "its name cannot be resolved"),
        (no_http, "the answer is no HTTP"),
        (cut, "the connection was closed before the answer"),
        (silent, "the connection was closed before the answer"),
    ],
)
async def test_why_there_was_no_answer_is_told_in_our_own_words(
    taker: Taker, place: Callable[[Taker], Awaitable[str]], why: str
) -> None:
    error = await refused(secretly(await place(taker)))
    assert isinstance(error, ActionFailed)
    assert str(error).startswith(f"forward: {why}")
    shows_no_secret(error)


@pytest.mark.usefixtures("servers")
async def test_a_refusal_whose_text_breaks_off_is_a_refusal() -> None:
    error = await refused(await raw(b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\nsho"))
    assert isinstance(error, ActionRefused)
    assert str(error).startswith("forward: answered 400")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("http://user:pr0xypass@127.0.0.1:1", "forward: no connection to the proxy: Connection refused"),
        ("http://user:pr0xypass@127.0.0.1:PORT", "forward: "),
        ("http://user:pr0xypass@127.0.0.1:77777", "forward: "),
        ("socks5://user:pr0xypass@127.0.0.1:1", "forward: "),
        ("http://user:pr0xypass@", "forward: "),
    ],
)
async def test_a_proxy_s_password_is_not_told_whatever_becomes_of_the_proxy(
    taker: Taker, monkeypatch: pytest.MonkeyPatch, scheme: str, way: str, why: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with proxy("another:login") as passing:
        monkeypatch.setenv(f"{scheme}_proxy", way.replace("PORT", str(passing.port)))
        error = await refused(secretly(taker.url).replace("http:", f"{scheme}:"))
    assert str(error).startswith(why)
    assert "407" in str(error) or "PORT" not in way
    shows_no_secret(error)


def test_a_proxy_that_is_no_url_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:pr0xypass@[::1")
    with pytest.raises(ConfigError) as caught:
        forwarding("http://a.example/hooks")
    shows_no_secret(caught.value)


async def test_a_refusal_whose_text_has_no_end_is_a_refusal_and_shows_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.forward.SAID_WITHIN", 0.1)
    done = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Closing.request(reader)
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 99\r\n\r\ncannot POST /T0PSEC")
        await done.wait()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
        assert str(await refused(secretly(url))) == "forward: answered 400"
        done.set()


@pytest.mark.parametrize("status", [400, 404, 500, 429])
async def test_what_an_answer_repeats_of_the_request_is_hidden(taker: Taker, status: int) -> None:
    taker.status, taker.echoes = status, True
    error = await refused(secretly(taker.url))
    assert str(error).startswith(f"forward: answered {status}: cannot POST ***")
    assert str(error).endswith("sorry")
    shows_no_secret(error)


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
    whole = RouteSettings(source="mcs:a", forward="https://a", secret=SecretStr(SECRETS[0]))
    route = whole.model_copy(update={"ca_bundle": tmp_path / "ca.pem"})  # it had some when it was checked
    with pytest.raises(ConfigError, match="PEM certificates"):
        Forward(route)
