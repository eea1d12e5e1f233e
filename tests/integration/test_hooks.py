"""`hookmirror hooks`: the real command on the stand-in for MCS, which asks the real receiver to confirm."""

import asyncio
import hashlib
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from common.errors import HookmirrorError
from common.store.notifications import NAMESPACE
from common.store.s3 import S3Store
from console import cli
from demo.events import Subscription, signature, write_configuration
from demo.mcs import Mcs
from demo.signed import SignedRequests
from demo.weed import ACCESS_KEY, SECRET_KEY, Weed, free_ports, settings_for
from tests.lab.programs import Program

BUCKET = "myfiles-ash"

PUBLIC = "http://127.0.0.1:{port}/webhook/3f9c0a77e1b24d58"
OWN = "http://127.0.0.1:{port}/webhook/77aa0b5d1e42ff13"

CONFIG = """\
[queue]
url = "sqlite:///{folder}/queue.db"
[receiver]
host = "127.0.0.1"
port = {port}
{public}
[stores.mcs]
endpoint = "{endpoint}"
access_key_id = "{access}"
secret_access_key = "{secret}"
[stores.aws]
endpoint = "{endpoint}"
access_key_id = "{access}"
secret_access_key = "{secret}"
[stores.other]
endpoint = "{other}"
access_key_id = "{access}"
secret_access_key = "{secret}"
public_url = "{own}"
"""

ROUTE = """
[[routes]]
name = "route {number}"
source = "mcs:{bucket}"
target = "aws:copy"
target_prefix = "to {prefix}{suffix}/"
prefix = "{prefix}"
suffix = "{suffix}"
"""

OTHER_ROUTE = f"""
[[routes]]
source = "other:{BUCKET}"
target = "aws:of-the-other"
"""

OTHERS = Subscription("1", "", ("s3:ObjectCreated:Put",), "reports/", ".csv")


