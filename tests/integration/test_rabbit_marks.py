"""Marks on RabbitMQ, where the queue is the mark: what the broker's death and its limits make of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from common.errors import QueueAway
from common.queue import topology
from common.queue.port import Kind
from common.queue.rabbitmq import RabbitQueue
from tests.lab.lanes import LIVE
from tests.lab.rabbit import RabbitNode
from tests.lab.until import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def queue(own_rabbit: RabbitNode) -> AsyncIterator[RabbitQueue]:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    yield queue
    await queue.close()


async def first(queue: RabbitQueue, key: str, holder: str, *, at: float = 1e9, within: float = 600) -> bool:
    return await queue.first(key, holder, at=at, within=within)


async def answered(queue: RabbitQueue, key: str, holder: str, *, at: float = 1e9) -> bool:
    """Ask until the broker answers."""
    told: list[bool] = []

    async def tells() -> bool:
        try:
            told.append(await first(queue, key, holder, at=at))
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
    assert await first(queue, key, "a")
    for end in (own_rabbit.shut_down, own_rabbit.kill):
        end()
        with pytest.raises(QueueAway):
            await first(queue, key, "a")
        own_rabbit.start()
        assert not await answered(queue, key, "b")
        assert await answered(queue, key, "a")


async def test_a_broker_that_makes_no_more_queues_is_away_and_no_other_holder(
    own_rabbit: RabbitNode, queue: RabbitQueue
) -> None:
    held, key = str(uuid.uuid4()), str(uuid.uuid4())
    assert await first(queue, held, "a")
    own_rabbit.control("set_vhost_limits", '{"max-queues": 1}')
    try:
        with pytest.raises(QueueAway, match="makes no queue"):
            await first(queue, key, "a")
        assert not await first(queue, held, "b")
        assert await first(queue, held, "a")
    finally:
        own_rabbit.control("set_vhost_limits", "{}")
    assert await first(queue, key, "a")


async def test_a_refusal_leaves_publishing_and_counting_alone(queue: RabbitQueue) -> None:
    key = str(uuid.uuid4())
    channel = await queue._out.channel(topology.lane_queue(LIVE))
    for holder, told in (("a", True), ("b", False), ("c", False)):
        assert await first(queue, key, holder) is told
        await queue.publish(b"x", lane=LIVE)
    assert (await queue._out.channel(topology.lane_queue(LIVE))) is channel
    assert (await queue.counts()).ready[Kind.LIVE] == 3


async def test_a_holder_who_asks_with_another_time_is_not_taken_for_somebody_else(queue: RabbitQueue) -> None:
    """The window of a route was changed while its task waited: it would be lost as its own duplicate."""
    key = str(uuid.uuid4())
    assert await first(queue, key, "a")
    assert await first(queue, key, "a", within=300)


async def test_of_many_who_take_an_old_mark_at_once_all_that_came_apart_are_the_first(
    queue: RabbitQueue,
) -> None:
    """Five pairs that came an hour apart from each other; the two of a pair may both be told so, since they
    may take it in the same moment, but never none."""
    key = str(uuid.uuid4())
    assert await first(queue, key, "old", at=1e9)
    asking = [
        (n, answered(queue, key, f"{n} {m}", at=1e9 + n * 3600 + m)) for n in range(1, 6) for m in range(2)
    ]
    told = await asyncio.gather(*(one for _, one in asking))
    assert {n for (n, _), is_first in zip(asking, told, strict=True) if is_first} == set(range(1, 6))


async def test_a_user_who_may_not_declare_marks_is_told_which_right_he_lacks(
    own_rabbit: RabbitNode, queue: RabbitQueue
) -> None:
    own_rabbit.control("set_permissions", "guest", "^(?!hookmirror.once)", ".*", ".*")
    try:
        with pytest.raises(QueueAway, match=r"the right to configure it"):
            await first(queue, str(uuid.uuid4()), "a")
    finally:
        own_rabbit.control("set_permissions", "guest", ".*", ".*", ".*")


async def test_a_refusal_that_the_broker_cut_loses_nothing(own_rabbit: RabbitNode) -> None:
    """Its text has 255 bytes, and names the vhost before it tells whose the mark is."""
    vhost = "v" * 120
    own_rabbit.control("add_vhost", vhost)
    own_rabbit.control("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    queue = await RabbitQueue.open(own_rabbit.url + vhost, look_after=1200)
    try:
        assert await first(queue, "k", "a", at=1e9)
        assert await first(queue, "k", "b", at=2e9)
        assert await first(queue, "k", "a", at=1e9)
    finally:
        await queue.close()
        own_rabbit.control("delete_vhost", vhost)
