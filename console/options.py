"""What several commands have in common: options, JSON and tables, a queue for one call, being sure."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from common import settings as configuration
from common.queue import open_queue
from common.queue.port import Queue

T = TypeVar("T")

WIDE = 60
"""Letters in a cell up to which the cells of its column are made as wide: one long key would move all."""

config_option = click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False),
    help="Read this configuration file.  [default: $HOOKMIRROR_CONFIG, or hookmirror.toml here]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask, for scripts.")


def with_queue(config: str | None, call: Callable[[Queue], Awaitable[T]], *, policies: bool = False) -> T:
    """Open the configured queue, which must be there, make one call with it, close it, and return what the
    call returned. Only with `policies` are those of the broker looked at."""
    settings = configuration.start(config)
    management = settings.queue.management_url if policies else None

    async def once() -> T:
        queue = await open_queue(
            settings.queue.url,
            look_after=settings.worker.look_after,
            create=False,
            management=management,
        )
        try:
            return await call(queue)
        finally:
            await queue.close()

    return asyncio.run(once())


def at_terminal() -> bool:
    """Whether there is a person to ask."""
    return sys.stdin.isatty()


def sure(question: str, *, yes: bool) -> None:
    """Return when the person agrees, or `yes` says so; else the command ends here."""
    if yes:
        return
    if not at_terminal():
        raise click.UsageError(f"{question} Nobody is there to be asked: add --yes.")
    click.confirm(question, abort=True, err=True)


def print_table(table: Table) -> None:
    """Print `table` as wide as the terminal; into a pipe or a file a row a line, and nothing cut."""
    if not sys.stdout.isatty():
        _print_plain(table)
        return
    for column in table.columns:
        column.overflow = "fold"  # an id that is cut cannot be copied
    Console().print(table)


def _print_plain(table: Table) -> None:
    columns = [[str(cell).replace("\n", "; ") for cell in (c.header, *c.cells)] for c in table.columns]
    widths = [min(max(map(len, column)), WIDE) for column in columns]
    for row in zip(*columns, strict=True):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: Any) -> None:
    """Print `value` as JSON, for programs."""
    click.echo(json.dumps(value, indent=2, default=str))
