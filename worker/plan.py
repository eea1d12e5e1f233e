"""What to do about a key, decided from what was seen: pure, and explored exhaustively by the tests."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Literal

from common.store.port import State
from common.task import Claim


class _Unseen(Enum):
    UNSEEN = "unseen"


UNSEEN: Final = _Unseen.UNSEEN
"""The target was not looked at: it may hold anything."""

Target = State | None | Literal[_Unseen.UNSEEN]

Deletes = Literal["mirror", "owned", "keep"]


class Why(StrEnum):
    """Why nothing was done: a closed list, so that it can be counted."""

    IN_STEP = "in step"
    ABSENT = "absent on both sides"
    KEPT = "the route keeps what the source deletes"
    NOT_OWNED = "the route deletes only what hookmirror wrote"
    OVERTAKEN = "the source contradicts the event, now as before: another event tells of that"
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


@dataclass(frozen=True, slots=True)
class LookLater:
    """Touch nothing: the source contradicts the hint, and may be showing an old state."""


Step = Skip | Copy | Delete | LookLater


def contradicts(source: State | None, claim: Claim | None, etag: str | None = None) -> bool:
    """Whether the source's state is not the one the event told of: then somebody must look again later."""
    if claim is None:
        return False
    if claim is Claim.REMOVED:
        return source is not None
    return source is None or (etag is not None and etag != source.etag)


def plan(source: State | None, target: Target, claim: Claim | None, deletes: Deletes = "mirror") -> Step:
    """Return the one step that makes the target agree.

    `source` None means a definite NoSuchKey; `target` may be UNSEEN, then nothing is skipped on
    its account. Never deletes on a read that contradicts a claim of creation.
    """
    if source is None and claim is Claim.CREATED:
        return LookLater()
    if source is None:
        return _without_source(target, deletes)
    if target is not UNSEEN and target is not None and target.carries(source):
        return Skip(Why.IN_STEP)
    return Copy()


def _without_source(target: Target, deletes: Deletes) -> Step:
    if target is None:
        return Skip(Why.ABSENT)
    if deletes == "keep":
        return Skip(Why.KEPT)
    if deletes == "owned" and target is not UNSEEN and target.mark is None:
        return Skip(Why.NOT_OWNED)
    return Delete()
