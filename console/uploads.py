"""`hookmirror uploads ...`: copies in parts that nobody will finish, and that the target still bills."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import click
from rich.table import Table
from rich.text import Text

from common import settings as configuration
from common import telemetry
from common.errors import ConfigError
from common.settings import Settings
from common.store.port import OpenUpload
from common.telemetry import one_line
from console.options import config_option, json_option, print_json, print_table, sure, yes_option
from worker.job import Route
from worker.program import open_routes, open_stores

DAY = 24.0

older_option = click.option(
    "--older-than",
    "hours",
    default=7 * DAY,
    show_default=True,
    help="Only uploads begun so many hours ago or earlier; younger ones may still be at work.",
)


@dataclass(frozen=True, slots=True)
class Found:
    """An open upload, and by which route's target."""

    route: str
    upload: OpenUpload


@dataclass(slots=True)
class Survey:
    """The uploads that are old enough to be meant, and how many are younger."""

    old: list[Found] = field(default_factory=list)
    younger: int = 0


@click.group()
def uploads() -> None:
    """List and clear copies in parts that were never finished.

    A worker aborts its uploads itself; one is left behind when a worker dies in the moment between
    opening it and telling the queue, or when a task is dropped. Every open upload below a route's
    target and target_prefix is shown: on a bucket that others write to as well, see before you clear.
    """


@uploads.command(name="list")
@config_option
@json_option
@older_option
def list_(config: str | None, as_json: bool, hours: float) -> None:
    """List the open uploads on the targets of all routes."""
    found = asyncio.run(_survey(_read(config), hours))
    if as_json:
        print_json([_as_dict(one) for one in found.old])
        return
    _print(found, hours)
    if found.old:
        click.echo("\nNext:  hookmirror uploads clear --dry-run")


@uploads.command()
@config_option
@json_option
@older_option
@click.option("--dry-run", is_flag=True, help="Only list what would be aborted.")
@yes_option
def clear(config: str | None, as_json: bool, hours: float, dry_run: bool, yes: bool) -> None:
    """Abort the open uploads on the targets of all routes.

    That frees what they store. They are listed first, and you are asked; exactly what was listed is aborted.
    An upload that is still at work begins anew.
    """
    settings = _read(config)
    found = asyncio.run(_survey(settings, hours))
    if not as_json:
        _print(found, hours)
    if found.old and not dry_run:
        sure(f"abort these {len(found.old)} uploads?", yes=yes)
        asyncio.run(_abort(settings, found.old))
    if as_json:
        print_json([_as_dict(one) for one in found.old])
    elif found.old:
        click.echo(f"{'would abort' if dry_run else 'aborted'}: {len(found.old)}")


def _read(config: str | None) -> Settings:
    settings = configuration.load(config)
    telemetry.configure(fmt=configuration.log_format(), secrets=settings.secrets())
    if not settings.routes:
        raise ConfigError("routes: there is none. Add:  [[routes]]  with source and target")
    return settings


async def _survey(settings: Settings, hours: float) -> Survey:
    found, before = Survey(), time.time() - hours * 3600
    async with AsyncExitStack() as stack:
        async for one in _open_uploads(await _targets(settings, stack)):
            if one.upload.started <= before:
                found.old.append(one)
            else:
                found.younger += 1
    return found


async def _abort(settings: Settings, old: list[Found]) -> None:
    async with AsyncExitStack() as stack:
        targets = await _targets(settings, stack)
        for one in old:
            await targets[one.route].target.abort_upload(one.upload.key, one.upload.id)


async def _targets(settings: Settings, stack: AsyncExitStack) -> dict[str, Route]:
    """Return the routes that have a target, opened."""
    routes = open_routes(settings, await open_stores(settings, stack))
    return {id_: route for id_, route in routes.items() if route.destination is not None}


async def _open_uploads(targets: dict[str, Route]) -> AsyncIterator[Found]:
    seen: set[tuple[str, str]] = set()
    for route in targets.values():
        async for upload in route.target.uploads(route.target_prefix):
            name = (route.target.place, upload.id)
            if name not in seen:  # two routes may share a target
                seen.add(name)
                yield Found(route.id, upload)


def _as_dict(one: Found) -> dict[str, object]:
    upload = one.upload
    return {"route": one.route, "key": upload.key, "upload": upload.id, "started": upload.started}


def _print(found: Survey, hours: float) -> None:
    if found.old:
        table = Table("begun", "route", "key", box=None, header_style="bold")
        for one in found.old:
            begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.upload.started))
            table.add_row(begun, Text(one_line(one.route)), Text(one_line(one.upload.key)))
        print_table(table)
    elif not found.younger:
        click.echo("No open uploads.")
    else:
        click.echo(f"No open upload is older than {hours:g} hours.")
    if found.younger:
        click.echo(
            f"Younger than {hours:g} hours: {found.younger}, which may still be at work. "
            "To see them too:  hookmirror uploads list --older-than 0"
        )
