"""`hookmirror routes adopt`: tasks of a route that nobody knows any more go on under another."""

import asyncio
import shlex
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress

import click

from common import settings as configuration
from common.errors import ConfigError, Unreadable
from common.queue.port import MAX_DELAY, Counts, DeadLetter, Delivery, Kind, Lane, Move, Queue
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
"""Seconds to go over the dead letters."""

AT_ONCE = 100
"""Tasks on their way to another lane at the same time."""

COMES_WITHIN = 10.0
"""Seconds for the next of the tasks that were counted: others may have taken it."""


IsMeant = Callable[[Task], bool]
"""Returns whether a task is to go along."""


@click.group()
def routes() -> None:
    """Move the tasks of a renamed route.

    A task carries the id of its route: the route's name, or else its source and target, as in
    "mcs:photos -> aws:backup". It waits in the queue of that route. When the configuration knows no such
    route any more, nobody takes from there. `hookmirror status` names such routes.
    """


@routes.command()
@config_option
@json_option
@dry_run_option
@yes_option
@click.argument("old")
@click.argument("new")
def adopt(config: str | None, as_json: bool, dry_run: bool, yes: bool, old: str, new: str) -> None:
    """Move tasks and dead letters from OLD to NEW.

    OLD is a route that is no more. What is ready in its queues goes on as it is, as tasks of the route NEW;
    its dead letters go on as first attempts. They are counted first, the dead letters by reason, and you are
    asked; no more than was counted goes. Tasks of OLD that wait for a retry or a re-check are not among them:
    they come to its queue when their time comes, within the hour. Run it again then.
    """
    stacks = kind_of(configuration.start(config), old, new)

    def is_meant(task: Task | None) -> bool:
        return task is not None and task.route == old and (task.stack is not None) == stacks

    found, counts = with_queue(config, lambda queue: _count(queue, lambda entry: is_meant(entry.task)))
    ready = {kind: counts.of(Lane(old, kind)).ready for kind in Kind}
    queued = sum(ready.values())
    if dry_run or not as_json:
        words, more = (
            "would adopt" if dry_run else "to adopt",
            {"would_move": queued, "waiting": counts.waiting},
        )
        show_count(words, found, [], as_json=as_json, **more)
    if not as_json:
        click.echo(f"{'would move' if dry_run else 'to move'}: {queued} tasks that are ready")
        _tell_later(counts, old)
    if dry_run:
        return
    if found.ids or queued:
        sure(f"send these {found.summary.count} dead letters and {queued} tasks to {new}?", yes=yes)

    async def both(queue: Queue) -> tuple[int, int]:
        moved = sum([await move_lane(queue, Lane(old, kind), new, n, is_meant) for kind, n in ready.items()])
        return await move(queue, found.ids, new), moved

    adopted, moved = with_queue(config, both) if found.ids or queued else (0, 0)
    _report(found, queued, adopted, moved, counts.waiting, as_json=as_json)


async def _count(queue: Queue, meant: Callable[[Entry], bool]) -> tuple[Survey, Counts]:
    return await survey(queue, meant), await queue.counts()


def kind_of(settings: Settings, old: str, new: str) -> bool:
    """Return whether `new` takes notifications of stacks. Raises `ConfigError` when it is no route, or when
    `old` still is one."""
    if not old:
        raise ConfigError("OLD is empty: write the id of a route as `hookmirror status` does")
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
            await queue.publish(task.encode(), lane=Lane(new, letter.lane.kind))
        moved += len(await queue.drop([letter.id for letter in batch]))
        left -= {letter.id for letter in batch}
    return moved


async def move_lane(queue: Queue, lane: Lane, new: str, number: int, is_meant: IsMeant) -> int:
    """Move up to `number` of the tasks in `lane` to the same lane of the route `new`; return how many. What
    is not meant stays. It ends sooner when none has come for COMES_WITHIN."""
    moved, stay = 0, list[Delivery]()
    async with aclosing(queue.deliveries(lane, AT_ONCE)) as deliveries:  # type: ignore[type-var]
        with suppress(TimeoutError):
            while moved < number and len(stay) < AT_ONCE - 1:
                async with asyncio.timeout(COMES_WITHIN):
                    delivery = await anext(deliveries)
                if (verdict := _moved(delivery, new, is_meant)) is None:
                    stay.append(delivery)
                else:
                    await queue.settle(delivery, verdict)
                    moved += 1
    for delivery in stay:
        await queue.give_back(delivery)
    return moved


def _moved(delivery: Delivery, new: str, is_meant: IsMeant) -> Move | None:
    """Return the verdict on a task in a lane of a route that is no more; None for one that is not meant."""
    try:
        task = Task.decode(delivery.body)
    except Unreadable:
        return None
    body = task.model_copy(update={"route": new, "trouble": None}).encode()
    return Move(Lane(new, delivery.lane.kind), body) if is_meant(task) else None


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


def _report(found: Survey, queued: int, adopted: int, moved: int, waiting: int, *, as_json: bool) -> None:
    gone, stayed = len(found.ids) - adopted, queued - moved
    if as_json:
        told = {"adopted": adopted, "moved": moved, "gone": gone, "stayed": stayed, "waiting": waiting}
        print_json(told)
        return
    if found.ids or queued:
        click.echo(f"adopted: {adopted}; moved: {moved}" + (f"; {gone} were gone by then" if gone else ""))
        if stayed:
            click.echo(
                f"{stayed} tasks stayed in the queue of OLD: not of the kind that NEW takes (objects, "
                "or notifications of stacks), or others have them"
            )
    else:
        click.echo("No task and no dead letter is of OLD: write its id as `hookmirror status` does.")


def _tell_later(counts: Counts, old: str) -> None:
    """Print how many tasks of `old` wait for their time; of all routes, where the queue does not tell it."""
    waits = [counts.of(Lane(old, kind)).waiting for kind in Kind]
    known = [number for number in waits if number is not None]
    waiting = sum(known) if known else counts.waiting
    if waiting:
        click.echo(
            f"Tasks of {one_line(old) if known else 'all routes'} that wait for a retry or a re-check: "
            f"{waiting}. Those of {one_line(old)} come to its queue when their time comes, within "
            f"{MAX_DELAY // 60} minutes: run this again then."
        )


async def dead_by_route(queue: Queue) -> tuple[dict[str, int], bool]:
    """Return how many dead letters there are of each route, and whether all were seen within COUNT_WITHIN."""
    counts: Counter[str] = Counter()
    with suppress(TimeoutError):
        async with asyncio.timeout(COUNT_WITHIN), aclosing(entries(queue)) as all_:
            async for entry in all_:
                counts[entry.route or ""] += 1
            return dict(counts), True
    return dict(counts), False
