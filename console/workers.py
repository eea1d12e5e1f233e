"""Asks the workers at `metrics.port` how their routes are."""

import http.client
import json
import socket
from dataclasses import dataclass, field

from common.merge import State, together
from common.settings import Settings
from console.health import WITHIN, where


@dataclass(frozen=True, slots=True)
class Workers:
    """Those that answered, by address, and what they say together."""

    addresses: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Those that did not."""
    routes: dict[str, State] = field(default_factory=dict)

    @property
    def paused(self) -> dict[str, str]:
        """The routes that are paused, and why."""
        return {route: str(state["paused"]) for route, state in self.routes.items() if state["paused"]}


def ask_workers(settings: Settings) -> Workers | None:
    """Return what the workers say; None when none answers. A name of several addresses is one of several
    workers: each is asked."""
    if not settings.metrics.port:
        return None
    host, port, _ = where(settings)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    told = {address: state for address in addresses if (state := _ask(address, port)) is not None}
    if not told:
        return None
    silent = [f"{address}:{port}" for address in addresses if address not in told]
    return Workers([f"{address}:{port}" for address in told], silent, together(told.values()))


def _ask(host: str, port: int) -> dict[str, State] | None:
    connection = http.client.HTTPConnection(host, port, timeout=WITHIN)
    try:
        connection.request("GET", "/state")
        answer = connection.getresponse()
        told = json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return told if isinstance(told, dict) else None
