"""`hookmirror status`: each route with what waits for it, and what needs a person."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import click
from rich.table import Table
from rich.text import Text

from common import settings as configuration
from common.merge import State
from common.queue.port import Counts, Kind, Lane, Queue
from common.telemetry import one_line
from console.dead.letter import clock
from console.options import config_option, json_option, print_json, print_table, with_queue
from console.routes import dead_by_route
from console.workers import Workers, ask_workers

MEANING = {
    Kind.LIVE: "hooks brought it; a worker may take it now",
    Kind.BULK: "kept for jobs over a whole bucket",
}

COLUMNS = (
    "live",
    "bulk",
    "waiting",
    "in progress",
    "oldest",
    "a minute",
    "lag",
    "last done",
    "dead letters",
)


@dataclass(frozen=True, slots=True)
class Overview:
    """All that is known of the routes: `known` are the configured ones, `dead` the dead letters of each, all
    of them if `whole`; `workers` is None when none answers."""

    known: Collection[str]
    counts: Counts
    dead: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
    workers: Workers | None = None

    @property
    def routes(self) -> list[str]:
        """The configured routes, then those that there are tasks of besides."""
        lanes = self.counts.lanes.items()
        there = {lane.route for lane, depth in lanes if depth.ready or depth.waiting or depth.held}
        return [*self.known, *sorted(there.difference(self.known))]

    @property
    def strays(self) -> dict[str, int]:
        """How many tasks there are, in their queues or dead, of each route that is not configured."""
        found = Counter(self.counts.besides(self.known))
        found.update({r: number for r, number in self.dead.items() if r and r not in self.known})
        return dict(found)

    def told(self, route: str) -> State:
        """Return what the workers say of `route`; {} when they say nothing."""
        return self.workers.routes.get(route, {}) if self.workers else {}

    def state(self, route: str) -> str:
        """Return in a word or two how `route` is."""
        told = self.told(route)
        if route not in self.known:
            return "not configured" if route else "moves on to its route"
        if told.get("paused"):
            return f"{'in doubt' if told['doubt'] else 'paused'} since {clock(told['since'])}"
        if told:
            return "running, brake on" if told["brake"] else "running"
        return "unknown"


@click.command()
@config_option
@json_option
@click.option(
    "--check",
    is_flag=True,
    help="Exit 1 when a person is needed: a dead letter, a paused route, a policy that loses tasks.",
)
def status(config: str | None, as_json: bool, check: bool) -> None:
    """Print how each route is and what waits for it.

    A task is one key to compare and to copy. Each route has two queues: its tasks are ready in the live queue
    (hooks bring them) or in the bulk queue (kept for jobs over a whole bucket). It waits when it is tried
    again later, or when it is a re-check, which follows a write that may have ended otherwise. Tasks of a
    paused route stay ready, and none is taken. A dead letter is a task that was given up: only a person can
    decide. In doubt is a route whose objects fail while its buckets answer: its tasks are tried in turn.

    The queue tells the depths; RabbitMQ does not tell by route what waits. The workers tell the rest, and are
    asked at metrics.host and metrics.port: whether a route is paused and its brake is on, and of the last
    five minutes how many were done a minute and how long after their hooks.
    """
    settings = configuration.start(config)
    counts, dead, whole = with_queue(config, _depths, policies=True)
    known = [route.id for route in settings.all_routes]
    overview = Overview(known, counts, dead, whole, ask_workers(settings))
    asked = {
        "queue": _shown(settings.queue.url),
        "configuration": str(settings.file or "the environment alone"),
    }
    if as_json:
        print_json(as_dict(overview) | asked)
    else:
        _print(overview, asked)
    paused = overview.workers and overview.workers.paused
    if check and (counts.dead or paused or counts.losing):
        sys.exit(1)


async def _depths(queue: Queue) -> tuple[Counts, dict[str, int], bool]:
    counts = await queue.counts()
    return (counts, *(await dead_by_route(queue) if counts.dead else ({}, True)))


def _shown(url: str) -> str:
    """Return the queue's URL without user and password."""
    parts = urlsplit(url)
    if not parts.netloc:  # a file
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def as_dict(overview: Overview) -> dict[str, object]:
    """Return it as plain values; null for what is not known. `held` is in progress, times are in epoch
    seconds."""
    counts, workers = overview.counts, overview.workers
    told: dict[str, object] = {
        "ready": {kind.value: number for kind, number in counts.ready.items()},
        "waiting": counts.waiting,
        "held": counts.held,
        "dead": counts.dead,
        "routes": {route: _route(overview, route) for route in overview.routes},
        "workers": workers.addresses if workers else None,
        "silent_workers": workers.silent if workers else None,
    }
    if strays := overview.strays:
        told["unknown_routes"] = strays
    if counts.losing:
        told["losing"] = list(counts.losing)
    return told if workers is None else told | {"paused": workers.paused}


