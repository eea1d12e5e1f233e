"""Every key of the configuration with wrong values, from the file and from the environment: exit 2, and one
sentence that names the key and what to write, in no words of a library."""

import json
import os
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from common import service
from common.errors import ConfigError
from common.settings import PREFIX, Settings, load

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY="

WHOLE: dict[str, Any] = {
    "receiver": {"stack_url": "https://hooks.example.org/stacks/0123456789abcdef"},
    "stores": {
        "mcs": {"endpoint": "https://hb.ru-msk.vkcloud-storage.ru", "region": "ru-msk"},
        "aws": {"region": "eu-central-1"},
    },
    "routes": [{"source": "mcs:photos", "target": "aws:backup"}],
    "stack_routes": [{"log": True}],
}
"""A configuration in which nothing is wrong."""

NO_TEXT = ["5", "true", '["x"]', "{a = 1}", "2026-01-01", '""', '"  "', '" x"', '"x\\ny"', '"x\\u0000"']
NO_NUMBER = ['"many"', "true", "[1]", "{a = 1}", "nan", "inf", '""', "-1", '"0x10"', '"8 MB"']
NO_SWITCH = ['"maybe"', "2", "[true]", "{a = 1}", '""']
NO_CHOICE = ['"maybe"', "5", "true", '["x"]', '""', '"AUTO"']
NO_LIST = ["5", "true", '"x"', "{a = 1}", '""', "[5]", "[true]", "[[]]", '[""]', '[" x"]']
NO_TABLE = ["5", "true", '"x"', '["x"]', '""']
NO_SECRET = [
    "5",
    "true",
    '["secret-secret"]',
    '""',
    '"short"',
    '"sevench"',
    '"line one\\nline two"',
    '" secret-x"',
    *('"secret secret"', '"secret\\tsecret"', '"секрет-секрет"', '"“secret-secret”"'),
    *("'\"secret-secret\"'", "\"'secret-secret'\"", '"`secret-secret`"'),
]
NO_URL = [
    *NO_TEXT,
    *('"hooks.example.org/x"', '"/x"', '"ftp://h/x"', '"https://"', '"https:///x"', '"https://h:port/x"'),
    *('"https://h:99999/x"', '"https://h:0/x"', '"https://[::1/x"', '"https://a b/x"', '"https://h/a b"'),
    *('"https://user:password@h/x"', '"https://h_ö\\u0000/x"', '"https://-h/x"', '"https://a..b/x"'),
]
NO_URL_OF_OURS = [
    *(*NO_URL, '"https://h/{token}"', '"https://h/docs"', '"https://h/openapi.json"', '"http://h:81/ping"'),
    *('"https://h/healthz"', '"https://h/readyz"', '"https://h/%72eadyz"'),
]
NO_HOST = [
    *NO_TEXT,
    '"0.0.0.0:8080"',
    '"http://0.0.0.0"',
    '"[::]"',
    '"256.1.1.1"',
    '"a b"',
    '"localhost/x"',
    '"1.2.3"',
]
NO_PORT = [*NO_NUMBER, "65536", "8.5", '"http"']
NO_BUCKET = [
    *NO_TEXT,
    *('"mcs"', '"mcs:"', '":photos"', '"mcs:photos/in"', '"s3://photos"', '"mcs:ph otos"', '"mcs:*"'),
    *('"mcs:photos:x"', '"mcs:.."', '"nowhere:photos"', '"MCS:photos"'),
]
NO_KEY = [
    "5",
    "true",
    '["x"]',
    "{a = 1}",
    '"/photos/"',
    '"photos/*"',
    '" photos/"',
    '"photos/\\n"',
    '"a\\nb"',
    f'"{"x" * 1001}"',
    f'"{"я" * 501}"',
]
NO_FILE = ["5", "true", '["x"]', '""', '"no/such/file.pem"', '"."', '"hookmirror.toml"']
NO_NETWORKS = [*NO_LIST, '["10.0.0.1/8"]', '["proxy.local"]', '["10.0.0.0/33"]', '["1.2.3"]', '["::1/200"]']

