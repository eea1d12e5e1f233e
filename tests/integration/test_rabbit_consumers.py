"""A consumer on RabbitMQ that gets nothing although there is something is noticed, and renewed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import aio_pika
import aiormq
import pytest

from common.errors import LostDelivery
from common.queue import topology
from common.queue.port import Done
from common.queue.rabbitmq import RabbitQueue
from common.queue.rabbitmq.consume import TOO_SHORT, Subscription
from tests.lab.lanes import LIVE
from tests.lab.rabbit import RabbitNode

pytestmark = pytest.mark.timeout(180)

NOTICED_WITHIN = 30.0
QUEUE = topology.lane_queue(LIVE)


@pytest.fixture
async def queue(own_rabbit: RabbitNode) -> AsyncIterator[RabbitQueue]:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    yield queue
    await queue.close()


async def consume(queue: RabbitQueue, came: asyncio.Queue[bytes]) -> None:
    async with aclosing(queue.deliveries(LIVE, 4)) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            await queue.settle(delivery, Done("ok"))
            came.put_nowait(delivery.body)


async def arrives(queue: RabbitQueue, body: bytes, came: asyncio.Queue[bytes]) -> None:
    await queue.publish(body, lane=LIVE)
    async with asyncio.timeout(NOTICED_WITHIN):
        while await came.get() != body:
            pass


@pytest.mark.parametrize("known", ["to the broker alone", "to the channel alone"])
async def test_a_consumer_that_only_one_side_knows_is_renewed_within_30_s(
    queue: RabbitQueue, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Subscription] = []
    start = Subscription.start

    async def remembered(*arguments: object) -> Subscription:
        started.append(await start(*arguments))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(Subscription, "start", remembered)
    came: asyncio.Queue[bytes] = asyncio.Queue()
    consuming = asyncio.create_task(consume(queue, came))
    try:
        await arrives(queue, b"first", came)
        channel = await started[0].channel.get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        [(tag, callback)] = channel.consumers.items()
        if known == "to the broker alone":
            del channel.consumers[tag]
        else:
            await channel.basic_cancel(tag)
            channel.consumers[tag] = callback
        await arrives(queue, b"second", came)
    finally:
        consuming.cancel()
        await asyncio.wait([consuming])


async def test_a_lane_deleted_and_declared_again_within_a_second_goes_on(queue: RabbitQueue) -> None:
    """The broker may then believe in a consumer that it has told the channel is gone, and send everything
    there: twice in five tries."""
    came: asyncio.Queue[bytes] = asyncio.Queue()
    consuming = asyncio.create_task(consume(queue, came))
    [live] = [item for item in topology.lanes(LIVE.route) if item.name == QUEUE]
    try:
        for round_ in range(4):
            await arrives(queue, b"before %d" % round_, came)
            async with await aio_pika.connect(queue._out._url) as other:
                channel = await other.channel()
                await channel.queue_delete(QUEUE)
                await channel.declare_queue(QUEUE, durable=True, arguments=dict(live.arguments))
            await arrives(queue, b"after %d" % round_, came)
    finally:
        consuming.cancel()
        await asyncio.wait([consuming])


async def test_a_consumer_timeout_that_strikes_is_named_in_the_log(
    own_rabbit: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    """In rabbitmq.conf it cannot be seen before. A channel is looked at every minute, here each second."""
    url = await own_rabbit.wipe()
    set_timeout(own_rabbit, 1500, each=1000)
    queue = await RabbitQueue.open(url, look_after=1200)
    try:
        await queue.publish(b"slow", lane=LIVE)
        async with aclosing(queue.deliveries(LIVE, 4)) as deliveries:  # type: ignore[type-var]
            held = await anext(deliveries)
            again = await asyncio.wait_for(anext(deliveries), NOTICED_WITHIN)
            assert again.body == b"slow"
            assert again.returned
            with pytest.raises(LostDelivery):
                await queue.settle(held, Done("too late"))
    finally:
        await queue.close()
        set_timeout(own_rabbit, 1_800_000, each=60_000)
    assert TOO_SHORT in caplog.text


def set_timeout(node: RabbitNode, milliseconds: int, *, each: int) -> None:
    """Have each channel looked at so often, and closed when a delivery is held for longer than that."""
    settings = {"consumer_timeout": milliseconds, "channel_tick_interval": each}
    node.control(
        "eval", ", ".join(f"application:set_env(rabbit, {name}, {ms})" for name, ms in settings.items()) + "."
    )
