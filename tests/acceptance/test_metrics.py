"""The metrics of real processes at work: what they tell adds up."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from demo.weed import ACCESS_KEY
from tests.lab.programs import REMOVED, Program, Site, deliver, post, record
from tests.lab.until import until

ROUTES = [
    {
        "name": "good",
        "source": "mcs:source",
        "target": "aws:target",
        "prefix": "good/",
        "brake": {"deletes": 1, "window": 300},
    },
    {"name": "stuck", "source": "mcs:source", "target": "locked:target", "prefix": "stuck/"},
]


@dataclass
class Scrape:
    """What all processes of a site said at one time."""

    families: list[Metric]

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples called `name` that have these labels."""
        return sum(self._values(name, labels))

    def max(self, name: str, **labels: str) -> float:
        """Return the greatest of them: of what all processes on one queue tell alike."""
        return max(self._values(name, labels))

    def _values(self, name: str, labels: dict[str, str]) -> Iterable[float]:
        for family in self.families:
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield sample.value

    def waiting(self) -> float:
        """Return how many are ready or wait, of all routes."""
        depths: dict[tuple[str, ...], float] = {}
        for family in self.families:
            for sample in family.samples:
                if sample.name == "hookmirror_queue_depth" and sample.labels["state"] != "held":
                    at = tuple(sample.labels.values())
                    depths[at] = max(depths.get(at, 0.0), sample.value)
        return sum(depths.values())

    def unaccounted(self) -> float:
        """Return the check of docs/metrics.md: 0 when the queue holds what should be waiting."""
        return (
            self.sum("hookmirror_tasks_received_total")
            + self.sum("hookmirror_looks_promised_total")
            - self.sum("hookmirror_tasks_ended_total")
            - self.sum("hookmirror_looks_ended_total")
            - self.waiting()
            - self.sum("hookmirror_deliveries_in_hand")
        )


def ports(programs: list[Program]) -> set[int]:
    """Where the programs serve their metrics, as they say when they start."""
    return {
        line["metrics_port"]
        for program in programs
        for line in program.lines()
        if line["action"] == "started"
    }


async def scrape(programs: list[Program]) -> Scrape:
    """Ask every program for its metrics."""
    families: list[Metric] = []
    async with aiohttp.ClientSession() as session:
        for port in ports(programs):
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert answer.status == 200
                families += text_string_to_metric_families(await answer.text())
    return Scrape(families)


async def send(site: Site) -> None:
    """Send hooks of every kind."""
    for number in range(5):
        key = f"good/{number}"
        await site.source.write(key, b"x" * 100, headers={}, metadata={})
        await deliver(site.hook_url, record(key), record(key))
    for number in (6, 7):  # the second is more than the brake lets pass
        await site.target.write(f"good/{number}", b"old", headers={}, metadata={})
        await deliver(site.hook_url, record(f"good/{number}", REMOVED))
    await deliver(site.hook_url, record("good/gone before anybody looked"))
    await deliver(site.hook_url, record("good/4", "s3:ObjectTagging:Put"))
    await deliver(site.hook_url, {"eventName": "s3:ObjectCreated:Put"}, record("of no route"))
    assert await post(site.hook_url, record("x", bucket="a stranger's")) == 200


