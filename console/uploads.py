"""`hookmirror uploads ...`: copies in parts that nobody will finish, and that the target still bills."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import click
from rich.table import Table
from rich.text import Text

from common import settings as configuration
from common.errors import ConfigError
from common.settings import Settings
from common.store.port import Bucket, OpenUpload
from common.telemetry import one_line
from console.options import config_option, json_option, print_json, print_table
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
    """An open upload, and where."""

    route: str
    bucket: Bucket
    upload: OpenUpload


@click.group()
def uploads() -> None:
    """List and clear copies in parts that were never finished.

    A worker aborts its uploads itself; one is left behind when a worker dies in the moment between
    opening it and telling the queue, or when a task is dropped. Every open upload below a route's
    target and target_prefix is shown: on a bucket that others write to as well, look before you clear.
    """


@uploads.command(name="list")
@config_option
@json_option
@older_option
def list_(config: str | None, as_json: bool, hours: float) -> None:
    """List the open uploads on the targets of all routes."""
    found = asyncio.run(_each(configuration.load(config), hours, clear=False))
    if as_json:
        print_json([_as_dict(one) for one in found])
    elif not found:
        click.echo("No open uploads.")
    else:
        print_table(_table(found))


@uploads.command()
@config_option
@json_option
@older_option
def clear(config: str | None, as_json: bool, hours: float) -> None:
    """Abort the open uploads on the targets of all routes, and free what they store."""
    found = asyncio.run(_each(configuration.load(config), hours, clear=True))
    if as_json:
        print_json([_as_dict(one) for one in found])
    else:
        click.echo(f"aborted: {len(found)}")


async def _each(settings: Settings, hours: float, *, clear: bool) -> list[Found]:
    if not settings.routes:
        raise ConfigError("routes: there is none. Add:  [[routes]]  with source and target")
    async with AsyncExitStack() as stack:
        found = [one async for one in _open_uploads(settings, time.time() - hours * 3600, stack)]
        for one in found if clear else ():
            await one.bucket.abort_upload(one.upload.key, one.upload.id)
    return found


async def _open_uploads(settings: Settings, before: float, stack: AsyncExitStack) -> AsyncIterator[Found]:
    seen: set[tuple[str, str]] = set()
    for route in open_routes(settings, await open_stores(settings, stack)).values():
        if route.destination is None:
            continue
        async for upload in route.target.uploads(route.target_prefix):
            name = (route.target.place, upload.id)
            if upload.started <= before and name not in seen:  # two routes may share a target
                seen.add(name)
                yield Found(route.id, route.target, upload)


def _as_dict(one: Found) -> dict[str, object]:
    upload = one.upload
    return {"route": one.route, "key": upload.key, "upload": upload.id, "started": upload.started}


def _table(found: list[Found]) -> Table:
    table = Table("begun", "route", "key", box=None, header_style="bold")
    for one in found:
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.upload.started))
        table.add_row(begun, Text(one_line(one.route)), Text(one_line(one.upload.key)))
    return table
