"""Where a bucket is: two stores of the configuration may be one cloud under two names. Pure.

A place is written into the mark of every copy: what is returned for an address may never change.
"""

import posixpath
import re
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS = {None, 80, 443}

AWS = re.compile(
    r"(?:.+\.)?s3(?:express)?(?:-[a-z0-9-]+)?(?:\.dualstack)?(?:\.[a-z0-9-]+)?(?:\.vpce)?"
    r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn)"
)
"""The hosts of S3 itself. Others under amazonaws.com are machines of its customers."""

_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")

CLOUDS = {
    "hb.ru-msk.vkcloud-storage.ru": "hb.vkcloud-storage.ru",
    "hb.bizmrg.com": "hb.vkcloud-storage.ru",
    "hb.vkcs.cloud": "hb.vkcloud-storage.ru",
    "hb.kz-ast.bizmrg.com": "hb.kz-ast.vkcloud-storage.ru",
}
"""Other names of one cloud: VK Cloud (MCS) keeps those it had before."""


def place(endpoint: str | None, bucket: str) -> str:
    """Return what is the same for every name and address of one bucket, like "hb.vkcloud-storage.ru/photos".

    `endpoint` None is AWS. Neither the scheme nor a default port tells two places apart. Another name in the
    DNS is another place, for nothing is asked here.
    """
    parts = urlsplit(endpoint or "https://s3.amazonaws.com")
    host = _host(parts)
    if AWS.fullmatch(host):
        return f"{_partition(host)}/{bucket}"
    port = parts.port if parts.port not in DEFAULT_PORTS else None
    where = CLOUDS.get(host, host) if port is None else f"{host}:{port}"
    path = posixpath.normpath(f"/{parts.path}").strip("/")
    return "/".join(filter(None, [where, path, bucket]))


def _host(parts: SplitResult) -> str:
    """Return the host in the one way it is written here: an IPv6 address in brackets."""
    host = (parts.hostname or "").rstrip(".")
    with suppress(UnicodeError):
        host = host.encode("idna").decode()
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = _in_numbers(host) or ip_address(host)
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified or (address.version == 6 and address.is_loopback):
        return "127.0.0.1"
    return str(address) if address.version == 4 else f"[{address}]"


def _in_numbers(host: str) -> IPv4Address | None:
    """Return the address that one to four numbers stand for (decimal, 0x.. or 0.. octal, the last one for all
    bytes that are left), None when they are no such thing. Raises ValueError when they are too large."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *front, last = (int(part, 0 if part.startswith("0x") else 8 if part[0] == "0" else 10) for part in parts)
    return IPv4Address(sum(byte << 24 - 8 * place for place, byte in enumerate(front)) + last)


def _partition(host: str) -> str:
    """Return which of Amazon's clouds `host` is of: a bucket's name is one of a kind in each."""
    if host.endswith(".cn"):
        return "aws-cn"
    return "aws-us-gov" if "us-gov-" in host else "aws"
