"""The pool: what it takes, what it lets alone, and what it gives back, on a queue in memory."""

import asyncio
from collections.abc import Callable

import pytest

from common.queue.memory import MemoryQueue
from common.queue.port import Delivery, Done, Kind, Lane
from tests.lab.lanes import BULK, LIVE
from tests.lab.until import until
from worker import pool as module
from worker.fair import places
from worker.gate import Gate
from worker.pool import SUSPECT, Pool

LIMITS = {LIVE: 4, BULK: 2}


class Process:
    """A worker's process, which can die: what it has in hand then comes back."""

    def __init__(self, queue: MemoryQueue, drain: float = 5) -> None:
        self.queue = queue.twin()
        self.gates: dict[bytes, asyncio.Event] = {}
        self.working: dict[bytes, set[bytes]] = {}
        """What is being worked on, and beside what it began."""
        self.done: list[bytes] = []
        self.stop = asyncio.Event()
        self.pool = Pool(self.queue, self._handle, LIMITS, places(LIMITS[LIVE]), lambda _: LIMITS[LIVE])
        self.running = asyncio.create_task(self.pool.run(self.stop, drain=drain))

    def hold(self, *bodies: bytes) -> None:
        for body in bodies:
            self.gates[body] = asyncio.Event()

    async def _handle(self, delivery: Delivery) -> None:
        body = delivery.body
        self.working[body] = set(self.working)
        try:
            if body in self.gates:
                await self.gates[body].wait()
            await self.queue.settle(delivery, Done("ok"))
            self.done.append(body)
        finally:
            del self.working[body]

    async def die(self) -> None:
        """`kill -9`: nothing is given back but by the queue, which counts it."""
        self.running.cancel()
        while not self.running.done():  # whatever it has begun until then dies too
            for task in set(self.pool._running):
                task.cancel()
            await asyncio.sleep(0)
        await self.queue.close()

    async def end(self) -> int:
        self.stop.set()
        return await self.running


async def publish(queue: MemoryQueue, *bodies: bytes, returned: int = 0, lane: Lane = LIVE) -> None:
    for body in bodies:
        await queue.publish(body, lane=lane)
        message = next(m for m in queue._messages.values() if m.body == body)
        message.returned = returned


def returned(queue: MemoryQueue) -> dict[bytes, int]:
    return {message.body: message.returned for message in queue._messages.values()}


def of(process: Process, *bodies: bytes) -> Callable[[], bool]:
    return lambda: set(process.working) == set(bodies)


async def test_what_came_back_three_times_is_worked_on_alone() -> None:
    queue = MemoryQueue()
    await publish(queue, b"a", b"b")
    process = Process(queue)
    process.hold(b"a", b"b", b"suspect", b"c")
    await until(of(process, b"a", b"b"), "two are under way")
    await publish(queue, b"suspect", returned=SUSPECT)
    await publish(queue, b"c")
    process.gates[b"a"].set()
    await until(of(process, b"b"), "one has ended")
    process.gates[b"b"].set()
    await until(of(process, b"suspect"), "the suspect's turn has come")
    assert process.working[b"suspect"] == set()
    await asyncio.sleep(3 * 0.05)  # several times as long as the queue waits before it looks again
    assert set(process.working) == {b"suspect"}
    assert (await queue.counts()).ready[Kind.LIVE] == 1, "the others are left to other workers meanwhile"
    process.gates[b"suspect"].set()
    await until(of(process, b"c"), "the others go on")
    process.gates[b"c"].set()
    await process.end()
    assert process.done[:2] == [b"a", b"b"]


async def test_one_that_kills_its_workers_takes_no_innocent_along_more_than_three_times() -> None:
    """Thirty-one that are in hand beside it, on both lanes; each process dies when it begins."""
    queue = MemoryQueue()
    innocents = {b"%d" % number for number in range(31)}
    for number, body in enumerate(sorted(innocents)):
        await publish(queue, body, lane=BULK if number % 4 == 0 else LIVE)
        if number == 2:
            await publish(queue, b"killer")
    done: set[bytes] = set()
    for _ in range(40):
        process = Process(queue)
        process.hold(b"killer")
        await until(lambda p=process: b"killer" in p.working or not p.queue._messages, "it is taken")  # type: ignore[misc]
        assert all(count <= SUSPECT + 1 for body, count in returned(queue).items() if body != b"killer")
        await process.die()
        done |= set(process.done)
    assert done == innocents
    assert returned(queue)[b"killer"] > 20, "which whoever takes it buries"


async def test_of_two_suspects_one_is_given_back_untouched() -> None:
    queue = MemoryQueue()
    await publish(queue, b"one", returned=SUSPECT)
    await publish(queue, b"two", returned=SUSPECT, lane=BULK)
    process = Process(queue)
    process.hold(b"one", b"two")
    await until(lambda: len(process.working) == 1, "one is worked on")
    [first] = process.working
    assert (await queue.counts()).held == 1
    assert returned(queue) == {b"one": SUSPECT, b"two": SUSPECT}
    process.gates[first].set()
    await until(lambda: len(process.working) == 1 and first not in process.working, "then the other")
    for gate in process.gates.values():
        gate.set()
    await process.end()
    assert set(process.done) == {b"one", b"two"}


