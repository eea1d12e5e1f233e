"""The mark that a copy carries: whose copy it is, of what. Pure.

40 characters of user metadata, so that they nearly always fit into the 2 KB that AWS takes:

    kind     1 byte    what `body` tells, and the version of the form
    origin   6 bytes   where the source bucket is: a digest of its `place`
    identity 6 bytes   a digest of the source state's identity
    content  5 bytes   a digest of its ETag and size: the same while only its description changes
    written  4 bytes   when that state was written at its source, in whole seconds since the epoch
    body     4 bytes   the beginning of the MD5 of the bytes as they were sent, or their number
    key      2 bytes   a digest of the key that the copy has
    put      2 bytes   when the copy was written, in seconds modulo 65 536 of its own store's clock

in URL-safe base64. Who copies, renames or restores an object takes its metadata along. So a mark is void on
other bytes, at another key, and on an object that was written again later. Copies made before carry the
identity itself ("etag;size;last-modified;version;digest"), which tells no origin."""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import IntEnum
from functools import lru_cache

from common.store.port import MARK, State

_FORM = struct.Struct(">B6s6s5sI4s2sH")

IS_MD5 = re.compile(r"[0-9a-f]{32}")
IS_OF_PARTS = re.compile(r"[0-9a-f]{32}-(\d+)")

PUT_WITHIN = 100
"""Seconds between the clock that a write was begun at and the Last-Modified that its store gave it: 25 until
it has its turn, 60 for the write, and what a proxy's clock may differ."""

_ROUND = 2**16


class Kind(IntEnum):
    """What is known of the bytes as they were sent."""

    MD5 = 3
    PARTS = 4
    """They were sent in parts: then the ETag is no MD5."""
    UNKNOWN = 5


@dataclass(frozen=True, slots=True)
class Body:
    """What a mark tells of the bytes: the beginning of their MD5, else their number."""

    kind: Kind
    digest: bytes

    @staticmethod
    def of(md5: str, size: int, *, parts: bool = False) -> "Body":
        """Return it for bytes with this MD5 (in hex, "" where it is not known)."""
        if md5 and not parts:
            return Body(Kind.MD5, bytes.fromhex(md5)[:4])
        return Body(Kind.PARTS if parts else Kind.UNKNOWN, struct.pack(">I", size % 2**32))

    def may_be(self, target: State) -> bool:
        """Whether these may be the bytes of `target`. An ETag of parts belongs to what was sent in parts, an
        MD5 to what was not."""
        if self.kind is not Kind.MD5 and self.digest != struct.pack(">I", target.size % 2**32):
            return False
        if self.kind is Kind.UNKNOWN or target.opaque:
            return True
        if IS_MD5.fullmatch(target.etag):
            return self == Body.of(target.etag, target.size)
        return self.kind is Kind.PARTS or not IS_OF_PARTS.fullmatch(target.etag)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says. `origin` is None in one made before marks told it, which tells no more than `written`
    either. `put` is 0 where it is not known."""

    origin: bytes | None
    identity: bytes
    content: bytes
    written: int
    body: Body = Body(Kind.UNKNOWN, bytes(4))
    key: bytes = b""
    put: int = 0

    def __str__(self) -> str:
        """Return it as metadata carries it. A mark without an origin is only read, never written."""
        about = self.origin or b"", self.identity, self.content, self.written
        packed = _FORM.pack(self.body.kind, *about, self.body.digest, self.key, self.put)
        return base64.urlsafe_b64encode(packed).decode()


@lru_cache(maxsize=1024)
def origin_of(place: str) -> bytes:
    """Return what stands for a bucket's `place` in a mark."""
    return _digest(place, 6)


def identity_of(state: State) -> bytes:
    """Return what stands for the identity of `state` in a mark."""
    return _digest(state.identity, 6)


def content_of(state: State) -> bytes:
    """Return what stands for the bytes of `state` in a mark, as far as its ETag and size tell them."""
    return _content(state.etag, str(state.size))


def proven_md5(state: State) -> str:
    """Return the MD5 of the bytes in hex where the ETag is that, "" where it tells nothing of them."""
    return state.etag if IS_MD5.fullmatch(state.etag) and not state.opaque else ""


@lru_cache(maxsize=64)  # the same few are asked for again and again, those of one object and of one second
def written_at(last_modified: str) -> int:
    """Return a Last-Modified in seconds since the epoch; 0 for one that is no date."""
    try:
        return max(int(parsedate_to_datetime(last_modified).timestamp()), 0)
    except (ValueError, OverflowError):
        return 0


def mark_for(
    source: State,
    origin: bytes,
    *,
    key: str = "",
    body: Body | None = None,
    written: int | None = None,
    put: float = 0,
) -> Mark:
    """Return the mark for a copy, to lie at `key`, of `source`, which is in the bucket `origin`.

    `body` tells what is known of the bytes. `written` is when they were written, if not at
    `source.last_modified`: a copy of a copy is as old as the first. `put` is the time on the clock of the
    store that is about to take the copy, in epoch seconds; 0 where it is not known or it may take long.
    """
    at = written_at(source.last_modified) if written is None else written
    about = identity_of(source), content_of(source), min(at, 2**32 - 1)
    known = body or Body.of("", source.size)
    return Mark(origin, *about, known, _digest(key, 2), (int(put) % _ROUND or 1) if put else 0)


def mark_on(target: State) -> Mark | None:
    """Return the mark that `target` carries, None for none: not one of ours, or void."""
    mark = _read(target.metadata)
    if mark is None or mark.origin is None:
        return mark
    valid = mark.key == _digest(target.key, 2) and mark.body.may_be(target) and _put_then(mark, target)
    return mark if valid else None


def _put_then(mark: Mark, target: State) -> bool:
    """Whether `target` was written when its mark says. Where the ETag tells nothing of the bytes, the mark is
    all there is, and is believed."""
    at = written_at(target.last_modified)
    if not mark.put or not at or not proven_md5(target):
        return True
    return (at - mark.put + PUT_WITHIN) % _ROUND <= 2 * PUT_WITHIN


def _read(metadata: Mapping[str, str]) -> Mark | None:
    text = metadata.get(MARK)
    if text is None:
        return None
    fields = text.split(";")
    if len(fields) == 5:
        etag, size, last_modified, _, _ = fields
        return Mark(None, _digest(text, 6), _content(etag, size), written_at(last_modified))
    try:
        kind, origin, identity, content, written, digest, *rest = _FORM.unpack(base64.urlsafe_b64decode(text))
        return Mark(origin, identity, content, written, Body(Kind(kind), digest), *rest)
    except (binascii.Error, struct.error, ValueError):
        return None


def _content(etag: str, size: str) -> bytes:
    return _digest(f"{etag};{size}", 5)


def _digest(text: str, length: int) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:length]
