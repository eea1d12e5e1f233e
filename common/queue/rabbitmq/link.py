"""Connections to RabbitMQ: opened when needed, opened again when lost, errors translated.

Plain connections rather than the library's robust ones: those restore declarations for ever when
an argument differs, and answer with stale depths.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from traceback import walk_tb
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ConnectionClosed,
    DeliveryError,
    ProbableAuthenticationError,
)
from aiormq import spec
from aiormq.exceptions import InvalidFrameError
from yarl import URL

from common.errors import QueueAway
from common.queue.rabbitmq import blocked
from common.queue.rabbitmq.notices import Notices

CONFIRM_WITHIN = 2.0
"""Seconds to wait for a confirm. A half-open connection or a disk alarm would hang a publish for longer."""

CONNECT_WITHIN = 5.0
"""Seconds for a connection or a channel to open."""

HEARTBEAT = 10
"""Seconds; a connection cut without a word is noticed after three of them."""

FOREIGN = (AMQPError, OSError, TimeoutError, RuntimeError)
"""What aio-pika raises when the broker is away or refuses; using what is closed is a RuntimeError."""

Prepare = Callable[[AbstractConnection], Awaitable[None]]


@asynccontextmanager
async def translated(within: float | None) -> AsyncIterator[asyncio.Timeout]:
    """Turn what aio-pika raises inside into `QueueAway`; raise that too after `within` seconds."""
    try:
        async with asyncio.timeout(within) as limit:
            yield limit
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise QueueAway(f"RabbitMQ refused the user or the password of queue.url: {error}") from error
    except FOREIGN as error:
        raise QueueAway(told(error)) from error
    except asyncio.CancelledError as error:
        # Pending publishes end in CancelledError when the connection dies; that is not our cancellation.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise QueueAway("the connection to RabbitMQ closed before it confirmed") from error


def told(error: BaseException | None) -> str:
    """Return what `error` says to a person, in the broker's own words when it said any."""
    if words := said(error):
        return f"RabbitMQ says: {words}"
    if isinstance(error, DeliveryError) and isinstance(error.frame, spec.Basic.Nack):
        return "RabbitMQ refused the message (nack): its queue is full, or cannot write"
    return f"RabbitMQ has not answered: {str(error) or 'not in time'}"


def said(error: BaseException | None) -> str | None:
    """Return the broker's own words in `error`, None when there are none."""
    if isinstance(error, ChannelClosed | ConnectionClosed):
        return str(error.args[-1]) if error.args and error.args[-1] else None
    if isinstance(error, InvalidFrameError):
        # While a connection opens the library says only which frame it expected; the one that came, with what
        # the broker said, is left in its frames: a virtual host that is missing, or has too many connections.
        came = (frame.f_locals.get("frame") for frame, _ in walk_tb(error.__traceback__))
        closes = (frame for frame in came if isinstance(frame, spec.Connection.Close))
        return next((str(frame.reply_text) for frame in closes), None)
    return None


