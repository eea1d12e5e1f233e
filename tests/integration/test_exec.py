"""The action `exec` with real programs: how they are called, and that nothing of them is left running."""

import asyncio
import json
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import ActionFailed, ActionRefused, ConfigError
from common.queue.memory import MemoryQueue
from common.queue.port import Move, Retry
from common.routes import BrakeSettings, RouteSettings
from common.settings import Settings
from common.store.memory import MemoryStore
from common.tables import StoreSettings
from common.task import Claim, Task
from common.telemetry import Action
from demo.weed import settings_for
from tests.integration.test_s3_features import client
from tests.lab.clouds import moto
from tests.lab.lanes import LIVE
from tests.lab.until import until
from tests.lab.world import Spy
from worker import execute
from worker.actions import Acting
from worker.attempt import Attempt, Attempted, Observer
from worker.brake import Brake
from worker.execute import KEEP, Program
from worker.job import Job, Route
from worker.plan import Why
from worker.program import open_routes, open_stores
from worker.verdict import Continue, Outcome

D = 1200


class Bench:
    """A worker of one route with a program, on a queue and a source in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_700_000_000.0
        self.queue = MemoryQueue(lambda: self.now)
        self.source = MemoryStore().create("myfiles")
        self.seen: list[Attempted] = []
        self.options: dict[str, Any] = {"timeout": 30.0}
        self.route = Route("r", self.source, None)
        self.brake = Brake({"r": BrakeSettings(deletes=1, window=1000)})

    def program(self, script: str, shell: str = "/bin/bash") -> Path:
        """Write the program, a shell script; it starts in any folder and knows the bench's as $D."""
        path = self.folder / "program"
        path.write_text(f"#!{shell}\nD={self.folder}\n{script}\n")
        path.chmod(0o755)
        return path

    @asynccontextmanager
    async def at(self, cloud: StoreSettings) -> AsyncIterator[None]:
        """The route's source is the bucket in `cloud`, opened as a worker does."""
        route = RouteSettings(name="r", source="mcs:myfiles", exec=str(self.folder / "program"))
        settings = Settings.model_construct(stores={"mcs": cloud}, routes=(route,))
        async with AsyncExitStack() as stack:
            self.route = open_routes(settings, await open_stores(settings, stack))["r"]
            yield

    async def put(self, key: str, body: bytes = b"body") -> None:
        await self.source.write(key, body, headers={}, metadata={})

    async def come(self, **task: Any) -> Outcome | Continue | Move | Exception:
        """Let an event come; return how its attempt ends."""
        await self.queue.publish(Task(**{"route": "r", "key": "k"} | task).encode(), lane=LIVE)
        return await self.take()

    async def take(self) -> Outcome | Continue | Move | Exception:
        """Do what is ready in the queue."""
        program = Program(str(self.folder / "program"), **self.options)
        acting = Acting(program, look_after=D, brake=self.brake)
        observers: tuple[Observer, ...] = (self.note,)
        attempt = Attempt(
            self.queue,
            acting,
            {"r": self.route},
            attempts=3,
            observers=observers,
            rng=random.Random(1),
        )
        async with aclosing(self.queue.deliveries(LIVE, 9)) as deliveries:  # type: ignore[type-var]
            await attempt(await anext(deliveries))
        return self.seen[-1].result

    def note(self, attempted: Attempted) -> None:
        self.seen.append(attempted)

    def wrote(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet collected does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


ARGUMENTS = 'printf "%s\\0" "$@" > $D/arguments'


async def test_the_program_is_called_with_bucket_key_and_copy(bench: Bench) -> None:
    bench.program(ARGUMENTS)
    await bench.put("k")
    assert await bench.come(claim=Claim.CREATED) == Outcome(Action.EXECUTED, "copy")
    assert bench.wrote("arguments") == "myfiles\0k\0copy\0"


async def test_a_key_that_the_source_has_not_is_a_delete(bench: Bench) -> None:
    bench.program(ARGUMENTS)
    assert await bench.come(claim=Claim.REMOVED) == Outcome(Action.EXECUTED, "delete")
    assert bench.wrote("arguments") == "myfiles\0k\0delete\0"


@pytest.mark.parametrize(
    "key",
    [
        "-rf",
        "--",
        "two\nlines",
        "$(touch pwned)",
        "; false",
        "'\"\\",
        "*",
        " ",
        "ключ",
        "\x1b[2J",
        "a" * 1024,
    ],
)
async def test_any_key_arrives_as_one_argument_and_one_variable(bench: Bench, key: str) -> None:
    bench.program(ARGUMENTS + '; printf %s "$EVENT_KEY" > $D/variable; cat > $D/document')
    await bench.put(key)
    assert await bench.come(key=key, claim=Claim.CREATED) == Outcome(Action.EXECUTED, "copy")
    assert bench.wrote("arguments") == f"myfiles\0{key}\0copy\0"
    assert bench.wrote("variable") == key
    assert json.loads(bench.wrote("document"))["subject"] == key


async def test_a_key_with_a_nul_byte_is_buried_for_no_program_can_take_it(bench: Bench) -> None:
    bench.program("exit 0")
    assert isinstance(await bench.come(key="a\0b", claim=Claim.REMOVED), ActionRefused)


async def test_the_whole_event_is_on_standard_input_with_what_it_claimed_beside_what_is(bench: Bench) -> None:
    bench.program("cat > $D/document")
    await bench.put("k", b"new body")
    state = await bench.source.head("k")
    assert state is not None
    task = Task(
        route="r",
        key="k",
        claim=Claim.CREATED,
        etag="older",
        size=3,
        event="s3:ObjectCreated:Put",
        received=1.5e9,
    )
    await bench.come(**task.model_dump())
    document = json.loads(bench.wrote("document"))
    data = document.pop("data")
    assert document == {
        "specversion": "1.0",
        "id": task.id,
        "source": "s3://myfiles",
        "type": "hookmirror.object.copy",
        "subject": "k",
        "time": "2017-07-14T02:40:00+00:00",
        "datacontenttype": "application/json",
    }
    assert data["event"] == {"name": "s3:ObjectCreated:Put", "claim": "created", "etag": "older", "size": 3}
    assert (data["object"]["etag"], data["object"]["size"]) == (state.etag, 8)
    assert (data["action"], data["bucket"], data["key"], data["route"]) == ("copy", "myfiles", "k", "r")


async def test_the_event_is_in_the_environment_and_our_secrets_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKMIRROR_STORES__MCS__SECRET_ACCESS_KEY", "hidden-hidden")
    monkeypatch.setenv("AWS_PROFILE", "backup")
    bench.program("env -0 > $D/environment")
    await bench.come(id="7", claim=Claim.REMOVED, event="s3:ObjectRemoved:Delete", etag="e", received=12.5)
    lines = [pair.partition("=") for pair in bench.wrote("environment").split("\0")]
    environment = {name: value for name, _, value in lines}
    assert {name: value for name, value in environment.items() if name.startswith("EVENT_")} == {
        "EVENT_ID": "7",
        "EVENT_ROUTE": "r",
        "EVENT_BUCKET": "myfiles",
        "EVENT_KEY": "k",
        "EVENT_ACTION": "delete",
        "EVENT_ETAG": "",
        "EVENT_SIZE": "",
        "EVENT_NAME": "s3:ObjectRemoved:Delete",
        "EVENT_CLAIM": "removed",
        "EVENT_CLAIMED_ETAG": "e",
        "EVENT_CLAIMED_SIZE": "",
        "EVENT_RECEIVED": "12.500",
    }
    assert environment["AWS_PROFILE"] == "backup"
    assert not [name for name in environment if name.startswith("HOOKMIRROR")]


async def test_a_program_that_reads_no_input_is_done_all_the_same(bench: Bench) -> None:
    bench.program("exec <&-; exit 0")
    assert isinstance(await bench.come(claim=Claim.REMOVED, event="x" * 100_000), Outcome)


@pytest.mark.parametrize(
    ("ending", "on_failure", "kind", "why"),
    [
        ("exit 75", "retry", ActionFailed, "program: exit code 75"),
        ("exit 75", "bury", ActionFailed, "program: exit code 75"),
        ("exit 1", "retry", ActionFailed, "program: exit code 1"),
        ("exit 1", "bury", ActionRefused, "program: exit code 1"),
        ("kill -SEGV $$", "bury", ActionRefused, "program: ended by SIGSEGV"),
        (
            "echo first; echo what went wrong >&2; exit 2",
            "bury",
            ActionRefused,
            "exit code 2: what went wrong",
        ),
    ],
)
async def test_an_exit_code_decides_what_becomes_of_the_task(
    bench: Bench, ending: str, on_failure: str, kind: type[Exception], why: str
) -> None:
    bench.program(ending)
    bench.options["on_failure"] = on_failure
    result = await bench.come(claim=Claim.REMOVED)
    assert type(result) is kind
    assert why in str(result)
    verdict = bench.seen[-1].verdict
    assert (await bench.queue.counts()).dead == (kind is ActionRefused)
    assert isinstance(verdict, Retry) == (kind is ActionFailed)


async def test_a_program_that_goes_on_failing_ends_as_a_dead_letter_under_one_id(bench: Bench) -> None:
    bench.brake = Brake({})
    bench.program("echo $EVENT_ID >> $D/ids; exit 75")
    await bench.come(claim=Claim.REMOVED)
    for _ in range(2):
        bench.now += 3600
        await bench.take()
    assert (await bench.queue.counts()).dead == 1
    ids = bench.wrote("ids").split()
    assert len(ids) == 3
    assert len(set(ids)) == 1


async def test_output_goes_to_the_log_its_end_at_least_and_never_more_than_the_bound(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hookmirror")
    bench.program("head -c 50000000 /dev/zero | tr '\\0' x; echo; echo the end")
    assert isinstance(await bench.come(claim=Claim.REMOVED), Outcome)
    (record,) = (r for r in caplog.records if getattr(r, "action", None) is Action.OUTPUT)
    assert record.getMessage().endswith("xxx\nthe end")
    assert len(record.getMessage()) < KEEP
    assert record.__dict__["fields"]["left_out"] == 50_000_009 - KEEP


async def test_at_the_time_limit_the_whole_group_is_killed_also_a_grandchild_that_heeds_no_signal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "GRACE", 0.2)
    bench.options["timeout"] = 1.0
    bench.program(
        "trap '' TERM\n(trap '' TERM; echo $BASHPID > $D/grandchild; while :; do sleep 1; done) &\nwait; wait"
    )
    result = await bench.come(claim=Claim.REMOVED)
    assert isinstance(result, ActionFailed)
    assert "not done within 1 s: killed" in str(result)
    await until(lambda: not alive(int(bench.wrote("grandchild"))), "the process is gone")


async def test_at_the_time_limit_a_program_may_clean_up_first(bench: Bench) -> None:
    bench.options["timeout"] = 1.0
    bench.program("trap 'touch $D/cleaned; exit 0' TERM\nsleep 100 & wait")
    assert isinstance(await bench.come(claim=Claim.REMOVED), ActionFailed)
    assert (bench.folder / "cleaned").exists()


async def test_what_a_program_leaves_running_is_killed_and_not_waited_for(bench: Bench) -> None:
    bench.program("sleep 100 & echo $! > $D/left; exit 0")
    start = time.monotonic()
    assert isinstance(await bench.come(claim=Claim.REMOVED), Outcome)
    assert time.monotonic() - start < 20
    await until(lambda: not alive(int(bench.wrote("left"))), "the process is gone")


async def test_who_left_the_group_with_the_output_open_is_not_waited_for(bench: Bench) -> None:
    bench.program(
        "setsid sh -c 'echo $$ > '$D'/escaped; exec sleep 100' &\nuntil [ -s $D/escaped ]; do :; done"
    )
    start = time.monotonic()
    try:
        assert isinstance(await bench.come(claim=Claim.REMOVED), Outcome)
        assert time.monotonic() - start < 20
    finally:
        os.kill(int(bench.wrote("escaped")), signal.SIGKILL)


async def test_a_cancelled_run_is_killed_at_once_and_comes_back(bench: Bench) -> None:
    bench.program("trap '' TERM\nsleep 100 & echo $! > $D/child; echo $$ > $D/pid; wait; wait")
    running = asyncio.create_task(bench.come(claim=Claim.REMOVED))
    written = bench.folder / "pid"
    await until(lambda: written.exists() and written.read_text(), "the program runs")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not alive(int(bench.wrote("pid"))), "the process is gone")
    await until(lambda: not alive(int(bench.wrote("child"))), "the process is gone")
    assert bench.seen == []  # unsettled: it comes back


