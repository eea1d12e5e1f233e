"""A refused check tells by how much this machine's clock is off: a HEAD's 403 has no words, but a Date."""

import time
from email.utils import formatdate

import pytest
from aiohttp import web

from common.errors import RouteDown
from common.store.s3 import S3Store
from demo.weed import free_ports, settings_for


@pytest.mark.parametrize("off", [1200.0, -7200.0, 0.0])
async def test_a_refused_check_tells_how_far_the_stores_clock_is_ahead(off: float) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=403, headers={"Date": formatdate(time.time() + off, usegmt=True)})

    [port] = free_ports(1)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    store = await S3Store.open("mcs", settings_for(f"http://127.0.0.1:{port}"))
    try:
        with pytest.raises(RouteDown) as raised:
            await store.bucket("from").check()
    finally:
        await store.close()
        await runner.cleanup()
    assert raised.value.reason == "AccessDenied"
    assert raised.value.ahead == pytest.approx(off, abs=60)
