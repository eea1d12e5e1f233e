"""Signs requests: AWS Signature Version 4, in the headers. Pure."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

UNSIGNED = "UNSIGNED-PAYLOAD"
"""In place of the body's digest: the body is covered by its Content-MD5, which is among the headers."""


class Keys(NamedTuple):
    """Who signs. `token` is "" for keys that never expire."""

    id: str
    secret: str
    token: str = ""


class Signer:
    """Signs for one region. The key of a day takes four HMACs to derive, and is kept."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._made: tuple[str, str] = ("", "")  # from which secret and date
        self._hmac = hmac.new(b"", digestmod="sha256")
        self._second, self._at = 0, ""

    def sign(
        self, method: str, path: str, query: str, headers: Mapping[str, str], *, keys: Keys, now: float
    ) -> dict[str, str]:
        """Return `headers`, names in lower case and `host` among them, with a signature over all of them.

        `path` and `query` are quoted as they are sent. A body counts for the digest that the caller has put
        among the headers (x-amz-content-sha256), else for none. `now` is in epoch seconds.
        """
        if int(now) != self._second:  # writing the time out costs as much as an HMAC
            self._second = int(now)
            self._at = datetime.fromtimestamp(self._second, UTC).strftime("%Y%m%dT%H%M%SZ")
        at = self._at
        signed = {"x-amz-content-sha256": UNSIGNED, **headers, "x-amz-date": at}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        names = sorted(signed)
        lines = "".join([f"{name}:{_trimmed(signed[name])}\n" for name in names])
        listed, digest = ";".join(names), signed["x-amz-content-sha256"]
        canonical = f"{method}\n{path}\n{_in_order(query)}\n{lines}\n{listed}\n{digest}"
        scope = f"{at[:8]}/{self._region}/{self._service}/aws4_request"
        hashed = hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}"
        keyed = self._keyed(keys.secret, at[:8]).copy()
        keyed.update(text.encode())
        signature = keyed.hexdigest()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.id}/{scope}, SignedHeaders={listed}, Signature={signature}"
        )
        return signed

    def _keyed(self, secret: str, day: str) -> hmac.HMAC:
        """Return the HMAC of the day's key, to be copied: that costs half of keying one."""
        if self._made != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._made, self._hmac = (secret, day), hmac.new(key, digestmod="sha256")
        return self._hmac


def _trimmed(value: str) -> str:
    """Return a header's value as it is signed: without blanks at its ends, and one for many in a row."""
    value = value.strip(" \t")
    return " ".join(filter(None, value.split(" "))) if "  " in value else value


def _in_order(query: str) -> str:
    """Return a query sorted by names, then by values; each name has an = behind it."""
    if not query or ("&" not in query and "=" in query):
        return query
    return "&".join("=".join(pair) for pair in sorted(_pair(part) for part in query.split("&")))


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value
