"""`hookmirror status`: how deep the queue is, and which routes stand still."""

import http.client
import json
import shlex
import socket
import sys

import click
from rich.table import Table
from rich.text import Text

from common import settings as configuration
from common.queue.port import Counts, Lane, Queue
from common.settings import Settings
from common.telemetry import one_line
from console.health import WITHIN, where
from console.options import config_option, json_option, print_json, print_table, with_queue
from console.routes import strays

MEANING = {
    Lane.LIVE: "hooks brought it; a worker may take it now",
    Lane.BULK: "kept for jobs over a whole bucket",
}


@click.command()
@config_option
@json_option
@click.option(
    "--check",
    is_flag=True,
    help="Exit 1 when a person is needed: a dead letter, a paused route, a policy that loses tasks.",
)
def status(config: str | None, as_json: bool, check: bool) -> None:
    """Print what is in the queue, and which routes are paused.

    A task is one key to compare and to copy. It is ready in the live queue (hooks bring it) or in the bulk
    queue (kept for jobs over a whole bucket). It waits when it is tried again later, when its route is
    paused, or when it is a re-check, which follows a write that may have ended otherwise. A dead letter is
    a task that was given up: only a person can decide.

    Paused routes are known to their workers, which are asked at metrics.host and metrics.port.
    """
    settings = configuration.start(config)
    known = [route.id for route in settings.all_routes]
    counts, strayed, whole = with_queue(config, lambda queue: _depths(queue, known), policies=True)
    paused = paused_routes(settings)
    if as_json:
        told = as_dict(counts) | ({"unknown_routes": strayed} if strayed else {})
        told |= {"losing": list(counts.losing)} if counts.losing else {}
        print_json(told | ({} if paused is None else {"paused": paused}))
    else:
        print_table(as_table(counts))
        for sentence in counts.losing:
            click.secho(f"\n{one_line(sentence)}", fg="red", bold=True)
        _print_strays(strayed, whole=whole)
        _print_paused(paused)
    if check and (counts.dead or paused or counts.losing):
        sys.exit(1)


async def _depths(queue: Queue, known: list[str]) -> tuple[Counts, dict[str, int], bool]:
    counts = await queue.counts()
    return (counts, *(await strays(queue, known) if counts.dead else ({}, True)))


def _print_strays(strayed: dict[str, int], *, whole: bool) -> None:
    """Print the routes that dead letters are of and the configuration does not have."""
    for route, count in strayed.items():
        click.echo(
            f'\nUnknown route "{one_line(route)}": {count} of the dead letters are of it. Move them:  '
            f"hookmirror routes adopt {shlex.quote(one_line(route))} NEW"
        )
    if not whole:
        click.echo("\nThere are more dead letters than were looked at: their routes may be others.")


def paused_routes(settings: Settings) -> dict[str, str] | None:
    """Return the routes that a worker at metrics.port says are paused, and why; None when none answers. A
    name of several addresses is one of several workers: each is asked."""
    if not settings.metrics.port:
        return None
    host, port, _ = where(settings)
    paused: dict[str, str] | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return None
    for address in dict.fromkeys(str(entry[4][0]) for entry in found):
        told = _ask(address, port)
        if told is not None:
            paused = {**(paused or {}), **told}
    return paused


def _ask(host: str, port: int) -> dict[str, str] | None:
    connection = http.client.HTTPConnection(host, port, timeout=WITHIN)
    try:
        connection.request("GET", "/paused")
        answer = connection.getresponse()
        told = json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return {str(route): str(why) for route, why in told.items()} if isinstance(told, dict) else None


def as_dict(counts: Counts) -> dict[str, object]:
    """Return the depths as plain values; `held` (in progress) is null where the queue cannot tell."""
    ready = {lane.value: counts.ready.get(lane, 0) for lane in Lane}
    return {"ready": ready, "waiting": counts.waiting, "held": counts.held, "dead": counts.dead}


def as_table(counts: Counts) -> Table:
    """Return the depths as a table."""
    table = Table("state", "tasks", "meaning", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for lane in Lane:
        table.add_row(f"ready ({lane})", str(counts.ready.get(lane, 0)), MEANING[lane])
    table.add_row("waiting", str(counts.waiting), "a retry, a re-check, or a paused route; until its time")
    table.add_row("in progress", "-" if counts.held is None else str(counts.held), "a worker is at it")
    style = "bold red" if counts.dead else ""
    table.add_row("dead letters", str(counts.dead), "given up; see: hookmirror dead list", style=style)
    return table


def _print_paused(paused: dict[str, str] | None) -> None:
    if paused is None:
        click.echo("\nPaused routes: not known here, no worker answers at metrics.port. Its log names them.")
    elif not paused:
        click.echo("\nNo route is paused.")
    else:
        table = Table("paused route", "why", box=None, header_style="bold")
        for route, why in paused.items():
            table.add_row(Text(one_line(route)), Text(one_line(why)))
        click.echo("")
        print_table(table)
