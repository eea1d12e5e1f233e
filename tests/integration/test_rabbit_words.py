"""What RabbitMQ says when it refuses or ends something reaches the log in its own words."""

import asyncio
import logging
from contextlib import suppress

import pytest

from common.backoff import RUNGS
from common.errors import QueueAway
from common.queue import topology
from common.queue.rabbitmq import RabbitQueue
from tests.lab.lanes import LIVE
from tests.lab.rabbit import RabbitNode
from tests.lab.until import until

OURS = "hookmirror"
"""Our logger: what the library says on its own never reaches an operator."""

pytestmark = pytest.mark.timeout(300)


async def refusal(url: str) -> str:
    queue = RabbitQueue(url, 1200)
    try:
        with pytest.raises(QueueAway) as refused:
            await queue.publish(b"x", lane=LIVE)
    finally:
        await queue.close()
    return str(refused.value)


async def test_a_virtual_host_that_is_missing_is_named_by_the_broker_itself(own_rabbit: RabbitNode) -> None:
    assert "vhost nowhere not found" in await refusal(own_rabbit.url + "nowhere")


async def test_a_virtual_host_that_the_user_may_not_use_is_named(own_rabbit: RabbitNode) -> None:
    own_rabbit.control("add_vhost", "closed")
    try:
        assert "access to vhost 'closed' refused for user 'guest'" in await refusal(own_rabbit.url + "closed")
    finally:
        own_rabbit.control("delete_vhost", "closed")


async def test_a_limit_of_connections_is_named(own_rabbit: RabbitNode) -> None:
    own_rabbit.control("set_vhost_limits", '{"max-connections": 0}')
    try:
        assert "connection limit (0) is reached" in await refusal(own_rabbit.url)
    finally:
        own_rabbit.control("set_vhost_limits", "{}")


async def test_why_the_broker_closed_a_consumers_connection_is_in_the_log(
    own_rabbit: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    caplog.set_level(logging.WARNING)

    async def consume() -> None:
        async for _ in queue.deliveries(LIVE, 1):
            pass

    consuming = asyncio.create_task(consume())

    async def told() -> bool:
        own_rabbit.control("close_all_connections", "a night of maintenance")
        return any("a night of maintenance" in line for name, _, line in caplog.record_tuples if name == OURS)

    try:
        await until(told, "the log names the reason", 120)
    finally:
        consuming.cancel()
        with suppress(asyncio.CancelledError):
            await consuming
        await queue.close()


def ours(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """Return how many lines of ours have `words`."""
    return sum(words in line for name, _, line in caplog.record_tuples if name == OURS)


async def test_the_loss_of_all_connections_is_one_line_with_the_brokers_words(
    own_rabbit: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    try:
        await queue.publish(b"x", lane=LIVE)  # so that two connections are there
        own_rabbit.control("close_all_connections", "operator says so")

        async def told() -> bool:
            return ours(caplog, "operator says so") > 0

        await until(told, "the log has the broker's words", 60)
        await queue.counts()
        await queue.publish(b"x", lane=LIVE)
        assert ours(caplog, "operator says so") == 1
    finally:
        await queue.close()


async def test_an_alarm_is_in_the_log_and_in_the_reason_and_so_is_its_end(
    own_rabbit: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    low = "RabbitMQ takes nothing now: low on memory"

    async def takes() -> bool:
        with suppress(QueueAway):
            await queue.check()
            return True
        return False

    try:
        await queue.publish(b"x", lane=LIVE)
        own_rabbit.control("set_vm_memory_high_watermark", "0.0001")
        for _ in range(2):
            with pytest.raises(QueueAway, match=low):
                await queue.publish_all({LIVE: [b"x"]})
        with pytest.raises(QueueAway, match=low):
            await queue.check()
        assert ours(caplog, low) == 1
        own_rabbit.control("set_vm_memory_high_watermark", "0.6")
        await until(takes, "messages are taken again", 60)
        assert ours(caplog, "RabbitMQ takes messages again") == 1
    finally:
        own_rabbit.control("set_vm_memory_high_watermark", "0.6")
        await queue.close()


async def test_a_broker_that_is_killed_while_it_takes_nothing_is_asked_again(own_rabbit: RabbitNode) -> None:
    """The alarm went with the connection: who believed in it for ever would refuse every hook."""
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)

    async def taken() -> bool:
        with suppress(QueueAway):
            await queue.publish(b"x", lane=LIVE)
            return True
        return False

    try:
        own_rabbit.control("set_vm_memory_high_watermark", "0.0001")
        with pytest.raises(QueueAway, match="takes nothing now"):
            await queue.publish(b"x", lane=LIVE)
        own_rabbit.kill()
        await asyncio.to_thread(own_rabbit.start)
        await until(taken, "messages are taken again", 60)
    finally:
        await queue.close()


@pytest.mark.parametrize("name", [topology.lane_queue(LIVE), topology.wait_queue(RUNGS[0])])
async def test_a_queue_deleted_under_a_running_process_is_named_and_made_again(
    own_rabbit: RabbitNode, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200, routes=[LIVE.route])
    try:
        own_rabbit.control("delete_queue", name)
        with pytest.raises(QueueAway):
            await queue.counts()
        assert ours(caplog, f"RabbitMQ has lost {name} ") == 1
        await queue.counts()
        await queue.publish(b"x", lane=LIVE)
    finally:
        await queue.close()
