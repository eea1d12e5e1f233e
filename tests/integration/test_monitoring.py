"""Alarms and dashboard: Prometheus' own tools find no fault, and what is asked for is what is counted."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.admin import admin
from common.errors import NotOurs, QueueAway, StoreAway
from common.metrics import Metrics
from common.queue.memory import MemoryQueue
from common.queue.port import Bury, Counts, Delivery, Done
from common.queue.sqlite import SqliteQueue
from common.routes import BrakeSettings
from common.tables import MetricsSettings
from common.task import Claim, Task
from common.telemetry import Action
from receiver.metrics import HookMetrics, SpoolMetrics
from receiver.spool import SpoolingPublisher
from tests.lab.lanes import LIVE
from tests.lab.prometheus import Prometheus, prometheus, promtool
from tests.lab.until import until
from worker.attempt import Attempt, Attempted
from worker.blame import Blame
from worker.brake import Brake
from worker.metrics import Watch
from worker.mirror import Mirror
from worker.pool import Pool
from worker.transfer import Budget
from worker.verdict import Outcome

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "hookmirror.json"
VARIABLES = {"$__rate_interval": "1m", "$route": ".*"}
TASK = Task(route="photos", key="k", claim=Claim.CREATED, event="s3:ObjectCreated:Put", received=1000.0)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def shown() -> list[tuple[str, str]]:
    """Each panel's title with each of its queries, as Grafana would send it."""
    found = []
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            expr = target["expr"]
            for name, value in VARIABLES.items():
                expr = expr.replace(name, value)
            found.append((f"{panel['title']}: {target['legendFormat']}", expr))
    return found


def selectors() -> set[str]:
    """Each series that an alarm asks for, with its labels."""
    asked = "\n".join(line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))
    return set(re.findall(r"\bhookmirror_[a-z_]+(?:\{[^}]*\})?", asked))


def test_promtool_finds_no_fault_with_the_alarms() -> None:
    promtool("check", "rules", RULES)


@pytest.mark.parametrize("name", ["alerts_test.yml", "alerts_weeks_test.yml"])
def test_each_alarm_fires_when_it_should_and_only_then(name: str) -> None:
    promtool("test", "rules", RULES.with_name(name))


def test_each_alarm_waits_a_while_says_how_urgent_it_is_and_where_to_read_on() -> None:
    alarms = RULES.read_text().split("- alert: ")[1:]
    assert alarms
    for alarm in alarms:
        name = alarm.splitlines()[0]
        assert re.search(r"^ +for: \d+[sm]$", alarm, re.MULTILINE), name
        assert re.search(r"^ +labels: \{severity: (page|ticket)\}$", alarm, re.MULTILINE), name
        assert f"runbook: docs/operations.md#alarm-{name.lower()}\n" in alarm, name


def test_each_alarm_has_a_test() -> None:
    tested = "".join(path.read_text() for path in RULES.parent.glob("alerts_*test.yml"))
    for name in re.findall(r"- alert: (\w+)", RULES.read_text()):
        assert f'alertname="{name}"' in tested


def test_promtool_finds_no_fault_with_the_configuration_of_prometheus() -> None:
    # The rules it names are at their place in the container.
    promtool("check", "config", "--syntax-only", RULES.with_name("prometheus.yml"))


def test_the_dashboard_is_what_its_script_prints() -> None:
    script = DEPLOY / "grafana" / "dashboard.py"
    printed = subprocess.run([sys.executable, "-B", script], capture_output=True, text=True, check=True)
    assert DASHBOARD.read_text() == printed.stdout


def test_the_panels_of_the_dashboard_do_not_overlap_and_fill_their_rows() -> None:
    cells = [
        (x, y)
        for panel in dashboard()["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) == 24 * (1 + max(y for _, y in cells))
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


class Everything:
    """All that the processes count, told by the product's own code: `happens` lets each thing happen once."""

    def __init__(self, metrics: Metrics, queue: MemoryQueue, spool: SqliteQueue) -> None:
        self._hooks = HookMetrics(metrics)
        self._watch = Watch(metrics)
        self._spool = SpoolMetrics(metrics, SpoolingPublisher(queue, spool), spool)
        brake = Brake({"photos": BrakeSettings()})
        mirror = Mirror(queue, look_after=2, budget=Budget(2**26), brake=brake)
        blame = Blame(mirror)
        pool = Pool(queue, Attempt(queue, blame, {}, attempts=1), [LIVE], 2, lambda _: 1)
        self._watch.follow(metrics.routes, pool, blame, brake)

    async def happens(self) -> None:
        self._hooks.answered("accepted")
        self._hooks.refused(NotOurs("not ours"))
        self._hooks.refused(QueueAway("away"))
        self._hooks.taken({"queued": 1}, ["photos"])
        self._hooks.published(0.02)
        await self._spool.sample()
        copied = Outcome(Action.COPIED, size=3)
        for result, verdict in ((copied, Done("copied")), (StoreAway("away"), Bury("away"))):
            self._watch(Attempted(Delivery(b"", 1, None, LIVE), TASK, result, verdict, 0.2, 1.5))


class HalfDead(MemoryQueue):
    """One of its queues takes nothing."""

    async def counts(self) -> Counts:
        return replace(await super().counts(), silent=("hookmirror.live",))


@asynccontextmanager
async def scraped(folder: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus that has scraped everything there is to count, and each of it going up."""
    metrics, queue = Metrics(["photos"]), HalfDead()
    spool = await SqliteQueue.open(folder / "spool.db")
    everything = Everything(metrics, queue, spool)
    async with admin(MetricsSettings(port=0), metrics, queue):
        assert metrics.port is not None
        async with prometheus(folder, metrics.port) as running:

            async def goes_up() -> bool:
                await everything.happens()
                return await running.ask("rate(hookmirror_lag_seconds_count[1m]) > 0") != []

            await until(goes_up, "Prometheus has scraped twice")
            yield running
    await spool.close()


async def test_every_query_of_the_dashboard_and_every_series_of_an_alarm_finds_something(
    tmp_path: Path,
) -> None:
    async with scraped(tmp_path) as running:
        asked = [*shown(), *(("an alarm", selector) for selector in sorted(selectors()))]
        found = await asyncio.gather(*(running.ask(expr) for _, expr in asked))
    nothing = [what for what, series in zip(asked, found, strict=True) if not series]
    assert not nothing
