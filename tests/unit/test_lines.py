"""A log that nobody drains keeps nobody waiting."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from common.lines import LineWriter

PIPE = 2**16
"""Bytes that a pipe holds at most."""


def wait_until(true: object) -> None:
    until = time.monotonic() + 20
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.005)


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text})


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def told(count: int) -> str:
    return f"dropped {count}"


def test_every_line_is_written_in_order_and_the_end_waits_for_the_last(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], told)
    for number in range(500):
        writer.emit(record(f"{number}"))
    writer.close()
    assert os.read(pipe[0], PIPE).decode().split() == [f"{number}" for number in range(500)]
    assert writer.dropped == 0


def test_what_finds_no_room_is_dropped_and_told_when_there_is_room_again(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], told, room=10)
    writer.emit(record("x" * 2 * PIPE))  # the writer hangs in this
    wait_until(lambda: writer._lines.empty())
    for number in range(25):
        writer.emit(record(f"line {number}"))
    assert writer.dropped == 15
    read = b""
    while b"line 9\n" not in read:
        read += os.read(pipe[0], PIPE)
    lines = read.decode().splitlines()
    assert lines[1:] == ["dropped 15", *[f"line {number}" for number in range(10)]]
    writer.close()


def test_a_process_whose_log_stands_still_can_end(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], told, room=10)
    for _ in range(20):
        writer.emit(record("x" * PIPE))
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < 15
    os.close(pipe[0])  # what hangs is let go


@pytest.mark.parametrize("end", ["closed", "full"])
def test_a_log_that_takes_nothing_costs_its_lines_only(pipe: tuple[int, int], end: str) -> None:
    os.close(pipe[0])
    fd = pipe[1] if end == "closed" else os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(fd, told)
    writer.emit(record("one"))
    writer.emit(record("two"))
    writer.close()
    assert writer.dropped >= 2


def test_a_pipe_that_somebody_else_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1], told)
    long = "x" * 3 * PIPE
    writer.emit(record(long))
    read = b""
    while not read.endswith(b"\n"):
        read += os.read(pipe[0], PIPE)
    assert read.decode() == f"{long}\n"
    writer.close()


WRITES = """
import logging, sys
from common.lines import LineWriter
writer = LineWriter(1, str)
writer.turns = int(sys.argv[1])
for number in range(20):
    writer.emit(logging.makeLogRecord({"msg": sys.argv[2] * 50_000}))
writer.close()
"""


def test_lines_of_several_processes_that_a_pipe_takes_in_parts_stay_whole(pipe: tuple[int, int]) -> None:
    turns = os.memfd_create("turns")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES, str(turns), letter], stdout=pipe[1], pass_fds=[turns])
        for letter in "ab"
    ]
    os.close(turns)
    read = bytearray()
    while read.count(b"\n") < 40:
        read += os.read(pipe[0], PIPE)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(read.decode().splitlines()) == ["a" * 50_000] * 20 + ["b" * 50_000] * 20
