"""An S3 store over HTTP: the object verbs, one request each. The only module under common that knows aiohttp.

The path is built here, so that every legal key goes through as it is, and a request costs a
quarter of what it costs through the full SDK (docs/decisions/0004).
"""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from common.errors import (
    ConfigError,
    Corrupt,
    HookmirrorError,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
)
from common.settings import StoreSettings, Tags
from common.store import tags
from common.store.aws import Account
from common.store.failures import error_code, translate
from common.store.multipart import MultipartVerbs, is_opaque, rest_of
from common.store.pace import Pace
from common.store.port import CONTENT_HEADERS, PLACEMENT_HEADERS, Entry, OpenUpload, State, Stream

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)

PAUSES = (0.2, 1.0)
"""Seconds between the tries of one request; a task that still fails waits for its next attempt."""

PIECE = 2**16
"""Bytes; a body up to this size goes out with its headers in one write."""

_META = "x-amz-meta-"
COUNT = "x-amz-tagging-count"


class S3Store:
    """One S3 cloud. Make one with `open`."""

    def __init__(self, account: Account, session: aiohttp.ClientSession, pace: Pace, ask: Tags) -> None:
        self._account = account
        self._session = session
        self._pace = pace
        self._ask = ask

    @classmethod
    async def open(cls, name: str, settings: StoreSettings) -> "S3Store":
        """Return the store `name`, with nothing asked of it yet. Raises `ConfigError` without credentials."""
        trusted = _trusted(name, settings)
        pace = Pace(settings.max_requests_per_second, name=name)
        account = await Account.open(name, settings, pace)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20, ssl=trusted)
        jar = aiohttp.DummyCookieJar()  # a store's cookies are nobody's business
        # Bytes as they are stored: nothing is to be unpacked on the way through.
        session = aiohttp.ClientSession(
            connector=connector, timeout=TIMEOUT, auto_decompress=False, cookie_jar=jar
        )
        return cls(account, session, pace, settings.tags)

    def bucket(self, name: str) -> "S3Bucket":
        """See the port."""
        return S3Bucket(name, self._account, self._session, self._pace, self._ask)

    async def close(self) -> None:
        """See the port."""
        await self._session.close()
        await self._account.close()


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