async def said_created_but_gone(bench: Bench) -> dict[str, Any]:
    return {"claim": Claim.CREATED}


async def said_removed_but_there(bench: Bench) -> dict[str, Any]:
    await bench.put("k")
    return {"claim": Claim.REMOVED}


@pytest.mark.parametrize("contradiction", [said_created_but_gone, said_removed_but_there])
async def test_an_event_that_the_source_contradicts_is_overtaken_at_once_and_runs_nothing(
    bench: Bench, contradiction: Callable[[Bench], Any]
) -> None:
    bench.program("touch $D/called")
    assert await bench.come(**await contradiction(bench)) == Outcome(Action.SKIPPED, Why.OVERTAKEN)
    assert not (bench.folder / "called").exists()
    assert await empty(bench)


async def empty(bench: Bench) -> bool:
    """Whether the queue holds nothing at all."""
    counts = await bench.queue.counts()
    return (sum(counts.ready.values()), counts.waiting, counts.dead) == (0, 0, 0)


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
async def test_a_removal_that_brought_an_older_version_back_asks_for_a_copy_of_it(
    bench: Bench, consistency: str
) -> None:
    bench.program('echo "$3 $EVENT_CLAIM $EVENT_SIZE" >> $D/calls')
    with moto() as url:
        cloud = settings_for(url).model_copy(update={"consistency": consistency})
        async with bench.at(cloud):
            newest = versions_of_k(client(cloud), b"older", b"newest")
            client(cloud).delete_object(Bucket="myfiles", Key="k", VersionId=newest)
            result = await bench.come(claim=Claim.REMOVED)
            if consistency == "eventual":  # it may be the version that was removed, shown still
                assert isinstance(result, Continue)
                assert not (bench.folder / "calls").exists()
                bench.now += D
                result = await bench.take()
    assert result == Outcome(Action.EXECUTED, "copy")
    assert bench.wrote("calls") == "copy removed 5\n"
    assert await empty(bench)


