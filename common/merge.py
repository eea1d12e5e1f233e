"""What several worker processes tell, as if it were one process that told it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

Combine = Callable[[Iterable[float]], float]

GAUGES: dict[str, Combine] = {
    # of each process its own
    "hookmirror_deliveries_in_hand": sum,
    "hookmirror_spool_records": sum,
    "hookmirror_spool_in_use": max,
    "hookmirror_last_hook_timestamp_seconds": max,
    "hookmirror_oldest_waiting_seconds": max,
    "hookmirror_route_paused": max,
    "hookmirror_brake_on": max,
    # all say the same of one queue, or of one program
    "hookmirror_queue_up": max,
    "hookmirror_queue_depth": max,
    "hookmirror_queue_oldest_ready_seconds": max,
    "hookmirror_queue_silent": max,
    "hookmirror_queue_losing": max,
    "hookmirror_dead_letters": max,
    "hookmirror_info": max,
    # of the library
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_open_fds": sum,
    "process_max_fds": max,
    "process_start_time_seconds": min,
}
"""What a gauge of several processes is. Counters and histograms are summed, and outlive their process."""

LASTING = frozenset({"counter", "histogram"})

Sample = tuple[str, dict[str, str], float]
"""Its name, labels and value."""

State = dict[str, Any]
"""Of one route, as `worker/report.py` tells it."""


class Family(NamedTuple):
    """The samples of one metric. As JSON it is a list."""

    type: str
    text: str
    samples: list[Sample]


Families = dict[str, Family]


def families(registry: CollectorRegistry) -> Families:
    """Return everything in `registry`."""
    return {
        family.name: Family(
            family.type,
            family.documentation,
            [(sample.name, dict(sample.labels), sample.value) for sample in family.samples],
        )
        for family in registry.collect()
    }


def lasting(told: Families) -> Families:
    """Return what remains of `told` when its process is gone."""
    return {name: family for name, family in told.items() if family.type in LASTING}


def merge(told: Iterable[Families]) -> Families:
    """Return the metrics of several processes as those of one."""
    found: dict[str, list[Family]] = {}
    for one in told:
        for name, family in one.items():
            found.setdefault(name, []).append(family)
    return {name: Family(some[0].type, some[0].text, _merged(some)) for name, some in found.items()}


def _combine(kind: str, sample: str) -> Combine:
    return sum if kind in LASTING else GAUGES.get(sample, max)


def _merged(some: list[Family]) -> list[Sample]:
    values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for family in some:
        for name, labels, value in family.samples:
            values.setdefault((name, tuple(sorted(labels.items()))), []).append(value)
    kind = some[0].type
    return [(name, dict(labels), _combine(kind, name)(each)) for (name, labels), each in values.items()]


class _Collected:
    """Families, for the library to write."""

    def __init__(self, told: Families) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        for name, family in self._told.items():
            metric = Metric(name, family.text, family.type)
            for sample, labels, value in family.samples:
                metric.add_sample(sample, labels, value)
            yield metric


def render(told: Families, accept: str) -> tuple[bytes, str]:
    """Return every metric and the content type: OpenMetrics for who accepts it, else Prometheus' own."""
    encode, content_type = choose_encoder(accept)
    return encode(_Collected(told)), content_type


def together(told: Iterable[dict[str, State]]) -> dict[str, State]:
    """Return what several workers say of each route."""
    states: dict[str, list[State]] = {}
    for one in told:
        for route, state in one.items():
            states.setdefault(route, []).append(state)
    return {route: _together(said) for route, said in states.items()}


def _together(states: list[State]) -> State:
    def known(name: str) -> list[Any]:
        return [state[name] for state in states if state.get(name) is not None]

    return {
        "paused": next(iter(known("paused")), None),
        "doubt": all(state["doubt"] for state in states if state["paused"]) and bool(known("paused")),
        "since": min(known("since"), default=None),
        "brake": any(known("brake")),
        "in_progress": sum(known("in_progress")),
        "at_once": sum(known("at_once")),
        "oldest": max(known("oldest"), default=None),
        "per_minute": sum(known("per_minute")),
        "lag": max(known("lag"), default=None),
        "last": max(known("last"), default=None),
    }