WRONG: dict[str, list[str]] = {
    "queue": NO_TABLE,
    "queue.management_url": [*NO_TEXT, '"host:15672"', '"amqp://host"', '"http://"', '"http://host:port"'],
    "queue.url": [
        *NO_TEXT,
        *(
            '"redis://x"',
            '"memory://"',
            '"hookmirror.db"',
            '"sqlite://hookmirror.db"',
            '"sqlite:///"',
            '"sqlite:hookmirror.db"',
        ),
        *(
            '"sqlite:///:memory:"',
            '"sqlite:hookmirror.db"',
            '"sqlite:///folder/"',
            '"amqp:///vhost"',
            '"amqp://"',
            '"amqp:host"',
        ),
        *('"amqp://u:pass#word1@host/"', '"amqp://u:pass/word1@host/"', '"amqp://u:pass?word1@host/"'),
        *('"amqp://u:pass[word1@host/"', '"amqp://u:password1@host:port/"', '"amqp://u:password1@host:0/"'),
        *(
            '"amqp://u:x@host/"',
            '"amqp://u:@host/"',
            '"amqp://u:pass%word1@host/"',
            '"amqp://u:pass word1@host/"',
        ),
        *('"amqp://u:password1@host/#"', '"amqp://u:password1@host/?heartbeat=often"', '"amqp://h:99999/"'),
    ],
    "receiver": NO_TABLE,
    "receiver.host": NO_HOST,
    "receiver.port": NO_PORT,
    "receiver.public_url": [
        *NO_URL_OF_OURS,
        '"https://hooks.example.org/stacks/0123456789abcdef"',
    ],
    "receiver.stack_url": [*NO_URL_OF_OURS, '"https://h/webhook"'],
    "receiver.sns_topics": [*NO_LIST, '["my-topic"]', '["arn:aws:sqs:eu-central-1:123456789012:x"]'],
    "receiver.docs": NO_SWITCH,
    "receiver.spool": ["5", "true", '["x"]', '""', '"."', '"folder/"', '"a\\u0000b"'],
    "receiver.allowed_networks": NO_NETWORKS,
    "receiver.trusted_proxies": NO_NETWORKS,
    "receiver.requests_per_second": [*NO_NUMBER, "0", "1e9"],
    "receiver.burst": [*NO_NUMBER, "0", "1.5"],
    "receiver.max_connections": [*NO_NUMBER, "0", "1.5", "100000"],
    "worker": NO_TABLE,
    "worker.processes": [*NO_NUMBER, "0", "257", "1.5"],
    "worker.concurrency": [*NO_NUMBER, "0", "1001", "1.5"],
    "worker.look_after": [*NO_NUMBER, "0", "1", "899", "1199", "3601", "1200.5"],
    "worker.allow_short_look_after": NO_SWITCH,
    "worker.attempts": [*NO_NUMBER, "0", "1001"],
    "worker.drain": [*NO_NUMBER, "3601"],
    "worker.memory": [*NO_NUMBER, "0", "1000", '"128MiB"'],
    "metrics": NO_TABLE,
    "metrics.host": NO_HOST,
    "metrics.port": [*NO_PORT, "8080"],
    "stores": NO_TABLE,
    "stores.mcs": NO_TABLE,
    "stores.mcs.endpoint": [
        *NO_URL,
        *('"hb.ru-msk.vkcloud-storage.ru"', '"s3://photos"', '"https://h?x=1"', '"https://h#x"'),
        *('"https://photos.hb.ru-msk.vkcloud-storage.ru"', '"https://photos.s3.eu-central-1.amazonaws.com"'),
        *('"https://h/photos"', '"https://h:9000/photos/"', '"https://h/s3/photos"', '"https://h/ph%6ftos"'),
    ],
    "stores.mcs.public_url": [*NO_URL_OF_OURS, '"https://h/webhook"'],
    "stores.mcs.region": [
        *(*NO_TEXT, '"ru msk"', '"ru/msk"', '"ru,msk"', '"https://x"', '"RU-MSK"', '"ru-Msk"'),
    ],
    "stores.mcs.profile": NO_TEXT,
    "stores.mcs.access_key_id": [
        *(*NO_TEXT, '"key id"', '"ключ"', '"key"', '"key\\u00a0id"', "'\"key\"'", "\"'key'\""),
    ],
    "stores.mcs.secret_access_key": [*NO_SECRET, '"secret-secret"'],
    "stores.mcs.session_token": [*NO_SECRET, '"token-token"'],
    "stores.mcs.addressing": NO_CHOICE,
    "stores.mcs.key_encoding": NO_CHOICE,
    "stores.mcs.max_requests_per_second": [*NO_NUMBER, "0"],
    "stores.mcs.ca_bundle": NO_FILE,
    "stores.mcs.storage_classes": NO_LIST[:-1],
    "stores.mcs.tags": NO_CHOICE,
    "stores.mcs.consistency": NO_CHOICE,
    "routes": ["5", "true", '"x"', '"mcs:a"', '["x"]', "{source = 'mcs:a', target = 'aws:b'}"],
    "routes.0": ["5", '"x"'],
    "routes.0.name": [*NO_TEXT, f'"{"x" * 201}"'],
    "routes.0.source": [*NO_BUCKET, '"aws:backup"'],
    "routes.0.target": [*NO_BUCKET, '"mcs:photos"'],
    "routes.0.exec": [*NO_TEXT, '"beside-a-target.sh"'],
    "routes.0.forward": [*NO_URL, '"https://example.org/beside-a-target"'],
    "routes.0.timeout": [*NO_NUMBER, "0", "541", "5"],
    "routes.0.on_failure": [*NO_CHOICE, '"bury"'],
    "routes.0.secret": ["5", "true", '["x"]', '""', '"whsec_"', '"hunter2-hunter2"', f'"{SECRET}"'],
    "routes.0.ca_bundle": NO_FILE,
    "routes.0.prefix": NO_KEY,
    "routes.0.suffix": [one for one in NO_KEY if "/photos" not in one],
    "routes.0.target_prefix": NO_KEY,
    "routes.0.deletes": NO_CHOICE,
    "routes.0.brake": NO_TABLE,
    "routes.0.brake.deletes": [*NO_NUMBER, "0", "1.5"],
    "routes.0.brake.window": [*NO_NUMBER, "0"],
    "routes.0.storage_class": [*NO_TEXT, '"COLD"', '"standard_ia"'],
    "routes.0.sse": [*NO_CHOICE, '"aes256"', '"kms"'],
    "routes.0.kms_key": [*NO_TEXT, '"arn:aws:kms:x"'],
    "routes.0.max_bytes_per_second": [*NO_NUMBER, "0", "50", '"50MB"'],
    "routes.0.takes_over": [*NO_LIST, '["old:photos"]', '["https://old.example.org"]', '["https://h/a/"]'],
    "stack_routes": ["5", "true", '"x"', '["x"]', "{log = true}"],
    "stack_routes.0": ["5", '"x"'],
    "stack_routes.0.name": NO_TEXT,
    "stack_routes.0.exec": [*NO_TEXT, '"beside-log.sh"'],
    "stack_routes.0.forward": [*NO_URL, '"https://example.org/beside-log"'],
    "stack_routes.0.timeout": [*NO_NUMBER, "0", "541", "5"],
    "stack_routes.0.on_failure": [*NO_CHOICE, '"bury"'],
    "stack_routes.0.secret": ["5", '""', f'"{SECRET}"'],
    "stack_routes.0.ca_bundle": NO_FILE,
    "stack_routes.0.stack": NO_TEXT,
    "stack_routes.0.status": [*NO_LIST, "[]", '["create_complete"]', '["*_failed"]'],
    "stack_routes.0.log": [*NO_SWITCH, "false"],
    "stack_routes.0.window": [*NO_NUMBER, "0", "86401"],
}
"""Wrong values of each key, as TOML."""

