"""The queue port's contract, line by line, on every backend."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import LostDelivery
from common.queue import port
from common.queue.memory import MemoryQueue
from common.queue.port import KILLER, MAX_RETURNS, Bury, Delivery, Done, Kind, Lane, Move, Queue, Retry
from common.queue.rabbitmq import RabbitQueue
from common.queue.sqlite import SqliteQueue
from tests.lab.lanes import BULK, LIVE
from tests.lab.rabbit import Broker
from tests.lab.until import until


@dataclass
class Backend:
    """A fresh queue: `open` gives another handle on it, as another process would hold it."""

    open: Callable[[], Awaitable[Queue]]
    lease: float
    """Seconds until a dead holder's messages come back."""


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    handles: list[Queue] = []
    first = MemoryQueue()

    async def memory() -> Queue:
        return first.twin()

    async def sqlite() -> Queue:
        return await SqliteQueue.open(tmp_path / "queue.db", lease=2.0)

    async def rabbitmq() -> Queue:
        return await RabbitQueue.open(url, look_after=2, routes=[LIVE.route])

    url = ""
    if request.param == "rabbitmq":
        node: Broker = request.getfixturevalue("rabbit")
        url = await node.wipe(2)
    make = {"memory": memory, "sqlite": sqlite, "rabbitmq": rabbitmq}[request.param]

    async def open_handle() -> Queue:
        handles.append(await make())
        return handles[-1]

    yield Backend(open_handle, lease=2.0)
    for handle in handles:
        await handle.close()


async def take(queue: Queue, count: int, *, lane: Lane = LIVE, limit: int = 100) -> list[Delivery]:
    """Return the next `count` deliveries; they stay held."""
    taken: list[Delivery] = []
    async with asyncio.timeout(20), aclosing(queue.deliveries(lane, limit)) as deliveries:  # type: ignore[type-var]
        if count:
            async for delivery in deliveries:
                taken.append(delivery)
                if len(taken) == count:
                    break
    return taken


async def nothing_comes(queue: Queue, seconds: float, *, lane: Lane = LIVE) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await take(queue, 1, lane=lane)
    except TimeoutError:
        return True
    return False


async def test_a_published_message_arrives_as_a_first_attempt(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"one", lane=LIVE)
    [delivery] = await take(queue, 1)
    assert (delivery.body, delivery.attempt, delivery.lane, delivery.failures) == (b"one", 1, LIVE, ())
    assert queue.holds(delivery)
    await queue.settle(delivery, Done("ok"))
    assert not queue.holds(delivery)
    counts = await queue.counts()
    assert (counts.ready[Kind.LIVE], counts.waiting, counts.dead) == (0, 0, 0)


async def test_many_published_at_once_outlive_the_handle_each_once(backend: Backend) -> None:
    first = await backend.open()
    sent = [b"%d" % number for number in range(50)]
    await first.publish_all({BULK: sent})
    await first.publish_all({BULK: []})
    await first.close()
    second = await backend.open()
    found = await take(second, 50, lane=BULK)
    assert sorted(delivery.body for delivery in found) == sorted(sent)
    assert {delivery.attempt for delivery in found} == {1}
    assert await nothing_comes(second, 0.3, lane=BULK)


async def test_a_check_leaves_nothing_behind(backend: Backend) -> None:
    queue = await backend.open()
    for _ in range(3):
        await queue.check()
    counts = await queue.counts()
    assert (sum(counts.ready.values()), counts.waiting, counts.dead) == (0, 0, 0)
    assert await nothing_comes(queue, 0.3)


async def test_published_outlives_the_handle_that_published_it(backend: Backend) -> None:
    first = await backend.open()
    await first.publish(b"kept", lane=BULK)
    await first.close()
    second = await backend.open()
    [delivery] = await take(second, 1, lane=BULK)
    assert delivery.body == b"kept"


async def test_a_held_message_goes_to_nobody_else_however_long_it_takes(backend: Backend) -> None:
    first, second = await backend.open(), await backend.open()
    await first.publish(b"mine", lane=LIVE)
    [delivery] = await take(first, 1)
    assert await nothing_comes(second, backend.lease * 1.5)
    assert first.holds(delivery)
    await first.settle(delivery, Done("ok"))


