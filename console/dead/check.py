"""`hookmirror dead check`: which dead letters are not needed any more."""

from collections import Counter
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from common import settings as configuration
from common.queue.port import Queue
from common.settings import Settings
from common.telemetry import one_line
from console.dead.change import carry_out
from console.dead.compare import Comparison, Finding, Key, Standing, by_key
from console.dead.options import entries, limit_option, progress, where_options
from console.dead.where import NO_ROUTE, Where
from console.options import config_option, json_option, print_json, print_table, sure, with_queue, yes_option
from worker.program import open_routes, open_stores

NO_TASK = Finding(Standing.CANNOT_TELL, "the dead letter is no task")


@dataclass(slots=True)
class Checked:
    """What was found: of each letter by its id, and the key it is about."""

    findings: dict[str, Finding] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)

    def ids(self, standing: Standing) -> list[str]:
        """The dead letters that stand so."""
        return [id_ for id_, finding in self.findings.items() if finding.standing is standing]

    def reasons(self, standing: Standing) -> Counter[str]:
        """How often each sentence was found."""
        return Counter(f.why for f in self.findings.values() if f.standing is standing)


@click.command()
@config_option
@json_option
@limit_option
@click.option("--drop", is_flag=True, help="Then drop those that are in sync; asks first.")
@yes_option
@where_options
def check(config: str | None, as_json: bool, limit: int, drop: bool, yes: bool, where: Where) -> None:
    """Say which dead letters' keys are in sync by now.

    Source and target are compared, and nothing is written.

    A dead letter whose key is in sync has nothing left to do: its object was copied since by another event,
    or is gone on both sides. It may be dropped. One that differs is worth a replay.
    """
    settings = configuration.load(config)
    checked = with_queue(config, lambda queue: _check(settings, queue, where))
    in_sync = checked.ids(Standing.IN_SYNC)
    if not as_json:
        _print(checked, limit)
    dropped: set[str] = set()
    if drop and in_sync:
        sure(f"drop the {len(in_sync)} dead letters that are in sync?", yes=yes)
        dropped = carry_out(config, "drop", lambda queue, ids: queue.drop(ids), in_sync)
    if as_json:
        print_json(_as_dict(checked) | ({"dropped": sorted(dropped)} if drop else {}))
    elif drop:
        click.echo(f"dropped: {len(dropped)}")
    elif in_sync:
        click.echo("\nNext:  the same with --drop")


async def _check(settings: Settings, queue: Queue, where: Where) -> Checked:
    checked = Checked()
    # All are read before the first is compared: reading holds them, and comparing may take long.
    async with aclosing(entries(queue)) as found:
        async for entry in found:
            if where(entry):
                checked.findings[entry.letter.id] = NO_TASK
                if entry.task is not None:
                    checked.keys[entry.letter.id] = (entry.task.route, entry.task.key)
    letters = by_key(checked.keys.items())
    async with AsyncExitStack() as stack:
        stores = await open_stores(settings, stack)
        comparison = Comparison(open_routes(settings, stores))
        bar = stack.enter_context(progress())
        task = bar.add_task("comparing", total=len(letters))

        def done(key: Key, finding: Finding) -> None:
            bar.advance(task)
            checked.findings |= dict.fromkeys(letters[key], finding)

        await comparison.each(letters, done)
    return checked


def _print(checked: Checked, limit: int) -> None:
    if not checked.findings:
        click.echo("No dead letters to check.")
        return
    differing = checked.ids(Standing.DIFFERS)[:limit]
    if differing:
        table = Table("id", "route", "key", "found", box=None, header_style="bold")
        for id_ in differing:
            route, key = checked.keys.get(id_, (NO_ROUTE, ""))
            # Text, since a plain string would be read as markup: a key may hold [/red] or :smile:.
            table.add_row(id_, Text(one_line(route)), Text(one_line(key)), checked.findings[id_].why)
        print_table(table)
        click.echo("")
    click.echo(f"in sync      {len(checked.ids(Standing.IN_SYNC))}  (may be dropped)")
    click.echo(f"differs      {len(checked.ids(Standing.DIFFERS))}")
    click.echo(f"cannot tell  {len(checked.ids(Standing.CANNOT_TELL))}")
    for why, count in checked.reasons(Standing.CANNOT_TELL).most_common(limit):
        click.echo(f"  {count}  {one_line(why)}")


def _as_dict(checked: Checked) -> dict[str, Any]:
    return {
        **{standing.value.replace(" ", "_"): len(checked.ids(standing)) for standing in Standing},
        "letters": [
            {
                "id": id_,
                "standing": finding.standing,
                "why": finding.why,
                "route": checked.keys[id_][0] if id_ in checked.keys else None,
                "key": checked.keys[id_][1] if id_ in checked.keys else None,
            }
            for id_, finding in checked.findings.items()
        ],
    }