FOREIGN = re.compile(
    r"(?i:pydantic|Input should|Value error|traceback|should be|\bvalid\b|validation|Extra inputs|instance of"
    r"|Decoder|JSONDecode|errno)|Error\b|Exception|None\b|NoneType|\bstr\b|\bint\b|\bdict\b|\bfloat\b|\bbool\b|tuple"
    r"|could not be cast|base 10|urlopen|Expecting",
)
"""Words of libraries and of Python."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and an environment and secrets that say nothing."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "folder").mkdir()
    return tmp_path


def toml(value: Any) -> str:
    """`value` as TOML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return value.text if isinstance(value, Literally) else json.dumps(value)


class Literally:
    """TOML as it stands."""

    def __init__(self, text: str) -> None:
        self.text = text


def with_value(key: str, text: str) -> str:
    """The whole configuration as TOML, with `text` at `key`."""
    whole = json.loads(json.dumps(WHOLE))
    at: Any = whole
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for part in path:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    at[last] = Literally(text)
    return "".join(f"{name} = {toml(value)}\n" for name, value in whole.items())


def leaves(kind: Any, path: str = "") -> Iterator[str]:
    """Every key there is, those of tables too; "0" for an entry of a list of tables, "mcs" for a store."""
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(part for part in get_args(kind) if part is not type(None))
    if path:
        yield path
    if get_origin(kind) is dict:
        yield from leaves(get_args(kind)[1], f"{path}.mcs")
    elif get_origin(kind) is tuple and issubclass_(get_args(kind)[0]):
        yield from leaves(get_args(kind)[0], f"{path}.0")
    elif issubclass_(kind):
        for name, field in kind.model_fields.items():
            yield from leaves(field.annotation, f"{path}.{name}".lstrip("."))


