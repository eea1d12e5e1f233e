"""What to do about a key, decided from what was seen: pure, and explored exhaustively by the tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from common.store.mark import Mark, content_of, identity_of, mark_on, proven_md5, written_at
from common.store.port import CONTENT_HEADERS, MAX_RESTATED, State
from common.task import Claim
from worker.fidelity import plain

Deletes = Literal["mirror", "owned", "keep"]

SETTLED = 30
"""Seconds. Where two buckets are kept equal both ways, an object as young as this may not have come to the
other side yet: that it is not there does not show that it was removed there."""


class Why(StrEnum):
    """Why nothing was done: a closed list, so that it can be counted."""

    IN_STEP = "in sync"
    ABSENT = "absent on both sides"
    KEPT = "the route keeps what the source deletes"
    NOT_OWNED = "the route deletes only what it wrote"
    OVERTAKEN = "the source contradicts the event: another event tells of that"
    OWN_COPY = "the source's object is a copy of one that the target no longer has"
    LATER_THERE = "what the target has was written later: the route back brings it here"
    DUPLICATE = "the same notification is taken care of already"


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing to do, and why."""

    why: Why


@dataclass(frozen=True, slots=True)
class Copy:
    """Write the source's state to the target."""


@dataclass(frozen=True, slots=True)
class Restate:
    """The target has the bytes: give it the source's headers, metadata and tags, and our mark."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the key on the target: the source has proved that it has none."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """The target's object is a copy from another bucket: not ours to touch."""

    origin: bytes


@dataclass(frozen=True, slots=True)
class Settle:
    """It cannot be told yet whether the target's object was removed at the source, or is still to come
    there."""

    after: float


Step = Skip | Copy | Restate | Delete | Foreign | Settle


@dataclass(frozen=True, slots=True)
class Rules:
    """What a route says of its target. `origin` and `home` stand in marks for the source's bucket and the
    target's; copies from `takes_over` are the route's own as well. `two_ways`: another route keeps the source
    equal to the target. `loose`: one state of an object is described in several ways, and a copy is known by
    bytes and date. `described` gives the headers and metadata with which a copy of a state is
    written."""

    origin: bytes
    home: bytes
    deletes: Deletes = "mirror"
    two_ways: bool = False
    takes_over: frozenset[bytes] = frozenset()
    loose: bool = False
    described: Callable[[State], tuple[Mapping[str, str], Mapping[str, str]]] = field(
        default=lambda state: (state.headers, state.metadata)
    )

    def owns(self, mark: Mark) -> bool:
        """Whether `mark` is on a copy that this route made. One that tells no origin is taken for that."""
        return mark.origin in {None, self.origin} or mark.origin in self.takes_over

    def age(self, source: State) -> int:
        """When the bytes of `source` were written, in seconds since the epoch: a copy of an object of the
        target is as old as that."""
        return _age(source, mark_on(source) if _came_from(source, self.home) else None)


class Heed(StrEnum):
    """What an event is worth beside what the source shows."""

    ACT = "act"
    LATER = "later"
    """The source may be showing an old state: nothing may rest on it yet."""
    OVERTAKEN = "overtaken"
    """Another change was later, which has an event of its own; or the event is forged."""


def heed(source: State | None, claim: Claim | None, *, eventual: bool) -> Heed:
    """Return what an event that claimed so much is worth. `eventual`: the source may show old states.

    Where the source keeps versions, what was removed may have been one, and what is there now the older one
    that came back with it: then no other event tells of it.
    """
    if source is None:
        contradicted = claim is Claim.CREATED
    else:
        contradicted = claim is Claim.REMOVED and not source.keeps_versions
    if not contradicted:
        return Heed.ACT
    return Heed.LATER if eventual else Heed.OVERTAKEN


def doubtful(source: State | None, claim: Claim | None, etag: str | None, size: int | None) -> bool:
    """Whether a source that may show old states seems to show another one than the event told of: it created
    another object, or a version was removed and one is there. Of what the event did not name there is no
    telling."""
    if source is None:
        return False
    if claim is Claim.REMOVED:
        return source.keeps_versions
    return claim is Claim.CREATED and (etag not in (None, source.etag) or size not in (None, source.size))


def sight(source: State | None) -> str:
    """Return what tells this state of the source from any other, in a task: "" when there is no such key."""
    return source.identity if source else ""


def moved(before: State | None, now: State | None) -> bool:
    """Whether the source's object was really written between two looks: other bytes, or another date."""
    return _written(before) != _written(now)


def _written(state: State | None) -> tuple[object, ...]:
    return (state.etag, state.size, state.last_modified, state.version) if state else ()


def plan(
    source: State | None,
    target: State | None,
    rules: Rules,
    *,
    claim: Claim | None = None,
    told: float = 0.0,
    now: float = 0.0,
    wrote: bool = False,
) -> Step:
    """Return the one step that makes the target agree with the source; None is a key that is not there, of
    the source a definite NoSuchKey.

    `claim` is what the event said that was `told` then, and `now` the time (both in seconds since the epoch):
    they only matter for a removal where buckets are kept equal both ways. `wrote`: this very task has touched
    the target, so that what is missing there may be its own doing.
    """
    if source is None:
        return _without_source(target, rules, claim, told, now)
    if target is None:
        own_copy = rules.two_ways and _came_from(source, rules.home) and not wrote
        return Skip(Why.OWN_COPY) if own_copy else Copy()
    if in_step(source, target, rules):
        return Skip(Why.IN_STEP)
    mark = _mark_there(target, rules)
    if mark is not None and mark.origin is not None and not rules.owns(mark):
        return Foreign(mark.origin)
    if not _is_copy(source, mark, rules) and _later_there(source, target, mark, rules):
        return Skip(Why.LATER_THERE)
    return Restate() if _same_bytes(source, target, mark) and target.size <= MAX_RESTATED else Copy()


