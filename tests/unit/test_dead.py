"""The dead letters, for a person: which are meant, what is shown, what is asked before anything changes."""

import asyncio
import json
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common import errors
from common.errors import RouteDown, StoreAway
from common.queue.port import KILLER, Bury, DeadLetter, Failure, Retry
from common.queue.sqlite import SqliteQueue
from common.settings import PREFIX, Settings
from common.store.mark import mark_for, origin_of
from common.store.memory import MemoryBucket, MemoryStore
from common.store.port import MARK, State, Store
from common.task import Claim, Task
from console import cli
from console.dead import compare
from console.dead.compare import Comparison, Standing
from console.dead.letter import REASONS, attempts, read, reason_of
from console.dead.where import condition, moment, where
from tests.lab.lanes import LIVE
from worker.job import Route
from worker.verdict import judge

NOW = 1_800_000_000.0


def task(key: str = "photos/a.jpg", route: str = "a:from") -> bytes:
    return Task(route=route, key=key, claim=Claim.CREATED).encode()


def letter(body: bytes, why: str = "Refused: too large", at: float = NOW) -> DeadLetter:
    return DeadLetter("1", body, LIVE, why, at, 1)


@pytest.mark.parametrize(
    ("conditions", "fits"),
    [
        ([], "abcd"),
        ([("route", "a:from")], "ab"),
        ([("route", "a:from"), ("route", "other")], "abc"),
        ([("route", "-")], "d"),
        ([("route", "a:")], ""),
        ([("reason", "StoreAway")], "bc"),
        ([("reason", "storeaway")], "bc"),
        ([("reason", "StoreAway"), ("reason", "Unreadable")], "bcd"),
        ([("reason", "StoreAway"), ("route", "a:from")], "b"),
        ([("key-prefix", "photos/")], "ac"),
        ([("key-prefix", "photos/"), ("key-prefix", "docs/")], "abc"),
        ([("since", "1h")], "bcd"),
        ([("since", "30m")], "cd"),
        ([("since", "30m"), ("reason", "StoreAway")], "c"),
        ([("since", "1w")], "abcd"),
    ],
)
def test_the_conditions_say_which_letters_are_meant(conditions: list[tuple[str, str]], fits: str) -> None:
    letters = {
        "a": letter(task("photos/1"), at=NOW - 7200),
        "b": letter(task("docs/2"), "StoreAway: 503 (attempt 12 of 12)", NOW - 3600),
        "c": letter(task("photos/3", "other"), "StoreAway: 500", NOW - 60),
        "d": letter(b"\xff", "Unreadable: no task", NOW),
    }
    meant = where(conditions, NOW)
    assert "".join(name for name, one in letters.items() if meant(read(one))) == fits


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ([("reason", "Storeaway!")], "name one of"),
        ([("color", "red")], "name one of route, reason, key-prefix, since"),
        ([("since", "yesterday")], "2026-11-22T10:00"),
        ([("since", "2 hours")], "2h"),
        ([("since", "1h"), ("since", "2h")], "twice"),
    ],
)
def test_a_condition_that_says_nothing_is_refused_with_what_to_write(
    conditions: list[tuple[str, str]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        where(conditions, NOW)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("reason=StoreAway", ("reason", "StoreAway")),
        ("key_prefix=a=b", ("key-prefix", "a=b")),
        ("route=a:from", ("route", "a:from")),
    ],
)
def test_where_is_written_as_field_and_value(text: str, pair: tuple[str, str]) -> None:
    assert condition(text) == pair
    with pytest.raises(ValueError, match="FIELD=VALUE"):
        condition(text.partition("=")[0])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", NOW - 90),
        ("45m", NOW - 2700),
        ("1.5h", NOW - 5400),
        ("3d", NOW - 259_200),
        ("2w", NOW - 1_209_600),
        ("2026-11-22T10:00", datetime(2026, 11, 22, 10, 0).timestamp()),  # noqa: DTZ001 - local, as typed
        ("2026-11-22T10:00+00:00", 1_795_341_600.0),
    ],
)
def test_a_moment_is_so_long_ago_or_a_time(text: str, seconds: float) -> None:
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize("name", [name for name in REASONS if hasattr(errors, name)])
def test_the_reason_is_the_error_that_the_worker_wrote_down(name: str) -> None:
    verdict = judge(getattr(errors, name)("it: happened"), 12, attempts=12, rng=random.Random(1))
    why = verdict.why  # type: ignore[union-attr]  # an error is never Done
    assert reason_of(why) == name


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (KILLER, "CameBack"),
        ("KeyError: 'x' (attempt 12 of 12)", "Defect"),
        ("HookmirrorError: x", "Defect"),
        ("", "Defect"),
    ],
)
def test_what_is_no_error_of_ours_has_a_reason_too(why: str, reason: str) -> None:
    assert reason_of(why) == reason
    assert reason in REASONS