async def test_a_removal_that_put_a_marker_over_the_versions_asks_for_a_delete(bench: Bench) -> None:
    bench.program(ARGUMENTS)
    with moto() as url:
        async with bench.at(settings_for(url)):
            versions_of_k(client(settings_for(url)), b"older", b"newest")
            client(settings_for(url)).delete_object(Bucket="myfiles", Key="k")
            assert await bench.come(claim=Claim.REMOVED) == Outcome(Action.EXECUTED, "delete")
    assert bench.wrote("arguments") == "myfiles\0k\0delete\0"


def versions_of_k(user: Any, *bodies: bytes) -> str:
    """Make the bucket keep versions, write those of `k`; return the id of the last one."""
    user.create_bucket(Bucket="myfiles")
    enabled = {"Status": "Enabled"}
    user.put_bucket_versioning(Bucket="myfiles", VersioningConfiguration=enabled)
    ids = [user.put_object(Bucket="myfiles", Key="k", Body=body)["VersionId"] for body in bodies]
    return str(ids[-1])


@pytest.mark.parametrize(("claim", "verb"), [(Claim.CREATED, "copy"), (Claim.REMOVED, None), (None, "copy")])
async def test_one_wrong_no_such_key_is_not_believed(
    bench: Bench, claim: Claim | None, verb: str | None
) -> None:
    spy = Spy(bench.source, [], "source")
    bench.route = Route("r", spy, None)
    bench.program('echo "$3" >> $D/calls')
    await bench.put("k")
    spy.is_wrong(1)
    result = await bench.come(claim=claim)
    if verb is None:
        assert result == Outcome(Action.SKIPPED, Why.OVERTAKEN)
    else:
        assert result == Outcome(Action.EXECUTED, verb)
        assert bench.wrote("calls") == f"{verb}\n"


