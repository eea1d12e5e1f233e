"""A quorum queue that came back dead, as RabbitMQ killed in the second of its declaration brings it back."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aio_pika
import pytest

from common.errors import QueueAway
from common.queue.port import Kind, Lane
from common.queue.rabbitmq import RabbitQueue
from common.queue.rabbitmq import declare as module
from common.queue.sqlite import SqliteQueue
from receiver.spool import Drainer, SpoolingPublisher, waiting
from tests.lab.lanes import LIVE
from tests.lab.rabbit import Broker, RabbitNode
from tests.lab.until import until

REVIVE = (Path(__file__).parents[2] / "deploy/rabbitmq/revive.erl").read_text()
DEAD = "hookmirror.wait.3600s"
NOBODYS = Lane("")
"""What is put there declares no queue after that one."""

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


async def confirmed(queue: RabbitQueue, delay: float = 3600) -> bool:
    try:
        await queue.publish(b"x", lane=LIVE, delay=delay)
    except QueueAway:
        return False
    return True


async def held(node: RabbitNode, name: str) -> list[bytes]:
    """Return what is in a queue; it goes back there."""
    async with await aio_pika.connect(node.url) as connection:
        queue = await (await connection.channel()).get_queue(name, ensure=False)
        bodies = []
        while (message := await queue.get(fail=False, timeout=10)) is not None:
            bodies.append(message.body)
        return bodies


async def test_a_broker_killed_in_the_second_of_the_first_start_brings_every_queue_back(
    new_rabbit: RabbitNode,
) -> None:
    queue = await RabbitQueue.open(new_rabbit.url, look_after=1200)
    await queue.publish(b"kept", lane=LIVE)
    new_rabbit.kill()
    await queue.close()
    new_rabbit.start()
    queue = await RabbitQueue.open(new_rabbit.url, look_after=1200)
    try:
        for delay in (0, *queue._rungs):
            await until(partial(confirmed, queue, delay), f"the queue of the wait {delay} confirms", 60)
        await queue.bury(b"x", lane=LIVE, why="no")
        counts = await queue.counts()
        assert counts.ready[Kind.LIVE] + counts.waiting >= 2 + len(queue._rungs)
    finally:
        await queue.close()


async def nothing(_: object) -> None:
    """Declare nothing after the queues that count."""


async def test_a_dead_queue_is_named_and_one_command_brings_back_what_it_had_confirmed(
    new_rabbit: RabbitNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_last", nothing)
        queue = RabbitQueue(new_rabbit.url, 1200)
        await queue._layout.make()  # and nothing else: the kill must come within a second
        await queue.publish(b"kept", lane=NOBODYS, delay=3600)
        new_rabbit.kill()
        await queue.close()
    new_rabbit.start()
    queue = await RabbitQueue.open(new_rabbit.url, look_after=1200)
    try:

        async def named() -> bool:
            with pytest.raises(QueueAway):
                await queue.publish(b"not confirmed", lane=NOBODYS, delay=3600)
            return (await queue.counts()).silent == (DEAD,)

        await until(named, "the dead queue is named", 90)
        assert DEAD in caplog.text
        assert "revive.erl" in caplog.text
        with pytest.raises(QueueAway, match=f"{DEAD} takes nothing"):
            await queue.check()
        await queue.publish(b"x", lane=LIVE)
        new_rabbit.control("eval", REVIVE)

        await until(partial(confirmed, queue), "the queue confirms again", 90)
        await queue.check()
        assert (await queue.counts()).silent == ()
        assert b"kept" in await held(new_rabbit, DEAD)
    finally:
        await queue.close()


async def test_the_spool_takes_hooks_while_the_live_queue_is_dead_and_gives_them_up_when_it_is_revived(
    new_rabbit: RabbitNode, tmp_path: Path
) -> None:
    queue = await RabbitQueue.open(new_rabbit.url, look_after=1200)
    spool = await SqliteQueue.open(tmp_path / "spool.db")
    publisher = SpoolingPublisher(queue, spool)
    draining = asyncio.create_task(Drainer(queue, spool, publisher).run())
    try:
        await publisher.publish(b"before", lane=LIVE)
        new_rabbit.control("eval", "ra:stop_server(quorum_queues, {'%2F_hookmirror.live.r', node()}).")
        await publisher.publish(b"meanwhile", lane=LIVE)
        assert await waiting(spool) == 1

        async def named() -> bool:
            return (await queue.counts()).silent == ("hookmirror.live.r",)

        await until(named, "the dead queue is named", 90)
        new_rabbit.control("eval", REVIVE)

        async def drained() -> bool:
            return await waiting(spool) == 0

        await until(drained, "the spool is empty again", 120)
        assert {b"before", b"meanwhile"} <= set(await held(new_rabbit, "hookmirror.live.r"))
    finally:
        draining.cancel()
        await asyncio.wait([draining])
        await spool.close()
        await queue.close()
