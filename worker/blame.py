"""Who is to blame for a failure, the object or the route? A failure is the object's while others pass.

- *It counts* when, since the task failed before, another object of the route has passed the operation that
  it failed at: then the operation works, and not for this object. A first failure says nothing yet, unless
  another passed beside it. So every error ends as a dead letter after so many attempts, whatever its code, as
  long as others pass; and while nothing passes, nothing is buried. After a day of that all failures count.
- *An operation is in doubt* when many objects failed at it in a row, or one for half a minute, and none
  passed: an alarm. What is new is tried at once even then, so that no good object waits for bad ones; what
  failed before is tried again in turn, a few at a time. The first that passes ends the doubt.
- *A route is paused* when a bucket fails its check (`worker/pause.py`): then its lanes are not taken from,
  and what was in hand is not tried.

What passes, proves: any attempt that ended proves "read", one that wrote or acted the stage it came to. An
error that waits for something else (`counts` is False), and one that is unmistakably the object's own, pass
through. What a task went through travels with it, so that neither a restart nor another worker forgets.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Self

from common.errors import (
    ActionFailed,
    Corrupt,
    HookmirrorError,
    LostDelivery,
    Never,
    Refused,
    RouteDown,
    StoreAway,
    TryAgain,
)
from common.task import Trouble
from common.telemetry import Action, log
from worker.attempt import Act
from worker.doubt import KNOWN_BAD, LATELY, UNDECIDED, Operation
from worker.gate import Gate
from worker.job import Job, Route
from worker.pause import Clock, Pause, Sleep
from worker.verdict import Blamed, Continue, Outcome

HOLD_WITHIN = 600.0
"""Seconds for one attempt, whatever it waits for. RabbitMQ takes a delivery back that is held for 30 minutes,
with all others of its channel; long copies go back to the queue by themselves before this."""

SPARED_WAITS = (1.0, 5.0, 30.0)
"""Seconds after which a task comes back whose failure did not count; the last one for ever."""

PROOF = frozenset({Action.COPIED, Action.DELETED, Action.EXECUTED, Action.FORWARDED, Action.LOGGED})
"""What shows that a route works: nothing else touches the target, runs a program or is taken."""

ASKING = (RouteDown, StoreAway, Corrupt, ActionFailed)
"""After these the buckets are checked."""


@dataclass(slots=True)
class _Line:
    """What is known of one route."""

    pause: Pause
    operations: dict[str, Operation] = field(default_factory=lambda: defaultdict(Operation))


class Blame:
    """Stands before `act`: `async with Blame(act) as act`. Leaving the block ends the probes.

    What fails is raised as `Blamed`, or as it is when it needs no such word. `clock` is in epoch seconds;
    `sleep` and `rng` (the jitter) are the probes'.
    """

    def __init__(
        self,
        act: Act,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._act = act
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._lines: dict[str, _Line] = {}
        self._greeting: list[asyncio.Task[str]] = []

    async def __aenter__(self) -> Self:
        """Begin with every route going on."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the probes."""
        for greeting in self._greeting:
            greeting.cancel()
        await asyncio.gather(*self._greeting, return_exceptions=True)
        for line in self._lines.values():
            await line.pause.end()

    def gate(self, route: Route) -> Gate:
        """Return whether the lanes of `route` are taken from."""
        return self._line(route).pause.gate

    def paused(self) -> dict[str, str]:
        """Return the routes that are paused or in doubt now, and why."""
        now = self._clock()
        whys = {route: [line.pause.why, *_doubts(line, now)] for route, line in self._lines.items()}
        return {route: next(filter(None, why)) for route, why in whys.items() if any(why)}

    def is_doubtful(self, route: str) -> bool:
        """Whether `route` is in doubt, and not paused."""
        return not self._lines[route].pause.why

    def since(self, route: str) -> float:
        """Return since when a route is paused or in doubt that is."""
        line = self._lines[route]
        doubted = [operation.doubted for operation in line.operations.values() if operation.doubt]
        return line.pause.since if line.pause.why else min(doubted, default=self._clock())

    async def __call__(self, job: Job) -> Outcome | Continue:
        """Do the job, or raise at once while its route is paused or it is others' turn."""
        line = self._line(job.route)
        if line.pause.why:
            raise _turned_away(f"the route is paused: {line.pause.why}", RouteDown.patience)
        trouble = job.task.trouble
        known = line.operations[trouble.stage if trouble else job.learned.stage]
        began = self._clock()
        if wait := known.wait(trouble, began):
            raise _turned_away(known.doubt, wait)
        with known.trial(trouble):
            try:
                async with asyncio.timeout(HOLD_WITHIN) as limit:
                    outcome = await self._act(job)
            except LostDelivery:
                raise
            except Exception as error:
                late = limit.expired() and isinstance(error, TimeoutError)
                failure = StoreAway(f"not done within {HOLD_WITHIN:.0f} s") if late else error
                raise await self._blame(line, job, failure, began) from error
        self._passed(line, job, outcome)
        return outcome

    def greet(self, routes: Iterable[Route]) -> None:
        """Check the buckets of `routes` once, beside everything else: a wrong name, region or key is said at
        the start, and not when the first hook comes."""
        self._greeting = [asyncio.create_task(self._line(route).pause.ask()) for route in routes]

    def _line(self, route: Route) -> _Line:
        line = self._lines.get(route.id)
        if line is None:
            line = _Line(Pause(route, self._clock, self._sleep, self._rng))
            self._lines[route.id] = line
        return line

    def _passed(self, line: _Line, job: Job, outcome: Outcome | Continue) -> None:
        proven = {"read"}
        if isinstance(outcome, Outcome) and outcome.action in PROOF:
            proven.add(job.learned.stage)
        now = self._clock()
        for stage in sorted(proven):
            operation = line.operations[stage]
            if operation.passed(job.task.key, now):
                lasted = round(now - operation.doubted, 3)
                log(Action.RESUMED, f"{stage} works again", route=job.route.id, stage=stage, seconds=lasted)

    async def _blame(self, line: _Line, job: Job, error: Exception, began: float) -> Exception:
        """Return what to raise for a job that ended in `error`."""
        operation = line.operations[job.learned.stage]
        if isinstance(error, Never) and not _may_be_the_route(job, error, operation):
            return error
        if isinstance(error, TryAgain) and not error.counts:
            return error
        if isinstance(error, ASKING) and (why := await line.pause.ask()):
            return _turned_away(f"the route is paused: {why}", RouteDown.patience)
        return self._weigh(operation, job, error, began)

    def _weigh(self, operation: Operation, job: Job, error: Exception, began: float) -> Blamed:
        now, before, key = self._clock(), job.task.trouble, job.task.key
        spared = before.spared + 1 if before else 1
        since = before.since if before and before.spared else now
        trouble = Trouble(at=now, since=since, spared=spared, stage=job.learned.stage)
        cause = error.reason if isinstance(error, HookmirrorError) else type(error).__name__
        if job.attempt < KNOWN_BAD and operation.failed(key, trouble, _silence(job, error), now, cause):
            log(
                Action.PAUSED,
                operation.doubt,
                level=logging.ERROR,
                route=job.route.id,
                stage=job.learned.stage,
            )
        after = before.at if before else began
        if isinstance(error, Never) and before is None:
            after = inf  # never at once: it may be refused to all of those that are in hand now
        if job.last or isinstance(error, Never):
            after = max(after, now - LATELY)
        if operation.passed_since(key, after):
            own = Trouble(at=now, since=now, stage=job.learned.stage)
            return Blamed(error, counts=True, after=0.0, trouble=own)
        undecided = now - since >= UNDECIDED
        step = len(SPARED_WAITS) if operation.doubt else max(spared, job.attempt)
        wait = _spared_for(step, error, job.learned.stage)
        return Blamed(error, counts=undecided, after=wait, trouble=trouble)