@pytest.mark.parametrize("contradiction", [said_created_but_gone, said_removed_but_there])
@pytest.mark.parametrize("there", [True, False])
async def test_on_a_source_that_shows_old_states_a_contradicted_event_comes_back_once_and_runs_if_it_agrees(
    bench: Bench, contradiction: Callable[[Bench], Any], *, there: bool
) -> None:
    bench.route = replace(bench.route, eventual=True)
    bench.program('echo "$3 $EVENT_CLAIM $EVENT_ID" >> $D/calls')
    claim = await contradiction(bench)
    calls = bench.folder / "calls"
    assert isinstance(await bench.come(id="7", **claim), Continue)
    assert not calls.exists()
    assert (await bench.queue.counts()).waiting == 1
    bench.now += D - 1
    assert (await bench.queue.counts()).waiting == 1
    await (bench.put("k") if there else bench.source.delete("k"))
    bench.now += 1
    result = await bench.take()
    if there == (claim["claim"] is Claim.CREATED):
        verb = "copy" if there else "delete"
        assert result == Outcome(Action.EXECUTED, verb)
        assert bench.wrote("calls") == f"{verb} {claim['claim']} 7\n"
    else:
        assert result == Outcome(Action.SKIPPED, Why.OVERTAKEN)
        assert not calls.exists()
    bench.now += 10 * D
    assert await empty(bench)