async def test_what_came_in_is_what_ended_and_what_waits(
    anywhere: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = anywhere
    monkeypatch.setenv("HOOKMIRROR_ROUTES", json.dumps(ROUTES))
    monkeypatch.setenv("HOOKMIRROR_STORES__LOCKED__ENDPOINT", site.target_endpoint)
    monkeypatch.setenv("HOOKMIRROR_STORES__LOCKED__ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("HOOKMIRROR_STORES__LOCKED__SECRET_ACCESS_KEY", "wrong-wrong")
    monkeypatch.setenv("HOOKMIRROR_METRICS__PORT", "0")
    names = ["up"] if site.queue_url.startswith("sqlite") else ["receiver", "worker"]
    programs = [await site.run(name) for name in names]
    assert len(ports(programs)) == len(programs), "one port for each process"
    await send(site)

    async def ended() -> bool:
        seen = await scrape(programs)
        return seen.sum("hookmirror_tasks_ended_total") == 14

    await until(ended, "every task has ended")
    seen = await scrape(programs)
    assert seen.sum("hookmirror_tasks_received_total", route="good") == 14
    ends = {
        outcome: seen.sum("hookmirror_tasks_ended_total", outcome=outcome)
        for outcome in ("copied", "deleted", "skipped", "look_later", "buried")
    }
    assert ends["copied"] >= 5
    assert ends | {"copied": 0, "skipped": 0} == {
        "copied": 0, "deleted": 1, "skipped": 0, "look_later": 0, "buried": 1,
    }  # fmt: skip
    assert seen.sum("hookmirror_lag_seconds_count", route="good") == ends["copied"] + ends["deleted"]
    assert seen.sum("hookmirror_copied_bytes_total") >= 500
    assert seen.sum("hookmirror_copy_seconds_count", size_class="to_64KiB") >= 5
    assert seen.sum("hookmirror_attempts_total", outcome="buried", error="BrakeOn") == 1
    assert seen.sum("hookmirror_brake_on", route="good") == 1
    assert seen.sum("hookmirror_hooks_total", outcome="accepted") == 10
    assert seen.sum("hookmirror_hooks_total", outcome="unrouted") == 1
    assert seen.sum("hookmirror_publish_seconds_count") == 11
    assert seen.sum("hookmirror_records_total") == 17
    assert seen.sum("hookmirror_records_total", outcome="unrouted") == 1
    assert seen.sum("hookmirror_records_total", outcome="buried") == 1
    assert seen.sum("hookmirror_oldest_waiting_seconds") == 0
    assert seen.sum("hookmirror_route_paused", route="good") == 0

    await site.source.write("stuck/1", b"x", headers={}, metadata={})
    await deliver(site.hook_url, record("stuck/1"))

    async def accounted() -> bool:
        seen = await scrape(programs)
        return seen.waiting() == 1 and seen.unaccounted() == 0

    await until(accounted, "the queue holds what is waiting and nothing else", 60)
    seen = await scrape(programs)
    assert seen.sum("hookmirror_route_paused", route="stuck") == 1
    assert seen.sum("hookmirror_route_paused", route="good") == 0
    assert seen.sum("hookmirror_tasks_received_total") - seen.sum("hookmirror_tasks_ended_total") == 1
    assert seen.max("hookmirror_queue_depth", route="stuck", lane="live", state="ready") == 1
    assert seen.max("hookmirror_dead_letters") == 2, "one of a record, one of a task"


async def ask_health() -> tuple[int, str]:
    """Run `hookmirror health` as a container does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console", "health"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_worker_that_hangs_is_not_healthy_and_is_again_when_it_goes_on(
    over_sqlite: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKMIRROR_METRICS__PORT", "0")
    worker = await over_sqlite.run("worker")
    (port,) = ports([worker])
    monkeypatch.setenv("HOOKMIRROR_CONFIG", str(over_sqlite.config))
    monkeypatch.setenv("HOOKMIRROR_METRICS__PORT", str(port))
    assert await ask_health() == (0, f"alive: 127.0.0.1, port {port} (metrics.port) answers\n")
    worker.send(signal.SIGSTOP)
    code, said = await ask_health()
    assert (code, "timed out" in said) == (1, True)
    worker.send(signal.SIGCONT)
    assert (await ask_health())[0] == 0


async def test_a_second_process_on_the_same_metrics_port_says_so_and_exits_two(
    over_sqlite: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKMIRROR_METRICS__PORT", "0")
    (port,) = ports([await over_sqlite.run("worker")])
    monkeypatch.setenv("HOOKMIRROR_METRICS__PORT", str(port))
    second = over_sqlite.launch("worker")
    assert await second.ends() == 2
    assert f"metrics.port = {port}: another program has this port of 127.0.0.1" in second.words()
