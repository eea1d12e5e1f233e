"""Everything stopped: a route that works for no object is paused, and probed until it works again.

What failed, the object or the route? The worker asks: when an attempt ends in `RouteDown`, `StoreAway` or
`Corrupt`, or an action in `ActionFailed`, both buckets are checked.

- A bucket that fails its check stops every object alike. The route is *paused*: an alarm, once; its tasks
  wait (`RouteDown`: no attempt is used up, no store is touched); a probe checks both buckets every few
  seconds, and when they answer the route goes on.
- Both answer: then it is this object's problem, so far. The try counts, and an object that is never let
  through ends as a dead letter with its reason.
- Both answer, but STREAK different objects failed and none was copied or deleted in between: the route
  again, of a kind that no check of a bucket shows, such as credentials that may read but not write. It is
  paused *in doubt*: the probe lets one task through after each check that passes, and only a copy or a
  delete ends the pause. Such tries do not count.

A route with an action has one bucket to check, its source, and what it does is its proof. A route for stacks
has none: only different stacks that fail in a row can show that it is down.

A check is a HEAD of the bucket and needs the right to list it, which a mirror needs anyway: without it a
store does not tell a missing object from a forbidden one. With fewer than STREAK objects failing in the
third way nothing tells the route from the objects, and they use up their attempts.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Self

from common.errors import ActionFailed, Corrupt, RouteDown, StoreAway, Throttled, TryAgain
from common.store.port import Bucket
from common.telemetry import Action, log
from worker.attempt import Act
from worker.job import Job, Route
from worker.verdict import Continue, Outcome

WAITS = (1, 2, 5, 10, 30)
"""Seconds between one probe and the next; the last one for ever."""

DOUBT_WAITS = (5, 30, 120)
"""The same when in doubt: there a task is tried, which promises one more look each time."""

STREAK = 5
"""So many different objects that fail, with none that was copied or deleted in between, are no accident."""

CHECK_WITHIN = 15.0
"""Seconds for a bucket to answer a check: the task that waits for it keeps others from being done."""

PROOF = frozenset({Action.COPIED, Action.DELETED, Action.EXECUTED, Action.FORWARDED, Action.LOGGED})
"""What shows that a route works: nothing else touches the target, runs a program or is taken."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class _Pause:
    why: str
    since: float
    in_doubt: bool
    """The buckets answer: only a task can show that the route works."""
    trial: bool = False
    """The next task may try."""


@dataclass(slots=True)
class _Line:
    """What is known of one route."""

    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    failed: set[str] = field(default_factory=set)
    """Keys that failed since the last proof that the route works."""
    pause: _Pause | None = None
    probe: asyncio.Task[None] | None = None


class Pauses:
    """Stands before `act`: `async with Pauses(act) as act`. Leaving the block ends the probes.

    `clock` is in seconds; `sleep` and `rng` (the jitter) are the probes'.
    """

    def __init__(
        self,
        act: Act,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._act = act
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._lines: dict[str, _Line] = {}

    async def __aenter__(self) -> Self:
        """Begin with every route going on."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the probes."""
        probes = [line.probe for line in self._lines.values() if line.probe]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def paused(self) -> dict[str, str]:
        """Return the routes that are paused now, and why."""
        return {route: line.pause.why for route, line in self._lines.items() if line.pause}

    async def __call__(self, job: Job) -> Outcome | Continue:
        """Do the job, or raise `RouteDown` at once while its route is paused."""
        line = self._lines.setdefault(job.route.id, _Line())
        self._admit(line)
        try:
            outcome = await self._act(job)
        except (RouteDown, StoreAway, Corrupt, ActionFailed) as error:
            blame = await self._explain(line, job, error)
            if blame is error:
                raise
            raise blame from error
        self._succeeded(line, job.route, outcome)
        return outcome

    @staticmethod
    def _admit(line: _Line) -> None:
        if line.pause is None:
            return
        if not line.pause.trial:
            raise RouteDown(f"the route is paused: {line.pause.why}")
        line.pause.trial = False

    def _succeeded(self, line: _Line, route: Route, outcome: Outcome | Continue) -> None:
        partly = isinstance(outcome, Continue) and route.destination is not None  # an action only waits
        proven = partly or (isinstance(outcome, Outcome) and outcome.action in PROOF)
        if proven:
            line.failed.clear()
        if line.pause is not None and line.pause.in_doubt:
            if proven:
                self._resume(line, route)
            else:
                line.pause.trial = True  # nothing was to be done, which shows nothing: the next one may try

    async def _explain(self, line: _Line, job: Job, error: TryAgain) -> TryAgain:
        """Return what to raise for a job that ended in `error`: who is to blame, the route or the object?"""
        # One at a time: of many that fail together the first asks for all of them, if all has stopped.
        async with line.asking:
            if line.pause is not None:
                return RouteDown(f"the route is paused: {line.pause.why}")
            down = await _check(job.route)
            if isinstance(down, Throttled):
                return down
            if down is not None:
                return self._stop(line, job.route, f"{down}", in_doubt=False)
            line.failed.add(job.task.key)
            if len(line.failed) >= STREAK:
                what = "objects failed and none went through, though both buckets answer"
                if not job.route.buckets:
                    what = "stacks failed and none went through"
                why = f"{STREAK} {what}: {error}"
                return self._stop(line, job.route, why, in_doubt=True)
        if error.counts:
            return error
        return StoreAway(f"{error} (this object; both buckets answer)", retry_after=error.retry_after)

    def _stop(self, line: _Line, route: Route, why: str, *, in_doubt: bool) -> RouteDown:
        line.pause = _Pause(why, self._clock(), in_doubt)
        line.probe = asyncio.create_task(self._probe(line, line.pause, route), name=f"probe of {route.id}")
        log(Action.PAUSED, f"route paused, its tasks wait: {why}", level=logging.ERROR, route=route.id)
        return RouteDown(f"the route is paused: {why}")

    def _resume(self, line: _Line, route: Route) -> None:
        pause, probe = line.pause, line.probe
        if pause is None:
            return
        line.pause = line.probe = None
        line.failed.clear()
        if probe is not None and probe is not asyncio.current_task():
            probe.cancel()
        lasted = round(self._clock() - pause.since, 3)
        log(Action.RESUMED, "route works again, its tasks go on", route=route.id, seconds=lasted)

    async def _probe(self, line: _Line, pause: _Pause, route: Route) -> None:
        waits = DOUBT_WAITS if pause.in_doubt else WAITS
        for wait in chain(waits, repeat(waits[-1])):
            await self._sleep(wait * self._rng.uniform(0.8, 1.2))
            if line.pause is not pause:
                return
            if await _check(route) is not None:
                continue
            if pause.in_doubt:
                pause.trial = True
            else:
                self._resume(line, route)
                return


async def _check(route: Route) -> TryAgain | None:
    """Return what is wrong with the buckets of `route`, None when both answer."""
    for bucket in route.buckets:
        wrong = await _check_one(bucket)
        if wrong is not None:
            return wrong
    return None


async def _check_one(bucket: Bucket) -> TryAgain | None:
    try:
        async with asyncio.timeout(CHECK_WITHIN):
            await bucket.check()
    except TryAgain as error:
        return error
    except TimeoutError:
        return StoreAway(f"{bucket.name}: no answer within {CHECK_WITHIN:.0f} s")
    except Exception as error:  # noqa: BLE001 - no answer that is known is a good one; a probe must not die of it
        return StoreAway(f"{bucket.name}: {error!r}")
    return None
