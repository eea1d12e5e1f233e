"""A stand-in for MCS's object storage: any S3 server, with MCS's publishing service put in front of it.

A proxy that passes requests through byte for byte, so that their signatures stay valid, and sends hooks
for what succeeded, as MCS does: after a subscription handshake, at least once, in any order. Runs inside
the demo and the tests, and alone:

    python -m demo.mcs --upstream http://127.0.0.1:8333 --listen 127.0.0.1:9000
"""

import asyncio
import random
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

import aiohttp
import click
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from common.errors import HookmirrorError, RouteDown
from common.store.port import State
from common.store.s3 import S3Store
from common.tables import StoreSettings
from demo import events
from demo.challenge import Unconfirmed, confirm
from demo.events import Happened, S3Request, Subscription
from demo.outbox import Habits, Outbox, Sent
from demo.weed import ACCESS_KEY, SECRET_KEY

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_UNASKED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add to a request of its own accord."""

_CHUNK = 256 * 1024


class Refused(Exception):
    """A request of the publishing service that is answered with an error of S3's kind."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = _error(status, code, message)


class Mcs:
    """The stand-in, an async context manager; `endpoint` is where it listens. `upstream` is how to reach the
    S3 server: its credentials serve to ask for the size of what was made by a copy or from parts."""

    def __init__(
        self,
        upstream: StoreSettings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        habits: Habits | None = None,
        rng: random.Random | None = None,
        project: str = "mcs2883541269",
        region: str = "ru-msk",
    ) -> None:
        self._upstream = upstream
        self._listen = (host, port)
        self._habits = habits or Habits()
        self._rng = rng or random.Random()  # noqa: S311 - chance in deliveries
        self._project = project
        self._region = region
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._stack = AsyncExitStack()
        self.endpoint = ""

    async def __aenter__(self) -> "Mcs":
        enter = self._stack.enter_async_context
        try:
            self._store = await S3Store.open("upstream", self._upstream)
            self._stack.push_async_callback(self._store.close)
            self._outbox = await enter(Outbox(self._habits, self._rng))
            # Bytes as they come: a gzipped object is not to be unpacked on its way.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = await enter(
                aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=False)
            )
            runner = web.ServerRunner(
                web.Server(self._handle, access_log=None, auto_decompress=False), shutdown_timeout=1
            )
            self._stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, *self._listen).start()
        except BaseException:
            await self._stack.aclose()
            raise
        self.endpoint = f"http://{self._listen[0]}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def sent(self) -> Sent:
        """What has been sent so far."""
        return self._outbox.sent

    @property
    def pending(self) -> int:
        """Records that are not delivered yet."""
        return self._outbox.pending

    async def drained(self) -> None:
        """Return when every hook has been delivered or given up."""
        await self._outbox.drained()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = S3Request.read(request.method, request.raw_path, request.headers)
        try:
            if asked.bucket and not asked.key and "notification" in asked.query:
                return await self._notification(request, asked.bucket)
            return await self._pass_through(request, asked)
        except Refused as refusal:
            return refusal.answer

    # ------------------------------------------------------------------ the proxy

    async def _pass_through(self, request: web.BaseRequest, asked: S3Request) -> web.StreamResponse:
        async with await self._ask(request, request.content if request.can_read_body else None) as answer:
            if asked.answered_in_body:
                body = await answer.read()
                if answer.status == 200 and not events.is_error(body):
                    await self._publish_from_body(request, asked, answer, body)
                return web.Response(status=answer.status, headers=_through(answer.headers), body=body)
            if asked.event and answer.status in {200, 204}:
                # Before the answer goes back: a client that is gone has changed the object all the same.
                self._publish(_happened(request, asked, answer))
            return await _stream(request, answer)

    async def _ask(
        self, request: web.BaseRequest, body: aiohttp.StreamReader | bytes | None
    ) -> aiohttp.ClientResponse:
        """Put the request to the upstream as it came, the Host header too: it is part of the signature."""
        if body and request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            return await self._session.request(
                request.method,
                URL(f"{self._upstream.endpoint}{request.raw_path}", encoded=True),
                headers=_through(request.headers),
                data=body,
                allow_redirects=False,
                skip_auto_headers=_UNASKED,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Refused(503, "ServiceUnavailable", f"the upstream has not answered: {error!r}") from error

    async def _publish_from_body(
        self, request: web.BaseRequest, asked: S3Request, answer: aiohttp.ClientResponse, body: bytes
    ) -> None:
        if asked.deletes_many:
            for key in events.deleted_keys(body):
                gone = S3Request("DELETE", asked.bucket, key, frozenset())
                self._publish(_happened(request, gone, answer))
        elif self._subscriptions.get(asked.bucket):
            self._publish(_happened(request, asked, answer, await self._look(asked)))

    async def _look(self, asked: S3Request) -> State | None:
        try:
            return await self._store.bucket(asked.bucket).head(asked.key)
        except HookmirrorError:
            return None  # a hook without the size is better than none

    def _publish(self, happened: Happened) -> None:
        for subscription in self._subscriptions.get(happened.bucket, ()):
            if subscription.wants(happened.event, happened.key):
                entry = events.record(happened, subscription.id, project=self._project, region=self._region)
                self._outbox.put(subscription.url, entry)

    # ------------------------------------------------------------------ the publishing service

    async def _notification(self, request: web.BaseRequest, bucket: str) -> web.StreamResponse:
        """GET or PUT the hooks of a bucket. PUT replaces them all, and each new one is confirmed first."""
        if request.method not in {"GET", "PUT"}:
            raise Refused(
                405, "MethodNotAllowed", "a notification configuration is read with GET, set with PUT"
            )
        body = await request.read()
        await self._admit(request, bucket, body)
        known = self._subscriptions.get(bucket, [])
        if request.method == "GET":
            return web.Response(body=events.write_configuration(known), content_type="application/xml")
        try:
            wanted = events.read_configuration(body)
        except ValueError as error:
            raise Refused(400, "MalformedXML", str(error)) from error
        for subscription in wanted:
            if subscription not in known:
                try:
                    await confirm(self._session, subscription, subscription.topic_arn(self._project, bucket))
                except Unconfirmed as error:
                    raise Refused(400, "InvalidArgument", str(error)) from error
        self._subscriptions[bucket] = wanted
        return web.Response()

    async def _admit(self, request: web.BaseRequest, bucket: str, body: bytes) -> None:
        """Raise `Refused` for a bucket that is not there, or a request whose signature is wrong."""
        try:
            await self._store.bucket(bucket).check()
        except RouteDown as error:
            raise Refused(404, "NoSuchBucket", f"there is no bucket {bucket}") from error
        # The upstream checks who asks. What it makes of the request itself (some take a PUT on a bucket
        # that is there for its creation, and decline) does not matter.
        async with await self._ask(request, body or None) as answer:
            if answer.status in {401, 403}:
                raise Refused(
                    403, "AccessDenied", "the upstream does not accept the signature of this request"
                )


def _happened(
    request: web.BaseRequest, asked: S3Request, answer: aiohttp.ClientResponse, state: State | None = None
) -> Happened:
    """Return the event of a request that succeeded; `state` is what it made, if the answer does not say."""
    etag: str | None = None
    size: int | None = None
    event = asked.event or ""
    if state is not None:
        etag, size = state.etag, state.size
    elif event == "s3:ObjectCreated:Put":
        sent = request.headers.get("X-Amz-Decoded-Content-Length") or request.headers.get("Content-Length")
        etag, size = answer.headers.get("ETag", "").strip('"'), int(sent or 0)
    request_id = answer.headers.get("X-Amz-Request-Id", "")
    address = request.remote or "127.0.0.1"
    return Happened(event, asked.bucket, asked.key, time.time(), etag, size, address, request_id)


def _through(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the headers that are not for the next hop only."""
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]


async def _stream(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in _through(answer.headers):
        response.headers.add(name, value)
    await response.prepare(request)
    async for chunk in answer.content.iter_chunked(_CHUNK):
        try:
            await response.write(chunk)
        except (ConnectionError, aiohttp.ClientConnectionError):
            return response  # the client has seen enough: nobody is left to be told
    await response.write_eof()
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    return web.Response(
        status=status, body=events.error_document(code, message), content_type="application/xml"
    )


@click.command()
@click.option("--upstream", required=True, help="The S3 server to pass requests to, as a URL.")
@click.option("--listen", default="127.0.0.1:9000", show_default=True, metavar="HOST:PORT")
@click.option("--access-key", default=ACCESS_KEY, show_default=True, help="Of the upstream.")
@click.option("--secret-key", default=SECRET_KEY, help="Of the upstream.  [default: the demo's]")
@click.option("--duplicates", default=0.15, show_default=True, help="Share of the hooks that go out again.")
@click.option("--spread", default=2.0, show_default=True, help="The longest wait before a hook, in seconds.")
@click.option("--batch", default=3, show_default=True, help="The most records in one hook.")
@click.option("--seed", default=None, type=int, help="Replay the same chance.")
def main(
    upstream: str,
    listen: str,
    access_key: str,
    secret_key: str,
    duplicates: float,
    spread: float,
    batch: int,
    seed: int | None,
) -> None:
    """Put a stand-in for MCS's publishing service in front of an S3 server, until SIGTERM or Ctrl-C."""
    settings = StoreSettings(
        endpoint=upstream, access_key_id=access_key, secret_access_key=SecretStr(secret_key)
    )
    host, _, port = listen.rpartition(":")
    habits = Habits(duplicates, spread, batch)
    rng = random.Random(seed)  # noqa: S311 - chance in deliveries
    asyncio.run(_serve(Mcs(settings, host=host, port=int(port), habits=habits, rng=rng)))


async def _serve(mcs: Mcs) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with mcs:
        click.echo(f"MCS's stand-in listens on {mcs.endpoint}", err=True)
        await stop.wait()


if __name__ == "__main__":
    main()
