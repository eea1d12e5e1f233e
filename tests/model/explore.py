"""Every interleaving of the mirror protocol on one key, driving the decisions of the real worker/plan.py.

The world: a source changed by a script, one hint for each change; a queue that delivers in any
order, some hints twice; workers; a target. What goes wrong, each within a budget: a worker
*crashes* at any step and its message comes back; its write *lands late*, after the crash or after
a timeout; the broker takes a worker for dead and delivers its message to another while it goes on
(a *zombie*); the source answers with its *previous* state for a while; it *refuses* an answer.

Assumed of time, as docs/protocol.md has it: a look comes after every write has landed, or never will, that
was under way when it was published, one of a zombie included; and after a stale source has become current.

Checked: whenever nothing is left to do, the target equals the source; and no delete is ever issued
without a source that answered "no such key".
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from common.store.mark import mark_for, origin_of
from common.store.port import MARK, State
from common.task import Claim
from worker.plan import Copy, Delete, Heed, Rules, Skip, Step, doubtful, heed, plan, sight

ABSENT, A, B = 0, 1, 2

RULES = Rules(origin_of("the source"), origin_of("the target"))

SOURCE: tuple[State | None, ...] = (None, State("a", 1, "t1"), State("b", 1, "t2"))
TARGET: tuple[State | None, ...] = (
    None,
    *(State(s.etag, s.size, metadata={MARK: str(mark_for(s, RULES.origin))}) for s in SOURCE if s),
)

Decide = Callable[[State | None, State | None, Rules], Step]


@dataclass(frozen=True)
class Protocol:
    """The protocol's parts that a mutant may change."""

    eventual: bool = False
    """The protocol for a source that may show old states."""
    looks_back: bool = True
    """Read the source again after a write, and start over when it moved."""
    looks_in_doubt: bool = True
    """Publish a look for a delivery that came back, or a write whose end is not known."""
    forgets_claim: bool = True
    """Once it wrote, follow the source alone, also in the attempts after."""
    promises: bool = True
    """Eventual: publish the look before the write."""
    looks_again: bool = True
    """Eventual: publish a look for a hint that the source contradicts."""
    decide: Decide = plan
    obeys: bool = False
    """Believe the event instead of looking at the source."""
    error_is_absent: bool = False
    """Take any failed read for a missing key."""
    fences: bool = False
    """Have a zombie notice in time that its delivery is lost."""


@dataclass(frozen=True)
class Faults:
    """How much may go wrong."""

    workers: int = 2
    doubled: int = 0
    crashes: int = 0
    zombies: int = 0
    timeouts: int = 0
    refusals: int = 0
    late: bool = True
    stale: bool = False
    versions: bool = False
    """The source keeps versions, and each change is the removal of one: nothing tells what it uncovers."""


class Message(NamedTuple):
    """`hint`: the value an event told of, -1 for a look. `doubt`: it came back, or a write of it has an end
    that nobody knows. `wrote`: it has written before. `waits`: the writes that a look must not come before.
    `seen`: what the source showed when it contradicted a hint, else -1."""

    hint: int
    doubt: bool = False
    wrote: bool = False
    waits: tuple[int, ...] = ()
    seen: int = -1

    @property
    def etag(self) -> str | None:
        """The ETag that the event named."""
        state = SOURCE[self.hint] if self.hint > 0 else None
        return state.etag if state else None


class Worker(NamedTuple):
    """At step `at` with a message as it was delivered. `value` is what it writes or wrote, `write` the id of
    that write, `wrote` that it did in this attempt, `zombie` that the message went to somebody else, `proved`
    that an absence was read and not guessed."""

    at: str
    message: Message
    value: int = -1
    write: int = -1
    wrote: bool = False
    zombie: bool = False
    proved: bool = True

    @property
    def claim(self) -> Claim | None:
        """What the event said had happened; nothing that counts once the task has written."""
        if self.message.hint < 0 or self.wrote or self.message.wrote:
            return None
        return Claim.CREATED if self.message.hint else Claim.REMOVED


class World(NamedTuple):
    """Everything there is at one moment. `shown` is what a stale source answers with."""

    source: int
    shown: int
    step: int
    queue: tuple[Message, ...]
    workers: tuple[Worker, ...]
    late: tuple[tuple[int, int], ...]
    target: int
    budget: tuple[int, int, int, int, int]


DOUBLED, CRASH, ZOMBIE, TIMEOUT, REFUSAL = range(5)