async def died_with(backend: Backend, times: int) -> None:
    """Let so many holders die with the one message there is."""
    for _ in range(times):
        victim = await backend.open()
        await take(victim, 1)
        await victim.close()


async def test_unsettled_work_comes_back_after_its_holder_dies_and_that_is_no_failure(
    backend: Backend,
) -> None:
    queue = await backend.open()
    await queue.publish(b"orphan", lane=LIVE)
    await died_with(backend, 3)
    [delivery] = await take(queue, 1)
    assert (delivery.body, delivery.attempt, delivery.returned) == (b"orphan", 1, 3)
    assert delivery.failures == ()


async def test_eleven_restarts_and_a_failure_are_one_failure(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"unlucky", lane=LIVE)
    await died_with(backend, 11)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Retry(0, "500"))
    [again] = await take(queue, 1)
    assert (again.attempt, again.returned) == (2, 0), "published anew, it has come back from nobody"
    assert [failure.attempt for failure in again.failures] == [1]


async def test_a_replayed_letter_has_come_back_from_nobody(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"x", lane=LIVE)
    await died_with(backend, 2)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Bury("no"))
    await queue.replay()
    [again] = await take(queue, 1)
    assert (again.attempt, again.returned) == (1, 0)


async def test_the_limit_bounds_what_is_held_and_settling_makes_room(backend: Backend) -> None:
    queue = await backend.open()
    for number in range(4):
        await queue.publish(b"%d" % number, lane=LIVE)
    async with asyncio.timeout(20), aclosing(queue.deliveries(LIVE, 2)) as deliveries:  # type: ignore[type-var]
        held = [await anext(deliveries), await anext(deliveries)]
        third = asyncio.ensure_future(anext(deliveries))
        await asyncio.wait([third], timeout=0.5)
        assert not third.done()
        await queue.settle(held[0], Done("ok"))
        await third


@pytest.mark.parametrize("seconds", [1, 2])
async def test_a_retry_comes_back_no_sooner_than_asked_and_blocks_nobody(
    backend: Backend, seconds: int
) -> None:
    queue = await backend.open()
    await queue.publish(b"slow", lane=LIVE)
    [delivery] = await take(queue, 1)
    start = time.monotonic()
    await queue.settle(delivery, Retry(seconds, "the store was away"))
    assert (await queue.counts()).waiting == 1
    await queue.publish(b"quick", lane=LIVE)
    [quick] = await take(queue, 1)
    assert quick.body == b"quick"
    assert time.monotonic() - start < seconds
    [again] = await take(queue, 1)
    assert time.monotonic() - start >= seconds - 0.01
    assert (again.body, again.attempt) == (b"slow", 2)
    assert [(f.attempt, f.why) for f in again.failures] == [(1, "the store was away")]


async def test_a_retry_that_does_not_count_keeps_the_attempt_and_the_history(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"innocent", lane=LIVE)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Retry(1, "the route is down", counts=False))
    [again] = await take(queue, 1)
    assert (again.attempt, again.failures) == (1, ())


async def test_a_retry_may_come_back_with_another_body(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"part 1", lane=LIVE)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Retry(0, "to be continued", counts=False, body=b"part 2"))
    [again] = await take(queue, 1)
    assert (again.body, again.attempt) == (b"part 2", 1)


async def test_a_retry_returns_to_its_own_lane(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"bulky", lane=BULK)
    [delivery] = await take(queue, 1, lane=BULK)
    await queue.settle(delivery, Retry(1, "later"))
    assert await nothing_comes(queue, 1.5, lane=LIVE)
    [again] = await take(queue, 1, lane=BULK)
    assert (again.body, again.lane) == (b"bulky", BULK)


