"""What to do about a key, decided from what was seen: pure, and explored exhaustively by the tests."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from common.store.port import State
from common.task import Claim

Deletes = Literal["mirror", "owned", "keep"]


class Why(StrEnum):
    """Why nothing was done: a closed list, so that it can be counted."""

    IN_STEP = "in step"
    ABSENT = "absent on both sides"
    KEPT = "the route keeps what the source deletes"
    NOT_OWNED = "the route deletes only what hookmirror wrote"
    OVERTAKEN = "the source contradicts the event, now as before: another event tells of that"
    DUPLICATE = "the same notification is taken care of already"
    SPENT = "not in step as far as can be told, and tried often enough"


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing to do, and why."""

    why: Why


@dataclass(frozen=True, slots=True)
class Copy:
    """Write the source's state to the target."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the key on the target: the source has proved that it has none."""


Step = Skip | Copy | Delete


def contradicts(source: State | None, claim: Claim | None) -> bool:
    """Whether the source denies what the event told: created, and there is no such key; removed, and there
    is one. It may be showing an old state, or another change was later, or the event is forged."""
    return (claim is Claim.CREATED and source is None) or (claim is Claim.REMOVED and source is not None)


def differs(source: State | None, claim: Claim | None, etag: str | None, size: int | None = None) -> bool:
    """Whether the source shows another state than the one that was created by the event: newer, or old. Of
    what the event did not name there is no telling."""
    if claim is not Claim.CREATED or source is None:
        return False
    return etag not in (None, source.etag) or size not in (None, source.size)


def uncovers(source: State | None, claim: Claim | None) -> bool:
    """Whether what was removed may have been a version, and this the older one that came back with it: then
    no other event tells of it."""
    return claim is Claim.REMOVED and source is not None and source.keeps_versions


class Heed(StrEnum):
    """What becomes of an event, from what the source shows beside its claim."""

    ACT = "act"
    LATER = "later"
    OVERTAKEN = "overtaken"


def heed(source: State | None, claim: Claim | None, *, eventual: bool) -> Heed:
    """Return whether to act on what the source shows now.

    A claim that the source contradicts was overtaken: the later change has an event of its own, or the event
    is forged. Only a removal on a source that keeps versions is acted on: what is there may be the older
    version that came back, and no other event tells of that. `eventual` says that the source may be showing
    an old state: then nothing is decided yet. Ask once more later, and no longer as `eventual`.
    """
    if not contradicts(source, claim):
        return Heed.ACT
    if eventual:
        return Heed.LATER
    return Heed.ACT if uncovers(source, claim) else Heed.OVERTAKEN


def sight(source: State | None) -> str:
    """Return what tells this state of the source from any other, in a task: "" when there is no such key."""
    return source.identity if source else ""


def plan(source: State | None, target: State | None, deletes: Deletes = "mirror") -> Step:
    """Return the one step that makes the target agree with the source; None is a key that is not there, of
    the source a definite NoSuchKey. Never asked while the source contradicts an event."""
    if source is None:
        return _without_source(target, deletes)
    if target is not None and target.carries(source):
        return Skip(Why.IN_STEP)
    return Copy()


def _without_source(target: State | None, deletes: Deletes) -> Step:
    if target is None:
        return Skip(Why.ABSENT)
    if deletes == "keep":
        return Skip(Why.KEPT)
    if deletes == "owned" and target.mark is None:
        return Skip(Why.NOT_OWNED)
    return Delete()
