"""Looking at the dead letters on RabbitMQ, and taking some out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from common.queue import topology
from common.queue.port import DeadLetter
from common.queue.rabbitmq.link import FOREIGN, Link, fresh_channel, translated
from common.queue.rabbitmq.wire import letter_from

LOCK_WITHIN = 30.0
"""Seconds to wait for somebody else to finish looking."""

Send = Callable[[DeadLetter], Awaitable[None]]


class Fate(Enum):
    """What is to become of the letter in hand."""

    KEEP = auto()
    REPLAY = auto()
    DROP = auto()
    STOP = auto()


class Graveyard:
    """The dead queue, seen over `link`; `send` puts a letter back into its lane, durably."""

    def __init__(self, link: Link, send: Send) -> None:
        self._link = link
        self._send = send
        self._looking = asyncio.Lock()

    async def page(self, limit: int, after: str | None) -> list[DeadLetter]:
        """See `Inspector.buried`."""
        found: list[DeadLetter] = []
        behind = after is None

        def collect(letter: DeadLetter) -> Fate:
            nonlocal behind
            if len(found) == limit:
                return Fate.STOP
            if behind:
                found.append(letter)
            behind = behind or letter.id == after
            return Fate.KEEP

        await self._sweep(collect)
        if not behind:
            raise LookupError(f"{after} is no dead letter any more; list again from the start")
        return found

    async def pick(self, ids: Collection[str] | None, fate: Fate) -> set[str]:
        """Give `fate` to the letters `ids`, None for all; return the ids found."""
        wanted, found = None if ids is None else set(ids), set[str]()

        def choose(letter: DeadLetter) -> Fate:
            if wanted is None or letter.id in wanted:
                found.add(letter.id)
                return fate
            return Fate.STOP if found == wanted else Fate.KEEP

        await self._sweep(choose)
        return found

    async def _sweep(self, choose: Callable[[DeadLetter], Fate]) -> None:
        """Go once over the letters there are now. What is kept goes back in its old order: what was got
        and not acknowledged returns to the head together, by one nack."""
        async with translated(None), self._alone() as channel:
            queue = await channel.declare_queue(topology.dead_queue(), passive=True)
            kept: AbstractIncomingMessage | None = None
            try:
                for _ in range(queue.declaration_result.message_count or 0):
                    message = await queue.get(fail=False, timeout=10)
                    if message is None:
                        break
                    fate = choose(letter_from(message))
                    if fate is Fate.REPLAY:
                        await self._send(letter_from(message))
                    if fate in (Fate.REPLAY, Fate.DROP):
                        await message.ack()
                    else:
                        kept = message
                    if fate is Fate.STOP:
                        break
            finally:
                if kept is not None and not channel.is_closed:
                    await kept.nack(multiple=True, requeue=True)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AbstractChannel]:
        """A channel of its own, while nobody else looks: letters in another's hands would seem gone."""
        async with self._looking:
            connection = await self._link.connection()
            async with asyncio.timeout(LOCK_WITHIN):
                lock = await _lock(connection)
            channel = await fresh_channel(connection)
            try:
                yield channel
            finally:
                with suppress(*FOREIGN):
                    await channel.close()
                    await lock.queue_delete(topology.dead_lock())
                    await lock.close()


async def _lock(connection: AbstractConnection) -> AbstractChannel:
    """Own the lock queue; an exclusive queue belongs to one connection, and dies with it."""
    while True:
        channel = await fresh_channel(connection)
        try:
            await channel.declare_queue(topology.dead_lock(), exclusive=True)
        except AMQPError:  # RESOURCE_LOCKED: another connection owns it
            await asyncio.sleep(0.1)
        else:
            return channel
