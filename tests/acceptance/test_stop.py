"""A stop as a supervisor asks for it: SIGTERM to everything under load, with copies that do not end."""

import asyncio
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
