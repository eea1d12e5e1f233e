"""The mark that a copy carries: whose copy it is, of what. Pure.

40 characters of user metadata, so that they nearly always fit into the 2 KB that AWS takes:

    version  1 byte    3
    origin   6 bytes   where the source bucket is: a digest of its `place`
    identity 7 bytes   a digest of the source state's identity
    content  5 bytes   a digest of its ETag and size: the same while only its description changes
    written  4 bytes   when that state was written at its source, in whole seconds since the epoch
    body     4 bytes   the beginning of the MD5 of the bytes as they were sent; zeros when it is not known,
                       ones when they were sent in parts
    key      3 bytes   a digest of the key that the copy has

in URL-safe base64. Who copies or renames a copy takes its metadata along: a mark is void at another key than
its own, and void on other bytes. Copies made before carry the identity itself
("etag;size;last-modified;version;digest"), which tells no origin."""

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

VERSION = 3

_FORM = struct.Struct(">B6s7s5sI4s3s")

UNKNOWN, PARTS = bytes(4), b"\xff" * 4
"""The `body` of a mark on bytes whose MD5 is not known; and on bytes that were sent in parts."""

IS_MD5 = re.compile(r"[0-9a-f]{32}")
IS_OF_PARTS = re.compile(r"[0-9a-f]{32}-(\d+)")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says. `origin` is None in one made before marks told it, which tells no key either."""

    origin: bytes | None
    identity: bytes
    content: bytes
    written: int
    body: bytes = UNKNOWN
    key: bytes = b""

    def __str__(self) -> str:
        """Return it as metadata carries it. A mark without an origin is only read, never written."""
        about = self.identity, self.content, self.written, self.body, self.key
        return base64.urlsafe_b64encode(_FORM.pack(VERSION, self.origin or b"", *about)).decode()


@lru_cache(maxsize=1024)
def origin_of(place: str) -> bytes:
    """Return what stands for a bucket's `place` in a mark."""
    return _digest(place, 6)


def identity_of(state: State) -> bytes:
    """Return what stands for the identity of `state` in a mark."""
    return _digest(state.identity, 7)


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


def mark_for(
    source: State, origin: bytes, *, key: str = "", body: bytes = UNKNOWN, written: int | None = None
) -> Mark:
    """Return the mark for a copy, to lie at `key`, of `source`, which is in the bucket `origin`.

    `body` tells of the bytes what is known: see `body_of`. `written` is when they were written, if not at
    `source.last_modified`: a copy of a copy is as old as the first.
    """
    at = written_at(source.last_modified) if written is None else written
    about = identity_of(source), content_of(source), min(at, 2**32 - 1), body, _digest(key, 3)
    return Mark(origin, *about)


def body_of(md5: str) -> bytes:
    """Return what stands for bytes with this MD5 (in hex, "" where it is not known) in a mark."""
    return bytes.fromhex(md5)[:4] if md5 else UNKNOWN


def mark_on(target: State) -> Mark | None:
    """Return the mark that `target` carries, None for none: not one of ours, or void. Who replaces the bytes
    and keeps the metadata leaves a mark that speaks of other bytes; who copies the object, of another key."""
    mark = _read(target.metadata)
    if mark is None or mark.origin is None:
        return mark
    return mark if mark.key == _digest(target.key, 3) and _may_be_of(mark.body, target) else None


def _may_be_of(body: bytes, target: State) -> bool:
    """Whether the bytes of `target` may be those of which a mark tells so much. An ETag of parts belongs to
    what was sent in parts, an MD5 to what was not."""
    if body == UNKNOWN or target.opaque:
        return True
    if IS_MD5.fullmatch(target.etag):
        return body == body_of(target.etag)
    return body == PARTS or not IS_OF_PARTS.fullmatch(target.etag)


def _read(metadata: Mapping[str, str]) -> Mark | None:
    text = metadata.get(MARK)
    if text is None:
        return None
    fields = text.split(";")
    if len(fields) == 5:
        etag, size, last_modified, _, _ = fields
        return Mark(None, _digest(text, 7), _content(etag, size), written_at(last_modified))
    try:
        version, *parts = _FORM.unpack(base64.urlsafe_b64decode(text))
    except (binascii.Error, struct.error, ValueError):
        return None
    return Mark(*parts) if version == VERSION else None


def _content(etag: str, size: str) -> bytes:
    return _digest(f"{etag};{size}", 5)


def _digest(text: str, length: int) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:length]
