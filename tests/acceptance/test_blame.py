"""Real programs before a target that refuses some objects, or all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.lab.gate import Gate
from tests.lab.programs import Site, deliver, record
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
        await until(lambda: sum(line["action"] == "retried" for line in worker.lines()) > 8, "all were tried")
        assert (await site.counts()).dead == 0
        gate.refuses = lambda method, path: False

        async def all_there() -> bool:
            return len(await there(site)) == 9

        await until(all_there, "all goes on by itself", within=70)
        assert worker.did("resumed") == 1
        assert (await site.counts()).dead == 0
