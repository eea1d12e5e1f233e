"""One delivery in a straight line: act, verdict, settle, observe."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from common.errors import CameBack, KeyBusy, LostDelivery, Refused, RouteDown
from common.queue.port import KILLER, MAX_RETURNS, Bury, Consumer, Delivery, Done, Lane, Move, Retry, Verdict
from common.task import Task
from common.telemetry import Action, log
from worker.job import Job, Learned, Route
from worker.verdict import Blamed, Continue, Outcome, judge, leave_to_promise


@dataclass(frozen=True, slots=True)
class Attempted:
    """What can be said about an attempt when it is over. `verdict` is None when the delivery was lost."""

    delivery: Delivery
    task: Task | None
    result: Outcome | Continue | Move | Exception
    verdict: Verdict | None
    seconds: float
    lag: float | None
    """Seconds from the hook's arrival to now; None for a look."""


class Observer(Protocol):
    """Looks at what happened and cannot change it: one that raises is logged and ignored."""

    def __call__(self, attempted: Attempted) -> None:
        """Take note."""


Act = Callable[[Job], Awaitable[Outcome | Continue]]

BUSY_WAIT = 30.0
"""Seconds; the longest wait of a delivery whose key is in other hands."""

LONGEST_KEY = 1024
"""Bytes of UTF-8: what S3 takes. What stores answer to a longer one may look like a failure of theirs."""


def carried(task: Task, learned: Learned, result: object) -> Task:
    """Return `task` with what an attempt that ended in `result` learned: whoever makes the next one has to
    know it."""
    told: dict[str, Any] = {"doubt": learned.doubt}
    if learned.wrote:
        told["claim"] = None
    if learned.anew:
        told["upload"] = None
    if isinstance(result, Blamed) and result.trouble is not None:
        told["trouble"] = result.trouble
    return task.model_copy(update=told)


