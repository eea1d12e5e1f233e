"""Names the routes that the queue has tasks of and the configuration has not: nobody does these."""

import asyncio
import logging
import shlex
from collections.abc import Collection

from common.errors import HookmirrorError
from common.queue.port import Inspector
from common.telemetry import Action, log, one_line

LOOK_EVERY = 60.0
"""Seconds between two looks at the depths."""


async def look_out(queue: Inspector, known: Collection[str]) -> None:
    """Log each route that is not `known` when its tasks are first seen, until cancelled."""
    told = set[str]()
    while True:
        try:
            strays = (await queue.counts()).besides(known)
        except HookmirrorError:
            strays = {}  # whoever takes tasks says so
        for route, count in strays.items():
            if route not in told:
                told.add(route)
                _tell(one_line(route), count)
        await asyncio.sleep(LOOK_EVERY)


def _tell(route: str, count: int) -> None:
    log(
        Action.QUEUE,
        f'{count} tasks are of the route "{route}", which is not configured here: nobody does them. Renamed? '
        f"hookmirror routes adopt {shlex.quote(route)} NEW",
        level=logging.WARNING,
        route=route,
    )
