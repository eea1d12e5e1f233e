"""What an attempt is about: the task, its route with the buckets opened, what the delivery says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from common.queue.port import Lane
from common.store.pace import Meter
from common.store.port import Bucket
from common.task import Task
from worker.plan import Deletes

SMALL = 8 * 2**20
"""Bytes. What is larger is copied in parts, and is compared first even when its event is new."""


@dataclass(frozen=True, slots=True)
class Route:
    """A configured route, with its buckets opened: `destination` is None when it has an action instead,
    `origin` when it takes stack notifications.

    `placement` are the headers that say how the target keeps an object (storage class, encryption),
    `meter` the bytes a second that may be copied.
    """

    id: str
    origin: Bucket | None
    destination: Bucket | None
    target_prefix: str = ""
    deletes: Deletes = "mirror"
    placement: Mapping[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)
    eventual: bool = False
    """The source may show an old state for a while."""

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


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one task. `held` says whether the delivery is still ours, `last` that no other
    attempt follows if this one fails; `spent` that so many looks of its
    chain have failed that it was buried, and only a comparison is left; `promises` are the looks
    published so far in this attempt."""

    task: Task
    route: Route
    attempt: int
    lane: Lane
    held: Callable[[], bool]
    last: bool = False
    spent: bool = False
    promises: list[Task] = field(default_factory=list)

    @property
    def target_key(self) -> str:
        """The key on the target."""
        return self.route.target_prefix + self.task.key

    @property
    def expects_nothing_to_do(self) -> bool:
        """Whether the source is asked for the object's state only: it is a look, a delivery that came back,
        or of an object said to be large. Where there was no such key a read proves it in one request."""
        task = self.task
        if task.seen == "":
            return False
        return task.claim is None or self.attempt > 1 or task.upload is not None or (task.size or 0) > SMALL
