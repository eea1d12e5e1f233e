"""A Prometheus of the tests' own, and promtool."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.lab.rabbit import free_port
from tests.lab.until import until

CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: hookmirror
    static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
"""


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; run: sudo apt-get install prometheus")
    return found


def promtool(*arguments: str | Path) -> None:
    """Run promtool; fail with what it says when it finds fault."""
    end = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert end.returncode == 0, end.stdout + end.stderr


class Prometheus:
    """A running one, at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return the series that `expr` gives now. Fails with Prometheus' words when it is no expression."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/query", params={"query": expr}) as response,
        ):
            answer = await response.json()
            assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
            result: list[dict[str, Any]] = answer["data"]["result"]
            return result

    async def ready(self) -> bool:
        """Whether it answers."""
        try:
            return await self.ask("vector(1)") != []
        except (aiohttp.ClientError, OSError):
            return False


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    with (folder / "output").open("wb") as out:
        return subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@asynccontextmanager
async def prometheus(folder: Path, target: int) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes the port `target` of loopback each second, with its data in `folder`."""
    port = free_port()
    (folder / "prometheus.yml").write_text(CONFIG.format(target=target))
    process = _start(folder, port)
    running = Prometheus(f"http://127.0.0.1:{port}")
    try:
        await until(lambda: process.poll() is not None or running.ready(), "Prometheus starts")
        assert process.poll() is None, (folder / "output").read_text()
        yield running
    finally:
        process.kill()
        process.wait()
