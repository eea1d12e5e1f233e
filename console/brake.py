"""`hookmirror brake ...`: the deletes that were held because they were too many at once."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import islice

import click
from rich.table import Table
from rich.text import Text

from common.errors import Unreadable
from common.queue.port import DeadLetter, Queue
from common.task import Task
from common.telemetry import one_line
from console.options import config_option, json_option, print_json, print_table, sure, with_queue, yes_option

HELD = "BrakeOn: brake:"
"""How the reason of a held delete begins: the error's name and its first word (worker/brake.py)."""

BATCH = 500
"""So many go back to their queue at once."""

Held = tuple[DeadLetter, Task]


@click.group()
def brake() -> None:
    """List and release the deletes that a route's brake holds.

    A route that wants to delete more in a short time than its brake allows may have lost its bucket by
    mistake: what is too much is kept as dead letters, until a person says that it is meant.
    """


@brake.command(name="list")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    """List the routes whose brake holds deletes, and how many."""
    held = with_queue(config, _by_route)
    if as_json:
        print_json({route: len(letters) for route, letters in held.items()})
    elif not held:
        click.echo("No deletes are held.")
    else:
        print_table(_table(held))
        click.echo("\nNext:  hookmirror brake release ROUTE  |  hookmirror dead list")


@brake.command()
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Only count what would be released.")
@yes_option
@click.argument("route")
def release(config: str | None, as_json: bool, dry_run: bool, yes: bool, route: str) -> None:
    """Let the held deletes of ROUTE go ahead: they are meant.

    They are counted first, and you are asked; exactly what was counted is released. Each key is compared
    again: what the source has once more is copied and not deleted. What the brake takes back meanwhile waits
    for another release. A task is durable in its queue before it leaves the dead letters, so that an
    interrupted release repeats work and loses none.
    """
    ids = with_queue(config, lambda queue: _ids(queue, route))
    if not ids:
        raise click.ClickException(
            f'no delete of a route called "{route}" is held. See which are:  hookmirror brake list'
        )
    if not dry_run:
        sure(f"delete these {len(ids)} objects from the target of {one_line(route)}?", yes=yes)
        with_queue(config, lambda queue: _release(queue, ids))
    if as_json:
        print_json({"route": route, "would_release" if dry_run else "released": len(ids)})
    else:
        click.echo(f"{'would release' if dry_run else 'released'}: {len(ids)}")


async def _held(queue: Queue) -> AsyncIterator[Held]:
    async with aclosing(queue.letters()) as letters:
        async for letter in letters:
            if letter.why.startswith(HELD):
                try:
                    yield letter, Task.decode(letter.body)
                except Unreadable:
                    continue  # no worker of this version has held it: it stays where `dead list` shows it


async def _by_route(queue: Queue) -> dict[str, list[DeadLetter]]:
    routes: defaultdict[str, list[DeadLetter]] = defaultdict(list)
    async for letter, task in _held(queue):
        routes[task.route].append(letter)
    return dict(routes)


async def _ids(queue: Queue, route: str) -> set[str]:
    return {letter.id async for letter, task in _held(queue) if task.route == route}


async def _release(queue: Queue, ids: set[str]) -> None:
    """Release what was counted: nobody has approved what the brake adds meanwhile."""
    held = [(letter, task) async for letter, task in _held(queue) if letter.id in ids]
    rest, durable = iter(held), list[str]()
    try:
        while batch := list(islice(rest, BATCH)):
            await asyncio.gather(*(_publish(queue, letter, task) for letter, task in batch))
            durable += [letter.id for letter, _ in batch]
    finally:
        # Once, and not batch by batch: each drop may have to go over all the dead letters.
        await queue.drop(durable)


async def _publish(queue: Queue, letter: DeadLetter, task: Task) -> None:
    approved = task.model_copy(update={"approved": True})
    await queue.publish(approved.encode(), lane=letter.lane)


def _table(held: dict[str, list[DeadLetter]]) -> Table:
    table = Table("route", "held deletes", "why", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for route, letters in held.items():
        # Text, since a plain string would be read as markup.
        why = letters[-1].why.removeprefix(HELD).strip()
        table.add_row(Text(one_line(route)), str(len(letters)), Text(one_line(why)))
    return table
