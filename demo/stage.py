"""Everything the demo needs, set up and taken down again: two clouds, the stand-in, the services, a queue."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError, LostDelivery, QueueAway, Unreadable
from common.queue import open_queue
from common.queue.port import Counts, DeadLetter, Done, Lane, Queue
from common.store.s3 import S3Bucket, S3Store
from common.task import Task
from demo.events import Subscription, write_configuration
from demo.mcs import Mcs
from demo.outbox import Habits
from demo.services import Service, config
from demo.signed import SignedRequests
from demo.tally import Tally
from demo.weed import Weed, free_ports, settings_for

HABITS = Habits(duplicates=0.15, spread=4.0, batch=3)
"""Worse manners than MCS has been seen to have."""

LOOK_AFTER = 2
"""Seconds to a re-check. Far too short for production, where a stuck request may still land
15 minutes later; here nothing is, and nobody wants to wait."""

SWEEP_WITHIN = 12.0

SOURCE, TARGET = "myfiles-ash", "myfiles-backup"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for. `queue` is None for the embedded one."""

    queue: str | None
    objects: int
    seed: int

    def url(self, folder: Path) -> str:
        """The queue's URL; the embedded one lives in `folder`."""
        return self.queue or f"sqlite:///{folder / 'queue.db'}"