async def test_a_delayed_publish_arrives_no_sooner_and_waits_durably(backend: Backend) -> None:
    queue = await backend.open()
    start = time.monotonic()
    await queue.publish(b"look", lane=LIVE, delay=2)
    await queue.close()
    other = await backend.open()
    [delivery] = await take(other, 1)
    assert time.monotonic() - start >= 1.99
    assert delivery.attempt == 1


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_a_wall_clock_that_is_set_hides_nothing_brings_nothing_early_and_takes_nothing_away(
    backend: Backend, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await backend.open(), await backend.open()
    await first.publish(b"held", lane=LIVE)
    [held] = await take(first, 1)
    await first.publish(b"later", lane=BULK, delay=30)
    await first.publish(b"before", lane=LIVE)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + step)
    third = await backend.open()  # a process that was started since
    await third.publish(b"after", lane=LIVE)
    await third.publish_all({LIVE: [b"together"]})
    start = time.monotonic()
    assert {delivery.body for delivery in await take(second, 3)} == {b"before", b"after", b"together"}
    assert time.monotonic() - start < backend.lease
    assert await nothing_comes(second, backend.lease * 1.5)
    assert await nothing_comes(third, 0.5, lane=BULK)
    assert first.holds(held)
    await first.settle(held, Done("ok"))


async def test_a_clean_stop_leaves_nothing_in_anybodys_hands(backend: Backend) -> None:
    stopping, other = await backend.open(), await backend.open()
    for number in range(5):
        await stopping.publish(b"%d" % number, lane=LIVE)
    await take(stopping, 3, limit=4)
    await stopping.close()

    async def free() -> bool:
        counts = await other.counts()
        return not counts.held and counts.ready[Kind.LIVE] == 5

    await until(free, "all are ready", backend.lease * 0.75)


async def test_a_delay_out_of_range_is_refused(backend: Backend) -> None:
    queue = await backend.open()
    for delay in (-1, 3601):
        with pytest.raises(ValueError, match="a delay is"):
            await queue.publish(b"", lane=LIVE, delay=delay)


async def test_a_buried_message_is_kept_whole_with_its_history(backend: Backend) -> None:
    queue = await backend.open()
    body = bytes(range(256))
    await queue.publish(body, lane=BULK)
    [delivery] = await take(queue, 1, lane=BULK)
    await queue.settle(delivery, Retry(1, "first"))
    [delivery] = await take(queue, 1, lane=BULK)
    before = time.time()
    await queue.settle(delivery, Bury("never"))
    [letter] = await queue.buried(10)
    assert (letter.body, letter.lane, letter.why, letter.attempt) == (body, BULK, "never", 2)
    assert [(f.attempt, f.why) for f in letter.failures] == [(1, "first"), (2, "never")]
    assert before - 1 <= letter.at <= time.time() + 1


async def test_what_is_buried_may_be_another_body_than_came(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"as it came", lane=LIVE)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Bury("never", body=b"with what was learned"))
    [letter] = await queue.buried(10)
    assert letter.body == b"with what was learned"


async def test_looking_at_dead_letters_changes_neither_count_nor_order(backend: Backend) -> None:
    queue = await backend.open()
    for number in range(7):
        await queue.bury(b"%d" % number, lane=LIVE, why="no task")
    for _ in range(150):  # more looks than any delivery limit of a broker's
        page = await queue.buried(3)
        assert [letter.body for letter in page] == [b"0", b"1", b"2"]
    assert [letter.body for letter in await queue.buried(10)] == [b"%d" % number for number in range(7)]
    assert (await queue.counts()).dead == 7


MANY = 2000
"""More than any backend reads at once, and more than RabbitMQ keeps in order when it takes them back."""


async def bury_many(queue: Queue, count: int = MANY) -> None:
    for start in range(0, count, 100):
        batch = range(start, min(start + 100, count))
        await asyncio.gather(*(queue.bury(b"%d" % number, lane=LIVE, why="no task") for number in batch))


async def seen(queue: Queue) -> list[bytes]:
    async with aclosing(queue.letters()) as letters:
        return [letter.body async for letter in letters]


