"""What is counted, under which name: the closed set that docs/metrics.md explains."""

import functools
import logging
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.metadata import version
from typing import Any, ParamSpec

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from common import telemetry
from common.queue.port import Counts, Kind, Lane

# They would be a series more for each counter, which says what process_start_time_seconds says.
disable_created_metrics()  # type: ignore[no-untyped-call]

ELSEWHERE = "unknown"
"""The label of a route that is not configured here: what a task says must not make new series for ever."""

PUBLISH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3)
COPY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800, 3600, 6 * 3600, 24 * 3600)

P = ParamSpec("P")


def harmless(note: Callable[P, None]) -> Callable[P, None]:
    """Decorate what takes note of something: when it raises, that is logged and nothing else happens."""

    @functools.wraps(note)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            note(*args, **kwargs)
        except Exception:  # observation cannot touch fate
            logging.getLogger("hookmirror").exception("a metric failed")

    return guarded


class QueueDepths:
    """The queue as it was last asked. No depth at all while it does not answer: an old one would lie. The
    lanes of what is none of `routes` are told together."""

    def __init__(self, routes: Collection[str] = ()) -> None:
        self._routes = routes
        self.asked = False
        self.counts: Counts | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the depths for a scrape."""
        if not self.asked:
            return
        up = "Whether the queue answered when it was last asked for its depth."
        yield GaugeMetricFamily("hookmirror_queue_up", up, value=float(self.counts is not None))
        if self.counts is None:
            return
        depth = GaugeMetricFamily(
            "hookmirror_queue_depth",
            "Tasks in the queue, re-checks among them; held are in progress.",
            labels=("route", "lane", "state"),
        )
        for labels, value in self._depths(self.counts).items():
            depth.add_metric(labels, value)
        yield depth
        oldest = GaugeMetricFamily(
            "hookmirror_queue_oldest_ready_seconds",
            "For how long the first task of a lane has been ready; nothing where the queue cannot tell.",
            labels=("route", "lane"),
        )
        for lane, age in self._oldest(self.counts).items():
            oldest.add_metric(lane, age)
        yield oldest
        silent = GaugeMetricFamily(
            "hookmirror_queue_silent", "Broker's queues that take nothing: see the log.", labels=("queue",)
        )
        for name in self.counts.silent:
            silent.add_metric((name,), 1)
        yield silent
        losing = "Policies of the broker that delete what the queue holds: see the log."
        yield GaugeMetricFamily("hookmirror_queue_losing", losing, value=len(self.counts.losing))
        dead = "Tasks and records that only a person can do something about."
        yield GaugeMetricFamily("hookmirror_dead_letters", dead, value=self.counts.dead)

    def _depths(self, counts: Counts) -> dict[tuple[str, str, str], int]:
        """Return the depths by route, kind of lane and state; without a route what is not told by route."""
        depths: Tally[tuple[str, str, str]] = Tally()
        depths.update({(route, kind, "ready"): 0 for route in self._routes for kind in Kind})
        for lane, depth in counts.lanes.items():
            for state in ("ready", "waiting", "held"):
                if (number := getattr(depth, state)) is not None:
                    depths[self._known(lane), lane.kind, state] += number
        told = Tally(state for _, _, state in depths)
        for state, total in (("waiting", counts.waiting), ("held", counts.held)):
            if not told[state] and total is not None:
                depths["", "", state] = total
        return dict(depths)

    def _oldest(self, counts: Counts) -> dict[tuple[str, str], float]:
        ages = dict[tuple[str, str], float]()
        for lane, depth in counts.lanes.items():
            if depth.oldest is not None:
                labels = self._known(lane), lane.kind
                ages[labels] = max(ages.get(labels, 0.0), depth.oldest)
        return ages

    def _known(self, lane: Lane) -> str:
        return lane.route if lane.route in self._routes else ELSEWHERE


class DroppedLines:
    """The log lines that nobody came to read."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield their number for a scrape."""
        text = "Log lines that were dropped, because whoever reads the log stood still."
        yield CounterMetricFamily("hookmirror_log_lines_dropped", text, value=float(telemetry.dropped()))


class Metrics:
    """All metrics of one process. `port` is where they are served, None when they are not; `state` tells, in
    a worker, how each route is."""

    def __init__(self, routes: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.routes = tuple(routes)
        self.port: int | None = None
        self.state: Callable[[], dict[str, dict[str, Any]]] | None = None
        self.queue = QueueDepths(self.routes)
        self.registry.register(self.queue)
        self.registry.register(DroppedLines())
        ProcessCollector(registry=self.registry)
        build = Info("hookmirror", "The version that runs.", registry=self.registry)
        build.info({"version": version("hookmirror")})

    def known(self, route: str) -> str:
        """Return `route` if it is configured here, else `ELSEWHERE`."""
        return route if route in self.routes else ELSEWHERE

    def started(self) -> dict[str, int]:
        """Return what the log line of a program's start says of the metrics."""
        return {} if self.port is None else {"metrics_port": self.port}

    async def alive(self) -> bool:
        """Return that there is somebody to say so: this process."""
        return True

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return every metric and the content type: OpenMetrics for who accepts it, else Prometheus' own."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class ReceiverFamilies:
    """What a receiver counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hookmirror_{name}", text, labels, registry=registry)

        self.hooks = counter("hooks", "Hooks, by what was answered.", "outcome")
        self.records = counter("records", "Records of accepted hooks, by what became of them.", "outcome")
        self.tasks = counter("tasks_received", "Tasks made durable from hooks.", "route")
        self.publish = Histogram(
            "hookmirror_publish_seconds",
            "Seconds until every record of a hook was durable, or given up.",
            buckets=PUBLISH_BUCKETS,
            registry=registry,
        )
        self.last_hook = Gauge(
            "hookmirror_last_hook_timestamp_seconds",
            "When the last hook was accepted (seconds since the epoch), 0 for none.",
            registry=registry,
        )


class SpoolFamilies:
    """What a receiver with a spool tells of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Gauge("hookmirror_spool_records", "Records in the spool.", registry=registry)
        self.in_use = Gauge(
            "hookmirror_spool_in_use",
            "Whether hooks go to the spool, because the queue is away.",
            registry=registry,
        )


class WorkerFamilies:
    """What a worker counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hookmirror_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"hookmirror_{name}", text, labels, registry=registry)

        self.attempts = counter(
            "attempts", "Attempts, by how they ended; buried are dead letters.", "route", "outcome", "error"
        )
        self.ended = counter(
            "tasks_ended", "Tasks from hooks that ended, and how.", "route", "outcome", "reason"
        )
        self.looks_promised = counter("looks_promised", "Re-checks put into the queue.", "route")
        self.looks_ended = counter(
            "looks_ended", "Re-checks that ended, and how.", "route", "outcome", "reason"
        )
        self.bytes = counter("copied_bytes", "Bytes of the objects copied.", "route")
        self.copy = Histogram(
            "hookmirror_copy_seconds",
            "Seconds of work on an object that was copied, by its size.",
            ("size_class",),
            buckets=COPY_BUCKETS,
            registry=registry,
        )
        self.lag = Histogram(
            "hookmirror_lag_seconds",
            "Seconds from a hook's arrival to the object copied or deleted on the target.",
            ("route",),
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self.oldest = gauge(
            "oldest_waiting_seconds", "Age of the oldest event that this worker knows to be waiting.", "route"
        )
        self.paused = gauge("route_paused", "Whether the route is paused.", "route")
        self.brake = gauge("brake_on", "Whether the route's brake holds deletes.", "route")
        self.in_hand = gauge("deliveries_in_hand", "Deliveries that this worker is at work on.")
