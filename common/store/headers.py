"""What HTTP headers tell of an object, and those that describe one in a request: pure."""

from collections.abc import Mapping

from common.errors import Refused
from common.store.port import CONTENT_HEADERS, PLACEMENT_HEADERS, State

_META = "x-amz-meta-"
_COUNT = "x-amz-tagging-count"
_SSE = "x-amz-server-side-encryption"


def state_of(headers: Mapping[str, str]) -> State:
    """Return the state that an answer with these headers tells of."""
    version = headers.get("x-amz-version-id", "")
    return State(
        etag=headers.get("ETag", "").strip('"'),
        size=int(headers.get("Content-Length", 0)),
        last_modified=headers.get("Last-Modified", ""),
        version="" if version == "null" else version,
        headers={name: headers[name] for name in CONTENT_HEADERS if name in headers},
        metadata={
            n.lower().removeprefix(_META): v for n, v in headers.items() if n.lower().startswith(_META)
        },
        opaque=is_opaque(headers),
        keeps_versions="x-amz-version-id" in headers,  # "null" for what is older than the versions
    )


def condition(over: str | None) -> dict[str, str]:
    """Return the headers that make a write conditional: see `Bucket.write`."""
    if over is None:
        return {}
    return {"if-match": f'"{over}"'} if over else {"if-none-match": "*"}


def counts_tags(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers says that the object has tags."""
    return headers.get(_COUNT, "0") != "0"


def is_opaque(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers is about something encrypted so that its ETag is no MD5."""
    return headers.get(_SSE, "AES256") != "AES256" or f"{_SSE}-customer-algorithm" in headers


def object_headers(headers: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers that give an object `headers` and `metadata`. Raises `Refused` for a value
    that no header can carry."""
    allowed = {*CONTENT_HEADERS, *PLACEMENT_HEADERS}
    sent = {name: value for name, value in headers.items() if name in allowed}
    sent |= {f"{_META}{name}": value for name, value in metadata.items()}
    for name, value in sent.items():
        if not _is_text(value):
            raise Refused(f"the value of {name} is not UTF-8, and no header can carry it unchanged")
    return sent


def _is_text(value: str) -> bool:
    """Bytes that are no UTF-8 arrive from a header as halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
