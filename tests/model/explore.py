"""Every interleaving of the mirror protocol on one key, driving the decisions of the real worker/plan.py.

The world: a source changed by a script, one hint for each change; a queue that delivers in any
order, some hints twice; workers; a target. What goes wrong, each within a budget: a worker
*crashes* at any step and its message comes back; its write *lands late*, after the crash or after
a timeout; the broker takes a worker for dead and delivers its message to another while it goes on
(a *zombie*); the source answers with its *previous* state for a while; it *refuses* an answer.

Assumed of time, as docs/protocol.md has it: a promised look comes after the write it was promised
for has landed or never will, and after a stale source has become current.

Checked: whenever nothing is left to do, the target equals the source; and no delete is ever issued
without a source that answered "no such key".
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from common.store.port import MARK, State
from common.task import Claim
from worker.plan import Copy, Delete, Skip, Step, contradicts, differs, plan, sight, uncovers

ABSENT, A, B = 0, 1, 2

SOURCE: tuple[State | None, ...] = (None, State("a", 1, "t1"), State("b", 1, "t2"))
TARGET: tuple[State | None, ...] = (
    None,
    *(State(s.etag, s.size, metadata={MARK: s.identity}) for s in SOURCE if s is not None),
)

Decide = Callable[[State | None, State | None], Step]


@dataclass(frozen=True)
class Protocol:
    """The protocol's parts that a mutant may change."""

    promises: bool = True
    """Publish the look before the write."""
    looks_again: bool = True
    """Publish a look for a hint that the source contradicts."""
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
    """`hint`: the value an event told of, -1 for a look. `back`: delivered before. `waits`: the writes
    that a look must not come before. `seen`: what the source showed when it contradicted a hint, else -1."""

    hint: int
    back: bool = False
    waits: tuple[int, ...] = ()
    seen: int = -1

    @property
    def claim(self) -> Claim | None:
        """What the event said had happened."""
        if self.hint < 0:
            return None
        return Claim.CREATED if self.hint else Claim.REMOVED

    @property
    def etag(self) -> str | None:
        """The ETag that the event named."""
        state = SOURCE[self.hint] if self.hint > 0 else None
        return state.etag if state else None


class Worker(NamedTuple):
    """At step `at` with a message. `value` is what it will write, `write` the id of the promised write,
    `zombie` that the message went to somebody else, `proved` that an absence was read and not guessed."""

    at: str
    message: Message
    value: int = -1
    write: int = -1
    zombie: bool = False
    proved: bool = True


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
        elif message.waits:
            looks.add(Message(-1, message.back, tuple(i for i in message.waits if i in live)))
        else:
            looks.add(message)
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
            worker = Worker("reads", message._replace(waits=()))
            yield (
                f"a worker takes {'look' if message.hint < 0 else 'hint ' + name(message.hint)}",
                world._replace(queue=tuple(queue), workers=(*world.workers, worker)),
            )

    def goes_wrong(self, rest: World, worker: Worker) -> Iterator[Move]:
        """A crash, or the broker takes the worker for dead."""
        message = worker.message._replace(back=True)
        back = rest if worker.zombie else rest._replace(queue=(*rest.queue, message))
        if rest.budget[CRASH]:
            crashed = back._replace(budget=spend(rest.budget, CRASH))
            yield f"CRASH when it {worker.at}", crashed
            if worker.at == "writes" and self.faults.late:
                yield (
                    "CRASH with a write in flight",
                    crashed._replace(late=(*rest.late, (worker.write, worker.value))),
                )
        if rest.budget[ZOMBIE] and not worker.zombie:
            yield (
                f"ZOMBIE when it {worker.at}",
                back._replace(
                    workers=(*rest.workers, worker._replace(zombie=True)), budget=spend(rest.budget, ZOMBIE)
                ),
            )

    def reads(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Look at the source; what contradicts the hint is looked at again later."""
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
        if contradicts(source, message.claim) and not uncovers(source, message.claim):
            return self.look_again(rest, worker)
        if message.seen >= 0 and sight(SOURCE[message.seen]) == sight(source):
            return rest  # overtaken: acknowledged
        return self.with_worker(rest, worker._replace(at="compares"))

    def look_again(self, rest: World, worker: Worker) -> World:
        """The world with a look at what the source shows."""
        if not self.protocol.looks_again:
            return rest
        return rest._replace(queue=(*rest.queue, Message(-1, seen=worker.value)))

    def refused(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The source answers 403: try again, unless a mutant believes it means absent."""
        if not rest.budget[REFUSAL]:
            return
        rest = rest._replace(budget=spend(rest.budget, REFUSAL))
        if self.protocol.error_is_absent:
            yield "is refused", self.after_read(rest, worker._replace(value=ABSENT, proved=False))
        else:
            yield "is refused, retries", self.again(rest, worker)

    def again(self, rest: World, worker: Worker) -> World:
        """The message back in the queue as a later attempt, unless it is somebody else's already."""
        if worker.zombie:
            return rest
        return rest._replace(queue=(*rest.queue, worker.message._replace(back=True)))

    def compares(self, rest: World, worker: Worker) -> Iterator[Move]:
        """HEAD the target, then do what is decided."""
        message, source = worker.message, self.shows[worker.value]
        step = self.protocol.decide(source, TARGET[rest.target])
        if isinstance(step, Skip):
            other = differs(source, message.claim, message.etag) or uncovers(source, message.claim)
            after = self.look_again(rest, worker) if other else rest  # acknowledged
        elif isinstance(step, Copy) and (message.hint < 0 or message.back):
            after = self.with_worker(rest, worker._replace(at="rereads"))
        else:
            value = ABSENT if isinstance(step, Delete) else worker.value
            after = self.with_worker(rest, worker._replace(at="promises", value=value))
        yield f"sees {name(rest.target)} on the target", after

    def rereads(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Copy what the source holds by now; nothing is a reason to start over."""
        for value in {rest.source, rest.shown}:
            if value == ABSENT:
                yield "reads nothing where there was something", self.again(rest, worker)
            else:
                yield (
                    f"reads {name(value)}",
                    self.with_worker(rest, worker._replace(at="promises", value=value)),
                )

    def promises(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Publish the look, under the smallest id no live write has."""
        live = {write for write, _ in rest.late} | {w.write for w in rest.workers}
        write = next(i for i in range(len(live) + 1) if i not in live)
        if self.protocol.promises:
            rest = rest._replace(queue=(*rest.queue, Message(-1, waits=(write,))))
        yield "promises a look", self.with_worker(rest, worker._replace(at="writes", write=write))

    def writes(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The write lands, or times out and may land later; a fenced zombie stops before it."""
        if worker.zombie and self.protocol.fences:
            yield "notices that its delivery is lost", rest
            return
        done = worker._replace(at="acknowledges", write=-1)
        yield f"writes {name(worker.value)}", self.with_worker(rest._replace(target=worker.value), done)
        if rest.budget[TIMEOUT]:
            late = rest._replace(
                late=(*rest.late, (worker.write, worker.value)), budget=spend(rest.budget, TIMEOUT)
            )
            # A look that failed after its promise is not retried: the promised look is its retry.
            yield "TIMEOUT of its write", late if worker.message.hint < 0 else self.again(late, worker)

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
        Stops at `limit` worlds."""
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
