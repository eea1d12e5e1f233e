"""What travels with the bytes: headers, metadata, tags, and our own mark."""

import re
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import Header, decode_header, make_header

from common.store.mark import Mark
from common.store.port import MARK, State

MAX_METADATA = 2048
"""Bytes of names and values of user metadata that AWS takes in all."""

TAGGING = "x-amz-tagging"


def described(
    source: State, placement: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers and the metadata with which a copy of `source` is written, without a mark.

    `placement` (storage class, encryption) is the route's. Values that are not ASCII are written as
    RFC 2047 encoded words, the way AWS itself shows them.
    """
    headers = dict(source.headers)
    if encoding := _without_chunked(headers.pop("content-encoding", "")):
        headers["content-encoding"] = encoding
    if source.tags:
        headers[TAGGING] = source.tags
    metadata = {name: _ascii(value) for name, value in source.metadata.items() if name != MARK}
    return headers | dict(placement or {}), metadata


def marked(metadata: Mapping[str, str], mark: Mark) -> dict[str, str]:
    """Return `metadata` with `mark`. When that leaves no room for it the mark yields: such a copy is
    recognised by its bytes and its description."""
    with_it = {**metadata, MARK: str(mark)}
    fits = _weight(with_it) <= MAX_METADATA or _weight(metadata) > MAX_METADATA
    return with_it if fits else dict(metadata)


def plain(values: Mapping[str, str]) -> dict[str, str]:
    """Return headers or metadata in the one form in which they are compared: a store may decode or encode
    anew what is not ASCII, trim blanks, and leave out what is empty. Without our mark."""
    known = {name: _decoded(value).strip() for name, value in values.items() if name != MARK}
    return {name: value for name, value in known.items() if value}


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value


def _without_chunked(encoding: str) -> str:
    """`aws-chunked` is how a body was sent, not what it is; some stores keep it by mistake."""
    if "aws-chunked" not in encoding:
        return encoding
    parts = (part.strip() for part in encoding.split(","))
    return ",".join(part for part in parts if part not in {"", "aws-chunked"})


def _ascii(value: str) -> str:
    if value.isascii() or re.search("[\ud800-\udfff]", value):
        return value  # halves of surrogate pairs are bytes that no header can carry: the store refuses them
    return Header(value, "utf-8", maxlinelen=10_000).encode()


def _weight(metadata: Mapping[str, str]) -> int:
    return sum(len(part.encode(errors="surrogateescape")) for pair in metadata.items() for part in pair)
