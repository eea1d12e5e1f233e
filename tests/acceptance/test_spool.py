"""The spool over real processes and a real broker, both killed for real: what was answered 200 is done."""

import asyncio
import resource
import time

import aiohttp

from common.queue import open_queue
from common.queue.sqlite import SqliteQueue
from demo.compare import compare
from receiver.spool import waiting
from tests.lab.programs import LOOK_AFTER, Site, deliver, in_step, post, record
from tests.lab.rabbit import RabbitNode
from tests.lab.until import until


async def in_spool(site: Site) -> int:
    """Return how many records wait in the site's spool."""
    spool = await SqliteQueue.open(site.folder / "spool.db")
    try:
        return await waiting(spool)
    finally:
        await spool.close()


def spooling(site: Site) -> Site:
    """Give the site a spool."""
    site.receiver = f'spool = "{site.folder}/spool.db"'
    return site


async def put(site: Site, number: int) -> dict[str, object]:
    """Write an object at the source and return the record of it."""
    key, body = f"folder/object {number}", b"%d" % number
    await site.source.write(key, body, headers={}, metadata={})
    return record(key, size=len(body))


async def reasons(site: Site) -> list[str]:
    """Why each dead letter on the broker is one."""
    queue = await open_queue(site.queue_url, look_after=LOOK_AFTER)
    try:
        return [letter.why for letter in await queue.buried(100)]
    finally:
        await queue.close()


async def test_hooks_are_taken_while_the_broker_is_dead_and_done_though_the_receiver_dies_too(
    over_rabbit: Site, own_rabbit: RabbitNode
) -> None:
    site = spooling(over_rabbit)
    receiver = await site.run("receiver")
    events = [await put(site, number) for number in range(100)]
    own_rabbit.kill()
    try:
        statuses = await asyncio.gather(*(post(site.hook_url, event) for event in events))
        assert set(statuses) == {200}
        assert await in_spool(site) == 100
        receiver.kill()
        receiver = await site.run("receiver")  # a receiver starts while the broker is away
        assert await post(site.hook_url, await put(site, 100)) == 200
        receiver.kill()
    finally:
        await asyncio.to_thread(own_rabbit.start)
    receiver, worker = await site.run("receiver"), await site.run("worker")

    async def drained() -> bool:
        return await in_spool(site) == 0

    await until(drained, "the spool is drained", 60)
    await until(lambda: worker.did("copied") >= 101, "all are copied", 60)
    await site.quiet()
    assert await compare(site.source, site.target) == []
    assert len([entry async for entry in site.target.list()]) == 101
    assert (await site.counts()).dead == 0
    await until(lambda: receiver.did("drained"), "the log says what was drained")


async def test_a_disk_that_is_full_as_well_is_a_503_in_time_and_loses_nothing_answered_200(
    over_rabbit: Site, own_rabbit: RabbitNode
) -> None:
    site = spooling(over_rabbit)
    receiver = await site.run("receiver")
    events = [await put(site, number) for number in range(3)]
    own_rabbit.kill()
    try:
        assert await post(site.hook_url, events[0]) == 200
        full = max(file.stat().st_size for file in site.folder.iterdir())
        resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        began = time.monotonic()
        assert await post(site.hook_url, events[1]) == 503
        assert time.monotonic() - began < 3
        resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await deliver(site.hook_url, events[1], events[2])
    finally:
        await asyncio.to_thread(own_rabbit.start)
    await site.run("worker")

    async def drained() -> bool:
        return await in_spool(site) == 0

    await until(drained, "the spool is drained", 60)
    await in_step(site)
    assert len([entry async for entry in site.target.list()]) == 3


async def test_an_unreadable_record_that_came_meanwhile_is_a_dead_letter_on_the_broker_in_the_end(
    over_rabbit: Site, own_rabbit: RabbitNode
) -> None:
    site = spooling(over_rabbit)
    await site.run("receiver")
    good = await put(site, 1)
    own_rabbit.kill()
    try:
        assert await post(site.hook_url, good, {"no": "record"}) == 200
        assert await in_spool(site) == 2
    finally:
        await asyncio.to_thread(own_rabbit.start)

    async def both() -> bool:
        counts = await site.counts()
        return (sum(counts.ready.values()), counts.dead) == (1, 1)

    await until(both, "both are on the broker", 60)
    [why] = await reasons(site)
    assert why.startswith("Unreadable")
    assert await in_spool(site) == 0


async def test_a_broker_that_stops_answering_costs_no_sender_a_second_try(
    over_rabbit: Site, own_rabbit: RabbitNode
) -> None:
    site = spooling(over_rabbit)
    receiver = await site.run("receiver")
    event = await put(site, 1)
    assert await post(site.hook_url, event) == 200
    own_rabbit.pause()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
            for _ in range(20):
                async with session.post(site.hook_url, json={"Records": [event]}) as answer:
                    assert answer.status == 200
            async with session.get(f"http://127.0.0.1:{site.port}/readyz") as answer:
                assert await answer.json() == {"status": "ready", "queue": "away, spooling"}
    finally:
        own_rabbit.resume()

    async def drained() -> bool:
        return await in_spool(site) == 0

    await until(drained, "the spool is drained", 60)
    assert not receiver.ended()
