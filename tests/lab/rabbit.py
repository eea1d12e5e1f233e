"""A RabbitMQ node of the tests' own: free ports, own directories, to be killed at will."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from common.backoff import RUNGS
from common.queue import topology

START_WITHIN = 90.0

WIPED_WITHIN = 20.0
"""Seconds; a test that consumes while it wipes is let go on then."""

_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin")


def server_program() -> Path:
    """Return the server's start script: not Debian's wrapper, which changes the user."""
    found = [Path(place, "rabbitmq-server") for place in _PLACES if Path(place, "rabbitmq-server").exists()]
    if not found:
        raise FileNotFoundError("rabbitmq-server is not installed; run: sudo apt-get install rabbitmq-server")
    return found[0]


def free_port() -> int:
    """Return a TCP port that is free on loopback now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _runs(group: int) -> bool:
    """Whether a thread of this process group is neither stopped nor dead."""
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "TtZX":
                return True
    return False


class RabbitNode:
    """One node in `folder`; `start` and `kill` may alternate, the data stays."""

    def __init__(self, folder: Path, *, managed: bool = False) -> None:
        self.folder = folder
        self.port, self._dist, self._epmd = free_port(), free_port(), free_port()
        self._http = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.management = f"http://127.0.0.1:{self._http}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "enabled_plugins").write_text(f"[{'rabbitmq_management' if managed else ''}].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 50MB\n"
            "loopback_users.guest = true\n"
            + managed
            * f"management.tcp.port = {self._http}\nmanagement.tcp.ip = 127.0.0.1\n"
        )

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"hookmirror{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            # Two cores are shared with everything under test.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def start(self) -> None:
        """Start the node and return when it answers on its port."""
        with (self.folder / "output").open("ab") as out:
            self._process = subprocess.Popen(
                [server_program()], env=self._environment(), stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start:\n{(self.folder / 'output').read_text()[-3000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
            s.settimeout(5)
            s.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(s.recv(8))
        return False

    def shut_down(self) -> None:
        """End the node in good order; the data stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout=60)
            self._process = None

    def control(self, *words: str) -> None:
        """Run `rabbitmqctl` with `words` on the node."""
        program = server_program().with_name("rabbitmqctl")
        subprocess.run([program, *words], env=self._environment(), check=True, capture_output=True)

    async def wipe(self, *rungs: int) -> str:
        """Empty every queue of ours, those of the waits `rungs` too, and return the node's URL.

        They are not deleted: a quorum queue that was deleted and declared again seconds before a
        `kill -9` of RabbitMQ 3.10 may come back without its process ("noproc"), and no product declares so.
        """
        await until_empty(self.url, *rungs)
        return self.url

    def kill(self) -> None:
        """`kill -9` the node."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop the node's processor time: connections stay, nothing answers once this returns."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGSTOP)
            deadline = time.monotonic() + START_WITHIN
            while _runs(self._process.pid):  # each thread stops by itself, when it is scheduled next
                if time.monotonic() > deadline:
                    raise RuntimeError("RabbitMQ does not stop")
                time.sleep(0.01)

    def resume(self) -> None:
        """Undo `pause`."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Kill the node and its port mapper, and delete its files."""
        self.kill()
        self._end_port_mapper()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_port_mapper(self) -> None:
        """It refuses to end for as long as it has not noticed that the node is dead."""
        epmd = shutil.which("epmd")
        deadline = time.monotonic() + 5
        while epmd and time.monotonic() < deadline:
            ended = subprocess.run(
                [epmd, "-port", str(self._epmd), "-kill"], capture_output=True, check=False
            )
            if b"not allowed" not in ended.stdout:
                return
            time.sleep(0.1)


class ExternalNode:
    """A broker that somebody else runs, perhaps of another version: it cannot be killed from here."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._rungs: set[int] = set()

    async def wipe(self, *rungs: int) -> str:
        """Empty every queue of ours, those of the waits `rungs` too, and return the broker's URL."""
        self._rungs |= {*rungs}
        await until_empty(self.url, *rungs)
        return self.url

    def stop(self) -> None:
        """Leave nothing of ours behind."""
        asyncio.run(wipe(self.url, *self._rungs, exchanges=True))


Broker = RabbitNode | ExternalNode


_routes: dict[str, set[str]] = {}
"""By broker: whoever reads the register beside another sees only a part of it."""


async def _ours(url: str, connection: AbstractConnection, *rungs: int) -> list[topology.Declaration]:
    """Return every queue of ours, those of the routes that the register names too. The waits come first:
    what they give up meanwhile is found in its lane."""
    base = topology.declarations({*RUNGS, *rungs})
    routes = _routes.setdefault(url, set())
    with suppress(ChannelNotFoundEntity):
        channel = await connection.channel()
        register = await channel.get_queue(topology.register())
        while (message := await register.get(fail=False)) is not None:
            routes.add(message.body.decode())
        await channel.close()
    lanes = [lane for route in sorted(routes) for lane in topology.lanes(route)]
    return [*(item for item in reversed(base) if item.name != topology.register()), *lanes]


async def until_empty(url: str, *rungs: int) -> None:
    """Empty the broker until nothing is left: what a killed process held may come back between two passes."""
    deadline = time.monotonic() + WIPED_WITHIN
    while await purge(url, *rungs) and time.monotonic() < deadline:
        pass


async def purge(url: str, *rungs: int) -> int:
    """Empty every queue of ours on the broker at `url` that there is; return how many messages went, and how
    many consumers are still believed in: what these hold comes back."""
    gone = 0
    async with await aio_pika.connect(url) as connection:
        for item in await _ours(url, connection, *rungs):
            channel = await connection.channel()
            try:
                queue = await channel.declare_queue(item.name, passive=True)
                gone += queue.declaration_result.consumer_count or 0
                gone += (await queue.purge()).message_count or 0
                await channel.close()
            except ChannelNotFoundEntity:
                continue  # not declared yet, and the broker has closed the channel
    return gone


async def wipe(url: str, *rungs: int, exchanges: bool = False) -> None:
    """Delete every queue of ours on the broker at `url`, those of the waits `rungs` too."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        for item in await _ours(url, connection, *rungs):
            await channel.queue_delete(item.name)
            if exchanges and item.exchange:
                await channel.exchange_delete(item.exchange)
        await channel.queue_delete(topology.register())
