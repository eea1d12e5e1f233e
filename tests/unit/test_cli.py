"""The command line: what it prints, what it refuses, how it exits."""

import asyncio
import base64
import json
import os
import re
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import QueueAway
from common.queue.port import Bury, DeadLetter, Kind, Lane, Retry
from common.queue.sqlite import SqliteQueue
from common.routes import EXEC_TIMEOUT, FORWARD_TIMEOUT, ActionTable, RouteSettings, StackRouteSettings
from common.settings import PREFIX, load
from common.task import Claim, Task
from console import cli
from tests.integration.test_s3_tls import certificate, pem
from tests.lab.lanes import BULK, LIVE
from tests.lab.samples import PUBLISHED

STEERING = "\x1b[2J\x1b]0;title\x07\r\n\x9b\u2028end"
"""What a terminal would obey, were it printed as it is."""

OBEYED = {"\x1b", "\x07", "\r", "\x9b", "\x00", "\u2028"}

ROUTE = "a:from -> b:to"

CONFIG = """\
[queue]
url = "sqlite:///queue.db"
[stores.a]
[stores.b]
[[routes]]
source = "a:from"
target = "b:to"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and a queue of its own, and an environment that says nothing."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.hookmirror, arguments, prog_name="hookmirror")


def printed(*arguments: str) -> Any:
    """The JSON that a command prints."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def with_queue(call: Callable[[SqliteQueue], Any]) -> Any:
    async def once() -> Any:
        queue = await SqliteQueue.open(Path("queue.db"))
        try:
            return await call(queue)
        finally:
            await queue.close()

    return asyncio.run(once())


def bury(*bodies: bytes, why: str = "Refused: too large") -> list[str]:
    """Make each body a dead letter; return their ids."""

    async def buried(queue: SqliteQueue) -> list[str]:
        for body in bodies:
            await queue.bury(body, lane=LIVE, why=why)
        return [letter.id for letter in await queue.buried(1000)][-len(bodies) :]

    ids: list[str] = with_queue(buried)
    return ids


def letters() -> list[DeadLetter]:
    found: list[DeadLetter] = with_queue(lambda queue: queue.buried(1000))
    return found


def task(key: str = "photos/a.jpg", **more: Any) -> bytes:
    return Task(route="a:from", key=key, claim=Claim.CREATED, **more).encode()


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize(
    "path", list(commands(cli.hookmirror)), ids=lambda path: " ".join(path) or "hookmirror"
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(path: tuple[str, ...], option: str) -> None:
    result = run(*path, option)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: hookmirror")
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    "path", list(commands(cli.hookmirror)), ids=lambda path: " ".join(path) or "hookmirror"
)
def test_help_speaks_the_terms_of_the_field_in_whole_sentences(path: tuple[str, ...]) -> None:
    text = " ".join(run(*path, "--help").output.split())
    ours = r"\b(lanes?|looks?|buried|bury|in step)\b|(?<![Dd]ead[ -])\bletters?\b"
    assert not re.findall(ours, text)
    command: click.Command = cli.hookmirror
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    short = command.get_short_help_str(62)  # what a list of commands has room for at 80 columns
    assert not path or not short.endswith("..."), "cut off"
    for option in command.params:
        told = getattr(option, "help", None) or "Nothing."
        assert re.match(r"[A-Z].*[.\]]$", told, re.DOTALL), told


def test_the_commands_an_operator_knows_are_there() -> None:
    known = {" ".join(path) for path in commands(cli.hookmirror)}
    assert {"init", "up", "receiver", "worker", "status", "sign"} <= known
    assert {f"dead {name}" for name in ("list", "show", "replay", "drop", "export", "check")} <= known


def test_the_version_is_told() -> None:
    assert run("--version").output.startswith("hookmirror, version ")


@pytest.mark.parametrize(("url", "topic", "timestamp", "token", "signature"), PUBLISHED)
def test_sign_prints_the_published_signatures_and_names_them_in_its_help(
    url: str, topic: str, timestamp: str, token: str, signature: str
) -> None:
    result = run("sign", "--url", url, "--topic", topic, "--timestamp", timestamp, "--token", token)
    assert (result.exit_code, result.output) == (0, signature + "\n")
    assert signature in run("sign", "--help").output


def test_sign_asks_for_what_is_missing() -> None:
    result = run("sign", "--url", "http://test.com")
    assert result.exit_code == 2
    assert "--topic" in result.output


def test_init_writes_a_configuration_that_loads_for_its_owner_alone() -> None:
    result = run("init", "--output", "new.toml")
    assert result.exit_code == 0, result.output
    assert "hookmirror up --config new.toml" in result.output
    assert stat.S_IMODE(Path("new.toml").stat().st_mode) == 0o600
    assert load("new.toml").routes


