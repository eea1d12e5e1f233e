"""Actions in real workers: one event for several routes, and a worker that is stopped or killed meanwhile."""

import base64
import json
import os
import signal
from pathlib import Path

from common.queue import open_queue
from tests.integration.test_exec import alive
from tests.integration.test_forward import SECRET_PARTS, secretly, taking
from tests.lab.programs import REMOVED, Site, deliver, in_step, record
from tests.lab.until import until

SECRET = f"whsec_{base64.b64encode(b's' * 32).decode()}"


def program(folder: Path, script: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\nD={folder}\n{script}\n")
    path.chmod(0o755)
    return path


def route(name: str, keys: str) -> str:
    return f'[[routes]]\nname = "{name}"\nsource = "mcs:source"\n{keys}\n'


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return sorted(path.read_text().splitlines()) if path.exists() else []


async def test_one_event_is_a_task_of_its_own_for_each_of_several_routes(anywhere: Site) -> None:
    path = program(anywhere.folder, 'cat > /dev/null; echo "$1 $2 $3" >> $D/calls')
    failing = program_that_fails(anywhere.folder)
    async with taking() as taker:
        anywhere.routes = (
            route("run", f'exec = "{path}"')
            + route("tell", f'forward = "{taker.url}"\nsecret = "{SECRET}"')
            + route("fail", f'exec = "{failing}"\non_failure = "bury"')
        )
        await anywhere.run("receiver")
        worker = await anywhere.run("worker")
        await anywhere.source.write("-k", b"body", headers={}, metadata={})
        await deliver(anywhere.hook_url, record("-k"), record("gone", REMOVED))
        await until(lambda: len(calls(anywhere.folder)) == 2, "the program is called")
        await until(lambda: len(taker.taken) == 2, "the events are forwarded")
        await until(lambda: worker.did("buried") == 2, "what fails is buried")
        await until(lambda: worker.did("copied") == 1, "the object is mirrored")
        await anywhere.quiet()
    assert calls(anywhere.folder) == ["source -k copy", "source gone delete"]
    events = [json.loads(body) for _, body in taker.taken]
    assert {event["type"] for event in events} == {"hookmirror.object.copy", "hookmirror.object.delete"}
    assert (await anywhere.counts()).dead == 2
    assert (worker.did("executed"), worker.did("forwarded")) == (2, 2)
    assert SECRET not in worker.words()


async def test_neither_the_log_nor_a_dead_letter_shows_whom_an_event_was_for(over_sqlite: Site) -> None:
    async with taking() as taker:
        taker.status, taker.echoes = 400, True
        url = secretly(taker.url)
        over_sqlite.routes = route("tell", f'forward = "{url}"\nsecret = "{SECRET}"')
        up = await over_sqlite.run("up")
        await deliver(over_sqlite.hook_url, record("k", REMOVED))
        await until(lambda: up.did("buried") == 1, "the task is buried")
        up.send(signal.SIGTERM)
        assert await up.ends() == 0
    queue = await open_queue(over_sqlite.queue_url, look_after=over_sqlite.look_after)
    (letter,) = [letter async for letter in queue.letters()]
    await queue.close()
    assert "answered 400: cannot POST ***" in letter.why
    for told in (up.words(), letter.why, letter.body.decode()):
        assert not [part for part in (*SECRET_PARTS, SECRET, "v1,") if part in told]


def program_that_fails(folder: Path) -> Path:
    path = folder / "failing"
    path.write_text("#!/bin/sh\necho it cannot\nexit 1\n")
    path.chmod(0o755)
    return path


async def test_a_worker_that_is_stopped_lets_a_program_finish_and_exits_0(over_sqlite: Site) -> None:
    path = program(
        over_sqlite.folder, "echo $$ > $D/pid; until [ -e $D/go ]; do sleep 0.1; done; echo k >> $D/calls"
    )
    over_sqlite.routes = route("run", f'exec = "{path}"')
    up = await over_sqlite.run("up")
    await deliver(over_sqlite.hook_url, record("k", REMOVED))
    await until(lambda: (over_sqlite.folder / "pid").exists(), "the program runs")
    up.send(signal.SIGTERM)
    await until(lambda: up.did("stopping") == 1, "the worker stops")
    (over_sqlite.folder / "go").touch()
    assert await up.ends() == 0
    assert calls(over_sqlite.folder) == ["k"]
    await over_sqlite.run("worker")
    await in_step(over_sqlite)
    assert calls(over_sqlite.folder) == ["k"]


async def test_a_program_that_outlasts_the_drain_is_killed_and_run_again_by_the_next_worker(
    over_sqlite: Site,
) -> None:
    script = (
        "echo k >> $D/calls; [ -e $D/go ] && exit; trap '' TERM; sleep 1000 & echo $! > $D/pid; wait; wait"
    )
    over_sqlite.worker = "drain = 0.5"
    path = program(over_sqlite.folder, script)
    over_sqlite.routes = route("run", f'exec = "{path}"')
    up = await over_sqlite.run("up")
    await deliver(over_sqlite.hook_url, record("k", REMOVED))
    pid = over_sqlite.folder / "pid"
    await until(lambda: pid.exists() and pid.read_text().strip(), "the program runs")
    up.send(signal.SIGTERM)
    assert await up.ends() == 0
    await until(lambda: not alive(int(pid.read_text())), "the process is gone")
    (over_sqlite.folder / "go").touch()
    again = await over_sqlite.run("worker")
    await until(lambda: again.did("executed") == 1, "the program is run again")
    assert calls(over_sqlite.folder) == ["k", "k"]


async def test_a_program_whose_worker_is_killed_is_run_again_by_another(anywhere: Site) -> None:
    script = "echo $1 $2 $3 $EVENT_ID >> $D/calls; [ -e $D/go ] && exit; echo $$ > $D/pid; exec sleep 1000"
    anywhere.routes = route("run", f'exec = "{program(anywhere.folder, script)}"')
    await anywhere.run("receiver")
    worker = await anywhere.run("worker")
    await deliver(anywhere.hook_url, record("k", REMOVED))
    pid = anywhere.folder / "pid"
    await until(lambda: pid.exists() and pid.read_text().strip(), "the program runs")
    worker.kill()
    (anywhere.folder / "go").touch()
    os.kill(int(pid.read_text()), signal.SIGKILL)  # nobody else does, when a worker dies like this
    again = await anywhere.run("worker")
    await until(lambda: again.did("executed") == 1, "the program is run again", 60)
    first, second = calls(anywhere.folder)
    assert first == second
    assert first.startswith("source k delete ")
    assert (await anywhere.counts()).dead == 0


async def test_a_worker_whose_program_is_not_there_does_not_start(over_sqlite: Site) -> None:
    over_sqlite.routes = route("run", 'exec = "nowhere/x.sh"')
    worker = over_sqlite.launch("worker")
    assert await worker.ends() == 2
    assert "nowhere/x.sh is no program" in worker.words()