class S3Bucket(MultipartVerbs):
    """One bucket of one store."""

    def __init__(
        self, name: str, account: Account, session: aiohttp.ClientSession, pace: Pace, ask: Tags = "auto"
    ) -> None:
        self.name = name
        self._account = account
        self._session = session
        self._pace = pace
        self._ask = ask
        self._head_counts: bool | None = None  # whether a HEAD tells of tags as a GET does; None: not known
        self._base = account.address(name)
        self._proxy = _proxy_for(self._base)

    async def head(self, key: str) -> State | None:
        """See the port. A HEAD's 404 has no body to tell a missing key from a missing bucket: then a
        GET follows."""
        async with self._request("HEAD", key) as response:
            if response.status == 200:
                return await self._tagged(key, response)
            if response.status != 404:
                raise self._failure(response, b"")
        async with self.read(key) as reading:
            return reading.state if reading else None

    async def _tagged(self, key: str, response: aiohttp.ClientResponse) -> State:
        """Return the state in the answer, with its tags if there are any."""
        state = _state(response)
        if not await self._has_tags(key, response):
            return state
        async with self._request("GET", key, query="tagging=") as answer:
            body = await rest_of(answer)
            if answer.status != 200:
                raise self._failure(answer, body, "the tags of an object in ")
        try:
            return replace(state, tags=tags.header(body.decode()))
        except ValueError as error:
            raise StoreAway(f"the tags of an object in {self.name}: {error}") from error

    async def _has_tags(self, key: str, response: aiohttp.ClientResponse) -> bool:
        """Whether to ask for tags. A store whose GET counts them and whose HEAD does not would show one
        object as two: found out at the first that has any, and from then on each HEAD is followed up."""
        if self._ask != "auto":
            return self._ask == "always"
        counted, head = _counts_tags(response), response.method == "HEAD"
        if counted and not head and self._head_counts is None:
            async with self._request("HEAD", key) as same:
                if same.status == 200:
                    self._head_counts = _counts_tags(same)
        return counted or (head and self._head_counts is False)

    @asynccontextmanager
    async def read_range(self, key: str, start: int, end: int, *, etag: str) -> AsyncIterator[S3Reading]:
        """See the port."""
        pinned = {"range": f"bytes={start}-{end - 1}", "if-match": f'"{etag}"'}
        async with self._request("GET", key, headers=pinned) as response:
            if response.status != 206:
                body = await rest_of(response)
                raise (
                    SourceMoved("deleted")
                    if error_code(body) == "NoSuchKey"
                    else self._failure(response, body)
                )
            yield S3Reading(replace(_state(response), size=end - start), response)

    async def part_size(self, key: str, *, etag: str) -> int | None:
        """See the port."""
        async with self._request(
            "HEAD", key, query="partNumber=1", headers={"if-match": f'"{etag}"'}
        ) as response:
            if response.status != 206 or "x-amz-mp-parts-count" not in response.headers:
                return None
            return int(response.headers["Content-Length"])

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[S3Reading | None]:
        """See the port."""
        async with self._request("GET", key) as response:
            if response.status == 200:
                yield S3Reading(await self._tagged(key, response), response)
                return
            body = await rest_of(response)
            if response.status != 404 or error_code(body) != "NoSuchKey":
                raise self._failure(response, body)
        yield None

    async def write(
        self, key: str, body: bytes, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """See the port. The checksum is Content-MD5, which every S3 store knows."""
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        sent = object_headers(headers, metadata)
        sent["content-md5"] = base64.b64encode(digest).decode()
        async with self._request("PUT", key, headers=sent, body=body) as response:
            answer = await rest_of(response)
            if response.status != 200 or error_code(answer):
                raise self._failure(response, answer)

    async def delete(self, key: str) -> None:
        """See the port."""
        async with self._request("DELETE", key) as response:
            if response.status not in {200, 204}:
                body = await rest_of(response)
                if error_code(body) != "NoSuchKey":
                    raise self._failure(response, body)

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """See the port."""
        return self._account.list(self.name, prefix)

    async def check(self) -> None:
        """See the port."""
        await self._account.check(self.name)

    async def create(self) -> None:
        """Make the bucket; one that is there already is fine."""
        await self._account.create(self.name)

    def _object_headers(self, headers: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, str]:
        return object_headers(headers, metadata)

    def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        """See the port."""
        return self._account.uploads(self.name, prefix)

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


def object_headers(headers: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers that give an object `headers` and `metadata`. Raises `Refused` for a value
    that no header can carry."""
    allowed = {*CONTENT_HEADERS, *PLACEMENT_HEADERS}
    sent = {name: value for name, value in headers.items() if name in allowed}
    sent |= {f"{_META}{name}": value for name, value in metadata.items()}
    for name, value in sent.items():
        if not _is_text(value):
            raise Refused(f"the value of {name} is not UTF-8, and no header can carry it unchanged")
    return sent


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


def _is_text(value: str) -> bool:
    """Bytes that are no UTF-8 arrive from a header as halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for `url`. Asked for once: with `trust_env` aiohttp would
    look again, in a thread, at every request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)  # no_proxy may name a port


def _counts_tags(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get(COUNT, "0") != "0"


def _state(response: aiohttp.ClientResponse) -> State:
    headers = response.headers
    version = headers.get("x-amz-version-id", "")
    return State(
        etag=headers.get("ETag", "").strip('"'),
        size=int(headers.get("Content-Length", 0)),
        last_modified=headers.get("Last-Modified", ""),
        version="" if version == "null" else version,
        headers={name: headers[name] for name in CONTENT_HEADERS if name in headers},
        metadata={
            n.lower().removeprefix(_META): v for n, v in headers.items() if n.lower().startswith(_META)
        },
        opaque=is_opaque(headers),
    )
