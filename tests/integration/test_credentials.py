"""Where a store's keys come from, and when they are looked for again: AWS's files, a program, our own."""

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic import SecretStr

from common.errors import ConfigError, RouteDown
from common.settings import PREFIX, load
from common.store import credentials as found_in
from common.store import wire
from common.store.credentials import AGAIN_AFTER, LOOK_AFTER, Credentials
from common.store.s3 import S3Store
from common.tables import StoreSettings
from tests.integration.test_s3_faults import LISTING, Answer, Request, Server, error
from tests.lab.clock import Clock
from tests.lab.until import until


@dataclass
class Strict(Server):
    """A store that knows one key."""

    key: str = "new-key"

    async def _request(self, reader: asyncio.StreamReader) -> Request | None:  # type: ignore[override]
        request = await Server._request(reader)
        if request is not None:
            knows = f"Credential={self.key}/" in request.headers.get("authorization", "")
            self.answers = [Answer(200, LISTING) if knows else error(403, "InvalidAccessKeyId")]
        return request


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Strict]:
    server = Strict()
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it, and an environment in which nobody gives credentials."""
    for name in [name for name in os.environ if name.startswith(("AWS_", PREFIX)) or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setattr(wire, "PAUSES", ())
    (tmp_path / ".aws").mkdir()
    return tmp_path


def profile(home: Path, text: str) -> None:
    """Write the profile p, in one step as an editor does."""
    (home / "new").write_text(f"[profile p]\n{text}\n")
    (home / "new").replace(home / ".aws/config")


def keys(key: str) -> str:
    return f"aws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}"


def settings(server: Server, profile: str | None = None) -> StoreSettings:
    return StoreSettings(endpoint=f"http://127.0.0.1:{server.port}", addressing="path", profile=profile)


async def keys_of(credentials: Credentials) -> str:
    return (await credentials.get_frozen_credentials()).access_key or ""


async def test_keys_that_are_not_there_yet_are_waited_for(home: Path) -> None:
    clock = Clock()
    credentials = Credentials("aws", StoreSettings(), clock=clock)
    with pytest.raises(RouteDown, match=r"^stores.aws: no credentials: none are found: add access_key_id"):
        await credentials.get_frozen_credentials()
    (home / ".aws/credentials").write_text(f"[default]\n{keys('late')}\n")
    clock.now += AGAIN_AFTER
    assert await keys_of(credentials) == "late"


async def test_a_machine_whose_metadata_service_comes_late_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EC2's IMDSv2: a token, the name of the role, its keys."""
    there = False
    given = {"Code": "Success", "AccessKeyId": "role", "SecretAccessKey": "s", "Token": "t"}
    given["Expiration"] = "2099-01-01T00:00:00Z"

    async def answer(request: web.Request) -> web.Response:
        if not there:
            return web.Response(status=503)
        if request.method == "PUT":
            return web.Response(text="a token")
        assert request.headers["x-aws-ec2-metadata-token"] == "a token"
        return web.Response(text="the-role") if request.path.endswith("/") else web.json_response(given)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    clock = Clock()
    credentials = Credentials("aws", StoreSettings(), clock=clock)
    try:
        with pytest.raises(RouteDown, match=r"^stores.aws: no credentials"):
            await credentials.get_frozen_credentials()
        there = True
        clock.now += AGAIN_AFTER
        assert await keys_of(credentials) == "role"
    finally:
        await site.stop()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("credential_process = /no/such/program", "is not there"),
        ("credential_process = sh -c 'echo hush-hush >&2; exit 1'", "the program or service"),
        ("credential_process = echo hush-hush", "prints no JSON"),
        ("credential_process = echo {}", "the program or service"),
        ("aws_access_key_id = alone", "a key without its secret"),
        ("role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = none", "source_profile"),
    ],
)
async def test_a_source_of_keys_that_fails_is_asked_again_and_tells_no_secret(
    home: Path, text: str, why: str
) -> None:
    profile(home, text)
    clock = Clock()
    credentials = Credentials("aws", StoreSettings(profile="p"), clock=clock)
    with pytest.raises(RouteDown, match=f"stores.aws: no credentials: .*{why}") as caught:
        await credentials.get_frozen_credentials()
    assert "hush-hush" not in str(caught.value)
    profile(home, keys("mended"))
    clock.now += AGAIN_AFTER
    assert await keys_of(credentials) == "mended"


async def test_a_program_that_hangs_is_not_waited_for_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found_in, "FIND_WITHIN", 0.2)
    os.mkfifo(home / "gate")
    profile(home, f"credential_process = cat {home}/gate")
    with pytest.raises(RouteDown, match="has not answered within"):
        await Credentials("aws", StoreSettings(profile="p")).get_frozen_credentials()
    (home / "gate").write_text("")
    await until(lambda: not any("waitpid" in one.name for one in threading.enumerate()), "the program ends")


async def test_a_profile_that_is_edited_takes_effect_by_itself(home: Path) -> None:
    profile(home, keys("old"))
    clock = Clock()
    credentials = Credentials("aws", StoreSettings(profile="p"), clock=clock)
    assert await keys_of(credentials) == "old"
    profile(home, keys("newer"))
    clock.now += max(AGAIN_AFTER, LOOK_AFTER)
    assert await keys_of(credentials) == "newer"


async def test_keys_go_on_while_the_file_is_broken(home: Path) -> None:
    profile(home, keys("old"))
    clock = Clock()
    credentials = Credentials("aws", StoreSettings(profile="p"), clock=clock)
    assert await keys_of(credentials) == "old"
    (home / ".aws/config").write_text("[profile p\n")
    clock.now += AGAIN_AFTER
    assert await keys_of(credentials) == "old"
    profile(home, keys("newer"))
    clock.now += AGAIN_AFTER
    assert await keys_of(credentials) == "newer"