class Link:
    """One connection with a few channels, each opened on demand by whoever comes first. `prepare` sees each
    new connection before anybody else; `notices` has what the broker says of one."""

    def __init__(self, url: URL, prepare: Prepare, notices: Notices) -> None:
        self._url = url if "heartbeat" in url.query else url.update_query(heartbeat=HEARTBEAT)
        self._prepare = prepare
        self._notices = notices
        self._refuses = ""
        self._publishing: set[asyncio.Timeout] = set()
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[AbstractConnection] | None = None
        self._channels: dict[str, AbstractChannel] = {}
        self._opening: dict[str, asyncio.Task[AbstractChannel]] = {}

    async def channel(self, name: str = "") -> AbstractChannel:
        """Return the open channel called `name`, opening it first if need be. Raises what aio-pika raises."""
        known = self._channels.get(name)
        if known is not None and not known.is_closed:
            return known
        if name not in self._opening:
            self._opening[name] = asyncio.create_task(self._open(name))
            self._opening[name].add_done_callback(partial(self._opened, name))
        return await asyncio.shield(self._opening[name])

    def _opened(self, name: str, task: asyncio.Task[AbstractChannel]) -> None:
        if self._opening.get(name) is task:
            del self._opening[name]
        heard(task)

    async def _open(self, name: str) -> AbstractChannel:
        self._channels[name] = channel = await (self.another() if name else self._first())
        return channel

    async def _first(self) -> AbstractChannel:
        return await fresh_channel(await self.connection())

    async def another(self) -> AbstractChannel:
        """Return a channel of the caller's own, for what may end it. Raises what aio-pika raises."""
        await self.channel()  # whoever comes first opens the connection, and only he
        return await fresh_channel(await self.connection())

    async def connection(self) -> AbstractConnection:
        """Return the connection, opened and prepared."""
        # Not `is_closed`: that only tells whether close() was called here, not whether the broker is gone.
        if self._connection is not None and self._connection.connected.is_set():
            return self._connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(heard)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> AbstractConnection:
        connection = await aio_pika.connect(self._url, timeout=CONNECT_WITHIN)
        try:
            await self._prepare(connection)
        except BaseException:  # it would live on, unknown to anybody, and another with each try
            await _end(connection)
            raise
        self._connection = connection
        self._refuses = ""
        connection.close_callbacks.add(self._lost)
        blocked.listen(connection, self._blocked)
        return connection

    def _lost(self, connection: AbstractConnection | None, error: BaseException | None) -> None:
        if connection is self._connection:  # else it was closed here
            lost = f"the connection to RabbitMQ is lost: {error or 'it closed'}"
            self._notices.say(told(error) if said(error) else lost)

    def _blocked(self, connection: AbstractConnection, reason: str) -> None:
        if connection is not self._connection:
            return
        self._refuses = reason and f"RabbitMQ takes nothing now: {reason}"
        self._notices.say(self._refuses or "RabbitMQ takes messages again")
        for limit in self._publishing if reason else ():
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def taking(self, within: float) -> AsyncIterator[None]:
        """As `translated`, for what publishes: a broker that says that it takes nothing now, and why, is not
        waited for. What it is sent all the same it would take later, once for each time."""
        self._refuse()
        try:
            async with translated(within) as limit:
                self._publishing.add(limit)
                try:
                    yield
                finally:
                    self._publishing.discard(limit)
        except QueueAway:
            self._refuse()
            raise

    def _refuse(self) -> None:
        """Raise what the broker says, as long as the connection lives on which it says so: its end ends that
        too, and only who publishes opens another."""
        lives = self._connection is not None and self._connection.connected.is_set()
        if self._refuses and lives:
            raise QueueAway(self._refuses)

    async def close(self) -> None:
        """Close, without waiting for a broker that does not answer."""
        connection, self._connection = self._connection, None
        self._channels.clear()
        for opening in (*self._opening.values(), *([self._connecting] if self._connecting else [])):
            opening.cancel()
        if connection is not None:
            await _end(connection)


async def _end(connection: AbstractConnection) -> None:
    with suppress(*FOREIGN):
        async with asyncio.timeout(CONFIRM_WITHIN):
            await connection.close()


async def close(channel: AbstractChannel) -> None:
    """Close `channel`, without waiting for a broker that does not answer."""
    with suppress(*FOREIGN):
        async with asyncio.timeout(CONFIRM_WITHIN):
            await channel.close()


async def fresh_channel(connection: AbstractConnection) -> AbstractChannel:
    """Open another channel; an unroutable publish on it raises, rather than returning as if it were fine."""
    channel = connection.channel(publisher_confirms=True, on_return_raises=True)
    await channel.initialize(timeout=CONNECT_WITHIN)
    return channel


def heard(task: asyncio.Task[Any]) -> None:
    """Be content with how `task` ended: those who still wait have it, and nobody else needs to hear of it."""
    if not task.cancelled():
        task.exception()


async def give_back(channel: AbstractChannel) -> None:
    """Return everything that is held on `channel`, what never reached us included (the tag 0 says so), and
    close it."""
    underlay = await channel.get_underlay_channel()
    if isinstance(underlay, aiormq.Channel):
        await underlay.basic_nack(0, multiple=True, requeue=True)
    await channel.close()
