"""An S3 store over HTTP: the object verbs, one request each.

The path is built here, so that every legal key goes through as it is, and a request costs a
quarter of what it costs through the full SDK (docs/decisions/0004).
"""

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import aiohttp

from common.errors import (
    SourceMoved,
    StoreAway,
)
from common.store import tags
from common.store.aws import Account
from common.store.failures import error_code
from common.store.headers import condition, counts_tags, object_headers, state_of
from common.store.multipart import MultipartVerbs
from common.store.notifications import Configuration
from common.store.pace import Pace
from common.store.port import Entry, OpenUpload, State
from common.store.wire import S3Reading, open_session, rest_of
from common.tables import StoreSettings, Tags


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
        session = open_session(name, settings)
        pace = Pace(settings.max_requests_per_second, name=name)
        try:
            account = await Account.open(name, settings, pace)
        except BaseException:
            await session.close()
            raise
        return cls(account, session, pace, settings.tags)

    def bucket(self, name: str) -> "S3Bucket":
        """See the port."""
        return S3Bucket(name, self._account, self._session, self._pace, self._ask)

    async def close(self) -> None:
        """See the port."""
        await self._session.close()
        await self._account.close()


class S3Bucket(MultipartVerbs):
    """One bucket of one store."""

    def __init__(
        self, name: str, account: Account, session: aiohttp.ClientSession, pace: Pace, ask: Tags = "auto"
    ) -> None:
        super().__init__(name, account, session, pace)
        self._ask = ask
        self._head_counts: bool | None = None  # whether a HEAD tells of tags as a GET does; None: not known

    async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
        """See the port. A HEAD's 404 has no body to tell a missing key from a missing bucket: for a proof a
        GET follows."""
        async with self._request("HEAD", key) as response:
            if response.status == 200:
                return await self._tagged(key, response) if tags else state_of(response.headers)
            if response.status != 404:
                raise self._failure(response, b"")
        if not proof:
            return None
        async with self.read(key) as reading:
            return reading.state if reading else None

    async def _tagged(self, key: str, response: aiohttp.ClientResponse) -> State:
        """Return the state in the answer, with its tags if there are any."""
        state = state_of(response.headers)
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
        counted, head = counts_tags(response.headers), response.method == "HEAD"
        if counted and not head and self._head_counts is None:
            async with self._request("HEAD", key) as same:
                if same.status == 200:
                    self._head_counts = counts_tags(same.headers)
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
            yield S3Reading(replace(state_of(response.headers), size=end - start), response)

    async def part_size(self, key: str, *, etag: str, size: int) -> int | None:
        """See the port. Parts between the first and the last are not asked for: thousands may be."""
        first, count = await self._part(key, 1, etag)
        last, _ = await self._part(key, count, etag) if count > 1 else (first, count)
        return first if count and (count - 1) * first + last == size and last <= first else None

    async def _part(self, key: str, number: int, etag: str) -> tuple[int, int]:
        """Return the size of one part and how many there are; 0 of 0 when the store won't say."""
        query, pinned = f"partNumber={number}", {"if-match": f'"{etag}"'}
        async with self._request("HEAD", key, query=query, headers=pinned) as response:
            if response.status != 206 or "x-amz-mp-parts-count" not in response.headers:
                return 0, 0
            return int(response.headers["Content-Length"]), int(response.headers["x-amz-mp-parts-count"])

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
        self,
        key: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
        over: str | None = None,
    ) -> str:
        """See the port. The checksum is Content-MD5, which every S3 store knows."""
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        sent = object_headers(headers, metadata) | condition(over)
        sent["content-md5"] = base64.b64encode(digest).decode()
        async with self._request("PUT", key, headers=sent, body=body) as response:
            answer = await rest_of(response)
            if response.status != 200 or error_code(answer):
                raise self._failure(response, answer)
            return response.headers.get("ETag", "").strip('"')

    async def restate(
        self, key: str, *, etag: str, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """See the port. A 200 may still carry an error: the store answers before it has finished."""
        sent = object_headers(headers, metadata) | {
            "x-amz-copy-source": f"/{self.name}/{quote(key, safe='/~')}",
            "x-amz-copy-source-if-match": f'"{etag}"',
            "x-amz-metadata-directive": "REPLACE",
            "x-amz-tagging-directive": "REPLACE",
        }
        async with self._request("PUT", key, headers=sent) as response:
            answer = await rest_of(response)
            if response.status != 200 or error_code(answer):
                raise self._failure(response, answer)

    async def delete(self, key: str, *, over: str | None = None) -> None:
        """See the port."""
        async with self._request("DELETE", key, headers=condition(over)) as response:
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

    def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        """See the port."""
        return self._account.uploads(self.name, prefix)

    async def notifications(self) -> Configuration:
        """Return who is told of what happens in the bucket."""
        async with self._request("GET", "", query="notification=") as response:
            body = await rest_of(response)
            if response.status != 200:
                raise self._failure(response, body, "the hooks of ")
        try:
            return Configuration.read(body)
        except ValueError as error:
            raise StoreAway(f"the hooks of {self.name}: {error}") from error

    async def notify(self, body: bytes) -> None:
        """Replace the whole notification configuration. MCS asks each new URL to confirm it before it answers
        this."""
        sent = {
            "content-type": "application/xml",
            "content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        }
        async with self._request("PUT", "", query="notification=", headers=sent, body=body) as response:
            answer = await rest_of(response)
            if response.status not in {200, 204} or error_code(answer):
                raise self._failure(response, answer, "the hooks of ")