Move = tuple[str, World]


def name(value: int) -> str:
    """A value for people."""
    return ("nothing", "A", "B")[value]


def spend(budget: tuple[int, ...], which: int) -> tuple[int, int, int, int, int]:
    """The budget with one less of `which`."""
    return tuple(left - (index == which) for index, left in enumerate(budget))  # type: ignore[return-value]


def settled(world: World) -> World:
    """The world in normal form: order of messages and workers is nothing, dead writes are forgotten, and
    equal looks are one. Fewer looks make it harder for the protocol, and the worlds finite."""
    live = {write for write, _ in world.late} | {w.write for w in world.workers}
    looks, hints = set[Message](), list[Message]()
    for message in world.queue:
        if message.hint >= 0:
            hints.append(message)
        else:
            looks.add(message._replace(waits=tuple(i for i in message.waits if i in live)))
    return World(
        world.source,
        world.shown,
        world.step,
        tuple(sorted([*looks, *hints])),
        tuple(sorted(world.workers)),
        tuple(sorted(world.late)),
        world.target,
        world.budget,
    )


@cache
def decided(decide: Decide, source: int, target: int) -> Step:
    """What the real rules say of what is at the source and on the target."""
    return decide(SOURCE[source], TARGET[target], RULES)


@cache
def seen_as(value: int) -> str:
    """What a task keeps of a source that showed this."""
    return sight(SOURCE[value])


