"""Make the target agree with the source, for one key: the protocol of docs/protocol.md.

An event is a hint; the source is the truth, looked at now, and again after each write: *look back*. Only
where a write may land after everybody else has finished (a delivery that came back, a write whose end is not
known) is a look published, for when no request of today can land any more. A source that may show old states
is looked at again after every write: that look is promised *before* the write."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from common.errors import (
    Foreign,
    Never,
    NeverInStep,
    RouteDown,
    SourceMoved,
    StoreAway,
    TargetMoved,
    Throttled,
    TryAgain,
)
from common.queue.port import Lane, Marks, Publisher
from common.remembered import Remembered
from common.store.mark import IS_MD5, Body, mark_on, proven_md5
from common.store.port import Reading, State
from common.task import Task
from common.telemetry import Action
from worker import plan as decide
from worker.alias import refuse_alias
from worker.brake import Brake
from worker.faces import Faces
from worker.job import SMALL, Job, Route
from worker.parts import PartsCopy
from worker.plan import Heed, Skip, Step, Why, doubtful, heed, moved, sight
from worker.transfer import READ_WITHIN, Budget, fetch, turn
from worker.verdict import Continue, Outcome
from worker.writes import Writes

LAPS = 3
"""How often one attempt starts over because the source moved. Each lap writes once at most."""


ECHO_WITHIN = 60.0
"""Seconds for which a removal that a bucket tells of may be the mirror's own. Longer no hook should take."""


class Mail(Publisher, Marks, Protocol):
    """What the mirror needs of a queue: to publish looks, and to be the one who copies a large object."""