async def test_many_requests_that_are_refused_begin_one_search(home: Path) -> None:
    profile(home, "credential_process = sh -c 'echo x >> $HOME/asked; exit 1'")
    credentials = Credentials("aws", StoreSettings(profile="p"), clock=Clock())
    asking = [credentials.get_frozen_credentials() for _ in range(20)]
    assert {type(end) for end in await asyncio.gather(*asking, return_exceptions=True)} == {RouteDown}
    assert (home / "asked").read_text().splitlines() == ["x"]


async def test_a_profile_that_is_not_there_at_the_start_is_an_error_of_the_configuration(
    server: Strict, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r'^stores.aws.profile = "p": AWS\'s files have no such profile'):
        await S3Store.open("aws", settings(server, profile="p"))
    monkeypatch.setenv("AWS_PROFILE", "q")
    with pytest.raises(ConfigError, match=r'^AWS_PROFILE = "q": AWS\'s files have no such profile'):
        await S3Store.open("aws", settings(server))


@pytest.mark.parametrize("file", ["config", "credentials"])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"[default\nregion = hush-hush\n", " (line 1)"),
        (b"aws_secret_access_key = hush-hush\n", " (line 1)"),
        (b"[default]\nhush-hush\n", " (line 2)"),
        (b"[default]\nregion = x\nregion = hush-hush\n", " (line 3)"),
        (b"[default]\n\n[default]\nregion = hush-hush\n", " (line 3)"),
        (b"[default]\ns3 =\n  hush-hush\n", ""),
        (b"\xff\xfehush-hush", ""),
    ],
)
async def test_a_file_of_awss_that_cannot_be_parsed_is_named_and_nothing_of_it_shown(
    server: Strict, home: Path, file: str, text: bytes, line: str
) -> None:
    broken = home / ".aws" / file
    broken.write_bytes(text)
    why = f"AWS's file {broken} cannot be parsed{line}: mend it"
    with pytest.raises(ConfigError) as at_start:
        await S3Store.open("aws", settings(server))
    assert str(at_start.value) == f"stores.aws: {why}"
    with pytest.raises(RouteDown) as later:
        await Credentials("aws", StoreSettings()).get_frozen_credentials()
    assert str(later.value).startswith(f"stores.aws: no credentials: {why}: add ")
    assert "hush" not in str(later.value)


@pytest.mark.parametrize("text", ["s3 = hush-hush", "defaults_mode = hush-hush"])
async def test_a_profile_with_a_value_that_is_none_ends_the_start_and_is_not_shown(
    server: Strict, home: Path, text: str
) -> None:
    profile(home, text)
    with pytest.raises(ConfigError, match=r"^stores.aws: it cannot be set up from what ~/.aws") as caught:
        await S3Store.open("aws", settings(server, profile="p"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("verb", ["check", "list"])
async def test_keys_that_the_store_refuses_are_looked_for_again(
    server: Strict, home: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(found_in, "AGAIN_AFTER", 0.0)
    counter = home / "count"
    program = home / "program"
    program.write_text(
        f"#!/bin/sh\nkey=old-key; test -f {counter} && key=new-key; touch {counter}\n"
        """echo "{'Version': 1, 'AccessKeyId': '$key', 'SecretAccessKey': 'secret-of-it'}" | tr "'" '"'\n"""
    )
    program.chmod(0o755)
    profile(home, f"credential_process = {program}")
    store = await S3Store.open("aws", settings(server, profile="p"))
    bucket = store.bucket("b")

    async def ask() -> None:
        if verb == "check":
            await bucket.check()
        else:
            _ = [entry async for entry in bucket.list()]

    try:
        with pytest.raises(RouteDown, match="InvalidAccessKeyId"):
            await ask()
        await ask()
    finally:
        await store.close()
    signed = [request.headers["authorization"] for request in server.requests]
    assert [re.findall("Credential=([^/]*)", one)[0] for one in signed] == ["old-key", "new-key"]


async def test_keys_of_the_configuration_are_read_again_when_the_store_refuses_them(
    server: Strict, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found_in, "AGAIN_AFTER", 0.0)
    file, secret = home / "hookmirror.toml", home / "secrets/HOOKMIRROR_STORES__AWS__SECRET_ACCESS_KEY"
    secret.parent.mkdir()
    secret.write_text("secret-of-old\n")
    text = f'[stores.aws]\nendpoint = "http://127.0.0.1:{server.port}"\naccess_key_id = "old-key"\n'
    file.write_text(text)
    whole = load(file)
    store = await S3Store.open("aws", whole.stores["aws"], lambda: whole.reread("aws"))
    try:
        with pytest.raises(RouteDown, match="InvalidAccessKeyId"):
            await store.bucket("b").check()
        file.write_text("[stores")  # half of an edit: the keys that are known go on
        with pytest.raises(RouteDown, match="InvalidAccessKeyId"):
            await store.bucket("b").check()
        file.write_text(text.replace("old", "new"))
        secret.write_text("secret-of-new\n")
        await store.bucket("b").check()
    finally:
        await store.close()
    kept = await store._account._credentials.get_frozen_credentials()
    assert (kept.access_key, kept.secret_key) == ("new-key", "secret-of-new")


def test_what_is_found_is_never_in_a_text_of_the_credentials() -> None:
    one = StoreSettings(access_key_id="a", secret_access_key=SecretStr("hush-hush-hush"))
    assert "hush" not in repr(Credentials("aws", one)) + str(vars(Credentials("aws", one)))
