"""Make the target agree with the source, for one key: the protocol of docs/protocol.md.

An event is a hint; the source is the truth, looked at now. And since a worker may die with a write
in flight that lands after everybody else has finished, *before a worker touches the target it
promises, in the queue, to look again later*: no write outlives its look.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.errors import LostDelivery, SourceMoved, StoreAway, Throttled
from common.queue.port import Publisher
from common.store.port import Reading, State
from common.telemetry import Action
from worker.brake import Brake
from worker.fidelity import described
from worker.job import SMALL, Job
from worker.parts import PartsCopy
from worker.plan import UNSEEN, Copy, Delete, LookLater, Skip, Why, contradicts, plan
from worker.transfer import READ_WITHIN, Budget, fetch, turn
from worker.verdict import Continue, Outcome

WRITE_WITHIN = 60.0
"""Seconds from the promise to the end of the write. With the 15 minutes for which a signed request can
stay valid, this must stay below the 20 minutes after which the promised look comes."""


class Mirror:
    """The protocol over a queue that takes the looks. `look_after` is D, in seconds."""

    def __init__(self, publisher: Publisher, *, look_after: float, budget: Budget, brake: Brake) -> None:
        self._publisher = publisher
        self._look_after = look_after
        self._budget = budget
        self._brake = brake
        self._parts = PartsCopy(budget)

    async def __call__(self, job: Job) -> Outcome | Continue:
        """Do the job, or as much of it as one delivery should. Raises only errors of `common.errors`."""
        source, key = job.route.source, job.task.key
        if job.compares:
            return await self._agree(job, await source.head(key), None)
        async with source.read(key) as reading:
            state = reading.state if reading else None
            if state is None or state.size <= SMALL:
                return await self._agree(job, state, reading)
        return await self._agree(job, state, None)  # with the large body let go of, unread

    async def _agree(self, job: Job, source: State | None, reading: Reading | None) -> Outcome | Continue:
        task = job.task
        if contradicts(source, task.claim, task.etag):
            await self._promise_look(job)
        target = await job.route.target.head(job.target_key) if self._must_compare(job, source) else UNSEEN
        step = plan(source, target, task.claim, job.route.deletes)
        if job.spent and isinstance(step, Copy | Delete):
            return Outcome(Action.SKIPPED, Why.SPENT)
        if isinstance(step, Copy) and source is not None and source.size > SMALL:
            return await self._copy_parts(job, source)
        if task.upload is not None:
            await self._parts.abandon(job, task.upload)  # whatever it was to become is not wanted any more
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
            if reading is None or reading.state.size > SMALL:
                raise SourceMoved("the object changed between the look and the read")
            return await self._copy(job, reading)

    async def _copy(self, job: Job, reading: Reading) -> Outcome:
        source = reading.state
        async with turn(self._budget, source.size, job.route.meter, within=READ_WITHIN) as came:
            if not came:
                raise Throttled(f"{job.route.id}: no turn to copy within {READ_WITHIN:.0f} s")
            body = await fetch(reading)
            headers, metadata = described(source, job.route.placement)
            await self._promise_look(job)
            async with _touching(job):
                await job.route.target.write(job.target_key, body, headers=headers, metadata=metadata)
        return Outcome(Action.COPIED, size=source.size)

    async def _copy_parts(self, job: Job, source: State) -> Outcome | Continue:
        upload = job.task.upload
        if upload is None:
            return await self._parts.begin(job, source)
        parts = await self._parts.carry_on(job, source, upload)
        if isinstance(parts, Continue):
            return parts
        await self._promise_look(job)
        async with _touching(job):
            await job.route.target.complete_upload(job.target_key, upload.id, parts)
        return Outcome(Action.COPIED, size=source.size)

    async def _delete(self, job: Job) -> Outcome:
        self._brake.admit(job.route.id, approved=job.task.approved)
        await self._promise_look(job)
        async with _touching(job):
            await job.route.target.delete(job.target_key)
        return Outcome(Action.DELETED)

    async def _promise_look(self, job: Job) -> None:
        look = job.task.look()
        await self._publisher.publish(look.encode(), lane=job.lane, delay=self._look_after)
        job.promises.append(look)


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
