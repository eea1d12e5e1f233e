"""One mirror between two buckets in memory: what is asked of them is written down, and can be made to fail,
to wait, or to show something else."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from common.errors import QueueAway, Unreadable
from common.queue.memory import MemoryQueue
from common.queue.port import DeadLetter, Delivery, Lane, Retry, Verdict
from common.store.mark import origin_of
from common.store.memory import MemoryBucket, MemoryReading, MemoryStore
from common.store.port import Begun, Entry, OpenUpload, Part, Reading, State, Stream
from common.task import LOOK, Claim, Task
from tests.lab.lanes import LIVE
from worker.attempt import Attempt, Attempted, Observer
from worker.brake import Brake
from worker.job import Route
from worker.mirror import Mirror
from worker.plan import Deletes
from worker.transfer import Budget

TEXT = {"content-type": "text/x"}

D = 1200
"""Seconds after which a look comes."""


class Clock:
    """The time, which moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A place where somebody can be held: `reached` tells that he is there, `open` lets him go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


Before = Callable[[str, str], Any]


async def _call(what: Before | None, verb: str, key: str) -> None:
    result = what(verb, key) if what else None
    if asyncio.iscoroutine(result):
        await result


class Spy:
    """A bucket that writes down what is asked of it, first does what `before` says, and when it has written
    what `after` says; `shows` may change what a `head` or a `read` tells."""

    def __init__(self, bucket: MemoryBucket, journal: list[str], side: str) -> None:
        self.bucket = bucket
        self.name, self.place = bucket.name, bucket.place
        self.before: Before | None = None
        self.after: Before | None = None
        self.shows: Callable[[str, str, State | None], State | None] | None = None
        self.overs: list[str | None] = []
        """What each write was to replace, as `over` has it."""
        self._journal = journal
        self._side = side

    def now(self) -> float:
        """See the port."""
        return self.bucket.now()

    async def _note(self, verb: str, key: str, *over: str | None) -> None:
        self._journal.append(f"{verb} {self._side}")
        self.overs += over
        await _call(self.before, verb, key)

    async def _after(self, verb: str, key: str) -> None:
        await _call(self.after, verb, key)

    def _shown(self, verb: str, key: str, state: State | None) -> State | None:
        return self.shows(verb, key, state) if self.shows else state

    def is_wrong(self, times: int) -> None:
        """Have the next looks, so many, find nothing."""
        left = [None] * times
        self.shows = lambda verb, key, state: left.pop() if left else state

    def fail(self, error: BaseException, *verbs: str) -> None:
        """From now on raise `error` for `verbs`, or for all."""

        def raise_it(verb: str, key: str) -> None:
            if not verbs or verb in verbs:
                raise error

        self.before = raise_it

    def fail_after(self, error: BaseException) -> None:
        """From now on do each write, and raise `error` instead of saying so."""

        def raise_it(verb: str, key: str) -> None:
            raise error

        self.after = raise_it

    def hold(self, verb: str, key: str | None = None) -> Gate:
        """Hold whoever comes for `verb` (of `key`) until the gate is opened."""
        gate = Gate()

        async def wait(asked: str, of: str) -> None:
            if asked == verb and key in {None, of}:
                await gate()

        self.before = wait
        return gate

    @asynccontextmanager
    async def read_range(self, key: str, start: int, end: int, *, etag: str) -> AsyncIterator[Reading]:
        await self._note("read_range", key)
        async with self.bucket.read_range(key, start, end, etag=etag) as reading:
            yield reading

    async def part_size(self, key: str, *, etag: str, size: int) -> int | None:
        await self._note("part_size", key)
        return await self.bucket.part_size(key, etag=etag, size=size)

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        await self._note("create_upload", key)
        return await self.bucket.create_upload(key, headers=headers, metadata=metadata)

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        await self._note("upload_part", key)
        return await self.bucket.upload_part(key, upload, number, body)

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        await self._note("parts", key)
        return await self.bucket.parts(key, upload)

    async def complete_upload(
        self, key: str, upload: str, etags: Sequence[str], *, over: str | None = None
    ) -> str:
        await self._note("complete_upload", key, over)
        return await self.bucket.complete_upload(key, upload, etags, over=over)

    async def abort_upload(self, key: str, upload: str) -> None:
        await self._note("abort_upload", key)
        await self.bucket.abort_upload(key, upload)

    def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        return self.bucket.uploads(prefix)

    async def head(self, key: str, *, proof: bool = True, tags: bool = True) -> State | None:
        await self._note("head", key)
        state = await self.bucket.head(key, proof=proof, tags=tags)
        shown = self._shown("head", key, state)
        # The proof of an absence is a second answer.
        return self._shown("read", key, state) if proof and shown is None else shown

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[MemoryReading | None]:
        await self._note("read", key)
        async with self.bucket.read(key) as reading:
            state = self._shown("read", key, reading.state if reading else None)
            yield MemoryReading(state, reading.content) if reading and state else None

    async def write(
        self,
        key: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
        over: str | None = None,
    ) -> str:
        await self._note("write", key, over)
        etag = await self.bucket.write(key, body, headers=headers, metadata=metadata, over=over)
        await self._after("write", key)
        return etag

    async def restate(
        self, key: str, *, etag: str, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        await self._note("restate", key)
        await self.bucket.restate(key, etag=etag, headers=headers, metadata=metadata)
        await self._after("restate", key)

    async def delete(self, key: str, *, over: str | None = None) -> None:
        await self._note("delete", key, over)
        await self.bucket.delete(key, over=over)
        await self._after("delete", key)

    async def tag(self, key: str, tags: str) -> None:
        await self._note("tag", key)
        await self.bucket.tag(key, tags)

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        return self.bucket.list(prefix)

    async def check(self) -> None:
        await self.bucket.check()


class SpyQueue(MemoryQueue):
    """A queue that writes down what is published through it: looks, by whoever works on it."""

    def __init__(self, clock: Clock, journal: list[str]) -> None:
        super().__init__(clock)
        self._journal = journal
        self.away = False
        self.published: list[Task] = []

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        with suppress(Unreadable):
            self.published.append(Task.decode(body))
            self._journal.append(f"publish a look after {delay:.0f}")
        if self.away:
            raise QueueAway("no confirm")
        await super().publish(body, lane=lane, delay=delay)


@dataclass
class World:
    """A source, a target, a queue and one worker between them. `eventual`: the source may show old states;
    `two_ways`: the route "back" keeps the source equal to the target."""

    deletes: Deletes = "mirror"
    target_prefix: str = ""
    attempts: int = 2
    observers: tuple[Observer, ...] = ()
    eventual: bool = False
    two_ways: bool = False
    takes_over: tuple[str, ...] = ()
    journal: list[str] = field(default_factory=list)
    seen: list[Attempted] = field(default_factory=list)

    def __post_init__(self) -> None:
        store = MemoryStore()
        self.clock = Clock()
        self.queue = SpyQueue(self.clock, self.journal)
        self.source = Spy(store.create("source"), self.journal, "source")
        self.target = Spy(store.create("target"), self.journal, "target")
        self.attempt = self.attempt_on(self.queue)

    def attempt_on(self, queue: MemoryQueue) -> Attempt:
        """What another worker does, that holds its deliveries through `queue`."""
        owners = {origin_of("elsewhere/photos"): "old:photos"}
        act = Mirror(
            queue, look_after=D, budget=Budget(2**20), brake=Brake({}), owners=owners, clock=self.clock
        )
        observers: tuple[Observer, ...] = (*self.observers, self.note)
        return Attempt(
            queue, act, self.routes(), attempts=self.attempts, observers=observers, rng=random.Random(1)
        )

    def routes(self) -> dict[str, Route]:
        """The route "r", and where there are two ways the one "back"."""
        there = Route(
            "r",
            self.source,
            self.target,
            self.target_prefix,
            self.deletes,
            eventual=self.eventual,
            back="back" if self.two_ways else None,
            takes_over=self.takes_over,
        )
        back = Route("back", self.target, self.source, deletes=self.deletes, back="r")
        return {"r": there, "back": back} if self.two_ways else {"r": there}

    def note(self, attempted: Attempted) -> None:
        """An observer that keeps what it is told."""
        self.seen.append(attempted)

    async def put(self, key: str, body: bytes, **metadata: str) -> State:
        """Put an object on the source; return its state."""
        await self.source.bucket.write(key, body, headers=TEXT, metadata=metadata)
        return await self.on(self.source, key)

    async def put_there(self, key: str, body: bytes, **metadata: str) -> State:
        """Put an object on the target, as somebody else does; return its state."""
        await self.target.bucket.write(key, body, headers=TEXT, metadata=metadata)
        return await self.on(self.target, key)

    async def mirror(self, key: str, body: bytes, **metadata: str) -> State:
        """Put an object on the source and have it copied; return its state."""
        state = await self.put(key, body, **metadata)
        await self.tell(key, Claim.CREATED, etag=state.etag)
        await self.work()
        self.journal.clear()
        return state

    @staticmethod
    async def on(side: Spy, key: str) -> State:
        state = await side.bucket.head(key)
        assert state is not None, f"{side.name} has no {key}"
        return state

    async def contents(self, side: Spy) -> dict[str, bytes]:
        found = {}
        async for entry in side.list():
            async with side.bucket.read(entry.key) as reading:
                assert reading is not None
                found[entry.key] = reading.content
        return found

    async def tell(
        self,
        key: str,
        claim: Claim | None,
        *,
        etag: str | None = None,
        lane: Lane | None = None,
        route: str = "r",
    ) -> Task:
        """Queue what a hook says about `key`, or a look at it."""
        event = str(claim) if claim else LOOK
        task = Task(route=route, key=key, claim=claim, etag=etag, event=event, received=self.clock.now)
        await self.queue.twin().publish(task.encode(), lane=lane or Lane(route))
        return task

    async def work(self) -> list[Verdict | None]:
        """Do everything that is due now, one after the other; return the verdicts."""
        before = len(self.seen)
        while lane := next((lane for lane, d in (await self.queue.counts()).lanes.items() if d.ready), None):
            async with aclosing(self.queue.deliveries(lane, 100)) as deliveries:  # type: ignore[type-var]
                await self.attempt(await anext(deliveries))
        return [attempted.verdict for attempted in self.seen[before:]]

    async def work_until_idle(self) -> None:
        """Do everything, and let the time pass that it waits for."""
        for _ in range(100):
            await self.work()
            if not (await self.queue.counts()).waiting:
                return
            self.clock.now += 3600
        raise AssertionError("the work has no end")

    async def take(self, queue: MemoryQueue | None = None) -> Delivery:
        """Take the next delivery, and leave it to the test."""
        async with aclosing((queue or self.queue).deliveries(LIVE, 100)) as deliveries:  # type: ignore[type-var]
            return await anext(deliveries)

    @property
    def outcome(self) -> Verdict | None:
        return self.seen[-1].verdict

    async def letters(self) -> list[DeadLetter]:
        return await self.queue.buried(100)

    def touched(self) -> list[str]:
        """What was done to the target."""
        writes = {"write target", "restate target", "delete target", "complete_upload target"}
        return [entry for entry in self.journal if entry in writes]

    def looks(self) -> list[str]:
        """What was published meanwhile."""
        return [entry for entry in self.journal if entry.startswith("publish")]

    async def idle(self) -> bool:
        """Whether nothing is ready, waiting, held or dead."""
        counts = await self.queue.counts()
        return not (sum(counts.ready.values()) or counts.waiting or counts.held or counts.dead)

    async def come_back(self) -> None:
        """Have the next delivery taken by a worker that dies with it."""
        await self.take(other := self.queue.twin())
        await other.close()

    def again(self, verdict: Verdict | None) -> Task:
        """The task that comes back after `verdict`, which must be a retry."""
        assert isinstance(verdict, Retry), verdict
        task = self.seen[-1].task
        assert task is not None
        return Task.decode(verdict.body) if verdict.body is not None else task
