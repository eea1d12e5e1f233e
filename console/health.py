"""`hookmirror health`: does the process here run? Quick, for a container asks it all day."""

import http.client

import click

from common import settings as configuration
from common.errors import ConfigError
from common.settings import Settings
from console.options import config_option

WITHIN = 5.0
"""Seconds to wait for the answer."""

HERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere is asked here
"""Where to ask a process that listens on every address."""


@click.command()
@config_option
def health(config: str | None) -> None:
    """Ask the process on this machine whether it runs.

    Exit 0 if so, or 1 with the reason. It is asked at metrics.port. When none is set, at receiver.port: so a
    worker needs a metrics.port to be asked at all.
    """
    try:
        host, port, key = where(configuration.load(config))
    except ConfigError as error:  # not 2: Docker knows 0 and 1
        raise click.ClickException(str(error)) from error
    if port == 0:
        raise click.ClickException(f"{key} is 0, any free port, and nobody can say which. Set another")
    try:
        status = ask(host, port)
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise click.ClickException(f"no answer from {host}, port {port} ({key}): {why}") from error
    if status != http.HTTPStatus.OK:
        raise click.ClickException(f"{host}, port {port} ({key}) answers {status}")
    click.echo(f"alive: {host}, port {port} ({key}) answers")


def where(settings: Settings) -> tuple[str, int, str]:
    """Return the host and the port to ask, and the key of the configuration that says so."""
    metrics, receiver = settings.metrics, settings.receiver
    if metrics.port is None:
        return HERE.get(receiver.host, receiver.host), receiver.port, "receiver.port"
    return HERE.get(metrics.host, metrics.host), metrics.port, "metrics.port"


def ask(host: str, port: int) -> int:
    """Return the status of /healthz. Raises OSError or HTTPException when there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=WITHIN)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()
