"""The supervisor's end of the line to a process: a socket on which it asks what is counted there."""

import asyncio
import json
import socket
from collections import deque
from contextlib import suppress

from common.merge import Families, Family, State, lasting, merge

TELL, STOP = b"tell\n", b"stop\n"
"""What the supervisor says. An answer is a line of JSON; the last one comes unasked, at the process's end."""

ANSWER_WITHIN = 2.0
"""Seconds."""

UNANSWERED = 8
"""Questions. Who owes so many answers is asked no more until he gives one."""

LONGEST = 2**26
"""Bytes of an answer."""


class Line:
    """To one process after the other: what those before have counted is kept."""

    def __init__(self) -> None:
        self.state: dict[str, State] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._asked: deque[asyncio.Future[bool]] = deque()
        self._answers = False
        self._told: Families = {}
        self._kept: Families = {}

    @property
    def families(self) -> Families:
        """What all of them counted. How things are is only told of one that answers."""
        return merge([self._kept, self._told if self._answers else lasting(self._told)])

    async def listen(self, end: socket.socket, stop: asyncio.Event) -> None:
        """Take answers until the process is gone. Tell it to stop when `stop` is set."""
        reader, self._writer = await asyncio.open_unix_connection(sock=end, limit=LONGEST)
        stopping = asyncio.create_task(self._stop(stop, self._writer))
        try:
            with suppress(OSError, ValueError):  # its last answer was cut by its death
                while answer := await reader.readline():
                    self._hear(answer)
        finally:
            stopping.cancel()
            self._writer.close()
            self._writer, self._answers = None, False
            while self._asked:
                self._asked.popleft().set_result(False)
            self._kept, self._told, self.state = self.families, {}, {}

    async def ask(self) -> bool:
        """Learn what the process counts; return whether it answers."""
        if self._writer is None or len(self._asked) >= UNANSWERED:
            self._answers = False
            return False
        answered = asyncio.get_running_loop().create_future()
        self._asked.append(answered)
        self._writer.write(TELL)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                self._answers = await asyncio.shield(answered)
        except TimeoutError:
            self._answers = False
        return self._answers

    def _hear(self, answer: bytes) -> None:
        told, self.state = json.loads(answer)
        self._told = {name: Family(*family) for name, family in told.items()}
        if self._asked:
            self._asked.popleft().set_result(True)

    async def _stop(self, stop: asyncio.Event, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.write(STOP)
