"""A route whose bucket fails its check works for no object: it is paused, and probed until it works again.

A check is a HEAD of the bucket and needs the right to list it, which a mirror needs anyway: without it a
store does not tell a missing object from a forbidden one.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat, zip_longest

from common.errors import HookmirrorError, StoreAway, Throttled, TryAgain
from common.store.failures import NO_CREDENTIALS, UNREACHABLE, WRONG_REGION
from common.store.port import Bucket
from common.telemetry import Action, log
from worker.gate import Gate
from worker.job import Route

WAITS = (1, 2, 5, 10, 30)
"""Seconds between one probe and the next; the last one for ever."""

CHECK_WITHIN = 15.0
"""Seconds for a bucket to answer a check: the task that waits for it keeps others from being done."""

CHECK_LASTS = 5.0
"""Seconds for which a good check is believed: where many objects fail, not every one asks again."""

SKEW = 60.0
"""Seconds between the store's clock and ours from which on it is suspected; more than 900 are refused."""

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Down:
    """What is wrong with a bucket: `side` is how people know it."""

    side: str
    error: HookmirrorError

    @property
    def cause(self) -> tuple[str, str]:
        """What makes it another trouble than before."""
        return self.side, self.error.reason

    def sentence(self) -> str:
        """Return who fails and how, and what it may be."""
        said = f"{self.side}: {self.error.reason} ({self.error})"
        if self.error.reason == WRONG_REGION:  # which says itself what to do
            return said
        numbered = "; ".join(f"({number}) {cause}" for number, cause in enumerate(self._causes(), 1))
        return f"{said}. Likely causes: {numbered}"

    def _causes(self) -> tuple[str, str, str]:
        if isinstance(self.error, TryAgain) and self.error.code == NO_CREDENTIALS:
            return (
                "neither the configuration nor a file of AWS's has keys for this store",
                "the profile's program, role or session fails: try  aws sts get-caller-identity",
                "this machine has no role, or its metadata service does not answer",
            )
        if isinstance(self.error, TryAgain) and self.error.code not in {"", UNREACHABLE}:
            return (
                "its keys are wrong, expired, or may not list the bucket (s3:ListBucket)",
                "the bucket or the endpoint is not the one that is meant, or a policy of the bucket says no",
                _clock(self.error.ahead),
            )
        return (
            "the store is down, or a proxy before it",
            "the network or the name service of this machine",
            "the endpoint is misspelt",
        )


def _clock(ahead: float | None) -> str:
    if ahead is None:
        return "the clock of this machine; the store has sent no Date to compare it with"
    if abs(ahead) < SKEW:
        return "hardly the clock of this machine, which agrees with the store's Date"
    way = "behind" if ahead > 0 else "ahead of"
    return (
        f"the clock of this machine is {abs(ahead):.0f} s {way} the store's Date; S3 refuses more than 900 s"
    )


class Pause:
    """Of one route. Off until a check fails; `why` says what is wrong while it is on, `since` when it
    began, and `gate` is closed.
    `clock` is in seconds; `sleep` and `rng` (the jitter) are the probe's."""

    def __init__(self, route: Route, clock: Clock, sleep: Sleep, rng: random.Random) -> None:
        self.why = ""
        self.since = 0.0
        self.gate = Gate()
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
                if down := await _check(self._route):
                    self._stop(down)
                else:
                    self._checked = self._clock()
        return self.why

    async def end(self) -> None:
        """Probe no more."""
        if self._probe is not None:
            self._probe.cancel()
            with suppress(asyncio.CancelledError):
                await self._probe

    def _stop(self, down: list[Down]) -> None:
        self._say(down)
        self.since = self._clock()
        self.gate.close()
        self._probe = asyncio.create_task(self._until_it_works(down), name=f"probe of {self._route.id}")

    def _say(self, down: list[Down]) -> None:
        self.why = "; ".join(each.sentence() for each in down)
        route = self._route.id
        log(
            Action.PAUSED,
            f"route {route} paused, its tasks wait: {self.why}",
            level=logging.ERROR,
            route=route,
        )

    async def _until_it_works(self, down: list[Down]) -> None:
        began = self._clock()
        for wait in chain(WAITS, repeat(WAITS[-1])):
            await self._sleep(wait * self._rng.uniform(0.8, 1.2))
            if not (now := await _check(self._route)):
                break
            if [each.cause for each in now] != [each.cause for each in down]:  # what was mended was not all
                self._say(now)
            down = now
        self.why = ""
        self.gate.open()
        lasted = round(self._clock() - began, 3)
        log(Action.RESUMED, "route works again, its tasks go on", route=self._route.id, seconds=lasted)


async def _check(route: Route) -> list[Down]:
    """Return what is wrong with the buckets of `route`, of each that does not answer. One that asks for
    patience is there."""
    down = []
    for bucket, side in zip_longest(route.buckets, route.sides[: len(route.buckets)]):
        wrong = await _check_one(bucket)
        if wrong is not None and not isinstance(wrong, Throttled):
            down.append(Down(side or bucket.name, wrong))
    return down


async def _check_one(bucket: Bucket) -> HookmirrorError | None:
    try:
        async with asyncio.timeout(CHECK_WITHIN):
            await bucket.check()
    except HookmirrorError as error:
        return error
    except TimeoutError:
        return StoreAway(f"{bucket.name}: no answer within {CHECK_WITHIN:.0f} s")
    except Exception as error:  # noqa: BLE001 - no answer that is known is a good one; a probe must not die of it
        return StoreAway(f"{bucket.name}: {error!r}")
    return None
