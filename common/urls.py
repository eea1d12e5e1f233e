"""URLs of the configuration: what of them is served, and what is a secret. Pure."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from common.masking import reads_as_words
from common.store.place import place

PAGES = frozenset({"/ping", "/healthz", "/readyz", "/docs", "/openapi.json"})
"""What the receiver serves to who looks: no path for hooks."""

GUARDS = 12
"""Characters of a part of a path, from which on it is taken for a secret."""


def path_of(url: str) -> str:
    """Return the path that is served for `url`."""
    return urlsplit(url).path or "/"


def destination(url: str) -> tuple[str, str]:
    """Return the host with its port, and the path, that `url` leads to: the same for the same one, however it
    is written."""
    parts = urlsplit(url)
    return place(f"{parts.scheme}://{parts.netloc}", ""), unquote(path_of(url))


def is_absolute(url: str) -> bool:
    """Whether `url` says whom to call, and how. Raises `ValueError` for a port that is no number."""
    parts = urlsplit(url)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0


def weakness(url: str) -> str:
    """Return why a stranger may find the path of `url`, "" when he cannot, or cannot call it."""
    path = unquote(path_of(url))
    if _is_near(urlsplit(url).hostname or "") or any(
        len(part) >= GUARDS and not reads_as_words(part) for part in path.split("/")
    ):
        return ""
    what = "no path" if path == "/" else "a path that can be guessed"
    return f"it has {what}, and nothing else proves who sends a hook. Add a part to it:  openssl rand -hex 16"


def _is_near(host: str) -> bool:
    """Whether `host` is this machine, or a name without a dot: one of its own network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return "." not in host


def guarding(path: str) -> Iterator[str]:
    """Yield the parts of `path` that may be a secret, as written and as sent. One as short as /webhook guards
    nothing, and hiding it would garble other lines."""
    for part in path.split("/"):
        if len(part) >= GUARDS:
            yield from {part, unquote(part)}