async def test_of_two_suspects_the_other_is_given_back_however_long_the_queue_takes_for_that() -> None:
    queue = MemoryQueue()
    await publish(queue, b"one", returned=SUSPECT)
    await publish(queue, b"two", returned=SUSPECT, lane=BULK)
    process = Process(queue)
    process.hold(b"one", b"two")
    give_back = process.queue.give_back
    given: list[bytes] = []

    async def slow(delivery: Delivery) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        await give_back(delivery)
        given.append(delivery.body)

    process.queue.give_back = slow  # type: ignore[method-assign]
    await until(lambda: len(process.working) == 1, "one is worked on")
    assert {*given, *process.working} == {b"one", b"two"}
    for gate in process.gates.values():
        gate.set()
    await until(lambda: set(process.done) == {b"one", b"two"}, "both are done")
    await process.end()


async def test_a_suspect_waits_for_the_others_no_longer_than_so_long_and_they_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OTHERS_WITHIN", 0.05)
    monkeypatch.setattr(module, "ALONE_FOR", 0.05)
    queue = MemoryQueue()
    await publish(queue, b"for ever")
    process = Process(queue)
    process.hold(b"for ever", b"suspect", b"later")
    await until(of(process, b"for ever"), "a long one is under way")
    await publish(queue, b"suspect", returned=SUSPECT)
    await until(of(process, b"for ever", b"suspect"), "the suspect has begun beside it")
    await publish(queue, b"later")
    await until(of(process, b"for ever", b"suspect", b"later"), "and others beside them")
    for gate in process.gates.values():
        gate.set()
    await process.end()


async def test_a_stop_gives_back_uncounted_what_was_not_begun() -> None:
    queue = MemoryQueue()
    await publish(queue, *(b"%d" % number for number in range(20)))
    process = Process(queue)
    process.hold(*(b"%d" % number for number in range(20)))
    await until(lambda: len(process.working) == LIMITS[LIVE], "its hands are full")
    await publish(queue, b"suspect", returned=SUSPECT, lane=BULK)
    await until(lambda: not process.pool._suspects and queue_has(queue, b"suspect"), "it waits")
    for gate in process.gates.values():
        gate.set()
    process.stop.set()
    assert await process.running == 0
    await process.queue.close()
    assert set(returned(queue).values()) <= {0, SUSPECT}


def queue_has(queue: MemoryQueue, body: bytes) -> bool:
    return any(message.body == body and message.holder for message in queue._messages.values())


async def test_what_a_stop_cuts_off_was_begun_and_counts_as_come_back() -> None:
    queue = MemoryQueue()
    await publish(queue, b"long")
    process = Process(queue, drain=0.01)
    process.hold(b"long")
    await until(of(process, b"long"), "it is under way")
    assert await process.end() == 1
    await process.queue.close()
    assert returned(queue) == {b"long": 1}


async def test_what_finds_no_place_for_long_goes_back_and_no_place_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six lanes for two places, whose line is long for ever."""
    monkeypatch.setattr(module, "TURN_WITHIN", 0.02)
    queue = MemoryQueue()
    lanes = [Lane(f"{number}") for number in range(6)]
    for lane in lanes:
        await publish(queue, *(f"{lane.route} {number}".encode() for number in range(8)), lane=lane)
    done: list[bytes] = []
    running: set[bytes] = set()

    async def handle(delivery: Delivery) -> None:
        running.add(delivery.body)
        assert len(running) <= 2
        await asyncio.sleep(0.01)
        running.discard(delivery.body)
        await queue.settle(delivery, Done("ok"))
        done.append(delivery.body)

    stop = asyncio.Event()
    pool = Pool(queue, handle, lanes, 2, lambda _: 1)
    running_pool = asyncio.create_task(pool.run(stop, drain=5))
    await until(lambda: len(done) == 48, "all are done")
    stop.set()
    assert await running_pool == 0
    assert len(set(done)) == 48
    assert [pool.in_hand_of(lane) for lane in lanes] == [0] * 6


async def test_a_lane_whose_gate_is_closed_is_not_taken_from_and_goes_on_at_once_when_it_opens() -> None:
    queue, gates, done = MemoryQueue(), {"a": Gate(), "b": Gate()}, list[bytes]()
    a, b = Lane("a"), Lane("b")

    async def handle(delivery: Delivery) -> None:
        await queue.settle(delivery, Done("ok"))
        done.append(delivery.body)

    stop = asyncio.Event()
    pool = Pool(queue, handle, [a, b], 4, lambda _: 3, gates.__getitem__)
    gates["a"].close()
    running = asyncio.create_task(pool.run(stop, drain=5))
    await publish(queue, b"1", b"2", lane=a)
    await publish(queue, b"3", lane=b)
    await until(lambda: done == [b"3"], "the other goes on")
    assert (await queue.counts()).of(a).ready == 2
    assert set(returned(queue).values()) == {0}
    gates["a"].open()
    await until(lambda: set(done) == {b"1", b"2", b"3"}, "it goes on")
    gates["b"].close()
    await publish(queue, b"4", lane=b)
    gates["b"].open()
    await until(lambda: b"4" in done, "closed and opened within a moment")
    stop.set()
    await running