def issubclass_(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_every_key_is_tried_with_several_wrong_values() -> None:
    assert set(WRONG) == set(leaves(Settings))
    assert all(len(set(values)) >= 2 for values in WRONG.values())


def test_nothing_is_wrong_with_the_configuration_that_they_are_put_into(place: Path) -> None:
    file = place / "hookmirror.toml"
    file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in WHOLE.items()))
    assert load(file).routes


def said_of(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the services say at the start, which fails; it is one line."""
    assert service.main(str(file)) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, said
    assert said.startswith("hookmirror: ")
    return said.removeprefix("hookmirror: ").rstrip("\n")


def check(said: str, key: str) -> None:
    """Whether the sentence names `key`, tells what to do, and is in our words."""
    name = key.removesuffix(".0").rpartition(".")[2]
    assert re.search(rf"\b{name}\b|\b{name.removesuffix('s').replace('_', ' ')}\b", said), said
    assert not FOREIGN.search(said), FOREIGN.search(said)
    assert re.search(r"\b(write|add|leave|give|take|name|copy|let|make|goes?)\b", said, re.IGNORECASE), said
    assert "\x00" not in said


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in WRONG.items() for text in texts])
def test_a_wrong_value_in_the_file_is_one_sentence_that_names_its_key(
    key: str, text: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "hookmirror.toml"
    file.write_text(with_value(key, text))
    said = said_of(file, capsys)
    assert said.startswith(f"{file}: ")
    check(said.removeprefix(f"{file}: "), key)
    if "secret" in key or "url" in key or "forward" in key:
        assert "secret-secret" not in said
        assert "word1" not in said


@pytest.mark.parametrize("key", list(WRONG))
@pytest.mark.parametrize(
    "url", ["http://me:hush-hush@h:no", "amqp://me:hush-hu#sh@h", "http://me:p#hush-hush@h"]
)
def test_a_password_in_a_url_is_never_shown_whatever_key_it_stands_at(
    key: str, url: str, place: Path
) -> None:
    file = place / "hookmirror.toml"
    file.write_text(with_value(key, json.dumps(url)))
    said = ""
    try:
        load(file)
    except ConfigError as error:
        said = str(error)
    assert "hush" not in said


def variables() -> Iterator[tuple[str, str]]:
    """Each key that one variable can say, with wrong values that differ in an environment."""
    for key, texts in WRONG.items():
        if ".0" in key or key in {"routes", "stack_routes"}:
            continue
        for text in texts:
            value = tomllib.loads(f"x = {text}")["x"]
            if isinstance(value, str) and "\x00" not in value:
                yield key, value


@pytest.mark.parametrize(("key", "value"), list(variables()))
def test_a_wrong_value_of_a_variable_is_one_sentence_that_names_it(
    key: str, value: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / "hookmirror.toml"
    file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in WHOLE.items()))
    name = PREFIX + key.replace(".", "__").upper()
    monkeypatch.setenv(name, value)
    said = said_of(file, capsys)
    assert name in said or said.startswith(f"{file}: ")
    check(said, key)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[worker\n", "line 1, worker"),
        ("[stores.mcs]\nregion = ru-msk\n", "line 2, stores.mcs.region"),
        ("[stores.mcs]\n\nregion = \n", "line 3, stores.mcs.region"),
        ("[receiver]\npublic_url = https://h/x\n", "line 2, receiver.public_url"),
        ('[receiver]\npublic_url = "https://h/x\n', "line 2, receiver.public_url"),
        ('[receiver]\nspool = "C:\\spool"\n', "line 2, receiver.spool"),
        ("[worker]\nattempts = 1\nattempts = 2\n", "line 3, worker.attempts"),
        ("[worker]\nattempts = 08\n", "line 2, worker.attempts"),
        ("[worker]\nattempts: 8\n", "line 2, worker"),
        ("[worker]\n[worker]\n", "line 2, worker"),
        ("[routes]\nsource = 'a:b'\n[[routes]]\nsource = 'a:b'\n", "line 3, routes"),
        ("[[routes]]\nsource = mcs:photos\n", "line 2, routes.source"),
        ("[receiver]\nsns_topics = ['a'\n", "line 2, receiver.sns_topics"),
        ("[queue]\nurl = “amqp://u:hush-hush@h”\n", "line 2, queue.url"),
        ("= 5\n", "line 1"),
        ("[receiver]\nsns_topics = ['a'\n[worker]\nattempts = 1\n", "line 2, receiver.sns_topics"),
        ("[receiver]\nsns_topics = ['a',\nport = 1\n", "line 2, receiver.sns_topics"),
        ('[queue]\nurl = """x\n[worker]\nattempts = 1\n', "line 2, queue.url"),
    ],
)
def test_what_is_no_toml_is_one_sentence_with_the_line_and_the_key(
    text: str, named: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "hookmirror.toml"
    file.write_text(text)
    said = said_of(file, capsys)
    assert said.startswith(f"{file}: {named}")
    assert "this is no TOML: " in said
    assert "hush-hush" not in said
    assert not FOREIGN.search(said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOKMIRROR_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKMIRROR_SERVICE_HOST", "10.0.0.1"),
        ("HOOKMIRROR_SERVICE_PORT", "8080"),
        ("HOOKMIRROR_SERVICE_PORT_HTTP", "8080"),
        ("HOOKMIRROR_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HOOKMIRROR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HOOKMIRROR_PORT_8080_TCP_PROTO", "tcp"),
        ("HOOKMIRROR_RECEIVER_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKMIRROR_RECEIVER_SERVICE_HOST", "10.0.0.1"),
        ("HOOKMIRROR_RABBITMQ_PORT_5672_TCP_PORT", "5672"),
    ],
)
def test_a_variable_that_kubernetes_sets_for_a_service_is_named_as_such(
    name: str, value: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "hookmirror.toml").write_text("")
    monkeypatch.setenv(name, value)
    said = said_of(place / "hookmirror.toml", capsys)
    assert said.startswith(f"{name}: Kubernetes sets this variable")
    assert "enableServiceLinks: false" in said


