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
from worker.plan import Copy, Skip, Why, contradicts, differs, plan, sight, uncovers
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
        if job.expects_nothing_to_do:
            return await self._agree(job, await source.head(key), None)
        async with source.read(key) as reading:
            state = reading.state if reading else None
            if state is None or state.size <= SMALL:
                return await self._agree(job, state, reading)
        return await self._agree(job, state, None)  # with the large body let go of, unread

    async def _agree(self, job: Job, source: State | None, reading: Reading | None) -> Outcome | Continue:
        task = job.task
        if contradicts(source, task.claim) and not uncovers(source, task.claim):
            return await self._look_later(job, source)
        if task.seen == sight(source):
            return Outcome(Action.SKIPPED, Why.OVERTAKEN)
        # Without a source the absence must be proved, else a missing bucket would pass for a key deleted.
        target = await job.route.target.head(job.target_key, proof=source is None)
        step = plan(source, target, job.route.deletes)
        if job.spent and not isinstance(step, Skip):
            return Outcome(Action.SKIPPED, Why.SPENT)
        if isinstance(step, Copy) and source is not None and source.size > SMALL:
            return await self._copy_parts(job, source)
        await self._abandon_upload(job)
        if isinstance(step, Skip):
            if differs(source, task.claim, task.etag, task.size) or uncovers(source, task.claim):
                await self._promise_look(job, seen=sight(source))
            return Outcome(Action.SKIPPED, step.why)
        if isinstance(step, Copy):
            return await (self._copy(job, reading) if reading else self._reread(job))
        return await self._delete(job)

    async def _look_later(self, job: Job, source: State | None) -> Outcome:
        """Touch nothing, and have the key looked at when the source no longer shows an old state."""
        await self._promise_look(job, seen=sight(source))
        await self._abandon_upload(job)
        return Outcome(Action.LOOK_LATER, f"{job.task.claim}, said the event; the source says otherwise")

    async def _abandon_upload(self, job: Job) -> None:
        if job.task.upload is not None:  # whatever it was to become is not wanted any more
            await self._parts.abandon(job, job.task.upload)

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
            job.stage = "copy"
            async with _touching(job):
                await job.route.target.write(job.target_key, body, headers=headers, metadata=metadata)
        return Outcome(Action.COPIED, size=source.size)

    async def _copy_parts(self, job: Job, source: State) -> Outcome | Continue:
        upload, job.stage = job.task.upload, "parts"
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
        job.stage = "delete"
        async with _touching(job):
            await job.route.target.delete(job.target_key)
        return Outcome(Action.DELETED)

    async def _promise_look(self, job: Job, *, seen: str | None = None) -> None:
        look = job.task.look(seen)
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
