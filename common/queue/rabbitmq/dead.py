"""Looking at the dead letters on RabbitMQ, and taking some out.

There is no reading a queue without taking from it. So a look takes every letter in turn, holds what
it has taken until it ends, and gives all of it back at once: one round over the queue, however many
there are. What it gives back returns in an order of the broker's own (from 33 messages on a quorum
queue returns them by hash), so a letter's place is told by the time of its burial and by nothing else.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager, suppress
from enum import Enum, auto

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError

from common.errors import QueueAway
from common.queue import topology
from common.queue.port import DeadLetter, Oldest
from common.queue.rabbitmq.link import FOREIGN, Link, fresh_channel, give_back, translated
from common.queue.rabbitmq.wire import letter_from

LOCK_WITHIN = 60.0
"""Seconds to wait for somebody else to finish looking."""

HANDFUL = 32
"""So many are fetched one by one, at a round trip each; more than those are sent by the CHUNK."""

CHUNK = 1000
"""Letters held on one channel. To find the one that is acknowledged, RabbitMQ goes through all that a
channel holds: with 100 000 on one, each acknowledgement takes milliseconds."""

IDLE = 0.5
"""Seconds without a message after which a consumer ends, and one more fetch tells whether that was all."""

BATCH = 200
"""Letters on their way back to their lanes at once; so many may be repeated after a kill."""

TRIES = 5
"""How often a letter is sent to its lane before a broker that does not confirm in time is given up."""

Send = Callable[[DeadLetter], Awaitable[None]]
Held = tuple[AbstractIncomingMessage, DeadLetter]


class Fate(Enum):
    """What is to become of the letters picked."""

    REPLAY = auto()
    DROP = auto()


class Graveyard:
    """The dead queue, seen over `link`; `send` puts a letter back into its lane, durably."""

    def __init__(self, link: Link, send: Send) -> None:
        self._link = link
        self._send = send
        self._looking = asyncio.Lock()

    async def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """See `Inspector.letters`."""
        async with self._alone() as hold, aclosing(_each(hold)) as held:
            async for _, letter in held:
                yield letter

    async def oldest(self, limit: int) -> list[DeadLetter]:
        """See `Inspector.buried`."""
        oldest = Oldest(limit)
        async with aclosing(self.letters()) as letters:
            async for letter in letters:
                oldest.add(letter)
        return oldest.letters()

    async def pick(self, ids: Collection[str] | None, fate: Fate) -> set[str]:
        """Give `fate` to the letters `ids`, None for all; return the ids found."""
        wanted, found = None if ids is None else set(ids), set[str]()
        if wanted == found:
            return found
        batch: list[Held] = []
        async with self._alone() as hold, aclosing(_each(hold)) as held:
            async for message, letter in held:
                # Found before, it was replayed and has been buried again since: that could go on for ever.
                again = letter.id in found and fate is Fate.REPLAY
                if again or (wanted is not None and letter.id not in wanted):
                    continue
                found.add(letter.id)
                batch.append((message, letter))
                if len(batch) == BATCH:
                    await self._take(batch, fate)
                    batch = []
                if found == wanted:
                    break
            await self._take(batch, fate)
        return found

    async def _take(self, batch: list[Held], fate: Fate) -> None:
        """Take `batch` out of the dead; of those to be replayed, what is durable in its lane and no other."""
        for left in reversed(range(TRIES if fate is Fate.REPLAY else 0)):
            sends = (self._send(letter) for _, letter in batch)
            answers = await asyncio.gather(*sends, return_exceptions=True)
            for (message, _), answer in zip(batch, answers, strict=True):
                if answer is None:
                    await message.ack()
            batch = [held for held, answer in zip(batch, answers, strict=True) if answer is not None]
            error = next((answer for answer in answers if answer is not None), None)
            if error is not None and not (left and isinstance(error, QueueAway)):
                raise error
        for message, _ in batch:
            await message.ack()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator["_Hold"]:
        """Hold letters while nobody else looks: those in another's hands would seem gone. What is held at
        the end, and was not acknowledged, goes back."""
        async with translated(None), self._looking:
            connection = await self._link.connection()
            try:
                async with asyncio.timeout(LOCK_WITHIN):
                    lock = await _lock(connection)
            except TimeoutError as error:
                raise QueueAway(
                    "another command has been reading the dead letters for a minute: try again"
                ) from error
            hold = _Hold(connection)
            try:
                yield hold
            finally:
                with suppress(*FOREIGN):
                    await hold.give_back()
                    await lock.queue_delete(topology.dead_lock())
                    await lock.close()


class _Hold:
    """The channels on which letters are held."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._channels: list[AbstractChannel] = []

    async def queue(self) -> tuple[AbstractChannel, AbstractQueue]:
        """Return the dead queue on a new channel."""
        channel = await fresh_channel(self._connection)
        self._channels.append(channel)
        return channel, await channel.get_queue(topology.dead_queue(), ensure=False)

    async def give_back(self) -> None:
        """Return everything that is still held."""
        for channel in self._channels:
            await give_back(channel)


async def _each(hold: _Hold) -> AsyncGenerator[Held, None]:
    """Take every letter in turn; they stay held."""
    by_one = HANDFUL
    while True:
        channel, queue = await hold.queue()
        # The depth a queue tells lags behind: only a fetch that finds nothing proves that there is no more.
        for _ in range(by_one):
            one = await queue.get(fail=False, timeout=10)
            if one is None:
                return
            yield one, letter_from(one)
        by_one = 1
        await channel.set_qos(prefetch_count=CHUNK)
        async with aclosing(_consume(queue)) as chunk:
            async for message in chunk:
                yield message, letter_from(message)


async def _consume(queue: AbstractQueue) -> AsyncGenerator[AbstractIncomingMessage, None]:
    """Yield up to CHUNK messages, sent without being asked for one by one. They stay held after its end."""
    inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    tag = await queue.consume(inbox.put)
    seen = 0
    try:
        with suppress(TimeoutError):
            while seen < CHUNK:
                async with asyncio.timeout(IDLE):
                    message = await inbox.get()
                seen += 1
                yield message
    finally:
        with suppress(*FOREIGN):
            await queue.cancel(tag)
    while not inbox.empty():  # sent while the consumer ended
        yield inbox.get_nowait()


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
