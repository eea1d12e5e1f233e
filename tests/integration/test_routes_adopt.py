"""A route is renamed: its tasks are named by `status` and go on under the new name by `routes adopt`."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.queue.port import Kind, Lane
from common.queue.sqlite import SqliteQueue
from common.settings import PREFIX
from common.task import Claim, Stack, Task
from console import cli
from console import routes as command
from tests.lab.lanes import BULK, LIVE

CONFIG = """\
[queue]
url = "sqlite:///queue.db"
[receiver]
stack_url = "https://hooks.example.org/stacks/0123456789abcdef"
[stores.a]
[stores.b]
[[routes]]
name = "new"
source = "a:from"
target = "b:to"
prefix = "photos/"
[[stack_routes]]
name = "stacks"
log = true
"""

WHY = 'UnknownRoute: no route here is "old"'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.hookmirror, arguments, prog_name="hookmirror")


def with_queue(call: Callable[[SqliteQueue], Awaitable[Any]]) -> Any:
    async def once() -> Any:
        queue = await SqliteQueue.open(Path("queue.db"))
        try:
            return await call(queue)
        finally:
            await queue.close()

    return asyncio.run(once())


def dead(*tasks: Task, lane: Lane = LIVE, why: str = WHY) -> None:
    async def bury(queue: SqliteQueue) -> None:
        for task in tasks:
            await queue.bury(task.encode(), lane=lane, why=why)

    with_queue(bury)


def ready() -> list[tuple[Lane, Task]]:
    """The tasks that a worker may take now."""

    async def take(queue: SqliteQueue) -> list[tuple[Lane, Task]]:
        counts = await queue.counts()
        found = []
        for lane, depth in counts.lanes.items():
            deliveries = queue.deliveries(lane, 100)
            for _ in range(depth.ready):
                found.append((lane, Task.decode((await anext(deliveries)).body)))
            await deliveries.aclose()  # type: ignore[attr-defined]
        return found

    found: list[tuple[Lane, Task]] = with_queue(take)
    return found


def left() -> list[str]:
    """The routes of the dead letters that are there."""

    async def look(queue: SqliteQueue) -> list[str]:
        return [Task.decode(letter.body).route for letter in await queue.buried(100)]

    found: list[str] = with_queue(look)
    return found


def photo(number: int, route: str = "old", **more: Any) -> Task:
    return Task(route=route, key=f"photos/{number}", claim=Claim.REMOVED, received=1.5, **more)


def test_the_tasks_of_a_renamed_route_go_on_under_its_new_name() -> None:
    dead(photo(1, doubt=True), photo(2))
    dead(photo(3), lane=BULK, why="Refused: too large")
    dead(photo(4, "other"), Task(route="old", key="s", stack=Stack(id="1", name="s", status="X")))
    told = json.loads(run("status", "--json").stdout)
    assert told["unknown_routes"] == {"old": 4, "other": 1}
    assert 'Unknown route "old": 4 tasks' in run("status").stdout
    result = run("routes", "adopt", "old", "new", "--yes")
    assert result.exit_code == 0, result.output
    assert "to adopt: 3 of 5 dead letters" in result.output
    assert "adopted: 3" in result.output
    assert sorted(left()) == ["old", "other"]
    taken = ready()
    assert {(lane, task.key) for lane, task in taken} == {
        (Lane("new"), "photos/1"),
        (Lane("new"), "photos/2"),
        (Lane("new", Kind.BULK), "photos/3"),
    }
    assert {(task.route, task.claim, task.received) for _, task in taken} == {("new", Claim.REMOVED, 1.5)}
    assert [task.doubt for _, task in taken if task.key == "photos/1"] == [True]


def test_a_dry_run_changes_nothing_and_a_script_says_yes() -> None:
    dead(photo(1), photo(2))
    counted = json.loads(run("routes", "adopt", "old", "new", "--dry-run", "--json").stdout)
    assert counted["would_adopt"] == 2
    asked = run("routes", "adopt", "old", "new")
    assert asked.exit_code == 2
    assert "add --yes" in asked.output
    assert left() == ["old", "old"]
    done = json.loads(run("routes", "adopt", "old", "new", "--json", "--yes").stdout)
    assert (done["adopted"], done["gone"]) == (2, 0)


def test_notifications_of_stacks_go_to_a_route_for_stacks_alone() -> None:
    dead(photo(1), Task(route="old", key="s", stack=Stack(id="1", name="s", status="X")))
    assert run("routes", "adopt", "old", "stacks", "--yes").exit_code == 0
    assert [(task.route, task.key) for _, task in ready()] == [("stacks", "s")]
    assert left() == ["old"]


def test_many_are_moved_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BATCH", 3)
    dead(*map(photo, range(10)))
    assert "adopted: 10" in run("routes", "adopt", "old", "new", "--yes").output
    assert left() == []
    assert len(ready()) == 10


def test_tasks_that_wait_are_told_of_and_come_after_their_wait() -> None:
    def publish(delay: float) -> None:
        with_queue(lambda queue: queue.publish(photo(2).encode(), lane=Lane("old"), delay=delay))

    dead(photo(1))
    assert "for a retry" not in run("routes", "adopt", "old", "new", "--dry-run").stdout
    publish(3600)
    later = (
        "Tasks of old that wait for a retry or a re-check: 1. Those of old come to its queue when their time "
        "comes, within 60 minutes: run this again then."
    )
    assert run("routes", "adopt", "old", "new", "--dry-run").stdout.count(later) == 1
    counted = json.loads(run("routes", "adopt", "old", "new", "--dry-run", "--json").stdout)
    assert (counted["would_adopt"], counted["waiting"]) == (1, 1)
    assert run("routes", "adopt", "old", "new", "--yes").stdout.count(later) == 1
    done = json.loads(run("routes", "adopt", "old", "new", "--json", "--yes").stdout)
    assert (done["adopted"], done["waiting"]) == (0, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("old", "nowhere", '"nowhere" is no route of this configuration: name one of "new", "stacks"'),
        ("new", "stacks", '"new" is a route of this configuration, so its tasks need not move'),
        ("new", "new", "hookmirror dead replay --route new"),
    ],
)
def test_a_wrong_name_is_one_sentence_and_moves_nothing(old: str, new: str, said: str) -> None:
    dead(photo(1))
    result = run("routes", "adopt", old, new, "--yes")
    assert result.exit_code != 0
    assert said in str(result.exception)
    assert left() == ["old"]


def queued(*tasks: Task, kind: Kind = Kind.LIVE) -> None:
    async def publish(queue: SqliteQueue) -> None:
        for task in tasks:
            await queue.publish(task.encode(), lane=Lane(task.route, kind))

    with_queue(publish)


def test_tasks_that_are_ready_in_the_queues_of_a_renamed_route_go_along() -> None:
    queued(photo(1), photo(2))
    queued(photo(3), kind=Kind.BULK)
    dead(photo(4))
    told = json.loads(run("status", "--json").stdout)
    assert told["unknown_routes"] == {"old": 4}
    counted = json.loads(run("routes", "adopt", "old", "new", "--dry-run", "--json").stdout)
    assert (counted["would_adopt"], counted["would_move"]) == (1, 3)
    done = json.loads(run("routes", "adopt", "old", "new", "--yes", "--json").stdout)
    assert (done["adopted"], done["moved"]) == (1, 3)
    assert {(lane, task.key, task.route) for lane, task in ready()} == {
        (Lane("new"), "photos/1", "new"),
        (Lane("new"), "photos/2", "new"),
        (Lane("new", Kind.BULK), "photos/3", "new"),
        (Lane("new"), "photos/4", "new"),
    }
    assert left() == []


def test_what_cannot_go_along_stays_where_it_is_and_is_told() -> None:
    queued(photo(1), Task(route="old", key="s", stack=Stack(id="1", name="s", status="X")))
    done = json.loads(run("routes", "adopt", "old", "new", "--yes", "--json").stdout)
    assert (done["moved"], done["stayed"]) == (1, 1)
    assert "1 tasks stayed in the queue of OLD" in run("routes", "adopt", "old", "new", "--yes").stdout
    assert left() == []
    assert run("routes", "adopt", "old", "stacks", "--yes").exit_code == 0
    assert {lane for lane, _ in ready()} == {Lane("new"), Lane("stacks")}


def test_nobodys_lane_cannot_be_adopted() -> None:
    result = run("routes", "adopt", "", "new", "--yes")
    assert result.exit_code != 0
    assert "OLD is empty" in str(result.exception)
