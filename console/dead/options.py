"""What the commands on dead letters have in common: which are meant, and going over them."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import wraps
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from common.queue.port import Queue
from console.dead.letter import Entry, read
from console.dead.where import condition, where

Command = Callable[..., None]

dry_run_option = click.option("--dry-run", is_flag=True, help="Only count them, by route and reason.")
all_option = click.option("--all", "everything", is_flag=True, help="Take every dead letter there is now.")
limit_option = click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(min=0), help="Show at most so many of them."
)


def where_options(command: Command) -> Command:
    """Give `command` the options that say which dead letters are meant; it gets them as `where`."""

    @wraps(command)
    def with_where(*, conditions: tuple[str, ...], **values: Any) -> None:
        try:
            pairs = [condition(text) for text in conditions]
            for name in ("route", "reason", "key_prefix", "since"):
                pairs += [(name.replace("_", "-"), value) for value in values.pop(name)]
            meant = where(pairs, time.time())
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        command(where=meant, **values)

    for option in (
        click.option(
            "--since",
            multiple=True,
            metavar="WHEN",
            help="Only those dead-lettered since: 2h, 3d, 2026-11-22T10:00.",
        ),
        click.option("--key-prefix", multiple=True, metavar="TEXT", help="Only those whose key begins so."),
        click.option(
            "--reason", multiple=True, metavar="REASON", help="Only those with this reason, like StoreAway."
        ),
        click.option(
            "--route", multiple=True, metavar="ROUTE", help="Only those of this route; - for what is no task."
        ),
        click.option(
            "--where",
            "conditions",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Only those that fit, like reason=StoreAway; the other options say the same.",
        ),
    ):
        with_where = option(with_where)
    return with_where


async def entries(queue: Queue, doing: str = "reading") -> AsyncGenerator[Entry, None]:
    """Yield every dead letter, with a bar on a terminal."""
    total = (await queue.counts()).dead
    with progress() as bar:
        task = bar.add_task(doing, total=total)
        async with aclosing(queue.letters()) as letters:
            async for letter in letters:
                bar.advance(task)
                yield read(letter)


def progress() -> Progress:
    """Return a bar on standard error; none unless that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
