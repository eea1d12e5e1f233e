"""Several processes told of as one."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.merge import GAUGES, Families, Family, families, lasting, merge, render, together
from common.metrics import Metrics, ReceiverFamilies, SpoolFamilies, WorkerFamilies

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def told(metrics: Metrics) -> Families:
    """What `metrics` tell, after their way over the line."""
    sent: dict[str, Any] = json.loads(json.dumps(families(metrics.registry)))
    return {name: Family(*family) for name, family in sent.items()}


def worker(ended: int, in_hand: int = 0, paused: int = 0, lags: tuple[float, ...] = ()) -> Families:
    """What a worker tells."""
    metrics = Metrics(["r"])
    its = WorkerFamilies(metrics.registry)
    its.ended.labels("r", "copied", "").inc(ended)
    its.in_hand.set(in_hand)
    its.paused.labels("r").set(paused)
    for lag in lags:
        its.lag.labels("r").observe(lag)
    return told(metrics)


def values(merged: Families) -> dict[str, float]:
    """Every sample, by its name and labels."""
    return {
        " ".join([sample.name, *filter(None, sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(render(merged, "")[0].decode())
        for sample in family.samples
    }


def gauges() -> set[str]:
    """The gauges that docs/metrics.md explains."""
    return set(
        re.findall(r"^\| `(hookmirror_\w+)(?:\{[^}]*\})?` \| gauge \|", DOCS.read_text(), re.MULTILINE)
    )


def test_of_every_gauge_it_is_said_what_it_is_of_several_processes() -> None:
    assert {name for name in GAUGES if name.startswith("hookmirror_")} == gauges()
    library = {
        sample.name
        for family in Metrics().registry.collect()
        if family.type == "gauge" and not family.name.startswith("hookmirror")
        for sample in family.samples
    }
    assert {name for name in GAUGES if not name.startswith("hookmirror_")} == library


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_one_process_is_told_as_it_tells_itself(accept: str) -> None:
    metrics = Metrics(["r"])
    ReceiverFamilies(metrics.registry).publish.observe(0.3)
    SpoolFamilies(metrics.registry).records.set(math.nan)
    its = WorkerFamilies(metrics.registry)
    its.ended.labels('a "route"', "copied", "").inc()
    its.copy.labels("to_1MiB").observe(1)

    def ours(text: bytes) -> list[str]:
        return sorted(line for line in text.decode().splitlines() if "process_" not in line)

    (itself, itself_type), (merged, merged_type) = (
        metrics.render(accept),
        render(merge([told(metrics)]), accept),
    )
    assert ours(merged) == ours(itself)
    assert merged_type == itself_type


def test_counters_and_histograms_are_summed_and_a_gauge_is_as_the_table_says() -> None:
    merged = values(merge([worker(3, in_hand=2, paused=1, lags=(0.2, 7)), worker(4, in_hand=5, lags=(0.2,))]))
    assert merged["hookmirror_tasks_ended_total copied r"] == 7
    assert merged["hookmirror_lag_seconds_count r"] == 3
    assert merged["hookmirror_lag_seconds_bucket 0.25 r"] == 2
    assert merged["hookmirror_lag_seconds_sum r"] == pytest.approx(7.4)
    assert merged["hookmirror_deliveries_in_hand"] == 7
    assert merged["hookmirror_route_paused r"] == 1
    assert [value for name, value in merged.items() if name.startswith("hookmirror_info")] == [1]


def test_what_only_one_process_tells_is_told() -> None:
    metrics = Metrics(["r"])
    ReceiverFamilies(metrics.registry).hooks.labels("accepted").inc(2)
    merged = values(merge([told(metrics), worker(1)]))
    assert merged["hookmirror_hooks_total accepted"] == 2
    assert merged["hookmirror_tasks_ended_total copied r"] == 1


def test_of_a_process_that_is_gone_its_counts_remain_and_not_how_it_was() -> None:
    remains = lasting(worker(3, in_hand=2, lags=(1,)))
    merged = values(merge([remains, worker(1)]))
    assert merged["hookmirror_tasks_ended_total copied r"] == 4
    assert merged["hookmirror_lag_seconds_count r"] == 1
    assert merged["hookmirror_deliveries_in_hand"] == 0


def test_the_states_of_a_route_are_told_together_and_of_one_that_only_one_knows_as_they_are() -> None:
    quiet = {
        "paused": None, "doubt": False, "since": None, "brake": False, "in_progress": 1, "at_once": 32,
        "oldest": 0.0, "per_minute": 2.0, "lag": None, "last": None,
    }  # fmt: skip
    busy = quiet | {
        "paused": "refused",
        "doubt": True,
        "since": 5.0,
        "brake": True,
        "oldest": 9.0,
        "lag": 3.0,
        "last": 7.0,
    }
    merged = together([{"r": quiet}, {"r": busy, "s": quiet}])
    assert merged == {
        "r": busy | {"in_progress": 2, "at_once": 64, "per_minute": 4.0},
        "s": quiet,
    }
