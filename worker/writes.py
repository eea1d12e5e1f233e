"""How a mirror touches its targets, and what it has found out about them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from common.errors import (
    LostDelivery,
    Never,
    NotForThis,
    NotSupported,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    TargetMoved,
    TryAgain,
)
from common.store.mark import IS_OF_PARTS, Body, Kind, mark_for, mark_on, proven_md5
from common.store.port import MARK, State
from common.telemetry import Action, log
from worker.fidelity import described, marked
from worker.job import SMALL, Job, Stage
from worker.plan import in_step, is_ours

WRITE_WITHIN = 60.0
"""Seconds from the check that the delivery is ours to the end of the write."""

WORK_WITHIN = 240.0
"""The same where the store has to work: to join parts, to copy an object onto itself. With the 15 minutes for
which a signed request can stay valid, this must stay below the 20 minutes after which a look comes."""


class Writes:
    """Every write on a target goes through `touching`. `promise` publishes the look that an eventual source
    wants before each."""

    def __init__(self, promise: Callable[[Job], Awaitable[None]]) -> None:
        self._promise = promise
        self._refused: set[tuple[Stage, str]] = set()
        """What targets refuse that can be done otherwise: a copy onto itself, or a write on a condition."""
        self._odd_etags: set[str] = set()
        """Places of targets whose ETags are no MD5s of what was sent."""
        self._joining: set[str] = set()
        """Places of targets where a copy of an object onto itself makes one part of several."""
        self._altering: set[str] = set()
        """Places of targets that describe an object otherwise than they were told to."""

    def refuses(self, job: Job, what: Stage) -> bool:
        """Whether the target is known to refuse `what`, for the object of `job` or for all."""
        if what == "restate" and job.learned.whole:
            return True
        return (what, job.route.target.place) in self._refused

    def over(self, job: Job, stage: Stage, target: State | None) -> str | None:
        """Return what a write may replace: see `Bucket.write`. Where people write on both sides, only what
        was compared."""
        if job.route.back is None or self.refuses(job, stage):
            return None
        if target is not None and target == job.learned.over:
            # Refused a moment ago, and it is there all the same: conditions mean something else there.
            self._refuse(job, stage)
            return None
        job.learned.over = target
        return target.etag if target else ""

    def _refuse(self, job: Job, stage: Stage) -> None:
        self._refused.add((stage, job.route.target.place))
        what = "copy an object onto itself" if stage == "restate" else f"do a {stage} on a condition"
        _note(job, f"{job.route.target.name}: this store does not {what}. It is done otherwise from now on")

    def description(self, job: Job, source: State, body: Body) -> tuple[dict[str, str], dict[str, str]]:
        """Return the headers and the metadata, our mark among them, with which `source` is written. `body`
        tells what is known of the bytes. Raises `Refused` for what could not be told from a copy."""
        rules, target = job.route.rules, job.route.target
        headers, metadata = described(source, job.route.placement)
        odd = target.place in self._odd_etags
        if odd:
            body = Body.of("", source.size)
        put = target.now() if source.size <= SMALL else 0
        mark = mark_for(
            source, rules.origin, key=job.target_key, body=body, written=rules.age(source), put=put
        )
        with_it = marked(metadata, mark)
        if MARK not in with_it and rules.two_ways and (odd or not proven_md5(source)):
            raise Refused(
                "the object's metadata leaves no room for our mark (57 of 2048 bytes), and the ETags of both"
                " sides do not compare: two ways, nobody could tell it from its copy",
                own=True,
            )
        return headers, with_it

    async def voids(self, job: Job, odd: bool) -> bool:
        """Take note that the target answered a write with an ETag that is `odd`, none that belongs to such
        bytes. Return whether that voids the mark on what was written: then it is to be written once more."""
        if not odd or job.route.target.place in self._odd_etags:
            return False
        self._odd_etags.add(job.route.target.place)
        there = await job.route.target.head(job.target_key, proof=False, tags=False)
        void = there is not None and mark_on(there) is None
        if void:
            _note(job, f"{job.route.target.name}: the ETags of this store are no MD5s of what was sent")
        return void

    def body_of(self, job: Job, target: State) -> Body:
        """Return what a mark can tell of bytes that are there already, and are to be described anew."""
        parts = IS_OF_PARTS.fullmatch(target.etag) is not None and not target.opaque
        joined = job.route.target.place in self._joining
        return Body.of(proven_md5(target), target.size, parts=parts and not joined)

    async def joins(self, job: Job, before: State) -> State | None:
        """After a copy onto itself: return what became of an object of several parts where it is one of one
        now, and its mark void; None where all is as it was told."""
        place = job.route.target.place
        if place in self._joining or self.body_of(job, before).kind is not Kind.PARTS:
            return None
        there = await job.route.target.head(job.target_key, proof=False, tags=False)
        if there is None or mark_on(there) is not None or IS_OF_PARTS.fullmatch(there.etag):
            return None
        self._joining.add(place)
        return there

    def alters(self, job: Job, source: State, target: State | None) -> bool:
        """Whether the target's object is our copy, described otherwise because that store alters what it is
        given."""
        return job.route.target.place in self._altering and is_ours(source, target, job.route.rules)

    async def see_what_it_became(self, job: Job, source: State, before: State) -> None:
        """Find out whether a copy of ours is still described otherwise than `source` after it was described
        anew: then that store alters what it is given, and would be given it at each event."""
        rules = job.route.rules
        if not is_ours(source, before, rules):
            return
        there = await job.route.target.head(job.target_key, proof=False)
        if there is not None and is_ours(source, there, rules) and not in_step(source, there, rules):
            self._altering.add(job.route.target.place)
            _note(
                job, f"{job.route.target.name}: this store alters the headers or metadata of what it is given"
            )

    async def tag(self, job: Job, source: State) -> bool:
        """See that the target's object has its tags: Ceph takes none that come with a copy onto itself, or
        with the beginning of an upload. Until they are there the task is in doubt, and looks again. Return
        whether they were missing."""
        if not source.tags:
            return False
        target, learned, missing = job.route.target, job.learned, True
        stage, doubt, learned.doubt = learned.stage, learned.doubt, True
        with suppress(RouteDown):  # no right to read them
            there = await target.head(job.target_key, proof=False)
            missing = there is not None and there.tags != source.tags
        if missing:
            async with self.touching(job, "tag"):
                await target.tag(job.target_key, source.tags)
        learned.stage, learned.doubt = stage, doubt
        return missing

    @asynccontextmanager
    async def touching(self, job: Job, stage: Stage) -> AsyncIterator[None]:
        """The block that touches the target: only while the delivery is ours, and not for long. Raises
        `TargetMoved` when it is to be done over, for it was not done and there is another way."""
        learned = job.learned
        learned.stage = stage
        if job.route.eventual:
            await self._promise(job)
        if not job.held():
            raise LostDelivery("the delivery went to another worker before the write")
        wrote, doubt = learned.wrote, learned.doubt
        # Whatever ends this, a cancelled task too: unless the end is known, it is not known.
        learned.wrote = learned.doubt = True
        try:
            async with self._in_time(WORK_WITHIN if stage in {"parts", "restate"} else WRITE_WITHIN):
                yield
        except (TryAgain, Never) as error:
            if isinstance(error, TryAgain) and error.unsure:
                raise
            learned.wrote, learned.doubt = wrote, doubt
            if self._can_be_otherwise(job, stage, error):
                raise TargetMoved(str(error)) from error
            raise
        learned.doubt, learned.over = doubt, None

    @staticmethod
    @asynccontextmanager
    async def _in_time(seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            said = f"the target has not finished the write within {seconds:.0f} s"
            raise StoreAway(said, unsure=True) from error

    def _can_be_otherwise(self, job: Job, stage: Stage, error: TryAgain | Never) -> bool:
        """Whether to start over after a write that was refused: for what it was to replace is another by now,
        or the target does not know such a request, and there is another way."""
        if not isinstance(error, NotSupported):
            return isinstance(error, SourceMoved)
        there_is = stage == "restate" or (job.route.back is not None and not self.refuses(job, stage))
        if isinstance(error, NotForThis):
            job.learned.whole = True
        elif there_is:
            self._refuse(job, stage)
        return there_is


def _note(job: Job, what: str) -> None:
    """Tell of a habit of a store that is found out once in a process."""
    log(Action.STORE, what, level=logging.WARNING, route=job.route.id)
