"""The endpoint of stack notifications: bounded body, parse, route, publish; 200 when all of it is durable."""

import time
from collections.abc import AsyncIterator
from typing import Any

from common.errors import NotOurs
from common.queue.port import Lane, Publisher
from common.task import Stack, Task
from common.telemetry import Action, log
from receiver.dialects import ros
from receiver.intake import all_durable, parse_json, read_bounded
from receiver.metrics import HookMetrics
from receiver.routing import StackRouting

GREETING = "hookmirror: stack notifications are taken here by POST"
"""What a browser is told that was given the address."""


class StackEndpoint:
    """Takes the bodies of stack notifications."""

    def __init__(self, publisher: Publisher, routing: StackRouting, metrics: HookMetrics) -> None:
        self._publisher = publisher
        self._routing = routing
        self._metrics = metrics

    async def __call__(self, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """Return the JSON to answer 200 with. Raises `BadRequest` for what is no notification for us,
        `QueueAway` when it did not become durable in time for every route that it fits."""
        stack = ros.parse(parse_json(await read_bounded(chunks)))
        if not self._routing.knows(stack.name):
            raise NotOurs(f'the stack "{stack.name}" fits no stack route')
        tasks = self._routing.tasks(stack, time.time())
        start = time.monotonic()
        try:
            await all_durable(map(self._publish, tasks))
        finally:
            self._metrics.published(time.monotonic() - start)
        answer = {"queued": len(tasks), "ignored": int(not tasks)}
        self._metrics.records(queued=int(bool(tasks)), ignored=int(not tasks), buried=0)
        _log(stack, answer)
        return answer

    async def _publish(self, task: Task) -> None:
        await self._publisher.publish(task.encode(), lane=Lane.LIVE)
        self._metrics.task_queued(task.route)


def _log(stack: Stack, answer: dict[str, Any]) -> None:
    """Write the line. The outputs are in none: one may be a secret."""
    log(Action.HOOK, "stack notification taken", stack=stack.name, status=stack.status, **answer)
