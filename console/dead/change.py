"""`hookmirror dead replay` and `dead drop`: count first, ask, then do it."""

import sys
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import click

from common.queue.port import Queue
from console.dead.options import all_option, dry_run_option, progress, sure, where_options, yes_option
from console.dead.summary import Survey, survey
from console.dead.where import Where
from console.options import config_option, json_option, print_json, print_table, with_queue

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
    """Send dead letters back to their lanes, as first attempts: those named, or those that match.

    Letters named by their ids go at once. With --where and its kin, or --all, they are counted first,
    shown by group, and you are asked; exactly what was counted goes, not what is buried meanwhile.
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
    """Delete dead letters for good: those named, or those that match, which are counted and asked for.

    `dead export` keeps them in a file; `dead check` says which are not needed any more.
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
            f"say which letters to {verb}: their ids, or --where and its kin, or --all; one of the three"
        )
    if ids and not dry_run:
        _report(verb, ids, carry_out(config, verb, change, ids), as_json)
        return
    named = set(ids)
    found = with_queue(
        config, lambda queue: survey(queue, (lambda e: e.letter.id in named) if named else where)
    )
    if dry_run:
        show_count(f"would {verb}", found, as_json=as_json)
        return
    if not as_json:
        show_count(f"to {verb}", found, as_json=False)
    if found.ids:
        sure(f"{verb} these {found.summary.count} dead letters?", yes=yes)
    done = carry_out(config, verb, change, found.ids) if found.ids else set[str]()
    missed = len(set(found.ids) - done)
    if as_json:
        print_json({past(verb): sorted(done), "gone": missed})
    elif found.ids:
        click.echo(f"{past(verb)}: {len(done)}" + (f"; {missed} were gone by then" if missed else ""))


def past(verb: str) -> str:
    """The verb for what is over."""
    return {"replay": "replayed", "drop": "dropped"}[verb]


def carry_out(config: str | None, verb: str, change: Change, ids: Collection[str]) -> set[str]:
    """Change the letters `ids`, with a bar on a terminal; return the ids found."""

    async def change_all(queue: Queue) -> set[str]:
        with progress() as bar:
            bar.add_task(f"{verb} {len(ids)} letters", total=None)
            return await change(queue, ids)

    return with_queue(config, change_all)


def show_count(words: str, found: Survey, *, as_json: bool) -> None:
    """Print how many letters are meant, by group."""
    summary = found.summary
    if as_json:
        print_json({words.replace(" ", "_"): summary.count, "groups": summary.as_list()})
        return
    if summary.count:
        print_table(summary.as_table())
    click.echo(f"{words}: {summary.count} of {summary.seen} dead letters")


def _report(verb: str, ids: tuple[str, ...], found: set[str], as_json: bool) -> None:
    missing = sorted(set(ids) - found)
    if as_json:
        print_json({past(verb): sorted(found), "missing": missing})
    else:
        click.echo(f"{past(verb)}: {len(found)}")
        for id_ in missing:
            click.echo(f"no dead letter has the id {id_}", err=True)
    sys.exit(1 if missing else 0)
