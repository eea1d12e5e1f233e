"""An S3 store over HTTP: the object verbs, one request each.

The path is built here, so that every legal key goes through as it is, and a request costs a
fraction of what it costs through the full SDK (docs/decisions/0004).
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

from common.errors import NotForThis, NotSupported, Refused, RouteDown, SourceMoved, StoreAway, TryAgain
from common.store import tags as tagging
from common.store.aws import Account
from common.store.credentials import Reread
from common.store.failures import CODES, clock_ahead, error_code, says_no_such_key
from common.store.headers import (
    counts_tags,
    etag_of,
    hand_of,
    is_opaque,
    length_of,
    object_headers,
    state_of,
)
from common.store.http import Client
from common.store.multipart import MultipartVerbs, etag_told
from common.store.notifications import Configuration
from common.store.pace import Pace
from common.store.port import Entry, OpenUpload, State
from common.store.wire import Answer, S3Reading, foreign, open_client
from common.tables import StoreSettings, Tags

MAX_UNSIZED = 2**24
"""Bytes of an object whose length no answer tells: it is read whole for that, and a larger one is not."""


class S3Store:
    """One S3 cloud. Make one with `open`."""

    def __init__(self, account: Account, client: Client, pace: Pace, ask: Tags) -> None:
        self._account = account
        self._client = client
        self._pace = pace
        self._ask = ask

    @classmethod
    async def open(cls, name: str, settings: StoreSettings, reread: Reread | None = None) -> "S3Store":
        """Return the store `name`, with nothing asked of it yet. `reread` finds its keys once it refuses
        those of `settings`. Raises `ConfigError` for what cannot be used at all."""
        client = open_client(name, settings)
        pace = Pace(settings.max_requests_per_second, name=name)
        return cls(await Account.open(name, settings, pace, reread), client, pace, settings.tags)

    def bucket(self, name: str) -> "S3Bucket":
        """See the port."""
        return S3Bucket(name, self._account, self._client, self._pace, self._ask)

    async def close(self) -> None:
        """See the port."""
        self._client.close()
        await self._account.close()


class S3Bucket(MultipartVerbs):
    """One bucket of one store."""

    def __init__(self, name: str, account: Account, client: Client, pace: Pace, ask: Tags = "auto") -> None:
        super().__init__(name, account, client, pace)
        self._ask_tags = ask
        self._answers = False  # as a bucket, and not as a key in one
        self._proving = asyncio.Lock()
        self._head_counts: bool | None = None  # whether a HEAD tells of tags as a GET does; None: not known

    async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
        """See the port. A HEAD's 404 has no body to tell a missing key from a missing bucket: for a proof a
        GET follows."""
        answer = await self._ask("HEAD", key)
        if answer.status == 200:
            return await self._state(key, "HEAD", answer.headers, tags=tags)
        if answer.status != 404:
            raise await self._explained(key, answer)
        if not proof:
            await self._prove()  # nor is a target to be filled below its own name
            return None
        async with self.read(key) as reading:
            return reading.state if reading else None

    async def _explained(self, key: str, answer: Answer) -> TryAgain | Refused:
        """Return what a HEAD's failure means. It has no code: what a GET says has one."""
        if answer.status != 429 and 300 <= answer.status < 500:
            asked = await self._ask("GET", key, headers={"range": "bytes=0-0"})
            if asked.status not in {200, 206, 404, 416}:
                return self._failure(asked)
        return self._failure(answer)

    async def _state(self, key: str, method: str, headers: Mapping[str, str], *, tags: bool = True) -> State:
        """Return the state that an answer tells of, with its tags if there are any and they are wanted."""
        etag = etag_of(headers)
        await self._prove()
        if self._hand is not None and self._hand not in headers:
            raise StoreAway(foreign(method, self.name, self._hand))
        size = None if "content-length" in headers else await self._measured(key, etag)
        state = state_of(key, headers, size)
        if not tags or self._ask_tags == "never" or not await self._has_tags(key, method, headers):
            return state
        answer = await self._ask("GET", key, query="tagging=")
        if answer.status != 200:
            raise self._failure(answer, "the tags of an object in ")
        try:
            return replace(state, tags=tagging.header(answer.body.decode()))
        except ValueError as error:
            raise StoreAway(f"the tags of an object in {self.name}: {error}") from error

    async def _has_tags(self, key: str, method: str, headers: Mapping[str, str]) -> bool:
        """Whether to ask for tags. A store whose GET counts them and whose HEAD does not would show one
        object as two: found out at the first that has any, and from then on each HEAD is followed up."""
        if self._ask_tags != "auto":
            return True
        counted, head = counts_tags(headers), method == "HEAD"
        if counted and not head and self._head_counts is None:
            same = await self._ask("HEAD", key)
            if same.status == 200:
                self._head_counts = counts_tags(same.headers)
        return counted or (head and self._head_counts is False)

    async def _measured(self, key: str, etag: str) -> int:
        """Return the size of the object with this ETag, of which an answer did not tell the length. Raises
        `StoreAway` when nothing proves it."""
        pinned = {"range": "bytes=0-0", "if-match": f'"{etag}"'}
        answer = await self._ask("GET", key, headers=pinned, most=MAX_UNSIZED)
        if (
            answer.status in {206, 416}
            and (size := length_of(answer.headers.get("content-range", ""))) is not None
        ):
            return size
        if answer.status == 200 and hashlib.md5(answer.body, usedforsecurity=False).hexdigest() == etag:
            return len(answer.body)
        if answer.status not in {200, 206, 416}:
            raise self._failure(answer)
        raise StoreAway(
            f"{self.name} does not tell the length of an object, and nothing proves it. A proxy may "
            "take Content-Length away"
        )

    @asynccontextmanager
    async def read_range(self, key: str, start: int, end: int, *, etag: str) -> AsyncIterator[S3Reading]:
        """See the port."""
        pinned = {"range": f"bytes={start}-{end - 1}", "if-match": f'"{etag}"'}
        response = await self._open("GET", key, headers=pinned)
        try:
            if response.status != 206:
                raise await self._not_read(key, etag, await self._whole(response))
            state = state_of(key, response.headers, end - start)
            told = response.headers.get("content-range", "")
            if state.etag != etag or not told.startswith(f"bytes {start}-{end - 1}/"):
                raise StoreAway(
                    f"{self.name}: asked for bytes {start}-{end - 1}, was given: {told or 'others'}"
                )
            yield S3Reading(state, response)
        finally:
            response.release()

    async def _not_read(self, key: str, etag: str, answer: Answer) -> TryAgain | Refused:
        """Return what it means that a read pinned to a state failed. It has moved when a HEAD shows it."""
        if error_code(answer.body) == "NoSuchKey":
            return SourceMoved("deleted")
        error = self._failure(answer)
        if isinstance(error, SourceMoved):
            now = await self.head(key)
            same = now is not None and now.etag == etag
            return SourceMoved(f"{error} (and the ETag is the same)" if same else str(error), counts=same)
        return error

    async def part_size(self, key: str, *, etag: str, size: int) -> int | None:
        """See the port. Parts between the first and the last are not asked for: thousands may be."""
        first, count = await self._part(key, 1, etag)
        last, _ = await self._part(key, count, etag) if count > 1 else (first, count)
        return first if count and (count - 1) * first + last == size and last <= first else None

    async def _part(self, key: str, number: int, etag: str) -> tuple[int, int]:
        """Return the size of one part and how many there are; 0 of 0 when the store won't say."""
        query, pinned = f"partNumber={number}", {"if-match": f'"{etag}"'}
        answer = await self._ask("HEAD", key, query=query, headers=pinned)
        size, count = (answer.headers.get(name, "") for name in ("content-length", "x-amz-mp-parts-count"))
        if answer.status != 206 or not (size.isdecimal() and count.isdecimal()):
            return 0, 0
        return int(size), int(count)

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[S3Reading | None]:
        """See the port."""
        response = await self._open("GET", key)
        try:
            if response.status == 200:
                yield S3Reading(await self._state(key, "GET", response.headers), response)
                return
            answer = await self._whole(response)
            if answer.status != 404 or error_code(answer.body) != "NoSuchKey":
                raise self._failure(answer)
        finally:
            response.release()
        await self._prove()
        if not says_no_such_key(answer.body, key) or (self._hand and self._hand not in answer.headers):
            raise StoreAway(
                f"GET {self.name}: a 404 that is not the store's own word for this key deletes nothing. "
                "See what stands between"
            )
        yield None

    async def _prove(self) -> None:
        """Before the first answer about an object is believed, have the bucket answer as one. With an
        endpoint that names the bucket as well, each request is about a key below its name, and every object
        seems to be absent; a file that a proxy serves in maintenance looks like an object."""
        if self._answers:
            return
        async with self._proving:  # of many at once the first asks for all
            if not self._answers:
                await self.check()
                self._answers = True

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
        sent = object_headers(headers, metadata)
        sent["content-md5"] = base64.b64encode(digest).decode()
        answer = await self._replace("PUT", key, over, headers=sent, body=body)
        if answer.status != 200 or error_code(answer.body):
            raise self._failure(answer)
        if "etag" not in answer.headers:
            raise StoreAway(f"PUT {self.name}: a success without ETag is not the store's", unsure=True)
        return answer.headers["etag"].strip('"')

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
        answer = await self._ask("PUT", key, headers=sent, once=True)
        code = error_code(answer.body)
        if answer.status == 200 and not code and b"CopyObjectResult" in answer.body:
            self._see_what_was_copied(etag, answer)
            return
        if code == "NoSuchKey":
            raise SourceMoved("deleted")
        error = self._failure(answer)
        if isinstance(error, SourceMoved):
            error = await self._not_read(key, etag, answer)
        if code == "NotImplemented" or answer.status in {405, 501}:
            raise NotSupported(f"{error} (a copy of an object onto itself)")
        if (isinstance(error, SourceMoved) and error.counts) or _is_no_copy(answer.status, code, error):
            raise NotForThis(f"{error} (a copy of an object onto itself)")
        raise error

    def _see_what_was_copied(self, etag: str, answer: Answer) -> None:
        """Raise `SourceMoved` when it was another state: Ceph does not compare. Where the copy's ETag is no
        MD5, or what was made of parts is now of one, it tells nothing."""
        made = etag_told(answer.body)
        if "-" not in etag + made and made != etag and not is_opaque(answer.headers):
            raise SourceMoved(f"PUT {self.name}: the copy onto itself was made of another state", unsure=True)

    async def tag(self, key: str, tags: str) -> None:
        """See the port."""
        body = tagging.document(tags)
        sent = {
            "content-type": "application/xml",
            "content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        }
        answer = await self._ask("PUT", key, query="tagging=", headers=sent, body=body, once=True)
        if answer.status not in {200, 204} or error_code(answer.body):
            raise self._failure(answer, "the tags of an object in ")

    async def delete(self, key: str, *, over: str | None = None) -> None:
        """See the port."""
        answer = await self._replace("DELETE", key, over)
        if answer.status == 204 or (answer.status == 200 and not answer.body):
            return
        if answer.status != 404 or error_code(answer.body) != "NoSuchKey":
            raise self._failure(answer)

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """See the port."""
        return self._account.list(self.name, prefix)

    async def check(self) -> None:
        """See the port. A listing of one key: it needs the same right as a HEAD, and says what is wrong."""
        date = ""
        try:
            response = await self._open("GET", "", query="list-type=2&max-keys=1", at_once=True)
            date = response.headers.get("date", "")
            self._see_that_it_is_one(await self._whole(response))
        except TryAgain as error:
            error.ahead = clock_ahead(date, time.time())
            raise

    def _see_that_it_is_one(self, answer: Answer) -> None:
        """Raise what is wrong with the bucket that gives this answer to a listing."""
        if answer.status == 404:
            code = error_code(answer.body) or "NoSuchBucket"
            hint = " to a question about the bucket: the endpoint must not name the bucket"
            down = RouteDown(f"{code}: {self.name}{hint if code == 'NoSuchKey' else ''}")
            down.code = code if code in CODES else ""
            raise down
        if answer.status != 200 or error_code(answer.body):
            raise self._failure(answer)
        if b"<ListBucketResult" not in answer.body:
            raise RouteDown(f"{self.name}: what answers is not the store, but perhaps a proxy's page")
        self._hand = hand_of(answer.headers)

    async def create(self) -> None:
        """Make the bucket; one that is there already is fine."""
        await self._account.create(self.name)

    def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        """See the port."""
        return self._account.uploads(self.name, prefix)

    async def notifications(self) -> Configuration:
        """Return who is told of what happens in the bucket."""
        answer = await self._ask("GET", "", query="notification=")
        if answer.status != 200:
            raise self._failure(answer, "the hooks of ")
        try:
            return Configuration.read(answer.body)
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
        answer = await self._ask("PUT", "", query="notification=", headers=sent, body=body)
        if answer.status not in {200, 204} or error_code(answer.body):
            raise self._failure(answer, "the hooks of ")


def _is_no_copy(status: int, code: str, error: TryAgain | Refused) -> bool:
    """Whether a store refuses to copy the object onto itself, rather than all that is done to it."""
    return code == "InvalidRequest" or (status == 400 and type(error) is StoreAway)
