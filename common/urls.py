"""URLs of the configuration: what of them is served, and what is a secret. Pure."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

GUARDS = 12
"""Characters of a part of a path, from which on it is taken for a secret."""


def path_of(url: str) -> str:
    """Return the path that is served for `url`."""
    return urlsplit(url).path or "/"


def is_absolute(url: str) -> bool:
    """Whether `url` says whom to call, and how. Raises `ValueError` for a port that is no number."""
    parts = urlsplit(url)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0


def check_served(name: str, url: str | None) -> None:
    """Raise `ValueError` for a URL of ours that cannot be registered or served; None is fine."""
    if url is None:
        return
    if not is_absolute(url):
        raise ValueError(f'{name} must be absolute, like "https://hooks.example.org/webhook/3f9c"')
    if set("{}") & set(unquote(path_of(url))):
        raise ValueError(f"{name} has a brace in its path, which cannot be served: leave it out")


def guarding(path: str) -> Iterator[str]:
    """Yield the parts of `path` that may be a secret, as written and as sent. One as short as /webhook guards
    nothing, and hiding it would garble other lines."""
    for part in path.split("/"):
        if len(part) >= GUARDS:
            yield from {part, unquote(part)}