def test_a_line_break_at_the_end_is_left_out_with_a_note(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "hookmirror.toml").write_text(with_value("stores.mcs.region", '"ru-msk\\n"'))
    monkeypatch.setenv("HOOKMIRROR_RECEIVER__PUBLIC_URL", "https://h/webhook/0123456789abcdef\n")
    settings = load(place / "hookmirror.toml")
    assert settings.stores["mcs"].region == "ru-msk"
    assert settings.receiver.public_url == "https://h/webhook/0123456789abcdef"
    assert set(settings.notes) == {
        "stores.mcs.region: the line break at its end is left out",
        "HOOKMIRROR_RECEIVER__PUBLIC_URL: the line break at its end is left out",
    }


def test_several_wrong_values_are_a_line_each(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "hookmirror.toml"
    file.write_text("[worker]\nconcurrency = 0\n[receiver]\nport = -1\n[metrics]\nhots = 'x'\n")
    assert service.main(str(file)) == 2
    said = capsys.readouterr().err
    assert [part in said for part in ("worker.concurrency", "receiver.port", "metrics.hots")] == [True] * 3
    assert len(said.splitlines()) == 3


def test_a_store_named_in_capitals_is_the_one_that_a_variable_means(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "hookmirror.toml").write_text('[stores.MCS]\nregion = "ru-msk"\n')
    monkeypatch.setenv("HOOKMIRROR_STORES__MCS__ADDRESSING", "path")
    store = load(place / "hookmirror.toml").stores
    assert list(store) == ["MCS"]
    assert (store["MCS"].region, store["MCS"].addressing) == ("ru-msk", "path")


def test_a_storage_class_that_only_its_store_has_is_said_there(place: Path) -> None:
    text = with_value("stores.aws.storage_classes", '["COLD"]')
    (place / "hookmirror.toml").write_text(
        text.replace('"aws:backup"', '"aws:backup", storage_class = "COLD"')
    )
    assert load(place / "hookmirror.toml").routes[0].storage_class == "COLD"


def test_a_password_of_the_broker_may_hold_anything_that_is_escaped(place: Path) -> None:
    url = "amqp://u:a%23b%2Fc%3Fd%40e%25f@host:5671/v%2Fhost?heartbeat=5"
    (place / "hookmirror.toml").write_text(with_value("queue.url", json.dumps(url)))
    settings = load(place / "hookmirror.toml")
    assert {"a#b/c?d@e%f", "a%23b%2Fc%3Fd%40e%25f"} <= set(settings.secrets())


def test_an_error_that_nobody_foresaw_is_one_line_without_a_traceback(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise LookupError("out\nof order")

    monkeypatch.setattr("common.settings.start", fails)
    assert service.main(None) == 1
    said = capsys.readouterr().err
    assert "LookupError at test_wrong_values.py, line" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        (
            "routes.0.source",
            '"mcs"',
            'the first route: source = "mcs": write STORE:BUCKET, like "mcs:photos"',
        ),
        ("stores.mcs.region", '"ru msk"', 'stores.mcs.region = "ru msk": write the name of one region'),
        ("stores.mcs.endpoint", '"hb.x"', 'stores.mcs.endpoint = "hb.x": write it with https://'),
        ("worker.concurrency", "9999999999", "= 9999999999: write a whole number from 1 to 1000"),
        ("worker.processes", "0", 'worker.processes = 0: write a whole number from 1 to 256, or "auto"'),
        ("worker.look_after", "5", "worker.look_after = 5: a write that is stuck may land 1200 seconds late"),
        ("stores", "5", "stores = 5: this is a table: write  [stores.NAME]  on a line of its own"),
        ("stores.mcs", "5", "stores.mcs: this is a table: write  [stores.mcs]  on a line of its own"),
        ("routes", '"mcs:a"', 'routes = "mcs:a": this is a list: write  [[routes]]'),
        ("routes.0.brake", "5", "the first route: brake: this is a table: write  [routes.brake]"),
        ("routes.0.prefix", '"/photos/"', 'prefix = "/photos/": keys begin with no "/": write "photos/"'),
        ("metrics.port", "8080", "metrics.port = 8080: receiver.port is the same: write another, like 9464"),
        (
            "stores.mcs.profile",
            '""',
            'stores.mcs.profile = "": it is empty: write text in quotes, like "mcs"',
        ),
        (
            "routes.0.name",
            '""',
            'the first route: name = "": it is empty: write text in quotes, like "photos", or leave it out',
        ),
        (
            "stores.mcs.endpoint",
            '"https://h/s3/photos/"',
            'stores.mcs.endpoint = "https://h/s3/photos/": it ends in the bucket of the first route, which '
            "would stand there twice: write it without  /photos",
        ),
        (
            "stores.mcs.access_key_id",
            '"key id"',
            "access_key_id: it has a blank or a letter that is no ASCII",
        ),
        ("stores.mcs.access_key_id", "\"'key'\"", "access_key_id: there are quotes around it"),
        ("stores.mcs.secret_access_key", '"of two words"', "secret_access_key: it has a blank or a letter"),
        ("stores.mcs.secret_access_key", '"`secretive`"', "secret_access_key: there are quotes around it"),
        ("stores.mcs.session_token", '"токен-токен"', "session_token: it has a blank or a letter that is no"),
        (
            "stores.aws.region",
            '"EU-Central-1"',
            'stores.aws.region = "EU-Central-1": regions here are lower case: write "eu-central-1"',
        ),
        (
            "routes.0.target_prefix",
            f'"{"я" * 501}"',
            "it has 1002 bytes in UTF-8, and a whole key has at most 1024: write one of 1000 bytes or fewer",
        ),
        (
            "receiver.public_url",
            '"https://h/readyz"',
            "receiver.public_url: /readyz is a page of the receiver's own: write another path, like",
        ),
    ],
)
def test_the_sentence_says_it_as_a_person_would(
    key: str, text: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "hookmirror.toml").write_text(with_value(key, text))
    assert said in said_of(place / "hookmirror.toml", capsys)


