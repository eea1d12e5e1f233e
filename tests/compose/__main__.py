"""`make compose-test`: the demo under docker-compose, with workers and the broker killed under it.

Exit codes: 0 all as promised, 1 not so, 3 there is no engine here. Build settings come from the environment,
as compose takes them: BUILD_NETWORK, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST.
"""

import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.compose.engine import Failed, NoEngine, Project, find_compose, find_docker, until

OBJECTS = 500
THINK = 0.8
"""Seconds a hand of the user rests: the user works for some two minutes, in which all the kills must come."""

NO_ENGINE = 3
STARTED = time.monotonic()

CRASH = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    if pid != "1" and b"hookmirror\\0worker" in open(f"/proc/{pid}/cmdline", "rb").read():
        os.kill(int(pid), signal.SIGKILL)
"""

CONFINED = """
import os
try:
    open("/opt/hookmirror/written", "w")
except OSError as error:
    print(os.getuid(), error.strerror)
print(*(line.split()[1] for line in open("/proc/1/status") if line.startswith(("CapEff", "NoNewPrivs"))))
"""


def tell(line: str) -> None:
    """Write a line of the protocol."""
    sys.stdout.write(f"[{time.monotonic() - STARTED:6.1f} s] {line}\n")
    sys.stdout.flush()


class Visitor:
    """The demo's user, listened to."""

    def __init__(self, project: Project) -> None:
        (self.container,) = project.containers("demo")
        self.last = ""
        self.share = 0.0
        self._project = project
        self._said = project.follow(self.container)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._said.stdout or ():
            self.last = line.strip()
            if steps := re.search(r"user (\d+)/(\d+) steps", line):
                self.share = int(steps[1]) / int(steps[2])

    def at(self, share: float) -> None:
        """Return when the user has done that share of its steps, and is still at work."""
        until(lambda: self.share >= share, f"the user at {share:.0%}: {self.last}", within=300)
        if self.share >= 1:
            raise Failed("the user was done before everything had been killed: let it think longer")
        tell(f"  {self.last}")

    def verdict(self, within: float) -> str:
        """Return the user's last line. Raises `Failed` unless it found the buckets equal."""
        until(lambda: not self._project.state(self.container)["Running"], "the user's verdict", within)
        self._said.wait(timeout=30)
        words = self._project.call("logs", self.container).strip().splitlines()
        if self._project.state(self.container)["ExitCode"] != 0:
            raise Failed("\n".join(words[-25:]))
        return words[-1]


def kill(project: Project, container: str, what: str) -> None:
    """`docker kill -s KILL`, and see that it is dead."""
    project.call("kill", "-s", "KILL", container)
    until(lambda: not project.state(container)["Running"], f"the end of {what}", within=30)
    tell(f"killed {what}")


def healthy(project: Project, service: str, count: int, within: float) -> None:
    """Return when so many containers of a service are healthy."""

    def all_of_them() -> bool:
        states = [project.state(container) for container in project.running(service)]
        return [state["Health"]["Status"] for state in states] == ["healthy"] * count

    until(all_of_them, f"{count} x {service} healthy", within)
    tell(f"{count} x {service}: healthy")


def play(project: Project) -> None:
    """Everything between `build` and `down`."""
    tell("building the image")
    project.compose("build", "check", within=1200)
    tell(f"up, two workers; a user with {OBJECTS} objects")
    project.compose("--profile", "demo", "up", "-d", "--scale", "worker=2", within=600)
    user = Visitor(project)
    user.at(0.10)
    kill(project, project.running("worker")[0], "one of two workers")
    user.at(0.25)
    (broker,) = project.running("rabbitmq")
    kill(project, broker, "the broker")
    project.call("start", broker)
    tell("started the broker again")
    user.at(0.45)
    project.compose("up", "-d", "--no-recreate", "--scale", "worker=4", "worker", within=300)
    until(lambda: len(project.running("worker")) == 4, "four workers", within=60)
    tell("scaled to four workers")
    user.at(0.60)
    crash(project, project.running("worker")[0])
    user.at(0.75)
    kill(project, project.running("worker")[1], "one of four workers")
    user.at(0.85)
    stop(project, "worker at work", project.running("worker")[0])
    tell(user.verdict(within=600))


