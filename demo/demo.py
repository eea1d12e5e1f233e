"""`hookmirror demo`: two clouds, a busy user, unreliable hooks; and in the end two equal buckets."""

import asyncio
import json
import logging
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import uvloop
from rich.console import Console

from common import telemetry
from common.store.port import State
from demo.compare import compare
from demo.services import ServiceError
from demo.stage import Options, Stage, is_empty, open_empty, set_up, until_quiet
from demo.tally import Tally
from demo.view import Scene, lag, megabytes, sample, shown
from demo.workload import User, plan, remaining

WORK_WITHIN = 240.0
SETTLE_WITHIN = 90.0
SHOWN = 20
"""Differences printed before the rest is only counted."""

INTERRUPTED = 130


@dataclass(slots=True)
class Verdict:
    """How it ended. `problems` are sentences; without one the buckets are equal and nothing is left over."""

    objects: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all is well."""
        return not self.problems


@click.command()
@click.option(
    "--queue", help="Work over this RabbitMQ, as three processes.  [default: embedded, one process]"
)
@click.option(
    "--objects", default=300, show_default=True, type=click.IntRange(1, 5000), help="Work on so many keys."
)
@click.option("--seed", type=int, help="Replay the user and the chances of delivery.  [default: a new one]")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the verdict as JSON, progress on standard error."
)
@click.option("--keep", is_flag=True, help="Keep configuration, logs and data, and say where.")
def demo(queue: str | None, objects: int, seed: int | None, as_json: bool, keep: bool) -> None:
    """See it all work on this machine, with nothing configured.

    Two real S3 servers on loopback play MCS and AWS. A stand-in for MCS's publishing service sends hooks
    for what a busy user does: late, twice, in any order. Receiver and workers mirror it. In the end both
    buckets are compared object by object; the exit code is 0 only when they are equal.
    """
    options = Options(queue, objects, secrets.randbelow(100_000) if seed is None else seed)
    os.environ.update(NO_PROXY="*", no_proxy="*")  # everything is on loopback, or a broker of one's own
    sys.exit(uvloop.run(_main(options, Console(stderr=as_json), keep=keep, as_json=as_json)))


async def _main(options: Options, console: Console, *, keep: bool, as_json: bool) -> int:
    playing = asyncio.ensure_future(_play(options, console, keep=keep, as_json=as_json))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _interrupt, playing)
    try:
        return await playing
    except asyncio.CancelledError:
        console.print("Interrupted. Everything that was started has been stopped and removed.")
        return INTERRUPTED


def _interrupt(playing: asyncio.Future[int]) -> None:
    """Stop, once: a second Ctrl-C must not break off the tidying up."""
    if isinstance(playing, asyncio.Task) and not playing.cancelling():
        playing.cancel()


async def _play(options: Options, console: Console, *, keep: bool, as_json: bool) -> int:
    scene = Scene(f"hookmirror demo · seed {options.seed} · {_where(options)}", Tally())
    verdict = Verdict()
    with _folder(keep, console) as folder, (folder / "demo.log").open("a") as log:
        telemetry.configure(fmt="json", stream=log)
        queue = await open_empty(options.url(folder))
        async with shown(scene, console):
            async with set_up(options, folder, queue, scene.tally, scene.tell) as stage:
                await _perform(options, stage, scene, verdict)
                scene.tell("stopping the servers")
            scene.tell("done")
        logging.getLogger().handlers.clear()  # the log is about to be closed
    if as_json:
        click.echo(json.dumps(_as_dict(options, scene, verdict), indent=2, default=str))
    else:
        _report(options, scene, verdict, console)
    return 0 if verdict.equal else 1


@contextmanager
def _folder(keep: bool, console: Console) -> Iterator[Path]:
    """Yield a folder of our own, removed at the end unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="hookmirror-demo-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"Kept: {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder)


async def _perform(options: Options, stage: Stage, scene: Scene, verdict: Verdict) -> None:
    """Let the user work, let everything come to rest, stop the services, compare."""
    rng = random.Random(options.seed)  # noqa: S311 - replayable chance
    steps = plan(options.objects, rng)
    user = User(stage.user, stage.requests, rng=rng)

    def look() -> None:
        scene.done, scene.uploaded = sum(user.done.values()), user.sent
        scene.sent, scene.pending = stage.mcs.sent, stage.mcs.pending

    scene.look, scene.steps = look, len(steps)
    sampling = asyncio.create_task(sample(scene, stage.queue))
    try:
        scene.tell("the user works, the hooks come late, twice and shuffled")
        await stage.watched(_within(WORK_WITHIN, user.work(steps)))
        await stage.watched(_settle(stage, scene, verdict))
        await _check_rest(stage, scene, verdict)
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    await _compare(stage, scene, verdict, remaining(steps))


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError as error:
        raise ServiceError(
            f"the user has not finished within {seconds:.0f} s; try fewer --objects"
        ) from error


