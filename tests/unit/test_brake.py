"""The brake: what passes, what is held, and how a person lets it go."""

import asyncio
import itertools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.errors import BrakeOn, QueueAway
from common.queue.port import Bury, DeadLetter, Delivery, Done, Lane
from common.queue.sqlite import SqliteQueue
from common.routes import BrakeSettings
from common.settings import PREFIX
from common.task import Claim, Task
from console import brake as command
from console import cli
from tests.lab.lanes import BULK, LIVE
from worker.brake import Brake
from worker.verdict import judge

WHY = "BrakeOn: brake: more than 10 deletes within 300 s."


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def brake(clock: Clock, deletes: int = 3, window: float = 60) -> Brake:
    return Brake({"r": BrakeSettings(deletes=deletes, window=window)}, clock)


keys = map(str, itertools.count())


def passes(brake: Brake, route: str = "r", *, approved: bool = False, key: str = "") -> bool:
    try:
        brake.admit(route, key or next(keys), approved=approved)
    except BrakeOn:
        return False
    return True


def test_as_many_deletes_as_allowed_pass_and_the_next_is_held(clock: Clock) -> None:
    held = brake(clock)
    assert [passes(held) for _ in range(6)] == [True, True, True, False, False, False]


def test_a_delete_that_is_tried_again_counts_once(clock: Clock) -> None:
    held = brake(clock)
    assert all(passes(held, key="again") for _ in range(100))
    assert [passes(held) for _ in range(3)] == [True, True, False]


def test_the_same_number_over_a_longer_time_passes(clock: Clock) -> None:
    steady = brake(clock)
    for _ in range(100):
        assert passes(steady)
        clock.now += 20


def test_the_window_moves_on(clock: Clock) -> None:
    held = brake(clock)
    assert [passes(held) for _ in range(4)] == [True, True, True, False]
    clock.now += 59.9
    assert not passes(held)
    clock.now += 60
    assert passes(held)


def test_what_is_held_counts_too_so_that_a_flood_stays_held_until_it_is_over(clock: Clock) -> None:
    held = brake(clock)
    fates = []
    for _ in range(600):
        fates.append(passes(held))
        clock.now += 1
    assert sum(fates) == 3, "a bucket that empties slowly does not trickle through"
    clock.now += 60
    assert passes(held)


def test_each_route_has_a_brake_of_its_own(clock: Clock) -> None:
    limit = BrakeSettings(deletes=1, window=60)
    held = Brake({"r": limit, "s": limit}, clock)
    assert [passes(held, "r"), passes(held, "r"), passes(held, "s"), passes(held, "s")] == [
        True,
        False,
        True,
        False,
    ]


def test_a_route_without_a_brake_is_not_held(clock: Clock) -> None:
    assert all(passes(brake(clock), "other") for _ in range(100))


def test_approved_deletes_pass_and_do_not_count(clock: Clock) -> None:
    held = brake(clock)
    assert all(passes(held, approved=True) for _ in range(100))
    assert [passes(held) for _ in range(4)] == [True, True, True, False]
    assert passes(held, approved=True)


def test_the_letter_of_a_held_delete_is_one_that_the_command_finds(clock: Clock) -> None:
    held = brake(clock, deletes=1)
    held.admit("r", "a", approved=False)
    with pytest.raises(BrakeOn) as raised:
        held.admit("r", "b", approved=False)
    verdict = judge(raised.value, 1, attempts=12, rng=random.Random(1))
    assert isinstance(verdict, Bury)
    assert verdict.why.startswith(command.HELD)
    assert "hookmirror brake release 'r'" in verdict.why


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a queue of its own, and an environment that says nothing."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text('[queue]\nurl = "sqlite:///queue.db"\n')
    return tmp_path


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(cli.hookmirror, ("brake", *arguments), input=answer, prog_name="hookmirror")


def with_queue(call: Callable[[SqliteQueue], Any]) -> Any:
    async def once() -> Any:
        queue = await SqliteQueue.open(Path("queue.db"))
        try:
            return await call(queue)
        finally:
            await queue.close()

    return asyncio.run(once())


def task(key: str, route: str = "r") -> bytes:
    return Task(route=route, key=key, claim=Claim.REMOVED).encode()


def hold(*bodies: bytes, why: str = WHY, lane: Lane = LIVE) -> None:
    async def bury(queue: SqliteQueue) -> None:
        for body in bodies:
            await queue.bury(body, lane=lane, why=why)

    with_queue(bury)


def letters() -> list[DeadLetter]:
    found: list[DeadLetter] = with_queue(lambda queue: queue.buried(10_000))
    return found