def _route(overview: Overview, route: str) -> dict[str, object]:
    lanes = {kind.value: asdict(overview.counts.of(Lane(route, kind))) for kind in Kind}
    return lanes | {"dead": overview.dead.get(route, 0), "worker": overview.told(route) or None}


def _print(overview: Overview, asked: Mapping[str, str]) -> None:
    workers, counts = overview.workers, overview.counts
    answering = ", ".join(workers.addresses) if workers else "none answers at metrics.port"
    if workers and workers.silent:
        answering += f" (no answer from {', '.join(workers.silent)}: what these do is not told)"
    click.echo(f"queue: {asked['queue']}   configuration: {asked['configuration']}   workers: {answering}\n")
    print_table(by_route(overview))
    click.echo("")
    print_table(as_table(counts))
    for sentence in counts.losing:
        click.secho(f"\n{one_line(sentence)}", fg="red", bold=True)
    for route, count in overview.strays.items():
        click.echo(
            f'\nUnknown route "{one_line(route)}": {count} tasks are of it, and none is done. Move them:  '
            f"hookmirror routes adopt {shlex.quote(one_line(route))} NEW"
        )
    if not overview.whole:
        click.echo("\nThere are more dead letters than were looked at: their routes may be others.")
    _print_paused(workers)


def by_route(overview: Overview) -> Table:
    """Return a table with a line for each route."""
    table = Table("route", "state", *COLUMNS, box=None, header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"
    for route in overview.routes:
        state, dead = overview.state(route), overview.dead.get(route, 0)
        table.add_row(
            Text(one_line(route) or "(none)"),
            Text(state, style="" if state in {"running", "unknown"} else "bold red"),
            *_cells(overview, route),
            Text(str(dead), style="bold red" if dead else ""),
        )
    return table


def _cells(overview: Overview, route: str) -> Iterable[str]:
    """Yield what stands in all columns but the last: first what the queue says, else what the workers do."""
    depths, told = [overview.counts.of(Lane(route, kind)) for kind in Kind], overview.told(route)
    yield from (str(depth.ready) for depth in depths)
    yield _number(_known(depth.waiting for depth in depths))
    held = _known(depth.held for depth in depths)
    yield _number(told.get("in_progress") if held is None else held)
    yield _oldest([depth.oldest for depth in depths], told)
    yield f"{told['per_minute']:.0f}" if told else "-"
    yield "-" if told.get("lag") is None else f"{told['lag']:.1f} s"
    yield "-" if told.get("last") is None else f"{max(time.time() - told['last'], 0):.0f} s ago"


def _oldest(in_queue: list[float | None], told: State) -> str:
    """Return the age of the oldest task: as the queue says; else that of those which a worker has seen, where
    there is one."""
    known = [age for age in in_queue if age is not None]
    oldest = max([*known, told.get("oldest") or 0.0])
    return f"{oldest:.0f} s" if known or oldest else "-"


def _known(numbers: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None when nothing is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _number(number: Any) -> str:
    return "-" if number is None else str(number)


def as_table(counts: Counts) -> Table:
    """Return the depths of all routes as a table."""
    table = Table("all routes", "tasks", "meaning", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for kind, number in counts.ready.items():
        table.add_row(f"ready ({kind})", str(number), MEANING[kind])
    table.add_row("waiting", str(counts.waiting), "a retry, or a re-check; until its time")
    table.add_row("in progress", _number(counts.held), "a worker is at it")
    style = "bold red" if counts.dead else ""
    table.add_row("dead letters", str(counts.dead), "given up; see: hookmirror dead list", style=style)
    return table


def _print_paused(workers: Workers | None) -> None:
    if workers is None:
        click.echo("\nPaused routes: not known here, no worker answers at metrics.port. Its log names them.")
    elif not workers.paused:
        click.echo("\nNo route is paused.")
    else:
        table = Table("paused route", "why", box=None, header_style="bold")
        for route, why in workers.paused.items():
            table.add_row(Text(one_line(route)), Text(one_line(why)))
        click.echo("")
        print_table(table)
