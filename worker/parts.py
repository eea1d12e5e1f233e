"""A large object, copied in parts: reads pinned to one state, several at a time, and gone on with by
whichever worker the task comes to next."""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from common.errors import Corrupt, KeyBusy, Never, SourceMoved, StoreAway, TryAgain, UploadGone
from common.queue.port import Marks
from common.store.mark import IS_MD5, IS_OF_PARTS
from common.store.pace import Meter
from common.store.port import Reading, State, Stream
from common.task import Upload
from common.telemetry import Action, log
from worker.job import Job, Route
from worker.spans import MIB, etag_of_parts, part_size, span
from worker.transfer import READ_WITHIN, Budget, InOrder, turn
from worker.verdict import Continue

AT_ONCE = 4
"""Parts of one object under way at once; the budget bounds them all."""

HELD_SHARE = 4
"""A part of at most the budget divided by so much is held in memory; a larger one passes through."""

PASSING_AT_ONCE = 1024 * MIB
"""Bytes of the parts of one route that pass through at once: fewer and larger parts end no later, and all at
once none would end in its time."""

CONTINUE_AFTER = 100.0
"""Seconds after which no further part is begun: the task goes back to the queue and on from there. A part
takes READ_WITHIN at most, to join them WORK_WITHIN, so that no delivery is held for ten minutes."""

CLAIMED = 1.0
"""The `within` of the mark on a large object that is being copied: it lives for an hour after it was asked
for."""

CLAIMED_WAIT = 30.0
"""Seconds after which another delivery of the object asks again."""

Description = tuple[Mapping[str, str], Mapping[str, str]]

T = TypeVar("T")


