"""S3 event records as MCS, AWS, MinIO and Ceph write them: pure.

They agree on `Records[].s3.bucket.name` and `.object.key` and on little else: `eTag` may be `etag`
or missing, `size` a string, `sequencer` a number or hex (never used: it cannot order two writes in
one second), the event name may lack its `s3:` prefix, and the key may be raw or form-encoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from common.errors import NotAHook, Unreadable
from common.task import Claim

MAX_KEY = 1024
"""Bytes of UTF-8 in the longest key S3 knows."""

MAX_ETAG = 256
"""Characters. An MD5 has 32; each task carries it."""

_CREATED = ("ObjectCreated:", "PutObject", "PostObject", "CopyObject", "CompleteMultipartUpload")
_REMOVED = (
    "ObjectRemoved:",
    "LifecycleExpiration:",
    "DeleteObject",
    "ObjectLifecycle:Expiration:Current",  # Ceph's name for it, which newer versions have beside S3's
    "ObjectLifecycle:Expiration:DeleteMarker",
)
_TOUCHED = ("ObjectTagging:", "ObjectRestore:Completed")


@dataclass(frozen=True, slots=True)
class Event:
    """One record, understood. `known` is False for an event that changes no object (a TestEvent, an ACL,
    a name we have never heard); `claim` is None for one that only says *look*."""

    name: str
    bucket: str
    key: str
    known: bool
    claim: Claim | None
    etag: str | None
    size: int | None = None


def records(body: object) -> list[object]:
    """Return the records of a hook, [] for the test event some senders send alone.
    Raises `NotAHook` when there are none."""
    if isinstance(body, Mapping):
        found = body.get("Records")
        if isinstance(found, list) and found:
            return found
        if body.get("Event") in ("s3:TestEvent", "TestEvent"):  # no set: it may be a list, unhashable
            return []
    raise NotAHook('a hook is a JSON object with a list of "Records"; this is none')


def parse(record: object) -> Event:
    """Return the event of one record. Raises `Unreadable` when there is no telling which key it means."""
    name = _text(record, "eventName")
    known, claim = _meaning(name.removeprefix("s3:"))
    if not known:
        return Event(name, _text(record, "s3", "bucket", "name", needed=False), "", False, None, None)
    bucket, key = _text(record, "s3", "bucket", "name"), _text(record, "s3", "object", "key")
    if len(_utf8(key)) > 3 * MAX_KEY:
        raise Unreadable(f"s3.object.key has more than {MAX_KEY} bytes, decoded or not")
    return Event(name, bucket, key, True, claim, _etag(record), _size(record))


def keys(written: str, encoding: str) -> list[str]:
    """Return the keys that `written` may stand for, the likeliest first.

    `encoding` is the store's `key_encoding`: "raw", "url" (form-encoded: space is `+`), or "auto",
    when both readings are looked at. A reading that is not UTF-8 is none, nor is one of two that is longer
    than any key: a store would refuse it for good, and a long key that is encoded would end as a dead letter.
    """
    decoded = _decoded(written)
    if encoding == "raw" or decoded is None:
        return [written]
    if encoding == "url":
        return [decoded]
    readings = dict.fromkeys((written, decoded))
    return [key for key in readings if len(_utf8(key)) <= MAX_KEY] or [written]


def _meaning(event: str) -> tuple[bool, Claim | None]:
    if event.startswith(_CREATED):
        return True, Claim.CREATED
    if event.startswith(_REMOVED):
        return True, Claim.REMOVED
    return event.startswith(_TOUCHED), None


def _decoded(written: str) -> str | None:
    try:
        return unquote_to_bytes(written.replace("+", " ")).decode()
    except UnicodeDecodeError:
        return None


def _text(record: object, *path: str, needed: bool = True) -> str:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str) and value:
        _utf8(value)
        return value
    if needed:
        raise Unreadable(f"{'.'.join(path)} is missing or no string")
    return ""


def _etag(record: Any) -> str | None:
    """The ETag without quotes; a hint as well: what cannot be one is none, and the record is as good."""
    about = record["s3"]["object"]
    for written in (about.get("eTag"), about.get("etag")):
        if isinstance(written, str) and written.isascii() and (etag := written.strip('"')):
            return etag if len(etag) <= MAX_ETAG else None
    return None


def _size(record: Any) -> int | None:
    """The size, which some senders write as a string; a hint that nothing depends on."""
    size = record["s3"]["object"].get("size")
    if isinstance(size, str) and size.isdecimal() and len(size) < 20:
        return int(size)
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 else None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("half a surrogate pair, which no key can hold") from error
