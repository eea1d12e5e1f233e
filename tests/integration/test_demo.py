"""The demo itself, small, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "console", "demo"]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "HOOKMIRROR_QUEUE__URL": "amqp://never-to-be-used/"}


def running_in(folder: Path) -> list[str]:
    """The command lines of processes that name `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in line:
            found.append(line)
    return found


def test_the_demo_ends_with_equal_buckets_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("demo")
    command = [*COMMAND, "--objects", "14", "--seed", "11", "--json"]
    done = subprocess.run(command, env=environment(folder), capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr.decode()
    verdict = json.loads(done.stdout)
    assert verdict["equal"]
    assert verdict["problems"] == []
    assert verdict["objects"] > 0
    assert verdict["actions"]["copied"] >= verdict["objects"]
    assert list(folder.iterdir()) == []
    assert running_in(folder) == []


@pytest.mark.parametrize("moment", ["starting", "working"])
def test_an_interrupted_demo_leaves_nothing(tmp_path_factory: pytest.TempPathFactory, moment: str) -> None:
    folder = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        COMMAND,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wanted = {"starting": "hookmirror-demo-*/mcs/output", "working": "hookmirror-demo-*/up.log"}[moment]
    deadline = time.monotonic() + 30
    while not list(folder.glob(wanted)) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130, out.decode()
    assert b"Traceback" not in out
    assert list(folder.iterdir()) == []
    assert running_in(folder) == []
