"""What a receiver counts; nothing of it can make a hook fail."""

import time
from collections.abc import Iterable, Mapping

from common.errors import (
    BadRequest,
    BadSignature,
    HookmirrorError,
    NoSuchPath,
    NotAllowed,
    NotOurs,
    QueueAway,
    Slow,
    TooLarge,
    TooMany,
)
from common.metrics import Metrics, ReceiverFamilies, SpoolFamilies, harmless
from common.queue.port import Queue
from receiver.spool import SpoolingPublisher, waiting

REFUSALS: dict[type[BadRequest], str] = {
    NotOurs: "not_ours",
    BadSignature: "bad_signature",
    TooLarge: "too_large",
    NoSuchPath: "not_found",
    NotAllowed: "not_allowed",
    TooMany: "too_many",
    Slow: "slow",
}
BEFORE = ("not_http", "crowded")
"""Refused before there was a request. What is slow or too large may be so before and after."""
OUTCOMES = (
    "accepted",
    "confirmed",
    "notified",
    "unrouted",
    "not_a_hook",
    *REFUSALS.values(),
    *BEFORE,
    "incomplete",
    "deferred",
    "failed",
)
FATES = ("queued", "ignored", "unrouted", "buried", "dropped")


def refusal(error: Exception) -> str:
    """Return the outcome of a hook that was not answered with 200."""
    if isinstance(error, BadRequest):
        return REFUSALS[type(error)]
    return "deferred" if isinstance(error, HookmirrorError) else "incomplete"


class HookMetrics:
    """Takes note of hooks. What has a label is looked up once: this is on every hook's way."""

    def __init__(self, metrics: Metrics) -> None:
        families = ReceiverFamilies(metrics.registry)
        self._hooks = {outcome: families.hooks.labels(outcome) for outcome in OUTCOMES}
        self._records = {fate: families.records.labels(fate) for fate in FATES}
        self._tasks = {route: families.tasks.labels(route) for route in metrics.routes}
        self._publish = families.publish
        self._last = families.last_hook

    @harmless
    def answered(self, outcome: str) -> None:
        """A request was answered with 200."""
        self._hooks[outcome].inc()
        if outcome == "accepted":
            self._last.set(time.time())

    @harmless
    def refused(self, error: Exception) -> None:
        """A hook was not taken."""
        self._hooks[refusal(error)].inc()

    @harmless
    def turned_away(self, reason: str) -> None:
        """A connection was refused before it became a request; `reason` is one of `common.guard`."""
        self._hooks[reason].inc()

    @harmless
    def failed(self) -> None:
        """A hook was answered with 500: a defect of ours."""
        self._hooks["failed"].inc()

    @harmless
    def taken(self, records: Mapping[str, int], routes: Iterable[str]) -> None:
        """So many records of one request, by their fate, and a task of each of `routes` are durable."""
        for fate, count in records.items():
            if count:
                self._records[fate].inc(count)
        for route in routes:
            self._tasks[route].inc()

    @harmless
    def published(self, seconds: float) -> None:
        """So long a hook's records took to be durable, or to be given up."""
        self._publish.observe(seconds)


class SpoolMetrics:
    """Tells of the spool, if there is one."""

    def __init__(self, metrics: Metrics, publisher: SpoolingPublisher, spool: Queue) -> None:
        families = SpoolFamilies(metrics.registry)
        families.in_use.set_function(lambda: float(publisher.away))
        self._records = families.records
        self._spool = spool

    async def sample(self) -> None:
        """Ask how many records there are. Raises `QueueAway` when the spool cannot be read."""
        try:
            self._records.set(await waiting(self._spool))
        except QueueAway:
            self._records.set(float("nan"))  # the old number would lie
            raise
