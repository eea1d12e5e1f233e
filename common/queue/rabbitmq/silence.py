"""Queues that take nothing although the broker answers: quorum queues that came back dead from a kill."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEAD_AFTER = 20.0
"""Seconds for which every publish to a queue must have gone unconfirmed before the queue is called dead."""

FORGET_AFTER = 120.0
"""Seconds after which a failure says nothing any more: what hangs is tried again sooner."""

MEND = 'rabbitmqctl eval "$(cat deploy/rabbitmq/revive.erl)"'


class Silence:
    """Notes which queues confirm. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[float, float]] = {}  # when first and last since the queue confirmed

    @contextmanager
    def awaiting(self, queue: str) -> Iterator[None]:
        """The block ends when `queue` has confirmed. Whatever the broker answers is no silence."""
        began = self._clock()
        try:
            yield
        except asyncio.CancelledError:  # the caller's patience ended
            first, last = self._failed.get(queue, (began, began))
            now = self._clock()
            self._failed[queue] = (first if now - last < FORGET_AFTER else began), now
            raise
        except BaseException:
            self.answered(queue)
            raise
        self.answered(queue)

    def answered(self, queue: str) -> None:
        """The broker has said something of `queue`."""
        self._failed.pop(queue, None)

    def broke(self, queue: str) -> None:
        """The broker itself says that it cannot use `queue`."""
        now = self._clock()
        self._failed[queue] = now - DEAD_AFTER, now

    def dead(self) -> tuple[str, ...]:
        """Return the queues that must be dead, if the broker answers now."""
        now = self._clock()
        return tuple(
            queue
            for queue, (first, last) in sorted(self._failed.items())
            if last - first >= DEAD_AFTER and now - last < FORGET_AFTER
        )


def sentence(dead: tuple[str, ...]) -> str:
    """Return what is wrong with `dead`, and what to do."""
    return (
        f"RabbitMQ answers, but {' and '.join(dead)} takes nothing: a quorum queue that came back with no "
        f"leader after the broker was killed. Mend it on the broker's machine:  {MEND}  (docs/operations.md)"
    )