class Attempt:
    """What the pool does with each delivery."""

    def __init__(
        self,
        consumer: Consumer,
        act: Act,
        routes: Mapping[str, Route],
        *,
        attempts: int,
        observers: Sequence[Observer] = (),
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._act = act
        self._routes = routes
        self._attempts = attempts
        self._observers = observers
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._clock = clock
        self._busy: dict[tuple[str, str], float] = {}  # since when

    async def __call__(self, delivery: Delivery) -> None:
        """Try the task once and settle the delivery. Raises only CancelledError: then it stays unsettled."""
        start = time.monotonic()
        task: Task | None = None
        learned = Learned(doubt=delivery.returned > 0)
        result: Outcome | Continue | Move | Exception
        try:
            task = Task.decode(delivery.body)
            learned.doubt |= task.doubt
            own = Lane(task.route, delivery.lane.kind)
            result = Move(own) if own != delivery.lane else await self._do(self._job(task, delivery, learned))
        except LostDelivery as error:
            self._observe(delivery, task, error, None, start)
            return
        except Exception as error:  # noqa: BLE001 - every error has a verdict; the unknown is a Retry
            result = error
        verdict = judge(result, delivery.attempt, attempts=self._attempts, rng=self._rng)
        if task:
            verdict = self._with_rest(verdict, task, learned, result)
        ended = result.error if isinstance(result, Blamed) else result
        try:
            await self._settle(delivery, verdict)
        except Exception as error:  # noqa: BLE001 - whatever it was, the delivery counts as unsettled
            self._observe(delivery, task, error, None, start)
        else:
            self._observe(delivery, task, ended, verdict, start)

    def _with_rest(
        self, verdict: Verdict, task: Task, learned: Learned, result: Outcome | Continue | Move | Exception
    ) -> Verdict:
        """Return `verdict` with the task as the next attempt has to find it."""
        if learned.promises and not task.claim and isinstance(result, Exception):
            route = self._routes[task.route]
            if route.eventual:  # elsewhere a promise is another route's look
                verdict = leave_to_promise(verdict, task.tries)
        if isinstance(verdict, Done | Move):
            return verdict
        rest = carried(result.task if isinstance(result, Continue) else task, learned, result)
        if isinstance(verdict, Bury):
            rest = rest.model_copy(update={"trouble": None})  # sent back, it begins anew
        return replace(verdict, body=rest.encode()) if rest != task or verdict.body else verdict

    def _job(self, task: Task, delivery: Delivery, learned: Learned) -> Job:
        """Return what is to be done, or raise what forbids it."""
        if delivery.returned >= MAX_RETURNS:
            raise CameBack(KILLER)
        route = self._routes[task.route]
        held = partial(self._consumer.holds, delivery)
        last, spent = delivery.attempt >= self._attempts, task.tries >= self._attempts
        job = Job(task, route, delivery.attempt, delivery.lane, held, learned, last, spent)
        if task.stack is None and (size := len(job.target_key.encode())) > LONGEST_KEY:
            raise Refused(f"KeyTooLong: the key has {size} bytes, and S3 takes {LONGEST_KEY}")
        return job

    async def _do(self, job: Job) -> Outcome | Continue:
        # One at a time by key: after a lost connection a detached attempt may still run while its message
        # comes back to this very process.
        key = (job.route.id, job.task.key)
        now = self._clock()
        if (since := self._busy.get(key)) is not None:
            # As long again as it is busy already: a hundred hooks for an object that takes minutes would
            # otherwise come and go every second.
            wait = min(now - since, BUSY_WAIT)
            raise KeyBusy("another delivery of this key is under way", retry_after=wait)
        self._busy[key] = now
        try:
            return await self._act(job)
        finally:
            del self._busy[key]

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Settle, to the end even when the pool runs out of patience meanwhile."""
        settling = asyncio.ensure_future(self._consumer.settle(delivery, verdict))
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            await asyncio.wait([settling], timeout=2)
            settling.cancel()
            raise

    def _observe(
        self,
        delivery: Delivery,
        task: Task | None,
        result: Outcome | Continue | Move | Exception,
        verdict: Verdict | None,
        start: float,
    ) -> None:
        if isinstance(verdict, Move):
            return  # nobody has tried it yet
        lag = time.time() - task.received if task and task.from_hook else None
        attempted = Attempted(delivery, task, result, verdict, time.monotonic() - start, lag)
        for observer in self._observers:
            try:
                observer(attempted)
            except Exception:  # observation cannot touch fate
                logging.getLogger("hookmirror").exception("an observer failed")


def log_attempt(attempted: Attempted) -> None:
    """The observer that writes the log line."""
    verdict, result, task = attempted.verdict, attempted.result, attempted.task
    fields: dict[str, Any] = {"attempt": attempted.delivery.attempt, "lane": attempted.delivery.lane.kind}
    if task is not None:
        fields |= {"task": task.id, "route": task.route, "key": task.key, "event": task.event}
    fields["seconds"] = round(attempted.seconds, 4)
    if attempted.lag is not None:
        fields["lag"] = round(attempted.lag, 3)
    if isinstance(verdict, Done) and isinstance(result, Outcome):
        log(result.action, result.why or result.action.value, size=result.size, **fields)
    elif isinstance(verdict, Done):
        log(Action.RETRIED, verdict.outcome, level=logging.WARNING, counts=False, **fields)
    elif isinstance(verdict, Retry) and isinstance(result, Continue):
        log(Action.CONTINUED, verdict.why, after=verdict.after, counts=verdict.counts, **fields)
    elif isinstance(verdict, Retry):
        level = _loudness(result, verdict)
        log(Action.RETRIED, verdict.why, level=level, after=verdict.after, counts=verdict.counts, **fields)
    elif isinstance(verdict, Bury):
        log(Action.BURIED, f"dead letter: {verdict.why}", level=logging.ERROR, **fields)
    else:
        log(Action.LOST, f"left unsettled, comes back: {result}", level=logging.WARNING, **fields)


def _loudness(result: object, verdict: Retry) -> int:
    """Waiting is no warning. And what is turned away because its route is paused, or in doubt, is not even
    written: that was said loudly and once."""
    if verdict.counts:
        return logging.WARNING
    return logging.DEBUG if isinstance(result, RouteDown) and not result.counts else logging.INFO