class PartsCopy:
    """Copies large objects under a common byte budget; `marks` tell which of several deliveries copies one.
    `clock` is in seconds."""

    def __init__(self, budget: Budget, marks: Marks, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._marks = marks
        self._clock = clock
        self._passing: dict[str, Budget] = {}

    async def begin(self, job: Job, source: State, description: Description) -> Continue:
        """Open an upload on the target, for an object with this `description` (headers and metadata), and
        hand it to the queue: only then can nobody lose its id. Raises `KeyBusy` while another delivery copies
        the object."""
        await self._claim(job, source)
        if job.learned.doubt and job.route.back is None:  # else it may be somebody's own upload
            await self._sweep(job)
        theirs = None
        if IS_OF_PARTS.fullmatch(source.etag):
            theirs = await job.route.source.part_size(job.task.key, etag=source.etag, size=source.size)
        size = part_size(source.size, source.etag, theirs)
        headers, metadata = description
        try:
            begun = await job.route.target.create_upload(job.target_key, headers=headers, metadata=metadata)
        except TryAgain as error:
            job.learned.doubt |= error.unsure  # then the next attempt sweeps it away
            raise
        upload = Upload(id=begun.id, identity=source.identity, part_size=size, opaque=begun.opaque)
        return Continue(job.task.model_copy(update={"upload": upload}), "an upload in parts has begun")

    async def _claim(self, job: Job, source: State) -> None:
        """Be the one who copies this state: two hooks for one large object would read it twice."""
        if not await self._marks.first(_claim_on(job, source.identity), job.task.id, at=1.0, within=CLAIMED):
            raise KeyBusy("another delivery copies this object", retry_after=CLAIMED_WAIT)
        job.learned.claimed = source.identity

    async def hinder(self, job: Job, route: str, identity: str) -> None:
        """Raise `KeyBusy` while `route` copies the state with this identity; else let it begin to copy none
        before the mark runs out or the next one asks at another time."""
        key = _claim(route, job.task.key, identity)
        if not await self._marks.first(key, job.task.id, at=1.0, within=CLAIMED):
            raise KeyBusy("the other way copies this object now", retry_after=CLAIMED_WAIT)
        await self._marks.first(key, "nobody", at=0.0, within=CLAIMED)

    async def release(self, job: Job, identity: str) -> None:
        """Let others copy the state with this identity: the copy is made, or given up. Whoever takes a mark
        at another time than its holder has it, and so the next one takes it from nobody."""
        job.learned.claimed = None
        await self._marks.first(_claim_on(job, identity), "nobody", at=0.0, within=CLAIMED)

    @staticmethod
    async def _sweep(job: Job) -> None:
        """Abort what an earlier try of this task may have opened, and nobody was told of."""
        try:
            async for found in job.route.target.uploads(job.target_key):
                if found.key == job.target_key:
                    await job.route.target.abort_upload(found.key, found.id)
        except TryAgain as error:
            log(
                Action.FAILED,
                f"open uploads could not be listed: {error}",
                level=logging.WARNING,
                task=job.task.id,
            )

    async def carry_on(self, job: Job, source: State, upload: Upload) -> list[str] | Continue:
        """Copy what is missing of `upload`. Return the ETags of all parts, or a continuation when time is
        up or there is nothing to go on with."""
        await self._claim(job, source)  # again, so that it does not run out
        fresh = job.task.model_copy(update={"upload": None})
        if _bytes_of(upload.identity) != _bytes_of(source.identity):
            await self.abandon(job, upload)
            return Continue(fresh, "the source changed since the upload began")
        try:
            return await self._missing(job, source, upload)
        except UploadGone:
            job.learned.anew = True
            raise
        except SourceMoved as error:
            await self.abandon(job, upload)
            job.learned.anew = True
            if error.counts:
                raise
            return Continue(fresh, f"the source changed: {error}", after=1)
        except Never:
            await self.abandon(job, upload)
            raise

    async def abandon(self, job: Job, upload: Upload) -> None:
        """Abort the upload; if even that fails it is left to `hookmirror uploads clear`."""
        await self.release(job, upload.identity)
        try:
            await job.route.target.abort_upload(job.target_key, upload.id)
        except TryAgain as error:
            log(
                Action.FAILED,
                f"an upload could not be aborted: {error}",
                level=logging.WARNING,
                task=job.task.id,
                attempt=job.attempt,
                upload=upload.id,
            )

    async def _missing(self, job: Job, source: State, upload: Upload) -> list[str] | Continue:
        async with _within(READ_WITHIN, "the parts have not been listed"):
            have = await job.route.target.parts(job.target_key, upload.id)
        count = math.ceil(source.size / upload.part_size)
        spans = {n: span(n, upload.part_size, source.size) for n in range(1, count + 1)}
        etags = {n: p.etag for n, p in have.items() if n in spans and p.size == spans[n][1] - spans[n][0]}
        md5 = IS_MD5.fullmatch(source.etag) and not source.opaque and not self._passes(upload)
        whole = InOrder() if md5 and not etags else None
        missing = iter([n for n in spans if n not in etags])
        digests = {} if upload.opaque else dict(etags)
        until = self._clock() + CONTINUE_AFTER

        async def lane() -> None:
            for number in missing:
                copied = await self._part(job, source, upload, number, whole, until)
                if copied is None:
                    return
                etags[number], digests[number] = copied
                if self._clock() >= until:
                    return

        at_once = min(AT_ONCE, PASSING_AT_ONCE // upload.part_size or 1)
        await _together(lane for _ in range(at_once))
        if len(etags) < count:
            return Continue(job.task, f"{len(etags)} of {count} parts are copied")
        try:
            known = [digests.get(n, "") for n in spans]
            proven = await self._prove(job, source, upload, known, whole, until)
        except Corrupt:
            await self.abandon(job, upload)  # no telling which part it is: the next attempt begins anew
            raise
        if proven < count:
            upload = upload.model_copy(update={"proven": proven})
            task = job.task.model_copy(update={"upload": upload})
            return Continue(task, f"{proven} of {count} parts are read again and agree")
        return [etags[n] for n in spans]

    def _passes(self, upload: Upload) -> bool:
        """Whether the parts are too large to be held in memory."""
        return upload.part_size > self._budget.size // HELD_SHARE

    async def _part(
        self, job: Job, source: State, upload: Upload, number: int, whole: InOrder | None, until: float
    ) -> tuple[str, str] | None:
        """Copy one part; return its ETag on the target, and the MD5 of what was read. None when the time is
        up before its turn has come."""
        start, end = span(number, upload.part_size, source.size)
        left = until - self._clock()
        if self._passes(upload):
            async with (
                turn(self._line(job.route), end - start, Meter(), within=left) as came,
                turn(self._budget, MIB, Meter(), within=until - self._clock()) as has_room,
            ):
                if not (came and has_room):
                    return None
                async with _within(READ_WITHIN, f"part {number} has not passed through"):
                    passing = partial(self._pass_through, job, source, upload, number)
                    return await self._persist(passing, until)
        async with turn(self._budget, end - start, job.route.meter, within=left) as came:
            if not came:
                if whole is not None:
                    await whole.give_up()
                return None
            async with _within(READ_WITHIN, f"part {number} has not been copied"):
                body = await self._persist(partial(self._read, job, source, start, end), until)
                if whole is not None:
                    await whole.add(number, body)
                write = partial(job.route.target.upload_part, job.target_key, upload.id, number, body)
                etag = await self._persist(write, until)
                return etag, await _md5(body) if upload.opaque else etag

    def _line(self, route: Route) -> Budget:
        """What of `route` may pass through at once: read twice, it is to be through in half of its time at
        the rate of the route. One part always may."""
        if route.id not in self._passing:
            most = min(PASSING_AT_ONCE, route.meter.rate * READ_WITHIN / 4)
            self._passing[route.id] = Budget(int(most))
        return self._passing[route.id]

    async def _persist(self, call: Callable[[], Coroutine[object, object, T]], until: float) -> T:
        """Make a call that may meet a flipped bit or a body cut short, up to three times if time allows."""
        for _ in range(2):
            try:
                return await call()
            except Corrupt:
                if self._clock() >= until:
                    raise
        return await call()

    async def _pass_through(self, job: Job, source: State, upload: Upload, number: int) -> tuple[str, str]:
        """Read a part twice, for its MD5 and then straight into the target, which holds the two to agree."""
        start, end = span(number, upload.part_size, source.size)
        md5 = hashlib.md5(usedforsecurity=False)
        read = partial(job.route.source.read_range, job.task.key, start, end, etag=source.etag)
        async with read() as reading:
            async for chunk in _metered(job, reading):
                md5.update(chunk)
        async with read() as reading:
            body = Stream(_metered(job, reading), end - start, md5.digest())
            etag = await job.route.target.upload_part(job.target_key, upload.id, number, body)
            return etag, md5.hexdigest()

    @staticmethod
    async def _read(job: Job, source: State, start: int, end: int) -> bytes:
        async with job.route.source.read_range(job.task.key, start, end, etag=source.etag) as reading:
            return await reading.body()

    async def _prove(
        self,
        job: Job,
        source: State,
        upload: Upload,
        digests: list[str],
        whole: InOrder | None,
        until: float,
    ) -> int:
        """Raise `Corrupt` when what was read is not what the source's ETag stands for; return how many parts
        are proven, fewer than all when time is up.

        A multipart ETag is reproduced when the parts are the source's own. An MD5 is checked when one
        delivery has read the whole. A copy that was gone on with is read a second time, part by part,
        against what the target says it holds; one that passed through has been. Where the source's ETag
        says nothing, or the target's do not and parts of them are another worker's, nothing is proven.
        """
        if whole is not None and whole.digest() != source.etag:
            raise Corrupt(f"the bytes have MD5 {whole.digest()}, the source says {source.etag}")
        ours = etag_of_parts(digests)
        if whole is not None or source.opaque or ours is None or ours == source.etag:
            return len(digests)
        if IS_MD5.fullmatch(source.etag) and not self._passes(upload):
            return await self._read_again(job, source, upload, digests, until)
        if source.etag.endswith(f"-{len(digests)}"):
            theirs = await job.route.source.part_size(job.task.key, etag=source.etag, size=source.size)
            if theirs == upload.part_size:
                raise Corrupt(f"the parts make the ETag {ours}, the source says {source.etag}")
        return len(digests)

    async def _read_again(
        self, job: Job, source: State, upload: Upload, digests: list[str], until: float
    ) -> int:
        for number in range(upload.proven + 1, len(digests) + 1):
            start, end = span(number, upload.part_size, source.size)
            async with turn(self._budget, end - start, Meter(), within=until - self._clock()) as came:
                if not came:
                    return number - 1
                async with _within(READ_WITHIN, f"part {number} has not been read again"):
                    body = await self._persist(partial(self._read, job, source, start, end), until)
                md5 = await _md5(body)
            if md5 != digests[number - 1]:
                raise Corrupt(f"part {number} was read with MD5 {digests[number - 1]}, and again with {md5}")
            if self._clock() >= until:
                return number
        return len(digests)


async def _md5(body: bytes) -> str:
    return (await asyncio.to_thread(hashlib.md5, body, usedforsecurity=False)).hexdigest()


async def _metered(job: Job, reading: Reading) -> AsyncIterator[bytes]:
    """Yield what is read, no faster than the route may."""
    async for chunk in reading.chunks():
        await job.route.meter.take(len(chunk))
        yield chunk


def _claim_on(job: Job, identity: str) -> str:
    return _claim(job.route.id, job.task.key, identity)


def _claim(route: str, key: str, identity: str) -> str:
    return f"{route}/{key}/{_bytes_of(identity)}"


def _bytes_of(identity: str) -> str:
    """What of the identity of a state tells its bytes and their date, and not how they are described: some
    describe one state in several ways."""
    return identity.rpartition(";")[0]


async def _together(lanes: Iterable[Callable[[], Coroutine[object, object, None]]]) -> None:
    """Run all; the first error ends the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


@asynccontextmanager
async def _within(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise StoreAway(f"{what} within {seconds:.0f} s") from error
