"""One consumer on one lane, for as long as its channel lasts."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiormq
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from common.errors import QueueAway
from common.queue.rabbitmq.link import CONFIRM_WITHIN, FOREIGN, Link, translated

IDLE_CHECK = 10.0
"""Seconds of silence after which a consumer makes sure that it still is one."""


Again = Callable[[AbstractIncomingMessage], Awaitable[None]]
"""Publishes a message as it was, at the end of its lane, and returns when it is durable there."""


class Subscription:
    """What a consumer was sent and has not yet given on. Make one with `start`."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self._tag = ""
        self._inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        channel.close_callbacks.add(lambda *_: self._inbox.put_nowait(None))

    @classmethod
    async def start(cls, link: Link, queue: str, limit: int) -> "Subscription":
        """Consume from `queue`, with at most `limit` unsettled. Raises what aio-pika raises."""
        channel = await link.channel()
        await channel.set_qos(prefetch_count=limit)
        subscription = cls(channel)
        source = await channel.get_queue(queue, ensure=False)
        subscription._tag = await source.consume(subscription._inbox.put)
        return subscription

    async def next(self) -> AbstractIncomingMessage | None:
        """Return the next message; None when there will be no more on this channel."""
        while True:
            try:
                async with asyncio.timeout(IDLE_CHECK):
                    return await self._inbox.get()
            except TimeoutError:
                if not await self._still_consuming():
                    return None

    async def _still_consuming(self) -> bool:
        """A broker that cancels a consumer (its queue was deleted) says so to the library alone."""
        if self.channel.is_closed:
            return False
        underlay = await self.channel.get_underlay_channel()
        return not isinstance(underlay, aiormq.Channel) or self._tag in underlay.consumers

    async def hand_back(self, again: Again) -> None:
        """Stop consuming and return what nobody has seen. If the channel is gone, so is the need."""
        if self.channel.is_closed:
            return
        with suppress(*FOREIGN, QueueAway):
            async with translated(CONFIRM_WITHIN):
                await (await self.channel.get_underlay_channel()).basic_cancel(self._tag)
            await asyncio.sleep(0)  # what came before the answer is put into the inbox by tasks of their own
        unseen = [self._inbox.get_nowait() for _ in range(self._inbox.qsize())]
        await asyncio.gather(*(give_back(message, again) for message in unseen if message is not None))


async def give_back(message: AbstractIncomingMessage, again: Again) -> None:
    """Give `message` back uncounted. The broker counts what is returned to it, seen by anybody or not, and a
    message is judged by the count."""
    with suppress(*FOREIGN, QueueAway):
        try:
            await again(message)
        except QueueAway:
            await message.nack(requeue=True)  # full, or away: better counted than held by nobody
        else:
            await message.ack()
