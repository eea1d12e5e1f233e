"""The configuration: where values come from, and what a wrong one is told."""

import base64
import json
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.errors import ConfigError
from common.routes import ActionTable, RouteSettings
from common.settings import DEFAULT_FILE, PREFIX, Settings, load, log_format
from common.urls import weakness
from console.init import filled

MINIMAL = """\
[stores.mcs]
endpoint = "https://hb.bizmrg.com"
region = "ru-msk"
[stores.aws]
region = "eu-central-1"
[[routes]]
source = "mcs:photos"
target = "aws:backup"
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, an environment that says nothing, and secrets in the folder `secrets`."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    return tmp_path


def write(text: str, name: str = DEFAULT_FILE) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def complaint(text: str) -> str:
    """What loading the configuration `text` says."""
    with pytest.raises(ConfigError) as caught:
        load(write(text))
    return str(caught.value)


def test_every_value_has_the_documented_default() -> None:
    settings = Settings()
    receiver, worker = settings.receiver, settings.worker
    assert settings.queue.url == "sqlite:///hookmirror.db"
    assert (receiver.port, receiver.public_url) == (8080, None)
    assert (worker.processes, worker.concurrency, worker.look_after, worker.attempts) == (1, "auto", 1200, 12)
    assert (settings.metrics.host, settings.metrics.port) == ("127.0.0.1", None)
    assert (settings.stores, settings.routes) == ({}, ())


def test_the_file_here_is_read_when_none_is_named() -> None:
    write(MINIMAL)
    assert load().stores["mcs"].region == "ru-msk"


def test_the_file_named_by_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKMIRROR_CONFIG", str(write(MINIMAL, "elsewhere/my.toml")))
    assert [route.source for route in load().routes] == ["mcs:photos"]


def test_the_file_named_in_the_call_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKMIRROR_CONFIG", "absent.toml")
    assert load(write(MINIMAL, "named.toml")).routes


def test_a_named_file_that_is_missing_is_an_error_and_says_how_to_write_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOKMIRROR_CONFIG", "absent.toml")
    with pytest.raises(
        ConfigError, match=r"^absent.toml: no such file.*hookmirror init --output absent.toml"
    ):
        load()


def test_the_environment_wins_over_secret_files_and_these_over_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("[worker]\nconcurrency = 1\nattempts = 1\nlook_after = 1300\n")
    for name, value in (("concurrency", "2"), ("attempts", "2")):
        write(value, f"secrets/hookmirror_worker__{name}")
    monkeypatch.setenv("HOOKMIRROR_WORKER__CONCURRENCY", "3")
    worker = load().worker
    assert (worker.concurrency, worker.attempts, worker.look_after) == (3, 2, 1300)


def test_one_key_of_a_store_can_come_from_elsewhere_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    write(MINIMAL)
    write("from-a-file\n", "secrets/HOOKMIRROR_STORES__MCS__SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOOKMIRROR_STORES__MCS__ACCESS_KEY_ID", "from-the-environment")
    store = load().stores["mcs"]
    assert (store.access_key_id, store.region) == ("from-the-environment", "ru-msk")
    assert store.secret_access_key is not None
    assert store.secret_access_key.get_secret_value() == "from-a-file"


def test_a_credential_of_systemd_is_a_secret_file_and_wins_over_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(MINIMAL)
    write(MINIMAL, "credentials/hookmirror.toml")
    write("one", "secrets/HOOKMIRROR_STORES__MCS__ACCESS_KEY_ID")
    write("two-two-two", "secrets/HOOKMIRROR_STORES__MCS__SECRET_ACCESS_KEY")
    write("three-three", "credentials/HOOKMIRROR_STORES__MCS__SECRET_ACCESS_KEY")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(place / "credentials"))
    store = load().stores["mcs"]
    assert store.secret_access_key is not None
    assert (store.access_key_id, store.secret_access_key.get_secret_value()) == ("one", "three-three")


def test_a_secret_volume_of_kubernetes_is_read(place: Path) -> None:
    write(MINIMAL)
    write("amqp://u:old-password@host/", "secrets/..2026_11_21/HOOKMIRROR_QUEUE__URL")
    write("amqp://u:new-password@host/", "secrets/..2026_11_22/HOOKMIRROR_QUEUE__URL")
    (place / "secrets/..data").symlink_to("..2026_11_22")
    (place / "secrets/HOOKMIRROR_QUEUE__URL").symlink_to("..data/HOOKMIRROR_QUEUE__URL")
    assert load().queue.url == "amqp://u:new-password@host/"


def test_files_of_others_among_the_secrets_are_nobodys_business() -> None:
    write("x", "secrets/postgres_password")
    write("y", "secrets/deeper/key.pem")
    write(MINIMAL)
    assert load().routes


def test_the_environment_alone_can_say_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKMIRROR_STORES", '{"a": {"region": "x"}, "b": {}}')
    monkeypatch.setenv("HOOKMIRROR_ROUTES", '[{"source": "a:from", "target": "b:to", "deletes": "keep"}]')
    monkeypatch.setenv("HOOKMIRROR_QUEUE__URL", "amqp://localhost")
    settings = load()
    assert (settings.queue.url, settings.routes[0].deletes, settings.stores["a"].region) == (
        "amqp://localhost",
        "keep",
        "x",
    )


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("[worker]\nconcurency = 8\n", ["worker.concurency: unknown key", 'Did you mean "concurrency"?']),
        ("[reciever]\nport = 1\n", ["reciever: unknown key", 'Did you mean "receiver"?']),
        ("[queue]\nuri = 'x'\n", ["queue.uri: unknown key", 'Did you mean "url"?']),
        (
            MINIMAL.replace("region =", "regoin =", 1),
            ["stores.mcs.regoin: unknown key", 'Did you mean "region"?'],
        ),
        (MINIMAL + "sufix = '.jpg'\n", ["the first route: sufix: unknown key", 'Did you mean "suffix"?']),
        ("[queue]\nzzz = 1\n", ["queue.zzz: unknown key", "Known here: url"]),
        (
            MINIMAL.replace("[stores.aws]", "[stores.a]"),
            ["the first route: target", '"aws"', "add  [stores.aws]"],
        ),
        (
            MINIMAL.replace("mcs:photos", "cloud:photos"),
            ["the first route: source", '"cloud"', "add  [stores.cloud]"],
        ),
        (
            MINIMAL.replace('target = "aws:backup"\n', ""),
            ["the first route: ", "target, exec and forward", 'target = "store:bucket"'],
        ),
        (MINIMAL.replace("mcs:photos", "photos"), ["the first route: source", "write STORE:BUCKET"]),
        (MINIMAL.replace("mcs:photos", "mcs:"), ["the first route: source", "write STORE:BUCKET"]),
        (MINIMAL.replace("mcs:photos", "mcs:photos/in"), ["the first route: source", "write STORE:BUCKET"]),
        (MINIMAL.replace("aws:backup", "mcs:photos"), ["the same bucket, mcs:photos", "another target"]),
        (
            MINIMAL + 'name = "r"\n[[routes]]\nname = "r"\nsource = "mcs:a"\ntarget = "aws:b"\n',
            ['two are called "r"', "name ="],
        ),
        (
            MINIMAL + '[[routes]]\nsource = "mcs:photos"\ntarget = "aws:backup"\n',
            ["two are called", "name ="],
        ),
        (MINIMAL + 'deletes = "maybe"\n', ["the first route: deletes", '"mirror", "owned" or "keep"']),
        (
            MINIMAL.replace("region", "access_key_id", 1),
            ["stores.mcs", "secret_access_key", "both or neither"],
        ),
        ("[receiver]\nport = 65536\n", ["receiver.port"]),
        (
            "[receiver]\nallowed_networks = ['10.0.0.1/8']\n",
            ["receiver.allowed_networks, entry 1", '"10.0.0.0/8" for the network'],
        ),
        (
            "[receiver]\npublic_url = 'hooks.example.org/x'\n",
            ["receiver.public_url", "https:// or http:// in front"],
        ),
        (
            "[receiver]\npublic_url = 'ftp://hooks.example.org/x'\n",
            ["receiver.public_url", "https:// or http:// in front"],
        ),
        ("[stores.mcs]\npublic_url = '/x'\n", ["stores.mcs.public_url: write it with https://"]),
        ("[stores.mcs]\npublic_url = 'https://h/{x}'\n", ["stores.mcs.public_url: it has a brace"]),
        (
            "[stores.mcs]\npublic_url = 'https://h/webhook'\n",
            ["stores.mcs.public_url and receiver.public_url have the same path"],
        ),
        (
            "[receiver]\nstack_url = 'https://h/caf%C3%A9'\n[stores.mcs]\npublic_url = 'https://i/café'\n",
            ["stores.mcs.public_url and receiver.stack_url have the same path"],
        ),
        (
            "[stores.mcs]\npublic_url = 'https://h/x'\n[stores.aws]\npublic_url = 'http://h/x'\n",
            ["stores.aws.public_url and stores.mcs.public_url have the same path", "each its own"],
        ),
        (
            "[stores.mcs]\nendpoint = 'hb.bizmrg.com'\n",
            ["stores.mcs.endpoint", "https:// or http:// in front"],
        ),
        ("[stores.mcs]\nendpoint = 'https://h:x'\n", ["stores.mcs.endpoint", "its port is no number"]),
        ("[stores.mcs]\nconsistency = 'maybe'\n", ["stores.mcs.consistency", '"strong" or "eventual"']),
        ("[worker]\nconcurrency = 0\n", ["worker.concurrency"]),
        ("[worker]\nlook_after = 3601\n", ["worker.look_after"]),
        ("[worker]\nattempts = 'many'\n", ["worker.attempts"]),
        ("[worker\n", ["line 1"]),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(text: str, sentences: list[str]) -> None:
    said = complaint(text)
    assert said.startswith(f"{DEFAULT_FILE}: ")
    for sentence in sentences:
        assert sentence in said


def test_every_wrong_key_is_named_at_once() -> None:
    said = complaint("[worker]\nconcurrency = 0\n[receiver]\nport = -1\n")
    assert len(said.splitlines()) == 2
    assert "worker.concurrency" in said
    assert "receiver.port" in said


def test_a_file_that_is_no_text_is_an_error_of_the_configuration() -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=DEFAULT_FILE):
        load()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("HOOKMIRROR_WORKERS__CONCURRENCY", "Did you mean HOOKMIRROR_WORKER__CONCURRENCY?"),
        ("HOOKMIRROR_PORT", "unknown key"),
        ("hookmirror_worker_concurrency", "Did you mean HOOKMIRROR_WORKER__CONCURRENCY?"),
        ("HOOKMIRROR_WORKER__CONCURENCY", "Did you mean HOOKMIRROR_WORKER__CONCURRENCY?"),
        ("HOOKMIRROR_STORES__MCS__REGOIN", "Did you mean HOOKMIRROR_STORES__MCS__REGION?"),
        ("HOOKMIRROR_ZZZ", "Known are: HOOKMIRROR_QUEUE, HOOKMIRROR_RECEIVER"),
        ("HOOKMIRROR_ROUTES__0__SOURCE", "Give all routes in one variable:  HOOKMIRROR_ROUTES="),
    ],
)
def test_a_variable_that_names_no_key_is_an_error(
    name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "8")
    with pytest.raises(ConfigError) as caught:
        load()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "key"),
    [("HOOKMIRROR_ROUTES", "routes"), ("HOOKMIRROR_STORES", "stores"), ("HOOKMIRROR_QUEUE", "queue")],
)
def test_bad_json_in_a_variable_is_an_error_that_names_it(
    name: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, '[{"source": ')
    with pytest.raises(ConfigError) as caught:
        load()
    assert key in str(caught.value).lower()


@pytest.mark.parametrize(
    "text",
    [
        '[stores.mcs]\nsecret_access_key = "{secret}"\n',
        '[stores.mcs]\naccess_key_id = 5\nsecret_access_key = "{secret}"\n',
        "[stores.mcs]\naccess_key_id = 'x'\nsecret_access_key = ['{secret}']\n",
        '[stores.mcs]\nsession_tokn = "{secret}"\n',
        '[stores]\nmcs = "{secret}"\n',
        "[stores.mcs]\naccess_key_id = 'x'\nsecret_access_key = {secret}\n",
    ],
)
def test_no_complaint_tells_a_secret(text: str) -> None:
    assert "hush-hush-4711" not in complaint(text.replace("{secret}", "hush-hush-4711"))


def test_a_secret_is_not_in_the_settings_as_they_print() -> None:
    settings = load(write('[stores.mcs]\naccess_key_id = "a"\nsecret_access_key = "hush-hush-4711"\n'))
    assert "hush-hush-4711" not in repr(settings) + str(settings) + settings.model_dump_json()


def secrets_of(**settings: Any) -> set[str]:
    return set(Settings.model_validate(settings).secrets())


def test_everything_secret_is_told_to_the_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKMIRROR_QUEUE__URL", "amqps://user:broker-password@host/vhost")
    monkeypatch.setenv("HOOKMIRROR_RECEIVER__PUBLIC_URL", "https://hooks.example.org/webhook/3f9c0a7b5d1e42")
    monkeypatch.setenv(
        "HOOKMIRROR_STORES",
        json.dumps(
            {
                "a": {"access_key_id": "i", "secret_access_key": "secret-a", "session_token": "token-of-a"},
                "b": {
                    "access_key_id": "i",
                    "secret_access_key": "secret-b",
                    "public_url": "https://h/b/path-of-store-b",
                },
                "c": {"profile": "p"},
            }
        ),
    )
    told = set(load().secrets())
    assert told >= {
        "broker-password",
        "3f9c0a7b5d1e42",
        "secret-a",
        "token-of-a",
        "secret-b",
        "path-of-store-b",
    }
    assert not told & {"user", "host", "webhook", "i", "p", ""}


def test_a_broker_password_is_secret_as_written_in_the_url_and_as_sent() -> None:
    told = secrets_of(queue={"url": "amqp://user:p%40ss%2Fword@host/"})
    assert {"p%40ss%2Fword", "p@ss/word"} <= told


def test_a_configuration_without_secrets_has_none() -> None:
    assert secrets_of() == set()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (None, "/webhook"),
        ("http://test.com", "/"),
        ("http://test.com/", "/"),
        ("https://hooks.example.org/webhook/3f9c", "/webhook/3f9c"),
        ("https://hooks.example.org:8443/a/b/", "/a/b/"),
    ],
)
def test_the_path_served_is_that_of_the_public_url(
    url: str | None, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKMIRROR_RECEIVER__PORT", "8080")
    if url is not None:
        monkeypatch.setenv("HOOKMIRROR_RECEIVER__PUBLIC_URL", url)
    receiver = load().receiver
    assert (receiver.path, receiver.public_url) == (path, url)


@pytest.mark.parametrize("key", ["RECEIVER__PUBLIC_URL", "RECEIVER__STACK_URL", "STORES__MCS__PUBLIC_URL"])
@pytest.mark.parametrize("more", ["?token=s3cret", "?", "#s3cret", "/?a=b#c"])
def test_what_would_guard_nothing_in_a_url_of_ours_ends_the_start(
    key: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HOOKMIRROR_{key}", f"https://hooks.example.org/webhook/3f9c{more}")
    with pytest.raises(ConfigError, match=r"_url: it has a user, a query .* guards") as caught:
        load()
    assert "s3cret" not in str(caught.value)


def test_a_user_in_a_url_of_ours_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKMIRROR_RECEIVER__PUBLIC_URL", "https://u:s3cret@hooks.example.org/webhook")
    with pytest.raises(ConfigError, match=r"public_url: it has a user") as caught:
        load()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "weak"),
    [
        ("https://hooks.example.org/", "no path"),
        ("https://hooks.example.org", "no path"),
        ("https://hooks.example.org/webhook", "can be guessed"),
        ("https://hooks.example.org/webhook/3f9c", "can be guessed"),
        ("https://hooks.example.org/hookmirror-webhook/photos-2024-production", "can be guessed"),
        ("https://203.0.113.7/mcs/webhook", "can be guessed"),
        ("https://hooks.example.org/webhook/3f9c0a7b5d1e42", ""),
        ("https://hooks.example.org/8f14e45f-ceea-467f-a8f0-1d2c3b4a5968", ""),
        ("https://hooks.example.org/webhook/9d4e1e23bd5b727046a9e3b4b7db57bd", ""),
        ("http://receiver:8080/webhook/of-the-demo", ""),
        ("http://127.0.0.1:8080/webhook", ""),
        ("http://localhost/webhook", ""),
        ("http://[::1]/webhook", ""),
    ],
)
def test_a_path_that_a_stranger_may_find_is_told(url: str, weak: str) -> None:
    said = weakness(url)
    assert weak in said
    assert bool(said) is bool(weak)


def test_a_route_without_a_name_is_called_by_what_it_does() -> None:
    route = RouteSettings(source="mcs:a", target="aws:b", prefix="in/", suffix=".jpg", target_prefix="out/")
    assert route.id == "mcs:a -> aws:b"
    assert RouteSettings(name="mine", source="mcs:a", target="aws:b").id == "mine"


SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


def route(**keys: Any) -> RouteSettings:
    return RouteSettings(source="mcs:a", **keys)


def test_a_route_with_an_action_is_called_by_what_it_does_and_tells_no_path_that_may_be_a_secret() -> None:
    assert route(exec="x.sh", suffix=".jpg").id == "mcs:a -> exec x.sh"
    forwarding = route(forward="https://example.org/in/T0KEN-of-somebody?key=another-secret", secret=SECRET)
    assert forwarding.id == "mcs:a -> forward example.org"


def test_what_all_kinds_of_routes_have_in_common_is_no_route_itself() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ActionTable(exec="x.sh")  # type: ignore[abstract] # the same is said here


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "this one none"),
        ({"target": "aws:b", "exec": "x"}, "this one target and exec"),
        ({"exec": "x", "forward": "https://a", "secret": SECRET}, "this one exec and forward"),
        ({"exec": "x", "target_prefix": "p/"}, "target_prefix means nothing beside exec"),
        ({"exec": "x", "deletes": "keep"}, "deletes means nothing beside exec"),
        ({"exec": "x", "secret": SECRET}, "secret means nothing beside exec"),
        ({"exec": "x", "timeout": 541}, "less than or equal to 540"),
        ({"exec": "x", "on_failure": "drop"}, "'retry' or 'bury'"),
        ({"target": "aws:b", "timeout": 5}, "timeout means nothing beside target"),
        ({"forward": "https://a", "secret": SECRET, "on_failure": "bury"}, "on_failure means nothing"),
        ({"forward": "https://a"}, "needs a secret to sign with: add secret. Make one:  echo whsec_"),
        ({"forward": "/hooks", "secret": SECRET}, "https:// or http:// in front"),
        ({"forward": "ftp://a/", "secret": SECRET}, "https:// or http:// in front"),
        ({"forward": "https://me:pass@a/", "secret": SECRET}, "neither a user nor a fragment"),
        ({"forward": "https://a", "secret": "hunter2hunter2"}, "24 to 64 bytes in base64"),
        ({"forward": "https://a", "secret": "whsec_c2hvcnQ="}, "24 to 64 bytes in base64"),
        ({"forward": "https://a", "secret": "whsec_not base64!"}, "24 to 64 bytes in base64"),
    ],
)
def test_a_route_has_one_action_and_the_keys_that_belong_to_it(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        route(**keys)
    assert sentence in str(caught.value)


def test_a_wrong_signing_secret_is_not_in_what_is_said_of_it() -> None:
    said = complaint(MINIMAL.replace('target = "aws:backup"', 'forward = "https://a"\nsecret = "hunter2"'))
    assert "whsec_" in said
    assert "hunter2" not in said


def test_what_signs_and_what_guards_the_way_there_is_hidden_from_logs() -> None:
    url = "https://example.org/services/T0KEN-of-somebody?key=another-secret&v=1"
    write(MINIMAL + f'[[routes]]\nsource = "mcs:a"\nforward = "{url}"\nsecret = "{SECRET} {SECRET}"\n')
    assert {SECRET, "T0KEN-of-somebody", "another-secret"} <= set(load().secrets())
    assert "1" not in set(load().secrets())


def test_several_secrets_sign_while_one_is_exchanged_for_another() -> None:
    other = f"whsec_{base64.b64encode(b'o' * 24).decode()}"
    signing = route(forward="https://a", secret=f"{SECRET} {other}")
    assert signing.signing_keys == (bytes(range(32)), b"o" * 24)


def test_two_routes_between_the_same_buckets_differ_in_their_filter_and_in_their_name() -> None:
    more = '[[routes]]\nsource = "mcs:photos"\ntarget = "aws:backup"\nprefix = "y/"\n'
    said = complaint(MINIMAL + 'prefix = "x/"\n' + more)
    assert 'two are called "mcs:photos -> aws:backup": give each its own  name' in said
    write(MINIMAL + 'prefix = "x/"\n' + more + 'name = "y"\n')
    assert [route.id for route in load().routes] == ["mcs:photos -> aws:backup", "y"]


def test_a_change_of_the_filter_renames_no_route() -> None:
    ids = {
        route(target="aws:b", prefix=prefix, target_prefix=prefix, suffix=".x").id for prefix in ("a/", "b/")
    }
    assert ids == {"mcs:a -> aws:b"}


STACKS = '[receiver]\nstack_url = "https://h/stacks/0123456789ab"\n[[stack_routes]]\n'


def test_a_stack_route_has_one_action_and_a_name() -> None:
    settings = load(write(STACKS + 'stack = "prod-*"\nstatus = ["*_FAILED"]\nlog = true\n'))
    [route] = settings.stack_routes
    assert (route.id, route.window) == ("stack prod-* *_FAILED -> log", 300.0)
    assert settings.receiver.stack_path == "/stacks/0123456789ab"
    assert "0123456789ab" in settings.secrets()


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (STACKS, "a route has one of exec, forward and log, and this one none.*log = true"),
        (STACKS + 'log = true\nexec = "x"\n', "this one exec and log"),
        (STACKS + "log = true\ntimeout = 5\n", "timeout means nothing beside log"),
        (STACKS + "log = true\nstatus = []\n", "the first stack route: status: nothing fits it"),
        (
            STACKS + "log = true\nstatus = 'CREATE_COMPLETE'\n",
            r'the first stack route: status = .*write  status = \["',
        ),
        (STACKS + "log = true\nstatus = ['create_*']\n", r'"create_\*": it fits no status'),
        (STACKS + "log = true\nstatus = ['*_FAILED', '']\n", '"": it fits no status'),
        (STACKS.replace("[[stack_routes]]", "[stack_routes]") + "log = true\n", r"\[\[stack_routes\]\]"),
        (STACKS + "log = true\nwindows = 5\n", 'Did you mean "window"'),
        (STACKS + "log = true\n[[stack_routes]]\nlog = true\n", "two are called"),
        ("[[stack_routes]]\nlog = true\n", 'stack_url = "https://'),
        ('[receiver]\nstack_url = "/stacks"\n', "receiver.stack_url: write it with https://"),
        ('[receiver]\nstack_url = "https://h/webhook"\n', "same path"),
        ('[receiver]\nsns_topics = ["my-topic"]\n', "receiver.sns_topics, entry 1"),
    ],
)
def test_what_is_wrong_with_a_stack_route_is_said(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        load(write(text))


def test_the_template_that_init_writes_loads() -> None:
    settings = load(write(filled()))
    assert re.fullmatch("/webhook/[0-9a-f]{32}", settings.receiver.path)
    assert [route.source for route in settings.routes] == ["mcs:my-bucket"]
    assert set(settings.stores) == {"mcs", "aws"}


def test_the_template_names_the_defaults_as_they_are() -> None:
    written, default = load(write(filled())), Settings()
    assert written.worker == default.worker
    assert written.queue == load(write("[worker]\nconcurrency = 32\n")).queue
    assert written.metrics == default.metrics
    assert (written.receiver.host, written.receiver.port) == (default.receiver.host, default.receiver.port)


@pytest.mark.parametrize("value", ["json", "human", "auto"])
def test_the_log_format_is_told_by_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert log_format() == "auto"
    monkeypatch.setenv("HOOKMIRROR_LOG", value)
    assert log_format() == value


def test_an_unknown_log_format_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKMIRROR_LOG", "xml")
    with pytest.raises(ConfigError, match='HOOKMIRROR_LOG = "xml": write json, human or auto'):
        log_format()


def test_relative_paths_are_relative_to_the_file_wherever_the_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "a folder"
    there.mkdir()
    botocore = find_spec("botocore")
    assert botocore is not None
    shutil.copy(Path(str(botocore.origin)).with_name("cacert.pem"), there / "ca.pem")
    monkeypatch.setenv("HOOKMIRROR_STORES__A__CA_BUNDLE", "ca.pem")
    (there / "hookmirror.toml").write_text(
        """
        [queue]
        url = "sqlite:///data/queue.db"
        [receiver]
        spool = "spool.db"
        """
    )
    for named in ("a folder/hookmirror.toml", there / "hookmirror.toml"):
        monkeypatch.chdir(tmp_path)
        settings = load(named)
        monkeypatch.chdir("/")
        assert settings.queue.url == f"sqlite:///{tmp_path}/a%20folder/data/queue.db"
        assert settings.receiver.spool == there / "spool.db"
        assert settings.stores["a"].ca_bundle == there / "ca.pem"
        assert settings.folder == there


def test_the_queue_that_nobody_named_is_beside_the_file(tmp_path: Path) -> None:
    Path("other").mkdir()
    Path("other/hookmirror.toml").write_text("[worker]\nconcurrency = 1\n")
    assert load("other/hookmirror.toml").queue.url == f"sqlite:///{tmp_path}/other/hookmirror.db"


@pytest.mark.parametrize("url", ["amqp://host/vhost", "sqlite:////var/lib/q.db"])
def test_what_is_no_relative_path_stays_as_it_is_written(url: str) -> None:
    Path("hookmirror.toml").write_text(f'[queue]\nurl = "{url}"\n[receiver]\nspool = "/var/lib/s.db"\n')
    settings = load()
    assert (settings.queue.url, settings.receiver.spool) == (url, Path("/var/lib/s.db"))


def test_no_configuration_at_all_is_an_error_that_says_how_to_write_one(tmp_path: Path) -> None:
    Path("hookmirror.toml").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=rf"{tmp_path}/hookmirror\.toml: no such file.* hookmirror init"):
        load()
