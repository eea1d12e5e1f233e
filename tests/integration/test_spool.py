"""The spool: hooks that come while the queue is away, and what becomes of them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import ConfigError, QueueAway
from common.metrics import Metrics
from common.queue.memory import MemoryQueue
from common.queue.port import KILLER, Bury, Counts, Lane
from common.queue.sqlite import SqliteQueue
from common.settings import Settings
from common.telemetry import Action
from receiver import program
from receiver import spool as spooling
from receiver.spool import Drainer, SpoolingPublisher, waiting
from tests.integration.test_receiver import SETTINGS, of, record, serving, taken
from tests.lab.lanes import BULK, LIVE
from tests.lab.until import until


class Broker(MemoryQueue):
    """A queue that can be away: refusing at once, or silent."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.talks = asyncio.Event()
        self.talks.set()
        self.asked = 0

    async def _listen(self) -> None:
        self.asked += 1
        await self.talks.wait()
        if self.fault is not None:
            raise self.fault

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        await self._listen()
        await super().publish(body, lane=lane, delay=delay)

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        await self._listen()
        await super().bury(body, lane=lane, why=why)

    async def counts(self) -> Counts:
        await self._listen()
        return await super().counts()

    def bodies(self) -> list[bytes]:
        return sorted(message.body for message in self._messages.values())


AWAY = QueueAway("RabbitMQ has not answered")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(spooling, "PROBE", 0.05)
    return Broker()


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    queue = await SqliteQueue.open(tmp_path / "spool.db")
    yield queue
    await queue.close()


@pytest.fixture
def publisher(broker: Broker, file: SqliteQueue) -> SpoolingPublisher:
    return SpoolingPublisher(broker, file)


@pytest.fixture
async def drainer(broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher) -> AsyncIterator[Drainer]:
    """A drainer at work."""
    drainer = Drainer(broker, file, publisher)
    running = asyncio.create_task(drainer.run())
    yield drainer
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def empty(spool: SqliteQueue) -> bool:
    return await waiting(spool) == 0


async def test_while_the_queue_is_there_the_spool_stays_empty(
    broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher
) -> None:
    await publisher.publish(b"a", lane=LIVE)
    await publisher.bury(b"b", lane=LIVE, why="Unreadable")
    assert await empty(file)
    assert (broker.bodies(), len(broker._dead), publisher.spooled) == ([b"a"], 1, 0)


@pytest.mark.parametrize("fault", [AWAY, ConfigError("other arguments"), RuntimeError("channel closed")])
async def test_what_the_queue_does_not_take_is_in_the_spool_when_publish_returns(
    broker: Broker, publisher: SpoolingPublisher, tmp_path: Path, fault: Exception
) -> None:
    broker.fault = fault
    await publisher.publish(b"a", lane=LIVE)
    await publisher.bury(b"b", lane=LIVE, why="Unreadable")
    with sqlite3.connect(tmp_path / "spool.db") as db:  # as another process sees it: committed
        assert db.execute("SELECT body, dead FROM message ORDER BY id").fetchall() == [(b"a", 0), (b"b", 1)]
    assert publisher.spooled == 2


async def test_a_silent_queue_costs_the_first_hook_a_second_and_the_next_nothing(
    broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher
) -> None:
    broker.talks.clear()
    async with asyncio.timeout(1.9):
        await publisher.publish(b"a", lane=LIVE)
    assert broker.asked == 1
    await asyncio.gather(*(publisher.publish(b"%d" % n, lane=LIVE) for n in range(100)))
    assert broker.asked == 1
    assert await waiting(file) == 101


async def test_a_queue_that_failed_is_asked_again_after_a_while(broker: Broker, file: SqliteQueue) -> None:
    now = 0.0
    publisher = SpoolingPublisher(broker, file, clock=lambda: now)
    broker.fault = AWAY
    await publisher.publish(b"a", lane=LIVE)
    broker.fault = None
    await publisher.publish(b"b", lane=LIVE)
    assert (publisher.away, broker.bodies()) == (True, [])
    now += spooling.AVOID
    await publisher.publish(b"c", lane=LIVE)
    assert (publisher.away, broker.bodies()) == (False, [b"c"])


