"""The proxy that the environment names, for every client of HTTP here."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> str | None:
    """Return the proxy that `http_proxy`, `https_proxy` and `no_proxy` name for `url`, None for none.

    Not aiohttp's `trust_env`: it looks again, in a thread, at each request, knows no port in `no_proxy`, and
    sends what `~/.netrc` holds for a host.
    """
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)  # no_proxy may name a port
