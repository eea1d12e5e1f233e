"""The queue port: what every backend promises, in prose, and the values that cross it.

1. *Published means durable.* When `publish` returns, the message survives `kill -9` of everything.
2. *One holder at a time*, however long the work takes.
3. *Unsettled work comes back* after its holder dies, with a higher `returned`. What no holder was given is
   given back at once when a holder stops taking, and not counted.
4. *A wait is a wait*: `Retry` and `delay` come back no sooner than asked, and block nobody meanwhile. The
   wall clock may be set back or forth: it hides nothing, brings nothing early, and takes nothing away.
5. *Dead letters never expire*; looking at them changes neither their count nor their order, which is that
   of their burial.
6. *`settle` happens once.* If it raises, the delivery counts as unsettled and comes back.
7. *Order is not promised*, and nothing here may depend on it.
8. *No lane waits behind another*, however much is in it, and a lane that nobody takes from stays as it is:
   nothing in it moves, and nothing counts.
9. *A mark has one holder*: of all who ask whether they are the `first`, one is told so, and again whenever he
   asks again; of the others only he is, and has the mark then, who came `within` seconds or more before or
   after its holder. That counts from arrival to arrival, whenever it is asked.

`tests/contract/test_queue.py` holds every backend to each line.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

MAX_DELAY = 3600
"""The longest wait a queue takes, in seconds."""

MARK_OUTLIVES = 3600
"""Seconds that a mark lives beyond its `within`: as long as a task may wait between two tries, and so that a
backlog may take that long from a first one to its repetitions."""

MAX_RETURNS = 20
"""What came back unsettled this often is buried by whoever takes it next. It was worked on alone for most of
them, so that nothing else was in hand; and machines, brokers and deployments do not go away under one and the
same task so often."""

MAX_DELIVERIES = 100
"""So often a broker gives a message out by itself: the last resort, out of reach of `MAX_RETURNS`."""

RETURNED = "came back unsettled"
"""How the reason of a message begins that was buried for it, whoever did and when."""

KILLER = f"{RETURNED} {MAX_RETURNS} times: it may be what kills its workers"
"""Why such a message was buried."""


class Kind(StrEnum):
    """Hooks travel on `live` lanes. `bulk` is for jobs over a whole bucket: they never starve live events."""

    LIVE = "live"
    BULK = "bulk"


class Lane(NamedTuple):
    """Where a message waits for its turn: each route has one lane of each kind, so that none waits behind
    another's. The route "" is nobody's: what is no task, and what older versions left, which knew no routes.

    In a queue it is written as its `name`.
    """

    route: str
    kind: Kind = Kind.LIVE

    @property
    def name(self) -> str:
        """The lane as text, such as `live/photos`; `live` for that of nobody."""
        return f"{self.kind}/{self.route}" if self.route else self.kind.value

    @classmethod
    def named(cls, name: str) -> "Lane":
        """Return the lane of that name; nobody's live one for what is no name."""
        kind, _, route = name.partition("/")
        return cls(route, Kind(kind)) if kind in list(Kind) else cls("")


@dataclass(frozen=True, slots=True)
class Done:
    """The task is finished; `outcome` says how, for the logs."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Again after `after` seconds. `counts` is False when the task is not to blame for the wait; `body`
    is what comes back instead of what came."""

    after: float
    why: str
    counts: bool = True
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Bury:
    """Never again by itself: a dead letter, for a person. `body` is what is kept instead of what came."""

    why: str
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """It belongs to another lane, and goes on there at once with all that it has been through. `body` is what
    goes instead of what came."""

    lane: Lane
    body: bytes | None = None


Verdict = Done | Retry | Bury | Move


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that ended in a counted `Retry`, or in `Bury`: when (epoch seconds), which, and why."""

    at: float
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in this process's hands. `attempt` counts the failures, from 1, and `returned` how often it
    came back unsettled since it was last published: its holder died, or lost it. `receipt` is the backend's
    own."""

    body: bytes
    attempt: int
    receipt: object
    lane: Lane
    failures: tuple[Failure, ...] = ()
    returned: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A buried message, whole: its bytes, why it was buried and when, and what was tried before."""

    id: str
    body: bytes
    lane: Lane
    why: str
    at: float
    attempt: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is in one lane: ready, waiting for its time, being worked on now; and for how many seconds the
    one has been ready that became so first. None for what the backend cannot tell of a lane."""

    ready: int = 0
    waiting: int | None = None
    held: int | None = None
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Depths, by lane and of all. `held` are being worked on now; None where the backend cannot tell.
    `silent` names what of the backend takes nothing although the rest answers; `losing` are sentences, each
    on what makes the backend lose messages and how to end it. Only a person can mend either."""

    lanes: Mapping[Lane, Depth] = field(default_factory=dict)
    waiting: int = 0
    held: int | None = None
    dead: int = 0
    silent: tuple[str, ...] = ()
    losing: tuple[str, ...] = ()

    @property
    def ready(self) -> dict[Kind, int]:
        """What is ready in all lanes of each kind."""
        return {
            kind: sum(depth.ready for lane, depth in self.lanes.items() if lane.kind is kind) for kind in Kind
        }

    def of(self, lane: Lane) -> Depth:
        """Return the depth of `lane`; one that was never used has none."""
        nothing = Depth() if self.held is None else Depth(0, 0, 0, 0.0)
        return self.lanes.get(lane, nothing)

    def besides(self, routes: Collection[str]) -> dict[str, int]:
        """Return how many tasks there are of each route that is none of `routes`."""
        found: Counter[str] = Counter()
        for lane, depth in self.lanes.items():
            if lane.route and lane.route not in routes:
                found[lane.route] += depth.ready + (depth.waiting or 0) + (depth.held or 0)
        return {route: number for route, number in found.items() if number}


class Oldest:
    """Keeps the `limit` letters that were buried first of all it is given, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[DeadLetter] = []

    def add(self, letter: DeadLetter) -> None:
        """Take note of `letter`."""
        self._kept.append(letter)
        if len(self._kept) > 2 * self._limit + 1000:
            self._kept = self.letters()

    def letters(self) -> list[DeadLetter]:
        """Return what is kept, the oldest first."""
        return sorted(self._kept, key=lambda letter: letter.at)[: self._limit]


