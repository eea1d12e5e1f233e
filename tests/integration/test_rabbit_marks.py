"""Marks on RabbitMQ, where the queue is the mark: what the broker's death and its limits make of them."""

import uuid
from collections.abc import AsyncIterator

import pytest

from common.errors import QueueAway
from common.queue.port import Lane
from common.queue.rabbitmq import RabbitQueue
from tests.lab.rabbit import RabbitNode
from tests.lab.until import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def queue(own_rabbit: RabbitNode) -> AsyncIterator[RabbitQueue]:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    yield queue
    await queue.close()


async def answered(queue: RabbitQueue, key: str, holder: str, *, within: float) -> bool:
    """Ask until the broker answers."""
    told: list[bool] = []

    async def tells() -> bool:
        try:
            told.append(await queue.first(key, holder, within=within))
        except QueueAway:
            return False
        return True

    await until(tells, "the broker answers", 60)
    return told[0]


async def test_a_mark_survives_a_restart_of_the_broker_and_its_kill(
    own_rabbit: RabbitNode, queue: RabbitQueue
) -> None:
    """In this order: RabbitMQ 3.10 that is killed in the very moment of a declaration may have lost it."""
    key = str(uuid.uuid4())
    assert await queue.first(key, "a", within=600)
    for end in (own_rabbit.shut_down, own_rabbit.kill):
        end()
        with pytest.raises(QueueAway):
            await queue.first(key, "a", within=600)
        own_rabbit.start()
        assert not await answered(queue, key, "b", within=600)
        assert await answered(queue, key, "a", within=600)


async def test_a_broker_that_makes_no_more_queues_is_away_and_no_other_holder(
    own_rabbit: RabbitNode, queue: RabbitQueue
) -> None:
    held, key = str(uuid.uuid4()), str(uuid.uuid4())
    assert await queue.first(held, "a", within=600)
    own_rabbit.control("set_vhost_limits", '{"max-queues": 1}')
    try:
        with pytest.raises(QueueAway, match="makes no queue"):
            await queue.first(key, "a", within=600)
        assert not await queue.first(held, "b", within=600)
        assert await queue.first(held, "a", within=600)
    finally:
        own_rabbit.control("set_vhost_limits", "{}")
    assert await queue.first(key, "a", within=600)


async def test_a_refusal_leaves_publishing_and_counting_alone(queue: RabbitQueue) -> None:
    key = str(uuid.uuid4())
    channel = await queue._out.channel()
    for holder, told in (("a", True), ("b", False), ("c", False)):
        assert await queue.first(key, holder, within=600) is told
        await queue.publish(b"x", lane=Lane.LIVE)
    assert (await queue._out.channel()) is channel
    assert (await queue.counts()).ready[Lane.LIVE] == 3


async def test_a_holder_who_asks_with_another_time_is_not_taken_for_somebody_else(queue: RabbitQueue) -> None:
    """The window of a route was changed while its task waited: it would be lost as its own duplicate."""
    key = str(uuid.uuid4())
    assert await queue.first(key, "a", within=600)
    assert await queue.first(key, "a", within=300)
