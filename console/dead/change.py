"""`hookmirror dead replay` and `dead drop`: count first, ask, then do it."""

import sys
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import click

from common.queue.port import Queue
from console.dead.options import all_option, dry_run_option, progress, where_options
from console.dead.summary import Survey, survey
from console.dead.where import Where
from console.options import config_option, json_option, print_json, print_table, sure, with_queue, yes_option

COMES_BACK = {
    "BrakeOn": "If the deletes are meant:  hookmirror brake release ROUTE",
    "Unreadable": "Their bytes are no task: see them with  hookmirror dead show ID  and drop them",
}
"""Reasons that a replay does not mend, and what does."""

Change = Callable[[Queue, Collection[str]], Awaitable[set[str]]]

ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...")


@click.command()
@config_option
@json_option
@all_option
@dry_run_option
@yes_option
@where_options
@ids_argument
def replay(ids: tuple[str, ...], everything: bool, where: Where, **options: Any) -> None:
    """Send dead letters back, by id or all that match.

    Dead letters named by their ids go at once. With --where and its kin, or --all, they are counted first,
    shown by group, and you are asked; exactly what was counted goes, not what is dead-lettered meanwhile.
    """
    _change("replay", lambda queue, chosen: queue.replay(chosen), ids, where, everything, **options)


@click.command()
@config_option
@json_option
@all_option
@dry_run_option
@yes_option
@where_options
@ids_argument
def drop(ids: tuple[str, ...], everything: bool, where: Where, **options: Any) -> None:
    """Delete dead letters for good, by id or all that match.

    Those that match are counted first, and you are asked. `dead export` keeps them in a file; `dead check`
    says which are not needed any more.
    """
    _change("drop", lambda queue, chosen: queue.drop(chosen), ids, where, everything, **options)


def _change(
    verb: str,
    change: Change,
    ids: tuple[str, ...],
    where: Where,
    everything: bool,
    *,
    config: str | None,
    as_json: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    if bool(ids) + bool(where) + everything != 1:
        raise click.UsageError(
            f"say which dead letters to {verb}: their ids, or --where and its kin, or --all; one of the three"
        )
    found = with_queue(config, lambda queue: _found(queue, ids, where))
    missing = sorted(set(ids) - set(found.ids))
    if dry_run:
        show_count(f"would {verb}", found, missing, as_json=as_json)
    elif not as_json and not ids:
        show_count(f"to {verb}", found, missing, as_json=False)
    if verb == "replay":
        _say_what_comes_back(found)
    if dry_run:
        sys.exit(1 if missing else 0)
    if found.ids and not ids:  # named by their ids they go at once
        sure(f"{verb} these {found.summary.count} dead letters?", yes=yes)
    done = carry_out(config, verb, change, found.ids) if found.ids else set[str]()
    _report(verb, found, done, missing, ids=ids, as_json=as_json)


async def _found(queue: Queue, ids: tuple[str, ...], where: Where) -> Survey:
    """Return what is meant: these dead letters, or all that match."""
    named = set(ids)
    return await survey(queue, (lambda entry: entry.letter.id in named) if named else where, named=named)


def _say_what_comes_back(found: Survey) -> None:
    """Warn of dead letters that a replay only sends round."""
    for reason, cure in COMES_BACK.items():
        count = sum(group.count for (_, name), group in found.summary.groups.items() if name == reason)
        if count:
            click.echo(f"{reason}: {count} come straight back as dead letters. {cure}", err=True)


def past(verb: str) -> str:
    """The verb for what is over."""
    return {"replay": "replayed", "drop": "dropped"}[verb]


def carry_out(config: str | None, verb: str, change: Change, ids: Collection[str]) -> set[str]:
    """Change the dead letters `ids`, with a bar on a terminal; return the ids found."""

    async def change_all(queue: Queue) -> set[str]:
        with progress() as bar:
            bar.add_task(f"{verb} {len(ids)} dead letters", total=None)
            return await change(queue, ids)

    return with_queue(config, change_all)


def show_count(words: str, found: Survey, missing: list[str], *, as_json: bool, **more: int) -> None:
    """Print how many dead letters are meant, by group, and which ids are none; `more` goes into the JSON."""
    summary = found.summary
    if as_json:
        counted = {words.replace(" ", "_"): summary.count, "groups": summary.as_list()}
        print_json(counted | more | ({"missing": missing} if missing else {}))
    else:
        if summary.count:
            print_table(summary.as_table())
        click.echo(f"{words}: {summary.count} of {summary.seen + found.unseen} dead letters")
    _say_missing(missing)


def _say_missing(missing: list[str]) -> None:
    for id_ in missing:
        click.echo(f"no dead letter has the id {id_}. List them:  hookmirror dead list", err=True)


def _report(
    verb: str, found: Survey, done: set[str], missing: list[str], *, ids: tuple[str, ...], as_json: bool
) -> None:
    gone = set(found.ids) - done
    if as_json:
        rest = {"missing": sorted({*missing, *gone})} if ids else {"gone": len(gone)}
        print_json({past(verb): sorted(done)} | rest)
    elif ids or found.ids:
        click.echo(f"{past(verb)}: {len(done)}" + (f"; {len(gone)} were gone by then" if gone else ""))
    _say_missing(missing)
    if missing or (ids and gone):
        sys.exit(1)
