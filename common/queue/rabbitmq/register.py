"""Which routes have lanes. AMQP lists no queues, so each route has a message in a queue of its own.

Reading takes every message and gives it back, as with the dead letters.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from common.queue import topology
from common.queue.rabbitmq.link import CONFIRM_WITHIN, FOREIGN, Link, give_back

READ_AFTER = 5.0
"""Seconds for which what was read is believed: other processes may add routes."""

RENEW_AFTER = 1000
"""Looks after which a message is replaced: RabbitMQ counts them, and drops it in the end."""


class Register:
    """The register. `clock` is in seconds.

    Who reads while another does may see only a part. He forgets nothing of what he knew for it, and may add
    what is there already: the next to see both takes one out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: set[str] = set()
        self._read_at = -READ_AFTER

    async def routes(self, link: Link) -> set[str]:
        """Return the routes that have lanes; that is what was known READ_AFTER ago, or later. Raises what
        aio-pika raises."""
        if self._clock() - self._read_at >= READ_AFTER:
            async with _channel(link) as channel:
                await self._read(channel)
        return set(self._known)

    async def add(self, link: Link, routes: Collection[str]) -> None:
        """Return when `routes` are in it for good. Raises what aio-pika raises."""
        async with _channel(link) as channel:
            await self._read(channel)
            for route in sorted({*routes} - self._known):
                await self._write(channel, route.encode())
                self._known.add(route)

    def forget(self) -> None:
        """The broker has lost it."""
        self._known.clear()
        self._read_at = -READ_AFTER

    async def _read(self, channel: AbstractChannel) -> None:
        queue = await channel.get_queue(topology.register(), ensure=False)
        taken = dict[str, AbstractIncomingMessage]()
        while (message := await queue.get(fail=False, timeout=CONFIRM_WITHIN)) is not None:
            if message.body.decode() in taken:
                await message.ack()
            taken.setdefault(message.body.decode(), message)
        for message in taken.values():
            if _looks(message) > RENEW_AFTER:
                await self._write(channel, message.body)
                await message.ack()
        self._known |= set(taken)
        self._read_at = self._clock()

    async def _write(self, channel: AbstractChannel, route: bytes) -> None:
        message = Message(route, delivery_mode=DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, topology.register(), mandatory=True)


@asynccontextmanager
async def _channel(link: Link) -> AsyncIterator[AbstractChannel]:
    """Give a channel; what was taken on it and not acknowledged goes back."""
    channel = await link.another()
    try:
        yield channel
    finally:
        with suppress(*FOREIGN):
            await give_back(channel)


def _looks(message: AbstractIncomingMessage) -> int:
    count = message.headers.get("x-delivery-count")
    return count if isinstance(count, int) else 0