def ready(lane: Lane) -> list[Task]:
    """Take what is ready in `lane`."""

    async def take(queue: SqliteQueue) -> list[Task]:
        deliveries = queue.deliveries(lane, 10_000)
        count = (await queue.counts()).of(lane).ready
        taken: list[Delivery] = [await anext(deliveries) for _ in range(count)]
        for delivery in taken:
            await queue.settle(delivery, Done("taken"))
        return [Task.decode(delivery.body) for delivery in taken]

    tasks: list[Task] = with_queue(take)
    return tasks


@pytest.mark.usefixtures("folder")
def test_a_release_sends_the_held_deletes_of_one_route_back_approved() -> None:
    hold(task("a"), task("b"))
    hold(task("bulky"), lane=BULK)
    hold(task("c", route="other"))
    hold(task("too large"), why="Refused: too large")
    hold(b"\xff no task")
    result = run("release", "r", "--yes")
    assert (result.exit_code, result.output) == (0, "released: 3\n")
    live = ready(LIVE)
    assert [(entry.key, entry.claim, entry.approved) for entry in live] == [
        ("a", Claim.REMOVED, True),
        ("b", Claim.REMOVED, True),
    ]
    assert [entry.key for entry in ready(BULK)] == ["bulky"]
    assert [letter.why for letter in letters()] == [WHY, "Refused: too large", WHY]
    assert [b'"other"' in letters()[0].body, letters()[2].body] == [True, b"\xff no task"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2), ("\n", 1, 2)])
def test_a_person_is_asked_before_a_release(
    answer: str, code: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(task("a"), task("b"))
    assert run("release", "r").exit_code == 2, "nobody is there to be asked"
    monkeypatch.setattr("console.options.at_terminal", lambda: True)
    result = run("release", "r", answer=answer)
    assert "delete these 2 objects from the target of r?" in result.stderr
    assert (result.exit_code, len(letters())) == (code, left)


@pytest.mark.usefixtures("folder")
def test_what_the_brake_holds_after_the_question_stays_held() -> None:
    hold(task("a"))

    async def meanwhile(queue: SqliteQueue) -> None:
        ids = await command._ids(queue, "r")
        await queue.bury(task("late"), lane=LIVE, why=WHY)
        await command._release(queue, ids)

    with_queue(meanwhile)
    assert [entry.key for entry in ready(LIVE)] == ["a"]
    assert len(letters()) == 1


@pytest.mark.usefixtures("folder")
def test_a_release_of_more_than_a_batch_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BATCH", 4)
    for number in range(30):
        hold(task(f"{number}", route="r" if number % 3 else "other"))
    assert json.loads(run("release", "r", "--yes", "--json").stdout) == {"route": "r", "released": 20}
    assert len(ready(LIVE)) == 20
    assert len(letters()) == 10


@pytest.mark.usefixtures("folder")
def test_a_dry_run_counts_and_changes_nothing() -> None:
    hold(task("a"), task("b"))
    before = letters()
    assert run("release", "r", "--dry-run").output == "would release: 2\n"
    assert json.loads(run("release", "r", "--dry-run", "--json").stdout)["would_release"] == 2
    assert letters() == before
    assert ready(LIVE) == []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("more", [[], ["--json"], ["--dry-run"]])
def test_a_route_that_holds_nothing_is_an_error_that_says_where_to_look(more: list[str]) -> None:
    hold(task("a", route="other"))
    result = run("release", "r", *more)
    assert result.exit_code == 1
    assert '"r"' in result.output
    assert "hookmirror brake list" in result.output
    assert len(letters()) == 1


@pytest.mark.usefixtures("folder")
def test_a_release_that_breaks_off_has_lost_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BATCH", 2)
    hold(*(task(f"{number}") for number in range(6)))
    publish, count = SqliteQueue.publish, 0

    async def failing(self: SqliteQueue, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise QueueAway("no confirm")
        await publish(self, body, lane=lane, delay=delay)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteQueue, "publish", failing)
        assert isinstance(run("release", "r", "--yes").exception, QueueAway)
    assert len(letters()) == 4, "what was not published with its whole batch stays"
    assert run("release", "r", "--yes").output == "released: 4\n"
    assert {entry.key for entry in ready(LIVE)} == {f"{number}" for number in range(6)}


@pytest.mark.usefixtures("folder")
def test_the_list_tells_each_route_and_how_many_it_holds() -> None:
    hold()
    assert "No deletes are held." in run("list").output
    assert json.loads(run("list", "--json").stdout) == {}
    hold(task("a"), task("b"), task("c", route="[red]\x1b[2J"))
    hold(task("x"), why="Refused: too large")
    assert json.loads(run("list", "--json").stdout) == {"r": 2, "[red]\x1b[2J": 1}
    table = run("list").output
    assert "\x1b" not in table
    assert "[red]" in table
    assert "more than 10 deletes within 300 s" in table
    assert len(letters()) == 4
