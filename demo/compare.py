"""Two buckets compared object by object: bytes, content headers, user metadata."""

import asyncio
from collections.abc import Callable, Mapping

from common.errors import HookmirrorError
from common.store.port import CONTENT_HEADERS, MARK, Bucket, State
from common.telemetry import one_line

AT_ONCE = 4
"""Objects compared at the same time, each whole in memory twice."""


def _nothing(_: State) -> None:
    return None


async def compare(
    source: Bucket, target: Bucket, *, progress: Callable[[State], None] = _nothing
) -> list[str]:
    """Return a sentence for each difference: none means that the buckets are equal.

    Every object of both is read and compared in its bytes, its content headers, and its user metadata
    without hookmirror's own mark. `progress` is told of the source's state of each object compared.
    """
    ours = {entry.key async for entry in source.list()}
    theirs = {entry.key async for entry in target.list()}
    missing = [f"{_quoted(key)} is missing on the target" for key in sorted(ours - theirs)]
    surplus = [f"{_quoted(key)} is on the target only" for key in sorted(theirs - ours)]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> list[str]:
        async with room:
            return await _differences(source, target, key, progress)

    found = await asyncio.gather(*(one(key) for key in sorted(ours & theirs)))
    return missing + surplus + [sentence for sentences in found for sentence in sentences]


async def _differences(
    source: Bucket, target: Bucket, key: str, progress: Callable[[State], None]
) -> list[str]:
    try:
        left, right = await asyncio.gather(_whole(source, key), _whole(target, key))
    except HookmirrorError as error:
        return [f"{_quoted(key)} cannot be read: {error}"]
    if left is None or right is None:
        side = "source" if left is None else "target"
        return [f"{_quoted(key)} is listed on both sides, and the {side} has no such key"]
    progress(left[0])
    return [f"{_quoted(key)} differs in {what}" for what in _unlike(left, right)]


async def _whole(bucket: Bucket, key: str) -> tuple[State, bytes] | None:
    async with bucket.read(key) as reading:
        return None if reading is None else (reading.state, await reading.body())


def _unlike(left: tuple[State, bytes], right: tuple[State, bytes]) -> list[str]:
    (ours, bytes_), (theirs, other_bytes) = left, right
    unlike = []
    if ours.size != theirs.size:
        unlike.append(f"size: {ours.size} bytes, on the target {theirs.size}")
    elif bytes_ != other_bytes:
        unlike.append(f"its bytes, {ours.size} of them")
    for name in CONTENT_HEADERS:
        unlike += _pair(name, ours.headers, theirs.headers)
    for name in sorted((ours.metadata.keys() | theirs.metadata.keys()) - {MARK}):
        unlike += _pair(f"metadata {name}", ours.metadata, theirs.metadata, name)
    return unlike


def _pair(
    what: str, ours: Mapping[str, str], theirs: Mapping[str, str], name: str | None = None
) -> list[str]:
    a, b = ours.get(name or what), theirs.get(name or what)
    return [] if a == b else [f"{what}: {a!r}, on the target {b!r}"]


def _quoted(key: str) -> str:
    return f'"{one_line(key)}"'