def test_attempts_in_a_row_that_ended_alike_are_one() -> None:
    whys = [
        *["StoreAway: 503"] * 3,
        "Corrupt: short",
        *["StoreAway: 503"] * 2,
        "StoreAway: 503 (attempt 7 of 7)",
    ]
    failures = [Failure(float(number), number, why) for number, why in enumerate(whys, 1)]
    assert [(t.first.attempt, t.last.attempt, t.why) for t in attempts(failures)] == [
        (1, 3, "StoreAway: 503"),
        (4, 4, "Corrupt: short"),
        (5, 7, "StoreAway: 503"),
    ]
    assert list(attempts([])) == []


CONFIG = """\
[queue]
url = "sqlite:///queue.db"
[stores.a]
[stores.b]
[[routes]]
name = "a:from"
source = "a:from"
target = "b:to"
target_prefix = "copy/"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and a queue of its own, and an environment that says nothing."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG)
    return tmp_path


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(cli.hookmirror, ("dead", *arguments), prog_name="hookmirror", input=answer)


def printed(*arguments: str) -> Any:
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


def bury(*bodies: bytes, why: str = "Refused: too large") -> None:
    async def each(queue: SqliteQueue) -> None:
        for body in bodies:
            await queue.bury(body, lane=LIVE, why=why)

    with_queue(each)


def left() -> list[str]:
    """The keys of the letters there are, "" for what is no task."""
    found: list[DeadLetter] = with_queue(lambda queue: queue.buried(10_000))
    return [read(one).key or "" for one in found]


def mixed() -> None:
    """Five letters: two groups of a route, one of another, one that is no task."""
    bury(task("photos/1"), task("photos/2"))
    bury(task("docs/3"), why="StoreAway: 503 (attempt 12 of 12)")
    bury(task("photos/4", "other"), why="StoreAway: 503 (attempt 12 of 12)")
    bury(b"\xff no task", why="Unreadable: not a task")


@pytest.mark.usefixtures("folder")
def test_the_list_counts_by_route_and_reason_and_shows_the_oldest() -> None:
    mixed()
    listed = printed("list", "--limit", "2")
    assert [(g["count"], g["route"], g["reason"], g["example"]) for g in listed["groups"]] == [
        (2, "a:from", "Refused", "photos/1"),
        (1, None, "Unreadable", None),
        (1, "a:from", "StoreAway", "docs/3"),
        (1, "other", "StoreAway", "photos/4"),
    ]
    assert (listed["dead"], listed["matching"]) == (5, 5)
    assert [entry["task"]["key"] for entry in listed["letters"]] == ["photos/1", "photos/2"]
    text = run("list", "--limit", "2").output
    assert "3 more" in text
    assert "photos/1" in text
    assert run("list", "--limit", "0").output.count("photos/1") == 1, "the group's example alone"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        (["--where", "reason=StoreAway"], ["docs/3", "photos/4"]),
        (["--reason", "StoreAway", "--route", "other"], ["photos/4"]),
        (["--where", "reason=StoreAway", "--route", "other"], ["photos/4"]),
        (["--key-prefix", "photos/", "--since", "1h"], ["photos/1", "photos/2", "photos/4"]),
        (["--route", "-"], [""]),
        (["--since", "2200-01-01T00:00"], []),
    ],
)
def test_the_same_filters_say_the_same_to_every_command(filters: list[str], keys: list[str]) -> None:
    mixed()
    assert [e["task"]["key"] if e["task"] else "" for e in printed("list", *filters)["letters"]] == keys
    exported = [json.loads(line) for line in run("export", *filters).stdout.splitlines()]
    assert sorted(e["task"]["key"] if e["task"] else "" for e in exported) == sorted(keys)
    for verb in ("replay", "drop"):
        assert printed(verb, *filters, "--dry-run")[f"would_{verb}"] == len(keys)
    assert len(left()) == 5
    assert len(printed("drop", *filters, "--yes")["dropped"]) == len(keys)
    assert not set(keys) & set(left())
    assert len(left()) == 5 - len(keys)


@pytest.mark.usefixtures("folder")
def test_a_filter_that_nothing_fits_says_that_there_are_others() -> None:
    mixed()
    assert "there are 5" in run("list", "--reason", "Corrupt").output


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [["--reason", "Nonsense"], ["--where", "reason"], ["--since", "noon"]])
@pytest.mark.parametrize("command", ["list", "replay", "drop", "export", "check"])
def test_a_filter_that_says_nothing_ends_with_two_and_changes_nothing(
    command: str, arguments: list[str]
) -> None:
    mixed()
    assert run(command, *arguments).exit_code == 2
    assert len(left()) == 5


@pytest.mark.usefixtures("folder")
def test_the_list_shows_what_was_tried_and_when() -> None:
    async def fail(queue: SqliteQueue) -> None:
        await queue.publish(task(), lane=LIVE)
        for verdict in (Retry(0, "StoreAway: 503"), Retry(0, "StoreAway: 503"), Bury("Refused: too large")):
            await queue.settle(await anext(queue.deliveries(LIVE, 1)), verdict)

    with_queue(fail)
    text = run("list").output
    assert "attempts 1 to 2, 20" in text
    assert "attempt 3 at 20" in text
    assert "StoreAway: 503" in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_a_dry_run_counts_by_group_and_changes_nothing(verb: str) -> None:
    mixed()
    result = run(verb, "--where", "reason=StoreAway", "--dry-run")
    assert result.exit_code == 0
    assert f"would {verb}: 2 of 5 dead letters" in result.output
    assert "docs/3" in result.output
    assert len(left()) == 5


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_without_a_person_to_ask_many_are_refused_with_the_count_and_the_remedy(verb: str) -> None:
    mixed()
    result = run(verb, "--reason", "StoreAway", answer="y\n")
    assert result.exit_code == 2
    assert "2 of 5 dead letters" in result.output
    assert "--yes" in result.stderr
    assert len(left()) == 5


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("answer", "code", "rest"), [("y\n", 0, 3), ("n\n", 1, 5), ("\n", 1, 5)])
@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_a_person_is_asked_after_the_count(
    verb: str, answer: str, code: int, rest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.options.at_terminal", lambda: True)
    mixed()
    result = run(verb, "--reason", "StoreAway", answer=answer)
    assert result.exit_code == code
    assert f"to {verb}: 2 of 5" in result.stdout
    assert f"{verb} these 2 dead letters?" in result.stderr
    assert len(left()) == rest


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["replay", "drop"])
@pytest.mark.parametrize(
    "arguments", [[], ["1", "--all"], ["1", "--reason", "Refused"], ["--all", "--route", "x"]]
)
def test_which_letters_are_meant_is_said_in_one_way(verb: str, arguments: list[str]) -> None:
    mixed()
    assert run(verb, *arguments, "--yes").exit_code == 2
    assert len(left()) == 5


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_a_dry_run_with_an_id_that_is_not_there_fails_as_the_run_would(verb: str) -> None:
    mixed()
    result = run(verb, "1", "4711", "--dry-run")
    assert result.exit_code == 1
    assert f"would {verb}: 1 of 5 dead letters" in result.output
    assert "no dead letter has the id 4711" in result.stderr
    told = run(verb, "1", "4711", "--dry-run", "--json")
    assert (told.exit_code, json.loads(told.stdout)["missing"]) == (1, ["4711"])
    assert run(verb, "1", "--dry-run").exit_code == 0
    assert len(left()) == 5


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("options", [["--reason", "BrakeOn"], ["--all"], ["1"]])
@pytest.mark.parametrize("rest", [["--dry-run"], ["--yes"], ["--yes", "--json"]])
def test_a_replay_says_what_comes_straight_back_and_what_mends_it(
    options: list[str], rest: list[str]
) -> None:
    bury(task(), why="BrakeOn: brake: more than 1000 deletes within 300 s")
    result = run("replay", *options, *rest)
    assert result.exit_code == 0
    assert "BrakeOn: 1 come straight back" in result.stderr
    assert "hookmirror brake release" in result.stderr


@pytest.mark.usefixtures("folder")
def test_a_replay_of_what_may_succeed_warns_of_nothing() -> None:
    mixed()
    assert run("replay", "--reason", "StoreAway", "--yes").stderr == ""
    assert "Unreadable: 1 come straight back" in run("replay", "--all", "--dry-run").stderr


@pytest.mark.usefixtures("folder")
def test_a_list_for_scripts_fails_when_a_person_is_needed() -> None:
    bury()  # there is a queue, and nothing in it
    assert run("list", "--check").exit_code == 0
    mixed()
    assert run("list").exit_code == 0
    assert run("list", "--check").exit_code == 1
    assert run("list", "--check", "--json").exit_code == 1
    assert run("list", "--check", "--reason", "Corrupt").exit_code == 0
    assert run("drop", "--all", "--yes").exit_code == 0
    assert run("list", "--check").exit_code == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("width", ["20", "80", ""])
def test_a_table_in_a_pipe_is_a_row_a_line_and_nothing_is_cut(
    width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says of a terminal."""
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("FORCE_COLOR", "1")
    key = "a long key/" * 90
    bury(task(key), task("short"))
    lines = run("list").stdout.splitlines()
    assert lines[0].split("  ")[0] == "dead letters"
    [line] = [line for line in lines if line.startswith("1 ")]
    assert key in line
    assert "Refused: too large" in line
    assert not [line for line in lines if line != line.rstrip() or "\x1b" in line]


