"""What HTTP headers tell of an object, and those that describe one in a request: pure.

The names of an answer's headers are in lower case.
"""

from collections.abc import Mapping

from common.errors import Refused, StoreAway
from common.store.port import CONTENT_HEADERS, PLACEMENT_HEADERS, State

_META = "x-amz-meta-"
_COUNT = "x-amz-tagging-count"
_SSE = "x-amz-server-side-encryption"
_NUMBERED = "x-amz-request-id", "x-amzn-requestid", "x-guploader-uploadid"


def state_of(key: str, headers: Mapping[str, str], size: int | None = None) -> State:
    """Return the state of `key` that an answer with these headers tells of; `size` is that of the object
    where they don't say it. Raises `StoreAway` when they are no object's."""
    version = headers.get("x-amz-version-id", "")
    return State(
        etag=etag_of(headers),
        size=int(headers["content-length"]) if size is None else size,
        last_modified=headers["last-modified"],
        version="" if version == "null" else version,
        headers={name: headers[name] for name in CONTENT_HEADERS if name in headers},
        metadata={n.removeprefix(_META): v for n, v in headers.items() if n.startswith(_META)},
        opaque=is_opaque(headers),
        keeps_versions="x-amz-version-id" in headers,  # "null" for what is older than the versions
        key=key,
    )


def condition(over: str | None, *, quoted: bool = True) -> dict[str, str]:
    """Return the headers that make a write conditional: see `Bucket.write`."""
    if over is None:
        return {}
    return {"if-match": f'"{over}"' if quoted else over} if over else {"if-none-match": "*"}


def etag_of(headers: Mapping[str, str]) -> str:
    """Return the ETag of the object that an answer with these headers is about. Raises `StoreAway` when it is
    about none: the page of a proxy, for one, whatever its status."""
    etag = headers.get("etag", "")
    if etag.startswith("W/"):
        raise StoreAway(
            f"the ETag {etag} is weak: a proxy before the store has changed the answer. Switch its "
            "compression off"
        )
    for name in ("etag", "last-modified"):
        if not headers.get(name, "").strip('"'):
            raise StoreAway(
                f"a success without {name} is no object: it comes from something else than the store, such "
                "as the maintenance page of a proxy"
            )
    return etag.strip('"')


def hand_of(headers: Mapping[str, str]) -> str | None:
    """Return the header by which a store numbers its answers: no file of a proxy has it. None where it
    numbers none."""
    return next((name for name in _NUMBERED if name in headers), None)


def length_of(content_range: str) -> int | None:
    """Return the length of the whole that a Content-Range tells of, None when it does not."""
    unit, _, total = content_range.rpartition("/")
    return int(total) if unit.startswith("bytes ") and total.isdecimal() else None


def counts_tags(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers says that the object has tags."""
    return headers.get(_COUNT, "0") != "0"


def is_opaque(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers is about something encrypted so that its ETag is no MD5."""
    return headers.get(_SSE, "AES256") != "AES256" or f"{_SSE}-customer-algorithm" in headers


def object_headers(headers: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers that give an object `headers` and `metadata`. Raises `Refused` for a value
    that no header can carry."""
    sent = {name: value for name, value in headers.items() if name in _ALLOWED}
    for name, value in metadata.items():
        sent[f"{_META}{name}"] = value
    for name, value in sent.items():
        if not value.isascii() and not _is_text(value):
            raise Refused(f"the value of {name} is not UTF-8, and no header can carry it unchanged")
        if not value.isprintable() and _ENDS & {*value}:
            raise Refused(f"the value of {name} has a line end, and no header can carry it")
    return sent


_ALLOWED = frozenset({*CONTENT_HEADERS, *PLACEMENT_HEADERS})

_ENDS = frozenset("\r\n\0")


def _is_text(value: str) -> bool:
    """Bytes that are no UTF-8 arrive from a header as halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
