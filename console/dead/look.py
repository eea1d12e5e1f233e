"""`hookmirror dead list` and `dead show`."""

import sys
from contextlib import aclosing

import click
from rich.table import Table
from rich.text import Text

from common.queue.port import DeadLetter, Queue
from common.telemetry import one_line
from console.dead.letter import Entry, Tried, as_dict, attempts, body_text, clock, read
from console.dead.options import entries, limit_option, where_options
from console.dead.summary import Survey, survey
from console.dead.where import Where
from console.options import config_option, json_option, print_json, print_table, with_queue


@click.command(name="list")
@config_option
@json_option
@limit_option
@click.option("--check", is_flag=True, help="Exit 1 when there is any: a person is needed.")
@where_options
def list_(config: str | None, as_json: bool, limit: int, check: bool, where: Where) -> None:
    """List the dead letters, by route and reason.

    First how many there are of each, then the oldest with what was tried.
    """
    found = with_queue(config, lambda queue: survey(queue, where, limit))
    if as_json:
        print_json(
            {
                "dead": found.summary.seen + found.unseen,
                "matching": found.summary.count,
                "groups": found.summary.as_list(),
                "letters": [as_dict(read(letter)) for letter in found.oldest],
            }
        )
    elif not found.summary.count:
        click.echo("No dead letters." if not found.summary.seen else _none_of(found))
    else:
        _print_list(found)
    if found.unseen:
        click.echo(
            f"{found.unseen} more were in somebody else's hands or taken out meanwhile: list again.",
            err=True,
        )
    if check and (found.summary.count or found.unseen):
        sys.exit(1)


@click.command()
@config_option
@json_option
@click.argument("id_", metavar="ID")
def show(config: str | None, as_json: bool, id_: str) -> None:
    """Show one dead letter whole.

    Why it is one, what was tried and when, and its bytes.
    """
    entry = with_queue(config, lambda queue: _find(queue, id_))
    if entry is None:
        raise click.ClickException(f"no dead letter has the id {id_}. List them:  hookmirror dead list")
    if as_json:
        print_json(as_dict(entry))
    else:
        _print(entry)


async def _find(queue: Queue, id_: str) -> Entry | None:
    async with aclosing(entries(queue)) as found:
        async for entry in found:
            if entry.letter.id == id_:
                return entry
    return None


def _none_of(found: Survey) -> str:
    return f"No dead letter matches; there are {found.summary.seen}. See them all:  hookmirror dead list"


def _print_list(found: Survey) -> None:
    print_table(found.summary.as_table())
    if found.oldest:
        click.echo("")
        print_table(_table(found.oldest))
    rest = found.summary.count - len(found.oldest)
    if rest:
        click.echo(
            f"\n{rest} more: narrow them down with --route, --reason, --key-prefix, --since, or --limit."
        )
    click.echo("\nNext:  hookmirror dead show ID  |  dead replay --reason REASON --dry-run  |  dead check")


def _table(letters: list[DeadLetter]) -> Table:
    table = Table("id", "dead since", "key", "tried", box=None, header_style="bold")
    for column in table.columns[:2]:
        column.no_wrap = True
    for letter in letters:
        entry = read(letter)
        key = one_line(entry.key) if entry.key else f"({len(letter.body)} bytes that are no task)"
        # Text, since a plain string would be read as markup: a key may hold [/red] or :smile:.
        table.add_row(letter.id, clock(letter.at), Text(key), Text("\n".join(_tried(letter))))
    return table


def _tried(letter: DeadLetter) -> list[str]:
    """What was tried, a line for attempts in a row that ended alike; the reason alone if nothing was."""
    return [_line(tried) for tried in attempts(letter.failures)] or [one_line(letter.why)]


def _line(tried: Tried) -> str:
    first, last = tried.first, tried.last
    if first is last:
        return f"attempt {first.attempt} at {clock(first.at)}: {one_line(tried.why)}"
    return (
        f"attempts {first.attempt} to {last.attempt}, {clock(first.at)} to {clock(last.at)}: "
        f"{one_line(tried.why)}"
    )


def _print(entry: Entry) -> None:
    letter, task = entry.letter, entry.task
    rows = {
        "id": letter.id,
        "queue": letter.lane.kind.value,
        "since": clock(letter.at),
        "reason": entry.reason,
        "why": one_line(letter.why),
    }
    if task is not None:
        rows |= {"route": one_line(task.route), "key": one_line(task.key), "event": one_line(task.event)}
        rows |= {"received": clock(task.received)}
    for name, value in rows.items():
        click.echo(f"{name:<9} {value}")
    for failure in letter.failures:
        click.echo(f"attempt   {failure.attempt} at {clock(failure.at)}: {one_line(failure.why)}")
    click.echo(f"body      {one_line(body_text(entry))}")