async def test_thousands_of_dead_letters_are_gone_over_once_and_stay_in_their_order(backend: Backend) -> None:
    queue = await backend.open()
    await bury_many(queue)
    before = await queue.buried(MANY)
    assert [letter.at for letter in before] == sorted(letter.at for letter in before)
    for _ in range(3):  # at once, one after the other: what the last look held may still be on its way back
        bodies = await seen(queue)
        assert len(bodies) == MANY
        assert set(bodies) == {b"%d" % number for number in range(MANY)}
    assert await queue.buried(MANY) == before
    await until(lambda: told_dead(queue, MANY), "the depth is told")


async def told_dead(queue: Queue, count: int) -> bool:
    return (await queue.counts()).dead == count


async def test_going_over_the_letters_may_end_anywhere_and_gives_all_of_them_back(backend: Backend) -> None:
    queue, other = await backend.open(), await backend.open()
    await bury_many(queue, 1500)
    for stop in (1, 5, 40, 1100):
        async with aclosing(queue.letters()) as letters:
            for _ in range(stop):
                await anext(letters)
        assert len(set(await seen(other))) == 1500


async def test_letters_that_a_killed_looker_held_come_back(backend: Backend) -> None:
    queue, victim = await backend.open(), await backend.open()
    await bury_many(queue, 300)
    letters = victim.letters()
    for _ in range(100):
        await anext(letters)
    await victim.close()
    assert len(set(await seen(queue))) == 300
    await letters.aclose()


async def test_letters_buried_while_somebody_looks_are_kept(backend: Backend) -> None:
    looking, worker = await backend.open(), await backend.open()
    await bury_many(worker, 100)
    async with aclosing(looking.letters()) as letters:
        await anext(letters)
        await worker.bury(b"meanwhile", lane=LIVE, why="no task")
    assert b"meanwhile" in await seen(looking)
    assert len(await seen(looking)) == 101


async def test_some_of_thousands_are_replayed_and_dropped_and_the_rest_stays(backend: Backend) -> None:
    queue = await backend.open()
    await bury_many(queue)
    letters = await queue.buried(MANY)
    replayed = {letter.id for letter in letters[::10]}
    dropped = {letter.id for letter in letters[5::10]}
    assert await queue.replay(replayed) == replayed
    assert await queue.drop(dropped) == dropped
    gone = replayed | dropped
    assert await queue.buried(MANY) == [letter for letter in letters if letter.id not in gone]
    again = await take(queue, len(replayed), limit=1000)
    assert {delivery.body for delivery in again} == {letter.body for letter in letters[::10]}


async def test_what_is_buried_again_while_all_are_replayed_is_replayed_once(backend: Backend) -> None:
    queue, worker = await backend.open(), await backend.open()
    await bury_many(queue, 200)

    async def refuse() -> None:
        async with aclosing(worker.deliveries(LIVE, 50)) as deliveries:  # type: ignore[type-var]
            async for delivery in deliveries:
                await worker.settle(delivery, Bury("still too large"))

    refusing = asyncio.create_task(refuse())
    async with asyncio.timeout(60):
        assert len(await queue.replay()) == 200
    await until(lambda: told_dead(queue, 200), "all are buried again", 90)
    refusing.cancel()
    await asyncio.gather(refusing, return_exceptions=True)
    assert {letter.why for letter in await queue.buried(500)} == {"still too large"}


async def test_two_who_look_at_once_both_see_everything(backend: Backend) -> None:
    first, second = await backend.open(), await backend.open()
    for number in range(20):
        await first.bury(b"%d" % number, lane=LIVE, why="no task")
    pages = await asyncio.gather(*(queue.buried(50) for queue in (first, second) for _ in range(3)))
    assert {len(page) for page in pages} == {20}


async def test_replay_sends_chosen_letters_back_to_their_lanes_and_drop_deletes(backend: Backend) -> None:
    queue = await backend.open()
    for lane, body in ((LIVE, b"a"), (BULK, b"b"), (LIVE, b"c")):
        await queue.bury(body, lane=lane, why="no task")
    a, b, c = await queue.buried(10)
    assert await queue.replay([b.id, "999"]) == {b.id}
    assert await queue.drop([a.id]) == {a.id}
    [again] = await take(queue, 1, lane=BULK)
    assert (again.body, again.attempt) == (b"b", 1)
    assert [letter.id for letter in await queue.buried(10)] == [c.id]
    assert await queue.replay() == {c.id}
    assert (await queue.counts()).dead == 0


