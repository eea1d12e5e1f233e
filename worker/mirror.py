"""Make the target agree with the source, for one key: the protocol of docs/protocol.md.

An event is a hint; the source is the truth, looked at now. And since a worker may die with a write
in flight that lands after everybody else has finished, *before a worker touches the target it
promises, in the queue, to look again later*: no write outlives its look.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from common.errors import LostDelivery, SourceMoved, StoreAway
from common.queue.port import Lane, Publisher
from common.store.port import Bucket, Reading, State
from common.task import Task
from common.telemetry import Action
from worker.brake import Brake
from worker.plan import UNSEEN, Copy, Deletes, LookLater, Skip, contradicts, plan
from worker.transfer import Budget, fetch, store
from worker.verdict import Outcome

WRITE_WITHIN = 60.0
"""Seconds from the promise to the end of the write. With the 15 minutes for which a signed request can
stay valid, this must stay below the 20 minutes after which the promised look comes."""

SMALL = 8 * 2**20
"""Bytes; what is larger is compared before it is copied, even when an event comes for the first time."""


@dataclass(frozen=True, slots=True)
class Route:
    """A configured route, with its buckets opened."""

    id: str
    source: Bucket
    target: Bucket
    target_prefix: str = ""
    deletes: Deletes = "mirror"


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one task. `held` says whether the delivery is still ours."""

    task: Task
    route: Route
    attempt: int
    lane: Lane
    held: Callable[[], bool]

    @property
    def target_key(self) -> str:
        """The key on the target."""
        return self.route.target_prefix + self.task.key

    @property
    def compares(self) -> bool:
        """A look, or a delivery that came back: compare first, for it may well be done already."""
        return self.task.claim is None or self.attempt > 1


class Mirror:
    """The protocol over a queue that takes the looks. `look_after` is D, in seconds."""

    def __init__(self, publisher: Publisher, *, look_after: float, budget: Budget, brake: Brake) -> None:
        self._publisher = publisher
        self._look_after = look_after
        self._budget = budget
        self._brake = brake

    async def __call__(self, job: Job) -> Outcome:
        """Do the job. Raises only errors of `common.errors`."""
        source, key = job.route.source, job.task.key
        if job.compares:
            return await self._agree(job, await source.head(key), None)
        async with source.read(key) as reading:
            return await self._agree(job, reading.state if reading else None, reading)

    async def _agree(self, job: Job, source: State | None, reading: Reading | None) -> Outcome:
        task = job.task
        if contradicts(source, task.claim, task.etag):
            await self._promise_look(job)
        target = await job.route.target.head(job.target_key) if self._must_compare(job, source) else UNSEEN
        step = plan(source, target, task.claim, job.route.deletes)
        if isinstance(step, LookLater):
            return Outcome(Action.LOOK_LATER, "the source has no such key although the event says created")
        if isinstance(step, Skip):
            return Outcome(Action.SKIPPED, step.why)
        if isinstance(step, Copy):
            return await (self._copy(job, reading) if reading else self._reread(job))
        return await self._delete(job)

    @staticmethod
    def _must_compare(job: Job, source: State | None) -> bool:
        large = source is not None and source.size > SMALL
        return job.compares or large or (source is None and job.route.deletes == "owned")

    async def _reread(self, job: Job) -> Outcome:
        """Copy what the source holds by now, which need not be what was compared."""
        async with job.route.source.read(job.task.key) as reading:
            if reading is None:
                raise SourceMoved("the object was deleted between the look and the read")
            return await self._copy(job, reading)

    async def _copy(self, job: Job, reading: Reading) -> Outcome:
        async with self._budget.take(reading.state.size):
            body = await fetch(reading)
            await self._promise_look(job)
            async with _touching(job):
                await store(job.route.target, job.target_key, body, reading.state)
        return Outcome(Action.COPIED, size=reading.state.size)

    async def _delete(self, job: Job) -> Outcome:
        self._brake.admit(job.route.id, approved=job.task.approved)
        await self._promise_look(job)
        async with _touching(job):
            await job.route.target.delete(job.target_key)
        return Outcome(Action.DELETED)

    async def _promise_look(self, job: Job) -> None:
        await self._publisher.publish(job.task.look().encode(), lane=job.lane, delay=self._look_after)


@asynccontextmanager
async def _touching(job: Job) -> AsyncIterator[None]:
    """The block that touches the target: only while the delivery is ours, and for WRITE_WITHIN at most."""
    if not job.held():
        raise LostDelivery("the delivery went to another worker before the write")
    try:
        async with asyncio.timeout(WRITE_WITHIN):
            yield
    except TimeoutError as error:
        raise StoreAway(f"the target has not finished the write within {WRITE_WITHIN:.0f} s") from error
