"""The queue on RabbitMQ, 3.10 to 4.x. The only module that knows aio-pika.

Plain connections, opened when needed and again when lost, rather than the library's robust ones:
those restore declarations for ever when an argument differs, and answer with stale depths.
"""

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ProbableAuthenticationError,
    PublishError,
)
from yarl import URL

from common.backoff import RUNGS, rung
from common.errors import ConfigError, LostDelivery, QueueAway
from common.queue import topology
from common.queue.port import (
    KILLER,
    Bury,
    Counts,
    DeadLetter,
    Delivery,
    Done,
    Failure,
    Lane,
    Verdict,
    after_verdict,
    check_delay,
)
from common.telemetry import Action, log

CONFIRM_WITHIN = 2.0
"""Seconds to wait for a confirm. A half-open connection or a disk alarm would hang a publish for longer."""

HEARTBEAT = 10
"""Seconds; a connection cut without a word is noticed after three of them."""

RECONNECT = 1.0
"""Seconds between two tries to reach an absent broker."""

IDLE_CHECK = 10.0
"""Seconds of silence after which a consumer makes sure that it still is one."""

_FOREIGN = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)

ID, ATTEMPT, FAILURES, WHY, AT, LANE = (
    f"hookmirror-{name}" for name in ("id", "attempt", "failures", "why", "at", "lane")
)


class _Fate(Enum):
    KEEP = auto()
    REPLAY = auto()
    DROP = auto()
    STOP = auto()


@dataclass(slots=True)
class _Receipt:
    message: AbstractIncomingMessage
    channel: AbstractChannel
    settled: bool = False


@asynccontextmanager
async def _translated(within: float | None) -> AsyncIterator[None]:
    """Turn whatever aio-pika raises inside into `QueueAway` or `ConfigError`, after `within` seconds at the latest."""
    try:
        async with asyncio.timeout(within):
            yield
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise QueueAway(f"RabbitMQ refused the user or the password of queue.url: {error}") from error
    except _FOREIGN as error:
        raise QueueAway(f"RabbitMQ has not answered: {error or type(error).__name__}") from error
    except asyncio.CancelledError as error:
        # Pending publishes end in CancelledError when the connection dies; that is not our cancellation.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise QueueAway("the connection to RabbitMQ closed before it confirmed") from error


