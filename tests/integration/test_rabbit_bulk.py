"""A hook of many records on a real RabbitMQ: durable at once, whole, and never half believed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from common.errors import QueueAway
from common.metrics import Metrics
from common.queue import topology
from common.queue.port import Delivery, Done, Kind, Lane
from common.queue.rabbitmq import RabbitQueue
from common.queue.rabbitmq import queue as rabbit_queue
from common.settings import Settings
from common.task import Task
from demo.weed import free_ports
from receiver import intake, program
from receiver.hook import MAX_RECORDS
from tests.integration.test_receiver import of, record, taken
from tests.lab.lanes import LIVE
from tests.lab.rabbit import Broker, RabbitNode
from tests.lab.until import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def queue(rabbit: Broker) -> AsyncIterator[RabbitQueue]:
    queue = await RabbitQueue.open(await rabbit.wipe(), look_after=1200)
    yield queue
    await queue.close()


async def bodies(queue: RabbitQueue, count: int, lane: Lane = LIVE) -> list[bytes]:
    """Take so many messages and settle them."""
    found: list[bytes] = []
    async with asyncio.timeout(60), aclosing(queue.deliveries(lane, 500)) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            found.append(await settled(queue, delivery))
            if len(found) == count:
                break
    return found


async def settled(queue: RabbitQueue, delivery: Delivery) -> bytes:
    await queue.settle(delivery, Done("ok"))
    return delivery.body


async def ready(queue: RabbitQueue) -> int:
    return (await queue.counts()).ready[Kind.LIVE]


async def test_many_at_once_beside_single_ones_are_each_there_once(queue: RabbitQueue) -> None:
    many = [[b"%d of %d" % (number, batch) for number in range(300)] for batch in range(3)]
    single = [b"alone %d" % number for number in range(100)]
    await asyncio.gather(
        *(queue.publish_all({LIVE: batch}) for batch in many),
        *(queue.publish(body, lane=LIVE) for body in single),
    )
    found = await bodies(queue, 1000)
    assert sorted(found) == sorted([*single, *(body for batch in many for body in batch)])


async def test_bodies_of_every_size_arrive_whole(queue: RabbitQueue) -> None:
    sent = [b"", b"x", bytes(131_064), bytes(131_065), bytes(300_000)]  # a frame holds 128 KiB with its head
    await queue.publish_all({LIVE: sent})
    assert sorted(await bodies(queue, len(sent))) == sorted(sent)


async def test_a_lane_that_is_gone_is_declared_again(own_rabbit: RabbitNode) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    try:
        await queue.publish_all({LIVE: [b"x"]})
        own_rabbit.control("delete_queue", topology.lane_queue(LIVE))
        with pytest.raises(QueueAway):
            await queue.publish_all({LIVE: [b"a", b"b"]})
        await queue.publish_all({LIVE: [b"a", b"b"]})
        assert sorted(await bodies(queue, 2)) == [b"a", b"b"]
    finally:
        await queue.close()


async def test_a_broker_that_stops_in_the_middle_has_confirmed_nothing(own_rabbit: RabbitNode) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    try:
        await queue.publish(b"connected", lane=LIVE)
        own_rabbit.pause()
        try:
            with pytest.raises(QueueAway):
                await queue.publish_all({LIVE: [b"x"] * 3000})
            with pytest.raises(QueueAway):
                await queue.check()
        finally:
            own_rabbit.resume()

        async def takes() -> bool:
            try:
                await queue.check()
            except QueueAway:
                return False
            return True

        await until(takes, "the broker goes on", 60)
        before = await ready(queue)
        await queue.publish_all({LIVE: [b"y"] * 10})
        assert await ready(queue) >= before + 10
    finally:
        await queue.close()


async def test_a_broker_that_takes_no_messages_is_found_out_without_one(own_rabbit: RabbitNode) -> None:
    queue = await RabbitQueue.open(await own_rabbit.wipe(), look_after=1200)
    try:
        await queue.check()
        own_rabbit.control("set_disk_free_limit", "1000000GB")
        try:

            async def refuses() -> bool:
                try:
                    await queue.check()
                except QueueAway:
                    return True
                return False

            await until(refuses, "the alarm of the disk is found out", 60)
            assert (await queue.counts()).ready[Kind.LIVE] == 0, "though its depths are told"
        finally:
            own_rabbit.control("set_disk_free_limit", "50MB")

        async def takes() -> bool:
            return not await refuses()

        await until(takes, "messages are taken again", 60)
        counts = await queue.counts()
        assert (sum(counts.ready.values()), counts.dead) == (0, 0), "checks leave nothing behind"
    finally:
        await queue.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is too slow."""
    monkeypatch.setattr(intake, "ANSWER_WITHIN", 60.0)
    monkeypatch.setattr(rabbit_queue, "CONFIRM_WITHIN", 60.0)


@pytest.mark.usefixtures("patient")
async def test_many_at_once_cost_a_fraction_of_as_many_one_by_one(queue: RabbitQueue) -> None:
    """Processor time, which does not depend on who else is at work. That is what a hook of a thousand records
    waits for: 3 000 messages one by one take longer than its 2 s as soon as the machine has other work."""
    sent = [b"x" * 150] * 3000

    async def one_by_one() -> None:
        for start in range(0, len(sent), 50):  # no more than a slow machine confirms in time
            some = sent[start : start + 50]
            await asyncio.gather(*(queue.publish(body, lane=LIVE) for body in some))

    async def at_once() -> None:
        await queue.publish_all({LIVE: sent})

    costs = []
    for publish in (at_once, one_by_one, at_once, one_by_one):
        before = time.process_time()
        await publish()
        costs.append(time.process_time() - before)
    assert costs[0] + costs[2] < (costs[1] + costs[3]) / 2


@pytest.mark.usefixtures("patient")
async def test_a_thousand_records_for_three_routes_are_durable_each_once(queue: RabbitQueue) -> None:
    [port] = free_ports(1)
    settings = Settings.model_validate(
        {
            "receiver": {"host": "127.0.0.1", "port": port},
            "stores": {"mcs": {"key_encoding": "raw"}, "aws": {}},
            "routes": [{"name": name, "source": "mcs:bucketA", "target": f"aws:to-{name}"} for name in "abc"],
        }
    )
    stop = asyncio.Event()
    running = asyncio.create_task(program.run(settings, queue, stop, Metrics("abc")))
    keys = [f"k{number}" for number in range(MAX_RECORDS)]
    body: dict[str, Any] = of(*map(record, keys))
    try:
        async with aiohttp.ClientSession() as session:
            answer = await post(session, f"http://127.0.0.1:{port}/webhook", body)
        assert answer == (200, taken(queued=3 * MAX_RECORDS))
    finally:
        stop.set()
        await running
    tasks = [Task.decode(one) for name in "abc" for one in await bodies(queue, MAX_RECORDS, Lane(name))]
    assert {(task.route, task.key) for task in tasks} == {(name, key) for name in "abc" for key in keys}


async def post(session: aiohttp.ClientSession, url: str, body: object) -> tuple[int, Any]:
    """Post `body` as soon as somebody is there to take it."""
    answers: list[tuple[int, Any]] = []

    async def answered() -> bool:
        try:
            async with session.post(url, data=json.dumps(body)) as response:
                answers.append((response.status, await response.json()))
        except aiohttp.ClientConnectionError:
            return False
        return True

    await until(answered, "the receiver answers")
    return answers[0]