PORT, BRACKETS = "its port is no number from 1 to 65535", "write [::1], or [::1]:8080 with a port"


@pytest.mark.parametrize(
    ("key", "url", "said"),
    [
        ("queue.url", "amqp://u:password1@rabbit:70000/", PORT),
        ("queue.url", "amqp://u:password1@rabbit:abc/", PORT),
        ("queue.url", "amqp://u:password1@h:0/", "0 is no port to call"),
        ("queue.url", "amqp://u:password1@::1/", BRACKETS),
        ("queue.url", "amqp://u:password1@[::1/", BRACKETS),
        ("queue.url", "amqp://u:pass[word1@h/", "[ as %5B"),
        ("queue.url", "amqp://u:pass#word1@h/", "write # as %23"),
        ("queue.url", "amqp://u:password1@хост.рф/", "write it in ASCII: as xn--..."),
        ("queue.management_url", "http://u:password1@h:port/", PORT),
        ("queue.management_url", "http://u:pass/word1@h/", "write # as %23"),
        ("stores.mcs.endpoint", "https://h:99999", PORT),
        ("stores.mcs.endpoint", "https://h:x", PORT),
        ("stores.mcs.endpoint", "http://::1:80", BRACKETS),
        ("stores.mcs.endpoint", "http://[1.2.3.4]", BRACKETS),
        ("stores.mcs.endpoint", "https://пример.рф", "write it in ASCII: xn--e1afmkfd.xn--p1ai"),
        ("stores.mcs.public_url", "https://пример.рф/x", "write it in ASCII: xn--e1afmkfd.xn--p1ai"),
        ("receiver.public_url", "https://пример.рф/x", "write it in ASCII: xn--e1afmkfd.xn--p1ai"),
        ("receiver.stack_url", "https://пример.рф/x", "write it in ASCII: xn--e1afmkfd.xn--p1ai"),
        ("routes.0.forward", "https://пример.рф/x", "write it in ASCII: xn--e1afmkfd.xn--p1ai"),
    ],
)
def test_what_is_wrong_with_the_host_or_the_port_of_a_url_is_named(
    key: str, url: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "hookmirror.toml").write_text(with_value(key, json.dumps(url)))
    told = said_of(place / "hookmirror.toml", capsys)
    assert key.rpartition(".")[2] in told
    assert said in told
    assert "word1" not in told