@pytest.mark.usefixtures("folder")
def test_what_is_buried_after_the_count_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed()
    monkeypatch.setattr("console.dead.change.sure", lambda *_, **__: bury(task("late"), why="StoreAway: 503"))
    assert len(printed("replay", "--reason", "StoreAway", "--yes")["replayed"]) == 2
    assert "late" in left()


@pytest.mark.usefixtures("folder")
def test_an_export_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed()
    assert "exported: 5" in run("export", "--output", "letters.jsonl").output
    lines = [json.loads(line) for line in Path("letters.jsonl").read_text().splitlines()]
    assert {entry["reason"] for entry in lines} == {"Refused", "StoreAway", "Unreadable"}
    assert printed("export", "-o", "two.jsonl", "--reason", "Refused")["exported"] == 2
    before = Path("two.jsonl").read_text()

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("console.dead.export.os.fsync", broken)
    failed = run("export", "-o", "two.jsonl")
    assert failed.exit_code == 1
    assert "No space left" in failed.output
    assert Path("two.jsonl").read_text() == before
    assert not list(Path().glob("*.part"))
    assert run("export", "-o", "absent/x.jsonl").exit_code == 1


class Shelves:
    """Two stores in memory, as `a` and `b` of the configuration."""

    def __init__(self) -> None:
        self.stores = {"a": MemoryStore(), "b": MemoryStore()}
        self.source, self.target = self.stores["a"].create("from"), self.stores["b"].create("to")

    async def fill(self) -> "Shelves":
        for key, sides in {"same": "st", "new": "s", "gone": "t"}.items():
            for side, bucket, at in (("s", self.source, key), ("t", self.target, f"copy/{key}")):
                if side in sides:
                    await bucket.write(at, b"content", headers={}, metadata={})
        return self

    async def open(self, _: Settings, stack: AsyncExitStack) -> dict[str, Store]:
        await self.fill()
        return dict(self.stores)


