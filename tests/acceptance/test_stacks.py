"""Stack notifications through the real programs: killed, restarted, and configured with nothing else."""

import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from demo.weed import free_ports
from tests.acceptance.test_actions import calls, program
from tests.lab.programs import Program, Site
from tests.lab.samples import raw
from tests.lab.until import until

pytestmark = pytest.mark.timeout(180)


async def notify(url: str, data: bytes) -> int:
    """POST a notification; return the status."""
    async with aiohttp.ClientSession() as session, session.post(url, data=data) as response:
        return response.status


def stack_route(name: str, keys: str) -> str:
    return f'[[stack_routes]]\nname = "{name}"\n{keys}\n'


async def test_a_program_whose_worker_is_killed_is_run_again_and_is_no_duplicate_of_itself(
    anywhere: Site,
) -> None:
    script = "echo $1 $2 $EVENT_ID >> $D/calls; [ -e $D/go ] && exit; echo $$ > $D/pid; exec sleep 1000"
    name = f"run-{anywhere.port}"  # the broker keeps the marks of earlier runs
    anywhere.receiver = f'stack_url = "{anywhere.stack_url}"'
    anywhere.routes = stack_route(name, f'exec = "{program(anywhere.folder, script)}"')
    receiver = await anywhere.run("receiver")
    worker = await anywhere.run("worker")
    assert await notify(anywhere.stack_url, raw("ros/create_complete")) == 200
    pid = anywhere.folder / "pid"
    await until(lambda: pid.exists() and pid.read_text().strip(), "the program runs")
    worker.kill()
    (anywhere.folder / "go").touch()
    os.kill(int(pid.read_text()), signal.SIGKILL)  # nobody else does, when a worker dies like this
    assert await notify(anywhere.stack_url, raw("ros/create_complete")) == 200
    again = await anywhere.run("worker")
    await until(lambda: again.did("executed") + again.did("skipped") == 2, "both have ended", 60)
    assert (again.did("executed"), again.did("skipped")) in {(1, 1)}, again.words()
    assert {line.rpartition(" ")[0] for line in calls(anywhere.folder)} == {"test-web-hook CREATE_COMPLETE"}
    assert len(calls(anywhere.folder)) == 2
    assert (await anywhere.counts()).dead == 0
    for words in (receiver.words(), again.words()):
        assert "signature=" not in words


async def test_a_configuration_of_stack_routes_alone_is_enough(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}/stacks/acceptance"
    config = tmp_path / "hookmirror.toml"
    config.write_text(
        f'[queue]\nurl = "sqlite:///{tmp_path}/queue.db"\n'
        f'[receiver]\nhost = "127.0.0.1"\nport = {port}\nstack_url = "{url}"\n'
        + stack_route("note", "log = true")
    )
    programs: list[Program] = []
    try:
        for number, names in enumerate((["up"], ["receiver", "worker"])):
            running = [Program(tmp_path, 10 * number + n, name, config) for n, name in enumerate(names)]
            programs += running
            for one in running:
                await one.started()
            kind = ("CREATE_COMPLETE", "DELETE_COMPLETE")[number]
            data = {"StackId": "1", "StackName": "s", "Status": kind}
            assert await notify(url, json.dumps(data).encode()) == 200
            await until(lambda: running[-1].did("stack") == 1, "the notification is logged")  # noqa: B023
            for one in running:
                one.send(signal.SIGTERM)
                assert await one.ends() == 0
    finally:
        for one in programs:
            one.kill()