async def _settle(stage: Stage, scene: Scene, verdict: Verdict) -> None:
    """Wait until every hook is delivered and every task and its re-check is done."""
    try:
        async with asyncio.timeout(SETTLE_WITHIN):
            scene.tell("the user is done, the last hooks are on their way")
            await stage.mcs.drained()
            scene.tell("every hook is delivered, the last tasks are done")
            await until_quiet(stage.queue, lambda: scene.tally.attempts)
    except TimeoutError:
        verdict.problems.append(f"the queue has not come to rest within {SETTLE_WITHIN:.0f} s")


async def _check_rest(stage: Stage, scene: Scene, verdict: Verdict) -> None:
    """Stop the services; then the queue tells exactly what is left, for nothing is in anybody's hands."""
    scene.tell("stopping receiver and workers")
    for name, code in (await stage.stop_services()).items():
        if code != 0:
            verdict.problems.append(f"{name} ended with exit code {code} instead of 0")
    scene.counts = counts = await stage.queue.counts()
    if not is_empty(counts):
        left = sum(counts.ready.values()) + counts.waiting + (counts.held or 0)
        verdict.problems.append(f"{left} tasks are left in the queue")
    verdict.problems += [f"dead letter: {letter.why}" for letter in await stage.dead()]
    if lost := stage.mcs.sent.abandoned:
        verdict.problems.append(f"the stand-in gave up on {lost} records that nobody would take")


async def _compare(stage: Stage, scene: Scene, verdict: Verdict, expected: set[str]) -> None:
    scene.tell("comparing both buckets, object by object")
    scene.objects = len(expected)

    def progress(state: State) -> None:
        verdict.objects += 1
        verdict.bytes += state.size
        scene.compared = verdict.objects

    verdict.problems += await compare(stage.source, stage.target, progress=progress)
    if verdict.equal and verdict.objects != len(expected):
        verdict.problems.append(f"{verdict.objects} objects compared, but the user left {len(expected)}")


def _where(options: Options) -> str:
    if options.queue is None:
        return "SQLite, one process"
    return f"RabbitMQ at {urlsplit(options.queue).hostname}, three processes"


def _report(options: Options, scene: Scene, verdict: Verdict, console: Console) -> None:
    """Print the verdict for people."""
    sent, actions = scene.sent, scene.tally.actions
    refused = actions["hook_refused"] + actions["hook_deferred"]
    lines = [
        f"{sent.events} changes; hooks {sent.hooks} with {sent.records} records "
        f"(duplicates {sent.duplicates}, refused {refused})",
        f"copied {actions['copied']} ({megabytes(scene.tally.bytes)}), deleted {actions['deleted']}, "
        f"skipped {actions['skipped']}, retried {scene.tally.retried}, dead letters {actions['buried']}",
        f"lag {lag(scene.tally)}",
        f"{scene.elapsed:.0f} s. The same again:  {_again(options)}",
    ]
    if verdict.equal:
        head = f"{verdict.objects} objects, {megabytes(verdict.bytes)}, byte for byte and in metadata."
        console.print(f"[bold green]EQUAL[/bold green]: {head}", highlight=False, soft_wrap=True)
    else:
        head = f"[bold red]NOT EQUAL[/bold red]: {len(verdict.problems)} problems"
        console.print(head, highlight=False)
        for problem in verdict.problems[:SHOWN]:
            console.print(f"  - {problem}", markup=False, highlight=False, soft_wrap=True)
        if len(verdict.problems) > SHOWN:
            lines.insert(0, f"and {len(verdict.problems) - SHOWN} more")
        lines += [f"warning: {warning}" for warning in scene.tally.warnings]
    for line in lines:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _again(options: Options) -> str:
    queue = " --queue URL" if options.queue else ""  # it may hold a password
    objects = f" --objects {options.objects}" if options.objects != 300 else ""
    return f"{_command()} demo --seed {options.seed}{objects}{queue}"


def _command() -> str:
    """Return what to call: the command beside the Python that runs, which need not be on the PATH."""
    beside = Path(sys.executable).with_name("hookmirror")
    if shutil.which("hookmirror") == str(beside):
        return "hookmirror"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _as_dict(options: Options, scene: Scene, verdict: Verdict) -> dict[str, object]:
    """Return the verdict for programs."""
    tally = scene.tally
    return {
        "equal": verdict.equal,
        "problems": verdict.problems,
        "objects": verdict.objects,
        "bytes": verdict.bytes,
        "seed": options.seed,
        "seconds": round(scene.elapsed, 1),
        "hooks": asdict(scene.sent) | {"duplicates": scene.sent.duplicates},
        "actions": dict(tally.actions),
        "lag": {"p50": tally.lag(50), "p95": tally.lag(95), "max": max(tally.lags, default=None)},
    }