def crash(project: Project, container: str) -> None:
    """Kill the program in a container: the engine must start it again by itself."""
    before = project.state(container)["StartedAt"]
    # The exec ends with its container: what it returns says nothing.
    try:
        project.call("exec", container, "python", "-c", CRASH)
    except Failed as error:
        tell(f"  (the exec died with it: {str(error).splitlines()[0][-40:]})")

    def again() -> bool:
        state = project.state(container)
        return bool(state["Running"]) and state["StartedAt"] != before

    until(again, "the worker started again by the engine", within=60)
    tell("a worker crashed, and was started again by the engine")


def inspect(project: Project) -> None:
    """What the queue holds, and how the containers are confined."""
    status = json.loads(project.compose("run", "--rm", "-T", "cli", "status", "--json"))
    tell(f"cli status: {json.dumps(status)}")
    if status["dead"] or status["waiting"] or any(status["ready"].values()):
        raise Failed("something is left in the queue")
    tell("cli dead list: " + " ".join(project.compose("run", "--rm", "-T", "cli", "dead", "list").split()))
    for service in ("receiver", "worker"):
        found = project.call("exec", project.running(service)[0], "python", "-c", CONFINED).split("\n")
        tell(f"{service}: uid and a write to the root: {found[0]}; capabilities and NoNewPrivs: {found[1]}")
        if found[:2] != ["10001 Read-only file system", "0000000000000000 1"]:
            raise Failed(f"{service} is not confined")


def stop(project: Project, service: str, container: str) -> None:
    """SIGTERM: the program must end with 0 within 30 s, with what is in hand done."""
    before = time.monotonic()
    project.call("stop", "-t", "40", container)
    took, code = time.monotonic() - before, project.state(container)["ExitCode"]
    tell(f"{service}: SIGTERM, exit code {code} after {took:.1f} s")
    if code != 0 or took > 30:
        raise Failed(f"{service} did not end in good order")


@contextmanager
def torn_down(project: Project) -> Iterator[None]:
    """Leave no container, network or volume behind, however the block ends."""
    try:
        yield
    except Failed:
        for service in ("receiver", "worker", "rabbitmq", "demo-mcs", "check"):
            for container in project.containers(service):
                sys.stdout.write(f"--- {service}\n{project.call('logs', '--tail', '15', container)}\n")
        raise
    finally:
        project.compose("--profile", "demo", "down", "-v", "--remove-orphans", within=300)
        label = f"--filter=label=com.docker.compose.project={project.name}"
        left = project.containers() + project.call("volume", "ls", "-q", label).split()
        tell(f"torn down; left over: {' '.join(left) or 'nothing'}")


def main() -> int:
    """Run it all; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        docker = find_docker()
        compose = find_compose(docker)
    except NoEngine as error:
        sys.stderr.write(f"compose-test: {error}\n")
        return NO_ENGINE
    with tempfile.NamedTemporaryFile(suffix=".env") as empty:
        project = Project(
            docker,
            compose,
            f"hookmirrortest{os.getpid()}",
            Path(empty.name),
            DEMO_OBJECTS=str(OBJECTS),
            DEMO_THINK=str(THINK),
            RECEIVER_PORT="127.0.0.1:",  # any free one
            RABBITMQ_CONSOLE="127.0.0.1:",
        )
        tell(f"{docker}; {' '.join(compose)}")
        try:
            with torn_down(project):
                play(project)
                for service, count in (("receiver", 1), ("worker", len(project.running("worker")))):
                    healthy(project, service, count, within=90)
                inspect(project)
                for service in ("receiver", "worker"):
                    for container in project.running(service):
                        stop(project, service, container)
        except Failed as error:
            sys.stdout.write(f"FAILED: {error}\n")
            return 1
    tell("PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
