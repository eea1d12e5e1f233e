"""The tables of the configuration that say what is done where: `[[routes]]` and `[[stack_routes]]`."""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common import values
from common.tables import Certificates, KeyStart, Table, Text
from common.urls import GUARDS, guarding


class BrakeSettings(Table):
    """`[routes.brake]`: more than so many deletes within so many seconds are held for a person."""

    deletes: int = Field(default=1000, ge=1)
    window: float = Field(default=300.0, ge=1, le=86400 * 366, description="seconds")


Address = Annotated[str, AfterValidator(values.address), Field(examples=["mcs:photos"])]


OnFailure = Literal["retry", "bury"]

Former = Annotated[str, AfterValidator(values.former)]
"""The URL of a bucket, from which a target was filled before."""

MIRROR_ONLY = frozenset(
    {"target_prefix", "deletes", "storage_class", "sse", "kms_key", "max_bytes_per_second", "takes_over"}
)
"""Keys of a route that say how a target is kept: they mean nothing to an action."""

EXEC_TIMEOUT, FORWARD_TIMEOUT = 300.0, 30.0

SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks one

MAKE_SECRET = "Make one:  echo whsec_$(openssl rand -base64 32)"  # noqa: S105


def _signing_key(written: str) -> bytes:
    """Return the bytes of a secret as Standard Webhooks writes it. The message never holds it."""
    try:
        key = base64.b64decode(written.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not written.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f'write "{SECRET_PREFIX}" and 24 to 64 bytes in base64. {MAKE_SECRET}')
    return key


def _signs(secret: SecretStr) -> SecretStr:
    if not [_signing_key(one) for one in secret.get_secret_value().split()]:
        raise ValueError(f"it is empty. {MAKE_SECRET}")
    return secret


class ActionTable(Table, ABC):
    """What routes of every kind may say of a program to run (`exec`) or of a URL to send to (`forward`).

    `timeout` is in seconds. Of the actions in ACTIONS each route has one; what only makes sense beside one of
    them is refused beside another.
    """

    HINT: ClassVar[str] = ""
    ACTIONS: ClassVar[dict[str, frozenset[str]]] = {
        "exec": frozenset({"timeout", "on_failure"}),
        "forward": frozenset({"timeout", "secret", "ca_bundle"}),
    }

    name: Annotated[str, AfterValidator(values.route_name)] | None = Field(default=None, examples=["photos"])
    exec: Text | None = Field(default=None, examples=["scripts/backup.sh"])
    forward: Annotated[str, AfterValidator(values.forwarded)] | None = Field(
        default=None, examples=["https://example.org/hooks"]
    )
    timeout: float | None = Field(default=None, ge=0.01, le=540, description="seconds")
    on_failure: OnFailure = "retry"
    secret: Annotated[SecretStr, AfterValidator(_signs)] | None = None
    ca_bundle: Certificates | None = None

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        actions = [name for name in self.ACTIONS if getattr(self, name)]
        if len(actions) != 1:
            *most, last = self.ACTIONS
            said = f"a route has one of {', '.join(most)} and {last}, and this one"
            if actions:
                raise ValueError(f"{said} {' and '.join(actions)}: leave one of them out")
            raise ValueError(f"{said} none: {self.HINT}")
        others = set().union(*self.ACTIONS.values()) - self.ACTIONS[actions[0]]
        for key in sorted(self.model_fields_set & others):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} means nothing beside {actions[0]}: leave it out")
        if self.forward is not None and self.secret is None:
            raise ValueError(f"forward needs a secret to sign with: add secret. {MAKE_SECRET}")
        return self

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """The keys that sign what is forwarded: `secret` holds one, or several while they are exchanged."""
        written = self.secret.get_secret_value().split() if self.secret else []
        return tuple(map(_signing_key, written))

    def secrets(self) -> Iterator[str]:
        """Yield what may never be written to a log: the secret, and long parts of the URL."""
        if self.secret is not None:
            yield from self.secret.get_secret_value().split()
        if self.forward is not None:
            url = urlsplit(self.forward)
            yield from guarding(url.path)
            yield from (value for _, value in parse_qsl(url.query) if len(value) >= GUARDS)

    @property
    def id(self) -> str:
        """The name tasks carry: `name`, or else what is taken and what is done, in one string. Which keys are
        taken is not in it: that may change without a task losing its route."""
        return self.name or f"{self._takes} -> {self._does}"

    @property
    @abstractmethod
    def _takes(self) -> str:
        """What is taken: each kind of route says so itself."""

    @property
    def _does(self) -> str:
        """What is done. Of a URL only the host: its path may be a secret."""
        if self.exec is not None:
            return f"exec {self.exec}"
        return f"forward {urlsplit(self.forward or '').netloc}"


