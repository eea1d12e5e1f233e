"""A delivery settled while RabbitMQ answers nobody."""

import asyncio

import pytest

from common.queue.port import Retry
from common.queue.rabbitmq import RabbitQueue
from tests.lab.lanes import LIVE
from tests.lab.rabbit import RabbitNode
from tests.lab.until import until

pytestmark = pytest.mark.timeout(120)


async def test_a_retry_is_there_once_when_a_silent_broker_goes_on(
    own_rabbit: RabbitNode,
) -> None:
    await own_rabbit.wipe()
    queue = await RabbitQueue.open(own_rabbit.url, look_after=1200)
    try:
        await queue.publish(b"x", lane=LIVE)
        deliveries = queue.deliveries(LIVE, 1)  # kept: once collected it would give the delivery back
        delivery = await anext(deliveries)
        own_rabbit.pause()
        try:
            settling = asyncio.create_task(queue.settle(delivery, Retry(3600, "again")))
            await asyncio.wait([settling], timeout=8)  # longer than a publish has, shorter than a heartbeat
            assert not settling.done()
        finally:
            own_rabbit.resume()
        await asyncio.wait_for(settling, 30)

        async def there() -> bool:
            return (await queue.counts()).waiting > 0

        await until(there, "the retry waits")
        assert (await queue.counts()).waiting == 1
    finally:
        await queue.close()
