"""The demo's busy user, let loose on services that run elsewhere: what docker-compose's profile `demo` plays.

    python -m demo.visitor --objects 300

The configuration is that of the services; its first route's source must be reached through the stand-in for
MCS. Makes the buckets, registers the hook, works, waits until all has come to rest, and compares.
"""

import asyncio
import random
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import click
import uvloop

from common import settings as configuration
from common.errors import ConfigError, HookmirrorError, QueueAway
from common.queue import open_queue
from common.queue.port import Counts, Queue
from common.settings import Settings
from common.store.s3 import S3Bucket, S3Store
from demo.compare import compare
from demo.events import Subscription, write_configuration
from demo.gate import refuse_buckets
from demo.signed import SignedRequests
from demo.stage import is_empty
from demo.view import megabytes
from demo.workload import THINK, User, plan

START_WITHIN = 120.0
POLL = 1.0
TELL_EVERY = 2.0
QUIET = 3
"""Looks at the queue, in a row, that must find it empty: what is in a worker's hands is not seen there."""

SHOWN = 20


@dataclass(slots=True)
class Visit:
    """What the user meets: the source through the stand-in, the target, and the queue between."""

    source: S3Bucket
    target: S3Bucket
    requests: SignedRequests
    queue: Queue
    hook_url: str


@click.command()
@click.option(
    "--objects", default=300, show_default=True, type=click.IntRange(1, 5000), help="How many keys."
)
@click.option("--seed", type=int, help="Replay the user.  [default: a new one]")
@click.option(
    "--think", default=THINK, show_default=True, help="Wait so many seconds between two steps of a hand."
)
@click.option("--within", default=300.0, show_default=True, help="Seconds for the buckets to become equal.")
def main(objects: int, seed: int | None, think: float, within: float) -> None:
    """Work on the first route's source; exit with 0 when both buckets are equal in the end."""
    chosen = secrets.randbelow(100_000) if seed is None else seed
    try:
        sys.exit(uvloop.run(_visit(objects, chosen, think, within)))
    except HookmirrorError as error:
        click.echo(f"hookmirror: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


async def _visit(objects: int, seed: int, think: float, within: float) -> int:
    rng = random.Random(seed)  # noqa: S311 - replayable chance
    async with AsyncExitStack() as stack:
        visit = await _open(configuration.load(), stack)
        await _begin(visit)
        steps = plan(objects, rng)
        user = User(visit.source, visit.requests, rng=rng, think=think)
        _tell(f"seed {seed}: {objects} keys, {len(steps)} steps")

        async def progress() -> str:
            depths = _depths(await _counts(visit.queue))
            return f"user {sum(user.done.values())}/{len(steps)} steps, {megabytes(user.sent)} | {depths}"

        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell_on(progress))
            await user.work(steps)
            telling.cancel()
        _tell(await progress())
        return await _verdict(visit, within)


async def _open(settings: Settings, stack: AsyncExitStack) -> Visit:
    route = settings.routes[0] if settings.routes else None
    hook_url = settings.hook_url(route.source) if route else None
    if route is None or route.target is None or hook_url is None:
        raise ConfigError("the demo needs a route with a target, and receiver.public_url")
    refuse_buckets(settings)

    async def bucket(address: str) -> S3Bucket:
        name, _, bucket = address.partition(":")
        store = await S3Store.open(name, settings.stores[name])
        stack.push_async_callback(store.close)
        return store.bucket(bucket)

    queue = await open_queue(settings.queue.url, look_after=settings.worker.look_after)
    stack.push_async_callback(queue.close)
    account = settings.stores[route.source.partition(":")[0]]
    requests = await stack.enter_async_context(SignedRequests(account))
    source, target = await bucket(route.source), await bucket(route.target)
    return Visit(source, target, requests, queue, hook_url)


async def _begin(visit: Visit) -> None:
    """Make the buckets and register the hook, as soon as everybody concerned answers."""
    wanted = Subscription("1", visit.hook_url, ("s3:ObjectCreated:*", "s3:ObjectRemoved:*"))
    hook = write_configuration([wanted])
    await _insist(visit.source.create, "the source has not answered")
    await _insist(visit.target.create, "the target has not answered")
    await _insist(
        lambda: visit.requests("PUT", visit.source.name, query="notification", body=hook),
        "the hook was not confirmed",
    )
    _tell("both buckets are there, the hook is registered and confirmed")


async def _insist(call: Callable[[], Awaitable[object]], otherwise: str) -> None:
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            await call()
            return
        except HookmirrorError as error:
            if time.monotonic() > deadline:
                raise ConfigError(f"{otherwise} within {START_WITHIN:.0f} s: {error}") from error
        await asyncio.sleep(POLL)


async def _verdict(visit: Visit, within: float) -> int:
    """Compare whenever the queue is at rest, until the buckets are equal or time is up.

    The stand-in may still hold hooks then, which nobody here can see: one difference is not the end.
    """
    deadline = time.monotonic() + within
    while True:
        counts = await _rest(visit.queue, deadline)
        problems, objects = await _differences(visit)
        if counts is None or not is_empty(counts):
            problems.append(f"the queue has not come to rest: {_depths(counts)}")
        if counts is not None and counts.dead:
            problems.append(f"{counts.dead} dead letters")
        if not problems:
            _tell(f"EQUAL: {len(objects)} objects, {megabytes(sum(objects))}, byte for byte and in metadata.")
            return 0
        if time.monotonic() > deadline:
            _tell("\n  - ".join([f"NOT EQUAL: {len(problems)} problems", *problems[:SHOWN]]))
            return 1
        _tell(f"not yet: {len(problems)} differences, {_depths(counts)}")
        await asyncio.sleep(POLL)


async def _differences(visit: Visit) -> tuple[list[str], list[int]]:
    """Return what differs, and the sizes of the objects that were compared."""
    sizes: list[int] = []
    problems = await compare(visit.source, visit.target, progress=lambda state: sizes.append(state.size))
    return problems, sizes


async def _rest(queue: Queue, deadline: float) -> Counts | None:
    """Return the depths once the queue has been empty for a while, or at the deadline, whatever they are."""
    quiet, told = 0, 0.0
    while True:
        counts = await _counts(queue)
        quiet = quiet + 1 if counts is not None and is_empty(counts) else 0
        if quiet >= QUIET or time.monotonic() > deadline:
            return counts
        if time.monotonic() - told > 5 * TELL_EVERY:
            told = time.monotonic()
            _tell(f"waiting for the last hooks and re-checks | {_depths(counts)}")
        await asyncio.sleep(POLL)


async def _counts(queue: Queue) -> Counts | None:
    try:
        return await queue.counts()
    except QueueAway:
        return None


def _depths(counts: Counts | None) -> str:
    if counts is None:
        return "queue away"
    return f"ready {sum(counts.ready.values())} waiting {counts.waiting} dead {counts.dead}"


async def _tell_on(progress: Callable[[], Awaitable[str]]) -> None:
    while True:
        _tell(await progress())
        await asyncio.sleep(TELL_EVERY)


def _tell(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
