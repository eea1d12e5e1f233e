"""What all requests of senders have in common: a bounded body, JSON, and no answer before all is durable."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common.errors import HookmirrorError, QueueAway, Slow, TooLarge, Unreadable
from common.queue.port import Lane, Publisher
from common.task import Task
from common.telemetry import Action, log, unexpected
from receiver.admission import Rate, Visit
from receiver.dialects.unknown import describe_bytes
from receiver.metrics import HookMetrics

MAX_BODY = 256 * 1024
"""Bytes; a record has at most a few kilobytes."""

BODY_WITHIN = 5.0
"""Seconds for a body to arrive."""

ANSWER_WITHIN = 2.0
"""Seconds for all of a hook's records to be confirmed; then the sender is asked to come again."""

LETTERS, LETTERS_PER_SECOND = 100, 0.1
"""How many dead letters one address may cause at once, and how many again with time."""

BYTES, BYTES_PER_SECOND = 8 * 2**20, 1024
"""How many bytes they may have."""


async def read_bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the whole body. Raises `TooLarge` as soon as it is more than MAX_BODY, `Slow` when it takes
    longer than BODY_WITHIN."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN):
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_BODY:
                    raise TooLarge(f"a hook is at most {MAX_BODY} bytes")
    except TimeoutError as error:
        raise Slow(f"the body has not arrived within {BODY_WITHIN:.0f} s") from error
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """Return the JSON value of `body`. Raises `Unreadable`, in words that say what it is, for anything else,
    nesting without end included."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(describe_bytes(body)) from error


@dataclass(frozen=True, slots=True)
class Letter:
    """What nobody understands, whole, and why."""

    body: bytes
    why: str


@dataclass(slots=True)
class Found:
    """What is in one request: the tasks of `routed` records, what nobody understands, and how many records
    are of no concern, or name a bucket or a stack of no route."""

    tasks: list[Task] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    routed: int = 0
    ignored: int = 0
    unrouted: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of it: `queued` counts the tasks that are durable, `buried` the dead letters, and `dropped`
    what would have been more of these than its sender may cause."""

    queued: int = 0
    ignored: int = 0
    unrouted: int = 0
    buried: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender is told with its 200, and as what its request counts."""

    body: dict[str, Any]
    outcome: str


def by_lane(tasks: Iterable[Task]) -> dict[Lane, list[bytes]]:
    """Return the bytes of `tasks`, by the live lanes of their routes."""
    found: dict[Lane, list[bytes]] = {}
    for task in tasks:
        found.setdefault(Lane(task.route), []).append(task.encode())
    return found


class Intake:
    """Makes durable what came with a request: its tasks, and as dead letters what is none.

    Dead letters last until a person has seen them, and their sender may be a stranger, or repeat himself for
    ever: so of each address only so many are kept. `clock` gives seconds that never go back.
    """

    def __init__(
        self, publisher: Publisher, metrics: HookMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._letters = Rate(LETTERS_PER_SECOND, LETTERS, clock)
        self._bytes = Rate(BYTES_PER_SECOND, BYTES, clock)

    async def put(self, found: Found, visit: Visit, **about: str) -> Taken:
        """Return when all of it is durable, but for the letters that are too many of their sender; `about` is
        for the log line. Raises `QueueAway` when some is not within ANSWER_WITHIN."""
        kept = [letter for letter in found.letters if self._has_room(letter, visit.account)]
        start = time.monotonic()
        try:
            await self._all_durable(found.tasks, kept)
        except QueueAway:
            for letter in kept:  # it will be sent again
                self._letters.give(visit.account)
                self._bytes.give(visit.account, len(letter.body))
            raise
        finally:
            self._metrics.published(time.monotonic() - start)
        dropped = len(found.letters) - len(kept)
        taken = Taken(len(found.tasks), found.ignored, found.unrouted, len(kept), dropped)
        self._metrics.taken(asdict(taken) | {"queued": found.routed}, (task.route for task in found.tasks))
        _say(taken, kept, about | {"caller": visit.caller})
        return taken

    def _has_room(self, letter: Letter, account: str) -> bool:
        return self._bytes.take(account, len(letter.body)) and self._letters.take(account)

    async def _all_durable(self, tasks: Sequence[Task], letters: Sequence[Letter]) -> None:
        """The tasks first: one that comes again does no harm, and a dead letter would be there twice."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                if tasks:
                    await self._publisher.publish_all(by_lane(tasks))
                await asyncio.gather(*map(self._bury, letters))
        except TimeoutError as error:
            raise QueueAway("the queue has not confirmed the records in time") from error
        except HookmirrorError as error:
            raise QueueAway(str(error)) from error
        except Exception as error:
            raise QueueAway(unexpected(error)) from error

    async def _bury(self, letter: Letter) -> None:
        why = f"{Unreadable.__name__}: {letter.why}"
        await self._publisher.bury(letter.body, lane=Lane(""), why=why)


def _say(taken: Taken, kept: Sequence[Letter], about: dict[str, str]) -> None:
    """Write the one line of a request. What is only counted has none: nobody shall fill the log with it."""
    level = logging.WARNING if taken.buried or taken.unrouted else logging.INFO
    if taken.queued:
        sentence = "hook queued"
    elif kept:
        sentence = f"nothing queued, kept as a dead letter: {kept[0].why}"
    elif taken.unrouted:
        sentence = "nothing queued: no route names it"
    elif taken.dropped:
        return
    else:
        sentence = "nothing to queue"
    log(Action.HOOK, sentence, level=level, **about, **asdict(taken))