def check_delay(delay: float) -> None:
    """Raise ValueError for a delay that no backend takes."""
    if not 0 <= delay <= MAX_DELAY:
        raise ValueError(f"a delay is 0 to {MAX_DELAY} s, not {delay}")


def mark_lives(within: float) -> float:
    """Return the seconds after which a mark is gone that nobody asked for again."""
    return within + MARK_OUTLIVES


def after_verdict(delivery: Delivery, verdict: Retry | Bury | Move, now: float) -> tuple[Failure, ...]:
    """Return the failures of `delivery` with what `verdict` adds: a wait that does not count adds none."""
    if isinstance(verdict, Move) or (isinstance(verdict, Retry) and not verdict.counts):
        return delivery.failures
    return (*delivery.failures, Failure(now, delivery.attempt, verdict.why))


class Publisher(Protocol):
    """The way in. Every call raises `QueueAway` when durability was not confirmed in time."""

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        """Return only when `body` is durable. It is delivered no sooner than `delay` seconds from now
        (at most `MAX_DELAY`, else ValueError)."""

    async def publish_all(self, bodies: Mapping[Lane, Collection[bytes]]) -> None:
        """Return only when every one of `bodies` is durable in its lane; thousands take not much longer than
        one. When it raises, any of them may be in the queue."""

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        """Keep `body` as a dead letter at once; for what arrived in no shape to be a task."""

    async def check(self) -> None:
        """Return when a message published now would become durable, as far as that can be found out without
        leaving one. Takes as long as the queue lets it wait: set a limit."""


class Consumer(Protocol):
    """The way out."""

    def deliveries(self, lane: Lane, limit: int) -> AsyncIterator[Delivery]:
        """Yield messages for ever, with at most `limit` of them unsettled; one call at a time for each lane.
        Closing the iterator, or cancelling who waits for it, takes no more and gives back what was not yet
        yielded, uncounted; what was yielded stays held until it is settled or the queue is closed. The
        broker's absence is waited out."""

    def holds(self, delivery: Delivery) -> bool:
        """Whether the delivery is still this process's, as far as can be known without asking."""

    async def give_back(self, delivery: Delivery) -> None:
        """Let others have a delivery that nobody has begun to work on, at once and uncounted. One that is no
        longer held comes back by itself, and so does one whose queue is away."""

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """End the delivery, once. Raises `LostDelivery` when it is no longer held."""


class Inspector(Protocol):
    """The operator's side. Every call raises `QueueAway` when the queue cannot be asked."""

    async def counts(self) -> Counts:
        """Return the depths now."""

    def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """Yield every dead letter there is, in any order, going over them once, however many there are; what
        is buried meanwhile may be among them. Close the iterator soon: until then others may have to wait,
        and so may every other call of the Inspector's but `counts`."""

    async def buried(self, limit: int) -> list[DeadLetter]:
        """Return the `limit` dead letters that were buried first, in the order of their burial."""

    async def replay(self, ids: Collection[str] | None = None) -> set[str]:
        """Send the dead letters `ids` (None: all there are now) back to their lanes as first attempts, each
        once. Returns the ids found. Each is durable in its lane before it leaves the dead."""

    async def drop(self, ids: Collection[str]) -> set[str]:
        """Delete the dead letters `ids` for good. Returns the ids found."""


class Marks(Protocol):
    """What was begun by whom, for a while: so that of several who could do a thing one does it."""

    async def first(self, key: str, holder: str, *, at: float, within: float) -> bool:
        """Return True when `holder`, who came `at` (epoch seconds, the same whenever he asks), is the first
        to ask for `key`, or asks again, or came `within` seconds or more before or after the holder of the
        mark: then it is his. False for every other.

        Two who take it from a third in the same moment may both be told True. The mark lives for
        `mark_lives(within)` after its holder last asked, and survives what a message survives; a restart of
        the queue may begin the time anew. Whoever asks for a key gives the same `within`: with another it may
        count as another key. Raises `QueueAway`."""


class Queue(Publisher, Consumer, Inspector, Marks, Protocol):
    """All of it, as `open_queue` returns it."""

    async def close(self) -> None:
        """Let go of everything; what is unsettled comes back to others, at once."""
