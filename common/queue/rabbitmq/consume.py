"""One consumer on one lane, for as long as its channel lasts."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelClosed, ChannelPreconditionFailed

from common.errors import QueueAway
from common.queue.rabbitmq.link import CONFIRM_WITHIN, FOREIGN, Link, close, said, told, translated

RENEW_AFTER = 20.0
"""Seconds of silence after which a consumer is renewed. When its queue was deleted and declared again within
a second, RabbitMQ 3.10 may go on to believe in it, and drop what it sends: no client is told of that."""

TOO_SHORT = "The broker's consumer_timeout is too short: a delivery may be held for 10 minutes"

Again = Callable[[AbstractIncomingMessage], Awaitable[None]]
"""Publishes a message as it was, at the end of its lane, and returns when it is durable there."""


class Subscription:
    """What a consumer was sent and has not yet given on, on a channel of its own. Make one with `start`.

    `ended` says why there will be no more, for people; it is empty when that is of no interest, or told by
    others: of a connection that is lost, by its link.
    """

    def __init__(self, channel: AbstractChannel, limit: int) -> None:
        self.channel = channel
        self._limit = limit
        self.ended = ""
        self._tag = ""
        self._inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self._given: list[AbstractIncomingMessage] = []
        channel.close_callbacks.add(self._closed)

    @classmethod
    async def start(cls, link: Link, queue: str, limit: int) -> "Subscription":
        """Consume from `queue`, with at most `limit` unsettled. Raises what aio-pika raises."""
        subscription = cls(await link.another(), limit)
        try:
            await subscription.channel.set_qos(prefetch_count=limit)
            source = await subscription.channel.get_queue(queue, ensure=False)
            subscription._tag = await source.consume(subscription._inbox.put)
        except BaseException:
            await close(subscription.channel)
            raise
        return subscription

    def _closed(self, _: object, error: BaseException | None) -> None:
        if isinstance(error, ChannelClosed) and said(error):
            self.ended = told(error)
        if isinstance(error, ChannelPreconditionFailed):  # nothing else fails on a channel that consumes
            self.ended += f". {TOO_SHORT}"
        self._inbox.put_nowait(None)

    async def next(self) -> AbstractIncomingMessage | None:
        """Return the next message; None when there will be no more, or none has come for RENEW_AFTER although
        there is room for it."""
        while True:
            try:
                async with asyncio.timeout(RENEW_AFTER):
                    message = await self._inbox.get()
            except TimeoutError:
                if len(self._unsettled()) < self._limit:
                    return None
                continue
            if message is not None:
                self._given = [*self._unsettled(), message]
            return message

    def _unsettled(self) -> list[AbstractIncomingMessage]:
        return [message for message in self._given if not message.processed]

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

    async def close_when_settled(self) -> bool:
        """Whether the channel is closed; it is now, unless somebody still has to settle what came on it. Only
        that makes a broker send to others what it believes to have sent here."""
        if not self.channel.is_closed and not self._unsettled():
            await close(self.channel)
        return self.channel.is_closed


async def give_back(message: AbstractIncomingMessage, again: Again) -> None:
    """Give `message` back uncounted. The broker counts what is returned to it, seen by anybody or not, and a
    message is judged by the count. Goes on when the caller is cancelled: half given back, it would be held by
    nobody for as long as the channel lives."""
    await asyncio.shield(asyncio.create_task(_give_back(message, again)))


async def _give_back(message: AbstractIncomingMessage, again: Again) -> None:
    with suppress(*FOREIGN, QueueAway):
        try:
            await again(message)
        except QueueAway:
            await message.nack(requeue=True)  # full, or away: better counted than held by nobody
        else:
            await message.ack()
