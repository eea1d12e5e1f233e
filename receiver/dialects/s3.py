"""S3 event records as MCS, AWS, MinIO and Ceph write them: pure.

They agree on `Records[].s3.bucket.name` and `.object.key` and on little else: `eTag` may be `etag`
or missing, `size` a string, `sequencer` a number or hex (never used: it cannot order two writes in
one second), the event name may lack its `s3:` prefix, and the key may be raw or form-encoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from common.errors import Unreadable
from common.task import LOOK, Claim
from receiver.dialects.unknown import describe

MAX_KEY = 1024
"""Bytes of UTF-8 in the longest key S3 knows."""

MAX_ETAG = 256
"""Characters. An MD5 has 32; each task carries it."""

MAX_NAME = 128
"""Characters of an event's name; each task carries it."""

NAMELESS = "unnamed"
"""How the event of a record is called that does not say."""

_PART = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])|[^\x00-\x7f]+")

_QUIET = frozenset({"testevent", "replication"})
"""The first part of what changes no object: a test, and what happens to a copy somewhere else."""

_CREATED = frozenset({"created", "create", "put", "post", "copy", "complete", "completed"})
_REMOVED = frozenset({"removed", "remove", "deleted", "delete", "deletion", "expiration"})
_SAY_NOTHING = frozenset({"s3", "object", "synced", "lifecycle", "current", "marker", "multipart", "upload"})
_KNOWN = _CREATED | _REMOVED | _SAY_NOTHING


@dataclass(frozen=True, slots=True)
class Event:
    """One record, understood. `claim` is None for one that only says *look*: of tags, of an ACL, or whatever
    a name may mean that we have never heard."""

    name: str
    bucket: str
    key: str
    claim: Claim | None
    etag: str | None
    size: int | None = None


def records(body: object) -> list[object]:
    """Return the records of a hook, [] for the test event some senders send alone.
    Raises `Unreadable`, in words that say what it is, when there are none."""
    if isinstance(body, Mapping):
        found = body.get("Records")
        if isinstance(found, list) and found:
            return found
        if body.get("Event") in ("s3:TestEvent", "TestEvent"):  # no set: it may be a list, unhashable
            return []
        if "Records" in body:
            raise Unreadable("Records is no list of records")
    raise Unreadable(describe(body))


def changes_nothing(record: object) -> bool:
    """Whether the record is of an event that is known to change no object: then it may name none."""
    return _name(record).removeprefix("s3:").partition(":")[0].lower() in _QUIET


def parse(record: object) -> Event:
    """Return the event of one record. Raises `Unreadable` when there is no telling which key it means."""
    name = _name(record)
    bucket, key = _text(record, "s3", "bucket", "name"), _text(record, "s3", "object", "key")
    if len(_utf8(key)) > 3 * MAX_KEY:
        raise Unreadable(f"s3.object.key has more than {MAX_KEY} bytes, decoded or not")
    return Event(name, bucket, key, _claim(name), _etag(record), _size(record))


def keys(written: str, encoding: str) -> list[str]:
    """Return the keys that `written` may stand for, the likeliest first; [] when it is no key either way.

    `encoding` is the store's `key_encoding`: "raw", "url" (form-encoded: space is `+`), or "auto",
    when both readings are looked at. A reading that is not UTF-8 is none, nor is one of two that has a NUL or
    is longer than any key: a store would refuse it for good, and the task would end as a dead letter.
    """
    decoded = _decoded(written)
    if encoding != "auto":
        return [written if encoding == "raw" else decoded or written]
    readings = dict.fromkeys((written, decoded or written))
    return [key for key in readings if "\0" not in key and len(_utf8(key)) <= MAX_KEY]


def _name(record: object) -> str:
    """The event's name: a hint as the rest, so that any will do."""
    name = record.get("eventName") if isinstance(record, Mapping) else None
    if not isinstance(name, str) or name in ("", LOOK):  # which is how tasks are called that no hook brought
        return NAMELESS
    return name[:MAX_NAME].encode(errors="replace").decode()


def _claim(name: str) -> Claim | None:
    """What a name says, by its parts. None when one of them is not known: it may turn the others round, as
    in DeleteObjectTagging."""
    parts = {part.lower() for part in _PART.findall(name)}
    if not parts <= _KNOWN:
        return None
    if parts & _REMOVED:  # first, for a DeleteMarkerCreated is a removal
        return Claim.REMOVED
    return Claim.CREATED if parts & _CREATED else None


def _decoded(written: str) -> str | None:
    try:
        return unquote_to_bytes(written.replace("+", " ")).decode()
    except UnicodeError:
        return None


def _text(record: object, *path: str) -> str:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise Unreadable(f"{'.'.join(path)} is missing or no string")
    _utf8(value)
    return value


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