@dataclass(slots=True)
class Stage:
    """What there is to play with. `user` is the source bucket through the stand-in; `source` and `target`
    are the two buckets themselves."""

    mcs: Mcs
    queue: Queue
    route: str
    services: list[Service]
    user: S3Bucket
    requests: SignedRequests
    source: S3Bucket
    target: S3Bucket

    async def stop_services(self) -> dict[str, int]:
        """Stop receiver and workers; return their exit codes."""
        codes = await asyncio.gather(*(service.stop() for service in self.services))
        return {service.name: code for service, code in zip(self.services, codes, strict=True)}

    async def dead(self) -> list[DeadLetter]:
        """Return the dead letters of this run, a thousand at most."""
        return [letter for letter in await self.queue.buried(1000) if _is_ours(letter.body, self.route)]

    async def watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`; raise `ServiceError` as soon as a service ends meanwhile."""
        tasks = [
            asyncio.create_task(work),
            *(asyncio.create_task(service.ended()) for service in self.services),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


@asynccontextmanager
async def set_up(
    options: Options, folder: Path, queue: Queue, tally: Tally, tell: Callable[[str], None]
) -> AsyncIterator[Stage]:
    """Start everything, and stop it all at the end of the block, however that comes; the queue is closed too.

    `tell` hears what is being done.
    """
    route = "demo"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(queue.close)
        if options.queue is not None:
            stack.push_async_callback(_leave_clean, queue, route, tell)
        tell("starting two S3 servers, receiver and workers")
        clouds = [Weed(folder / name) for name in ("mcs", "aws")]
        rng = random.Random(options.seed)  # noqa: S311 - replayable chance
        mcs = await stack.enter_async_context(Mcs(clouds[0].settings, habits=HABITS, rng=rng))
        (port,) = free_ports(1)
        hook_url = f"http://127.0.0.1:{port}/webhook/{secrets.token_hex(16)}"
        text = config(
            source=settings_for(mcs.endpoint),
            target=clouds[1].settings,
            port=port,
            look_after=LOOK_AFTER,
            queue=options.url(folder),
            public_url=hook_url,
            route=route,
            source_bucket=f"mcs:{SOURCE}",
            target_bucket=f"aws:{TARGET}",
        )
        services = await _start(options, folder, text, clouds, tally, stack)
        stage = await _open(mcs, queue, route, services, clouds, stack)
        tell("registering the hook: the stand-in asks, the receiver signs")
        await _register(stage.requests, hook_url)
        yield stage


async def _start(
    options: Options, folder: Path, text: str, clouds: list[Weed], tally: Tally, stack: AsyncExitStack
) -> list[Service]:
    """Start the servers, and when they hold the buckets the services with the configuration `text`: these ask
    for the buckets at once, and a store that is not there yet slows them down."""
    path = folder / "hookmirror.toml"
    path.write_text(text)
    wanted = [("up", "up", 2)] if options.queue is None else [("receiver", "receiver", 1)]
    if options.queue is not None:
        wanted += [("worker-1", "worker", 1), ("worker-2", "worker", 1)]
    services = [Service(name, folder, tally.add) for name, _, _ in wanted]
    for cloud in clouds:
        stack.callback(cloud.kill)
    for service in services:
        stack.push_async_callback(service.stop)
    await together(*(_start_cloud(cloud, name) for cloud, name in zip(clouds, (SOURCE, TARGET), strict=True)))
    await together(
        *(
            service.start(command, path, programs=programs)
            for service, (_, command, programs) in zip(services, wanted, strict=True)
        )
    )
    return services


async def together(*calls: Awaitable[object]) -> None:
    """Wait for all of `calls`, then raise what the first that failed raised."""
    for end in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end


async def _start_cloud(cloud: Weed, bucket: str) -> None:
    starting = asyncio.ensure_future(asyncio.to_thread(cloud.start))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        cloud.kill()
        await asyncio.gather(
            starting, return_exceptions=True
        )  # the thread cannot be cancelled, only waited for
        raise
    store = await S3Store.open("demo", settings_for(cloud.endpoint))
    try:
        await store.bucket(bucket).create()
    finally:
        await store.close()


async def _open(
    mcs: Mcs, queue: Queue, route: str, services: list[Service], clouds: list[Weed], stack: AsyncExitStack
) -> Stage:
    async def bucket(name: str, endpoint: str) -> S3Bucket:
        store = await S3Store.open("demo", settings_for(endpoint))
        stack.push_async_callback(store.close)
        return store.bucket(name)

    user = await bucket(SOURCE, mcs.endpoint)
    source, target = await bucket(SOURCE, clouds[0].endpoint), await bucket(TARGET, clouds[1].endpoint)
    requests = await stack.enter_async_context(SignedRequests(settings_for(mcs.endpoint)))
    return Stage(mcs, queue, route, services, user, requests, source, target)


async def _register(requests: SignedRequests, url: str) -> None:
    """Register the hook at the stand-in; its answer is a success only after the handshake."""
    wanted = Subscription("1", url, ("s3:ObjectCreated:*", "s3:ObjectRemoved:*"))
    await requests("PUT", SOURCE, query="notification", body=write_configuration([wanted]))


# ---------------------------------------------------------------------- the queue


def is_empty(counts: Counts) -> bool:
    """Whether nothing is to be done, now or later. Dead letters do not count."""
    return not (sum(counts.ready.values()) + counts.waiting + (counts.held or 0))


async def open_empty(url: str) -> Queue:
    """Return the queue at `url`. Raises `ConfigError` if it does not answer or holds anybody's tasks."""
    queue = await open_queue(url, look_after=LOOK_AFTER)
    try:
        counts = await queue.counts()
        if not is_empty(counts) or counts.dead:
            raise ConfigError(
                f"the queue holds {sum(counts.ready.values())} ready, {counts.waiting} waiting and "
                f"{counts.dead} dead letters, and the demo does not mix with them. "
                "Empty it, or name another virtual host:  --queue amqp://.../demo"
            )
    except QueueAway as error:
        await queue.close()
        raise ConfigError(
            f"{error}. Start the broker, or leave --queue away for the embedded one."
        ) from error
    except BaseException:
        await queue.close()
        raise
    return queue


async def _leave_clean(queue: Queue, route: str, tell: Callable[[str], None]) -> None:
    """Take this run's tasks off a queue that outlives it: an interrupted run leaves some."""
    for letter in await queue.buried(1000):
        if _is_ours(letter.body, route):
            await queue.drop([letter.id])
    if is_empty(await queue.counts()):
        return
    tell("taking this run's tasks off the queue")
    sweeping = asyncio.create_task(_sweep(queue, route))
    try:
        async with asyncio.timeout(SWEEP_WITHIN):
            await until_quiet(queue, lambda: 0)
    except TimeoutError:
        tell(f'tasks of the route "{route}" remain in the queue, waiting for a retry')
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


async def _sweep(queue: Queue, route: str) -> None:
    async with aclosing(queue.deliveries(Lane(route), 100)) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            try:
                await queue.settle(delivery, Done("swept"))
            except LostDelivery:
                continue  # it comes back, and is swept then


async def until_quiet(queue: Queue, attempts: Callable[[], int]) -> None:
    """Return when the queue has been empty for a while, and no attempt has ended in it.

    RabbitMQ does not tell what is in a worker's hands: its silence has to last longer.
    """
    quiet, seen = 0, -1
    while True:
        counts = await queue.counts()
        quiet = quiet + 1 if is_empty(counts) and attempts() == seen else 0
        seen = attempts()
        if quiet >= (5 if counts.held is None else 1):
            return
        await asyncio.sleep(0.4)


def _is_ours(body: bytes, route: str) -> bool:
    try:
        return Task.decode(body).route == route
    except Unreadable:
        return False