async def test_an_event_that_claims_nothing_runs_what_the_source_says(bench: Bench) -> None:
    bench.program(ARGUMENTS)
    await bench.put("k")
    assert await bench.come(event="s3:ObjectTagging:Put") == Outcome(Action.EXECUTED, "copy")


async def test_too_many_deletes_are_held_by_the_brake_and_run_no_program(bench: Bench) -> None:
    bench.program("echo $2 >> $D/calls")
    for key in ("a", "b"):
        await bench.come(key=key, claim=Claim.REMOVED)
    assert bench.wrote("calls") == "a\n"
    assert (await bench.queue.counts()).dead == 1
    await bench.come(key="b", claim=Claim.REMOVED, approved=True)
    assert bench.wrote("calls") == "a\nb\n"


async def test_a_program_that_has_gone_is_tried_again_not_buried(bench: Bench) -> None:
    path = bench.program("exit 0")
    program = Program(str(path), timeout=30)
    path.unlink()
    acting = Acting(program, look_after=D, brake=bench.brake)
    job = Job(
        Task(route="r", key="k", claim=Claim.REMOVED),
        Route("r", bench.source, None),
        1,
        LIVE,
        lambda: True,
    )
    with pytest.raises(ActionFailed, match="cannot be started"):
        await acting(job)


def test_no_program_is_found_by_its_name_alone_and_a_missing_one_says_how_to_put_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"true is no program.*chmod \+x"):
        Program("true", timeout=1)