def in_step(source: State, target: State, rules: Rules) -> bool:
    """Whether the target's object is the source's: by its mark, and described so still; or the source's is a
    copy of the target's, by the mark there; or, without a mark, bytes, headers, metadata and tags agree."""
    if source.size != target.size:
        return False
    mark = mark_on(target)
    if mark is not None and rules.owns(mark) and _is_copy(source, mark, rules):
        if mark.origin is None:
            return not _contradict(source, target)
        return rules.loose or _alike(source, target, rules)
    theirs = mark_on(source)
    if theirs is not None and theirs.origin in {None, rules.home} and _is_copy(target, theirs, rules):
        return True
    return (
        (mark is None or not rules.owns(mark))
        and _same_etag(source, target)
        and source.tags == target.tags
        and _alike(source, target, rules)
    )


def is_ours(source: State, target: State | None, rules: Rules) -> bool:
    """Whether the target's object was written by this route from this state of the source."""
    mark = mark_on(target) if target else None
    return mark is not None and rules.owns(mark) and _is_copy(source, mark, rules)


def _is_copy(original: State, mark: Mark | None, rules: Rules) -> bool:
    """Whether an object with this mark was written from this state of `original`."""
    if mark is None or not rules.loose:
        return mark is not None and mark.identity == identity_of(original)
    copied = mark_on(original)  # a copy of a copy is as old as the first
    return mark.content == content_of(original) and mark.written == _age(original, copied)


def _without_source(target: State | None, rules: Rules, claim: Claim | None, told: float, now: float) -> Step:
    if target is None:
        return Skip(Why.ABSENT)
    if rules.deletes == "keep":
        return Skip(Why.KEPT)
    mark = _mark_there(target, rules)
    foreign = mark is not None and not rules.owns(mark)
    if rules.deletes == "owned" and (mark is None or foreign):
        return Skip(Why.NOT_OWNED)
    if mark is not None and mark.origin is not None and foreign:
        return Foreign(mark.origin)
    if rules.two_ways and mark is None:
        return _without_copy(target, claim, told, now)
    return Delete()


def _mark_there(target: State, rules: Rules) -> Mark | None:
    """The mark on the target's object. One of the very bucket that it lies in came back with a copy that
    somebody made by hand: it is nobody else's."""
    mark = mark_on(target)
    return None if mark is not None and mark.origin == rules.home else mark


def _without_copy(target: State, claim: Claim | None, told: float, now: float) -> Step:
    """What was written on the target's side is not at the source: removed there, or not there yet? Only an
    event that tells of a removal after it was written, and some time to come over, show the first."""
    born = written_at(target.last_modified)
    if claim is not Claim.REMOVED or born >= told:
        return Skip(Why.LATER_THERE)
    return Settle(SETTLED - (now - born)) if now - born < SETTLED else Delete()


def _later_there(source: State, target: State, mark: Mark | None, rules: Rules) -> bool:
    """Whether the target's object is the later one, where it may be: both are native, or each is a copy from
    the other side since both were written at once. Asked from both sides, one is always told so."""
    theirs = mark_on(source) if _came_from(source, rules.home) else None
    ours = mark if mark is not None and mark.origin == rules.origin else None
    if not (rules.two_ways or (theirs and ours)):
        return False
    if theirs is not None and ours is None:
        return True  # a copy of what the target had before
    if theirs is None and mark is not None:
        return False  # a copy of what the source had before
    here = (_age(source, theirs), source.etag, rules.origin)
    return (_age(target, ours), target.etag, rules.home) > here


def _age(state: State, copied: Mark | None) -> int:
    return copied.written if copied is not None else written_at(state.last_modified)


def _came_from(state: State, place: bytes) -> bool:
    mark = mark_on(state)
    return mark is not None and mark.origin == place


def _same_bytes(source: State, target: State, mark: Mark | None) -> bool:
    if mark is None:
        return _same_etag(source, target)
    return (
        mark.content == content_of(source)
        and source.size == target.size
        and not (mark.origin is None and _contradict(source, target))
    )


def _same_etag(source: State, target: State) -> bool:
    return (source.etag, source.size) == (target.etag, target.size)


def _contradict(source: State, target: State) -> bool:
    """Whether both ETags are MD5s, and of different bytes."""
    ours, theirs = proven_md5(source), proven_md5(target)
    return bool(ours and theirs and ours != theirs)


def _alike(source: State, target: State, rules: Rules) -> bool:
    """Whether the target's object has the headers and metadata that a copy of the source's would have. A
    store gives an object without a type one of its own."""
    headers, metadata = rules.described(source)
    wanted = plain({name: value for name, value in headers.items() if name in CONTENT_HEADERS})
    told = {name: value for name, value in target.headers.items() if name in wanted or name != "content-type"}
    return (wanted, plain(metadata)) == (plain(told), plain(target.metadata))
