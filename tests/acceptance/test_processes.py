"""`worker.processes`: several worker processes under one supervisor, killed and stopped for real."""

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.gate import gate
from tests.lab.programs import Program, Site, deliver, in_step, record
from tests.lab.until import until

PROCESSES = 3


def started(program: Program) -> dict[int, int]:
    """The ids of the worker processes that live, by their numbers."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if parent == program.pid and "console.child" in words and "worker" in words:
            found[int(words[words.index("worker") + 1])] = int(folder.name)
    return found


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def port(program: Program) -> int:
    """Where the supervisor serves the metrics."""
    (found,) = (line["metrics_port"] for line in program.lines() if "metrics_port" in line)
    return int(found)


async def asked(program: Program, path: str) -> tuple[int, str]:
    """What the supervisor answers."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port(program)}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def total(program: Program, name: str) -> float:
    """The sum of the samples of this name in the supervisor's /metrics."""
    text = (await asked(program, "/metrics"))[1]
    families = text_string_to_metric_families(text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def healthy(program: Program) -> bool:
    """Whether one process at least answers."""
    return (await asked(program, "/healthz"))[0] == 200


async def write(site: Site, *keys: str) -> None:
    """Write objects at the source, and tell of them."""

    async def one(key: str) -> None:
        await site.source.write(key, key.encode(), headers={}, metadata={})
        await deliver(site.hook_url, record(key))

    await asyncio.gather(*(one(key) for key in keys))


@pytest.fixture
def many(anywhere: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose workers are several processes."""
    anywhere.worker = f"processes = {PROCESSES}"
    monkeypatch.setenv("HOOKMIRROR_METRICS__PORT", "0")
    return anywhere


async def running(site: Site, name: str = "worker") -> Program:
    """Start `hookmirror <name>` and return when each of its processes has started."""
    program = site.launch(name)
    parts = 1 + PROCESSES + (name == "up")
    await until(lambda: program.did("started") == parts or program.ended(), "all processes start", 60)
    assert not program.ended(), program.words()
    return program


def at_work(program: Program) -> set[int]:
    """The numbers of the processes that copied something."""
    return {line["process"] for line in program.lines() if line["action"] == "copied"}


async def test_all_processes_do_the_work_of_one_queue_and_one_that_is_killed_comes_back_and_loses_nothing(
    many: Site,
) -> None:
    async with gate(many.target_endpoint) as slow:
        many.target_endpoint = slow.endpoint
        many.worker += "\nconcurrency = 2"
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        up = await running(many, "up")
        await write(many, *(f"object {number}" for number in range(60)))
        await until(lambda: len(slow.held) >= 2 * PROCESSES, "each process has its hands full")
        first = started(up)
        assert sorted(first) == [1, 2, 3]
        os.kill(first[2], signal.SIGKILL)
        slow.open.set()
        await in_step(many)
        await until(lambda: up.did("started") == 3 + PROCESSES, "it is back")
        assert {1, 3} <= at_work(up) <= {1, 2, 3}
        assert started(up) | {2: 0} == first | {2: 0}
        (died,) = (line for line in up.lines() if line["action"] == "failed")
        assert (died["process"], died["exit"]) == (2, -9)
        assert "worker process 2 was killed by SIGKILL: it is started again in 1 s" in died["message"]
    up.send(signal.SIGTERM)
    assert await up.ends() == 0
    assert not any(lives(pid) for pid in first.values())


async def test_merged_metrics_are_the_tasks_done_also_after_each_process_was_killed_in_turn(
    many: Site,
) -> None:
    await many.run("receiver")
    worker = await running(many)
    await write(many, *(f"a {number}" for number in range(30)))
    await in_step(many)
    assert await total(worker, "hookmirror_tasks_ended_total") == 30
    assert await total(worker, "hookmirror_lag_seconds_count") == 30
    assert await total(worker, "hookmirror_info") == 1
    for number, pid in started(worker).items():
        os.kill(pid, signal.SIGKILL)
        await until(lambda was=pid: not lives(was), "it is gone")  # type: ignore[misc]
        await until(lambda one=number: one in started(worker), "it is back")  # type: ignore[misc]
        assert await total(worker, "hookmirror_tasks_ended_total") == 30
    await until(lambda: worker.did("started") == 1 + 2 * PROCESSES, "all are back")
    await write(many, *(f"b {number}" for number in range(30)))
    await in_step(many)

    async def all_counted() -> bool:
        return await total(worker, "hookmirror_tasks_ended_total") == 60

    await until(all_counted, "every task is counted")
    assert await total(worker, "hookmirror_copied_bytes_total") == sum(
        len(f"{letter} {number}") for letter in "ab" for number in range(30)
    )
    status, state = await asked(worker, "/state")
    (route,) = json.loads(state).values()
    assert (status, route["paused"], route["brake"], route["in_progress"]) == (200, None, False, 0)


async def test_a_sigterm_lets_every_process_drain_and_the_metrics_are_told_meanwhile(many: Site) -> None:
    async with gate(many.target_endpoint) as slow:
        many.target_endpoint = slow.endpoint
        many.worker += "\nconcurrency = 2"
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        await many.run("receiver")
        worker = await running(many)
        await write(many, *(f"object {number}" for number in range(20)))
        await until(lambda: len(slow.held) >= 2 * PROCESSES, "each process has its hands full")
        worker.send(signal.SIGTERM)
        await until(lambda: worker.did("stopping") == 1, "it says that it stops")
        in_hand = await total(worker, "hookmirror_deliveries_in_hand")
        assert in_hand == len(slow.held) == 2 * PROCESSES
        assert not worker.ended()
        slow.open.set()
        assert await worker.ends() == 0
    done = [line["cut_off"] for line in worker.lines() if line["action"] == "stopped" and "process" in line]
    assert done == [0] * PROCESSES
    assert worker.did("copied") == in_hand


async def test_ctrl_c_to_the_whole_group_drains_once_and_the_second_ends_all_at_once(many: Site) -> None:
    many.worker += "\ndrain = 600"
    async with gate(many.target_endpoint) as slow:
        many.target_endpoint = slow.endpoint
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        up = await running(many, "up")
        await write(many, "k")
        await until(lambda: bool(slow.held), "a copy is under way")
        children = started(up)
        os.killpg(up.pid, signal.SIGINT)
        await until(lambda: up.did("stopping") == 1, "it says that it stops")
        await until(lambda: sum(lives(pid) for pid in children.values()) == 1, "those without work end")
        assert not up.ended()
        os.killpg(up.pid, signal.SIGINT)
        assert await up.ends(10) == 128 + signal.SIGINT
        await until(lambda: not any(lives(pid) for pid in children.values()), "all are gone", 5)


async def test_no_process_outlives_a_supervisor_that_was_killed(many: Site) -> None:
    worker = await running(many)
    children = started(worker)
    worker.kill()
    await until(lambda: not any(lives(pid) for pid in children.values()), "all are gone", 10)
    assert sum("the supervisor is gone" in line["message"] for line in worker.lines()) == PROCESSES


async def test_a_process_that_must_not_start_ends_them_all_with_exit_2(many: Site) -> None:
    """The port of the hooks is taken."""
    await many.run("receiver")
    up = many.launch("up")
    assert await up.ends() == 2
    assert f"receiver.port = {many.port}: another program has this port" in up.words()
    assert "hookmirror: receiver cannot start: what it says above must be changed\n" in up.words()


async def test_healthy_while_one_process_answers(many: Site) -> None:
    worker = await running(many)
    children = started(worker)
    for pid in children.values():
        assert await healthy(worker)
        os.kill(pid, signal.SIGSTOP)
    await until(lambda: asked_unhealthy(worker), "none answers")
    for pid in children.values():
        os.kill(pid, signal.SIGCONT)
    await until(lambda: healthy(worker), "they answer again")
    worker.send(signal.SIGTERM)
    assert await worker.ends() == 0


async def asked_unhealthy(program: Program) -> bool:
    """Whether nobody answers."""
    return (await asked(program, "/healthz"))[0] == 503
