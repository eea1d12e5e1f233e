"""Actions beside the mirror: what a route does with an event instead of keeping a bucket equal.

An event runs its route's action at least once, in no order. What is asked for, copy or delete, is the
source's state now; what the event claimed is passed beside it. An event that the source contradicts runs
nothing (`plan.heed` says when): the other change has an event of its own. Where the source may be showing
an old state, the same task comes back once, `look_after` seconds later, before that is said. There are no
other looks: an action cannot be compared, so it would run for each.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from common.errors import LostDelivery
from common.store.port import State
from common.task import Claim, Task
from common.telemetry import Action
from worker.brake import Brake
from worker.job import Job
from worker.plan import Heed, Why, heed
from worker.verdict import Continue, Outcome


class Order(Protocol):
    """What an action is asked for, as a program and as whoever takes forwarded events are told it."""

    @property
    def task(self) -> Task:
        """What it is about."""

    @property
    def verb(self) -> str:
        """What is asked for, in a word."""

    def arguments(self) -> tuple[str, ...]:
        """Return what a program is called with."""

    def variables(self) -> dict[str, str]:
        """Return the event as environment variables; what is not known is empty."""

    def document(self) -> bytes:
        """Return the order as a CloudEvent 1.0 in JSON. Its id is the task's, the same for every try."""


@dataclass(frozen=True, slots=True)
class ObjectOrder:
    """An order about an object: `state` is the source's, None when it has no such key."""

    task: Task
    bucket: str
    state: State | None

    @property
    def verb(self) -> Literal["copy", "delete"]:
        """What the source's state asks for."""
        return "delete" if self.state is None else "copy"

    def arguments(self) -> tuple[str, ...]:
        """BUCKET, KEY, and copy or delete."""
        return self.bucket, self.task.key, self.verb

    def variables(self) -> dict[str, str]:
        """See `Order`."""
        task, state = self.task, self.state
        return as_variables(
            {
                "ID": task.id,
                "ROUTE": task.route,
                "BUCKET": self.bucket,
                "KEY": task.key,
                "ACTION": self.verb,
                "ETAG": state.etag if state else None,
                "SIZE": state.size if state else None,
                "NAME": task.event,
                "CLAIM": task.claim,
                "CLAIMED_ETAG": task.etag,
                "CLAIMED_SIZE": task.size,
                "RECEIVED": f"{task.received:.3f}",
            }
        )

    def document(self) -> bytes:
        """See `Order`."""
        task = self.task
        data = {
            "action": self.verb,
            "route": task.route,
            "bucket": self.bucket,
            "key": task.key,
            "object": _seen(self.state),
            "event": {"name": task.event, "claim": task.claim, "etag": task.etag, "size": task.size},
        }
        return cloud_event(task, data, source=f"s3://{self.bucket}", type_=f"hookmirror.object.{self.verb}")


def as_variables(values: Mapping[str, object]) -> dict[str, str]:
    """Return `values` as environment variables of an event; what is not known is empty."""
    return {f"EVENT_{name}": "" if value is None else str(value) for name, value in values.items()}


def cloud_event(task: Task, data: Mapping[str, Any], *, source: str, type_: str) -> bytes:
    """Return a CloudEvent 1.0 in JSON about `task`. Its id is the task's, the same for every try."""
    event = {
        "specversion": "1.0",
        "id": task.id,
        "source": source,
        "type": type_,
        "subject": task.key,
        "time": datetime.fromtimestamp(task.received, UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event).encode()


def _seen(state: State | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {
        "etag": state.etag,
        "size": state.size,
        "last_modified": state.last_modified,
        "version": state.version or None,
    }


class Carry(Protocol):
    """Carries out an order. Returns how, or raises an error of `common.errors`."""

    async def __call__(self, order: Order) -> Outcome:
        """Do it."""


class Acting:
    """An action over `carry`, called as the mirror is."""

    def __init__(self, carry: Carry, *, look_after: float, brake: Brake) -> None:
        self._carry = carry
        self._look_after = look_after
        self._brake = brake

    async def __call__(self, job: Job) -> Outcome | Continue:
        """Do the job, or put it off. Raises only errors of `common.errors`."""
        task = job.task
        state = await job.route.source.head(task.key)
        doubts = job.route.eventual and task.tries == 0
        worth = heed(state, task.claim, eventual=doubts)
        if doubts and state is not None and task.claim is Claim.REMOVED:
            worth = Heed.LATER  # the version that was removed may be the one that is shown
        match worth:
            case Heed.OVERTAKEN:
                return Outcome(Action.SKIPPED, Why.OVERTAKEN)
            case Heed.LATER:
                again = task.model_copy(update={"tries": 1})
                said = "has no such key" if state is None else "has the key"
                return Continue(again, f"{task.claim}, said the event; the source {said}", self._look_after)
        if state is None:
            self._brake.admit(job.route.id, job.task.key, approved=task.approved)
        if not job.held():
            raise LostDelivery("the delivery went to another worker before the action")
        job.learned.stage = "act"
        return await self._carry(ObjectOrder(task, job.route.source.name, state))
