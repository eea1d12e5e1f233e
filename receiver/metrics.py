"""What a receiver counts; nothing of it can make a hook fail."""

import time
from typing import Any

from common.errors import (
    BadRequest,
    BadSignature,
    HookmirrorError,
    NoSuchPath,
    NotAHook,
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
    NotAHook: "not_a_hook",
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
    *REFUSALS.values(),
    *BEFORE,
    "incomplete",
    "deferred",
    "failed",
)
FATES = ("queued", "ignored", "buried")


def refusal(error: Exception) -> str:
    """Return the outcome of a hook that was not answered with 200."""
    if isinstance(error, BadRequest):
        return REFUSALS.get(type(error), "not_a_hook")
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
    def answered(self, answer: dict[str, Any]) -> None:
        """A hook was answered with 200 and `answer`: how many records were queued and how many buried; of a
        stack notification, which buries nothing, how many tasks were queued; else of a subscription.
        """
        if "buried" in answer:
            self._hooks["accepted"].inc()
            self._last.set(time.time())
        else:
            self._hooks["notified" if "queued" in answer else "confirmed"].inc()

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
    def records(self, *, queued: int, ignored: int, buried: int) -> None:
        """The records of one hook, taken."""
        for fate, count in (("queued", queued), ("ignored", ignored), ("buried", buried)):
            if count:
                self._records[fate].inc(count)

    @harmless
    def task_queued(self, route: str) -> None:
        """One task is durable."""
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