class _Link:
    """One connection with one channel, opened on demand by whoever comes first."""

    def __init__(self, url: URL, prepare: Callable[[aio_pika.abc.AbstractConnection], Awaitable[None]]) -> None:
        self._url = url
        self._prepare = prepare
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._opening: asyncio.Task[AbstractChannel] | None = None

    async def channel(self) -> AbstractChannel:
        """Return the open channel, opening it first if need be. Raises what aio-pika raises."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[AbstractChannel]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who still wait have it; nobody else needs to hear of it

    async def _open(self) -> AbstractChannel:
        if self._connection is None or self._connection.is_closed:
            self._connection = await aio_pika.connect(self._url, timeout=5)
            await self._prepare(self._connection)
        self._channel = await self.fresh(self._connection)
        return self._channel

    @staticmethod
    async def fresh(connection: aio_pika.abc.AbstractConnection) -> AbstractChannel:
        """Open another channel; an unroutable publish on it raises."""
        channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize(timeout=5)
        return channel

    async def connection(self) -> aio_pika.abc.AbstractConnection:
        """Return the connection, opened."""
        await self.channel()
        if self._connection is None:
            raise QueueAway("the connection to RabbitMQ closed again at once")
        return self._connection

    async def close(self) -> None:
        """Close, without waiting for a broker that does not answer."""
        connection, self._connection, self._channel = self._connection, None, None
        if self._opening is not None:
            self._opening.cancel()
        if connection is not None:
            with suppress(*_FOREIGN):
                async with asyncio.timeout(CONFIRM_WITHIN):
                    await connection.close()


class RabbitQueue:
    """The port over four connections: one to publish, one for each lane, one to inspect."""

    def __init__(self, url: str, look_after: int) -> None:
        address = URL(url)
        if "heartbeat" not in address.query:
            address = address.update_query(heartbeat=HEARTBEAT)
        self._rungs = sorted({*RUNGS, look_after})
        self._declared = False
        self._declaring = asyncio.Lock()
        self._out = _Link(address, self._declare)
        self._in = {lane: _Link(address, self._declare) for lane in Lane}
        self._admin = _Link(address, self._declare)
        self._inspecting = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, look_after: int) -> "RabbitQueue":
        """Declare the queues. A broker that is away does not keep a receiver from starting (it answers
        503 meanwhile); one whose queues have other arguments does: raises `ConfigError`."""
        queue = cls(url, look_after)
        try:
            await queue.counts()
        except QueueAway as error:
            log(Action.QUEUE, str(error), level=logging.WARNING)
        except BaseException:
            await queue.close()
            raise
        return queue

    async def _declare(self, connection: aio_pika.abc.AbstractConnection) -> None:
        async with self._declaring:
            if self._declared:
                return
            channel = await _Link.fresh(connection)
            for item in topology.declarations(self._rungs):
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
            self._declared = True

    # ------------------------------------------------------------------ in

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        """See the port."""
        check_delay(delay)
        await self._send(body, lane, delay, {ID: uuid.uuid4().hex, ATTEMPT: 1})

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        """See the port."""
        await self._lay(body, lane, why, {ID: uuid.uuid4().hex, ATTEMPT: 1})

    async def _lay(self, body: bytes, lane: Lane, why: str, headers: dict[str, Any]) -> None:
        await self._put(body, "", topology.dead_queue(), {**headers, WHY: why, AT: repr(time.time()), LANE: lane.value})

    async def _send(self, body: bytes, lane: Lane, delay: float, headers: dict[str, Any]) -> None:
        exchange = topology.wait_queue(rung(delay, self._rungs)) if delay > 0 else ""
        await self._put(body, exchange, topology.lane_queue(lane), headers)

    async def _put(self, body: bytes, exchange: str, key: str, headers: dict[str, Any]) -> None:
        # No message_id: the library matches returned messages by it and makes a unique one itself.
        message = aio_pika.Message(body, headers=headers, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        async with _translated(CONFIRM_WITHIN):
            channel = await self._out.channel()
            target = channel.default_exchange
            if exchange:
                target = await channel.get_exchange(exchange, ensure=False)
            try:
                answer = await target.publish(message, key, mandatory=True)
            except (PublishError, ChannelNotFoundEntity):
                self._declared = False  # the broker has lost its queues: declare again, with the next connection
                await self._out.close()
                raise
        if answer is None or type(answer).__name__ != "Ack":
            raise QueueAway(f"RabbitMQ answered a publish with {answer!r}")

    # ------------------------------------------------------------------ out

    async def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
        """See the port."""
        away = False
        while True:
            inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
            try:
                async with _translated(None):
                    channel, tag = await self._consume(lane, limit, inbox)
            except QueueAway as error:
                if not away:
                    log(Action.QUEUE, f"{error}; trying again", level=logging.WARNING, lane=lane)
                away = True
                await asyncio.sleep(RECONNECT)
                continue
            if away:
                log(Action.QUEUE, "RabbitMQ is back", lane=lane)
            away = True  # whatever ends the loop below, the channel is gone
            try:
                while (message := await self._next(inbox, channel, tag)) is not None:
                    yield _delivery(message, channel, lane)
            finally:
                await _hand_back(inbox, channel, tag)
            log(Action.QUEUE, "the channel to RabbitMQ closed; opening another", level=logging.WARNING, lane=lane)

    async def _consume(
        self, lane: Lane, limit: int, inbox: asyncio.Queue[AbstractIncomingMessage | None]
    ) -> tuple[AbstractChannel, str]:
        channel = await self._in[lane].channel()
        channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        await channel.set_qos(prefetch_count=limit)
        queue = await channel.get_queue(topology.lane_queue(lane), ensure=False)
        try:
            return channel, await queue.consume(inbox.put)
        except ChannelNotFoundEntity:
            self._declared = False
            await self._in[lane].close()
            raise

    @staticmethod
    async def _next(
        inbox: asyncio.Queue[AbstractIncomingMessage | None], channel: AbstractChannel, tag: str
    ) -> AbstractIncomingMessage | None:
        """Return the next message; None when there will be no more on this channel."""
        while True:
            try:
                async with asyncio.timeout(IDLE_CHECK):
                    return await inbox.get()
            except TimeoutError:
                # A broker that cancels a consumer (its queue was deleted) says so to the library alone.
                if channel.is_closed or tag not in (await channel.get_underlay_channel()).consumers:
                    return None

    def holds(self, delivery: Delivery) -> bool:
        """See the port."""
        receipt = _receipt(delivery)
        return not receipt.settled and not receipt.channel.is_closed

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """See the port. A retry or a burial is published and confirmed before the ack; while the broker
        takes no messages the delivery is held and the publish tried again, since giving it back would
        use up its delivery limit in minutes."""
        receipt = _receipt(delivery)
        if not self.holds(delivery):
            raise LostDelivery("the delivery was settled before, or its channel closed")
        receipt.settled = True
        try:
            while not isinstance(verdict, Done):
                try:
                    await self._pass_on(delivery, verdict)
                    break
                except QueueAway as error:
                    if receipt.channel.is_closed:
                        raise LostDelivery("the channel closed before the retry was confirmed") from error
                    await asyncio.sleep(RECONNECT)
            async with _translated(CONFIRM_WITHIN):
                await receipt.message.ack()
        except QueueAway as error:
            raise LostDelivery(f"the acknowledgement did not go out: {error}") from error
        except BaseException:
            receipt.settled = False
            raise

    async def _pass_on(self, delivery: Delivery, verdict: Verdict) -> None:
        if isinstance(verdict, Done):
            return
        failures = json.dumps([asdict(f) for f in after_verdict(delivery, verdict, time.time())])
        headers = {**_own_headers(_receipt(delivery).message), FAILURES: failures, ATTEMPT: delivery.attempt}
        if isinstance(verdict, Bury):
            await self._lay(delivery.body, delivery.lane, verdict.why, headers)
        else:
            headers[ATTEMPT] = delivery.attempt + verdict.counts
            await self._send(delivery.body, delivery.lane, verdict.after, headers)

    # ------------------------------------------------------------------ looking

    async def counts(self) -> Counts:
        """See the port. `held` is None: only RabbitMQ's management interface knows it."""
        async with _translated(10):
            channel = await self._admin.channel()

            async def depth(name: str) -> int:
                # On a plain channel; a robust one answers a passive declaration from its memory.
                queue = await channel.declare_queue(name, passive=True)
                return queue.declaration_result.message_count or 0

            return Counts(
                ready={lane: await depth(topology.lane_queue(lane)) for lane in Lane},
                waiting=sum([await depth(topology.wait_queue(r)) for r in self._rungs]),
                dead=await depth(topology.dead_queue()),
            )

    async def buried(self, limit: int, after: str | None = None) -> list[DeadLetter]:
        """See the port."""
        page: list[DeadLetter] = []
        behind = after is None

        def collect(letter: DeadLetter) -> _Fate:
            nonlocal behind
            if len(page) == limit:
                return _Fate.STOP
            if behind:
                page.append(letter)
            behind = behind or letter.id == after
            return _Fate.KEEP

        await self._sweep(collect)
        if not behind:
            raise LookupError(f"{after} is no dead letter any more; list again from the start")
        return page

    async def replay(self, ids: Collection[str] | None = None) -> set[str]:
        """See the port."""
        return await self._pick(ids, _Fate.REPLAY)

    async def drop(self, ids: Collection[str]) -> set[str]:
        """See the port."""
        return await self._pick(ids, _Fate.DROP)

    async def _pick(self, ids: Collection[str] | None, fate: _Fate) -> set[str]:
        wanted, found = None if ids is None else set(ids), set[str]()

        def choose(letter: DeadLetter) -> _Fate:
            if wanted is None or letter.id in wanted:
                found.add(letter.id)
                return fate
            return _Fate.STOP if found == wanted else _Fate.KEEP

        await self._sweep(choose)
        return found

    async def _sweep(self, choose: Callable[[DeadLetter], _Fate]) -> None:
        """Go once over the dead letters there are now. What is kept goes back in its old order: the
        letters got and not acknowledged return to the head together, by one nack."""
        async with _translated(None), self._alone() as channel:
            queue = await channel.declare_queue(topology.dead_queue(), passive=True)
            last: AbstractIncomingMessage | None = None
            try:
                for _ in range(queue.declaration_result.message_count or 0):
                    message = await queue.get(fail=False, timeout=10)
                    if message is None:
                        break
                    letter = _letter(message)
                    fate = choose(letter)
                    if fate is _Fate.REPLAY:
                        headers = {ID: letter.id, ATTEMPT: 1, FAILURES: json.dumps([asdict(f) for f in letter.failures])}
                        await self._send(letter.body, letter.lane, 0, headers)
                    if fate in (_Fate.REPLAY, _Fate.DROP):
                        await message.ack()
                    else:
                        last = message
                    if fate is _Fate.STOP:
                        break
            finally:
                if last is not None and not channel.is_closed:
                    await last.nack(multiple=True, requeue=True)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AbstractChannel]:
        """A channel of its own, while nobody else looks: letters in another's hands would seem gone."""
        async with self._inspecting:
            connection = await self._admin.connection()
            async with asyncio.timeout(30):
                lock = await self._lock(connection)
            channel = await _Link.fresh(connection)
            try:
                yield channel
            finally:
                with suppress(*_FOREIGN):
                    await channel.close()
                    await lock.queue_delete(topology.dead_lock())
                    await lock.close()

    @staticmethod
    async def _lock(connection: aio_pika.abc.AbstractConnection) -> AbstractChannel:
        while True:
            channel = await _Link.fresh(connection)
            try:
                await channel.declare_queue(topology.dead_lock(), exclusive=True)
            except AMQPError:  # RESOURCE_LOCKED: another connection owns it
                await asyncio.sleep(0.1)
            else:
                return channel

    async def close(self) -> None:
        """See the port."""
        for link in (*self._in.values(), self._admin, self._out):
            await link.close()


