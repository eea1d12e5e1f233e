"""A task: which key to look at. Never what to do to it."""

import time
import uuid
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import Unreadable

LOOK = "look"
"""The event of a task that no hook brought."""


class Claim(StrEnum):
    """What an event said had happened. A hint: the source decides."""

    CREATED = "created"
    REMOVED = "removed"


class Upload(BaseModel):
    """A copy in parts that is under way on the target: where whoever goes on finds it, and the identity
    of the source state that it is a copy of. `proven` parts of it have been read a second time; `opaque`
    says that the ETags of its parts are no MD5s."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    identity: str
    part_size: int = Field(gt=0)
    proven: int = Field(default=0, ge=0)
    opaque: bool = False


class Trouble(BaseModel):
    """How a task failed: last `at`, at the operation `stage`; `spared` failures in a row have not counted,
    the first of them at `since`, for no other object is known to have passed (epoch seconds)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: float
    since: float
    spared: int = Field(default=0, ge=0)
    stage: str = "read"


class Output(BaseModel):
    """One output of a stack. Its value is any JSON, and may be a secret."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    value: Any = None
    description: str = ""


class Stack(BaseModel):
    """What Alibaba Cloud ROS tells of a stack when an operation on it is over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str = Field(min_length=1)
    status: str
    outputs: tuple[Output, ...] = ()


class Task(BaseModel):
    """One key of one route to be looked at, as it travels through the queue.

    `claim` is None for a *look*, which always compares before it writes. `etag` is the ETag the
    event named, and `size` its bytes, if it did; `received` is when the hook came in (seconds since
    the epoch), from which the lag is told. `tries` counts the looks that were promised in its chain.
    `seen` is what the source showed when it contradicted an event ("" for no such key): the look that
    follows has nothing to do when it shows the same. `doubt` says that an earlier write of it has an end
    that nobody knows, `trouble` how it failed before. `approved` lets a delete pass the brake; `upload` is
    a copy to go on with. `stack` is the notification that a task of a stack route is about: then `key` is
    the stack's name and `event` its status.
    Unknown fields are ignored, so that an older worker can read a newer receiver's tasks; another `v`
    is another language and is buried.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    route: str
    key: str = Field(min_length=1)
    claim: Claim | None = None
    etag: str | None = None
    size: int | None = None
    event: str = LOOK
    received: float = Field(default_factory=time.time)
    tries: int = 0
    seen: str | None = None
    doubt: bool = False
    trouble: Trouble | None = None
    approved: bool = False
    upload: Upload | None = None
    stack: Stack | None = None

    @property
    def from_hook(self) -> bool:
        """Whether a hook brought it, be it one that claims nothing (of a tag). All else are looks."""
        return self.claim is not None or self.event != LOOK

    def look(self, seen: str | None = None) -> "Task":
        """Return the same task with no claim: look at the key and, unless the source shows what was `seen`,
        compare and agree.

        A look is not approved: what a person let past the brake was this delete, not every later one.
        """
        about_this_try = {
            "claim": None,
            "etag": None,
            "event": LOOK,
            "doubt": False,
            "approved": False,
            "upload": None,
        }
        return self.model_copy(update=about_this_try | {"tries": self.tries + 1, "seen": seen})

    def encode(self) -> bytes:
        """Return the task as JSON, the form in which it is queued."""
        return self.model_dump_json(exclude_none=True).encode()

    @staticmethod
    def decode(body: bytes) -> "Task":
        """Return the task in `body`. Raises `Unreadable` when it is none."""
        try:
            return Task.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise Unreadable(f"not a task: {where}: {first['msg']}") from error
