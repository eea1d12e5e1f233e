"""What an attempt is about: the task, its route with the buckets opened, what the delivery says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal

from common.queue.port import Lane
from common.store.mark import origin_of
from common.store.pace import Meter
from common.store.port import Bucket, State
from common.task import Task
from worker.fidelity import described
from worker.plan import Deletes, Rules

SMALL = 8 * 2**20
"""Bytes. What is larger is copied in parts, and is compared first even when its event is new."""


@dataclass(frozen=True)
class Route:
    """A configured route, with its buckets opened: `destination` is None when it has an action instead,
    `origin` when it takes stack notifications.

    `placement` are the headers that say how the target keeps an object (storage class, encryption),
    `meter` the bytes a second that may be copied; `eventual` says that the source may show old states, `back`
    names the route that keeps the source equal to the target, if there is one; copies from the places
    `takes_over` are this route's own. `sides` is how people know its buckets: store, endpoint, name.
    """

    id: str
    origin: Bucket | None
    destination: Bucket | None
    target_prefix: str = ""
    deletes: Deletes = "mirror"
    placement: Mapping[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)
    eventual: bool = False
    back: str | None = None
    takes_over: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()

    @cached_property
    def rules(self) -> Rules:
        """What `plan` has to know of it."""
        return Rules(
            origin_of(self.source.place),
            origin_of(self.target.place),
            self.deletes,
            self.back is not None,
            frozenset(map(origin_of, self.takes_over)),
            described=partial(described, placement=self.placement),
        )

    @cached_property
    def loose_rules(self) -> Rules:
        """The same where a bucket describes one state in several ways."""
        return replace(self.rules, loose=True)

    @property
    def source(self) -> Bucket:
        """The bucket whose events it takes. Nobody may ask for that of a route for stacks."""
        if self.origin is None:
            raise TypeError(f"{self.id}: a route for stacks has no source")
        return self.origin

    @property
    def target(self) -> Bucket:
        """The bucket that is kept equal. Nobody may ask for that of a route with an action."""
        if self.destination is None:
            raise TypeError(f"{self.id}: a route with an action has no target")
        return self.destination

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """What must answer for the route to work at all."""
        return tuple(bucket for bucket in (self.origin, self.destination) if bucket is not None)


Stage = Literal["read", "copy", "parts", "restate", "tag", "delete", "act"]
"""How far an attempt has come: the operation that it failed in, if it fails."""


@dataclass(slots=True)
class Learned:
    """What an attempt learns on its way, and hands on if it is not the last.

    `doubt`: a write of the task has an end that nobody knows, or may have been made by somebody who died.
    `wrote`: the target was written to, or may have been; from then on the source's state decides alone,
    whatever the event said. `anew`: the copy in parts is to begin anew. `over`: what the last write on
    a condition was to replace. `whole`: a copy of the target's object onto itself was refused. `claimed`: the
    identity of the large state on which it has a claim. `moved`: the source's bytes or date changed
    meanwhile; `otherwise`: nothing but their description did. `stage` is the operation that it came to,
    `promises` are the looks published so far."""

    doubt: bool = False
    wrote: bool = False
    moved: bool = False
    otherwise: bool = False
    anew: bool = False
    over: State | None = None
    whole: bool = False
    claimed: str | None = None
    stage: Stage = "read"
    promises: list[Task] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one task. `held` says whether the delivery is still ours, `last` that no other attempt
    follows if this one fails, `spent` that so many writes of its chain of looks were in vain that it is to
    end."""

    task: Task
    route: Route
    attempt: int
    lane: Lane
    held: Callable[[], bool]
    learned: Learned = field(default_factory=Learned)
    last: bool = False
    spent: bool = False

    @property
    def target_key(self) -> str:
        """The key on the target."""
        return self.route.target_prefix + self.task.key

    @property
    def heads_first(self) -> bool:
        """Whether the source is asked for the object's state only: it is a look, another attempt, a delivery
        that came back, or of an object said to be large. Where there was no such key a read proves it in one
        request."""
        task = self.task
        wrote, doubt = self.learned.wrote, self.learned.doubt
        if task.seen == "" and not wrote:
            return False
        again = wrote or doubt or self.attempt > 1
        return again or task.claim is None or task.upload is not None or (task.size or 0) > SMALL
