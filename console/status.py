"""`hookmirror status`: how deep the queue is."""

import click
from rich.table import Table

from common.queue.port import Counts, Lane
from console.options import config_option, json_option, print_json, print_table, with_queue


@click.command()
@config_option
@json_option
def status(config: str | None, as_json: bool) -> None:
    """Print how many tasks are ready, waiting for their time, being worked on, and dead.

    Waiting tasks are retries and the looks that follow each write after worker.look_after seconds.
    """
    counts = with_queue(config, lambda queue: queue.counts())
    if as_json:
        print_json(as_dict(counts))
    else:
        print_table(as_table(counts))


def as_dict(counts: Counts) -> dict[str, object]:
    """Return the depths as plain values; `held` is null where the queue cannot tell."""
    ready = {lane.value: counts.ready.get(lane, 0) for lane in Lane}
    return {"ready": ready, "waiting": counts.waiting, "held": counts.held, "dead": counts.dead}


def as_table(counts: Counts) -> Table:
    """Return the depths as a table."""
    table = Table("state", "tasks", "meaning", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for lane in Lane:
        table.add_row(f"ready ({lane})", str(counts.ready.get(lane, 0)), "a worker may take it now")
    table.add_row("waiting", str(counts.waiting), "a retry or a look, until its time comes")
    table.add_row("held", "-" if counts.held is None else str(counts.held), "in a worker's hands")
    style = "bold red" if counts.dead else ""
    table.add_row("dead", str(counts.dead), "see: hookmirror dead list", style=style)
    return table
