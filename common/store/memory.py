"""A store in memory, with S3's manners. For tests and for trying things out."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from common.errors import RouteDown
from common.store.port import Entry, State


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A read of one stored object."""

    state: State
    content: bytes

    async def body(self) -> bytes:
        """See the port."""
        return self.content


class MemoryBucket:
    """One bucket: a dictionary."""

    def __init__(
        self, name: str, buckets: dict[str, dict[str, MemoryReading]], clock: "itertools.count[int]"
    ) -> None:
        self.name = name
        self._buckets = buckets
        self._clock = clock

    @property
    def _objects(self) -> dict[str, MemoryReading]:
        if self.name not in self._buckets:
            raise RouteDown(f"NoSuchBucket: {self.name}")
        return self._buckets[self.name]

    async def head(self, key: str) -> State | None:
        """See the port."""
        found = self._objects.get(key)
        return found.state if found else None

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[MemoryReading | None]:
        """See the port."""
        yield self._objects.get(key)

    async def write(
        self, key: str, body: bytes, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """See the port."""
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        state = State(etag, len(body), f"tick {next(self._clock)}", "", dict(headers), dict(metadata))
        self._objects[key] = MemoryReading(state, body)

    async def delete(self, key: str) -> None:
        """See the port."""
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
        self._buckets: dict[str, dict[str, MemoryReading]] = {}
        self._clock = itertools.count(1)

    def create(self, name: str) -> MemoryBucket:
        """Make the bucket `name` and return it."""
        self._buckets.setdefault(name, {})
        return self.bucket(name)

    def bucket(self, name: str) -> MemoryBucket:
        """See the port."""
        return MemoryBucket(name, self._buckets, self._clock)

    async def close(self) -> None:
        """Nothing to close."""
