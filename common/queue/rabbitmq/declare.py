"""Our queues and exchanges, declared on RabbitMQ."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from common.errors import ConfigError
from common.queue import topology
from common.queue.port import Kind, Lane
from common.queue.rabbitmq.link import FOREIGN, Link, fresh_channel, heard
from common.queue.rabbitmq.notices import Notices
from common.queue.rabbitmq.register import Register
from common.queue.topology import Declaration

AT_ONCE = 8
"""Depths that are asked for at once; each takes a round trip."""


class Layout:
    """Our queues with the waits `rungs`: declared when they are needed, and again when the broker has lost
    one. `changed` hears of more. To be given its `link` before anything else."""

    link: Link

    def __init__(self, rungs: Iterable[int], notices: Notices, changed: Callable[[], None]) -> None:
        self._rungs = tuple(rungs)
        self._notices = notices
        self._changed = changed
        self._declared = False
        self._declaring = asyncio.Lock()
        self._making: asyncio.Task[None] | None = None
        self._routes = {""}  # whose lanes there are in any case
        self._register = Register()

    def queues(self) -> Iterator[Declaration]:
        """Yield what our queues are, as far as is known; any lane and any mark stand for what is not."""
        yield from topology.declarations(self._rungs)
        for route in {"any"} | self._routes - {""}:
            yield from topology.lanes(route)
        yield topology.any_mark()

    async def prepare(self, connection: AbstractConnection) -> None:
        """Declare, once, all but the lanes of routes. Raises as `declare` does."""
        async with self._declaring:
            if not self._declared:
                await declare(connection, topology.declarations(self._rungs))
                self._declared = True

    async def make(self, routes: Collection[str] = ()) -> None:
        """See that all is there, the lanes of `routes` among it. Whoever comes first makes it, and only he,
        to the end. Raises as `declare` does."""
        while not (self._declared and self._routes.issuperset(routes)):
            if self._making is None or self._making.done():
                self._making = asyncio.create_task(self._make(routes))
                self._making.add_done_callback(heard)
            await asyncio.shield(self._making)

    async def _make(self, routes: Collection[str]) -> None:
        connection = await self.link.connection()
        await self.prepare(connection)
        if missing := sorted({*routes} - self._routes):
            await declare(connection, [queue for route in missing for queue in topology.lanes(route)])
            with self._losing(topology.register()):
                await self._register.add(self.link, missing)
            self._routes.update(missing)
        self._changed()

    @contextmanager
    def _losing(self, queue: str) -> Iterator[None]:
        try:
            yield
        except ChannelNotFoundEntity:
            self.lost(queue)
            raise

    def lost(self, queue: str) -> None:
        """The broker has no `queue` of ours: it is made again by the next call that needs any."""
        self._notices.say(
            f"RabbitMQ has lost {queue} with all that was in it: it was deleted. It is made again"
        )
        lanes = {route for route in self._routes if queue in {lane.name for lane in topology.lanes(route)}}
        self._routes -= lanes - {""}
        if not lanes - {""}:
            self._declared = False
        if queue == topology.register():
            self._routes = {""}
            self._register.forget()

    async def depths(self) -> tuple[list[Lane], dict[str, int]]:
        """Return all lanes, and how many messages are ready in each queue. Raises what aio-pika raises."""
        await self.make()
        with self._losing(topology.register()):
            routes = await self._register.routes(self.link)
        await self.make(routes)
        lanes = [Lane(route, kind) for route in ["", *sorted(routes)] for kind in Kind]
        waits = map(topology.wait_queue, self._rungs)
        depths: dict[str, int] = {}
        left = iter([topology.dead_queue(), *waits, *map(topology.lane_queue, lanes)])

        async def ask(number: int) -> None:
            for name in left:
                channel = await self.link.channel(f"depths {number}")
                # On a plain channel; a robust one answers a passive declaration from its memory.
                with self._losing(name):
                    queue = await channel.declare_queue(name, passive=True)
                depths[name] = queue.declaration_result.message_count or 0

        await asyncio.gather(*map(ask, range(AT_ONCE)))
        return lanes, depths

    def close(self) -> None:
        """Make nothing more."""
        if self._making is not None:
            self._making.cancel()


async def declare(connection: AbstractConnection, queues: Iterable[Declaration]) -> None:
    """Declare `queues`. Raises `ConfigError` for one that is there with other arguments, and what aio-pika
    raises."""
    channel = await fresh_channel(connection)
    for item in queues:
        try:
            queue = await channel.declare_queue(item.name, durable=True, arguments=dict(item.arguments))
        except ChannelPreconditionFailed as error:
            raise ConfigError(
                f"RabbitMQ has the queue {item.name} with other arguments: {error}. "
                "Empty and delete that queue, or name another virtual host in queue.url."
            ) from error
        if item.exchange:
            await channel.declare_exchange(item.exchange, "fanout", durable=True)
            await queue.bind(item.exchange)
    await channel.close()
    await _last(connection)


async def _last(connection: AbstractConnection) -> None:
    """Let none of ours be the queue that was declared last: see `topology.last`."""
    item = topology.last()
    with suppress(*FOREIGN):  # of no other use: a limit of queues, or a right that lacks, is no reason to end
        channel = await fresh_channel(connection)
        await channel.declare_queue(item.name, durable=True, arguments=dict(item.arguments))
        await channel.close()