async def test_when_neither_takes_a_record_nothing_is_acknowledged(
    broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Broker()
    full.fault = QueueAway("the queue file cannot be written: database or disk is full")
    monkeypatch.setattr(publisher, "_spool", full)
    broker.fault = AWAY
    with pytest.raises(QueueAway, match="disk is full"):
        await publisher.publish(b"a", lane=LIVE)
    assert publisher.spooled == 0


async def test_the_drainer_finds_out_that_the_queue_is_back_and_moves_everything(
    broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher, drainer: Drainer
) -> None:
    broker.fault = AWAY
    bodies = [b"%03d" % n for n in range(200)]
    for body in bodies:
        await publisher.publish(body, lane=LIVE)
    await publisher.bury(b"no event", lane=LIVE, why="Unreadable: so")
    asked = broker.asked
    await until(lambda: broker.asked > asked + 3, "the drainer probes")
    assert await waiting(file) == 201
    broker.fault = None
    await until(lambda: empty(file), "the spool is drained")
    assert broker.bodies() == bodies
    [letter] = await broker.buried(10)
    assert (letter.body, letter.why) == (b"no event", "Unreadable: so")
    assert not publisher.away  # and hooks go to the queue again, without the wait
    assert drainer.drained == 201


async def test_a_wait_of_any_length_makes_no_record_suspect(
    broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher, drainer: Drainer, tmp_path: Path
) -> None:
    broker.fault = AWAY
    await publisher.publish(b"a", lane=LIVE)
    asked = broker.asked
    await until(lambda: broker.asked > asked + 10, "the drainer has tried it often")
    with sqlite3.connect(tmp_path / "spool.db") as db:
        assert db.execute("SELECT attempt, failures FROM message").fetchall() == [(1, "[]")]


async def test_what_receivers_died_with_too_often_is_still_a_task_for_a_worker(
    broker: Broker, file: SqliteQueue, drainer: Drainer, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("INSERT INTO message (lane, body, due, attempt) VALUES ('live', x'61', 0, 101)")
    await until(lambda: empty(file), "the spool is drained")
    assert (broker.bodies(), await broker.buried(10)) == ([b"a"], [])


async def test_other_dead_letters_keep_their_reason(
    broker: Broker, file: SqliteQueue, drainer: Drainer
) -> None:
    await file.bury(b"a", lane=BULK, why="Unreadable")
    await until(lambda: empty(file), "the spool is drained")
    assert [(letter.why, letter.lane) for letter in await broker.buried(10)] == [("Unreadable", BULK)]
    assert Bury("Unreadable").why != KILLER


async def test_a_drainer_that_ends_in_the_middle_leaves_the_rest_to_the_next(
    broker: Broker, publisher: SpoolingPublisher, tmp_path: Path
) -> None:
    broker.fault = AWAY
    for n in range(100):
        await publisher.publish(b"%02d" % n, lane=LIVE)
    broker.fault = None
    broker.talks.clear()
    first = await SqliteQueue.open(tmp_path / "spool.db")
    running = asyncio.create_task(Drainer(broker, first, publisher).run())
    asked = broker.asked
    await until(lambda: broker.asked > asked + 10, "records are on their way")
    running.cancel()
    await asyncio.wait([running])
    await first.close()
    broker.talks.set()
    second = await SqliteQueue.open(tmp_path / "spool.db")
    running = asyncio.create_task(Drainer(broker, second, publisher).run())
    await until(lambda: empty(second), "the spool is drained")
    assert set(broker.bodies()) == {b"%02d" % n for n in range(100)}
    running.cancel()
    await asyncio.wait([running])
    await second.close()


async def test_a_spool_that_fails_meanwhile_is_waited_out(
    broker: Broker, file: SqliteQueue, publisher: SpoolingPublisher, drainer: Drainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def full(*_: object, **__: object) -> None:
        raise QueueAway("the queue file cannot be written")

    broker.fault = AWAY
    await publisher.publish(b"a", lane=LIVE)
    with monkeypatch.context() as patch:
        patch.setattr(file, "settle", full)
        patch.setattr(file, "buried", full)
        asked = broker.asked
        await until(lambda: broker.asked > asked, "the drainer has tried it")
    broker.fault = None
    await publisher.publish(b"b", lane=LIVE)
    await until(lambda: b"b" in broker.bodies(), "the drainer goes on")


async def test_hooks_are_taken_while_the_queue_is_away_and_queued_when_it_is_back(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "REPORT", 0.1)
    caplog.set_level("INFO", "hookmirror")
    broker.fault = AWAY
    async with serving(broker, spool=tmp_path / "hooks.db") as server:
        assert (await server.request("GET", "/readyz")).body == {
            "status": "ready", "queue": "away, spooling"}  # fmt: skip
        answer = await server.post(of(record("a"), {"no": "event"}))
        assert (answer.status, answer.body) == (200, taken(queued=1, buried=1))
        assert (await server.request("GET", "/readyz")).status == 200
        broker.fault = None
        await until(lambda: broker._messages and broker._dead, "both are in the queue")
        assert [task.key for task in await server.tasks()] == ["a"]

        async def ready() -> bool:  # the answer is kept for a while
            return bool((await server.request("GET", "/readyz")).body == {"status": "ready"})

        await until(ready, "the receiver says that the queue is back")

        def said() -> set[object]:
            return {getattr(line, "action", None) for line in caplog.records}

        await until(lambda: Action.DRAINED in said(), "the log says what was drained")
    assert "2 records came to the spool" in caplog.text


async def test_a_silent_queue_is_a_200_in_time(broker: Broker, tmp_path: Path) -> None:
    async with serving(broker, spool=tmp_path / "hooks.db") as server:
        broker.talks.clear()
        async with asyncio.timeout(2):
            assert (await server.post(of(*(record(f"{n}") for n in range(100))))).status == 200
        broker.talks.set()


async def test_what_is_answered_200_is_in_the_queue_though_the_spool_was_deleted_meanwhile(
    broker: Broker, tmp_path: Path
) -> None:
    broker.fault = AWAY
    taken: set[str] = set()
    async with serving(broker, spool=tmp_path / "hooks.db") as server:
        for number in range(40):
            if (await server.post(of(record(f"{number}")))).status == 200:
                taken.add(f"{number}")
            if number in {10, 25}:
                delete(tmp_path)
        broker.fault = None
        await until(lambda: len(broker._messages) >= len(taken), "what was taken is in the queue")
        assert {task.key for task in await server.tasks()} >= taken
    assert len(taken) >= 38, "each time one hook at most is asked for again"


def delete(folder: Path) -> None:
    for file in folder.glob("hooks.db*"):
        file.unlink()


async def test_the_queue_is_no_spool_for_itself(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        SETTINGS
        | {"queue": {"url": f"sqlite:///{tmp_path}/q.db"}, "receiver": {"spool": f"{tmp_path}/x/../q.db"}}
    )
    with pytest.raises(ConfigError, match=r"receiver\.spool.*is the queue itself"):
        await program.run(settings, MemoryQueue(), asyncio.Event(), Metrics())


async def test_a_spool_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"receiver\.spool: .*spool\.db: there is no folder .* Make it"):
        async with serving(MemoryQueue(), spool=tmp_path / "no/such/folder/spool.db"):
            pass