async def test_settle_happens_once(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"once", lane=LIVE)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Done("ok"))
    with pytest.raises(LostDelivery):
        await queue.settle(delivery, Bury("twice"))
    assert (await queue.counts()).dead == 0


async def test_a_delivery_whose_handle_was_closed_cannot_be_settled(backend: Backend) -> None:
    first, second = await backend.open(), await backend.open()
    await first.publish(b"lost", lane=LIVE)
    [delivery] = await take(first, 1)
    await first.close()
    assert not first.holds(delivery)
    [again] = await take(second, 1)
    await second.settle(again, Done("ok"))


async def test_what_was_taken_and_never_yielded_goes_back_at_once(backend: Backend) -> None:
    first, second = await backend.open(), await backend.open()
    for number in range(10):
        await first.publish(b"%d" % number, lane=LIVE)
    [held] = await take(first, 1, limit=10)
    start = time.monotonic()
    others = await take(second, 9)
    assert time.monotonic() - start < backend.lease
    assert held.body not in {delivery.body for delivery in others}
    assert first.holds(held)


async def test_what_nobody_was_given_is_given_back_uncounted(backend: Backend) -> None:
    queue = await backend.open()
    for number in range(10):
        await queue.publish(b"%d" % number, lane=LIVE)
    for _ in range(4):  # clean stops, each with most of it not yet begun
        stopping = await backend.open()
        [held] = await take(stopping, 1, limit=10)
        await stopping.settle(held, Retry(0, "again", counts=False))
        await stopping.close()
    assert [delivery.returned for delivery in await take(queue, 10)] == [0] * 10


async def test_what_is_given_back_unseen_keeps_what_it_had_come_back_before(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"killer", lane=LIVE)
    await died_with(backend, 3)
    await queue.publish(b"other", lane=LIVE)
    [first] = await take(queue, 1, limit=2)
    [second] = await take(queue, 1, limit=2)
    told = {first.body: first.returned, second.body: second.returned}
    assert told == {b"killer": 3, b"other": 0}


async def test_a_delivery_given_back_goes_to_others_at_once_and_uncounted(backend: Backend) -> None:
    queue, other = await backend.open(), await backend.open()
    await queue.publish(b"x", lane=BULK)
    for _ in range(3):
        [delivery] = await take(queue, 1, lane=BULK)
        start = time.monotonic()
        await queue.give_back(delivery)
        assert not queue.holds(delivery)
        [again] = await take(other, 1, lane=BULK)
        assert time.monotonic() - start < backend.lease
        assert (again.body, again.returned, again.attempt) == (b"x", 0, 1)
        await other.give_back(again)


async def test_a_taker_that_is_stopped_while_it_waits_takes_nothing_along(backend: Backend) -> None:
    stopping, other = await backend.open(), await backend.open()
    for number in range(20):  # each time at another moment of the taking
        taking = asyncio.create_task(take(stopping, 1))
        for _ in range(number):
            await asyncio.sleep(0)
        await stopping.publish(b"%d" % number, lane=LIVE)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        start = time.monotonic()
        if not taking.cancelled():
            await stopping.settle(taking.result()[0], Done("ok"))
            continue
        [delivery] = await take(other, 1)
        assert time.monotonic() - start < backend.lease, "at once, not when a lease has run out"
        assert delivery.body == b"%d" % number
        await other.settle(delivery, Done("ok"))


async def test_counts_tell_ready_waiting_and_dead_by_lane(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"1", lane=LIVE)
    await queue.publish(b"2", lane=BULK)
    await queue.publish(b"3", lane=BULK)
    await queue.publish(b"4", lane=LIVE, delay=30)
    await queue.bury(b"5", lane=LIVE, why="no task")

    async def told() -> bool:
        counts = await queue.counts()
        ready = {lane: depth.ready for lane, depth in counts.lanes.items() if depth.ready}
        return (ready, counts.waiting, counts.dead) == ({LIVE: 1, BULK: 2}, 1, 1)

    await until(told, "the depths are told")


