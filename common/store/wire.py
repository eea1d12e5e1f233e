"""How a request travels: signed, paced, perhaps by a proxy, tried for seconds; and how its answer is read."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
from yarl import URL

from common.errors import ConfigError, Corrupt, HookmirrorError, RouteDown, StoreAway, Throttled
from common.proxies import proxy_for
from common.store.aws import Account
from common.store.failures import translate
from common.store.pace import Pace
from common.store.place import place
from common.store.port import State, Stream
from common.tables import StoreSettings

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)

PAUSES = (0.2, 1.0)
"""Seconds between the tries of one request; a task that still fails waits for its next attempt."""

PIECE = 2**16
"""Bytes; a body up to this size goes out with its headers in one write."""

MAX_ANSWER = 2**20
"""Bytes of an answer that is no object: more is not read."""


def open_session(name: str, settings: StoreSettings) -> aiohttp.ClientSession:
    """Return a session for the store `name`. Raises `ConfigError` for a `ca_bundle` that is none."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20, ssl=_trusted(name, settings))
    jar = aiohttp.DummyCookieJar()  # a store's cookies are nobody's business
    # Bytes as they are stored: nothing is to be unpacked on the way through.
    return aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=False, cookie_jar=jar)


class Wire:
    """One bucket's way to send requests."""

    def __init__(self, name: str, account: Account, session: aiohttp.ClientSession, pace: Pace) -> None:
        self.name = name
        self._account = account
        self._session = session
        self._pace = pace
        self._base = account.address(name)
        self._proxy = proxy_for(self._base)
        self.place = place(account.endpoint, name)

    def _failure(self, response: aiohttp.ClientResponse, body: bytes, what: str = "") -> Exception:
        doing = f"{response.method} {what}{self.name}"
        return translate(response.status, body, doing=doing, retry_after=response.headers.get("Retry-After"))

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        key: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | Stream | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer to one signed request. No answer at all, or a 5xx, is tried again at once or
        twice: every verb here may be repeated, but for a body that only passes through."""
        url = f"{self._base}/{quote(key, safe='/~')}{'?' if query else ''}{query}"
        response = await self._persist(method, url, headers or {}, body)
        try:
            yield response
        finally:
            response.release()

    async def _persist(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Stream | None
    ) -> aiohttp.ClientResponse:
        for pause in () if isinstance(body, Stream) else PAUSES:
            try:
                response = await self._send(method, url, headers, body)
            except (StoreAway, RouteDown):
                await asyncio.sleep(pause)
                continue
            if response.status not in {500, 502, 504}:
                return response
            response.release()
            await asyncio.sleep(pause)
        return await self._send(method, url, headers, body)

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Stream | None
    ) -> aiohttp.ClientResponse:
        sent = await self._pace.turn()
        signed = await self._account.sign(method, url, headers)
        if body:
            signed["Content-Length"] = str(body.size if isinstance(body, Stream) else len(body))
        # aiohttp would add a Content-Type to a body that has none; S3 has its own default.
        skip = ("Content-Type",)
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=signed,
                data=_outgoing(body),
                allow_redirects=False,
                proxy=self._proxy,
                skip_auto_headers=skip,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise RouteDown(f"{method} {self.name}: unreachable: {error!r}") from error  # nothing was sent
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error.__cause__, HookmirrorError):
                raise error.__cause__ from None  # not the store failed, but where its body came from
            raise StoreAway(f"{method} {self.name}: no answer: {error!r}") from error
        if response.status in {429, 503} and isinstance(refusal := self._failure(response, b""), Throttled):
            self._pace.slowed(sent, refusal.retry_after)
        elif response.status < 500:
            self._pace.went_well(sent)
        return response


class S3Reading:
    """An open GET."""

    def __init__(self, state: State, response: aiohttp.ClientResponse) -> None:
        self.state = state
        self._response = response

    async def body(self) -> bytes:
        """See the port."""
        try:
            body = await self._response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Corrupt(f"the body of {self.state.size} bytes broke off: {error!r}") from error
        if len(body) != self.state.size:
            raise Corrupt(f"{len(body)} bytes came instead of {self.state.size}")
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """See the port."""
        came = 0
        try:
            async for chunk in self._response.content.iter_any():
                came += len(chunk)
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Corrupt(f"the body of {self.state.size} bytes broke off: {error!r}") from error
        if came != self.state.size:
            raise Corrupt(f"{came} bytes came instead of {self.state.size}")


async def rest_of(response: aiohttp.ClientResponse) -> bytes:
    """Return a short answer, or the beginning of one that is not."""
    body = bytearray()
    try:
        async for chunk in response.content.iter_chunked(2**16):
            body += chunk
            if len(body) > MAX_ANSWER:
                break
        return bytes(body)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise StoreAway(f"{response.method}: the answer broke off: {error!r}") from error


def _trusted(name: str, settings: StoreSettings) -> ssl.SSLContext | bool:
    """Return whom to believe that he is the store: those in its `ca_bundle`, else those the system trusts."""
    if settings.ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_bundle)
    except OSError as error:
        raise ConfigError(
            f"stores.{name}.ca_bundle: {settings.ca_bundle}: {error}. Name a file of PEM certificates."
        ) from error


def _outgoing(body: bytes | Stream | None) -> bytes | AsyncIterator[bytes | memoryview] | None:
    """Return `body` as aiohttp is to have it."""
    if isinstance(body, Stream):
        return body.chunks
    return _pieces(body) if body and len(body) > PIECE else body


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    """Yield `body` bit by bit, without a copy; aiohttp would join it with the headers into a second one."""
    whole = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield whole[start : start + PIECE]
