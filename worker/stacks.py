"""What a route does with notifications of stacks: the same actions, each notification once in a while.

A sender may send a notification again, and a stranger may. Of those of one stack and status that came within
the window the first one's task runs; it asks for the mark before it acts, and so does each of its tries:
whoever comes back after a failure or a dead worker still holds the mark, and runs again.
"""

from dataclasses import dataclass
from typing import Protocol

from common.errors import LostDelivery, Unreadable
from common.masking import masked
from common.task import Stack, Task
from common.telemetry import Action, log
from worker.actions import Carry, Order, as_variables, cloud_event
from worker.job import Job
from worker.plan import Why
from worker.verdict import Continue, Outcome

SOURCE = "urn:alibaba:ros"

SHOWN = 200
"""Characters of an output that a log line shows."""


class First(Protocol):
    """See `Marks.first`."""

    async def __call__(self, key: str, holder: str, *, at: float, within: float) -> bool:
        """Ask."""


@dataclass(frozen=True, slots=True)
class StackOrder:
    """An order about a stack: its task carries the notification, which may hold secrets."""

    task: Task
    stack: Stack

    @property
    def verb(self) -> str:
        """The status."""
        return self.stack.status

    def arguments(self) -> tuple[str, ...]:
        """STACK and STATUS."""
        return self.stack.name, self.stack.status

    def variables(self) -> dict[str, str]:
        """See `Order`. The outputs are not among them: others may read a process's environment."""
        task, stack = self.task, self.stack
        return as_variables(
            {
                "ID": task.id,
                "ROUTE": task.route,
                "STACK_ID": stack.id,
                "STACK_NAME": stack.name,
                "STATUS": stack.status,
                "RECEIVED": f"{task.received:.3f}",
            }
        )

    def document(self) -> bytes:
        """See `Order`."""
        data = {"route": self.task.route, "stack": self.stack.model_dump(mode="json")}
        kind = f"hookmirror.stack.{self.stack.status.lower()}"
        return cloud_event(self.task, data, source=SOURCE, type_=kind)


class StackActing:
    """An action over `carry`. The same notification, when it came within `window` seconds, runs nothing."""

    def __init__(self, first: First, carry: Carry, *, window: float) -> None:
        self._first = first
        self._carry = carry
        self._window = window

    async def __call__(self, job: Job) -> Outcome | Continue:
        """Do the job, unless another task does it. Raises only errors of `common.errors`."""
        task, stack = job.task, job.task.stack
        if stack is None:
            raise Unreadable("a task of a route for stacks carries a stack; this does not")
        mark = f"{task.route}/{stack.id}/{stack.status}"
        if not await self._first(mark, task.id, at=task.received, within=self._window):
            return Outcome(Action.SKIPPED, Why.DUPLICATE)
        if not job.held():
            raise LostDelivery("the delivery went to another worker before the action")
        job.learned.stage = "act"
        # Not asked again meanwhile: an attempt lasts for minutes, and a mark for an hour at least.
        return await self._carry(StackOrder(task, stack))


async def log_stack(order: Order) -> Outcome:
    """Write a line about the stack; what its outputs hide stays hidden."""
    task, stack = order.task, order.task.stack
    if stack is not None:
        log(
            Action.STACK,
            f"{stack.name}: {stack.status}",
            stack=stack.name,
            stack_id=stack.id,
            status=stack.status,
            outputs={output.key: _cut(masked(output.key, output.value)) for output in stack.outputs},
            task=task.id,
            route=task.route,
        )
    return Outcome(Action.LOGGED, order.verb)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
