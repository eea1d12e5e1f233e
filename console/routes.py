"""`hookmirror routes adopt`: tasks of a route that nobody knows any more go on under another."""

import asyncio
import shlex
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress

import click

from common import settings as configuration
from common.errors import ConfigError
from common.queue.port import MAX_DELAY, DeadLetter, Queue
from common.routes import StackRouteSettings
from common.settings import Settings
from common.task import Task
from common.telemetry import one_line
from console.dead.change import show_count
from console.dead.letter import Entry
from console.dead.options import dry_run_option, entries
from console.dead.summary import Survey, survey
from console.options import config_option, json_option, print_json, sure, with_queue, yes_option

BATCH = 10_000
"""Dead letters that are held in memory at once."""

COUNT_WITHIN = 5.0
"""Seconds for `strays` to go over the dead letters."""


@click.group()
def routes() -> None:
    """Move the tasks of a renamed route.

    A task carries the id of its route: the route's name, or else its source and target, as in
    "mcs:photos -> aws:backup". When the configuration knows no such route any more, each of its tasks becomes
    a dead letter at once. `hookmirror status` names such routes.
    """


@routes.command()
@config_option
@json_option
@dry_run_option
@yes_option
@click.argument("old")
@click.argument("new")
def adopt(config: str | None, as_json: bool, dry_run: bool, yes: bool, old: str, new: str) -> None:
    """Move dead letters from OLD to NEW.

    OLD is a route that is no more; its tasks go on as first attempts of the route NEW. They are counted
    first, shown by reason, and you are asked; exactly what was counted goes. Tasks of OLD that wait for a
    retry or a re-check are not among them: they become dead letters when their time comes, within the hour.
    Run it again then.
    """
    kind = kind_of(configuration.start(config), old, new)

    def meant(entry: Entry) -> bool:
        return entry.route == old and entry.task is not None and (entry.task.stack is not None) == kind

    found, waiting = with_queue(config, lambda queue: _count(queue, meant))
    if dry_run or not as_json:
        words = "would adopt" if dry_run else "to adopt"
        show_count(words, found, [], as_json=as_json, waiting=waiting)
    if waiting and not as_json:
        click.echo(_later(waiting, old))
    if dry_run:
        return
    if found.ids:
        sure(f"send these {found.summary.count} dead letters to {new}?", yes=yes)
    done = with_queue(config, lambda queue: move(queue, found.ids, new)) if found.ids else 0
    _report(found, done, waiting, as_json=as_json)


async def _count(queue: Queue, meant: Callable[[Entry], bool]) -> tuple[Survey, int]:
    return await survey(queue, meant), (await queue.counts()).waiting


def kind_of(settings: Settings, old: str, new: str) -> bool:
    """Return whether `new` takes notifications of stacks. Raises `ConfigError` when it is no route, or when
    `old` still is one."""
    known = {route.id: isinstance(route, StackRouteSettings) for route in settings.all_routes}
    if new not in known:
        ids = ", ".join(f'"{id_}"' for id_ in known) or "none"
        raise ConfigError(f'"{new}" is no route of this configuration: name one of {ids}')
    if old in known:
        raise ConfigError(
            f'"{old}" is a route of this configuration, so its tasks need not move: send its dead letters '
            f"back with  hookmirror dead replay --route {shlex.quote(old)}"
        )
    return known[new]


async def move(queue: Queue, ids: Collection[str], new: str) -> int:
    """Send the dead letters `ids` back as tasks of the route `new`; return how many. Each is durable in its
    queue before it leaves the dead letters: interrupted, it repeats work and loses none."""
    left, moved = set(ids), 0
    while batch := await _some(queue, left):
        for letter in batch:
            task = Task.decode(letter.body).model_copy(update={"route": new, "trouble": None})
            await queue.publish(task.encode(), lane=letter.lane)
        moved += len(await queue.drop([letter.id for letter in batch]))
        left -= {letter.id for letter in batch}
    return moved


async def _some(queue: Queue, ids: set[str]) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    if ids:
        async with aclosing(queue.letters()) as letters:
            async for letter in letters:
                if letter.id in ids:
                    found.append(letter)
                if len(found) in {BATCH, len(ids)}:
                    break
    return found


def _report(found: Survey, done: int, waiting: int, *, as_json: bool) -> None:
    gone = len(found.ids) - done
    if as_json:
        print_json({"adopted": done, "gone": gone, "waiting": waiting})
        return
    if found.ids:
        click.echo(f"adopted: {done}" + (f"; {gone} were gone by then" if gone else ""))
    else:
        click.echo("No dead letter is of OLD: write its id as `hookmirror status` does.")


def _later(waiting: int, old: str) -> str:
    """Return what is said of the tasks that wait for their time: of which routes they are, nobody can see."""
    return (
        f"Tasks of all routes that wait for a retry or a re-check: {waiting}. Those of {one_line(old)} "
        f"become dead letters when their time comes, within {MAX_DELAY // 60} minutes: run this again then."
    )


async def strays(queue: Queue, known: Collection[str]) -> tuple[dict[str, int], bool]:
    """Return how many dead letters there are of each route that is not `known`, and whether all were seen
    within COUNT_WITHIN."""
    counts: Counter[str] = Counter()
    with suppress(TimeoutError):
        async with asyncio.timeout(COUNT_WITHIN), aclosing(entries(queue)) as all_:
            async for entry in all_:
                if entry.route is not None and entry.route not in known:
                    counts[entry.route] += 1
            return dict(counts), True
    return dict(counts), False
