"""Hooks on their way: at least once, in any order, as a publishing service delivers them."""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

HEADERS = {"X-Amz-Sns-Message-Type": "Notification", "Content-Type": "application/json"}

COLLECT = 0.02
"""Seconds for which records are collected before they are sent off."""

AT_ONCE = 16
"""Hooks under way at the same time."""

GIVE_UP = 60
"""Tries of one hook; at PAUSE_MAX seconds between them, some five minutes."""

PAUSE_MAX = 5.0

TIMEOUT = aiohttp.ClientTimeout(total=15)


@dataclass(frozen=True, slots=True)
class Habits:
    """How badly hooks are delivered: the share that goes out twice or more, the longest wait before one
    (seconds; most wait a fifth of it or less), and how many records one POST may carry."""

    duplicates: float = 0.0
    spread: float = 0.0
    batch: int = 1


@dataclass(slots=True)
class Sent:
    """What has been sent: `events` happened, in `records` with the duplicates, in `hooks` that were taken.
    `refused` tries were answered otherwise than 2xx or not at all; `abandoned` records were given up."""

    events: int = 0
    records: int = 0
    hooks: int = 0
    refused: int = 0
    abandoned: int = 0

    @property
    def duplicates(self) -> int:
        """Records beyond one for each event."""
        return self.records - self.events


class Outbox:
    """Delivers records to URLs; an async context manager. Leaving it drops what is not delivered."""

    def __init__(self, habits: Habits, rng: random.Random) -> None:
        self.sent = Sent()
        self.pending = 0
        self._habits = habits
        self._rng = rng
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._lanes = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> "Outbox":
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def put(self, url: str, record: Mapping[str, Any]) -> None:
        """Send `record` to `url` some time soon, at least once."""
        self.sent.events += 1
        copies = 1
        while copies < 4 and self._rng.random() < self._habits.duplicates:
            copies += 1
        for _ in range(copies):
            self.sent.records += 1
            self.pending += 1
            self._empty.clear()
            self._later(url, dict(record))

    async def drained(self) -> None:
        """Return when everything put so far has been delivered or given up."""
        await self._empty.wait()

    def _later(self, url: str, record: dict[str, Any]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            if url not in self._waiting:
                self._waiting[url] = []
                self._spawn(self._collect(url))
            self._waiting[url].append(record)

        timer = asyncio.get_running_loop().call_later(self._delay(), due)
        self._timers.add(timer)

    def _delay(self) -> float:
        spread = self._habits.spread
        return min(self._rng.expovariate(5 / spread), spread) if spread else 0.0

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _collect(self, url: str) -> None:
        """Make hooks of what comes due in the next moment, in no particular order."""
        await asyncio.sleep(COLLECT)
        records = self._waiting.pop(url)
        self._rng.shuffle(records)
        while records:
            size = self._rng.randint(1, self._habits.batch)
            hook, records = records[:size], records[size:]
            self._spawn(self._deliver(url, hook))

    async def _deliver(self, url: str, records: list[dict[str, Any]]) -> None:
        body = json.dumps({"Records": records}, ensure_ascii=False).encode()
        for attempt in range(GIVE_UP):
            async with self._lanes:
                asked = await self._post(url, body)
            if asked is None:
                self.sent.hooks += 1
                break
            self.sent.refused += 1
            backoff = min(0.25 * 2 ** min(attempt, 10), PAUSE_MAX)
            await asyncio.sleep(max(asked, backoff * self._rng.uniform(0.5, 1)))
        else:
            self.sent.abandoned += len(records)
        self.pending -= len(records)
        if not self.pending:
            self._empty.set()

    async def _post(self, url: str, body: bytes) -> float | None:
        """Return None when the hook was taken, else the seconds that the other side asked to wait."""
        try:
            async with self._session.post(url, data=body, headers=HEADERS, allow_redirects=False) as answer:
                await answer.read()
                if 200 <= answer.status < 300:
                    return None
                after = answer.headers.get("Retry-After", "")
                return float(after) if after.isdecimal() else 0.0
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0.0
