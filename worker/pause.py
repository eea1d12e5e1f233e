"""A route whose bucket fails its check works for no object: it is paused, and probed until it works again.

A check is a HEAD of the bucket and needs the right to list it, which a mirror needs anyway: without it a
store does not tell a missing object from a forbidden one.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import chain, repeat

from common.errors import StoreAway, Throttled, TryAgain
from common.store.port import Bucket
from common.telemetry import Action, log
from worker.job import Route

WAITS = (1, 2, 5, 10, 30)
"""Seconds between one probe and the next; the last one for ever."""

CHECK_WITHIN = 15.0
"""Seconds for a bucket to answer a check: the task that waits for it keeps others from being done."""

CHECK_LASTS = 5.0
"""Seconds for which a good check is believed: where many objects fail, not every one asks again."""

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class Pause:
    """Of one route. Off until a check fails; `why` says what is wrong while it is on. `clock` is in seconds;
    `sleep` and `rng` (the jitter) are the probe's."""

    def __init__(self, route: Route, clock: Clock, sleep: Sleep, rng: random.Random) -> None:
        self.why = ""
        self._route = route
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._asking = asyncio.Lock()
        self._checked = -CHECK_LASTS
        self._probe: asyncio.Task[None] | None = None

    async def ask(self) -> str:
        """Check the buckets, for something has failed: return why the route is paused, "" when it is not."""
        # One at a time: of many that fail together the first asks for all of them.
        async with self._asking:
            if not self.why and not 0 <= self._clock() - self._checked < CHECK_LASTS:
                down = await _check(self._route)
                if down is None or isinstance(down, Throttled):  # one that asks for patience is there
                    self._checked = self._clock()
                else:
                    self._stop(f"{down}")
        return self.why

    async def end(self) -> None:
        """Probe no more."""
        if self._probe is not None:
            self._probe.cancel()
            with suppress(asyncio.CancelledError):
                await self._probe

    def _stop(self, why: str) -> None:
        self.why = why
        log(Action.PAUSED, f"route paused, its tasks wait: {why}", level=logging.ERROR, route=self._route.id)
        self._probe = asyncio.create_task(self._until_it_works(), name=f"probe of {self._route.id}")

    async def _until_it_works(self) -> None:
        began = self._clock()
        for wait in chain(WAITS, repeat(WAITS[-1])):
            await self._sleep(wait * self._rng.uniform(0.8, 1.2))
            if await _check(self._route) is None:
                break
        self.why = ""
        lasted = round(self._clock() - began, 3)
        log(Action.RESUMED, "route works again, its tasks go on", route=self._route.id, seconds=lasted)


async def _check(route: Route) -> TryAgain | None:
    """Return what is wrong with the buckets of `route`, of both at once; None when all answer."""
    wrong = [why for bucket in route.buckets if (why := await _check_one(bucket)) is not None]
    down = [why for why in wrong if not isinstance(why, Throttled)] or wrong
    return StoreAway("; ".join(map(str, down))) if len(down) > 1 else next(iter(down), None)


async def _check_one(bucket: Bucket) -> TryAgain | None:
    try:
        async with asyncio.timeout(CHECK_WITHIN):
            await bucket.check()
    except TryAgain as error:
        return error
    except TimeoutError:
        return StoreAway(f"{bucket.name}: no answer within {CHECK_WITHIN:.0f} s")
    except Exception as error:  # noqa: BLE001 - no answer that is known is a good one; a probe must not die of it
        return StoreAway(f"{bucket.name}: {error!r}")
    return None