async def _hand_back(
    inbox: asyncio.Queue[AbstractIncomingMessage | None], channel: AbstractChannel, tag: str
) -> None:
    """Stop consuming and return what nobody has seen. If the channel is gone, so is the need."""
    with suppress(*_FOREIGN, QueueAway):
        async with _translated(CONFIRM_WITHIN):
            if not channel.is_closed:
                await (await channel.get_underlay_channel()).basic_cancel(tag)
            while not inbox.empty():
                message = inbox.get_nowait()
                if message is not None:
                    await message.nack(requeue=True)


def _delivery(message: AbstractIncomingMessage, channel: AbstractChannel, lane: Lane) -> Delivery:
    headers = message.headers
    # The count is absent on a first delivery; an old broker may only set the flag.
    again = max(_number(headers.get("x-delivery-count"), 0), int(bool(message.redelivered)))
    attempt = _number(headers.get(ATTEMPT), 1) + again
    return Delivery(message.body, attempt, _Receipt(message, channel), lane, _failures(headers.get(FAILURES)))


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    headers = message.headers
    lane = headers.get(LANE) or topology.lane_of(str(headers.get("x-first-death-queue"))).value
    return DeadLetter(
        id=str(headers.get(ID) or hashlib.sha256(message.body).hexdigest()[:32]),
        body=message.body,
        lane=Lane(lane) if lane in list(Lane) else Lane.LIVE,
        why=str(headers.get(WHY) or KILLER),
        at=float(str(headers.get(AT) or 0)),
        attempt=_number(headers.get(ATTEMPT), 1),
        failures=_failures(headers.get(FAILURES)),
    )


def _own_headers(message: AbstractIncomingMessage) -> dict[str, Any]:
    """The headers that are ours: x-death and its kin would mislead the broker when published again."""
    return {name: value for name, value in message.headers.items() if name.startswith("hookmirror-")}


def _receipt(delivery: Delivery) -> _Receipt:
    if not isinstance(delivery.receipt, _Receipt):
        raise TypeError("a delivery of another queue")
    return delivery.receipt


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


def _failures(value: object) -> tuple[Failure, ...]:
    return tuple(Failure(**entry) for entry in json.loads(value)) if isinstance(value, str) else ()
