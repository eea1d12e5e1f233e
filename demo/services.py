"""The real programs as child processes: configured, started, listened to, and stopped without a trace."""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import HookmirrorError
from common.tables import StoreSettings

START_WITHIN = 30.0
STOP_WITHIN = 15.0
MAX_LINE = 2**20

CONFIG = """\
[queue]
url = {queue}
[receiver]
host = "127.0.0.1"
port = {port}
public_url = {public_url}
[worker]
concurrency = 16
look_after = {look_after}
allow_short_look_after = true
drain = 10
[stores.mcs]
endpoint = {source}
access_key_id = {access_key}
secret_access_key = {secret_key}
[stores.aws]
endpoint = {target}
access_key_id = {access_key}
secret_access_key = {secret_key}
[[routes]]
name = {route}
source = {source_bucket}
target = {target_bucket}
"""


class ServiceError(HookmirrorError):
    """A service did not start, ended before it was told to, or did not end in good order."""


def config(
    *,
    source: StoreSettings,
    target: StoreSettings,
    port: int,
    look_after: int,
    **texts: str,
) -> str:
    """Return a configuration for the services. `texts`: queue, public_url, route, and the two buckets."""
    secret = source.secret_access_key
    texts |= {
        "source": source.endpoint or "",
        "target": target.endpoint or "",
        "access_key": source.access_key_id or "",
        "secret_key": secret.get_secret_value() if secret else "",
    }
    # A JSON string is a TOML string.
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}
    return CONFIG.format(port=port, look_after=look_after, **quoted)


class Service:
    """One `hookmirror` process. `on_line` is told of each of its log lines."""

    def __init__(self, name: str, folder: Path, on_line: Callable[[Mapping[str, Any]], None]) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._on_line = on_line
        self._said: deque[str] = deque(maxlen=20)
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._programs = 0

    async def start(self, command: str, config_file: Path, *, programs: int = 1) -> None:
        """Run `hookmirror COMMAND`; return when so many programs in it have said that they started."""
        spawning = asyncio.ensure_future(self._spawn(command, config_file))
        try:
            await asyncio.shield(spawning)
        finally:  # interrupted or not, what was started is known and can be stopped
            process = self._process = await spawning
            listening = self._listening = asyncio.create_task(self._listen(process))
        try:
            async with asyncio.timeout(START_WITHIN):
                while self._programs < programs and not listening.done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise ServiceError(
                f"{self.name} has not started within {START_WITHIN:.0f} s{self._words()}"
            ) from error
        if listening.done():
            raise ServiceError(f"{self.name} ended at once{self._words()}")

    @staticmethod
    async def _spawn(command: str, config_file: Path) -> asyncio.subprocess.Process:
        # A session of its own: the terminal's Ctrl-C is for the demo alone, which then stops its services.
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console", command, "--config", str(config_file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            cwd=config_file.parent,
            env=_environment(),
            limit=MAX_LINE,
        )

    async def ended(self) -> None:
        """Wait for ever, and raise `ServiceError` if the process ends before it is stopped."""
        if self._listening is not None:
            await asyncio.wait([self._listening])
        raise ServiceError(f"{self.name} ended before it was told to{self._words()}")

    async def stop(self) -> int:
        """Stop the process with SIGTERM, by force after STOP_WITHIN; return its exit code."""
        process, listening = self._process, self._listening
        if process is None or listening is None:
            return 0
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                code = await process.wait()
        except TimeoutError:
            self.kill()
            code = await process.wait()
        await listening
        return code

    def kill(self) -> None:
        """`kill -9` the process and whatever it has started."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Read the log to its end: a full pipe would stop the process."""
        if process.stderr is None:
            raise ServiceError(f"{self.name} has no standard error")
        with self._log.open("ab") as log:
            try:
                async for raw in process.stderr:
                    log.write(raw)
                    self._hear(raw.decode(errors="replace").rstrip())
            finally:
                self._news.set()

    def _hear(self, text: str) -> None:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            self._said.append(text)
            return
        if line.get("level") != "info" and line.get("counts", True):
            self._said.append(f"{line.get('action')}: {line.get('message')}")
        if line.get("action") == "started":
            self._programs += 1
            self._news.set()
        self._on_line(line)

    def _words(self) -> str:
        return ":\n  " + "\n  ".join(self._said) if self._said else ""


def _environment() -> dict[str, str]:
    """Return our environment without what would configure the services otherwise, a proxy included."""
    mine = {name: value for name, value in os.environ.items() if not name.upper().startswith("HOOKMIRROR_")}
    return mine | {"HOOKMIRROR_LOG": "json", "NO_PROXY": "*", "no_proxy": "*"}
