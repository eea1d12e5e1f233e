"""The host and the port in a URL of the configuration: what is wrong with them. Pure.

What is said holds nothing of a URL with an @: a password that is not escaped may stand where a host should.
"""

import re
from ipaddress import ip_address

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_AUTHORITY = re.compile(r"[^:/?#]*:?//([^/?#]*)")
_BARE_IPV6 = re.compile(r"(?=.*:.*:)[0-9A-Fa-f:.]+")
_PORT = re.compile(r"0*[1-9][0-9]{0,4}")

BRACKETS = "an IPv6 address goes into brackets: write [::1], or [::1]:8080 with a port"


def is_host(name: str) -> bool:
    """Whether `name` can be one of a host, in ASCII."""
    return _HOST.fullmatch(name) is not None


def fault(url: str) -> str:
    """Return what is wrong with the host or the port of `url` and what to write, "" when nothing is. Whether
    there is a host at all is not asked."""
    found = _AUTHORITY.match(url)
    place = found[1].rpartition("@")[2] if found else ""
    if _BARE_IPV6.fullmatch(place):
        return BRACKETS
    if place.startswith("["):
        host, closed, rest = place[1:].partition("]")
        if not closed or not _is_ipv6(host) or rest[:1] not in {"", ":"}:
            return BRACKETS
    else:
        host, _, rest = place.partition(":")
        rest = rest and f":{rest}"
        if host and (wrong := _of_name(host, hidden="@" in url)):
            return wrong
    return _of_port(rest[1:])


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text.partition("%")[0]).version == 6
    except ValueError:
        return False


def _of_name(host: str, *, hidden: bool) -> str:
    if host.isascii():
        return "" if is_host(host) else "the name of its host cannot be: write one like store.example.org"
    try:
        ascii_ = host.encode("idna").decode()
    except UnicodeError:
        ascii_ = ""
    if not is_host(ascii_):
        return "the name of its host cannot be: write one like store.example.org, in ASCII"
    written = "as xn--..." if hidden else ascii_
    return f"the name of its host is no ASCII: write it in ASCII: {written}"


def _of_port(port: str) -> str:
    if re.fullmatch("0+", port):
        return "0 is no port to call: write one from 1 to 65535, or leave it out"
    if port and not (_PORT.fullmatch(port) and int(port) <= 65535):
        return "its port is no number from 1 to 65535: write one, or leave it out"
    return ""
