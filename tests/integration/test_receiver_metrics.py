"""What a receiver counts, over real HTTP: each hook once, each durable task, what the spool holds."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.errors import QueueAway
from common.metrics import Metrics
from common.queue.memory import MemoryQueue
from common.queue.port import Lane
from receiver import intake
from tests.integration.test_receiver import AwayQueue, Receiver, of, record, serving, taken
from tests.lab.samples import sample
from tests.lab.until import until


def counted(metrics: Metrics, name: str, label: str = "outcome") -> dict[str, float]:
    """The samples of `name` that are not 0, by their label."""
    families = text_string_to_metric_families(metrics.render("")[0].decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels.get(label, ""): sample.value for sample in samples if sample.value}


class Half(MemoryQueue):
    """A queue that takes the first message and then goes away."""

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        if self._messages:
            raise QueueAway("away")
        await super().publish(body, lane=lane, delay=delay)


class Defect(Exception):
    """Something that nobody has thought of."""


async def test_each_hook_is_counted_once_by_its_answer_and_each_record_by_its_fate() -> None:
    async with serving(MemoryQueue()) as server:
        await server.post(of(record("a"), record("b"), record("c", name="s3:TestEvent"), "no record"))
        await server.post(of(record("d", bucket="photos")))
        await server.post(sample("mcs/subscription_confirmation"))
        await server.post(b"no JSON")
        await server.post(of(record(bucket="a stranger's")))
        await server.post(b"x" * (intake.MAX_BODY + 1))
        await server.request("GET", "/healthz")
        metrics = server.metrics
        assert counted(metrics, "hookmirror_hooks_total") == {
            "accepted": 2, "confirmed": 1, "not_a_hook": 1, "unrouted": 1, "too_large": 1,
        }  # fmt: skip
        assert counted(metrics, "hookmirror_records_total") == {
            "queued": 3, "ignored": 1, "buried": 2, "unrouted": 1,
        }  # fmt: skip
        assert counted(metrics, "hookmirror_tasks_received_total", "route") == {"plain": 2, "auto": 1}
        assert counted(metrics, "hookmirror_publish_seconds_count") == {"": 4}
        [last] = counted(metrics, "hookmirror_last_hook_timestamp_seconds").values()
        assert last > 1_700_000_000


async def test_of_a_deferred_hook_nothing_is_counted_for_it_will_come_again() -> None:
    async with serving(Half()) as server:
        assert (await server.post(of(*(record(f"{number}") for number in range(5))))).status == 503
        assert len(await server.tasks()) == 1
        assert counted(server.metrics, "hookmirror_tasks_received_total", "route") == {}
        assert counted(server.metrics, "hookmirror_hooks_total") == {"deferred": 1}
        assert counted(server.metrics, "hookmirror_records_total") == {}
        assert counted(server.metrics, "hookmirror_publish_seconds_count") == {"": 1}


async def test_a_hook_that_meets_a_defect_is_counted_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def meet(_: object) -> Any:
        raise Defect("unforeseen")

    async with serving(MemoryQueue()) as server:
        monkeypatch.setattr("receiver.dialects.s3.records", meet)
        assert (await server.post(of(record()))).status == 500
        assert counted(server.metrics, "hookmirror_hooks_total") == {"failed": 1}


async def test_a_hook_is_taken_though_no_metric_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Defect("unforeseen")

    monkeypatch.setattr("prometheus_client.Counter.inc", fail)
    monkeypatch.setattr("prometheus_client.Histogram.observe", fail)
    monkeypatch.setattr("prometheus_client.Gauge.set", fail)
    async with serving(MemoryQueue()) as server:
        answer = await server.post(of(record()))
        assert (answer.status, answer.body) == (200, taken(queued=1))
        assert len(await server.tasks()) == 1
        assert (await server.post(b"no JSON")).status == 200


async def test_what_the_spool_holds_is_told_and_that_it_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.admin.SAMPLE_EVERY", 0.05)

    def told(server: Receiver) -> tuple[dict[str, float], dict[str, float]]:
        names = ("hookmirror_spool_records", "hookmirror_spool_in_use")
        return counted(server.metrics, names[0]), counted(server.metrics, names[1])

    async with serving(AwayQueue(), spool=tmp_path / "spool.db") as server:
        assert told(server) == ({}, {})
        assert (await server.post(of(record("a"), record("b")))).status == 200
        await until(lambda: told(server) == ({"": 2}, {"": 1}), "the spool's two records are told")
        assert counted(server.metrics, "hookmirror_tasks_received_total", "route") == {"plain": 2}
