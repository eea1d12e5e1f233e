"""The endpoint of stack notifications: bounded body, parse, route, publish; 200 when all of it is durable."""

import time
from collections.abc import AsyncIterator
from dataclasses import asdict

from common.errors import Unreadable
from common.task import Stack
from receiver.admission import Visit
from receiver.dialects import ros
from receiver.intake import Answer, Found, Intake, Letter, parse_json, read_bounded
from receiver.routing import StackRouting

GREETING = "hookmirror: stack notifications are taken here by POST"
"""What a browser is told that was given the address."""


class StackEndpoint:
    """Takes the bodies of stack notifications."""

    def __init__(self, intake: Intake, routing: StackRouting) -> None:
        self._intake = intake
        self._routing = routing

    async def __call__(self, chunks: AsyncIterator[bytes], visit: Visit) -> Answer:
        """Return what to answer 200 with, whatever the body is. Raises `BadRequest` for too much of it,
        `QueueAway` when it did not become durable in time for every route that it fits."""
        body = await read_bounded(chunks)
        try:
            stack = ros.parse(parse_json(body))
        except Unreadable as error:
            taken = await self._intake.put(Found(letters=[Letter(body, str(error))]), visit)
            return Answer(asdict(taken), "not_a_hook")
        return await self._accept(stack, visit)

    async def _accept(self, stack: Stack, visit: Visit) -> Answer:
        """Of its outputs nothing goes to the log: one may be a secret."""
        tasks = self._routing.tasks(stack, time.time())
        known = self._routing.knows(stack.name)
        found = Found(
            tasks, routed=int(bool(tasks)), ignored=int(known and not tasks), unrouted=int(not known)
        )
        taken = await self._intake.put(found, visit, stack=stack.name, status=stack.status)
        return Answer(asdict(taken), "notified" if known else "unrouted")
