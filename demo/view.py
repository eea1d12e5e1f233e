"""The demo seen: a live table on a terminal, a line now and then anywhere else."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.errors import QueueAway
from common.queue.port import Counts, Queue
from demo.outbox import Sent
from demo.tally import Tally

LINE_EVERY = 3.0
SAMPLE_EVERY = 0.4
LABEL = 11


@dataclass(slots=True)
class Scene:
    """What there is to see; whoever knows a number writes it here."""

    title: str
    tally: Tally
    phase: str = ""
    steps: int = 0
    done: int = 0
    uploaded: int = 0
    compared: int = 0
    objects: int = 0
    sent: Sent = field(default_factory=Sent)
    pending: int = 0
    counts: Counts = field(default_factory=Counts)
    look: Callable[[], None] = lambda: None
    start: float = field(default_factory=time.monotonic)

    def tell(self, phase: str) -> None:
        """Say what is being done now."""
        self.phase = phase

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.start


def megabytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e6:.1f} MB"


def lag(tally: Tally) -> str:
    """Return the lag for people: from the hook's arrival to the end of its task."""
    values = {percent: tally.lag(percent) for percent in (50, 95)}
    if not tally.lags:
        return "-"
    return (
        "  ".join(f"p{percent} {value:.2f} s" for percent, value in values.items())
        + f"  max {max(tally.lags):.2f} s"
    )


def queue(counts: Counts) -> str:
    """Return the depths for people; what is in progress is unknown to some queues."""
    held = "" if counts.held is None else f"  in progress {counts.held}"
    return f"ready {sum(counts.ready.values())}  waiting {counts.waiting}{held}"


def line(scene: Scene) -> str:
    """Return the scene as one line, for a log."""
    scene.look()
    sent, actions, at = scene.sent, scene.tally.actions, f"{scene.elapsed:5.1f}"
    return (
        f"[{at} s] {scene.phase} | user {scene.done}/{scene.steps} {megabytes(scene.uploaded)}"
        f" | hooks {sent.hooks} ({sent.records} records) | {queue(scene.counts)}"
        f" | copied {actions['copied']} deleted {actions['deleted']} skipped {actions['skipped']}"
        f" retried {scene.tally.retried} dead letters {scene.counts.dead} | lag {lag(scene.tally)}"
    )


def panel(scene: Scene) -> RenderableType:
    """Return the scene as a panel, for a terminal."""
    scene.look()
    table = Table.grid(padding=(0, 2))
    table.add_column(width=LABEL, style="bold")
    table.add_column(justify="right", width=7)
    table.add_column(style="dim", no_wrap=True)
    sent, actions, tally = scene.sent, scene.tally.actions, scene.tally
    table.add_row(
        "hooks",
        f"{sent.hooks}",
        f"{sent.records} records, {sent.duplicates} duplicates; {scene.pending} still on their way",
    )
    table.add_row("queue", f"{sum(scene.counts.ready.values())}", _queue_note(scene.counts))
    table.add_row("copied", _count(actions["copied"], "green"), megabytes(tally.bytes))
    table.add_row("deleted", _count(actions["deleted"], "green"), "")
    table.add_row("skipped", _count(actions["skipped"], "cyan"), "nothing left to do: late hooks, re-checks")
    later = actions["look_later"]
    table.add_row("overtaken", _count(later, "cyan"), "the hook said one thing, the source another")
    table.add_row(
        "retried",
        _count(tally.retried, "yellow"),
        f"{tally.turns} more only waited: another task had their key",
    )
    table.add_row("dead letters", _count(scene.counts.dead, "bold red"), "given up, for a person")
    table.add_row("lag", "", lag(tally))
    head = Text.assemble((f"{scene.elapsed:5.1f} s  ", "bold"), (scene.phase, "bold magenta"))
    content = Group(head, Padding(_progress(scene), (1, 0)), table)
    return Panel(content, title=f"[bold]{scene.title}[/bold]", border_style="blue", padding=(1, 2), width=86)


def _progress(scene: Scene) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=LABEL, style="bold")
    rows = [
        ("user", scene.done, scene.steps, f"{scene.done}/{scene.steps} steps, {megabytes(scene.uploaded)}")
    ]
    rows.append(("compared", scene.compared, scene.objects, f"{scene.compared}/{scene.objects} objects"))
    for name, done, total, note in rows:
        grid.add_row(name, ProgressBar(max(total, 1), done, width=28), Text(note, style="dim"))
    return grid


def _queue_note(counts: Counts) -> str:
    held = "" if counts.held is None else f"{counts.held} in progress, "
    return f"ready; {held}{counts.waiting} waiting for a retry or a re-check"


def _count(number: int, style: str) -> Text:
    return Text(str(number), style=style if number else "dim")


@asynccontextmanager
async def shown(scene: Scene, console: Console) -> AsyncIterator[None]:
    """Show the scene for as long as the block lasts, and once more at its end."""
    if console.is_terminal:
        with Live(get_renderable=lambda: panel(scene), console=console, refresh_per_second=5):
            yield
        return
    printing = asyncio.create_task(_print(scene, console))
    try:
        yield
    finally:
        printing.cancel()
        await asyncio.gather(printing, return_exceptions=True)
        _print_line(scene, console)


async def _print(scene: Scene, console: Console) -> None:
    while True:
        await asyncio.sleep(LINE_EVERY)
        _print_line(scene, console)


def _print_line(scene: Scene, console: Console) -> None:
    console.print(line(scene), soft_wrap=True, highlight=False, markup=False)


async def sample(scene: Scene, source: Queue) -> None:
    """Keep the depths of the scene up to date, for ever; while the queue is away they are nought."""
    while True:
        try:
            scene.counts = await source.counts()
        except QueueAway:
            scene.counts = Counts()
        await asyncio.sleep(SAMPLE_EVERY)