def test_init_names_every_key_and_each_can_be_uncommented() -> None:
    run("init", "--output", "new.toml")
    text = Path("new.toml").read_text()
    key = ec.generate_private_key(ec.SECP256R1())
    Path("mcs.pem").write_bytes(pem(certificate("our CA", key, "our CA", key)))
    text = re.sub(r"^# (\[\S+\]$|[a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    text = text.replace('"..."', '"an-example"')
    text = re.sub(r"/etc/ssl/\w+.pem", "mcs.pem", text)
    Path("new.toml").write_text(text.replace('profile = "mcs"', ""))
    settings = load("new.toml")
    tables = (
        settings.receiver,
        settings.worker,
        settings.metrics,
        settings.stores["mcs"],
        settings.routes[0].brake,
    )
    for table in tables:
        unnamed = type(table).model_fields.keys() - table.model_fields_set
        assert unnamed <= {"profile", "allow_short_look_after"}  # of the latter no user is to know
    named = set().union(*(route.model_fields_set for route in settings.routes))
    assert named == RouteSettings.model_fields.keys()
    [stack_route] = settings.stack_routes  # the rest of it is what every action has
    assert (
        StackRouteSettings.model_fields.keys() - ActionTable.model_fields.keys()
        <= stack_route.model_fields_set
    )
    assert settings.routes[1].timeout == EXEC_TIMEOUT
    assert settings.routes[2].timeout == FORWARD_TIMEOUT


def test_init_never_writes_the_same_secret_path_twice() -> None:
    run("init", "-o", "one.toml")
    run("init", "-o", "two.toml")
    paths = {load(name).receiver.path for name in ("one.toml", "two.toml")}
    assert len(paths) == 2
    assert all(len(path) > len("/webhook/") + 20 for path in paths)


def test_init_refuses_to_overwrite_unless_forced() -> None:
    before = Path("hookmirror.toml").read_bytes()
    refused = run("init")
    assert refused.exit_code == 1
    assert "--force" in refused.output
    assert Path("hookmirror.toml").read_bytes() == before
    Path("hookmirror.toml").chmod(0o644)
    assert run("init", "--force").exit_code == 0
    assert Path("hookmirror.toml").read_bytes() != before
    assert stat.S_IMODE(Path("hookmirror.toml").stat().st_mode) == 0o600


def test_init_in_a_folder_that_is_not_there_is_one_sentence() -> None:
    result = run("init", "--output", "absent/new.toml")
    assert result.exit_code == 1
    assert "--output" in result.output
    assert "Traceback" not in result.output


def test_status_of_an_empty_queue_is_all_zeros() -> None:
    bury()
    nothing = {"ready": 0, "waiting": 0, "held": 0, "oldest": 0.0}
    folder = Path.cwd()
    assert printed("status") == {
        "ready": {"live": 0, "bulk": 0},
        "waiting": 0,
        "held": 0,
        "dead": 0,
        "routes": {ROUTE: {"live": nothing, "bulk": nothing, "dead": 0, "worker": None}},
        "workers": None,
        "silent_workers": None,
        "queue": f"sqlite:///{folder}/queue.db",
        "configuration": f"{folder}/hookmirror.toml",
    }


def test_status_tells_every_depth() -> None:
    async def fill(queue: SqliteQueue) -> None:
        live, bulk = Lane(ROUTE), Lane(ROUTE, Kind.BULK)
        await queue.publish(task(), lane=live)
        for _ in range(2):
            await queue.publish(task(), lane=bulk)
        for _ in range(3):
            await queue.publish(task(), lane=live, delay=3600)

    with_queue(fill)
    bury(b"a", b"b", b"c", b"d")
    told = printed("status")
    assert {name: told[name] for name in ("ready", "waiting", "held", "dead")} == {
        "ready": {"live": 1, "bulk": 2},
        "waiting": 3,
        "held": 0,
        "dead": 4,
    }
    [(route, depths)] = told["routes"].items()
    assert route == ROUTE
    assert [depths[kind][state] for kind in ("live", "bulk") for state in ("ready", "waiting")] == [
        1,
        3,
        2,
        0,
    ]
    table = run("status").output
    [line] = [line for line in table.splitlines() if line.strip().startswith(ROUTE)]
    assert line.removeprefix(ROUTE).split()[:5] == ["unknown", "1", "2", "3", "0"]
    for name, depth in (("ready (live)", "1"), ("ready (bulk)", "2"), ("waiting", "3"), ("dead", "4")):
        [line] = [line for line in table.splitlines() if line.strip().startswith(name)]
        assert depth in line.split()


def test_status_for_scripts_fails_when_a_person_is_needed() -> None:
    bury()
    assert run("status", "--check").exit_code == 0
    bury(b"a")
    assert run("status").exit_code == 0
    assert run("status", "--check").exit_code == 1
    assert run("status", "--check", "--json").exit_code == 1


def test_no_dead_letters_is_said() -> None:
    bury()
    assert printed("dead", "list") == {"dead": 0, "matching": 0, "groups": [], "letters": []}
    assert "No dead letters." in run("dead", "list").output


def test_dead_letters_are_listed_the_oldest_first_with_their_keys_and_reasons() -> None:
    ids = bury(task("first.jpg"), b"\xff no task", task("third.jpg"))
    listed = printed("dead", "list")["letters"]
    assert [entry["id"] for entry in listed] == ids
    assert [entry["task"] and entry["task"]["key"] for entry in listed] == ["first.jpg", None, "third.jpg"]
    assert {entry["why"] for entry in listed} == {"Refused: too large"}
    assert base64.b64decode(listed[1]["body"]) == b"\xff no task"
    table = run("dead", "list").output
    for part in (*ids, "first.jpg", "third.jpg", "Refused: too large", "9 bytes that are no task"):
        assert part in table


def test_a_list_shows_no_more_than_asked() -> None:
    ids = bury(*(task(f"{number}") for number in range(5)))
    assert [entry["id"] for entry in printed("dead", "list", "--limit", "2")["letters"]] == ids[:2]


def test_a_letter_is_shown_whole_with_what_was_tried() -> None:
    async def fail_twice(queue: SqliteQueue) -> None:
        await queue.publish(task("a.jpg", etag="abc"), lane=BULK)
        for verdict in (Retry(0, "StoreAway: 500"), Bury("StoreAway: 502 (attempt 2 of 2)")):
            await queue.settle(await anext(queue.deliveries(BULK, 1)), verdict)

    with_queue(fail_twice)
    [letter] = letters()
    shown = printed("dead", "show", letter.id)
    assert (shown["lane"], shown["attempt"], shown["why"]) == ("bulk", 2, "StoreAway: 502 (attempt 2 of 2)")
    assert [failure["why"] for failure in shown["failures"]] == [
        "StoreAway: 500",
        "StoreAway: 502 (attempt 2 of 2)",
    ]
    assert shown["task"]["etag"] == "abc"
    assert base64.b64decode(shown["body"]) == letter.body
    text = run("dead", "show", letter.id).output
    for part in (letter.id, "a.jpg", "bulk", "StoreAway: 500", "a:from", letter.body.decode()):
        assert part in text


def test_a_letter_that_is_no_task_is_shown_too() -> None:
    [id_] = bury(b"\xff\x00 bytes", why="Unreadable: not a task")
    assert printed("dead", "show", id_)["task"] is None
    text = run("dead", "show", id_).output
    assert "\\xff" in text
    assert "Unreadable: not a task" in text


def test_a_letter_that_is_not_there_is_an_error_that_says_where_to_look() -> None:
    bury()
    result = run("dead", "show", "4711")
    assert result.exit_code == 1
    assert "4711" in result.output
    assert "hookmirror dead list" in result.output


def test_looking_at_dead_letters_changes_nothing() -> None:
    bury(task("a"), task("b"))
    before = letters()
    for command in (["dead", "list"], ["dead", "list", "--json"], ["dead", "show", before[0].id], ["status"]):
        assert run(*command).exit_code == 0
    assert letters() == before


def test_a_replayed_letter_is_ready_and_dead_no_more() -> None:
    one, two, three = bury(task("a"), task("b"), task("c"))
    assert printed("dead", "replay", one, three) == {"replayed": [one, three], "missing": []}
    assert [letter.id for letter in letters()] == [two]
    assert printed("status")["ready"]["live"] == 2


def test_all_letters_are_replayed_at_once_only_when_asked() -> None:
    bury(task("a"), task("b"))
    assert run("dead", "replay").exit_code == 2
    assert run("dead", "replay", "--all", "1").exit_code == 2
    assert len(letters()) == 2
    assert "replayed: 2" in run("dead", "replay", "--all", "--yes").output
    assert letters() == []


def test_a_dropped_letter_is_gone_for_good() -> None:
    one, two = bury(task("a"), task("b"))
    assert "dropped: 1" in run("dead", "drop", one).output
    assert [letter.id for letter in letters()] == [two]
    assert printed("status")["ready"]["live"] == 0
    assert run("dead", "drop").exit_code == 2


@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_an_id_that_is_not_there_is_told_and_the_rest_is_done(verb: str) -> None:
    [one] = bury(task("a"))
    result = run("dead", verb, one, "4711")
    assert result.exit_code == 1
    assert "no dead letter has the id 4711" in result.stderr
    assert letters() == []


@pytest.mark.parametrize("command", ["list", "show"])
@pytest.mark.parametrize("field", ["key", "event", "route", "etag", "why", "body"])
def test_nothing_in_a_letter_steers_the_terminal(command: str, field: str) -> None:
    why = STEERING if field == "why" else "Refused"
    fields = {"route": "r", "key": "k", "event": "e", "etag": "t"}
    if field in fields:
        fields[field] = STEERING
    body = STEERING.encode() if field == "body" else Task(claim=Claim.CREATED, **fields).encode()  # type: ignore[arg-type]
    [id_] = bury(body, why=why)
    result = run("dead", command, *([id_] if command == "show" else []))
    assert result.exit_code == 0, result.exception
    assert "end" in result.output or field not in {"key", "why"}
    assert not OBEYED & set(result.output)


@pytest.mark.parametrize(
    "text",
    ["[/]", "[/red]", "[bold]x", "[red]x[/red]", "a[0]", ":smile:", "[link=http://x]y[/link]", "\\[x]"],
)
def test_what_looks_like_markup_in_a_key_or_a_reason_is_shown_as_it_is(text: str) -> None:
    [id_] = bury(task(f"key-{text}"), why=f"why-{text}")
    for command in (["dead", "list"], ["dead", "show", id_]):
        result = run(*command)
        assert result.exit_code == 0, result.exception
        assert f"key-{text}" in result.output
        assert f"why-{text}" in result.output


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of the whole program."""
    monkeypatch.setattr(sys, "argv", ["hookmirror", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_the_program_exits_zero_when_all_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bury()
    assert main(monkeypatch, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dead"] == 0


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("[worker]\nconcurency = 1\n", 'Did you mean "concurrency"?'),
        ('[queue]\nurl = "redis://x"\n', 'write "sqlite:///hookmirror.db"'),
        ('[queue]\nurl = "sqlite:///absent/folder/queue.db"\n', "folder"),
        ("[queue\n", "line 1"),
    ],
)
@pytest.mark.parametrize("command", [["status"], ["dead", "list"], ["dead", "replay", "--all"]])
def test_a_wrong_configuration_is_one_sentence_and_exit_code_two(
    config: str,
    sentence: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("hookmirror.toml").write_text(config)
    assert main(monkeypatch, *command) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hookmirror: ")
    assert sentence in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["dead", "list"],
        ["dead", "replay", "--all", "--yes"],
        ["dead", "drop", "1"],
        ["brake", "list"],
    ],
)
def test_a_command_makes_no_queue_and_says_that_there_is_none(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, *command) == 2
    assert "queue.db: there is no such file" in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["hookmirror.toml"]


@pytest.mark.parametrize("command", ["up", "receiver", "worker"])
@pytest.mark.parametrize(
    ("config", "sentence"), [("[worker]\nconcurency = 1\n", "concurrency"), ("", "[[routes]]")]
)
def test_a_service_that_cannot_start_says_why_and_exits_two(
    command: str,
    config: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("hookmirror.toml").write_text(config)
    assert main(monkeypatch, command) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "receiver", "worker"])
def test_a_service_whose_queue_is_damaged_exits_two_for_no_restart_would_mend_it(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("queue.db").write_bytes(b"no database at all " * 1000)
    assert main(monkeypatch, command) == 2
    assert "queue.db: the file is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "receiver", "worker"])
def test_a_service_that_finds_no_room_for_its_queue_exits_one_for_there_may_be_some_soon(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        assert main(monkeypatch, command) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "a limit on its use is reached" in capsys.readouterr().err


def test_a_queue_that_does_not_answer_is_one_sentence_and_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def absent(*_: object, **__: object) -> None:
        raise QueueAway("RabbitMQ has not answered")

    monkeypatch.setattr("console.options.open_queue", absent)
    assert main(monkeypatch, "status") == 1
    assert capsys.readouterr().err == "hookmirror: RabbitMQ has not answered\n"


def test_a_named_configuration_is_used_by_every_command() -> None:
    Path("other.toml").write_text(CONFIG)
    Path("hookmirror.toml").write_text(CONFIG.replace("queue.db", "another.db"))
    bury(task())
    assert printed("status", "--config", "other.toml")["dead"] == 1
    assert "another.db: there is no such file" in str(run("status").exception)
