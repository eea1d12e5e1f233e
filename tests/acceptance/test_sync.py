"""The promise, over real processes, a real broker and real S3: target equals source in the end."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from typing import Any

import aio_pika
import aiohttp
import pytest

from common.queue.topology import dead_queue
from tests.lab.gate import gate
from tests.lab.programs import REMOVED, Program, Site, deliver, in_step, post, record
from tests.lab.rabbit import RabbitNode
from tests.lab.until import until

SEED = 20261122


async def services(site: Site, workers: int = 2) -> list[Program]:
    """Start what serves a site: one process on the embedded queue, receiver and workers over a broker."""
    if site.queue_url.startswith("sqlite"):
        return [await site.run("up")]
    programs = [site.launch("receiver"), *(site.launch("worker") for _ in range(workers))]
    return [await program.started() for program in programs]


async def put(site: Site, key: str, body: bytes) -> dict[str, Any]:
    """Write an object at the source and return the record of it."""
    await site.source.write(
        key, body, headers={"content-type": "text/x-test"}, metadata={"length": str(len(body))}
    )
    return record(key, size=len(body))


async def remove(site: Site, key: str) -> dict[str, Any]:
    """Delete an object at the source and return the record of it."""
    await site.source.delete(key)
    return record(key, REMOVED)


async def test_after_a_thousand_hooks_shuffled_and_doubled_both_are_equal_and_the_queue_is_empty(
    anywhere: Site,
) -> None:
    anywhere.look_after = 1200  # a re-check, if any were published, would wait for longer than this test
    await services(anywhere)
    rng = random.Random(SEED)
    keys = [f"folder {n % 5}/object {n} +%é.bin" for n in range(40)]
    events: list[dict[str, Any]] = []
    for _ in range(700):
        key = rng.choice(keys)
        if rng.random() < 0.3:
            events.append(await remove(anywhere, key))
        else:
            events.append(await put(anywhere, key, rng.randbytes(rng.choice((0, 10, 5000, 70_000)))))
    events += rng.sample(events, 300)
    rng.shuffle(events)
    await asyncio.gather(*(deliver(anywhere.hook_url, *events[n : n + 3]) for n in range(0, len(events), 3)))
    await in_step(anywhere)
    assert [entry async for entry in anywhere.source.list()]


async def test_a_forged_delete_changes_nothing(anywhere: Site) -> None:
    await services(anywhere)
    created = await put(anywhere, "precious", b"still here")
    await deliver(anywhere.hook_url, created)
    await until(lambda: anywhere.target.head("precious"), "the copy arrives")
    await deliver(
        anywhere.hook_url, record("precious", REMOVED), record("precious", "s3:LifecycleExpiration:Delete")
    )
    await in_step(anywhere)
    assert await anywhere.target.head("precious") is not None


async def test_forged_hooks_over_keys_in_step_change_nothing_and_cost_two_requests_each(
    anywhere: Site,
) -> None:
    async with gate(anywhere.source_endpoint) as source, gate(anywhere.target_endpoint) as target:
        anywhere.source_endpoint, anywhere.target_endpoint = source.endpoint, target.endpoint
        await services(anywhere)
        keys = [f"precious/{n}" for n in range(20)]
        for key in keys:
            await deliver(anywhere.hook_url, await put(anywhere, key, key.encode()))
        await in_step(anywhere)
        before = [await anywhere.target.head(key) for key in keys]
        for asked in (source.asked, target.asked):
            asked.clear()
        etags = [state.etag for state in before if state]
        for n, key in enumerate(keys):
            forged = (record(key), record(key, eTag=etags[n]), record(key, REMOVED))[n % 3]
            await deliver(anywhere.hook_url, forged)
        await in_step(anywhere)  # with the looks that doubt has promised
        assert {*source.asked, *target.asked} == {"GET", "HEAD"}
        assert len(source.asked) + len(target.asked) <= 2 * len(keys)
        assert [await anywhere.target.head(key) for key in keys] == before


async def test_a_worker_killed_in_mid_copy_leaves_its_work_to_another(over_rabbit: Site) -> None:
    async with gate(over_rabbit.target_endpoint) as slow:
        over_rabbit.target_endpoint = slow.endpoint
        slow.holds = lambda method, _: method == "PUT" and not slow.open.is_set()
        _, victim = await services(over_rabbit, workers=1)
        await deliver(
            over_rabbit.hook_url, await put(over_rabbit, "big", random.Random(SEED).randbytes(32 * 2**20))
        )
        await until(lambda: slow.held, "the copy is under way")
        victim.kill()
        slow.open.set()
        await over_rabbit.run("worker")
        await in_step(over_rabbit)


async def test_a_write_that_lands_after_its_worker_died_is_put_right_by_the_promised_look(
    over_rabbit: Site,
) -> None:
    async with gate(over_rabbit.target_endpoint) as slow:
        over_rabbit.target_endpoint = slow.endpoint
        slow.holds = lambda method, _: method == "PUT" and not slow.held
        _, victim = await services(over_rabbit, workers=1)
        await deliver(over_rabbit.hook_url, await put(over_rabbit, "k", b"old"))
        await until(lambda: slow.held, "the old copy is in flight")
        victim.kill()
        newer = await put(over_rabbit, "k", b"newer")
        survivor = await over_rabbit.run("worker")
        await deliver(over_rabbit.hook_url, newer)
        await until(lambda: survivor.did("copied"), "the new copy is made")
        slow.open.set()  # and now the dead worker's write lands on top of it
        await slow.landed()
        async with over_rabbit.target.read("k") as reading:
            assert reading is not None
            assert await reading.body() == b"old"
        await in_step(over_rabbit)


async def test_every_hook_answered_200_is_done_though_the_broker_is_killed(
    over_rabbit: Site, own_rabbit: RabbitNode
) -> None:
    await services(over_rabbit)
    statuses: list[int] = []

    async def send(number: int) -> None:
        event = await put(over_rabbit, f"object {number}", b"%d" % number)
        while (status := await post(over_rabbit.hook_url, event)) != 200:
            statuses.append(status)
            await asyncio.sleep(0.2)
        statuses.append(status)

    senders = [asyncio.create_task(send(number)) for number in range(100)]
    await until(lambda: statuses.count(200) >= 20, "hooks are taken")
    own_rabbit.kill()
    late = [asyncio.create_task(send(number)) for number in range(100, 200)]
    await until(lambda: 503 in statuses, "the receiver refuses while the broker is away")
    assert set(statuses) == {200, 503}
    await asyncio.to_thread(own_rabbit.start)
    await asyncio.wait_for(asyncio.gather(*senders, *late), 60)
    await in_step(over_rabbit)


async def test_a_broker_that_stops_answering_gets_a_503_within_three_seconds(
    over_rabbit: Site, own_rabbit: RabbitNode
) -> None:
    await over_rabbit.run("receiver")
    event = await put(over_rabbit, "k", b"k")
    await deliver(over_rabbit.hook_url, event)
    own_rabbit.pause()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
            for _ in range(3):
                async with session.post(over_rabbit.hook_url, json={"Records": [event]}) as response:
                    assert response.status == 503
                    assert int(response.headers["Retry-After"]) > 0
            async with session.get(f"http://127.0.0.1:{over_rabbit.port}/healthz") as response:
                assert response.status == 200
    finally:
        own_rabbit.resume()
    await deliver(over_rabbit.hook_url, event)


async def test_a_stop_under_load_exits_0_and_loses_nothing(over_rabbit: Site) -> None:
    _, first, _ = await services(over_rabbit, workers=2)
    events = [await put(over_rabbit, f"object {number}", b"x" * number * 100) for number in range(200)]
    await asyncio.gather(*(deliver(over_rabbit.hook_url, event) for event in events))
    await until(lambda: first.did("copied"), "the first worker is busy")
    first.send(signal.SIGTERM)
    assert await first.ends() == 0
    await in_step(over_rabbit)


async def test_a_single_process_killed_under_load_finishes_after_its_restart(over_sqlite: Site) -> None:
    victim = await over_sqlite.run("up")
    events = [await put(over_sqlite, f"object {number}", b"%d" % number) for number in range(150)]
    await asyncio.gather(*(deliver(over_sqlite.hook_url, event) for event in events))
    await until(lambda: victim.did("copied") >= 10, "it is busy")
    victim.kill()
    survivor = await over_sqlite.run("up")
    await in_step(over_sqlite)
    survivor.send(signal.SIGINT)
    assert await survivor.ends() == 0


async def test_a_queue_with_other_arguments_ends_the_start_and_names_the_argument(over_rabbit: Site) -> None:
    async with await aio_pika.connect(over_rabbit.queue_url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(dead_queue())
        await channel.declare_queue(dead_queue(), durable=True)
        program = over_rabbit.launch("worker")
        assert await program.ends() == 2
        await channel.queue_delete(dead_queue())
    assert dead_queue() in program.words()
    assert "x-queue-type" in program.words()


async def test_the_dead_can_be_listed_shown_replayed_and_dropped(anywhere: Site) -> None:
    await services(anywhere, workers=1)
    good = await put(anywhere, "good", b"good")
    await deliver(anywhere.hook_url, good, {"eventName": "s3:ObjectCreated:Put"}, {"no": "record"})
    await until(lambda: anywhere.target.head("good"), "the good record is done")

    def hookmirror(*words: str) -> str:
        command = [sys.executable, "-m", "console", *words, "--config", str(anywhere.config)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    first = hookmirror("dead", "list")
    assert hookmirror("dead", "list") == first
    assert "s3.bucket.name is missing or no string" in first
    letters = json.loads(hookmirror("dead", "list", "--json"))["letters"]
    assert len(letters) == 2
    assert "Unreadable" in hookmirror("dead", "show", letters[0]["id"])
    assert "dropped: 1" in hookmirror("dead", "drop", letters[0]["id"])
    assert "replayed: 1" in hookmirror("dead", "replay", "--all", "--yes")
    await until(lambda: dead_again(anywhere), "the unreadable one is buried again")


async def dead_again(site: Site) -> bool:
    """Whether one dead letter is back."""
    return (await site.counts()).dead == 1


@pytest.mark.parametrize("path", ["/ping", "/healthz", "/readyz"])
async def test_a_running_receiver_answers_the_probes(over_sqlite: Site, path: str) -> None:
    await over_sqlite.run("up")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{over_sqlite.port}{path}") as answer,
    ):
        assert answer.status == 200
