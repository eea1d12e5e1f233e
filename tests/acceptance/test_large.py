"""Large objects over real processes: in bounded memory, and gone on with after a kill."""

import random
import re
import subprocess
import sys
from pathlib import Path

from tests.lab.gate import gate
from tests.lab.programs import Program, Site, deliver, in_step, record
from tests.lab.until import until

MIB = 2**20
SEED = 20261122
MOST_RSS = 256 * MIB


async def put(site: Site, key: str, size: int) -> None:
    """Write `size` random bytes at the source and deliver the hook."""
    body = random.Random(f"{SEED} {key}").randbytes(size)
    await site.source.write(key, body, headers={"content-type": "text/x-test"}, metadata={"size": str(size)})
    await deliver(site.hook_url, record(key, size=size))


async def all_done(site: Site) -> None:
    """Wait for the looks, then fail on any difference, dead letter or upload left open."""
    await in_step(site)
    assert [upload async for upload in site.target.uploads()] == []


def most_memory(program: Program) -> int:
    """The most memory the process ever had resident, in bytes."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


async def test_memory_is_bounded_whatever_the_sizes(over_rabbit: Site) -> None:
    await over_rabbit.run("receiver")
    for number in range(32):
        await put(over_rabbit, f"object {number}", (7 if number % 4 else 48) * MIB)
    worker = await over_rabbit.run("worker")
    await until(lambda: worker.did("copied") >= 32, "everything is copied", within=90)
    await all_done(over_rabbit)
    assert most_memory(worker) < MOST_RSS


async def test_a_worker_killed_in_mid_copy_repeats_only_the_parts_in_flight(over_rabbit: Site) -> None:
    async with gate(over_rabbit.target_endpoint) as slow:
        over_rabbit.target_endpoint = slow.endpoint
        sent: list[str] = []

        def after_six(method: str, path: str) -> bool:
            if method == "PUT" and "partNumber" in path:
                sent.append(re.findall(r"partNumber=(\d+)", path)[0])
                return len(sent) > 6 and not slow.open.is_set()
            return False

        slow.holds = after_six
        await over_rabbit.run("receiver")
        victim = await over_rabbit.run("worker")
        await put(over_rabbit, "big", 96 * MIB)
        await until(lambda: len(slow.held) >= 4, "four parts are in flight")
        victim.kill()
        before = len(sent)
        slow.open.set()
        await slow.landed()
        survivor = await over_rabbit.run("worker")
        await until(lambda: survivor.did("copied"), "another worker ends the copy")
        await all_done(over_rabbit)
        assert len(sent) - before <= 12 - 6  # of twelve parts six had been acknowledged before the kill


async def test_parts_larger_than_memory_may_hold_pass_through_and_the_etags_agree(over_rabbit: Site) -> None:
    part, chance = 64 * MIB, random.Random(SEED)
    upload = (await over_rabbit.source.create_upload("wide", headers={}, metadata={})).id
    etags = []
    for number, size in enumerate((part, part, 7 * MIB + 1), 1):
        etags.append(await over_rabbit.source.upload_part("wide", upload, number, chance.randbytes(size)))
    etag = await over_rabbit.source.complete_upload("wide", upload, etags)
    await over_rabbit.run("receiver")
    worker = await over_rabbit.run("worker")
    await deliver(over_rabbit.hook_url, record("wide", size=2 * part + 7 * MIB + 1))
    await until(lambda: worker.did("copied"), "the object is copied", within=90)
    await all_done(over_rabbit)
    copy = await over_rabbit.target.head("wide")
    assert copy is not None
    assert copy.etag == etag
    assert most_memory(worker) < MOST_RSS / 2


async def test_uploads_left_behind_are_listed_and_cleared(over_sqlite: Site) -> None:
    upload = (await over_sqlite.target.create_upload("left behind", headers={}, metadata={})).id
    await over_sqlite.target.upload_part("left behind", upload, 1, b"x" * 5 * MIB)

    def hookmirror(*words: str) -> str:
        command = [sys.executable, "-m", "console", "uploads", *words, "--config", str(over_sqlite.config)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "Younger than 168 hours: 1" in hookmirror("list")
    assert "left behind" in hookmirror("list", "--older-than", "0")
    assert "aborted: 1" in hookmirror("clear", "--older-than", "0", "--yes")
    assert [upload async for upload in over_sqlite.target.uploads()] == []
