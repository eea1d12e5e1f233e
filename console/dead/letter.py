"""A dead letter as a person meets it: its task, its reason as a slug, its attempts."""

import base64
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common import errors
from common.errors import Never, TryAgain, Unreadable
from common.masking import masked
from common.queue.port import RETURNED, DeadLetter, Failure
from common.store.failures import NAMED
from common.task import Output, Task

CAME_BACK = "CameBack"
"""The reason of a letter that the queue itself buried: it came back unsettled too often."""

DEFECT = "Defect"
"""The reason of a letter whose error is none of ours: most likely a defect of hookmirror."""

REASONS = (
    *sorted(
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Never | TryAgain) and kind not in (Never, TryAgain)
    ),
    DEFECT,
)
"""Every reason there is, but for those that a store names itself."""

ALL_REASONS = frozenset({*REASONS, *NAMED})

_COUNTED = re.compile(r" \(attempt \d+ of \d+\)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter with what can be read from it. `task` is None when its bytes are none."""

    letter: DeadLetter
    task: Task | None
    reason: str

    @property
    def route(self) -> str | None:
        """The task's route."""
        return self.task.route if self.task else None

    @property
    def key(self) -> str | None:
        """The task's key."""
        return self.task.key if self.task else None


@dataclass(frozen=True, slots=True)
class Tried:
    """Attempts in a row that ended alike."""

    first: Failure
    last: Failure
    why: str


def read(letter: DeadLetter) -> Entry:
    """Return the letter with its task and its reason."""
    try:
        task = Task.decode(letter.body)
    except Unreadable:
        task = None
    return Entry(letter, task, reason_of(letter.why))


def reason_of(why: str) -> str:
    """Return which of the reasons `why` begins with: the worker writes it before the colon."""
    if why.startswith(RETURNED):
        return CAME_BACK
    name = why.partition(":")[0]
    return name if name in ALL_REASONS else DEFECT


def attempts(failures: Sequence[Failure]) -> Iterator[Tried]:
    """Yield the attempts, those in a row that ended alike as one: twelve lines of the same say no more."""
    row: list[Failure] = []
    for failure in failures:
        if row and _plain(row[-1].why) != _plain(failure.why):
            yield Tried(row[0], row[-1], _plain(row[0].why))
            row = []
        row.append(failure)
    if row:
        yield Tried(row[0], row[-1], _plain(row[0].why))


def _plain(why: str) -> str:
    return _COUNTED.sub("", why)


def as_dict(entry: Entry) -> dict[str, Any]:
    """Return the letter as plain values: the task if its bytes are one, what its outputs hide left out, and
    the bytes whole, in base64: they are what it is restored from."""
    letter = entry.letter
    return {
        "id": letter.id,
        "lane": letter.lane.kind,
        "at": letter.at,
        "reason": entry.reason,
        "why": letter.why,
        "attempt": letter.attempt,
        "task": _without_secrets(entry.task).model_dump(mode="json") if entry.task else None,
        "failures": [asdict(failure) for failure in letter.failures],
        "body": base64.b64encode(letter.body).decode(),
    }


def body_text(entry: Entry) -> str:
    """Return the bytes as text for a person; of a notification, what its outputs hide left out. One that was
    kept for its shape, and is no task, is cut off before its first output."""
    task = entry.task
    body = _without_secrets(task).encode() if task and task.stack else entry.letter.body
    text = body.decode(errors="backslashreplace")
    before, output, _ = text.partition('"OutputValue"')
    return text if task or not output else f"{before}{output}: *** (`dead export` has all of it)"


def _without_secrets(task: Task) -> Task:
    if task.stack is None:
        return task
    stack = task.stack.model_copy(update={"outputs": tuple(map(_masked, task.stack.outputs))})
    return task.model_copy(update={"stack": stack})


def _masked(output: Output) -> Output:
    value, description = masked(output.key, output.value), masked("", output.description)
    return Output(key=output.key, value=value, description=description)


def clock(seconds: float) -> str:
    """Return a time for people, in the zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "unknown"
