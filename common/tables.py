"""The tables of the configuration, one class each, with what each value means and must be.

`common.settings` reads them; nothing here reads a file or the environment.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, FilePath, IPvAnyNetwork, SecretStr, model_validator

from common.store.place import place
from common.urls import GUARDS, check_served, guarding, is_absolute, path_of


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QueueSettings(_Table):
    """`[queue]`: where tasks wait."""

    url: str = "sqlite:///hookmirror.db"


SnsTopic = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+$")]


class ReceiverSettings(_Table):
    """`[receiver]`: where hooks come in. `public_url` is signed exactly as written here.

    `stack_url` is where stack notifications come in (`[[stack_routes]]`), `sns_topics` are the ARNs of the
    Amazon SNS topics that may deliver. Who is in none of `allowed_networks` may not call, unless there are
    none; of `trusted_proxies` the X-Forwarded-For is believed; `burst` is how many requests of one address
    may come at once.
    """

    host: str = "0.0.0.0"  # noqa: S104 - hooks come from outside
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: str | None = None
    stack_url: str | None = None
    sns_topics: tuple[SnsTopic, ...] = ()
    docs: bool = Field(default=True, description="whether /docs and /openapi.json are served")
    spool: Path | None = Field(default=None, description="a file that takes hooks while the broker is away")
    allowed_networks: tuple[IPvAnyNetwork, ...] = ()
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    requests_per_second: float = Field(default=1000.0, gt=0, description="by address")
    burst: int = Field(default=5000, ge=1)
    max_connections: int = Field(default=800, ge=1)

    @model_validator(mode="after")
    def _served(self) -> "ReceiverSettings":
        check_served("public_url", self.public_url)
        check_served("stack_url", self.stack_url)
        if self.stack_path is not None and unquote(self.stack_path) == unquote(self.path):
            raise ValueError("stack_url and public_url have the same path: give each its own")
        return self

    @property
    def path(self) -> str:
        """The path that hooks are served on: that of `public_url`, or /webhook."""
        return path_of(self.public_url) if self.public_url else "/webhook"

    @property
    def stack_path(self) -> str | None:
        """The path that stack notifications are served on, None when they are not."""
        return path_of(self.stack_url) if self.stack_url else None

    def secrets(self) -> Iterator[str]:
        """Yield what may never be written to a log: the paths."""
        for path in (self.path, self.stack_path or ""):
            yield from guarding(path)


class WorkerSettings(_Table):
    """`[worker]`: how tasks are done. Seconds everywhere; `look_after` is D of the write-ahead look."""

    concurrency: int = Field(default=32, ge=1, le=1000)
    look_after: int = Field(default=1200, ge=1, le=3600)
    attempts: int = Field(default=12, ge=1)
    drain: float = Field(default=25.0, ge=0)
    memory: int = Field(default=128 * 2**20, ge=64 * 2**20, description="bytes of object data held at once")


class MetricsSettings(_Table):
    """`[metrics]`: where /metrics and /healthz are served; nowhere without a port, on any free one for 0."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=0, le=65535)


Tags = Literal["auto", "always", "never"]


class StoreSettings(_Table):
    """`[stores.NAME]`: one S3 cloud. Credentials: here, from `profile`, or the AWS chain.

    `tags` of an object are read when the store says that there are any ("auto"), always (for a store that
    does not say it), or never (for a target that refuses them, or without the right to read them).
    `consistency` says whether a read shows what was written last ("strong", as AWS, Ceph, MinIO and most
    do), or may show an old state ("eventual"): then the mirror looks again after every write.
    `public_url` is where hooks of this store's buckets come in, when it is not `receiver.public_url`.
    """

    endpoint: str | None = None
    public_url: str | None = None
    region: str = "us-east-1"
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    key_encoding: Literal["auto", "raw", "url"] = "auto"
    max_requests_per_second: float | None = Field(default=None, gt=0)
    ca_bundle: FilePath | None = None
    tags: Tags = "auto"
    consistency: Literal["strong", "eventual"] = "strong"

    @model_validator(mode="after")
    def _whole(self) -> "StoreSettings":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both or neither")
        if self.endpoint and not is_absolute(self.endpoint):
            raise ValueError('endpoint must be absolute, like "https://hb.ru-msk.vkcloud-storage.ru"')
        check_served("public_url", self.public_url)
        return self

    @property
    def hook_path(self) -> str | None:
        """The path that hooks of this store are served on, None without one of its own."""
        return path_of(self.public_url) if self.public_url else None

    def place(self, bucket: str) -> str:
        """Return where `bucket` is, as `common.store.place` writes it."""
        china = ".cn" if self.region.startswith("cn-") else ""
        return place(self.endpoint or f"https://s3.{self.region}.amazonaws.com{china}", bucket)

    def secrets(self) -> Iterator[str]:
        """Yield what may never be written to a log: keys, and the path."""
        for secret in (self.secret_access_key, self.session_token):
            if secret is not None:
                yield secret.get_secret_value()
        yield from guarding(self.hook_path or "")


class BrakeSettings(_Table):
    """`[routes.brake]`: more than so many deletes within so many seconds are held for a person."""

    deletes: int = Field(default=1000, ge=1)
    window: float = Field(default=300.0, gt=0)


Address = Annotated[str, Field(pattern=r"^[^:]+:[^:/]+$", examples=["mcs:myfiles-ash"])]


