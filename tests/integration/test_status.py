"""`hookmirror status` beside a real worker: which routes are paused, why, and whether a person is needed."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from common.queue import open_queue
from common.task import Task
from demo.weed import free_ports
from tests.lab.lanes import LIVE
from tests.lab.programs import Program
from tests.lab.until import until

CONFIG = """\
[queue]
url = "sqlite:///{folder}/queue.db"
[receiver]
port = {port}
[metrics]
port = {metrics}
[stores.away]
endpoint = "http://127.0.0.1:{away}"
access_key_id = "key"
secret_access_key = "a-secret"
[[routes]]
name = "photos"
source = "away:from"
target = "away:to"
"""


async def status(config: Path, *options: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console", "status", "--config", str(config), *options),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "HOOKMIRROR_LOG": "json"},
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_paused_route_is_named_with_its_reason_and_asks_for_a_person(tmp_path: Path) -> None:
    port, metrics, away = free_ports(3)
    config = tmp_path / "hookmirror.toml"
    config.write_text(CONFIG.format(folder=tmp_path, port=port, metrics=metrics, away=away))
    queue = await open_queue(f"sqlite:///{tmp_path}/queue.db", look_after=1200)
    await queue.publish(Task(route="photos", key="a.jpg").encode(), lane=LIVE)
    await queue.close()

    code, text = await status(config, "--check")
    assert (code, "Paused routes: not known here" in text) == (0, True), text

    worker = await Program(tmp_path, 1, "worker", config).started()
    try:
        await until(lambda: worker.did("paused"), "the route is paused")
        code, text = await status(config, "--check", "--json")
        told: dict[str, Any] = json.loads(text)
        assert code == 1
        assert list(told["paused"]) == ["photos"]
        assert "unreachable" in told["paused"]["photos"]
        code, text = await status(config)
        assert code == 0
        assert "photos  " in text
        assert "unreachable" in text
    finally:
        worker.kill()
