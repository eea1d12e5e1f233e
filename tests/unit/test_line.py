"""The supervisor's line, with a process at its other end that answers as it likes."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.merge import Families
from console.line import STOP, TELL, UNANSWERED, Line
from tests.lab.until import until


def answer(done: int, in_hand: int) -> bytes:
    """What a process says that has done so many tasks, and has so many in hand."""
    families = {
        "hookmirror_attempts": ["counter", "", [["hookmirror_attempts_total", {}, done]]],
        "hookmirror_deliveries_in_hand": ["gauge", "", [["hookmirror_deliveries_in_hand", {}, in_hand]]],
    }
    return json.dumps([families, {"r": {"in_progress": in_hand}}]).encode() + b"\n"


def values(families: Families) -> dict[str, float]:
    """The value of each sample."""
    return {name: value for family in families.values() for name, _, value in family.samples}


class Process:
    """The other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answers(self, done: int, in_hand: int) -> None:
        """Wait to be asked, and answer."""
        assert await self.reader.readline() == TELL
        self.writer.write(answer(done, in_hand))


@asynccontextmanager
async def process(line: Line, stop: asyncio.Event) -> AsyncIterator[Process]:
    """A process on `line` inside the block, which is dead after it."""
    ours, theirs = socket.socketpair()
    listening = asyncio.create_task(line.listen(ours, stop))
    its = Process(*await asyncio.open_unix_connection(sock=theirs))
    try:
        yield its
    finally:
        its.writer.transport.abort()
        await listening


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


async def test_what_one_after_the_other_counted_is_summed_and_how_things_are_is_told_of_the_one_that_lives(
    stop: asyncio.Event,
) -> None:
    line = Line()
    async with process(line, stop) as first:
        asked, _ = await asyncio.gather(line.ask(), first.answers(3, in_hand=2))
        assert asked
        assert values(line.families) == {
            "hookmirror_attempts_total": 3,
            "hookmirror_deliveries_in_hand": 2,
        }
        assert line.state == {"r": {"in_progress": 2}}
    assert (values(line.families), line.state) == ({"hookmirror_attempts_total": 3}, {})
    assert not await line.ask()
    async with process(line, stop) as second:
        await asyncio.gather(line.ask(), second.answers(4, in_hand=1))
        assert values(line.families) == {
            "hookmirror_attempts_total": 7,
            "hookmirror_deliveries_in_hand": 1,
        }


async def test_the_last_words_of_a_process_count_though_nobody_asked(stop: asyncio.Event) -> None:
    line = Line()
    async with process(line, stop) as dying:
        dying.writer.write(answer(5, in_hand=0))
        await until(lambda: line.state, "they are heard")
    assert values(line.families) == {"hookmirror_attempts_total": 5}


async def test_words_cut_by_death_are_not_heard_and_whoever_asked_is_told(stop: asyncio.Event) -> None:
    line = Line()
    async with process(line, stop) as dying:
        await asyncio.gather(line.ask(), dying.answers(5, in_hand=0))
        asking = asyncio.create_task(line.ask())
        assert await dying.reader.readline() == TELL
        dying.writer.write(answer(6, in_hand=0)[:-9])
        dying.writer.write_eof()
        assert not await asking
    assert values(line.families) == {"hookmirror_attempts_total": 5}


async def test_of_a_process_that_hangs_the_counts_stay_and_it_is_not_asked_for_ever(
    stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.line.ANSWER_WITHIN", 0.01)
    line = Line()
    async with process(line, stop) as hung:
        hung.writer.write(answer(5, in_hand=1))
        await until(lambda: line.state, "it is heard")
        assert [await line.ask() for _ in range(2 * UNANSWERED)] == [False] * 2 * UNANSWERED
        assert values(line.families) == {"hookmirror_attempts_total": 5}
        for number in range(UNANSWERED):  # it goes on
            await hung.answers(6 + number, in_hand=2)
        await until(lambda: line.state == {"r": {"in_progress": 2}}, "it is heard")
        monkeypatch.undo()
        assert (await asyncio.gather(line.ask(), hung.answers(20, in_hand=3)))[0]
        assert values(line.families)["hookmirror_deliveries_in_hand"] == 3


async def test_a_stop_is_told_also_to_a_process_that_comes_after_it(stop: asyncio.Event) -> None:
    stop.set()
    async with process(Line(), stop) as late:
        assert await late.reader.readline() == STOP
