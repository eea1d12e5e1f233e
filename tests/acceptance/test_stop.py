"""A stop as a supervisor asks for it: SIGTERM to everything under load, with copies that do not end."""

import asyncio
import os
import signal
import time

import pytest

from tests.lab.gate import gate
from tests.lab.programs import Site, deliver, in_step, post, record
from tests.lab.until import until

WITHIN = 30.0
"""Seconds from SIGTERM to exit 0: what systemd, Kubernetes and docker-compose wait for, and more."""


@pytest.mark.timeout(240)  # a drain of 25 seconds is in it
async def test_everything_stopped_with_copies_that_hang_exits_0_within_30_seconds_and_none_is_dead(
    over_rabbit: Site,
) -> None:
    async with gate(over_rabbit.target_endpoint) as slow:
        over_rabbit.target_endpoint = slow.endpoint
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        programs = [over_rabbit.launch(name) for name in ("receiver", "worker", "worker")]
        receiver, *workers = [await program.started() for program in programs]
        answers: list[int] = []

        async def send(number: int) -> None:
            key = f"object {number}"
            await over_rabbit.source.write(key, b"%d" % number, headers={}, metadata={})
            answers.append(await post(over_rabbit.hook_url, record(key)))
            if answers[-1] != 200:  # a sender comes again
                await deliver(over_rabbit.hook_url, record(key))

        senders = [asyncio.create_task(send(number)) for number in range(100)]
        await until(lambda: len(slow.held) >= 64, "both workers have their hands full")
        senders += [asyncio.create_task(send(number)) for number in range(100, 200)]
        await until(lambda: len(answers) > 120, "hooks are coming in")
        asked = time.monotonic()
        for program in programs:
            program.send(signal.SIGTERM)
        assert [await program.ends(WITHIN) for program in programs] == [0, 0, 0]
        assert time.monotonic() - asked < WITHIN

        assert receiver.did("stopped")
        for worker in workers:
            (stopped,) = (line for line in worker.lines() if line["action"] == "stopped")
            assert stopped["cut_off"] > 0, "nothing was in hand: this tried nothing"
        assert set(answers) <= {200, 503, 0}
        assert (await over_rabbit.counts()).dead == 0
        slow.open.set()
        for name in ("receiver", "worker"):
            await over_rabbit.run(name)
        await asyncio.gather(*senders)
        await in_step(over_rabbit)
        assert sum([1 async for _ in over_rabbit.target.list()]) == 200


async def test_a_log_that_nobody_reads_keeps_no_hook_and_no_stop_waiting(over_sqlite: Site) -> None:
    """A pipe holds 64 KiB, some 200 lines."""
    read, write = os.pipe()
    try:
        receiver = over_sqlite.launch("receiver", stderr=write)
        for number in range(600):
            await deliver(over_sqlite.hook_url, record(f"object {number}"))
        assert sum((await over_sqlite.counts()).ready.values()) == 600
        receiver.send(signal.SIGTERM)
        assert await receiver.ends(WITHIN) == 0
    finally:
        os.close(write)
        os.close(read)


async def test_a_second_ctrl_c_ends_at_once_and_the_first_says_what_it_waits_for(over_sqlite: Site) -> None:
    over_sqlite.worker = "drain = 600"
    async with gate(over_sqlite.target_endpoint) as slow:
        over_sqlite.target_endpoint = slow.endpoint
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        up = await over_sqlite.run("up")
        await over_sqlite.source.write("k", b"body", headers={}, metadata={})
        await deliver(over_sqlite.hook_url, record("k"))
        await until(lambda: bool(slow.held), "a copy is under way")
        up.send(signal.SIGINT)
        await until(lambda: bool(up.did("stopping")), "it says that it stops")
        assert "600 s" in up.words()
        assert not up.ended()
        up.send(signal.SIGINT)
        assert await up.ends(10) == 128 + signal.SIGINT
        slow.open.set()
        over_sqlite.worker = ""
        await over_sqlite.run("up")
        await in_step(over_sqlite)
        assert [entry.key async for entry in over_sqlite.target.list()] == ["k"]


async def test_a_clean_stop_leaves_nothing_in_progress_in_the_embedded_queue(over_sqlite: Site) -> None:
    over_sqlite.worker = "drain = 1"
    async with gate(over_sqlite.target_endpoint) as slow:
        over_sqlite.target_endpoint = slow.endpoint
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        up = await over_sqlite.run("up")
        for number in range(50):
            await over_sqlite.source.write(f"object {number}", b"x", headers={}, metadata={})
            await deliver(over_sqlite.hook_url, record(f"object {number}"))
        await until(lambda: len(slow.held) >= 32, "the worker has its hands full")
        up.send(signal.SIGTERM)
        assert await up.ends(WITHIN) == 0
        counts = await over_sqlite.counts()
        assert (counts.held, counts.waiting, sum(counts.ready.values())) == (0, 0, 50)
        slow.open.set()
