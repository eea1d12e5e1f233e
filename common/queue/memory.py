"""The queue in memory: the same promises minus durability. For tests and for trying things out."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from common.errors import LostDelivery
from common.queue.port import (
    Bury,
    Counts,
    DeadLetter,
    Delivery,
    Depth,
    Done,
    Failure,
    Lane,
    Move,
    Verdict,
    after_verdict,
    check_delay,
    mark_lives,
)

POLL = 0.05
"""Seconds between two looks at what has become due."""


@dataclass(slots=True)
class _Message:
    id: str
    body: bytes
    lane: Lane
    due: float
    attempt: int = 1
    failures: tuple[Failure, ...] = ()
    returned: int = 0
    holder: "MemoryQueue | None" = None


@dataclass(slots=True)
class _Shared:
    """What several handles on one queue have in common."""

    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    messages: dict[str, _Message] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    marks: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    """By key: the holder, when he came, and until when the mark lives."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryQueue:
    """All messages in one dictionary. `clock` is in seconds, and nobody sets it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, shared: _Shared | None = None) -> None:
        self._clock = clock
        self._shared = shared or _Shared()
        self._messages, self._dead = self._shared.messages, self._shared.dead

    def twin(self) -> "MemoryQueue":
        """Return another handle on the same messages, as another process would hold it."""
        return MemoryQueue(self._clock, shared=self._shared)

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        """See the port."""
        check_delay(delay)
        message = self._message(body, lane, self._clock() + delay)
        self._messages[message.id] = message

    async def publish_all(self, bodies: Mapping[Lane, Collection[bytes]]) -> None:
        """See the port."""
        await asyncio.gather(
            *(self.publish(body, lane=lane) for lane, some in bodies.items() for body in some)
        )

    async def check(self) -> None:
        """See the port."""
        await self.counts()

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        """See the port."""
        self._lay(self._message(body, lane, 0.0), why)

    def _message(self, body: bytes, lane: Lane, due: float) -> _Message:
        return _Message(str(next(self._shared.numbers)), body, lane, due)

    async def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
        """See the port."""
        while True:
            mine = sum(m.holder is self and m.lane == lane for m in self._messages.values())
            message = self._next(lane) if mine < limit else None
            if message is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._shared.settled.wait()
                continue
            message.holder = self
            yield Delivery(message.body, message.attempt, message, lane, message.failures, message.returned)

    def _next(self, lane: Lane) -> _Message | None:
        now = self._clock()
        ready = (m for m in self._messages.values() if m.lane == lane and m.holder is None and m.due <= now)
        return next(ready, None)

    def holds(self, delivery: Delivery) -> bool:
        """See the port."""
        return isinstance(delivery.receipt, _Message) and delivery.receipt.holder is self

    async def give_back(self, delivery: Delivery) -> None:
        """See the port."""
        if self.holds(delivery) and isinstance(delivery.receipt, _Message):
            delivery.receipt.holder = None

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """See the port."""
        message = delivery.receipt
        if not isinstance(message, _Message) or message.holder is not self:
            raise LostDelivery("the delivery was settled or given back before")
        message.holder = None
        if not isinstance(verdict, Done):
            message.failures = after_verdict(delivery, verdict, time.time())
        if isinstance(verdict, Done):
            del self._messages[message.id]
        elif isinstance(verdict, Bury):
            message.body = verdict.body or message.body
            self._lay(message, verdict.why)
        elif isinstance(verdict, Move):
            message.lane, message.body = verdict.lane, verdict.body or message.body
            message.due = self._clock()
        else:
            message.attempt += verdict.counts
            message.returned = 0
            message.body = verdict.body or message.body
            message.due = self._clock() + verdict.after
        self._shared.settled.set()  # whoever waits now, and nobody else
        self._shared.settled.clear()

    def _lay(self, message: _Message, why: str) -> None:
        self._messages.pop(message.id, None)
        self._dead[message.id] = DeadLetter(
            message.id, message.body, message.lane, why, time.time(), message.attempt, message.failures
        )

    async def counts(self) -> Counts:
        """See the port."""
        lanes = {lane: self._depth(lane) for lane in {message.lane for message in self._messages.values()}}
        return Counts(
            lanes,
            waiting=sum(depth.waiting or 0 for depth in lanes.values()),
            held=sum(depth.held or 0 for depth in lanes.values()),
            dead=len(self._dead),
        )

    def _depth(self, lane: Lane) -> Depth:
        now, all_ = self._clock(), [m for m in self._messages.values() if m.lane == lane]
        free = [m for m in all_ if m.holder is None]
        ready = [m.due for m in free if m.due <= now]
        oldest = now - min(ready) if ready else 0.0
        return Depth(len(ready), len(free) - len(ready), len(all_) - len(free), oldest)

    async def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """See the port."""
        for letter in list(self._dead.values()):
            yield letter

    async def buried(self, limit: int) -> list[DeadLetter]:
        """See the port."""
        return list(self._dead.values())[:limit]

    async def replay(self, ids: Collection[str] | None = None) -> set[str]:
        """See the port."""
        found = set(self._dead) if ids is None else set(ids) & set(self._dead)
        for key in found:
            letter = self._dead.pop(key)
            self._messages[key] = _Message(
                key, letter.body, letter.lane, self._clock(), failures=letter.failures
            )
        return found

    async def drop(self, ids: Collection[str]) -> set[str]:
        """See the port."""
        found = set(ids) & set(self._dead)
        for key in found:
            del self._dead[key]
        return found

    async def first(self, key: str, holder: str, *, at: float, within: float) -> bool:
        """See the port."""
        now, marks = self._clock(), self._shared.marks
        held_by, came, until = marks.get(key, (holder, at, now))
        if held_by != holder and abs(at - came) < within and until > now:
            return False
        marks[key] = (holder, at, now + mark_lives(within))
        return True

    async def close(self) -> None:
        """Give back what this handle holds."""
        for message in [m for m in self._messages.values() if m.holder is self]:
            message.holder = None
            message.returned += 1
