"""A busy user: a plan made from a seed, and hands that carry it out through the stand-in."""

import asyncio
import random
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote

from common.store.s3 import S3Bucket
from demo.names import names
from demo.signed import SignedRequests

HANDS = 6
"""Requests of the user under way at the same time; one key is always in the same hand."""

THINK = 0.12
"""Seconds a hand rests after each step, on average."""

MIB = 2**20
LARGE = (32 * MIB, 21 * MIB + 1, 16 * MIB, 12 * MIB - 1, 9 * MIB, 8 * MIB + 1)
PARTS = 12 * MIB
"""Objects of at least so many bytes go up in parts."""

PART = 8 * MIB


class Kind(StrEnum):
    """What the user does."""

    PUT = "put"
    DELETE = "delete"
    COPY = "copy"
    RELABEL = "relabel"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done to one key. `hand` is the key that says which hand does it; `seed` makes the bytes."""

    kind: Kind
    key: str
    hand: str
    size: int = 0
    seed: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


def plan(count: int, rng: random.Random) -> list[Step]:
    """Return the steps that give life to `count` keys, in the order in which to begin them."""
    timed: list[tuple[float, Step]] = []
    for index, (key, kind) in enumerate(names(count, rng)):
        moments = sorted(rng.random() for _ in range(4))
        timed += zip(moments, _life(key, kind, _size(index, count, rng), rng), strict=False)
    return [step for _, step in sorted(timed, key=lambda item: item[0])]


def remaining(steps: list[Step]) -> set[str]:
    """Return the keys that are there when all of `steps` are done."""
    keys: set[str] = set()
    for step in steps:
        if step.kind is Kind.DELETE:
            keys.discard(step.key)
        else:
            keys.add(step.key)
    return keys


def _life(key: str, kind: str, size: int, rng: random.Random) -> list[Step]:
    """Return what happens to one key: most are written and stay, the others are not left alone."""

    def write(bytes_: int) -> Step:
        headers, metadata = _labels(kind, rng)
        return Step(Kind.PUT, key, key, bytes_, rng.getrandbits(32), headers, metadata)

    def relabel() -> Step:
        return Step(
            Kind.RELABEL, key, key, headers={"content-type": "application/x-relabelled"}, metadata=_tags(rng)
        )

    delete = Step(Kind.DELETE, key, key)
    copy = Step(Kind.COPY, f"copies/{zlib.crc32(key.encode()):08x}", key, source=key)
    smaller = min(size, MIB) // 2 + 1
    lives = {
        62: lambda: [write(size)],
        14: lambda: [write(size), write(smaller)],
        8: lambda: [write(smaller), delete],
        6: lambda: [write(smaller), delete, write(smaller + 7)],
        3: lambda: [write(smaller), write(smaller), write(smaller + 1), delete],
        4: lambda: [write(size), copy],
        2: lambda: [write(size), relabel()],
    }
    return rng.choices(list(lives.values()), list(lives))[0]()


def _size(index: int, count: int, rng: random.Random) -> int:
    """Return a size: a few large ones, some empty, most small."""
    nth, rest = divmod(index, max(1, count // len(LARGE)))
    if rest == 0 and nth < min(len(LARGE), count // 40):
        return LARGE[nth]
    if rest % 17 == 1:
        return 0
    chance = rng.random()
    if chance < 0.65:
        return rng.randint(1, 64 * 1024)
    return rng.randint(64 * 1024, MIB) if chance < 0.92 else rng.randint(MIB, 4 * MIB)


def _labels(kind: str, rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    headers = {"content-type": kind} if kind else {}
    if rng.random() < 0.15:
        headers["cache-control"] = "max-age=3600"
    if rng.random() < 0.10:
        headers["content-disposition"] = 'attachment; filename="report (final).pdf"'
    if rng.random() < 0.05:
        headers["content-language"] = "ru, en"
    return headers, _tags(rng) if rng.random() < 0.3 else {}


def _tags(rng: random.Random) -> dict[str, str]:
    tags = {"owner": rng.choice(("ash", "misty", "brock")), "revision": str(rng.randint(1, 999))}
    if rng.random() < 0.3:
        tags["note"] = "=?UTF-8?B?0YHQvdC40LzQutC4?= + 100% & more"
    return tags


class User:
    """Carries out a plan. `done` counts steps by kind, `sent` the bytes. `think` is how long a hand rests."""

    def __init__(
        self, bucket: S3Bucket, requests: SignedRequests, *, rng: random.Random, think: float = THINK
    ) -> None:
        self.done: Counter[Kind] = Counter()
        self.sent = 0
        self._bucket = bucket
        self._requests = requests
        self._rng = rng
        self._think = think
        self._pool = rng.randbytes(4 * MIB)

    async def work(self, steps: list[Step]) -> None:
        """Do every step, those of one key in order. Raises what the store raises."""
        hands: list[list[Step]] = [[] for _ in range(HANDS)]
        for step in steps:
            hands[zlib.crc32(step.hand.encode()) % HANDS].append(step)
        async with asyncio.TaskGroup() as group:
            for mine in hands:
                group.create_task(self._hand(mine, random.Random(self._rng.random())))  # noqa: S311 - a pace

    async def _hand(self, steps: list[Step], pace: random.Random) -> None:
        for step in steps:
            await self._do(step)
            self.done[step.kind] += 1
            await asyncio.sleep(pace.expovariate(1) * self._think)  # a user, not a load test

    async def _do(self, step: Step) -> None:
        if step.kind is Kind.DELETE:
            await self._bucket.delete(step.key)
        elif step.kind is Kind.COPY:
            await self._copy(step.source, step.key, {})
        elif step.kind is Kind.RELABEL:
            labels = _as_headers(step)
            await self._copy(step.key, step.key, {"x-amz-metadata-directive": "REPLACE", **labels})
        else:
            body = self._body(step)
            self.sent += len(body)
            if len(body) >= PARTS:
                await self._upload(step, body)
            else:
                await self._bucket.write(step.key, body, headers=step.headers, metadata=step.metadata)

    def _body(self, step: Step) -> bytes:
        """Return the bytes of a step: the same for the same seed, and of no other step."""
        start = step.seed % (len(self._pool) - 64)
        needed = start + step.size
        pool = self._pool * (needed // len(self._pool) + 1)
        return (step.seed.to_bytes(4, "big") + pool[start:needed])[: step.size]

    async def _copy(self, source: str, key: str, headers: Mapping[str, str]) -> None:
        origin = {"x-amz-copy-source": quote(f"/{self._bucket.name}/{source}", safe="/~")}
        await self._requests("PUT", self._bucket.name, key, headers=origin | dict(headers))

    async def _upload(self, step: Step, body: bytes) -> None:
        """Send `body` in parts, as a multipart upload."""
        labels = _as_headers(step)
        name = self._bucket.name
        begun = await self._requests("POST", name, step.key, query="uploads", headers=labels)
        upload = _found(rb"<UploadId>([^<]+)</UploadId>", begun.body)
        parts = []
        for number, start in enumerate(range(0, len(body), PART), 1):
            query = f"partNumber={number}&uploadId={quote(upload, safe='')}"
            answer = await self._requests("PUT", name, step.key, query=query, body=body[start : start + PART])
            parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.etag}</ETag></Part>")
        end = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        await self._requests("POST", name, step.key, query=f"uploadId={quote(upload, safe='')}", body=end)


def _as_headers(step: Step) -> dict[str, str]:
    return {**step.headers, **{f"x-amz-meta-{name}": value for name, value in step.metadata.items()}}


def _found(pattern: bytes, body: bytes) -> str:
    match = re.search(pattern, body)
    if match is None:
        raise LookupError(f"{pattern!r} is not in {body[:200]!r}")
    return match[1].decode()
