"""The worker put together: from settings to a running pool."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from common.errors import UnknownRoute
from common.metrics import Metrics
from common.queue.port import Kind, Lane, Marks, Queue
from common.routes import EXEC_TIMEOUT, ActionTable, RouteSettings
from common.settings import Settings
from common.store.mark import origin_of
from common.store.pace import Meter
from common.store.place import place
from common.store.port import Bucket, Store
from common.store.s3 import S3Store
from common.telemetry import Action, log
from worker.actions import Acting, Carry
from worker.attempt import Act, Attempt, Observer, log_attempt
from worker.blame import Blame
from worker.brake import Brake
from worker.climb import Climbs, Steady
from worker.execute import Program
from worker.fair import places
from worker.forward import Forward
from worker.gate import Gate
from worker.job import Job, Route
from worker.metrics import Watch
from worker.mirror import Mirror
from worker.pool import Pool
from worker.report import Report
from worker.stacks import StackActing, log_stack
from worker.strays import look_out
from worker.transfer import Budget
from worker.verdict import Continue, Outcome


async def open_stores(settings: Settings, stack: AsyncExitStack) -> dict[str, Store]:
    """Open every store that a route names; `stack` closes them."""
    stores: dict[str, Store] = {}
    sides = (side for route in settings.routes for side in (route.source, route.target) if side)
    named = {side.partition(":")[0] for side in sides}
    for name in sorted(named):
        stores[name] = await S3Store.open(name, settings.stores[name], partial(settings.reread, name))
        stack.push_async_callback(stores[name].close)
    return stores


def open_routes(settings: Settings, stores: dict[str, Store]) -> dict[str, Route]:
    """Return every route by its name, those for stacks too, which have no buckets."""
    routes = {route.id: open_route(route, settings, stores) for route in settings.routes}
    return routes | {route.id: Route(route.id, None, None) for route in settings.stack_routes}


def open_route(route: RouteSettings, settings: Settings, stores: dict[str, Store]) -> Route:
    """Return the route with its buckets."""

    def bucket(address: str) -> Bucket:
        store, _, name = address.partition(":")
        return stores[store].bucket(name)

    return Route(
        route.id,
        bucket(route.source),
        bucket(route.target) if route.target else None,
        route.target_prefix,
        route.deletes,
        placement(route),
        Meter(route.max_bytes_per_second),
        eventual=settings.stores[route.source.partition(":")[0]].consistency == "eventual",
        back=settings.two_ways().get(route.id),
        takes_over=tuple(place(*url.rsplit("/", 1)) for url in route.takes_over),
        sides=tuple(side(address, settings) for address in (route.source, route.target) if address),
    )


def side(address: str, settings: Settings) -> str:
    """Return how people know the bucket "store:bucket"."""
    name, _, bucket = address.partition(":")
    store = settings.stores[name]
    return f"store {name} at {store.endpoint or f'AWS, {store.region}'}, bucket {bucket}"


def owners(settings: Settings) -> dict[bytes, str]:
    """Return the names of the buckets that are copied from here, by what stands for them in marks."""
    named = {}
    for route in settings.routes:
        store, _, bucket = route.source.partition(":")
        named[origin_of(settings.stores[store].place(bucket))] = route.source
    return named


async def open_acts(
    settings: Settings, mirror: Act, brake: Brake, marks: Marks, stack: AsyncExitStack
) -> Act:
    """Return what does each job in the way of its route. Raises `ConfigError` for one that cannot work."""
    wait = settings.worker.look_after
    acts: dict[str, Act] = {}
    for route in settings.routes:
        if carry := await open_carry(route, settings.folder, stack):
            acts[route.id] = Acting(carry, look_after=wait, brake=brake)
    for watched in settings.stack_routes:
        carry = await open_carry(watched, settings.folder, stack) or log_stack
        acts[watched.id] = StackActing(marks.first, carry, window=watched.window)

    async def act(job: Job) -> Outcome | Continue:
        if (job.task.stack is None) != (job.route.origin is not None):
            raise UnknownRoute(f'"{job.route.id}" was a route of another kind: name one so, or drop the task')
        return await acts.get(job.route.id, mirror)(job)

    return act


async def open_carry(route: ActionTable, folder: Path, stack: AsyncExitStack) -> Carry | None:
    """Return what carries out the orders of `route`: its program, or whom it forwards to."""
    if route.exec is not None:
        path = str(folder / route.exec)
        return Program(path, timeout=route.timeout or EXEC_TIMEOUT, on_failure=route.on_failure)
    return await stack.enter_async_context(Forward(route)) if route.forward is not None else None


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
        routes = open_routes(settings, stores)
        brake = Brake({route.id: route.brake for route in settings.routes})
        mirror = Mirror(
            queue,
            look_after=worker.look_after,
            budget=Budget(worker.memory),
            brake=brake,
            owners=owners(settings),
        )
        act = await open_acts(settings, mirror, brake, queue, stack)
        blame = await stack.enter_async_context(Blame(act))  # left before the stores that it probes
        watch = Watch(metrics)
        blame.greet(routes.values())
        observers: list[Observer] = [log_attempt, watch]
        attempt = Attempt(queue, watch.around(blame), routes, attempts=worker.attempts, observers=observers)
        # Nobody's lanes too: what older versions left there, and what was sent back there.
        lanes = [Lane(route, kind) for route in ["", *routes] for kind in Kind]
        crowd: Steady | Climbs = Climbs({id_ for id_, route in routes.items() if route.destination})
        if isinstance(worker.concurrency, int):
            crowd = Steady(worker.concurrency)
        gates = {"": Gate()} | {id_: blame.gate(route) for id_, route in routes.items()}
        pool = Pool(queue, attempt, lanes, places(crowd.most), crowd.limit, gates.__getitem__)
        watch.follow(routes, pool, blame, brake)
        report = Report(routes, pool, blame, brake, watch.oldest)
        observers += [report.note, lambda one: crowd.note(one, pool.in_hand_of(one.delivery.lane))]
        metrics.state = report.tell
        log(
            Action.STARTED,
            "worker started",
            routes=sorted(routes),
            concurrency=worker.concurrency,
            **metrics.started(),
        )
        looking = asyncio.create_task(look_out(queue, routes))
        stack.callback(looking.cancel)
        cut_off = await pool.run(stop, drain=worker.drain)
        log(Action.STOPPED, "worker stopped", cut_off=cut_off)
