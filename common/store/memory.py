"""A store in memory, with S3's manners. For tests and for trying things out."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate

from common.errors import Corrupt, RouteDown, SourceMoved, UploadGone
from common.store.port import CONTENT_HEADERS, Begun, Entry, OpenUpload, Part, State, Stream


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A read of one stored object."""

    state: State
    content: bytes

    async def body(self) -> bytes:
        """See the port."""
        return self.content

    async def chunks(self) -> AsyncIterator[bytes]:
        """See the port."""
        for start in range(0, len(self.content), 2**16):
            yield self.content[start : start + 2**16]


@dataclass(slots=True)
class _Upload:
    bucket: str
    key: str
    headers: dict[str, str]
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Contents:
    """What all buckets of a store have in common."""

    buckets: dict[str, dict[str, MemoryReading]] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    ticks: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    now: int = 1


class MemoryBucket:
    """One bucket: a dictionary."""

    def __init__(self, name: str, contents: _Contents) -> None:
        self.name = name
        self._contents = contents

    @property
    def _objects(self) -> dict[str, MemoryReading]:
        if self.name not in self._contents.buckets:
            raise RouteDown(f"NoSuchBucket: {self.name}")
        return self._contents.buckets[self.name]

    @property
    def place(self) -> str:
        """See the port."""
        return f"memory-{id(self._contents):x}/{self.name}"

    def now(self) -> float:
        """See the port: a second passes with each write."""
        return self._contents.now

    def _tick(self) -> str:
        self._contents.now = next(self._contents.ticks)
        return formatdate(self._contents.now, usegmt=True)

    def _state(
        self, key: str, etag: str, size: int, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> State:
        """A new object as it is shown: where it is placed no read tells, and its tags are no header."""
        shown = {name: value for name, value in headers.items() if name in CONTENT_HEADERS}
        tags = headers.get("x-amz-tagging", "")
        return State(etag, size, self._tick(), "", shown, dict(metadata), tags, key=key)

    async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
        """See the port."""
        found = self._objects.get(key)
        return found.state if found else None

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[MemoryReading | None]:
        """See the port."""
        yield self._objects.get(key)

    @asynccontextmanager
    async def read_range(self, key: str, start: int, end: int, *, etag: str) -> AsyncIterator[MemoryReading]:
        """See the port."""
        found = self._objects.get(key)
        if found is None or found.state.etag != etag:
            raise SourceMoved(f"the object has no longer the ETag {etag}")
        part = found.content[start:end]
        yield MemoryReading(replace(found.state, size=len(part)), part)

    async def part_size(self, key: str, *, etag: str, size: int) -> int | None:
        """See the port."""
        return None

    def _check(self, key: str, over: str | None) -> None:
        found = self._objects.get(key)
        if over is not None and over != (found.state.etag if found else ""):
            raise SourceMoved("PreconditionFailed")

    async def write(
        self,
        key: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
        over: str | None = None,
    ) -> str:
        """See the port."""
        self._check(key, over)
        state = self._state(key, _md5(body), len(body), headers, metadata)
        self._objects[key] = MemoryReading(state, body)
        return state.etag

    async def restate(
        self, key: str, *, etag: str, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """See the port."""
        found = self._objects.get(key)
        if found is None or found.state.etag != etag:
            raise SourceMoved(f"the object has no longer the ETag {etag}")
        state = self._state(key, etag, found.state.size, headers, metadata)
        self._objects[key] = MemoryReading(state, found.content)

    async def tag(self, key: str, tags: str) -> None:
        """See the port."""
        found = self._objects[key]
        self._objects[key] = MemoryReading(replace(found.state, tags=tags), found.content)

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        """See the port."""
        id_ = self._tick()
        self._contents.uploads[id_] = _Upload(self.name, key, dict(headers), dict(metadata))
        return Begun(id_)

    def _open(self, upload: str) -> _Upload:
        if upload not in self._contents.uploads:
            raise UploadGone(f"NoSuchUpload: {upload}")
        return self._contents.uploads[upload]

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        """See the port."""
        if isinstance(body, Stream):
            whole = b"".join([chunk async for chunk in body.chunks])
            if (len(whole), hashlib.md5(whole, usedforsecurity=False).digest()) != (body.size, body.md5):
                raise Corrupt("BadDigest: the bytes that came are not those that were announced")
            body = whole
        self._open(upload).parts[number] = body
        return _md5(body)

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        """See the port."""
        return {number: Part(_md5(body), len(body)) for number, body in self._open(upload).parts.items()}

    async def complete_upload(
        self, key: str, upload: str, etags: Sequence[str], *, over: str | None = None
    ) -> str:
        """See the port."""
        self._check(key, over)
        kept = self._open(upload)
        body = b"".join(kept.parts[number] for number in range(1, len(etags) + 1))
        etag = f"{_md5(b''.join(map(bytes.fromhex, etags)))}-{len(etags)}"
        state = self._state(key, etag, len(body), kept.headers, kept.metadata)
        self._objects[key] = MemoryReading(state, body)
        del self._contents.uploads[upload]
        return etag

    async def abort_upload(self, key: str, upload: str) -> None:
        """See the port."""
        self._contents.uploads.pop(upload, None)

    async def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        """See the port."""
        for id_, upload in list(self._contents.uploads.items()):
            if upload.bucket == self.name and upload.key.startswith(prefix):
                yield OpenUpload(upload.key, id_, 0.0)

    async def delete(self, key: str, *, over: str | None = None) -> None:
        """See the port."""
        self._check(key, over)
        self._objects.pop(key, None)

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """See the port."""
        for key in sorted(self._objects):
            if key.startswith(prefix):
                state = self._objects[key].state
                yield Entry(key, state.etag, state.size)

    async def check(self) -> None:
        """See the port."""
        _ = self._objects


class MemoryStore:
    """Buckets by name; only those made with `create` exist."""

    def __init__(self) -> None:
        self._contents = _Contents()

    def create(self, name: str) -> MemoryBucket:
        """Make the bucket `name` and return it."""
        self._contents.buckets.setdefault(name, {})
        return self.bucket(name)

    def bucket(self, name: str) -> MemoryBucket:
        """See the port."""
        return MemoryBucket(name, self._contents)

    async def close(self) -> None:
        """Nothing to close."""


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