@pytest.fixture
def shelves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shelves:
    here = Shelves()
    monkeypatch.setattr("console.dead.check.open_stores", here.open)
    return here


@pytest.mark.usefixtures("shelves")
def test_a_check_says_which_letters_are_in_sync_and_writes_nothing() -> None:
    bury(task("same"), task("new"), task("gone"), task("nowhere"), task("same"), task("x", "absent"), b"\xff")
    result = printed("check")
    assert (result["in_sync"], result["differs"], result["cannot_tell"]) == (3, 2, 2)
    assert {(e["key"], e["standing"]) for e in result["letters"]} == {
        ("same", "in sync"),
        ("nowhere", "in sync"),
        ("new", "differs"),
        ("gone", "differs"),
        ("x", "cannot tell"),
        (None, "cannot tell"),
    }
    text = run("check").output
    assert 'no route is called "absent"' in text
    assert "in sync      3  (may be dropped)" in text
    assert len(left()) == 7


@pytest.mark.usefixtures("shelves")
def test_a_check_drops_what_is_in_sync_when_told_and_sure() -> None:
    bury(task("same"), task("new"), task("nowhere"), b"\xff")
    assert run("check", "--drop").exit_code == 2
    assert len(left()) == 4
    assert len(printed("check", "--drop", "--yes", "--key-prefix", "no")["dropped"]) == 1
    assert "dropped: 1" in run("check", "--drop", "--yes").output
    assert left() == ["new", ""]


