"""The tables of the configuration, one class each, with what each value means and must be.

`common.settings` reads them; nothing here reads a file or the environment.
"""

import re
import ssl
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from common import values
from common.relative import DEFAULT_QUEUE
from common.sentences import ADVISED, no_value
from common.store.place import AWS, CLOUDS, place
from common.urls import guarding, path_of

Text = Annotated[str, AfterValidator(values.text)]
ServedUrl = Annotated[
    str, AfterValidator(values.served), Field(examples=["https://hooks.example.org/webhook/3f9c"])
]
Host = Annotated[str, AfterValidator(values.host), Field(examples=["127.0.0.1"])]
Port = Annotated[int, Field(ge=0, le=65535)]
Network = Annotated[IPvAnyNetwork, BeforeValidator(values.network)]
KeyStart = Annotated[str, AfterValidator(values.key_start), Field(examples=["photos/"])]


class Table(BaseModel):
    """A table of the configuration. Unknown keys are refused, and so is what is no value at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_value(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name and (why := no_value(info.field_name, cls.model_fields[info.field_name], value)):
            raise ValueError(why)
        return value


class QueueSettings(Table):
    """`[queue]`: where tasks wait. `management_url` is where RabbitMQ's management API tells of its policies;
    its user is that of `url` unless it names one."""

    url: Annotated[str, AfterValidator(values.queue)] = Field(
        default=DEFAULT_QUEUE, examples=["amqp://user:password@host/vhost"]
    )
    management_url: Annotated[str, AfterValidator(values.management)] | None = Field(
        default=None, examples=["http://rabbitmq:15672"]
    )


def _file(path: Path) -> Path:
    if "\0" in str(path) or path.is_dir():
        raise ValueError('that is no file: write the path of one, like "hookmirror-spool.db"')
    return path


EVERYBODY = frozenset({"0.0.0.0/0", "::/0"})


def _everybody(networks: Iterable[IPvAnyNetwork]) -> str:
    """Return the networks among these, or of several together, that hold every address; "" for none."""
    fours = collapse_addresses(one for one in networks if isinstance(one, IPv4Network))
    sixes = collapse_addresses(one for one in networks if isinstance(one, IPv6Network))
    return " and ".join(one for one in map(str, chain(fours, sixes)) if one in EVERYBODY)


SnsTopic = Annotated[str, AfterValidator(values.topic)]


class ReceiverSettings(Table):
    """`[receiver]`: where hooks come in. `public_url` is signed exactly as written here.

    `stack_url` is where stack notifications come in (`[[stack_routes]]`), `sns_topics` are the ARNs of the
    Amazon SNS topics that may deliver. Who is in none of `allowed_networks` may not call, unless there are
    none; of `trusted_proxies` the X-Forwarded-For is believed; `burst` is how many requests of one address
    may come at once.
    """

    host: Host = "0.0.0.0"  # noqa: S104 - hooks come from outside
    port: Port = 8080
    public_url: ServedUrl | None = None
    stack_url: ServedUrl | None = None
    sns_topics: tuple[SnsTopic, ...] = Field(
        default=(), examples=["arn:aws:sns:eu-central-1:123456789012:my-topic"]
    )
    docs: bool = Field(default=True, description="whether /docs and /openapi.json are served")
    spool: Annotated[Path, AfterValidator(_file)] | None = Field(
        default=None,
        description="a file that takes hooks while the broker is away",
        examples=["hookmirror-spool.db"],
    )
    allowed_networks: tuple[Network, ...] = Field(default=(), examples=["203.0.113.0/24"])
    trusted_proxies: tuple[Network, ...] = Field(default=(), examples=["127.0.0.1"])
    requests_per_second: float = Field(default=1000.0, ge=0.001, le=1_000_000, description="by address")
    burst: int = Field(default=5000, ge=1, le=1_000_000)
    max_connections: int = Field(default=800, ge=1, le=65535)

    @model_validator(mode="after")
    def _served(self) -> "ReceiverSettings":
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

    def open_to_all(self) -> Iterator[str]:
        """Yield a sentence for each list of networks that holds everybody."""
        if everybody := _everybody(self.trusted_proxies):
            yield (
                f"receiver.trusted_proxies: {everybody} is everybody: whoever calls can forge the address he "
                "calls from, and neither allowed_networks nor requests_per_second holds anybody off. Name "
                'your proxies alone, like  trusted_proxies = ["127.0.0.1"]'
            )
        if everybody := _everybody(self.allowed_networks):
            yield (
                f"receiver.allowed_networks: {everybody} is everybody: nobody is held off. Name who calls, "
                'like  allowed_networks = ["203.0.113.0/24"]  or leave it out'
            )

    def secrets(self) -> Iterator[str]:
        """Yield what may never be written to a log: the paths."""
        for path in (self.path, self.stack_path or ""):
            yield from guarding(path)


SIGNATURES_LIVE = 1200
"""Seconds: a signed request is taken for 15 minutes, and worked on for 4 more (docs/protocol.md)."""


class WorkerSettings(Table):
    """`[worker]`: how tasks are done. Seconds everywhere; `look_after` is D of the write-ahead look, and
    shorter than signed requests live only for tests and the demo, by `allow_short_look_after`. `processes` do
    the same, each with all that the other values say; "auto" is one for each processor."""

    processes: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 1
    concurrency: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] = "auto"
    look_after: int = Field(
        default=1200, ge=1, le=3600, description="seconds", json_schema_extra={ADVISED: SIGNATURES_LIVE}
    )
    allow_short_look_after: bool = False
    attempts: int = Field(default=12, ge=1, le=1000)
    drain: float = Field(default=25.0, ge=0, le=3600, description="seconds")
    memory: int = Field(
        default=128 * 2**20, ge=64 * 2**20, le=2**40, description="bytes of object data held at once"
    )

    @field_validator("processes", "concurrency", mode="wrap")
    @classmethod
    def _how_many(
        cls, value: object, check: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> int | Literal["auto"]:
        try:
            how_many: int | Literal["auto"] = check(value)
        except ValidationError:
            most = {"processes": 256, "concurrency": 1000}[str(info.field_name)]
            raise ValueError(f'write a whole number from 1 to {most}, or "auto"') from None
        return how_many

    @model_validator(mode="after")
    def _outlives_signatures(self) -> Self:
        if self.look_after < SIGNATURES_LIVE and not self.allow_short_look_after:
            raise ValueError(
                f"look_after = {self.look_after}: a write that is stuck may land {SIGNATURES_LIVE} seconds "
                f"late, and nobody would re-check it: write a number from {SIGNATURES_LIVE} to 3600 (seconds)"
            )
        return self


class MetricsSettings(Table):
    """`[metrics]`: where /metrics and /healthz are served; nowhere without a port, on any free one for 0."""

    host: Host = "127.0.0.1"
    port: Port | None = None


Tags = Literal["auto", "always", "never"]


def _secret(value: SecretStr) -> SecretStr:
    values.long_enough("it", values.printable(values.text(value.get_secret_value())))
    return value


def _certificates(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except OSError:  # an SSLError is one
        raise ValueError("there are no certificates in it: name a file of PEM certificates") from None
    return path


Secret = Annotated[SecretStr, AfterValidator(_secret)]
Certificates = Annotated[FilePath, AfterValidator(_certificates), Field(examples=["/etc/ssl/store.pem"])]


StorageClass = Annotated[str, AfterValidator(values.storage_class)]


class StoreSettings(Table):
    """`[stores.NAME]`: one S3 cloud. Credentials: here, from `profile`, or the AWS chain.

    `tags` of an object are read when the store says that there are any ("auto"), always (for a store that
    does not say it), or never (for a target that refuses them, or without the right to read them).
    `consistency` says whether a read shows what was written last ("strong", as AWS, Ceph, MinIO and most
    do), or may show an old state ("eventual"): then the mirror looks again after every write.
    `storage_classes` are those that it has beside Amazon's.
    `public_url` is where hooks of this store's buckets come in, when it is not `receiver.public_url`.
    """

    endpoint: Annotated[str, AfterValidator(values.endpoint)] | None = Field(
        default=None, examples=["https://hb.ru-msk.vkcloud-storage.ru"]
    )
    public_url: ServedUrl | None = None
    region: Annotated[str, AfterValidator(values.region)] = Field(
        default="us-east-1", examples=["eu-central-1"]
    )
    profile: Text | None = Field(default=None, examples=["mcs"])
    access_key_id: Annotated[Text, AfterValidator(values.printable)] | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    key_encoding: Literal["auto", "raw", "url"] = "auto"
    max_requests_per_second: float | None = Field(default=None, ge=0.01, le=1_000_000)
    ca_bundle: Certificates | None = None
    storage_classes: tuple[StorageClass, ...] = Field(default=(), examples=["COLD"])
    tags: Tags = "auto"
    consistency: Literal["strong", "eventual"] = "strong"

    @model_validator(mode="after")
    def _whole(self) -> "StoreSettings":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError(
                "session_token means nothing without access_key_id and secret_access_key: add them"
            )
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("profile and access_key_id are two ways to the same: leave one of them out")
        host = urlsplit(self.endpoint or "").hostname or ""
        self._check_region(host)
        self._check_endpoint(host)
        return self

    def _check_region(self, host: str) -> None:
        """A server of one's own may have a region of any name, and tells capitals from small letters."""
        known = self.endpoint is None or AWS.fullmatch(host) or host in CLOUDS.keys() | set(CLOUDS.values())
        if known and self.region != self.region.lower():
            lower = self.region.lower()
            raise ValueError(f'region = "{self.region}": regions here are lower case: write "{lower}"')

    def _check_endpoint(self, host: str) -> None:
        for cloud in CLOUDS.keys() | set(CLOUDS.values()):
            if host.endswith(f".{cloud}"):
                raise ValueError(
                    f'endpoint names a bucket, which goes into the route: write "https://{cloud}"'
                )
        if (
            AWS.fullmatch(host)
            and not re.match(r"s3|bucket\.|accesspoint\.|vpce-", host)
            and "vpce" not in host
        ):
            raise ValueError("endpoint names a bucket, which goes into the route: leave endpoint out for AWS")
        if self.addressing == "virtual" and (host == "localhost" or re.fullmatch(r"[\d.]+|.*:.*", host)):
            raise ValueError(
                'addressing = "virtual" puts the bucket before the name of the host, and endpoint is an '
                'address: write addressing = "path"'
            )

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
