"""The worker put together: from settings to a running pool."""

import asyncio
from contextlib import AsyncExitStack

from common.metrics import Metrics
from common.queue.port import Lane, Queue
from common.settings import RouteSettings, Settings
from common.store.pace import Meter
from common.store.port import Store
from common.store.s3 import S3Store
from common.telemetry import Action, log
from worker.attempt import Attempt, log_attempt
from worker.brake import Brake
from worker.job import Route
from worker.metrics import Watch
from worker.mirror import Mirror
from worker.pause import Pauses
from worker.pool import Pool
from worker.transfer import Budget

BULK_SHARE = 4
"""The bulk lane gets one delivery at a time for each so many of the live lane's."""


async def open_stores(settings: Settings, stack: AsyncExitStack) -> dict[str, Store]:
    """Open every store that a route names; `stack` closes them. Of a target no tags are read: its mark tells
    all, and the right to read them is not needed."""
    stores: dict[str, Store] = {}
    named = {side.partition(":")[0] for route in settings.routes for side in (route.source, route.target)}
    sources = {route.source.partition(":")[0] for route in settings.routes}
    for name in sorted(named):
        unread = {} if name in sources else {"tags": "never"}
        stores[name] = await S3Store.open(name, settings.stores[name].model_copy(update=unread))
        stack.push_async_callback(stores[name].close)
    return stores


def open_route(route: RouteSettings, stores: dict[str, Store]) -> Route:
    """Return the route with its buckets."""
    (source, source_bucket), (target, target_bucket) = (
        address.split(":", 1) for address in (route.source, route.target)
    )
    return Route(
        route.id,
        stores[source].bucket(source_bucket),
        stores[target].bucket(target_bucket),
        route.target_prefix,
        route.deletes,
        placement(route),
        Meter(route.max_bytes_per_second),
    )


def placement(route: RouteSettings) -> dict[str, str]:
    """Return the headers that say how the route's target keeps its objects."""
    chosen = {
        "x-amz-storage-class": route.storage_class,
        "x-amz-server-side-encryption": route.sse,
        "x-amz-server-side-encryption-aws-kms-key-id": route.kms_key,
    }
    return {name: value for name, value in chosen.items() if value}


async def run(settings: Settings, queue: Queue, stop: asyncio.Event, metrics: Metrics) -> None:
    """Work until `stop` is set, then drain. The queue stays open: the caller closes it next."""
    worker = settings.worker
    async with AsyncExitStack() as stack:
        stores = await open_stores(settings, stack)
        routes = {route.id: open_route(route, stores) for route in settings.routes}
        brake = Brake({route.id: route.brake for route in settings.routes})
        mirror = Mirror(queue, look_after=worker.look_after, budget=Budget(worker.memory), brake=brake)
        pauses = await stack.enter_async_context(Pauses(mirror))  # left before the stores that it probes
        watch = Watch(metrics)
        attempt = Attempt(
            queue,
            watch.around(pauses),
            routes,
            attempts=worker.attempts,
            observers=(log_attempt, watch),
        )
        limits = {Lane.LIVE: worker.concurrency, Lane.BULK: max(1, worker.concurrency // BULK_SHARE)}
        pool = Pool(queue, attempt, limits)
        watch.follow(routes, pool, pauses, brake)
        log(
            Action.STARTED,
            "worker started",
            routes=sorted(routes),
            concurrency=worker.concurrency,
            **metrics.started(),
        )
        cut_off = await pool.run(stop, drain=worker.drain)
        log(Action.STOPPED, "worker stopped", cut_off=cut_off)
