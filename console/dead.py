"""`hookmirror dead ...`: the dead letters, for a person."""

import base64
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from common.errors import Unreadable
from common.queue.port import DeadLetter, Queue
from common.task import Task
from common.telemetry import one_line
from console.options import config_option, json_option, print_json, print_table, with_queue

PAGE = 1000


@click.group()
def dead() -> None:
    """List, show, replay and drop the tasks that no attempt could do.

    Looking changes neither their number nor their order. A replay is durable in its lane before the
    letter leaves the dead, so that an interrupted one repeats work and loses none.
    """


@dead.command(name="list")
@config_option
@json_option
@click.option("--limit", default=50, show_default=True, help="Show at most so many, the oldest first.")
def list_(config: str | None, as_json: bool, limit: int) -> None:
    """List the dead letters, the oldest first."""
    letters = with_queue(config, lambda queue: queue.buried(limit))
    if as_json:
        print_json([as_dict(letter) for letter in letters])
    elif not letters:
        click.echo("No dead letters.")
    else:
        print_table(_table(letters))
        click.echo("\nNext:  hookmirror dead show ID  |  dead replay ID...  |  dead drop ID...")


@dead.command()
@config_option
@json_option
@click.argument("id_", metavar="ID")
def show(config: str | None, as_json: bool, id_: str) -> None:
    """Show one dead letter whole: why, what was tried and when, and its bytes."""
    letter = with_queue(config, lambda queue: _find(queue, id_))
    if letter is None:
        raise click.ClickException(f"no dead letter has the id {id_}. List them:  hookmirror dead list")
    if as_json:
        print_json(as_dict(letter))
    else:
        _print(letter)


@dead.command()
@config_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Replay every dead letter there is now.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
def replay(config: str | None, as_json: bool, everything: bool, ids: tuple[str, ...]) -> None:
    """Send dead letters back to their lanes, as first attempts."""
    if everything == bool(ids):
        raise click.UsageError("name the letters to replay, or give --all")
    found = with_queue(config, lambda queue: queue.replay(None if everything else ids))
    _report("replayed", ids, found, as_json)


@dead.command()
@config_option
@json_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def drop(config: str | None, as_json: bool, ids: tuple[str, ...]) -> None:
    """Delete dead letters for good."""
    found = with_queue(config, lambda queue: queue.drop(ids))
    _report("dropped", ids, found, as_json)


def as_dict(letter: DeadLetter) -> dict[str, Any]:
    """Return the letter as plain values: the task if its bytes are one, and the bytes in base64."""
    entry: dict[str, Any] = {"id": letter.id, "lane": letter.lane, "at": letter.at, "why": letter.why}
    task = _task(letter)
    return entry | {
        "attempt": letter.attempt,
        "task": task.model_dump(mode="json") if task else None,
        "failures": [asdict(failure) for failure in letter.failures],
        "body": base64.b64encode(letter.body).decode(),
    }


async def _letters(queue: Queue) -> AsyncIterator[DeadLetter]:
    after: str | None = None
    while page := await queue.buried(PAGE, after):
        for letter in page:
            yield letter
        after = page[-1].id


async def _find(queue: Queue, id_: str) -> DeadLetter | None:
    async for letter in _letters(queue):
        if letter.id == id_:
            return letter
    return None


def _report(verb: str, ids: tuple[str, ...], found: set[str], as_json: bool) -> None:
    missing = sorted(set(ids) - found)
    if as_json:
        print_json({verb: sorted(found), "missing": missing})
    else:
        click.echo(f"{verb}: {len(found)}")
        for id_ in missing:
            click.echo(f"no dead letter has the id {id_}", err=True)
    sys.exit(1 if missing else 0)


def _task(letter: DeadLetter) -> Task | None:
    try:
        return Task.decode(letter.body)
    except Unreadable:
        return None


def _table(letters: list[DeadLetter]) -> Table:
    table = Table("id", "buried", "attempts", "key", "why", box=None, header_style="bold")
    for column in table.columns[:3]:
        column.no_wrap = True
    for letter in letters:
        task = _task(letter)
        key = one_line(task.key) if task else f"({len(letter.body)} bytes that are no task)"
        # Text, since a plain string would be read as markup: a key may hold [/red] or :smile:.
        table.add_row(letter.id, _time(letter.at), str(letter.attempt), Text(key), Text(one_line(letter.why)))
    return table


def _print(letter: DeadLetter) -> None:
    rows = {
        "id": letter.id,
        "lane": letter.lane.value,
        "buried": _time(letter.at),
        "why": one_line(letter.why),
    }
    task = _task(letter)
    if task is not None:
        rows |= {"route": one_line(task.route), "key": one_line(task.key), "event": one_line(task.event)}
        rows |= {"received": _time(task.received)}
    for name, value in rows.items():
        click.echo(f"{name:<9} {value}")
    for failure in letter.failures:
        click.echo(f"attempt   {failure.attempt} at {_time(failure.at)}: {one_line(failure.why)}")
    click.echo(f"body      {one_line(letter.body.decode(errors='backslashreplace'))}")


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "unknown"
