"""`hookmirror dead ...`: the dead letters, for a person."""

import click

from console.dead.change import drop, replay
from console.dead.check import check
from console.dead.export import export
from console.dead.look import list_, show


@click.group()
def dead() -> None:
    """List, replay, export, check or drop the dead letters.

    A dead letter is a task that no attempt could do. It is kept whole, with its reason and what was tried,
    until a person decides.

    \b
    Which of them: the same options for each command.
      --route ROUTE       of this route ("-": of none, for what is no task)
      --reason REASON     for this reason, as `dead list` names it: Refused, StoreAway, ...
      --key-prefix TEXT   whose key begins so
      --since WHEN        dead-lettered since: 90s, 45m, 2h, 3d, 1w, or a time as 2026-11-22T10:00
      --where FIELD=VALUE the same in one option: --where reason=StoreAway --where since=2h
    One field given twice means either value; different fields must all agree.

    Listing changes neither their number nor their order. A replayed task is durable in its queue before its
    dead letter goes, so that an interrupted replay repeats work and loses none. All of it may be done while
    workers run.
    """


for command in (list_, show, replay, drop, export, check):
    dead.add_command(command)