@dataclass
class Ran:
    """What a command has said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Operator:
    """Somebody with a configuration and a command line."""

    def __init__(self, folder: Path, endpoint: str, port: int) -> None:
        self.folder, self.endpoint, self._port = folder, endpoint, port
        self.url, self.own = PUBLIC.format(port=port), OWN.format(port=port)
        self.config = folder / "hookmirror.toml"

    def routes(
        self, *filters: tuple[str, str], url: str | None = "", bucket: str = BUCKET, other: str = ""
    ) -> None:
        """Write the configuration, with a route for each prefix and suffix, and one from the bucket of store
        `other` when its endpoint is given."""
        public = self.url if url == "" else url
        text = CONFIG.format(
            folder=self.folder,
            port=self._port,
            public=f'public_url = "{public}"' if public else "",
            endpoint=self.endpoint,
            access=ACCESS_KEY,
            secret=SECRET_KEY,
            other=other or self.endpoint,
            own=self.own,
        )
        routes = (
            ROUTE.format(number=number, bucket=bucket, prefix=prefix, suffix=suffix)
            for number, (prefix, suffix) in enumerate(filters)
        )
        self.config.write_text(text + "".join(routes) + (OTHER_ROUTE if other else ""))

    async def __call__(self, *arguments: str) -> Ran:
        """Run `hookmirror hooks ...` in this process: a Python of its own takes a second to start."""
        whole = ("hooks", *arguments, "--config", str(self.config))
        result = await asyncio.to_thread(CliRunner().invoke, cli.hookmirror, whole)
        if isinstance(result.exception, HookmirrorError):
            return Ran(0, result.stdout, f"{type(result.exception).__name__}: {result.exception}")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    async def process(self, *arguments: str) -> Ran:
        """Run `hookmirror hooks ...` as it is run."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console", "hooks", *arguments, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Lab:
    """The stand-in with a bucket, its owner, and an operator of ours with a receiver that runs."""

    mcs: Mcs
    owner: SignedRequests
    hooks: Operator
    receiver: Program

    async def configuration(self) -> bytes:
        """What the bucket has."""
        return (await self.owner("GET", BUCKET, query="notification")).body

    async def set_up(self, *subscriptions: Subscription) -> None:
        """Register by hand, as the owner."""
        await self.owner("PUT", BUCKET, query="notification", body=write_configuration([*subscriptions]))


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    server = Weed(tmp_path_factory.mktemp("weed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, int]]:
    """A real receiver, and its port."""
    folder, port = tmp_path_factory.mktemp("receiver"), free_ports(1)[0]
    operator = Operator(folder, "http://127.0.0.1:9", port)
    operator.routes(("", ""), other="http://127.0.0.1:10")
    program = Program(folder, 0, "receiver", operator.config)
    try:
        asyncio.run(program.started())
        yield program, port
    finally:
        program.kill()


@pytest.fixture(autouse=True)
def logging_put_back() -> Iterator[None]:
    """Give the process its own logging back after a command that configured ours."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
async def lab(weed: Weed, receiver: tuple[Program, int], tmp_path: Path) -> AsyncIterator[Lab]:
    async with Mcs(weed.settings) as mcs, SignedRequests(settings_for(mcs.endpoint)) as owner:
        store = await S3Store.open("mcs", weed.settings)
        await store.bucket(BUCKET).create()
        await store.close()
        program, port = receiver
        operator = Operator(tmp_path, mcs.endpoint, port)
        operator.routes(("", ""))
        yield Lab(mcs, owner, operator, program)


@asynccontextmanager
async def another_subscriber() -> AsyncIterator[str]:
    """Somebody else's hook at the bucket; its URL answers each confirmation."""

    async def handle(request: web.Request) -> web.Response:
        body = await request.json()
        answer = signature(url, body["TopicArn"], body["Timestamp"], body["Token"])
        return web.json_response({"signature": answer})

    app = web.Application()
    app.router.add_post("/theirs", handle)
    async with serving(app) as base:
        url = f"{base}/theirs"
        yield url


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_what_is_added_is_confirmed_by_the_receiver_and_found_as_needed(lab: Lab) -> None:
    before = await lab.hooks.process("check")
    assert (before.code, before.out.count("missing")) == (1, 1)
    asked = lab.receiver.did("subscription")
    added = await lab.hooks.process("add")
    assert (added.code, added.out.count(": added: hookmirror-")) == (0, 1), added.err
    assert "MCS calls only 80 and 443" in added.err
    assert lab.receiver.did("subscription") == asked + 1
    after = await lab.hooks("check", "--json")
    assert (after.code, after.json["ok"]) == (0, True)
    assert after.json["buckets"][0]["handshake"] == "ok"
    await lab.owner("PUT", BUCKET, "k", body=b"x")
    await lab.mcs.drained()
    assert (lab.mcs.sent.events, lab.mcs.sent.refused) == (1, 0)


async def test_adding_again_changes_nothing_and_asks_nobody(lab: Lab) -> None:
    await lab.hooks("add")
    before, asked = await lab.configuration(), lab.receiver.did("subscription")
    again = await lab.hooks("add", "--json")
    assert (again.code, again.json[0]["added"], again.json[0]["removed"]) == (0, [], [])
    assert (await lab.configuration(), lab.receiver.did("subscription")) == (before, asked)


async def test_the_hooks_of_others_stay_through_adding_and_removing(lab: Lab) -> None:
    async with another_subscriber() as theirs:
        others = Subscription(OTHERS.id, theirs, OTHERS.events, OTHERS.prefix, OTHERS.suffix)
        await lab.set_up(others)
        before = await lab.configuration()
        assert (await lab.hooks("add")).code == 0
        listed = (await lab.hooks("list", "--json")).json[0]["hooks"]
        assert [(hook["ours"], hook["target"]) for hook in listed] == [(True, lab.hooks.url), (False, theirs)]
        asked = await lab.hooks("remove")
        assert (asked.code, asked.out.count(": would be removed: ")) == (2, 1)
        assert "remove this hook? Nobody is there to be asked: add --yes" in asked.err
        assert await lab.configuration() != before
        removed = await lab.hooks("remove", "--yes")
        assert (removed.code, removed.out.count(": removed: ")) == (0, 1)
        assert await lab.configuration() == before
        assert "none of ours, 1 of others" in (await lab.hooks("remove", "--yes")).out


async def test_each_filter_is_registered_and_what_was_by_hand_gives_way(lab: Lab) -> None:
    await lab.set_up(Subscription("by hand", lab.hooks.url, ("s3:ObjectCreated:*",)))
    lab.hooks.routes(("in/", ".jpg"), ("a & b<", ""))
    dry = await lab.hooks("add", "--dry-run")
    assert (dry.out.count("would be added"), dry.out.count("would be removed")) == (2, 1)
    assert b"by hand" in await lab.configuration()
    assert (await lab.hooks("add")).code == 0
    hooks = (await lab.hooks("list", "--json")).json[0]["hooks"]
    assert {(hook["prefix"], hook["suffix"]) for hook in hooks} == {("in/", ".jpg"), ("a & b<", "")}
    assert {hook["target"] for hook in hooks} == {lab.hooks.url}
    assert (await lab.hooks("check")).code == 0


async def test_a_receiver_that_does_not_confirm_is_found_by_check_and_registers_nothing(lab: Lab) -> None:
    lab.hooks.routes(("", ""), url=lab.hooks.url + "/elsewhere")
    checked = await lab.hooks("check")
    assert (checked.code, "it answers 404, not 200" in checked.out) == (1, True)
    added = await lab.hooks("add")
    assert (added.code, added.out) == (1, "")
    assert "answered 404" in added.err
    lab.hooks.routes(("", ""), url=lab.hooks.url.replace("127.0.0.1", "localhost"))  # the same to TCP alone
    assert "its signature is wrong" in (await lab.hooks("check")).out
    assert "wrong signature" in (await lab.hooks("add")).err
    lab.hooks.routes(("", ""), url=f"http://127.0.0.1:{free_ports(1)[0]}/")
    assert "no answer" in (await lab.hooks("check")).out
    assert b"SimpleTopic" not in await lab.configuration()


async def test_each_name_of_a_bucket_is_registered_and_checked_at_the_url_of_its_store(lab: Lab) -> None:
    lab.hooks.routes(("", ""), other=lab.hooks.endpoint)
    added = await lab.hooks("add", "--json")
    assert [len(bucket["added"]) for bucket in added.json] == [2, 0], added.err  # it is one bucket
    hooks = (await lab.hooks("list", "--json", f"other:{BUCKET}")).json[0]["hooks"]
    assert {(hook["ours"], hook["target"]) for hook in hooks} == {
        (True, lab.hooks.url),
        (True, lab.hooks.own),
    }
    checked = await lab.hooks("check", "--json")
    told = [(bucket["public_url"], bucket["handshake"]) for bucket in checked.json["buckets"]]
    assert told == [(lab.hooks.url, "ok"), (lab.hooks.own, "ok")]
    assert (checked.code, (await lab.hooks("add")).out.count("added")) == (0, 0)
    await lab.owner("PUT", BUCKET, "k", body=b"x")
    await lab.mcs.drained()
    assert (lab.mcs.sent.events, lab.mcs.sent.refused) == (2, 0)
    assert (await lab.hooks("remove", "--yes", f"other:{BUCKET}")).out.count("removed") == 2
    assert b"SimpleTopic" not in await lab.configuration()


async def test_a_store_with_a_url_of_its_own_needs_no_other(lab: Lab) -> None:
    lab.hooks.routes(url=None, other=lab.hooks.endpoint)
    assert (await lab.hooks("add")).out.count(": added: ") == 1
    assert (await lab.hooks("check")).code == 0


async def test_what_the_configuration_lacks_is_said(lab: Lab) -> None:
    lab.hooks.routes(("", ""), url=None)
    assert "ConfigError: receiver.public_url is not set" in (await lab.hooks("add")).err
    ran = await lab.hooks.process("check")
    assert (ran.code, "receiver.public_url is not set" in ran.err) == (2, True)
    lab.hooks.routes()
    assert "ConfigError: routes: there is none" in (await lab.hooks("list")).err
    lab.hooks.routes(("a\\ufffe", ""))
    assert "XML cannot hold" in (await lab.hooks("add")).err
    assert "STORE:BUCKET" in (await lab.hooks("list", "nowhere:b")).err


async def test_a_hook_is_taken_back_when_no_route_is_left(lab: Lab) -> None:
    await lab.hooks("add")
    lab.hooks.routes()
    assert (await lab.hooks("remove", "--yes", f"mcs:{BUCKET}")).out.count(": removed: ") == 1
    assert b"SimpleTopic" not in await lab.configuration()


async def test_a_bucket_that_is_not_there_fails_alone(lab: Lab) -> None:
    ran = await lab.hooks("add", "mcs:no-such-bucket", f"mcs:{BUCKET}")
    assert (ran.code, ran.out.count("added")) == (1, 1)
    assert "NoSuchBucket" in ran.err


STANDARD = (
    f'<?xml version="1.0"?>\n<NotificationConfiguration xmlns="{NAMESPACE}">\n  <TopicConfiguration>'
    "<Id>t</Id><Topic>arn:aws:sns:eu-central-1:1:t</Topic><Event>s3:ObjectCreated:*</Event>"
    "</TopicConfiguration>\n  <EventBridgeConfiguration/>\n</NotificationConfiguration>\n"
).encode()


class Keeper:
    """A store of one configuration that keeps every byte; a forgetful one only takes it."""

    def __init__(self, *, forgetful: bool = False) -> None:
        self.body = STANDARD
        self.put: web.Request | None = None
        self._forgetful = forgetful

    async def handle(self, request: web.Request) -> web.Response:
        assert (request.raw_path, request.content_type) in {
            (
                f"/{BUCKET}/?notification=",
                "application/xml" if request.method == "PUT" else "application/octet-stream",
            )
        }
        if request.method == "PUT":
            body = await request.read()
            assert request.headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
            self.put = request
            self.body = self.body if self._forgetful else body
        return web.Response(body=self.body if request.method == "GET" else b"")

    @asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[Operator]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        async with serving(app) as endpoint:
            operator = Operator(folder, endpoint, 80)
            operator.routes(("", ""))
            yield operator


async def test_standard_topics_are_listed_and_keep_their_bytes(tmp_path: Path) -> None:
    keeper = Keeper()
    async with keeper.serving(tmp_path) as hooks:
        table = (await hooks("list")).out
        assert re.search(r"another's +t +Topic +s3:ObjectCreated:\* +\* +arn:aws:sns:eu-central-1:1:t", table)
        added = await hooks("add")
        assert (added.code, added.err) == (0, "")
        head, _, tail = STANDARD.partition(b"</NotificationConfiguration>")
        assert keeper.body.startswith(head + b"<SimpleTopicConfiguration><Id>hookmirror-")
        assert keeper.body.endswith(b"</SimpleTopicConfiguration></NotificationConfiguration>" + tail)
        assert (await hooks("remove", "--yes")).code == 0
        assert keeper.body == STANDARD


async def test_the_digest_of_the_configuration_is_signed(tmp_path: Path) -> None:
    keeper = Keeper()
    async with keeper.serving(tmp_path) as hooks:
        await hooks("add")
    assert keeper.put is not None
    signed = re.search(r"SignedHeaders=([^,]+)", keeper.put.headers["Authorization"])
    assert signed is not None
    assert {"content-md5", "content-type", "host", "x-amz-content-sha256", "x-amz-date"} <= set(
        signed[1].split(";")
    )


async def test_a_store_that_drops_what_it_does_not_know_is_not_believed(tmp_path: Path) -> None:
    async with Keeper(forgetful=True).serving(tmp_path) as hooks:
        added = await hooks("add")
    assert (added.code, "does not show them" in added.err) == (1, True)
