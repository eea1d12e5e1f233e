"""Real programs: no route waits behind another, however much that has to do and however long it takes."""

import time
from pathlib import Path

import pytest

from common.queue import open_queue
from common.queue.port import Kind, Lane
from common.store.s3 import S3Store
from common.task import Claim, Task
from demo.weed import settings_for
from tests.lab.programs import Site, deliver, record
from tests.lab.until import until

OTHER = Lane("other")
SLOW = "#!/bin/sh\nsleep 20\n"

ROUTES = {
    "paused": '[[routes]]\nname = "other"\nsource = "mcs:nowhere"\ntarget = "aws:nowhere"\n',
    "slow": '[[routes]]\nname = "other"\nsource = "mcs:slow"\nexec = "slow.sh"\n',
}


async def fill(site: Site, count: int) -> None:
    """Queue `count` tasks of the other route."""
    queue = await open_queue(site.queue_url, look_after=site.look_after)
    try:
        for start in range(0, count, 5000):
            keys = range(start, min(start + 5000, count))
            tasks = [Task(route="other", key=f"{key}", claim=Claim.REMOVED).encode() for key in keys]
            await queue.publish_all({OTHER: tasks})
    finally:
        await queue.close()


async def create(endpoint: str, bucket: str) -> None:
    store = await S3Store.open("mcs", settings_for(endpoint))
    try:
        await store.bucket(bucket).create()
    finally:
        await store.close()


async def arrives(site: Site, key: str, within: float) -> float:
    """Put an object and tell of it; return after how many seconds it is on the target."""
    await site.source.write(key, b"x", headers={}, metadata={})
    start = time.monotonic()
    await deliver(site.hook_url, record(key))

    async def there() -> bool:
        return await site.target.head(key) is not None

    await until(there, f"{key} arrives", within)
    return time.monotonic() - start


async def another_route_goes_on(site: Site, how: str, count: int, within: float) -> None:
    site.routes = ROUTES[how]
    program = site.folder / "slow.sh"
    program.write_text(SLOW)
    program.chmod(0o700)
    await create(site.source_endpoint, "slow")
    await fill(site, count)
    await site.run("receiver")
    worker = await site.run("worker")
    if how == "paused":
        await until(lambda: worker.did("paused"), "the other route is paused")
    else:
        await until(lambda: slow_ones(worker.pid) > 8, "the other route is at work")
    took = [await arrives(site, f"{number}", within) for number in range(5)]
    assert max(took) < within, took
    # Before the pause, or beside the first ones, it had taken some.
    assert (await site.counts()).of(OTHER).ready >= count - 100
    assert (await site.counts()).dead == 0


def slow_ones(pid: int) -> int:
    """How many programs run of the process `pid`."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["paused", "slow"])
async def test_behind_20_000_tasks_of_one_route_the_hooks_of_another_go_on(anywhere: Site, how: str) -> None:
    await another_route_goes_on(anywhere, how, 20_000, within=15.0)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["paused", "slow"])
async def test_behind_200_000_tasks_of_one_route_a_hook_of_another_is_done_in_2_s(
    anywhere: Site, how: str
) -> None:
    await another_route_goes_on(anywhere, how, 200_000, within=2.0)


@pytest.mark.timeout(120)
async def test_what_older_versions_left_in_the_one_queue_goes_to_its_lane(anywhere: Site) -> None:
    """Tasks of both kinds, one that waits, and one of a route that is not configured."""
    site = anywhere
    route = "mcs:source -> aws:target"
    queue = await open_queue(site.queue_url, look_after=site.look_after)
    for key in ("live", "bulk", "later"):
        await site.source.write(key, b"x", headers={}, metadata={})
    task = Task(route=route, key="live", claim=Claim.CREATED)
    await queue.publish(task.encode(), lane=Lane(""))
    await queue.publish(task.model_copy(update={"key": "bulk"}).encode(), lane=Lane("", Kind.BULK))
    await queue.publish(task.model_copy(update={"key": "later"}).encode(), lane=Lane(""), delay=2)
    await queue.publish(Task(route="gone", key="k").encode(), lane=Lane(""))
    await queue.close()
    worker = await site.run("worker")

    async def all_there() -> bool:
        return {entry.key async for entry in site.target.list()} == {"live", "bulk", "later"}

    await until(all_there, "they are copied", 30)

    async def apart() -> bool:
        return (await site.counts()).besides([route]) == {"gone": 1}

    await until(apart, "what is of no route is apart")
    assert (await site.counts()).dead == 0
    assert worker.did("buried") == 0


@pytest.mark.timeout(120)
async def test_tasks_of_a_route_that_is_not_configured_are_named_and_stay_as_they_are(anywhere: Site) -> None:
    await fill(anywhere, 7)
    worker = await anywhere.run("worker")

    def named() -> bool:
        return any('7 tasks are of the route "other"' in line["message"] for line in worker.lines())

    await until(named, "the worker names them")
    assert (await anywhere.counts()).of(OTHER).ready == 7
