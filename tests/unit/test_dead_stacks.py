"""Dead letters of stack notifications: a person sees what happened, and no credential."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.queue.sqlite import SqliteQueue
from common.task import Task
from console import cli
from receiver.dialects import ros
from tests.lab.lanes import LIVE
from tests.lab.samples import sample

CONFIG = """\
[queue]
url = "sqlite:///queue.db"
[receiver]
stack_url = "https://hooks.example.org/stacks/3f9c0a7b5d1e42d7"
[[stack_routes]]
name = "run"
log = true
"""
SECRETS = ("hunter2", "LTAI5tFakeFakeFakeFake12")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The one dead letter that there is."""
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG)
    stack = ros.parse(sample("ros/credentials"))
    task = Task(route="run", key=stack.name, event=stack.status, stack=stack)

    async def bury() -> None:
        queue = await SqliteQueue.open(Path("queue.db"))
        await queue.bury(task.encode(), lane=LIVE, why="ActionFailed: exit code 1 (attempt 12 of 12)")
        await queue.close()

    asyncio.run(bury())
    return task


def test_only_its_owner_can_read_an_exported_file(task: Task) -> None:
    run("export", "--output", "letters.jsonl")
    assert Path("letters.jsonl").stat().st_mode & 0o777 == 0o600


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.hookmirror, ("dead", *arguments), prog_name="hookmirror")
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("command", ["list", "show 1", "check"])
def test_a_person_is_shown_the_stack_and_no_secret(task: Task, command: str) -> None:
    output = run(*command.split()).output
    assert not [secret for secret in SECRETS if secret in output]
    assert ("prod-db" in output) is (command != "check")


@pytest.mark.parametrize(
    "letters",
    [
        lambda: json.loads(run("list", "--json").stdout)["letters"],
        lambda: [json.loads(run("show", "1", "--json").stdout)],
        lambda: [json.loads(run("export").stdout)],
    ],
)
def test_the_task_of_a_letter_hides_its_secrets_and_the_body_is_whole(
    task: Task, letters: Callable[[], list[dict[str, object]]]
) -> None:
    [letter] = letters()
    assert not [secret for secret in SECRETS if secret in json.dumps(letter["task"])]
    assert "rm-bp1x2345abcdefghi.mysql.rds.aliyuncs.com:3306" in json.dumps(letter["task"])
    assert Task.decode(base64.b64decode(str(letter["body"]))) == task


def test_a_check_cannot_tell_of_a_stack(task: Task) -> None:
    found = json.loads(run("check", "--json").stdout)
    assert (found["cannot_tell"], found["in_sync"], found["differs"]) == (1, 0, 0)
    assert found["letters"][0]["why"] == "the route has an action, and no target to compare with"


@pytest.mark.parametrize("cut", [0, 5], ids=["of a wrong shape", "no JSON either"])
def test_a_notification_that_was_kept_for_its_shape_is_shown_up_to_its_first_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG)
    body = json.dumps({"Status": "odd"} | {"StackId": "i"} | sample("ros/credentials")).encode()

    async def bury() -> None:
        queue = await SqliteQueue.open(Path("queue.db"))
        await queue.bury(body[: len(body) - cut], lane=LIVE, why="Unreadable: Status is no word")
        await queue.close()

    asyncio.run(bury())
    shown = run("show", "1").output
    assert not [secret for secret in SECRETS if secret in shown]
    assert '"OutputValue": ***' in shown
    exported = json.loads(run("export").output)
    assert base64.b64decode(exported["body"]) == body[: len(body) - cut]