OnFailure = Literal["retry", "bury"]

Former = Annotated[str, Field(pattern=r"^https?://.+/[^/]+$", examples=["https://old.example.org/myfiles"])]
"""The URL of a bucket, from which a target was filled before."""

MIRROR_ONLY = frozenset(
    {"target_prefix", "deletes", "storage_class", "sse", "kms_key", "max_bytes_per_second", "takes_over"}
)
"""Keys of a route that say how a target is kept: they mean nothing to an action."""

EXEC_TIMEOUT, FORWARD_TIMEOUT = 300.0, 30.0

SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks one

MAKE_SECRET = "Make one:  echo whsec_$(openssl rand -base64 32)"  # noqa: S105


class ActionTable(_Table):
    """What routes of every kind may say of a program to run (`exec`) or of a URL to send to (`forward`).

    `timeout` is in seconds. Of the actions in ACTIONS each route has one; what only makes sense beside one of
    them is refused beside another.
    """

    HINT: ClassVar[str] = ""
    ACTIONS: ClassVar[dict[str, frozenset[str]]] = {
        "exec": frozenset({"timeout", "on_failure"}),
        "forward": frozenset({"timeout", "secret", "ca_bundle"}),
    }

    name: str = ""
    exec: str | None = Field(default=None, min_length=1)
    forward: str | None = None
    timeout: float | None = Field(default=None, gt=0, le=540)
    on_failure: OnFailure = "retry"
    secret: SecretStr | None = None
    ca_bundle: FilePath | None = None

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        actions = [name for name in self.ACTIONS if getattr(self, name)]
        if len(actions) != 1:
            *most, last = self.ACTIONS
            named = " and ".join(actions) or "none of them"
            raise ValueError(
                f"a route has one of {', '.join(most)} and {last}, and this one {named}. {self.HINT}"
            )
        others = set().union(*self.ACTIONS.values()) - self.ACTIONS[actions[0]]
        for key in sorted(self.model_fields_set & others):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} means nothing beside {actions[0]}: leave it out")
        if self.forward is not None:
            self._check_forward(self.forward)
        return self

    def _check_forward(self, url: str) -> None:
        parts = urlsplit(url)
        if not is_absolute(url):
            raise ValueError('forward must be absolute, like "https://example.org/hooks"')
        if parts.username is not None or parts.fragment:
            raise ValueError("forward takes neither a user nor a fragment in its URL: the secret proves us")
        if not self.signing_keys:
            raise ValueError(f"forward needs a secret to sign with. {MAKE_SECRET}")

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
        """The name tasks carry: `name`, or else what is taken and what is done, in one string."""
        return self.name or f"{self._takes} -> {self._does}"

    @property
    def _takes(self) -> str:
        raise NotImplementedError

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
    HINT: ClassVar[str] = 'For a mirror:  target = "store:bucket"'

    source: Address
    target: Address | None = None
    prefix: str = ""
    suffix: str = ""
    target_prefix: str = ""
    deletes: Literal["mirror", "owned", "keep"] = "mirror"
    brake: BrakeSettings = Field(default_factory=BrakeSettings)
    storage_class: str | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    kms_key: str | None = None
    max_bytes_per_second: int | None = Field(default=None, gt=0)
    takes_over: tuple[Former, ...] = ()

    @property
    def _takes(self) -> str:
        return f"{self.source}/{self.prefix}*{self.suffix}"

    @property
    def _does(self) -> str:
        return f"{self.target}/{self.target_prefix}" if self.target else super()._does


_OF_STATUS = re.compile(r"[A-Z_*?!\[\]-]+")
"""What a pattern for words of capital letters may be made of."""


class StackRouteSettings(ActionTable):
    """`[[stack_routes]]`: what is done with notifications of Alibaba Cloud ROS stacks.

    A notification fits when its stack's name fits the pattern `stack` and its status one of `status` (`*`,
    `?`, `[ab]`; the case counts). Of `exec`, `forward` and `log` (a line in the worker's log) each route has
    one. Notifications of one StackId and Status that come within `window` seconds of the first run it once.
    """

    ACTIONS: ClassVar[dict[str, frozenset[str]]] = {**ActionTable.ACTIONS, "log": frozenset()}
    HINT: ClassVar[str] = "For a line in the log:  log = true"

    stack: str = Field(default="*", min_length=1)
    status: tuple[str, ...] = Field(default=("*",), min_length=1)
    log: bool = False
    window: float = Field(default=300.0, ge=1, le=86400)

    @model_validator(mode="after")
    def _fits_something(self) -> Self:
        for pattern in self.status:
            if not _OF_STATUS.fullmatch(pattern):
                raise ValueError(f'status: "{pattern}" fits no status, which are like CREATE_COMPLETE')
        return self

    @property
    def _takes(self) -> str:
        return f"stack {self.stack} {'|'.join(self.status)}"

    @property
    def _does(self) -> str:
        return "log" if self.log else super()._does


def _signing_key(written: str) -> bytes:
    """Return the bytes of a secret as Standard Webhooks writes it. The message never holds it."""
    try:
        key = base64.b64decode(written.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not written.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f'secret must be "{SECRET_PREFIX}" and 24 to 64 bytes in base64. {MAKE_SECRET}')
    return key