class Mirror:
    """The protocol over a queue. `look_after` is D, in seconds; `owners` names the places of the buckets that
    are configured here, by what stands for them in a mark; `clock` is in epoch seconds."""

    def __init__(
        self,
        mail: Mail,
        *,
        look_after: float,
        budget: Budget,
        brake: Brake,
        owners: Mapping[bytes, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._mail = mail
        self._look_after = look_after
        self._budget = budget
        self._brake = brake
        self._owners = owners or {}
        self._clock = clock
        self._parts = PartsCopy(budget, mail)
        self._faces = Faces()
        self._deleted: Remembered[float] = Remembered()
        """When keys of two ways were deleted here: that their bucket tells of it is no news."""
        self._writes = Writes(self._promise_look)

    async def __call__(self, job: Job) -> Outcome | Continue:
        """Do the job, or as much of it as one delivery should. Raises only errors of `common.errors`."""
        failure: SourceMoved | TargetMoved
        for _ in range(LAPS):
            try:
                end = await self._lap(job)
            except TargetMoved as error:
                failure = error
                continue
            except (TryAgain, Never) as error:
                if job.learned.claimed and (job.last or isinstance(error, Never)):
                    await self._parts.release(job, job.learned.claimed)  # nobody goes on with it
                raise
            if end is not None:
                return await self._end(job, end)
            failure = SourceMoved(
                f"the source changed {LAPS} times while it was copied", counts=not job.learned.moved
            )
        raise failure

    async def _end(self, job: Job, end: Outcome | Continue) -> Outcome | Continue:
        if job.learned.doubt and not job.route.eventual and isinstance(end, Outcome):
            await self._promise_look(job)
        return end

    async def _lap(self, job: Job) -> Outcome | Continue | None:
        """Look and act once. None when the source has moved meanwhile: then it is to be done again."""
        source, key, now = job.route.source, job.task.key, self._clock()
        job.learned.stage = "read"
        absent = False
        if not (job.heads_first or self._faces.heads_first(source.place)):
            async with source.read(key) as reading:
                if reading and reading.state.size <= SMALL:
                    return await self._agree(job, reading.state, reading, now)
            absent = reading is None
        # Of what is large only the HEAD counts, from the first look to the last: its parts take several.
        # An absence is believed at the second answer; a proof is two by itself.
        return await self._agree(job, await source.head(key, proof=not absent), None, now)

    async def _agree(
        self, job: Job, source: State | None, reading: Reading | None, now: float
    ) -> Outcome | Continue | None:
        """Decide and act on `source`, which was looked at after `now` (epoch seconds)."""
        task, eventual = job.task, job.route.eventual
        claim = None if job.learned.wrote else task.claim
        worth = heed(source, claim, eventual=eventual)
        if worth is Heed.LATER:
            return await self._look_later(job, source)
        if (source is None and worth is Heed.OVERTAKEN) or (
            task.seen is not None and task.seen == sight(source)
        ):
            await self._abandon_upload(job)
            return Outcome(Action.SKIPPED, Why.OVERTAKEN)
        target = await target_of(job.route, job.task.key, source)
        rules = self._rules(job.route)
        await refuse_alias(job, target)
        if source is not None:
            self._deleted.forget((job.route.source.place, task.key))
        elif claim is not None and self._was_ours(job, now):
            return await self._leave(job, Skip(Why.LATER_THERE if target else Why.ABSENT), None)
        step = decide.plan(
            source, target, rules, claim=claim, told=task.received, now=now, wrote=job.learned.wrote
        )
        if source and isinstance(step, decide.Restate) and self._writes.alters(job, source, target):
            step = Skip(Why.IN_STEP)
        asked = job.learned.doubt or claim is None
        if source and asked and step == Skip(Why.IN_STEP) and await self._tagged(job, source, target):
            return await self._look_back(job, source, Outcome(Action.COPIED, "its tags alone"))
        if eventual and isinstance(step, Skip) and doubtful(source, claim, task.etag, task.size):
            await self._promise_look(job, seen=sight(source))
        return await self._take(job, step, source, target, reading)

    def _was_ours(self, job: Job, now: float) -> bool:
        """Whether what the source no longer has was removed there by the route that goes the other way, and
        not by somebody: then it shows nothing about an object that is on its way there again."""
        at = self._deleted.get((job.route.source.place, job.task.key))
        return at is not None and 0 <= now - at < ECHO_WITHIN

    def _rules(self, route: Route) -> decide.Rules:
        places = route.source.place, route.target.place
        return route.loose_rules if self._faces.is_loose(places) else route.rules

    async def _tagged(self, job: Job, source: State, target: State | None) -> bool:
        """Give a copy of ours the tags that it lacks: whoever wrote it may have died before."""
        return decide.is_ours(source, target, job.route.rules) and await self._writes.tag(job, source)

    async def _take(
        self, job: Job, step: Step, source: State | None, target: State | None, reading: Reading | None
    ) -> Outcome | Continue | None:
        """Do `step`. None when it is to be looked at again."""
        if isinstance(step, decide.Foreign):
            raise Foreign(self._whose(step.origin, job))
        if isinstance(step, Skip | decide.Settle):
            return await self._leave(job, step, source)
        if job.spent and job.route.eventual:
            raise NeverInStep(
                f"written {job.task.tries} times and never found in sync: the target changes what it is"
                " given, somebody else writes there, or the source goes on showing old states"
            )
        if source is None:
            return await self._delete(job, target)
        if isinstance(step, decide.Restate) and target and not self._writes.refuses(job, "restate"):
            return await self._restate(job, source, target)
        if source.size > SMALL:
            return await self._copy_parts(job, source, target)
        await self._abandon_upload(job)
        if reading is not None:
            return await self._copy(job, reading, source, target)
        return await self._reread(job, source, target)

    async def _leave(self, job: Job, step: Skip | decide.Settle, source: State | None) -> Outcome | Continue:
        """Touch nothing."""
        await self._abandon_upload(job)
        if isinstance(step, decide.Settle):
            return Continue(job.task, "removed at the source, or not there yet: time will tell", step.after)
        if step.why is Why.LATER_THERE and job.route.back is not None:
            await self._hand_over(job, job.route.back)
        return Outcome(Action.SKIPPED, step.why, size=source.size if source else 0)

    def _whose(self, origin: bytes, job: Job) -> str:
        owner = self._owners.get(origin, f"a bucket that no route here names (origin {origin.hex()})")
        return (
            f"{job.route.target.name}/{job.target_key} is a copy from {owner}, not from"
            f" {job.route.source.name}. If this route is to have it: delete it there, or name its source in"
            " the route's takes_over"
        )

    async def _hand_over(self, job: Job, route: str) -> None:
        """Have the same key looked at by the route that goes the other way."""
        look = Task(route=route, key=job.task.key, received=job.task.received)
        await self._mail.publish(look.encode(), lane=Lane(route, job.lane.kind))
        job.learned.promises.append(look)

    async def _look_later(self, job: Job, source: State | None) -> Outcome:
        """Touch nothing, and have the key looked at when the source no longer shows an old state."""
        await self._promise_look(job, seen=sight(source))
        await self._abandon_upload(job)
        return Outcome(Action.LOOK_LATER, f"{job.task.claim}, said the event; the source says otherwise")

    async def _abandon_upload(self, job: Job) -> None:
        if job.task.upload is not None:  # whatever it was to become is not wanted any more
            await self._parts.abandon(job, job.task.upload)

    async def _reread(self, job: Job, seen: State, target: State | None) -> Outcome | None:
        """Copy what was `seen` by a HEAD, if the source still holds it."""
        async with job.route.source.read(job.task.key) as reading:
            if reading is not None and not moved(seen, reading.state):
                return await self._copy(job, reading, seen, target)
        now = await job.route.source.head(job.task.key, proof=False)
        if not moved(seen, now):
            raise StoreAway("the source answers GET and HEAD of this key with different objects")
        job.learned.moved = True
        return None

    async def _copy(self, job: Job, reading: Reading, source: State, target: State | None) -> Outcome | None:
        async with turn(self._budget, source.size, job.route.meter, within=READ_WITHIN) as came:
            if not came:
                raise Throttled(f"{job.route.id}: no turn to copy within {READ_WITHIN:.0f} s", counts=False)
            body = await fetch(reading)
            md5 = proven_md5(source) or hashlib.md5(body, usedforsecurity=False).hexdigest()
            headers, metadata = self._writes.description(job, source, Body.of(md5, source.size))
            over = self._writes.over(job, "copy", target)
            async with self._writes.touching(job, "copy"):
                etag = await job.route.target.write(
                    job.target_key, body, headers=headers, metadata=metadata, over=over
                )
        if await self._writes.voids(job, etag != md5):
            return None
        return await self._look_back(job, source, Outcome(Action.COPIED, size=source.size))

    async def _restate(self, job: Job, source: State, target: State) -> Outcome | None:
        there: State | None = target
        while there is not None:  # twice at most
            headers, metadata = self._writes.description(job, source, self._writes.body_of(job, there))
            async with self._writes.touching(job, "restate"):
                await job.route.target.restate(
                    job.target_key, etag=there.etag, headers=headers, metadata=metadata
                )
            there = await self._writes.joins(job, there)
        await self._writes.tag(job, source)
        await self._abandon_upload(job)
        self._faces.restated(job.route.source.place, source)
        await self._writes.see_what_it_became(job, source, target)
        return await self._look_back(job, source, Outcome(Action.COPIED, "its description alone"))

    async def _copy_parts(self, job: Job, source: State, target: State | None) -> Outcome | Continue | None:
        upload, job.learned.stage = job.task.upload, "parts"
        if upload is None:
            body = Body.of("", source.size, parts=True)
            return await self._parts.begin(job, source, self._writes.description(job, source, body))
        parts = await self._parts.carry_on(job, source, upload)
        if isinstance(parts, Continue):
            return parts
        if not await self._still_wanted(job, source):
            await self._abandon_upload(job)
            return Continue(job.task.model_copy(update={"upload": None}), "no longer what is to be copied")
        async with self._writes.touching(job, "parts"):
            over = self._writes.over(job, "parts", target)
            etag = await job.route.target.complete_upload(job.target_key, upload.id, parts, over=over)
        await self._parts.release(job, upload.identity)
        if await self._writes.voids(job, IS_MD5.fullmatch(etag) is not None):
            return None
        await self._writes.tag(job, source)
        return await self._look_back(job, source, Outcome(Action.COPIED, size=source.size))

    async def _still_wanted(self, job: Job, source: State) -> bool:
        """Compare once more: copying the parts took its time, and another worker may have been faster."""
        now = await job.route.source.head(job.task.key)
        if now is None or moved(now, source):
            return False
        target = await target_of(job.route, job.task.key, now)
        step = decide.plan(now, target, self._rules(job.route), wrote=job.learned.wrote)
        return isinstance(step, decide.Copy | decide.Restate)

    async def _delete(self, job: Job, target: State | None) -> Outcome | None:
        if target and job.route.back is not None and target.size > SMALL:
            # It may be on its way to the source, which takes longer than SETTLED.
            await self._parts.hinder(job, job.route.back, target.identity)
        self._brake.admit(job.route.id, job.task.key, approved=job.task.approved)
        await self._abandon_upload(job)
        if job.route.back is not None:
            self._deleted.put((job.route.target.place, job.target_key), self._clock())
        async with self._writes.touching(job, "delete"):
            over = self._writes.over(job, "delete", target)
            await job.route.target.delete(job.target_key, over=over)
        return await self._look_back(job, None, Outcome(Action.DELETED))

    async def _look_back(self, job: Job, copied: State | None, outcome: Outcome) -> Outcome | None:
        """Return `outcome` when the source still is what was written, None when it is not."""
        if job.route.eventual:
            return outcome  # a look was promised
        source, key = job.route.source, job.task.key
        wrote, job.learned.stage = job.learned.stage, "read"
        now = await source.head(key, proof=False)
        job.learned.stage = wrote
        if sight(now) == sight(copied):
            return outcome
        if now is None or copied is None or moved(copied, now):
            job.learned.moved = True
            return None
        self._faces.differs(source.place, again=job.learned.otherwise)
        if job.learned.otherwise:
            return outcome
        job.learned.otherwise = True
        return None  # once more, for the copy to be described as HEAD does

    async def _promise_look(self, job: Job, *, seen: str | None = None) -> None:
        look = job.task.look(seen)
        await self._mail.publish(look.encode(), lane=job.lane, delay=self._look_after)
        job.learned.promises.append(look)


async def target_of(route: Route, key: str, source: State | None) -> State | None:
    """Return what the target of `route` has for `key`, to be compared with `source`. Its tags are asked for
    only where no mark of ours tells of them."""
    # Without a source the absence must be proved, else a missing bucket would pass for a key deleted.
    bucket, there = route.target, route.target_prefix + key
    target = await bucket.head(there, proof=source is None, tags=False)
    if source is None or target is None:
        return target
    theirs = mark_on(source)
    copied_from_it = theirs is not None and theirs.origin == route.rules.home
    if copied_from_it or (mark_on(target) is None and source.etag == target.etag):
        with suppress(RouteDown):  # no right to read them: then tags that the source has are set once more
            return await bucket.head(there)
    return target
