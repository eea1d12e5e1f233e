"""The queue port on RabbitMQ, 3.10 to 4.x."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError
from aiormq import spec
from aiormq.exceptions import ConnectionInternalError
from yarl import URL

from common.backoff import RUNGS, rung
from common.errors import LostDelivery, QueueAway, QueueLoses
from common.queue import topology
from common.queue.port import (
    Bury,
    Counts,
    DeadLetter,
    Delivery,
    Depth,
    Done,
    Kind,
    Lane,
    Move,
    Retry,
    Verdict,
    after_verdict,
    check_delay,
)
from common.queue.rabbitmq import bulk, mark, wire
from common.queue.rabbitmq.consume import Subscription, give_back
from common.queue.rabbitmq.dead import Fate, Graveyard
from common.queue.rabbitmq.declare import Layout
from common.queue.rabbitmq.link import CONFIRM_WITHIN, Link, translated
from common.queue.rabbitmq.notices import Notices
from common.queue.rabbitmq.silence import Silence, sentence
from common.queue.rabbitmq.watch import PolicyWatch
from common.telemetry import Action, log

RECONNECT = 1.0
"""Seconds between two tries to reach an absent broker."""

SETTLE_WITHIN = 60.0
"""Seconds to wait for the confirm of a retry or a burial: no sender waits for it. A broker that
only paused (an alarm of memory or disk) delivers each repeat: duplicates, and nothing lost."""

COUNT_WITHIN = 10.0
"""Seconds for all the depths to be told."""


class RabbitQueue:
    """The port over four connections: one to publish, one for each kind of lane, one for the depths, the dead
    and the marks. What is declared or timed out on one cannot kill a publish under way on another."""

    def __init__(self, url: str, look_after: int, management: str | None = None) -> None:
        address = self._address = URL(url)
        self._rungs = sorted({*RUNGS, look_after})
        self._routes: frozenset[str] = frozenset()  # whose hooks come here; none for who only looks
        self._notices = Notices()
        self._layout = Layout(self._rungs, self._notices, lambda: self._policies.start())
        self._policies = PolicyWatch(management, address, self._layout.queues)
        self._out = Link(address, self._prepare, self._notices)
        self._in = {kind: Link(address, self._prepare, self._notices) for kind in Kind}
        self._layout.link = self._admin = Link(address, self._prepare, self._notices)
        self._graveyard = Graveyard(self._admin, self._revive)
        self._apart: dict[Lane, Link] = {}
        self._left: list[Subscription] = []
        self._silence = Silence()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        look_after: int,
        management: str | None = None,
        refuse: bool = True,
        routes: Collection[str] = (),
    ) -> "RabbitQueue":
        """Declare the queues, those of `routes` too: who sends their first hook would wait for it. A broker
        that is away does not keep a receiver from starting (it answers 503 meanwhile). Raises `ConfigError`
        for one whose queues have other arguments, and for a policy that loses, where the `management` API
        tells of it. Without `refuse`, for who only looks, `QueueAway` is raised and a policy is not."""
        queue = cls(url, look_after, management)
        queue._routes = frozenset(routes)
        try:
            async with translated(COUNT_WITHIN + len(routes)):
                await queue._layout.make(routes)
            await queue.counts()
            await queue._policies.look(refuse=refuse)
        except BaseException as error:
            if not (refuse and isinstance(error, QueueAway)):
                await queue.close()
                raise
            log(Action.QUEUE, str(error), level=logging.WARNING)
        return queue

    async def _prepare(self, connection: AbstractConnection) -> None:
        self._policies.start()
        await self._layout.prepare(connection)

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        """See the port."""
        check_delay(delay)
        await self._send(body, lane, delay, wire.first_headers())

    async def publish_all(self, bodies: Mapping[Lane, Collection[bytes]]) -> None:
        """See the port."""
        await asyncio.gather(*(self._publish_all(some, lane) for lane, some in bodies.items()))

    async def _publish_all(self, bodies: Collection[bytes], lane: Lane) -> None:
        queue = topology.lane_queue(lane)
        async with self._publishing(queue, CONFIRM_WITHIN, lane) as channel:
            await bulk.publish(channel, queue, bodies, wire.first_headers)

    async def check(self) -> None:
        """See the port. A broker out of memory or disk no longer reads what publishers send: so something is
        sent that no queue is for, and its confirm awaited."""
        counts = await self.counts()
        for lane, depth in counts.lanes.items():
            if depth.ready >= topology.MAX_LENGTH and lane.route in (self._routes or {lane.route}):
                raise QueueAway(f"{topology.lane_queue(lane)} is full: {topology.MAX_LENGTH} tasks wait")
        await self._confirm()
        if counts.silent:
            raise QueueAway(sentence(counts.silent))
        if counts.losing:
            raise QueueLoses(counts.losing[0])

    async def _confirm(self) -> None:
        async with self._out.taking(CONFIRM_WITHIN):
            channel = await self._out.channel()
            await channel.default_exchange.publish(Message(b""), topology.nowhere(), mandatory=False)

    async def _silent(self) -> tuple[str, ...]:
        """Return the queues that are dead; none while the broker confirms nothing at all."""
        silent = self._silence.dead()
        if silent:
            try:
                await self._confirm()
            except QueueAway:
                return ()
            self._notices.say(sentence(silent), level=logging.ERROR)
        return silent

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        """See the port."""
        await self._lay(body, lane, why, wire.first_headers())

    async def _revive(self, letter: DeadLetter) -> None:
        headers = wire.first_headers(letter.id) | wire.failures_header(letter.failures)
        await self._send(letter.body, letter.lane, 0, headers)

    async def _lay(
        self, body: bytes, lane: Lane, why: str, headers: wire.Headers, *, within: float = CONFIRM_WITHIN
    ) -> None:
        dead = headers | wire.dead_headers(lane, why)
        await self._put(body, "", topology.dead_queue(), dead, within, lane)

    async def _send(
        self, body: bytes, lane: Lane, delay: float, headers: wire.Headers, *, within: float = CONFIRM_WITHIN
    ) -> None:
        exchange = topology.wait_queue(rung(delay, self._rungs)) if delay > 0 else ""
        await self._put(body, exchange, topology.lane_queue(lane), headers, within, lane)

    async def _put(
        self, body: bytes, exchange: str, key: str, headers: wire.Headers, within: float, lane: Lane
    ) -> None:
        """Publish and return when the broker has confirmed; the default exchange is ""."""
        # No message_id: the library matches returned messages by it and makes a unique one itself.
        message = Message(body, headers=headers, delivery_mode=DeliveryMode.PERSISTENT)
        async with self._publishing(exchange or key, within, lane) as channel:
            target = channel.default_exchange
            if exchange:
                target = await channel.get_exchange(exchange, ensure=False)
            answer = await target.publish(message, key, mandatory=True)
        if not isinstance(answer, spec.Basic.Ack):
            raise QueueAway(f"RabbitMQ answered a publish with {answer!r}")

    @asynccontextmanager
    async def _publishing(self, queue: str, within: float, lane: Lane) -> AsyncIterator[AbstractChannel]:
        """Give the channel for what goes to `queue`, and in the end to `lane`, and bear what comes of it. One
        that is dead keeps for a minute whatever comes after it on its channel."""
        async with self._out.taking(within):
            await self._layout.make([lane.route])
            channel = await self._out.channel(queue)
            try:
                with self._silence.awaiting(queue):
                    yield channel
            except (PublishError, ChannelNotFoundEntity):
                self._layout.lost(queue)
                raise

    async def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
        """See the port."""
        while True:
            subscription = await self._subscribe(lane, limit)
            try:
                while (message := await subscription.next()) is not None:
                    yield wire.delivery_from(message, subscription.channel, lane)
            finally:
                await subscription.hand_back(partial(self._again, lane))
                why = subscription.ended
                self._left.append(subscription)
                await self._sweep()
            if why:
                self._notices.say(f"{why}; consuming again")

    async def _sweep(self) -> None:
        """Close the channels of consumers that have ended, when nothing that came on them is unsettled."""
        for subscription in list(self._left):
            if await subscription.close_when_settled() and subscription in self._left:
                self._left.remove(subscription)

    async def _again(self, lane: Lane, message: AbstractIncomingMessage) -> None:
        headers = wire.own_headers(message) | {wire.RETURNED: wire.returned(message)}
        await self._send(message.body, lane, 0, headers)

    async def _subscribe(self, lane: Lane, limit: int) -> Subscription:
        """Return a subscription, however long the broker stays away."""
        told = ""
        while True:
            try:
                async with translated(None):
                    subscription = await self._start(lane, limit)
            except QueueAway as error:
                if str(error) != told:  # once for each reason: of an absent broker that starts there are some
                    log(Action.QUEUE, f"{error}; trying again", level=logging.WARNING, lane=lane.name)
                told = str(error)
                await self._silent()
                await asyncio.sleep(RECONNECT)
                continue
            if told:
                log(Action.QUEUE, "RabbitMQ is back", lane=lane.name)
            return subscription

    async def _start(self, lane: Lane, limit: int) -> Subscription:
        queue = topology.lane_queue(lane)
        await self._layout.make([lane.route])
        try:
            subscription = await Subscription.start(self._apart.get(lane, self._in[lane.kind]), queue, limit)
        except ChannelNotFoundEntity:
            self._layout.lost(queue)
            raise
        except ConnectionInternalError:  # after a minute: of a dead queue it is all that the broker says
            self._silence.broke(queue)
            # It closes the connection too: from now on one that only this lane has.
            self._apart.setdefault(lane, Link(self._address, self._prepare, self._notices))
            raise
        self._silence.answered(queue)
        return subscription

    def holds(self, delivery: Delivery) -> bool:
        """See the port."""
        receipt = wire.receipt_of(delivery)
        return not receipt.settled and not receipt.channel.is_closed

    async def give_back(self, delivery: Delivery) -> None:
        """See the port."""
        receipt = wire.receipt_of(delivery)
        if self.holds(delivery):
            receipt.settled = True
            await give_back(receipt.message, partial(self._again, delivery.lane))
            await self._sweep()

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """See the port. A retry or a burial is published and confirmed before the ack: the other way
        round loses the message when the process dies in between."""
        receipt = wire.receipt_of(delivery)
        if not self.holds(delivery):
            raise LostDelivery("the delivery was settled before, or its channel closed")
        receipt.settled = True
        try:
            if not isinstance(verdict, Done):
                await self._pass_on(delivery, verdict)
            async with translated(CONFIRM_WITHIN):
                await receipt.message.ack()
        except QueueAway as error:
            raise LostDelivery(f"the acknowledgement did not go out: {error}") from error
        except BaseException:
            receipt.settled = False
            raise
        await self._sweep()

    async def _pass_on(self, delivery: Delivery, verdict: Retry | Bury | Move) -> None:
        """Publish the message again where `verdict` sends it, trying for as long as the delivery is held:
        giving it back to a broker that takes no messages would use up its delivery limit in minutes."""
        receipt = wire.receipt_of(delivery)
        headers = wire.own_headers(receipt.message) | {wire.ATTEMPT: delivery.attempt}
        headers |= wire.failures_header(after_verdict(delivery, verdict, time.time()))
        headers.pop(wire.RETURNED, None)
        body = verdict.body or delivery.body
        while not receipt.channel.is_closed:
            try:
                if isinstance(verdict, Bury):
                    await self._lay(body, delivery.lane, verdict.why, headers, within=SETTLE_WITHIN)
                elif isinstance(verdict, Move):
                    headers[wire.RETURNED] = delivery.returned
                    await self._send(body, verdict.lane, 0, headers, within=SETTLE_WITHIN)
                else:
                    headers[wire.ATTEMPT] = delivery.attempt + verdict.counts
                    after = verdict.after
                    await self._send(body, delivery.lane, after, headers, within=SETTLE_WITHIN)
            except QueueAway:
                await self._silent()
                await asyncio.sleep(RECONNECT)
            else:
                return
        raise LostDelivery("the channel closed before the retry was confirmed")

    async def counts(self) -> Counts:
        """See the port. `held` is None: only RabbitMQ's management interface knows it."""
        async with translated(COUNT_WITHIN):
            lanes, depths = await self._layout.depths()
            self._policies.start_if_old()  # not before the broker has answered
            return Counts(
                lanes={lane: Depth(depths[topology.lane_queue(lane)]) for lane in lanes},
                waiting=sum(depths[topology.wait_queue(seconds)] for seconds in self._rungs),
                dead=depths[topology.dead_queue()],
                silent=await self._silent(),
                losing=self._policies.losing,
            )

    def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """See the port."""
        return self._graveyard.letters()

    async def buried(self, limit: int) -> list[DeadLetter]:
        """See the port."""
        return await self._graveyard.oldest(limit)

    async def replay(self, ids: Collection[str] | None = None) -> set[str]:
        """See the port."""
        return await self._graveyard.pick(ids, Fate.REPLAY)

    async def drop(self, ids: Collection[str]) -> set[str]:
        """See the port."""
        return await self._graveyard.pick(ids, Fate.DROP)

    async def first(self, key: str, holder: str, *, at: float, within: float) -> bool:
        """See the port."""
        wanted = topology.mark(key, holder, at=at, within=within)
        return await mark.claim(self._admin, wanted, within=within)

    async def close(self) -> None:
        """See the port."""
        self._policies.close()
        self._layout.close()
        for link in (*self._in.values(), *self._apart.values(), self._admin, self._out):
            await link.close()
