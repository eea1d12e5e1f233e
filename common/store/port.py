"""The store port: what an S3 bucket is to us, and the values that cross it.

Absent means proven absent: `head` and `read` answer None only for a definite NoSuchKey. A missing
bucket, a refusal, a timeout are errors of `common.errors`, never None. Keys are passed byte for byte.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

MARK = "hookmirror-source"
"""The user metadata name under which a copy tells what it is a copy of: see `common.store.mark`."""

CONTENT_HEADERS = (
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
)
"""The standard headers that belong to an object and travel with it."""


PLACEMENT_HEADERS = (
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-tagging",
)
"""Headers of a write that no read shows: where and how a target keeps the object, and its tags."""


MAX_RESTATED = 5 * 2**30
"""Bytes of the largest object that S3 copies in one request."""


@dataclass(frozen=True, slots=True)
class State:
    """One state of an object, as its store told it.

    `etag` is without quotes, `last_modified` as sent, `version` empty in an unversioned bucket;
    `headers` are those of CONTENT_HEADERS, `metadata` the user's, names in lower case without prefix.
    """

    etag: str
    size: int
    last_modified: str = ""
    version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: str = ""
    """The object's tags, in the form of a URL's query, "" for none."""
    opaque: bool = False
    """The store encrypts with a key of its own or of the user's: the ETag says nothing of the bytes."""
    keeps_versions: bool = False
    """The bucket keeps versions, or once did: what is removed may bring an older state back."""
    key: str = field(default="", compare=False)
    """Where it lies. A mark that was copied along with an object to another key is nothing there."""

    @property
    def identity(self) -> str:
        """What tells this state from any other. The ETag alone misses a change of metadata, and
        last-modified counts whole seconds: hence a digest of headers and metadata besides."""
        metadata = sorted((k, v) for k, v in self.metadata.items() if k != MARK)
        about = [sorted(self.headers.items()), metadata, *([self.tags] if self.tags else [])]
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        return f"{self.etag};{self.size};{self.last_modified};{self.version};{digest}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing. Never a proof of absence."""

    key: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload in parts that was begun. `opaque`: the store encrypts with a key of its own or of the user's,
    and the ETags of its parts are no MD5s, though they look like some."""

    id: str
    opaque: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an open upload, as the store lists it."""

    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload that was neither completed nor aborted; `started` in epoch seconds."""

    key: str
    id: str
    started: float


class Reading(Protocol):
    """An open read of one state of an object; `body` gives the bytes of that state or raises."""

    @property
    def state(self) -> State:
        """The state being read, from the headers of the same answer."""

    async def body(self) -> bytes:
        """Return the whole body. Raises `Corrupt` when it is shorter or longer than `state.size`."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body bit by bit. Raises `Corrupt` at its end when that is not at `state.size`."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A body that only passes through: `size` bytes of which the MD5 is known beforehand. It can be sent
    once; an error of our tree that `chunks` raises is raised by the call that sends it."""

    chunks: AsyncIterator[bytes]
    size: int
    md5: bytes


class Bucket(Protocol):
    """One bucket. Every call raises only errors of `common.errors`."""

    @property
    def name(self) -> str:
        """The bucket's name."""

    @property
    def place(self) -> str:
        """Where the bucket is, whatever its store is called here: see `common.store.place`."""

    def now(self) -> float:
        """Return the time on the store's clock in epoch seconds, by its last answer; 0 for not known."""

    async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
        """Return the object's state, None for a definite NoSuchKey. Without `proof` None may also mean that
        there is no such bucket, and costs one request less. Without `tags` none are asked for: they cost a
        request and a right."""

    def read(self, key: str) -> AbstractAsyncContextManager[Reading | None]:
        """Open the object; None for a definite NoSuchKey."""

    def read_range(
        self, key: str, start: int, end: int, *, etag: str
    ) -> AbstractAsyncContextManager[Reading]:
        """Open bytes `start` to `end` (exclusive) of the state that has this ETag; the size told is theirs.
        Raises `SourceMoved` when the object has another by now."""

    async def part_size(self, key: str, *, etag: str, size: int) -> int | None:
        """Return the size of the parts of an object of `size` bytes that was uploaded in parts; None when the
        store won't say, or when they are not of one size, all but the last."""

    async def write(
        self,
        key: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
        over: str | None = None,
    ) -> str:
        """Store the object whole, with a checksum that the store verifies; return the ETag it answers.

        `over` is the ETag of the object that it may replace, "" for where there must be none, None for
        whatever there is: raises `SourceMoved` where there is something else, if the store knows such
        conditions, and `NotSupported` if it refuses them."""

    async def restate(
        self, key: str, *, etag: str, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Give the object that has this ETag other headers, metadata and tags, by a copy onto itself: no byte
        of it travels. For objects of up to MAX_RESTATED bytes. Raises `SourceMoved` when it has another ETag
        by now, or is gone."""

    async def tag(self, key: str, tags: str) -> None:
        """Give the object these tags, in the form of a URL's query, and no others."""

    async def delete(self, key: str, *, over: str | None = None) -> None:
        """Delete the object; one that is not there is fine. `over` is as for `write`."""

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        """Begin an upload in parts."""

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        """Store part `number` (from 1) with a checksum that the store verifies; return its ETag."""

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        """Return the parts stored so far, by number."""

    async def complete_upload(
        self, key: str, upload: str, etags: Sequence[str], *, over: str | None = None
    ) -> str:
        """Make the object of its parts, whose ETags are given in order; return the object's ETag, "" when the
        store does not tell. `over` is
        as for `write`."""

    async def abort_upload(self, key: str, upload: str) -> None:
        """Give an upload up and free its parts; one that is gone is fine."""

    def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        """Yield the uploads open below `prefix`."""

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield what the bucket lists below `prefix`, in its own order."""

    async def check(self) -> None:
        """Return when the bucket is there and lets us in; raises `RouteDown` or `StoreAway`."""


class Store(Protocol):
    """One S3 cloud with its credentials."""

    def bucket(self, name: str) -> Bucket:
        """Return the bucket `name`, without asking whether it exists."""

    async def close(self) -> None:
        """Close the connections."""
