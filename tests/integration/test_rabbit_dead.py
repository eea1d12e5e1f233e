"""RabbitMQ killed in the second in which hookmirror declared its queues there for the first time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import QueueAway
from common.queue.port import Lane
from common.queue.rabbitmq import RabbitQueue
from tests.lab.rabbit import Broker, RabbitNode
from tests.lab.until import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def new_rabbit(rabbit: Broker, tmp_path: Path) -> AsyncIterator[RabbitNode]:
    """A broker that has never seen us."""
    if not isinstance(rabbit, RabbitNode):
        pytest.skip("kills the broker, and that of HOOKMIRROR_TEST_AMQP_URL is somebody else's")
    node = RabbitNode(tmp_path / "new")
    node.start()
    yield node
    node.stop()


async def test_a_broker_killed_in_the_second_of_the_first_start_brings_every_queue_back(
    new_rabbit: RabbitNode,
) -> None:
    queue = await RabbitQueue.open(new_rabbit.url, look_after=1200)
    await queue.publish(b"kept", lane=Lane.LIVE)
    new_rabbit.kill()
    await queue.close()
    new_rabbit.start()
    queue = await RabbitQueue.open(new_rabbit.url, look_after=1200)
    try:
        for delay in (0, *queue._rungs):

            async def taken(delay: float = delay) -> bool:
                try:
                    await queue.publish(b"x", lane=Lane.LIVE, delay=delay)
                except QueueAway:
                    return False
                return True

            await until(taken, f"the queue of the wait {delay} confirms", 60)
        await queue.bury(b"x", lane=Lane.LIVE, why="no")
        counts = await queue.counts()
        assert counts.ready[Lane.LIVE] + counts.waiting >= 2 + len(queue._rungs)
    finally:
        await queue.close()
