"""/readyz: the answer is found out once for all who ask, and is about what a hook would meet."""

import asyncio
import json
import logging

import pytest

from common.errors import QueueAway, QueueLoses
from common.queue.memory import MemoryQueue
from receiver import ready
from receiver.ready import FRESH, WAITING, Readiness
from receiver.spool import SpoolingPublisher
from tests.unit.test_admission import Clock


class Counting(MemoryQueue):
    """Counts how often it is checked; takes messages when `open` is set, and fails with `fault`."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1
        await self.open.wait()
        if self.fault:
            raise self.fault


async def said(readiness: Readiness) -> tuple[bool, dict[str, str]]:
    answer = await readiness.ask()
    return answer.yes, json.loads(answer.body)


async def test_the_queue_is_asked_once_for_however_many_ask() -> None:
    queue, clock = Counting(), Clock()
    readiness = Readiness(queue, None, clock)
    for _ in range(1000):
        assert await said(readiness) == (True, {"status": "ready"})
    assert queue.checks == 1
    clock.now += FRESH
    queue.open.clear()
    asking = [asyncio.create_task(said(readiness)) for _ in range(1000)]
    await asyncio.sleep(0)
    queue.open.set()
    assert {answer[0] for answer in await asyncio.gather(*asking)} == {True}
    assert queue.checks == 2


async def test_who_goes_away_takes_the_answer_from_nobody() -> None:
    queue = Counting()
    queue.open.clear()
    readiness = Readiness(queue, None, Clock())
    first, second = asyncio.create_task(said(readiness)), asyncio.create_task(said(readiness))
    await asyncio.sleep(0)
    first.cancel()
    queue.open.set()
    assert await second == (True, {"status": "ready"})


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            QueueAway("the queue file cannot be written: disk full"),
            "the queue file cannot be written: disk full",
        ),
        (RuntimeError(), "RuntimeError"),
    ],
)
async def test_a_queue_that_takes_nothing_is_not_ready_and_the_log_says_why(
    fault: Exception, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hookmirror")
    queue, clock = Counting(), Clock()
    readiness = Readiness(queue, None, clock)
    queue.fault = fault
    for _ in range(3):
        assert await said(readiness) == (False, {"status": "waiting", "why": WAITING})
        clock.now += FRESH
    queue.fault = None
    assert await said(readiness) == (True, {"status": "ready"})
    assert caplog.messages == [f"not ready for hooks: {why}", "ready for hooks again"]


async def test_a_silent_queue_is_not_ready_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "WITHIN", 0.01)
    queue = Counting()
    queue.open.clear()
    assert await said(Readiness(queue, None, Clock())) == (False, {"status": "waiting", "why": WAITING})


async def test_a_spool_makes_up_for_the_queue_and_only_then_counts() -> None:
    queue, spool, clock = Counting(), Counting(), Clock()
    publisher = SpoolingPublisher(queue, spool, clock=clock)
    readiness = Readiness(queue, publisher, clock)
    spool.fault = QueueAway("the disk is full")
    assert await said(readiness) == (True, {"status": "ready"})
    queue.fault = QueueAway("RabbitMQ has not answered")
    clock.now += FRESH
    assert await said(readiness) == (False, {"status": "waiting", "why": WAITING})
    spool.fault = None
    clock.now += FRESH
    assert await said(readiness) == (True, {"status": "ready", "queue": "away, spooling"})
    publisher.failed(QueueAway("RabbitMQ has not answered"))
    before = queue.checks
    clock.now += FRESH
    assert await said(readiness) == (True, {"status": "ready", "queue": "away, spooling"})
    assert queue.checks == before, "a queue that has just failed is left alone"


async def test_a_spool_does_not_make_up_for_a_queue_that_takes_hooks_and_deletes_them() -> None:
    queue, clock = Counting(), Clock()
    readiness = Readiness(queue, SpoolingPublisher(queue, Counting(), clock=clock), clock)
    queue.fault = QueueLoses("RabbitMQ lays a policy over the queue that deletes what it holds")
    assert await said(readiness) == (False, {"status": "waiting", "why": WAITING})
