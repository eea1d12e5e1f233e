"""What one process remembers of what it has done of late, key by key: bounded, and lost with it."""

from collections.abc import Hashable
from typing import Generic, TypeVar

ROOM = 10_000
"""Keys that are remembered; behind these the oldest is forgotten."""

V = TypeVar("V")


class Remembered(Generic[V]):
    """A dictionary that holds so many keys at most."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._known: dict[Hashable, V] = {}

    def get(self, key: Hashable) -> V | None:
        """Return what is remembered of `key`, None for nothing."""
        return self._known.get(key)

    def put(self, key: Hashable, value: V) -> None:
        """Remember this of `key`."""
        self._known.pop(key, None)
        self._known[key] = value
        if len(self._known) > self._room:
            del self._known[next(iter(self._known))]

    def forget(self, key: Hashable) -> None:
        """Remember nothing of `key`."""
        self._known.pop(key, None)
