"""A proxy before an S3 server that can hold a request back, and let it through after its sender has died."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

Held = Callable[[str, str], bool]


class Gate:
    """Passes requests on whole. Those that `holds(method, path)` picks wait until `open` is set, and are
    then sent on whether their sender still lives or not: a write that lands late."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.holds: Held = lambda method, path: False
        self.open = asyncio.Event()
        self.held: list[str] = []
        self.asked: list[str] = []
        """The methods of all requests, in the order in which they came."""
        self._late: set[asyncio.Task[tuple[int, dict[str, str], bytes]]] = set()
        self.endpoint = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take a request, wait if need be, send it on."""
        self.asked.append(request.method)
        body = await request.read()
        # A task of its own: the server cancels a handler whose client is gone, and the point is to go on.
        task = asyncio.create_task(self._pass(request.method, request.raw_path, dict(request.headers), body))
        self._late.add(task)
        status, headers, answer = await asyncio.shield(task)
        if request.method == "HEAD":  # its Content-Length tells of a body that does not come
            response = web.StreamResponse(status=status, headers=headers)
            await response.prepare(request)
            return response
        headers.pop("Content-Length", None)
        return web.Response(status=status, headers=headers, body=answer)

    async def _pass(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if self.holds(method, path):
            self.held.append(path)
            await self.open.wait()
        url = URL(f"{self._upstream}{path}", encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            kept = {k: v for k, v in answer.headers.items() if k not in {"Transfer-Encoding", "Connection"}}
            return answer.status, kept, await answer.read()

    async def landed(self) -> None:
        """Return when everything taken so far has been sent on and answered."""
        await asyncio.gather(*self._late)


@asynccontextmanager
async def gate(upstream: str) -> AsyncIterator[Gate]:
    """A gate on a free port of loopback, before the server at `upstream`."""
    proxy = Gate(upstream)
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    proxy.endpoint = f"http://{host}:{port}"
    try:
        yield proxy
    finally:
        proxy.open.set()
        await runner.cleanup()