def _doubts(line: _Line, now: float) -> list[str]:
    for operation in line.operations.values():
        operation.lapse(now)
    return [operation.doubt for operation in line.operations.values()]


def _may_be_the_route(job: Job, error: Never, operation: Operation) -> bool:
    """Of a read nothing but the key is ours: what is refused there is the object. But where one after the
    other is refused and none passes, it is no longer believed of any."""
    if not isinstance(error, Refused):
        return False
    if not error.own and job.learned.stage != "read":
        return True
    return operation.refused(job.task.key)


def _turned_away(why: str, after: float) -> Blamed:
    return Blamed(RouteDown(why, counts=False), counts=False, after=after, trouble=None)


def _silence(job: Job, error: Exception) -> str:
    what, route = "objects" if job.route.buckets else "stacks", job.route
    # All but the reading is done to the target, or by an action that has none.
    side = ", ".join(route.sides[:1] if job.learned.stage == "read" else route.sides[1:])
    return (
        f"route {route.id} in doubt, {job.learned.stage}{f' ({side})' if side else ''}: {what} fail and none "
        f"goes through, though the buckets answer: {error}"
    )


def _spared_for(step: int, error: Exception, stage: str) -> float:
    """A store that asks for more than half a minute is asked again all the same, as everywhere (`Pace`); who
    takes forwarded events is waited for as long as asked."""
    wait = SPARED_WAITS[min(step, len(SPARED_WAITS)) - 1]
    asked = error.retry_after if isinstance(error, TryAgain) else 0.0
    return max(wait, asked if stage == "act" else min(asked, SPARED_WAITS[-1]))