async def test_a_broker_that_counts_by_itself_buries_no_sooner_than_its_workers_would(
    rabbit: Broker,
) -> None:
    """Its own limit stays what it was declared as: with another one no existing queue could be opened."""
    url = await rabbit.wipe(2)
    keeper = await RabbitQueue.open(url, look_after=2)
    await keeper.publish(b"poison", lane=LIVE)

    async def buried() -> bool:
        return (await keeper.counts()).dead == 1

    deaths = 0
    while not await buried():
        victim = await RabbitQueue.open(url, look_after=2)
        try:
            async with asyncio.timeout(1):
                await take(victim, 1)
        except TimeoutError:
            pass
        await victim.close()
        deaths += 1
        assert deaths < 130
    assert deaths > MAX_RETURNS
    [letter] = await keeper.buried(1)
    assert (letter.body, letter.why) == (b"poison", KILLER)
    assert time.time() - 120 < letter.at <= time.time() + 1, "the broker's own word"
    await keeper.close()


def key() -> str:
    """A key of this test's own: a broker keeps marks from one test to the next."""
    return f"stack {uuid.uuid4()}"


async def test_the_first_to_ask_is_told_so_again_and_nobody_else_is(backend: Backend) -> None:
    one, two = await backend.open(), await backend.open()
    mark = key()
    assert await one.first(mark, "a", at=1000, within=60)
    assert not await two.first(mark, "b", at=1000, within=60)
    assert await two.first(mark, "a", at=1000, within=60), "he who came back to another process"
    assert not await one.first(mark, "b", at=1000, within=60)
    assert await two.first(key(), "b", at=1000, within=60), "of another key"


async def test_of_many_who_ask_at_once_one_is_the_first(backend: Backend) -> None:
    queues = [await backend.open() for _ in range(3)]
    mark = key()
    asking = (queue.first(mark, f"{n}", at=1000 + n, within=60) for n in range(10) for queue in queues)
    told = await asyncio.gather(*asking)
    by_holder = [set(told[n : n + 3]) for n in range(0, 30, 3)]
    assert sorted(by_holder, key=str) == [{False}] * 9 + [{True}]


async def test_a_mark_outlives_the_handle_that_made_it(backend: Backend) -> None:
    one, mark = await backend.open(), key()
    assert await one.first(mark, "a", at=1000, within=60)
    await one.close()
    two = await backend.open()
    assert not await two.first(mark, "b", at=1000, within=60)
    assert await two.first(mark, "a", at=1000, within=60)


@pytest.mark.parametrize("apart", [-3000, -60, 60, 3000])
async def test_who_came_longer_before_or_after_takes_the_mark_at_once(backend: Backend, apart: float) -> None:
    """They may be worked on in the same second, in any order: what counts is when they came."""
    one, two = await backend.open(), await backend.open()
    mark, at = key(), 1_700_000_000.5
    assert await one.first(mark, "a", at=at, within=60)
    assert not await two.first(mark, "a'", at=at + 5, within=60)
    assert not await two.first(mark, "a'", at=at - 59.75, within=60)
    assert await two.first(mark, "b", at=at + apart, within=60)
    assert not await one.first(mark, "b'", at=at + apart + 5, within=60), "it is the other's now"
    assert await two.first(mark, "b", at=at + apart, within=60)
    assert await one.first(mark, "a", at=at, within=60), "a try that comes back is no duplicate of the other"
    assert not await two.first(mark, "a'", at=at + 5 * (apart < 0) - 5, within=60)


async def test_a_mark_is_gone_after_its_life_and_asking_in_vain_does_not_prolong_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "MARK_OUTLIVES", 0)
    queue, mark = await backend.open(), key()
    start = time.monotonic()
    assert await queue.first(mark, "a", at=1000, within=2)

    async def gone() -> bool:
        return await queue.first(mark, "b", at=1001, within=2)

    await until(gone, "another becomes the first")
    assert time.monotonic() - start >= 1.99
    assert not await queue.first(mark, "a", at=1000, within=2), "and is the only one again"


