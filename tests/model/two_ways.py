"""Every interleaving of two routes that keep two buckets equal both ways, on one key, driving worker/plan.py.

The world: people write and remove on either side by a script; each change of a bucket, those by the workers
too, is told by a hook of that side, in any order, some twice; workers look, write and look back; one may
crash, and its write land late.

A source may say once that a key is not there, though it is.

Assumed of time, as docs/two-ways.md has it: a hook about an object is handled within plan.SETTLED seconds
after it was written, whenever somebody must know whether it was; a look in doubt comes after every write has
landed that was under way.

Checked: whenever nothing is left to do, both sides hold the same; and it is what was written last, or where
the last was a removal, not what was removed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import cache
from hashlib import md5
from typing import NamedTuple

from common.store.mark import Body, mark_for, origin_of
from common.store.port import MARK, State
from common.task import Claim
from worker.plan import Copy, Delete, Heed, Restate, Rules, Settle, Skip, Step, Why, heed, plan, sight

SIDES = ("here", "there")

RULES = tuple(Rules(origin_of(SIDES[side]), origin_of(SIDES[1 - side]), two_ways=True) for side in range(2))

PACE = 1000
"""Seconds between two steps of the script."""


class Thing(NamedTuple):
    """An object: its bytes, when it was written there, and the mark it carries."""

    letter: str
    at: int
    mark: str = ""


@cache
def state_of(thing: Thing | None) -> State | None:
    """The object as its store tells it."""
    if thing is None:
        return None
    etag = md5(thing.letter.encode(), usedforsecurity=False).hexdigest()
    metadata = {MARK: thing.mark} if thing.mark else {}
    return State(etag, 1, formatdate(thing.at, usegmt=True), metadata=metadata)


@cache
def sight_of(thing: Thing | None) -> str:
    """What tells the object from any other, as a worker looks at it."""
    return sight(state_of(thing))


@cache
def decide(
    side: int,
    source: Thing | None,
    target: Thing | None,
    claim: Claim | None,
    told_at: int,
    now: int,
    *,
    two_ways: bool,
) -> Step:
    """What the real rules say."""
    rules = replace(RULES[side], two_ways=two_ways)
    return plan(state_of(source), state_of(target), rules, claim=claim, told=told_at, now=now)


@cache
def copied(side: int, thing: Thing, at: int) -> Thing:
    """The copy that is made of `thing` from `side`."""
    source, rules = state_of(thing), RULES[side]
    assert source is not None
    mark = mark_for(source, rules.origin, body=Body.of(source.etag, source.size), written=rules.age(source))
    return Thing(thing.letter, at, str(mark))


class Message(NamedTuple):
    """A hook of `side`, or with no claim a look; `doubt` as a task has it."""

    side: int
    claim: Claim | None = None
    doubt: bool = False
    waits: bool = False


class Worker(NamedTuple):
    """At step `at` with a message; `seen` is what its source showed at the time `now`, `old` what its target
    did, `thing` what it writes."""

    at: str
    message: Message
    now: int = 0
    seen: Thing | None = None
    old: Thing | None = None
    thing: Thing | None = None
    wrote: bool = False


class World(NamedTuple):
    """Everything there is at one moment."""

    things: tuple[Thing | None, Thing | None]
    step: int
    queue: tuple[Message, ...]
    workers: tuple[Worker, ...]
    late: tuple[tuple[int, Thing | None, Thing | None], ...]
    """Writes that may still land: on which side, over what, and what."""
    doubled: int
    crashes: int
    lies: int
    removed: str = ""
    """The letter that the script removed last."""


Move = tuple[str, World]
Script = tuple[tuple[int, str], ...]
"""Steps: on which side, and the letter that is written there; "" removes, once there is something."""


def put(world: World, side: int, thing: Thing | None) -> World:
    """The world with `thing` on `side`, and the hook that tells of it."""
    if thing == world.things[side]:
        return world  # a removal of nothing tells nobody
    things = (thing, world.things[1]) if side == 0 else (world.things[0], thing)
    claim = Claim.CREATED if thing else Claim.REMOVED
    return world._replace(things=things, queue=(*world.queue, Message(side, claim)))


def settled(world: World) -> World:
    """The world in normal form."""
    looks = {m for m in world.queue if m.claim is None}
    hooks = [m for m in world.queue if m.claim is not None]
    return world._replace(
        queue=tuple(sorted([*looks, *hooks], key=hash)),
        workers=tuple(sorted(world.workers, key=hash)),
        late=tuple(sorted(world.late, key=hash)),
    )


@dataclass(frozen=True)
class Explorer:
    """All worlds that can be reached from one beginning."""

    script: Script
    workers: int = 2
    doubled: int = 0
    crashes: int = 0
    lies: int = 0
    """So often a source says that a key is not there, though it is."""
    asks_twice: bool = True
    """Believe that a key is not there at the second answer."""
    conditional: bool = True
    """Write only over what was seen; a late write too."""
    hands_over: bool = True
    """Have what is later on the other side looked at from there."""
    two_ways: bool = True
    """Follow the rules for two ways, not those for one."""
    before: tuple[str, str] = ("", "")
    """What is on either side at the beginning, which no hook tells of."""
    asked: tuple[int, ...] = ()
    """The sides of which a look is asked at the beginning."""

    def moves(self, world: World) -> Iterator[Move]:
        """Every next world, with what happened."""
        yield from self.outside(world)
        if len(world.workers) < self.workers:
            yield from self.takes(world)
        for worker in set(world.workers):
            others = list(world.workers)
            others.remove(worker)
            rest = world._replace(workers=tuple(others))
            yield from self.crash(rest, worker)
            yield from getattr(self, worker.at)(rest, worker)

    def outside(self, world: World) -> Iterator[Move]:
        """People write, hooks double, late writes land."""
        if world.step < len(self.script):
            side, letter = self.script[world.step]
            after = world._replace(step=world.step + 1)
            if letter:
                thing = Thing(letter, PACE * after.step)
                yield f"{letter} is written {SIDES[side]}", put(after, side, thing)
            elif (removed := world.things[side]) is not None:
                yield f"removed {SIDES[side]}", put(after._replace(removed=removed.letter), side, None)
        if world.doubled:
            for message in {m for m in world.queue if m.claim is not None}:
                doubled = world._replace(queue=(*world.queue, message), doubled=world.doubled - 1)
                yield f"a hook comes twice: {told(message)}", doubled
        for write in world.late:
            left = tuple(other for other in world.late if other != write)
            to, old, what = write
            if same_etag(world.things[to], old) or not self.conditional:
                yield f"a late write {SIDES[to]} lands", put(world._replace(late=left), to, what)
            yield "a late write is lost", world._replace(late=left)

    def takes(self, world: World) -> Iterator[Move]:
        """A free worker takes a message."""
        for message in set(world.queue):
            if message.waits and world.late:
                continue
            queue = list(world.queue)
            queue.remove(message)
            worker = Worker("reads", message._replace(waits=False))
            yield (
                f"takes {told(message)}",
                world._replace(queue=tuple(queue), workers=(*world.workers, worker)),
            )

    def crash(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The worker dies and its message comes back; a write of it may land late."""
        if not rest.crashes:
            return
        back = worker.message._replace(doubt=True)
        crashed = rest._replace(queue=(*rest.queue, back), crashes=rest.crashes - 1)
        yield f"CRASH when it {worker.at}", crashed
        if worker.at == "writes":
            late = (1 - worker.message.side, worker.old, worker.thing)
            yield "CRASH with a write in flight", crashed._replace(late=(*crashed.late, late))

    def reads(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Look at the source: that it has no such key is believed at the second answer."""
        for after, seen in self.answers(rest, worker):
            if seen is None and self.asks_twice:
                yield "reads nothing", with_worker(after, worker._replace(at="asks_again"))
            else:
                yield from self.heeds(after, worker, seen)

    def asks_again(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The second answer."""
        for after, seen in self.answers(rest, worker):
            yield from self.heeds(after, worker, seen)

    @staticmethod
    def answers(rest: World, worker: Worker) -> Iterator[tuple[World, Thing | None]]:
        """What the source may say."""
        there = rest.things[worker.message.side]
        yield rest, there
        if rest.lies and there is not None:
            yield rest._replace(lies=rest.lies - 1), None

    def heeds(self, rest: World, worker: Worker, seen: Thing | None) -> Iterator[Move]:
        """Heed what the source shows, then look at what the target has."""
        message = worker.message
        claim = None if worker.wrote else message.claim
        if seen is None and heed(None, claim, eventual=False) is Heed.OVERTAKEN:
            yield "reads nothing: overtaken", self.done(rest, worker)
        else:
            now = self.now(rest, 1 - message.side)
            yield (
                f"reads {shown(seen)}",
                with_worker(rest, worker._replace(at="compares", seen=seen, now=now)),
            )

    def compares(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Decide, by the real rules."""
        side, thing = worker.message.side, rest.things[1 - worker.message.side]
        claim = None if worker.wrote else worker.message.claim
        told_at = PACE * rest.step + PACE // 2
        step = decide(side, worker.seen, thing, claim, told_at, worker.now, two_ways=self.two_ways)
        what = f"sees {shown(thing)} {SIDES[1 - side]}: {type(step).__name__}"
        if isinstance(step, Skip):
            if step.why is Why.LATER_THERE and self.hands_over:
                rest = rest._replace(queue=(*rest.queue, Message(1 - side)))
            yield f"{what} ({step.why.name})", self.done(rest, worker)
        elif isinstance(step, Settle):
            yield what, rest._replace(queue=(*rest.queue, worker.message))
        elif isinstance(step, Delete):
            yield what, with_worker(rest, worker._replace(at="writes", old=thing, thing=None))
        else:
            assert isinstance(step, Copy | Restate), step
            assert worker.seen is not None
            copy = copied(side, worker.seen, PACE * rest.step + PACE // 4)
            yield what, with_worker(rest, worker._replace(at="writes", old=thing, thing=copy))

    @staticmethod
    def now(rest: World, side: int) -> int:
        """The time: long after what is on `side` was written, unless a hook that tells of it is on its
        way."""
        thing = rest.things[side]
        under_way = {m for m in rest.queue if m.side == side and m.claim is not Claim.REMOVED}
        at_work = {w for w in rest.workers if w.message.side == side}
        if thing is not None and (under_way or at_work):
            return thing.at + 1
        return PACE * rest.step + PACE - 1

    def writes(self, rest: World, worker: Worker) -> Iterator[Move]:
        """The write lands, on condition that the target still has what it had."""
        side = 1 - worker.message.side
        if self.conditional and not same_etag(rest.things[side], worker.old):
            yield "the target moved", with_worker(rest, worker._replace(at="reads"))
            return
        landed = put(rest, side, worker.thing)
        yield (
            f"writes {shown(worker.thing)}",
            with_worker(landed, worker._replace(at="looks_back", wrote=True)),
        )

    def looks_back(self, rest: World, worker: Worker) -> Iterator[Move]:
        """Read the source again: start over when it is not what was written."""
        now = rest.things[worker.message.side]
        if sight_of(now) == sight_of(worker.seen):
            yield "looks back: the same", self.done(rest, worker)
        else:
            yield "looks back: moved", with_worker(rest, worker._replace(at="reads", seen=None, thing=None))

    @staticmethod
    def done(rest: World, worker: Worker) -> World:
        """Acknowledged; in doubt a look is published before."""
        if not worker.message.doubt:
            return rest
        return rest._replace(queue=(*rest.queue, Message(worker.message.side, waits=True)))

    def wrong(self, world: World) -> str | None:
        """What is wrong with this world, None when nothing is."""
        if world.step < len(self.script) or world.queue or world.workers or world.late:
            return None
        here, there = (thing.letter if thing else "" for thing in world.things)
        if here != there:
            return f"ends with {here or 'nothing'} here, {there or 'nothing'} there"
        if not self.script:
            return None
        last = self.script[-1][1]
        if not last:
            # A removal may cross with a hook that comes again, or with copies that go both ways since both
            # sides were written: then the object is back on both sides.
            both_wrote = len({side for side, letter in self.script if letter}) == 2
            crossed = both_wrote or self.doubled or self.crashes
            back = here and here == world.removed and not crossed
            return f"ends with {here}, which was removed" if back else None
        return None if here == last else f"ends with {here or 'nothing'}, not with {last or 'nothing'}"

    def explore(self, limit: int = 2_000_000) -> tuple[int, list[str]]:
        """Return the number of worlds reached and the shortest way to a wrong one, [] when there is none.
        Raises RuntimeError when there are more than `limit`."""
        things = tuple(Thing(letter, 0) if letter else None for letter in self.before)
        looks = tuple(Message(side) for side in self.asked)
        first = World((things[0], things[1]), 0, looks, (), (), self.doubled, self.crashes, self.lies)
        before: dict[World, Move | None] = {first: None}
        frontier = deque([first])
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


def same_etag(one: Thing | None, other: Thing | None) -> bool:
    """What If-Match and If-None-Match compare."""
    return (one.letter if one else None) == (other.letter if other else None)


def with_worker(rest: World, worker: Worker) -> World:
    """The world with the worker in it."""
    return rest._replace(workers=(*rest.workers, worker))


def told(message: Message) -> str:
    """A message for people."""
    return f"{message.claim or 'look'} {SIDES[message.side]}"


def shown(thing: Thing | None) -> str:
    """An object for people."""
    if thing is None:
        return "nothing"
    return f"{thing.letter}'" if thing.mark else thing.letter


def _way(before: dict[World, Move | None], world: World) -> list[str]:
    steps: list[str] = []
    while (move := before[world]) is not None:
        steps.append(move[0])
        world = move[1]
    return steps[::-1]