class Explorer:
    """All worlds that can be reached from one beginning."""

    def __init__(self, protocol: Protocol, faults: Faults, script: tuple[int, ...], begin: int) -> None:
        self.protocol, self.faults, self.script = protocol, faults, script
        budget = (faults.doubled, faults.crashes, faults.zombies, faults.timeouts, faults.refusals)
        self.shows = tuple(s and replace(s, keeps_versions=faults.versions) for s in SOURCE)
        self.first = World(begin, begin, 0, (), (), (), begin, budget)

    def moves(self, world: World) -> Iterator[Move]:
        """Every next world, with what happened."""
        yield from self.outside(world)
        if len(world.workers) < self.faults.workers:
            yield from self.takes(world)
        for worker in set(world.workers):
            others = list(world.workers)
            others.remove(worker)
            rest = world._replace(workers=tuple(others))
            yield from self.goes_wrong(rest, worker)
            yield from getattr(self, worker.at)(rest, worker)

    def outside(self, world: World) -> Iterator[Move]:
        """The user writes, the source catches up, hints double, late writes land or do not."""
        if world.step < len(self.script):
            value = self.script[world.step]
            yield (
                f"the source becomes {name(value)}",
                world._replace(
                    source=value,
                    shown=world.source if self.faults.stale else value,
                    step=world.step + 1,
                    queue=(*world.queue, Message(ABSENT if self.faults.versions else value)),
                ),
            )
        if world.shown != world.source:
            yield "the source is current again", world._replace(shown=world.source)
        if world.budget[DOUBLED]:
            for message in {m for m in world.queue if m.hint >= 0}:
                yield (
                    f"the hint {name(message.hint)} comes twice",
                    world._replace(queue=(*world.queue, message), budget=spend(world.budget, DOUBLED)),
                )
        for write in world.late:
            rest = tuple(other for other in world.late if other != write)
            yield f"a late write of {name(write[1])} lands", world._replace(late=rest, target=write[1])
            yield f"a late write of {name(write[1])} is lost", world._replace(late=rest)

    def takes(self, world: World) -> Iterator[Move]:
        """A free worker takes a message."""
        for message in set(world.queue):
            if message.hint < 0 and (message.waits or world.shown != world.source):
                continue  # its time has not come
            queue = list(world.queue)
            queue.remove(message)
            yield (
                f"a worker takes {'look' if message.hint < 0 else 'hint ' + name(message.hint)}",
                world._replace(queue=tuple(queue), workers=(*world.workers, Worker("reads", message))),
            )

    def goes_wrong(self, rest: World, worker: Worker) -> Iterator[Move]:
        """A crash, or the broker takes the worker for dead."""
        queued = worker.message._replace(doubt=True)
        back = rest if worker.zombie else rest._replace(queue=(*rest.queue, queued))
        if rest.budget[CRASH]:
            crashed = back._replace(budget=spend(rest.budget, CRASH))
            yield f"CRASH when it {worker.at}", crashed
            if worker.at == "writes" and self.faults.late:
                yield "CRASH with a write in flight", self.lands_late(crashed, worker)
        if rest.budget[ZOMBIE] and not worker.zombie:
            zombie = worker._replace(zombie=True, write=self.next_write(rest, worker))
            yield (
                f"ZOMBIE when it {worker.at}",
                back._replace(workers=(*rest.workers, zombie), budget=spend(rest.budget, ZOMBIE)),
            )

    @staticmethod
    def next_write(rest: World, worker: Worker) -> int:
        """The id of the worker's write: the smallest that no live write has."""
        if worker.write >= 0:
            return worker.write
        live = {write for write, _ in rest.late} | {w.write for w in rest.workers}
        return next(i for i in range(len(live) + 1) if i not in live)

    def lands_late(self, world: World, worker: Worker) -> World:
        """The world in which the worker's write may still land."""
        return world._replace(late=(*world.late, (self.next_write(world, worker), worker.value)))

    def reads(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Look at the source; what contradicts the hint is looked at again later, or overtaken."""
        if self.protocol.obeys and worker.message.hint >= 0:
            hint = worker.message.hint
            obeying = worker._replace(at="compares", value=hint, proved=False)
            yield f"obeys {name(hint)}", self.with_worker(rest, obeying)
            return
        for value in {rest.source, rest.shown}:
            yield f"reads {name(value)}", self.after_read(rest, worker._replace(value=value))
        yield from self.refused(rest, worker)

    def after_read(self, rest: World, worker: Worker) -> World:
        """The world after the source showed `worker.value`."""
        message, source = worker.message, self.shows[worker.value]
        worth = heed(source, worker.claim, eventual=self.protocol.eventual)
        if worth is Heed.LATER:
            return self.look_again(rest, worker)
        seen = message.seen >= 0 and seen_as(message.seen) == seen_as(worker.value)
        if seen or (source is None and worth is Heed.OVERTAKEN):
            return self.done(rest, worker)
        return self.with_worker(rest, worker._replace(at="compares"))

    def look_again(self, rest: World, worker: Worker) -> World:
        """The world with a look at what the source shows."""
        if not self.protocol.looks_again:
            return rest
        return rest._replace(queue=(*rest.queue, Message(-1, seen=worker.value)))

    def done(self, rest: World, worker: Worker) -> World:
        """The world in which the message is acknowledged; in doubt a look is published before."""
        strong = not self.protocol.eventual
        if strong and worker.message.doubt and self.protocol.looks_in_doubt:
            waits = {write for write, _ in rest.late} | {w.write for w in rest.workers if w.zombie}
            rest = rest._replace(queue=(*rest.queue, Message(-1, waits=tuple(sorted(waits)))))
        return self.with_worker(rest, worker._replace(at="acknowledges", value=-1))

    def refused(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The source answers 403: try again, unless a mutant believes it means absent."""
        if not rest.budget[REFUSAL]:
            return
        rest = rest._replace(budget=spend(rest.budget, REFUSAL))
        if self.protocol.error_is_absent:
            yield "is refused", self.after_read(rest, worker._replace(value=ABSENT, proved=False))
        else:
            yield "is refused, retries", self.again(rest, worker)

    def again(self, rest: World, worker: Worker, *, doubt: bool = False) -> World:
        """The message back in the queue as a later attempt, unless it is somebody else's already."""
        if worker.zombie:
            return rest
        message = worker.message._replace(doubt=worker.message.doubt or doubt)
        if worker.wrote and self.protocol.forgets_claim:
            message = message._replace(wrote=True)
        return rest._replace(queue=(*rest.queue, message))

    def compares(self, rest: World, worker: Worker) -> Iterator[Move]:
        """HEAD the target, then do what is decided."""
        message, source = worker.message, self.shows[worker.value]
        step = decided(self.protocol.decide, worker.value, rest.target)
        if isinstance(step, Skip):
            eventual = self.protocol.eventual
            other = eventual and doubtful(source, worker.claim, message.etag, None)
            after = self.done(self.look_again(rest, worker) if other else rest, worker)
        elif isinstance(step, Copy) and (message.hint < 0 or message.doubt or message.wrote or worker.wrote):
            after = self.with_worker(rest, worker._replace(at="rereads"))
        else:
            value = ABSENT if isinstance(step, Delete) else worker.value
            after = self.with_worker(rest, self.about_to_write(rest, worker, value))
        yield f"sees {name(rest.target)} on the target", after

    def about_to_write(self, rest: World, worker: Worker, value: int) -> Worker:
        """The worker at its next step."""
        at = "promises" if self.protocol.eventual else "writes"
        return worker._replace(at=at, value=value, write=self.next_write(rest, worker))

    def rereads(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Copy what the source holds by now; nothing is a reason to start over."""
        for value in {rest.source, rest.shown}:
            if value == ABSENT:
                over = worker._replace(at="reads", value=-1)
                yield "reads nothing where there was something: from the top", self.with_worker(rest, over)
            else:
                yield f"reads {name(value)}", self.with_worker(rest, self.about_to_write(rest, worker, value))

    def promises(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Publish the look."""
        if self.protocol.promises:
            rest = rest._replace(queue=(*rest.queue, Message(-1, waits=(worker.write,))))
        yield "promises a look", self.with_worker(rest, worker._replace(at="writes"))

    def writes(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The write lands, or times out and may land later; a fenced zombie stops before it."""
        if worker.zombie and self.protocol.fences:
            yield "notices that its delivery is lost", rest
            return
        landed = rest._replace(target=worker.value)
        yield f"writes {name(worker.value)}", self.after_write(landed, worker)
        if rest.budget[TIMEOUT]:
            late = self.lands_late(rest._replace(budget=spend(rest.budget, TIMEOUT)), worker)
            if self.protocol.eventual and worker.message.hint < 0:
                after = late  # a look that failed after its promise: the promised look is its retry
            else:
                after = self.again(late, worker._replace(wrote=True), doubt=True)
            yield "TIMEOUT of its write", after

    def after_write(self, rest: World, worker: Worker) -> World:
        """The world after a write that is known to have landed."""
        if self.protocol.eventual or not self.protocol.looks_back:
            return self.done(rest, worker._replace(write=-1))
        write = worker.write if worker.zombie else -1
        return self.with_worker(rest, worker._replace(at="looks_back", wrote=True, write=write))

    def looks_back(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Read the source again: start over when it is not what was written."""
        for value in {rest.source, rest.shown}:
            if value == worker.value:
                yield f"looks back at {name(value)}", self.done(rest, worker)
            else:
                over = worker._replace(at="reads", value=-1)
                yield f"looks back at {name(value)}: from the top", self.with_worker(rest, over)
        yield from self.refused(rest, worker)

    def acknowledges(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Done; the message is gone."""
        yield "acknowledges", rest

    @staticmethod
    def with_worker(rest: World, worker: Worker) -> World:
        """The world with the worker in it."""
        return rest._replace(workers=(*rest.workers, worker))

    def wrong(self, world: World) -> str | None:
        """What is wrong with this world, None when nothing is."""
        if any(w.at == "writes" and w.value == ABSENT and not w.proved for w in world.workers):
            return "deletes without proof"
        quiet = world.step == len(self.script) and not (world.queue or world.workers or world.late)
        if quiet and world.shown == world.source != world.target:
            return f"ends with source {name(world.source)}, target {name(world.target)}"
        return None

    def explore(self, limit: int) -> tuple[int, list[str]]:
        """Return the number of worlds reached and the shortest way to a wrong one, [] when there is none.
        Raises RuntimeError when there are more than `limit`."""
        before: dict[World, Move | None] = {self.first: None}
        frontier = deque([self.first])
        while frontier and len(before) < limit:
            world = frontier.popleft()
            if wrong := self.wrong(world):
                return len(before), [*_way(before, world), wrong]
            for what, after in self.moves(world):
                nxt = settled(after)
                if nxt not in before:
                    before[nxt] = (what, world)
                    frontier.append(nxt)
        if frontier:
            raise RuntimeError(f"{limit} worlds, and not all: what lies beyond is not proven")
        return len(before), []


def _way(before: dict[World, Move | None], world: World) -> list[str]:
    """What happened on the way to `world`."""
    steps: list[str] = []
    while (move := before[world]) is not None:
        steps.append(move[0])
        world = move[1]
    return steps[::-1]


def scripts(length: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every beginning and every script of `length` real changes."""
    for begin in (ABSENT, A):
        yield from ((begin, script) for script in _changes(begin, length))


def _changes(before: int, length: int) -> Iterator[tuple[int, ...]]:
    if not length:
        yield ()
        return
    for value in (ABSENT, A, B):
        if value != before:
            yield from ((value, *rest) for rest in _changes(value, length - 1))