async def test_a_mark_outlives_its_window_for_a_duplicate_that_waits_in_a_backlog(backend: Backend) -> None:
    queue, mark = await backend.open(), key()
    start = time.monotonic()
    assert await queue.first(mark, "a", at=1000, within=0.5)

    async def later() -> bool:
        assert not await queue.first(mark, "b", at=1000.25, within=0.5)
        return time.monotonic() - start > 2

    await until(later, "the window has passed several times")


async def test_a_holder_who_asks_again_holds_on(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "MARK_OUTLIVES", 0)
    queue, mark = await backend.open(), key()
    asked = 0.0

    async def held_for_long() -> bool:
        nonlocal asked
        asked = time.monotonic()
        assert await queue.first(mark, "a", at=1000, within=5)
        return asked - start > 6

    start = time.monotonic()
    await until(held_for_long, "the holder has asked for longer than the time")
    assert time.monotonic() - asked > 4 or not await queue.first(mark, "b", at=1000, within=5)


async def test_marks_are_no_messages(backend: Backend) -> None:
    queue = await backend.open()
    assert await queue.first(key(), "a", at=1000, within=60)
    counts = await queue.counts()
    assert (sum(counts.ready.values()), counts.waiting, counts.held or 0, counts.dead) == (0, 0, 0, 0)
    assert await nothing_comes(queue, 0.5)


async def test_a_move_goes_on_in_the_other_lane_with_all_that_it_has_been_through(backend: Backend) -> None:
    queue = await backend.open()
    await queue.publish(b"k", lane=LIVE)
    [delivery] = await take(queue, 1)
    await queue.settle(delivery, Retry(0, "because"))
    [delivery] = await take(queue, 1)
    await queue.close()
    other = await backend.open()
    [delivery] = await take(other, 1)
    assert (delivery.attempt, delivery.returned) == (2, 1)
    there = Lane('another/route "of" any ~id, ж' * 20, Kind.BULK)
    await other.settle(delivery, Move(there, b"changed"))
    [moved] = await take(other, 1, lane=there)
    assert (moved.body, moved.lane, moved.attempt, moved.returned) == (b"changed", there, 2, 1)
    assert [failure.why for failure in moved.failures] == ["because"]
    await other.settle(moved, Bury("never"))
    [letter] = await other.buried(1)
    assert (letter.lane, letter.attempt) == (there, 2)
    assert await nothing_comes(other, 0.3)


async def test_no_lane_waits_behind_another_and_one_that_is_not_taken_from_stays_as_it_is(
    backend: Backend,
) -> None:
    queue = await backend.open()
    full, other = Lane("full"), Lane("other")
    await queue.publish_all({full: [b"%d" % number for number in range(3000)]})
    taken = await take(queue, 10, lane=full, limit=10)
    await queue.publish(b"k", lane=other)
    [delivery] = await take(queue, 1, lane=other)
    await queue.settle(delivery, Done("ok"))
    for delivery in taken:
        await queue.give_back(delivery)

    async def all_there() -> bool:
        return (await queue.counts()).of(full).ready == 3000

    await until(all_there, "the other lane is as it was")
    assert {delivery.attempt for delivery in await take(queue, 5, lane=full)} == {1}


async def test_what_is_published_for_several_lanes_at_once_is_in_each(backend: Backend) -> None:
    queue = await backend.open()
    lanes = {Lane("a"): [b"1", b"2"], Lane("b"): [b"3"], Lane("c", Kind.BULK): []}
    await queue.publish_all(lanes)
    for lane, bodies in lanes.items():
        assert sorted([delivery.body for delivery in await take(queue, len(bodies), lane=lane)]) == bodies


async def test_lanes_are_known_to_who_opens_the_queue_later(backend: Backend) -> None:
    first = await backend.open()
    await first.publish(b"k", lane=Lane("of old"))
    await first.close()
    second = await backend.open()

    async def told() -> bool:
        return (await second.counts()).besides([]) == {"of old": 1}

    await until(told, "the lane is known")