@pytest.mark.parametrize(
    "url", ["amqp://u:password1@[::1]:5672/", "amqp://u:password1@rabbit:05672/", "amqp://rabbit:/"]
)
def test_a_host_and_a_port_that_can_be_are_taken(url: str, place: Path) -> None:
    (place / "hookmirror.toml").write_text(with_value("queue.url", json.dumps(url)))
    assert load(place / "hookmirror.toml").queue.url == url


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("worker.look_after", "0", "write a whole number from 1200 to 3600 (seconds)"),
        ("metrics.port", "70000", "write a whole number from 0 to 65535"),
        ("receiver.port", "70000", "write a whole number from 0 to 65535"),
        ("routes.0.max_bytes_per_second", "1", "write a whole number from 1024 to 1099511627776 (bytes)"),
    ],
)
def test_both_bounds_of_a_number_are_said_at_once(
    key: str, text: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "hookmirror.toml").write_text(with_value(key, text))
    assert said in said_of(place / "hookmirror.toml", capsys)


def test_a_line_break_in_a_route_is_noted_as_people_call_the_route(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "hookmirror.toml").write_text(with_value("routes.0.source", '"mcs:photos\\n"'))
    note = "the first route: source: the line break at its end is left out"
    assert load(place / "hookmirror.toml").notes == (note,)
    monkeypatch.setenv("HOOKMIRROR_ROUTES", '[{"source": "mcs:photos\\n", "target": "aws:backup"}]')
    assert load(place / "hookmirror.toml").notes == (f"HOOKMIRROR_ROUTES: {note}",)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("make", "what"), [(os.mkdir, "is a folder"), (os.mkfifo, "a pipe or a device")])
