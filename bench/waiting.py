"""What tasks that wait cost the broker: memory and disk by the million, and how fast they go in."""

import asyncio
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Failed
from common.queue.port import Lane
from common.queue.rabbitmq import RabbitQueue
from common.task import Claim, Task
from tests.lab.rabbit import RabbitNode

LOOK_AFTER = 1200
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Cost:
    """`count` tasks of `body` bytes wait. Memory is the node's resident set, disk its data folder, both in
    bytes, before and at the end; `rate` in confirmed publishes a second."""

    count: int
    body: int
    rate: float
    memory: tuple[int, int]
    disk: tuple[int, int]


def measure(node: RabbitNode, *, count: int, say: Callable[[str], None]) -> Cost:
    """Publish `count` looks that wait 20 minutes, and say what the node holds then."""
    return asyncio.run(_measure(node, count, say))


async def _measure(node: RabbitNode, count: int, say: Callable[[str], None]) -> Cost:
    queue = await RabbitQueue.open(node.url, look_after=LOOK_AFTER)
    try:
        memory, disk = _memory(node), _disk(node)
        began = time.monotonic()
        body = await _publish(queue, count, say)
        rate = count / (time.monotonic() - began)
        if (waiting := (await queue.counts()).waiting) != count:
            raise Failed(f"{waiting} tasks wait instead of {count}")
        return Cost(count, body, rate, (memory, _memory(node)), (disk, _disk(node)))
    finally:
        await queue.close()


async def _publish(queue: RabbitQueue, count: int, say: Callable[[str], None]) -> int:
    numbers = iter(range(count))
    size = 0

    async def lane() -> None:
        nonlocal size
        for number in numbers:
            task = Task(route="mcs:files -> aws:files", key=f"folder {number % 97}/object {number}.jpg")
            body = task.model_copy(update={"claim": Claim.CREATED, "etag": "0" * 32}).look().encode()
            await queue.publish(body, lane=Lane(task.route), delay=LOOK_AFTER)
            size = len(body)
            if number and number % 100_000 == 0:
                say(f"{number} tasks wait")

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    return size


def _memory(node: RabbitNode) -> int:
    """The resident memory of the node's processes, in bytes."""
    mark = f"HOME={node.folder}".encode()
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
                total += int(found[1]) * 1024 if found else 0
        except OSError:
            continue  # it ended meanwhile, or is none of ours
    return total


def _disk(node: RabbitNode) -> int:
    """The bytes that the node's data take on the disk."""
    return sum(
        (Path(folder) / name).stat().st_blocks * 512
        for folder, _, names in os.walk(node.folder / "data")
        for name in names
    )
