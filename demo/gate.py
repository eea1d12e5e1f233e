"""What docker-compose runs before everything else: it says, once, what the configuration lacks.

    python -m demo.gate

Ends with 0 when the services can be started, else with 2 and what to do.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import click

from common import settings as configuration
from common.errors import ConfigError
from common.settings import PREFIX, Settings

DEMO_HOSTS = frozenset({"demo-mcs", "demo-target"})
"""The demo's stores, as docker-compose.yml and deploy/compose/demo.toml call them."""

DEMO_PASSWORD = "hookmirror"  # noqa: S105 - docker-compose.yml's, where .env names none
"""RabbitMQ's, for the demo."""

BROKERS = "RABBITMQ_PASSWORD"
"""The variable of RabbitMQ's password."""

MAKE_ONE = "Make one for .env:  openssl rand -hex 16"

APPEAR_WITHIN = 20.0
"""Seconds for them to get a name: docker-compose starts them at the same time as this."""

NOTHING_FILLED_IN = """\
no store of yours is named: {stores} would be the demo's, which does not run. Either
  - name your own:            cp .env.example .env, fill it in, then:  docker-compose up -d
  - or see it work first:     docker-compose --profile demo up"""


def refuse_empty(environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` naming every variable of ours, and RabbitMQ's password, that says nothing."""
    names = [name for name in sorted(environ) if name.upper().startswith((PREFIX, BROKERS))]
    empty = [name for name in names if not environ[name].strip()]
    if empty:
        remedies = {BROKERS: MAKE_ONE}
        fill_in = "Fill it in in .env, or delete its line"
        raise ConfigError("\n".join(f"{name} is empty. {remedies.get(name, fill_in)}" for name in empty))


def refuse_password(environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a password of RabbitMQ that cannot stand in a URL."""
    password = environ.get(BROKERS, "")
    if not (password.isascii() and password.isalnum()):
        raise ConfigError(f"{BROKERS}: write letters and digits alone, it stands in a URL. {MAKE_ONE}")


def refuse_demo_password(environ: Mapping[str, str], settings: Settings) -> None:
    """Raise `ConfigError` when stores of yours would share the password that everybody knows."""
    if environ.get(BROKERS) == DEMO_PASSWORD and not _of_the_demo(settings):
        raise ConfigError(f"{BROKERS} is missing, or the demo's. {MAKE_ONE}")


def _of_the_demo(settings: Settings) -> dict[str, str]:
    """Return the hosts of the stores that are the demo's, by the names of the stores."""
    hosts = {name: urlsplit(store.endpoint or "").hostname or "" for name, store in settings.stores.items()}
    return {name: host for name, host in hosts.items() if host in DEMO_HOSTS}


def refuse_buckets(settings: Settings) -> None:
    """Raise `ConfigError` when the demo's user would work on buckets that are not the demo's."""
    if len(_of_the_demo(settings)) < len(settings.stores):
        raise ConfigError(
            "the demo writes and deletes objects, and .env names buckets of yours: it does nothing. See it "
            "with its own:  docker-compose -p demo --env-file /dev/null --profile demo up"
        )


def refuse_unrouted(settings: Settings) -> None:
    """Raise `ConfigError` when nothing is to be done, or nobody could tell where hooks come in."""
    if not settings.all_routes:
        example = '[{"source": "mcs:my-bucket", "target": "aws:my-bucket-backup"}]'
        raise ConfigError(f"routes: there is none. Set in .env:  HOOKMIRROR_ROUTES='{example}'")
    if not all(settings.hook_url(route.source) for route in settings.routes):
        raise ConfigError(
            "receiver.public_url: missing. Set in .env:  HOOKMIRROR_RECEIVER__PUBLIC_URL=https://..."
        )


def refuse_absent_demo(settings: Settings, *, known: Callable[[str], bool], wait: Callable[[], None]) -> None:
    """Raise `ConfigError` when a store is the demo's and the demo does not run.

    `known` tells whether a host has a name yet; `wait` waits a little, and raises TimeoutError when that has
    been enough.
    """
    theirs = _of_the_demo(settings)
    try:
        while not all(map(known, theirs.values())):
            wait()
    except TimeoutError as error:
        stores = " and ".join(f"stores.{name}" for name in sorted(theirs))
        raise ConfigError(NOTHING_FILLED_IN.format(stores=stores)) from error


def main() -> int:
    """Check the configuration; return the exit code."""
    deadline = time.monotonic() + APPEAR_WITHIN
    try:
        refuse_empty(os.environ)
        refuse_password(os.environ)
        settings = configuration.load()
        refuse_demo_password(os.environ, settings)
        refuse_unrouted(settings)
        refuse_absent_demo(settings, known=_known, wait=lambda: _wait(deadline))
    except ConfigError as error:
        click.echo(f"hookmirror: {error}", err=True)
        return 2
    click.echo(
        f"hookmirror: the configuration is complete. Routes: {', '.join(r.id for r in settings.all_routes)}"
    )
    return 0


def _known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError
    time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