def test_what_is_no_file_is_not_read_and_not_to_be_written_over(
    named: bool, make: Any, what: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place / "hookmirror.toml")
    if named:
        monkeypatch.setenv("HOOKMIRROR_CONFIG", str(place / "hookmirror.toml"))
    with pytest.raises(ConfigError, match=rf"hookmirror\.toml: is .*{what}|{what}.*name .*file") as caught:
        load()
    assert "init" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HOOKMIRROR_FOO", "unknown key. Known are: HOOKMIRROR_QUEUE,"),
        ("HOOKMIRROR_FOO", "HOOKMIRROR_CONFIG, HOOKMIRROR_LOG."),
        ("HOOKMIRROR_LOGS", "Did you mean HOOKMIRROR_LOG?"),
        ("HOOKMIRROR_CONFG", "Did you mean HOOKMIRROR_CONFIG?"),
    ],
)
def test_a_variable_is_likened_only_to_what_it_is_like(
    name: str, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "hookmirror.toml").write_text("")
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError) as caught:
        load()
    assert said in str(caught.value)


@pytest.mark.parametrize(("written", "said"), [("MCS", 'did you mean "MCS"?'), ("mcs2", '"mcs2"?')])
def test_a_store_that_is_not_defined_is_likened_to_one_that_is(written: str, said: str, place: Path) -> None:
    text = f'[stores.{written}]\n[stores.aws]\n[[routes]]\nsource = "mcs:a"\ntarget = "aws:b"\n'
    (place / "hookmirror.toml").write_text(text)
    with pytest.raises(ConfigError, match="the first route: source") as caught:
        load()
    assert said in str(caught.value)
