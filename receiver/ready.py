"""/readyz: whether hooks can be made durable. Anybody may ask, as often as he likes, at nobody's cost."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import QueueLoses
from common.queue.port import Publisher
from common.telemetry import Action, log
from receiver.spool import SpoolingPublisher

FRESH = 1.0
"""Seconds for which an answer is given again. Whoever asks when it is older waits for the next one."""

WITHIN = 2.0
"""Seconds for the queue to prove that it takes messages, and for the spool."""


WAITING = "hooks cannot be made durable now; the receiver's log says why"
"""All that a stranger is told: the reason names files and hosts."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What to answer: the JSON, and whether hooks can be taken."""

    yes: bool
    body: bytes


class Readiness:
    """Asks `queue` and, when it cannot take hooks, `spool`; `clock` gives seconds that never go back."""

    def __init__(
        self,
        queue: Publisher,
        spool: SpoolingPublisher | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._asking: asyncio.Task[Ready] | None = None
        self._asked = 0.0
        self._noted = ""

    async def ask(self) -> Ready:
        """Return the answer, which is at most FRESH old."""
        if self._asking is None or (self._asking.done() and self._clock() - self._asked >= FRESH):
            self._asking = asyncio.create_task(self._find())
        return await asyncio.shield(self._asking)

    async def _find(self) -> Ready:
        spooling = self._spool is not None and self._spool.away
        trouble, spools = ("the queue has failed lately", True) if spooling else await _trouble(self._queue)
        more = {}
        if trouble and spools and self._spool is not None:
            (trouble, _), more = await _trouble(self._spool), {"queue": "away, spooling"}
        said = {"status": "waiting", "why": WAITING} if trouble else {"status": "ready", **more}
        self._note(trouble)
        self._asked = self._clock()
        return Ready(not trouble, json.dumps(said).encode())

    def _note(self, trouble: str) -> None:
        """Write a line when it is another than the last one."""
        if trouble and trouble != self._noted:
            log(Action.QUEUE, f"not ready for hooks: {trouble}", level=logging.WARNING)
        elif self._noted and not trouble:
            log(Action.QUEUE, "ready for hooks again")
        self._noted = trouble


async def _trouble(place: Publisher) -> tuple[str, bool]:
    """Return why `place` can take no messages, "" if it can, and whether a spool would take them instead."""
    try:
        async with asyncio.timeout(WITHIN):
            await place.check()
    except TimeoutError:
        return "the queue has not confirmed in time", True
    except QueueLoses as error:
        return str(error), False
    except Exception as error:  # noqa: BLE001 - whatever it is, a message would meet it as well
        return str(error) or type(error).__name__, True
    return "", True
