"""Real programs: a target that refuses some objects, or all of them, and a task that kills its workers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from common.queue import open_queue
from common.queue.port import MAX_RETURNS
from common.task import Task
from tests.lab.gate import Gate
from tests.lab.programs import REMOVED, Site, deliver, record
from tests.lab.until import until

DENIED = b"<Error><Code>AccessDenied</Code><Message>by policy</Message></Error>"


class Policy(Gate):
    """A gate that answers 403 to what it refuses."""

    refuses: Callable[[str, str], bool] = staticmethod(lambda method, path: False)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Refuse, or pass on."""
        if self.refuses(request.method, request.raw_path):
            await request.read()
            return web.Response(status=403, body=DENIED, content_type="application/xml")
        return await super().handle(request)


@asynccontextmanager
async def policy(site: Site) -> AsyncIterator[Policy]:
    """A policy before the target of `site`."""
    gate = Policy(site.target_endpoint)
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{path:.*}", gate.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    site.target_endpoint = f"http://{host}:{port}"
    try:
        yield gate
    finally:
        await runner.cleanup()


async def tell(site: Site, *keys: str) -> None:
    for key in keys:
        await site.source.write(key, key.encode(), headers={}, metadata={})
        await deliver(site.hook_url, record(key))


async def there(site: Site) -> set[str]:
    return {entry.key async for entry in site.target.list()}


@pytest.mark.timeout(180)
async def test_ten_objects_that_a_policy_refuses_hold_up_nobody_and_end_as_dead_letters(
    over_sqlite: Site,
) -> None:
    site = over_sqlite
    site.worker = "attempts = 2"
    async with policy(site) as gate:
        gate.refuses = lambda method, path: method == "PUT" and "/bad/" in path
        for name in ("receiver", "worker"):
            await site.run(name)
        await tell(site, *(f"bad/{number}" for number in range(10)))
        for number in range(12):
            key = f"good/{number}"
            await tell(site, key)

            async def came(key: str = key) -> bool:
                return key in await there(site)

            await until(came, "a good one passes", within=20)

        async def buried() -> bool:
            await tell(site, f"good/{asyncio.get_running_loop().time()}")
            return (await site.counts()).dead == 10

        await until(buried, "the bad ones are given up while others pass", within=120)
        assert not any(key.startswith("bad/") for key in await there(site))


@pytest.mark.timeout(240)
async def test_while_every_write_is_refused_there_is_an_alarm_nothing_is_dead_and_then_all_goes_on(
    over_sqlite: Site,
) -> None:
    site = over_sqlite
    site.worker = "attempts = 2"
    async with policy(site) as gate:
        gate.refuses = lambda method, path: method == "PUT" and path.count("/") > 1
        await site.run("receiver")
        worker = await site.run("worker")
        await tell(site, "single")
        await until(lambda: worker.did("paused"), "it is alarmed within a minute", within=60)
        [alarm] = [line for line in worker.lines() if line["action"] == "paused"]
        assert alarm["level"].lower() == "error"
        await tell(site, *(f"other/{number}" for number in range(8)))
        await until(
            lambda: sum(line["action"] == "retried" for line in worker.lines()) > 8, "all were tried", 90
        )
        assert (await site.counts()).dead == 0
        gate.refuses = lambda method, path: False

        async def all_there() -> bool:
            return len(await there(site)) == 9

        await until(all_there, "all goes on by itself", within=70)
        assert worker.did("resumed") == 1
        assert (await site.counts()).dead == 0


@pytest.mark.timeout(300)
async def test_one_task_that_kills_its_workers_is_the_only_dead_letter(over_rabbit: Site) -> None:
    """Thirty-one neighbours are in hand beside it, each for as long as its worker lives from then on."""
    site = over_rabbit
    path = site.folder / "program"
    path.write_text(
        f"#!/bin/sh\nsleep 0.3\n[ $2 = killer ] && kill -9 $PPID && exit\necho $2 >> {site.folder}/calls\n"
    )
    path.chmod(0o755)
    site.routes = f'[[routes]]\nname = "run"\nsource = "mcs:source"\nexec = "{path}"\n'
    await site.run("receiver")
    for number in range(31):
        await deliver(site.hook_url, record(f"k{number}", REMOVED))
        if number == 10:
            await deliver(site.hook_url, record("killer", REMOVED))

    deaths = 0
    worker = site.launch("worker")
    while not (await site.counts()).dead:
        if worker.ended():
            deaths += 1
            assert deaths <= MAX_RETURNS
            worker = site.launch("worker")
        await asyncio.sleep(0.05)
    queue = await open_queue(site.queue_url, look_after=site.look_after)
    [letter] = await queue.buried(100)
    await queue.close()
    assert Task.decode(letter.body).key == "killer"
    assert letter.why.startswith("CameBack: came back unsettled")
    assert deaths == MAX_RETURNS
    calls = site.folder / "calls"
    await until(lambda: len(set(calls.read_text().split())) == 31, "the neighbours are done")
    await site.quiet()
    assert (await site.counts()).dead == 1
