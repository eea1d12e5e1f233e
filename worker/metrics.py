"""What a worker counts: an observer of its attempts, and a watch around each; neither can touch them."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from common.errors import HookmirrorError
from common.metrics import Metrics, WorkerFamilies, harmless
from common.queue.port import Bury, Done, Retry
from common.task import Task
from common.telemetry import Action
from worker.attempt import Act, Attempted
from worker.blame import PROOF, Blame
from worker.brake import Brake
from worker.job import Job
from worker.plan import Why
from worker.pool import Pool
from worker.verdict import Continue, Outcome

KiB, MiB, GiB = 2**10, 2**20, 2**30

SIZE_CLASSES = (
    (64 * KiB, "to_64KiB"),
    (MiB, "to_1MiB"),
    (8 * MiB, "to_8MiB"),
    (128 * MiB, "to_128MiB"),
    (GiB, "to_1GiB"),
)
"""What is larger than the last is "over_1GiB"."""

REMEMBERED = 100_000
"""Events kept in mind for the age of the oldest, and copies in parts for how long they took. When there are
more, the new events are not, for they are the younger ones, nor the copies not seen for longest."""

MARGIN = 60.0
"""Seconds after its time has come for which an event that was sent away for long is taken to wait: after that
another worker has it, or has done it. What was sent away for seconds is taken sooner."""

LEAST_MARGIN = 5.0


def size_class(size: int) -> str:
    """Return the class of an object of `size` bytes."""
    return next((name for most, name in SIZE_CLASSES if size <= most), "over_1GiB")


def outcome(attempted: Attempted) -> str:
    """Return how the attempt ended. "waited" is a retry that does not count."""
    verdict, result = attempted.verdict, attempted.result
    if isinstance(verdict, Retry):
        if isinstance(result, Continue):
            return "continued"
        return "retried" if verdict.counts else "waited"
    if isinstance(verdict, Done):  # a look that failed is left to the next: its retry, whatever it is called
        return result.action if isinstance(result, Outcome) else "retried"
    return "buried" if isinstance(verdict, Bury) else "lost"


def error_class(result: object) -> str:
    """Return the reason of the error that ended the attempt; "" for none, "Unforeseen" for none of ours."""
    if not isinstance(result, Exception):
        return ""
    return result.reason if isinstance(result, HookmirrorError) else "Unforeseen"


def end(attempted: Attempted) -> tuple[str, str] | None:
    """Return how the task ended and the reason; None when it goes on."""
    verdict, result = attempted.verdict, attempted.result
    if isinstance(verdict, Bury):
        return "buried", error_class(result)
    if not isinstance(verdict, Done):
        return None
    if not isinstance(result, Outcome):
        return Action.LOOK_LATER, error_class(result)
    return result.action, result.why.name.lower() if isinstance(result.why, Why) else ""


class Waiting:
    """Events known to be waiting: since when, and until when that may be believed. `clock` is the time in
    epoch seconds."""

    def __init__(self, clock: Callable[[], float] = time.time, limit: int = REMEMBERED) -> None:
        self._clock = clock
        self._limit = limit
        self._events: dict[str, tuple[float, float]] = {}
        self._swept = 0.0

    def hold(self, task: Task) -> None:
        """It is in our hands."""
        self._keep(task, float("inf"))

    def send_away(self, task: Task, seconds: float) -> None:
        """It comes back to somebody after so many seconds."""
        self._keep(task, self._clock() + seconds + min(MARGIN, max(LEAST_MARGIN, seconds)))

    def forget(self, task: Task) -> None:
        """It has ended, or others have it now."""
        self._events.pop(task.id, None)

    def oldest(self) -> float:
        """Return the age of the oldest, in seconds; 0 when there is none."""
        self._sweep()
        now = self._clock()
        return max((now - received for received, _ in self._events.values()), default=0.0)

    def _keep(self, task: Task, until: float) -> None:
        if task.id not in self._events and len(self._events) >= self._limit:
            if self._clock() - self._swept < MARGIN:
                return
            self._sweep()
        if task.id in self._events or len(self._events) < self._limit:
            self._events[task.id] = (task.received, until)

    def _sweep(self) -> None:
        now = self._swept = self._clock()
        for id_ in [id_ for id_, (_, until) in self._events.items() if until < now]:
            del self._events[id_]


class Watch:
    """Counts attempts: `Attempt` tells it of each that is over, and `around` sees each begin."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._known = metrics.known
        self._families = WorkerFamilies(metrics.registry)
        self._waiting = {route: Waiting(clock) for route in metrics.routes}
        self._so_far: dict[str, float] = {}
        """Seconds of work on copies in parts that go on."""
        for route in metrics.routes:  # from 0, not from nowhere: else the first of each is no increase
            self._families.looks_promised.labels(route)
            self._families.bytes.labels(route)
            self._families.lag.labels(route)
            self._families.oldest.labels(route).set_function(self._waiting[route].oldest)
            for action in (Action.COPIED, Action.DELETED, Action.LOOK_LATER):
                self._families.ended.labels(route, action, "")

    def follow(self, routes: Iterable[str], pool: Pool, blame: Blame, brake: Brake) -> None:
        """Tell the state of these whenever somebody asks."""
        self._families.in_hand.set_function(lambda: pool.in_hand)
        for route in routes:
            self._families.paused.labels(route).set_function(partial(_is_paused, blame, route))
            self._families.brake.labels(route).set_function(partial(brake.holds, route))

    def oldest(self, route: str) -> float:
        """Return the age in seconds of the oldest event of `route` that is known to wait here; 0 for none."""
        return self._waiting[route].oldest() if route in self._waiting else 0.0

    def around(self, act: Act) -> Act:
        """Return `act`, watched."""

        async def watched(job: Job) -> Outcome | Continue:
            self._begins(job.task)
            try:
                return await act(job)
            except asyncio.CancelledError:
                self._goes(job.task)  # unsettled, and nobody will say more of it here
                raise
            finally:
                self._promised(job)

        return watched

    @harmless
    def _begins(self, task: Task) -> None:
        if task.from_hook and task.route in self._waiting:
            self._waiting[task.route].hold(task)

    @harmless
    def _goes(self, task: Task) -> None:
        if task.route in self._waiting:
            self._waiting[task.route].forget(task)

    @harmless
    def _promised(self, job: Job) -> None:
        for look in job.learned.promises:
            self._families.looks_promised.labels(self._known(look.route)).inc()

    def __call__(self, attempted: Attempted) -> None:
        """Count an attempt that is over: an `Observer`."""
        task, result = attempted.task, attempted.result
        route = self._known(task.route) if task else self._known("")
        self._families.attempts.labels(route, outcome(attempted), error_class(result)).inc()
        if task is None:
            return
        ended = end(attempted)
        if ended and isinstance(result, Outcome):
            self._count_work(attempted, result, route, task)
        elif isinstance(result, Continue):
            self._so_far[task.id] = self._so_far.pop(task.id, 0.0) + attempted.seconds
            if len(self._so_far) > REMEMBERED:  # another worker has ended it, and nobody says so here
                del self._so_far[next(iter(self._so_far))]
        if ended:
            self._so_far.pop(task.id, None)
            family = self._families.ended if task.from_hook else self._families.looks_ended
            family.labels(route, *ended).inc()
        if task.from_hook and task.route in self._waiting:
            self._keep_in_mind(attempted, task, goes_on=not ended)

    def _count_work(self, attempted: Attempted, result: Outcome, route: str, task: Task) -> None:
        if result.action is Action.COPIED:
            self._families.bytes.labels(route).inc(result.size)
            seconds = self._so_far.get(task.id, 0.0) + attempted.seconds
            self._families.copy.labels(size_class(result.size)).observe(seconds)
        if attempted.lag is not None and result.action in PROOF:
            # The hook's arrival is another machine's time, which may be ahead of ours.
            self._families.lag.labels(route).observe(max(attempted.lag, 0.0))

    def _keep_in_mind(self, attempted: Attempted, task: Task, *, goes_on: bool) -> None:
        if not goes_on:
            self._waiting[task.route].forget(task)
        else:
            after = attempted.verdict.after if isinstance(attempted.verdict, Retry) else 0.0
            self._waiting[task.route].send_away(task, after)


def _is_paused(blame: Blame, route: str) -> float:
    return float(route in blame.paused())