class RouteSettings(ActionTable):
    """`[[routes]]`: what is done where. `source` is "store:bucket"; of `target` (another, kept equal to it),
    `exec` (a program) and `forward` (a URL) each route has one. `takes_over` names other buckets whose copies
    on the target are this route's own from now on: where the source was before it moved."""

    ACTIONS: ClassVar[dict[str, frozenset[str]]] = {"target": MIRROR_ONLY, **ActionTable.ACTIONS}
    HINT: ClassVar[str] = 'for a mirror add  target = "store:bucket"'

    source: Address
    target: Address | None = None
    prefix: KeyStart = ""
    suffix: Annotated[str, AfterValidator(values.key_part)] = Field(default="", examples=[".jpg"])
    target_prefix: KeyStart = ""
    deletes: Literal["mirror", "owned", "keep"] = "mirror"
    brake: BrakeSettings = Field(default_factory=BrakeSettings)
    storage_class: Text | None = Field(default=None, examples=["STANDARD_IA"])
    sse: Literal["AES256", "aws:kms"] | None = None
    kms_key: Annotated[Text, AfterValidator(values.printable)] | None = Field(
        default=None, examples=["arn:aws:kms:eu-central-1:123456789012:key/..."]
    )
    max_bytes_per_second: int | None = Field(default=None, ge=1024, le=2**40, description="bytes")
    takes_over: tuple[Former, ...] = Field(default=(), examples=["https://old.example.org/my-bucket"])

    @model_validator(mode="after")
    def _encrypts(self) -> Self:
        if self.kms_key is not None and self.sse != "aws:kms":
            raise ValueError('kms_key means nothing without  sse = "aws:kms":  add it, or leave kms_key out')
        return self

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        parts = {"prefix": len(self.prefix.encode()), "suffix": len(self.suffix.encode())}
        longer = max(parts, key=parts.__getitem__)
        size = len(self.target_prefix.encode()) + parts[longer]
        if size > values.LONGEST_KEY:
            raise ValueError(
                f"target_prefix and {longer} have {size} bytes together, and a key of the target has at most "
                f"{values.LONGEST_KEY}, so that none could be copied: write a shorter target_prefix"
            )
        return self

    @property
    def _takes(self) -> str:
        return self.source

    @property
    def _does(self) -> str:
        return self.target or super()._does


Statuses = tuple[Annotated[str, AfterValidator(values.status_pattern)], ...]


class StackRouteSettings(ActionTable):
    """`[[stack_routes]]`: what is done with notifications of Alibaba Cloud ROS stacks.

    A notification fits when its stack's name fits the pattern `stack` and its status one of `status` (`*`,
    `?`, `[ab]`; the case counts). Of `exec`, `forward` and `log` (a line in the worker's log) each route has
    one. Notifications of one StackId and Status that come within `window` seconds of the first run it once.
    """

    ACTIONS: ClassVar[dict[str, frozenset[str]]] = {**ActionTable.ACTIONS, "log": frozenset()}
    HINT: ClassVar[str] = "for a line in the log add  log = true"

    stack: Text = Field(default="*", examples=["prod-*"])
    status: Annotated[Statuses, AfterValidator(values.some)] = Field(default=("*",), examples=["*_FAILED"])
    log: bool = False
    window: float = Field(default=300.0, ge=1, le=86400, description="seconds")

    @property
    def _takes(self) -> str:
        return f"stack {self.stack} {'|'.join(self.status)}"

    @property
    def _does(self) -> str:
        return "log" if self.log else super()._does
