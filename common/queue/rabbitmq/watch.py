"""Looks at the broker's policies: when a program starts, with each new connection, and now and then."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from yarl import URL

from common.errors import ConfigError, QueueAway
from common.queue.rabbitmq import policy
from common.queue.topology import Declaration
from common.telemetry import Action, log

EVERY = 60.0
"""Seconds after which the policies are looked at again, when anybody asks for the depths."""

MENDED = 3.0
"""The same while there is one that loses: who has taken it off waits for us."""


class PolicyWatch:
    """`losing` has a sentence for each policy that loses, over what `queues` returns, as far as the API at
    `management` told last. Where that is None nobody is asked. `clock` is in seconds."""

    def __init__(
        self,
        management: str | None,
        amqp: URL,
        queues: Callable[[], Iterable[Declaration]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._management = management
        self._amqp = amqp
        self._queues = queues
        self._clock = clock
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._warned: tuple[str, ...] = ()
        self.losing: tuple[str, ...] = ()

    def start(self) -> None:
        """Look in the background, if that is not under way."""
        if self._management is not None and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look(self._management))

    def start_if_old(self) -> None:
        """Look in the background if it is time to."""
        if self._clock() - self._looked >= (MENDED if self.losing else EVERY):
            self.start()

    async def look(self, *, refuse: bool) -> None:
        """Look, and return when that has ended. What cannot be found out is in the log. With `refuse`, raise
        `ConfigError` for a policy that loses."""
        self.start()
        if self._looking is not None:
            await asyncio.shield(self._looking)
        if refuse and self.losing:
            raise ConfigError(self.losing[0])

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self, management: str) -> None:
        try:
            found = await policy.laid(management, self._amqp, self._queues())
        except QueueAway as error:
            self._warn(str(error))  # what was known stays
        else:
            self._note(tuple(policy.losing(found)))
            self._warn(*policy.doubtful(found))
        finally:
            self._looked = self._clock()

    def _note(self, losing: tuple[str, ...]) -> None:
        for sentence in losing:
            if sentence not in self.losing:
                log(Action.QUEUE, sentence, level=logging.ERROR)
        if self.losing and not losing:
            log(Action.QUEUE, "no policy of RabbitMQ deletes what we hold any more")
        self.losing = losing

    def _warn(self, *sentences: str) -> None:
        for sentence in sentences:
            if sentence not in self._warned:
                log(Action.QUEUE, sentence, level=logging.WARNING)
        self._warned = sentences
