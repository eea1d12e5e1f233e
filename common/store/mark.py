"""The mark that a copy carries: whose copy it is, of what. Pure.

40 characters of user metadata, so that they nearly always fit into the 2 KB that AWS takes:

    version  1 byte    2
    origin   6 bytes   where the source bucket is: a digest of its `place`
    identity 8 bytes   a digest of the source state's identity
    content  6 bytes   a digest of its ETag and size: the same while only its description changes
    written  4 bytes   when that state was written at its source, in whole seconds since the epoch
    body     5 bytes   the beginning of the MD5 of the bytes as they were sent; zeros when it is not known

in URL-safe base64. Copies made before carry the identity itself ("etag;size;last-modified;version;digest"),
which tells no origin."""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache

from common.store.port import MARK, State

VERSION = 2

_FORM = struct.Struct(">B6s8s6sI5s")

UNKNOWN = bytes(5)
"""The `body` of a mark on bytes whose MD5 is not known."""

IS_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says. `origin` is None in one made before marks told it."""

    origin: bytes | None
    identity: bytes
    content: bytes
    written: int
    body: bytes = UNKNOWN

    def __str__(self) -> str:
        """Return it as metadata carries it. A mark without an origin is only read, never written."""
        packed = _FORM.pack(VERSION, self.origin or b"", self.identity, self.content, self.written, self.body)
        return base64.urlsafe_b64encode(packed).decode()


@lru_cache(maxsize=1024)
def origin_of(place: str) -> bytes:
    """Return what stands for a bucket's `place` in a mark."""
    return hashlib.sha256(place.encode()).digest()[:6]


def identity_of(state: State) -> bytes:
    """Return what stands for the identity of `state` in a mark."""
    return hashlib.sha256(state.identity.encode(errors="surrogatepass")).digest()[:8]


def content_of(state: State) -> bytes:
    """Return what stands for the bytes of `state` in a mark, as far as its ETag and size tell them."""
    return _content(state.etag, str(state.size))


def proven_md5(state: State) -> str:
    """Return the MD5 of the bytes in hex where the ETag is that, "" where it tells nothing of them."""
    return state.etag if IS_MD5.fullmatch(state.etag) and not state.opaque else ""


def written_at(last_modified: str) -> int:
    """Return a Last-Modified in seconds since the epoch; 0 for one that is no date."""
    try:
        return max(int(parsedate_to_datetime(last_modified).timestamp()), 0)
    except (ValueError, OverflowError):
        return 0


def mark_for(source: State, origin: bytes, *, md5: str = "", written: int | None = None) -> Mark:
    """Return the mark for a copy of `source`, which is in the bucket `origin`.

    `md5` is that of the bytes in hex, if it is known; `written` when they were written, if not at
    `source.last_modified`: a copy of a copy is as old as the first.
    """
    at = written_at(source.last_modified) if written is None else written
    body = bytes.fromhex(md5)[:5] if md5 else UNKNOWN
    return Mark(origin, identity_of(source), content_of(source), min(at, 2**32 - 1), body)


def mark_on(target: State) -> Mark | None:
    """Return the mark that `target` carries, None for none: not one of ours, or not of these bytes any more.

    Whoever replaces the bytes and keeps the metadata leaves a mark that speaks of other bytes.
    """
    mark, md5 = _read(target.metadata), proven_md5(target)
    if mark is None or mark.body == UNKNOWN or not md5:
        return mark
    return mark if bytes.fromhex(md5)[:5] == mark.body else None


def _read(metadata: Mapping[str, str]) -> Mark | None:
    text = metadata.get(MARK)
    if text is None:
        return None
    fields = text.split(";")
    if len(fields) == 5:
        etag, size, last_modified, _, _ = fields
        identity = hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8]
        return Mark(None, identity, _content(etag, size), written_at(last_modified))
    try:
        version, *parts = _FORM.unpack(base64.urlsafe_b64decode(text))
    except (binascii.Error, struct.error, ValueError):
        return None
    return Mark(*parts) if version == VERSION else None


def _content(etag: str, size: str) -> bytes:
    return hashlib.sha256(f"{etag};{size}".encode(errors="surrogatepass")).digest()[:6]
