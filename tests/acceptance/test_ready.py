"""A real receiver whose disk is full: it says so to who asks, and takes hooks again when there is room."""

import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from receiver.ready import WAITING
from tests.acceptance.test_admission import GOOD, Running
from tests.lab.until import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    receiver = Running(tmp_path)
    try:
        await receiver.program.started()
        yield receiver
    finally:
        receiver.program.kill()


async def test_a_receiver_whose_disk_is_full_is_not_ready_until_there_is_room(running: Running) -> None:
    pid, unlimited = running.program.pid, resource.prlimit(running.program.pid, resource.RLIMIT_FSIZE)
    ready = running.url.partition("/webhook")[0] + "/readyz"
    async with aiohttp.ClientSession() as session:

        async def asked() -> tuple[int, Any]:
            async with session.get(ready) as answer:
                return answer.status, await answer.json()

        async def post() -> int:
            async with session.post(running.url, data=GOOD) as answer:
                return answer.status

        assert await asked() == (200, {"status": "ready"})
        # A file that may not grow fails as one on a full disk does.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (200_000, unlimited[1]))

        async def full() -> bool:
            return await post() == 503

        await until(full, "a hook finds the disk full")

        async def unready() -> bool:
            return await asked() == (503, {"status": "waiting", "why": WAITING})

        await until(unready, "the receiver is not ready")
        assert await post() == 503
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

        async def back() -> bool:
            return (await asked())[0] == 200

        await until(back, "the receiver is ready again")
        assert await post() == 200
