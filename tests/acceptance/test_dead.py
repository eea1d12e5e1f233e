"""The dead letters by the real command: beside a running worker, killed in the middle, a hundred thousand."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from common.queue import open_queue
from common.queue.port import Done, Kind, Lane, Queue
from common.queue.rabbitmq import RabbitQueue
from common.task import Claim, Task
from tests.lab.programs import LOOK_AFTER, Site
from tests.lab.rabbit import Broker
from tests.lab.until import until

ROUTE = "mcs:source -> aws:target"
AWAY, LARGE = "StoreAway: 503 SlowDown (attempt 12 of 12)", "Refused: too large"


def command(config: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start `hookmirror dead ...`."""
    return subprocess.Popen(
        [sys.executable, "-m", "console", "dead", *arguments, "--config", str(config)],
        env={**os.environ, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def said(config: Path, *arguments: str) -> str:
    """Run `hookmirror dead ...` and return what it prints."""
    process = command(config, *arguments)
    out, err = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, (arguments, err)
    return out


async def printed(config: Path, *arguments: str) -> Any:
    """Run `hookmirror dead ... --json` and return the value."""
    return json.loads(await said(config, *arguments, "--json"))


async def bury(queue: Queue, tasks: Iterable[tuple[str, str]]) -> None:
    """Make a dead letter of each key and reason."""
    waiting = list(tasks)
    for start in range(0, len(waiting), 200):
        await asyncio.gather(
            *(
                queue.bury(
                    Task(route=ROUTE, key=key, claim=Claim.CREATED, id=key).encode(),
                    lane=Lane(ROUTE),
                    why=why,
                )
                for key, why in waiting[start : start + 200]
            )
        )


async def test_letters_are_replayed_beside_a_worker_and_what_is_in_sync_is_dropped(over_rabbit: Site) -> None:
    site = over_rabbit
    keys = {f"photos/{number}" for number in range(50)}
    for key in keys:
        await site.source.write(key, key.encode(), headers={}, metadata={})
    queue = await RabbitQueue.open(site.queue_url, look_after=site.look_after)
    await bury(queue, [(key, AWAY) for key in keys] + [(f"gone/{number}", LARGE) for number in range(10)])
    checked = await printed(site.config, "check")
    assert (checked["in_sync"], checked["differs"], checked["cannot_tell"]) == (10, 50, 0)
    assert [entry.key async for entry in site.target.list()] == [], "a check writes nothing"

    await site.run("worker")
    assert (await printed(site.config, "replay", "--where", "reason=StoreAway", "--dry-run"))[
        "would_replay"
    ] == 50
    replayed = await printed(site.config, "replay", "--where", "reason=StoreAway", "--yes")
    assert len(replayed["replayed"]) == 50
    await site.quiet()
    assert {entry.key async for entry in site.target.list()} == keys

    assert len((await printed(site.config, "check", "--drop", "--yes"))["dropped"]) == 10
    assert (await queue.counts()).dead == 0
    await queue.close()


async def ids_in(queue: Queue) -> set[str]:
    """The tasks among the dead letters."""
    async with aclosing(queue.letters()) as letters:
        return {Task.decode(letter.body).id async for letter in letters}


async def ids_taken(queue: Queue) -> set[str]:
    """Take and finish what is in the live lane; return the tasks."""
    taken: set[str] = set()
    async with aclosing(queue.deliveries(Lane(ROUTE), 500)) as deliveries:  # type: ignore[type-var]
        while True:
            try:
                async with asyncio.timeout(3):
                    delivery = await anext(deliveries)
            except TimeoutError:
                return taken
            taken.add(Task.decode(delivery.body).id)
            await queue.settle(delivery, Done("counted"))


def configure(folder: Path, url: str) -> Path:
    """A configuration that names only the queue."""
    config = folder / "dead.toml"
    config.write_text(
        f'[queue]\nurl = "{url}"\n[worker]\nlook_after = {LOOK_AFTER}\nallow_short_look_after = true\n'
    )
    return config


@pytest.mark.parametrize("after", [1, 600, 1500])
async def test_a_replay_killed_in_the_middle_loses_none(rabbit: Broker, tmp_path: Path, after: int) -> None:
    url, count = await rabbit.wipe(LOOK_AFTER), 2000
    queue = await RabbitQueue.open(url, look_after=LOOK_AFTER)
    await bury(queue, ((f"{number}", AWAY) for number in range(count)))
    every = {f"{number}" for number in range(count)}
    process = command(configure(tmp_path, url), "replay", "--all", "--yes")

    async def replayed() -> int:
        return (await queue.counts()).ready[Kind.LIVE]

    async def under_way() -> bool:
        return await replayed() >= after

    await until(under_way, "the replay is under way", 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = await ids_in(queue)
    assert await replayed() > 0
    assert left, "it was killed too late to show anything"
    moved = await ids_taken(queue)
    assert left | moved == every
    assert len(left & moved) <= 200, "what was on its way when it died"
    await queue.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", ["rabbitmq", "sqlite"])
async def test_a_hundred_thousand_letters_are_listed_exported_replayed_and_dropped(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = 100_000
    url = f"sqlite:///{tmp_path}/queue.db"
    if backend == "rabbitmq":
        broker: Broker = request.getfixturevalue("rabbit")
        url = await broker.wipe(LOOK_AFTER)
    queue = await open_queue(url, look_after=LOOK_AFTER)
    await bury(queue, ((f"{number:06}", LARGE if number % 10 else AWAY) for number in range(count)))
    config = configure(tmp_path, url)

    async def timed(*arguments: str) -> Any:
        start = time.monotonic()
        result = await printed(config, *arguments)
        print(f"{backend:9} {time.monotonic() - start:6.1f} s  dead {' '.join(arguments)}")  # noqa: T201
        return result

    listed = await timed("list")
    assert [(g["reason"], g["count"]) for g in listed["groups"]] == [
        ("Refused", 90_000),
        ("StoreAway", 10_000),
    ]
    assert [entry["task"]["key"] for entry in listed["letters"]] == [f"{number:06}" for number in range(20)]
    assert (await timed("export", "--output", str(tmp_path / "all.jsonl")))["exported"] == count
    assert (await timed("replay", "--where", "reason=StoreAway", "--dry-run"))["would_replay"] == 10_000
    assert len((await timed("replay", "--where", "reason=StoreAway", "--yes"))["replayed"]) == 10_000
    assert len((await timed("drop", "--key-prefix", "09", "--yes"))["dropped"]) == 9_000
    assert (await timed("list", "--limit", "0"))["matching"] == 81_000
    assert len((await timed("replay", "--all", "--yes"))["replayed"]) == 81_000
    assert (await timed("list"))["dead"] == 0
    await queue.close()
