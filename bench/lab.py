"""What a measurement needs on this machine, started and stopped by itself: a broker, two clouds, programs."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from demo.weed import Weed
from tests.lab.rabbit import RabbitNode

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 30.0
STOP_WITHIN = 30.0
_TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Nothing can be measured; the message says why."""


class Missing(Failed):
    """A program is not installed; the message says how to install it."""


class Program:
    """One child process in a session of its own, so that Ctrl-C reaches us alone. Writes to `output`."""

    def __init__(self, arguments: list[str], output: Path, environment: Mapping[str, str]) -> None:
        self.output = output
        with output.open("wb") as out:
            self._process = subprocess.Popen(
                arguments, cwd=ROOT, env=dict(environment), stdout=out, stderr=out, start_new_session=True
            )

    def cpu(self) -> float:
        """Return the processor time it has used so far, in seconds."""
        return sum(cpu for _, cpu in _used(f"{self._process.pid}"))

    def finish(self, within: float) -> float:
        """Wait for its end and return the processor time it used. Raises `Failed` when it failed."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired as error:
            raise self.failure() from error
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if code:
            raise self.failure()
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def check(self) -> None:
        """Raise `Failed` when it has ended."""
        if self._process.poll() is not None:
            raise self.failure()

    def failure(self) -> Failed:
        """Return an error with its last words."""
        return Failed(f"{self._process.args!r} failed:\n{self.output.read_text(errors='replace')[-2000:]}")

    def wait_for(self, port: int) -> None:
        """Return when it listens on `port`. Raises `Failed` when it does not."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise self.failure()

    def stop(self) -> None:
        """End it, gently first."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Lab:
    """Everything that runs for a measurement. Make one with `open_lab`, which also clears it away."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack

    def rabbit(self) -> RabbitNode:
        """Start a RabbitMQ node. Raises `Missing` when the server is not installed."""
        node = RabbitNode(self.folder / "rabbit")
        self._stack.callback(node.stop)
        try:
            node.start()
        except FileNotFoundError as error:
            raise Missing(str(error)) from error
        return node

    def weed(self, name: str) -> Weed:
        """Start a SeaweedFS server."""
        server = Weed(self.folder / name)
        self._stack.callback(server.stop)
        server.start()
        return server

    def run(self, name: str, *arguments: str, **environment: str) -> Program:
        """Start a program; it is stopped with the lab at the latest."""
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        program = Program(list(arguments), self.folder / f"{name}.out", base | environment)
        self._stack.callback(program.stop)
        return program

    def python(self, name: str, *arguments: str, **environment: str) -> Program:
        """Start a Python module of this project: `-m module ...`."""
        return self.run(name, sys.executable, *arguments, **environment)


def cpu_below(folder: Path) -> float:
    """Return the processor time, in seconds, that those have used so far whose command or home names
    `folder`."""
    return sum(cpu for pid, cpu in _used("[0-9]*") if _names(pid, folder))


def _used(pids: str) -> Iterator[tuple[str, float]]:
    for path in Path("/proc").glob(f"{pids}/stat"):
        with suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            yield path.parent.name, (int(fields[11]) + int(fields[12])) / _TICK


def _names(pid: str, folder: Path) -> bool:
    name = os.fsencode(folder)
    with suppress(OSError):
        words = [Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ")]
        return name in words[0] or b"HOME=" + name in words[1]
    return False


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Yield a lab and clear it away, whatever happens: no process and no file is left behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    folder, sockets = Path(tempfile.mkdtemp(prefix="hookmirror-bench-")), _weed_sockets()
    try:
        with ExitStack() as stack:
            try:
                yield Lab(folder, stack)
            finally:
                # A second Ctrl-C must not cut the clearing short.
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
    finally:
        _end_strays(folder)
        _remove_dead(_weed_sockets() - sockets)
        shutil.rmtree(folder, ignore_errors=True)


def _end_strays(folder: Path) -> None:
    """End what has left its process group, like Erlang's port mapper: its home is in our folder."""
    home = b"HOME=" + os.fsencode(folder)
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if any(line.startswith(home) for line in environment.read_bytes().split(b"\0")):
                os.kill(int(environment.parent.name), signal.SIGKILL)


def _weed_sockets() -> set[Path]:
    return set(Path("/tmp").glob("seaweedfs-*.sock"))  # noqa: S108 - SeaweedFS knows no other place


def _remove_dead(sockets: set[Path]) -> None:
    """Delete the sockets on which nobody listens any more."""
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