async def test_a_route_that_is_down_is_asked_no_more() -> None:
    asked = 0

    class Refusing(MemoryBucket):
        async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
            nonlocal asked
            asked += 1
            raise RouteDown("AccessDenied")

    good = await Shelves().fill()
    comparison = Comparison({"r": Route("r", Refusing("x", None), good.target)})  # type: ignore[arg-type]
    found: dict[compare.Key, compare.Finding] = {}
    await comparison.each([("r", f"{n}") for n in range(1000)], found.__setitem__)
    assert len(found) == 1000
    assert {finding.standing for finding in found.values()} == {Standing.CANNOT_TELL}
    assert asked <= compare.AT_ONCE


async def test_of_a_route_with_an_action_nobody_can_tell_and_nothing_is_dropped() -> None:
    good = await Shelves().fill()
    finding = await Comparison({"r": Route("r", good.source, None)}).one("r", "same")
    assert finding.standing is Standing.CANNOT_TELL


async def test_what_is_not_to_be_copied_as_it_is_is_not_called_in_sync() -> None:
    """A copy from elsewhere, and what was written later on the target's side."""
    good = await Shelves().fill()
    both = Comparison({"r": Route("r", good.source, good.target, back="back")})
    foreign = {MARK: str(mark_for(State("e", 6), origin_of("elsewhere"), key="theirs"))}
    for key, metadata in {"theirs": foreign, "later": {}}.items():
        await good.source.write(key, b"ours", headers={}, metadata={})
        await good.target.write(key, b"theirs", headers={}, metadata=metadata)
    findings = [await both.one("r", key) for key in ("theirs", "later")]
    assert [finding.standing for finding in findings] == [Standing.DIFFERS] * 2
    assert "a copy from another bucket" in findings[0].why
    assert "is the later one" in findings[1].why


async def test_a_store_that_is_away_for_one_key_is_asked_for_the_next() -> None:
    good = await Shelves().fill()

    class Failing(MemoryBucket):
        async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
            if key == "bad":
                raise StoreAway("503")
            return await good.source.head(key)

    comparison = Comparison({"r": Route("r", Failing("x", None), good.target, "copy/")})  # type: ignore[arg-type]
    keys = [("r", key) for key in ["bad", "same"] * 50]
    standings = [(await comparison.one(*key)).standing for key in keys]
    assert standings == [Standing.CANNOT_TELL, Standing.IN_SYNC] * 50
    alone = [await comparison.one("r", "bad") for _ in range(compare.PATIENCE + 1)]
    assert "not asked any more" in alone[-1].why
