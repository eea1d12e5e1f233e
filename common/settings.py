"""The configuration: one TOML file, overridden by the environment and by secret files; read once.

Sources, the first that names a value wins: the environment (`HOOKMIRROR_WORKER__CONCURRENCY=8`,
lists as JSON), files named alike among systemd's credentials or under `/run/secrets`, the TOML file.
Only this module reads the environment.
"""

import base64
import binascii
import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from common.errors import ConfigError

PREFIX = "HOOKMIRROR_"
DEFAULT_FILE = "hookmirror.toml"
SECRETS_DIR = "/run/secrets"
OWN_VARIABLES = {"HOOKMIRROR_CONFIG", "HOOKMIRROR_LOG"}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QueueSettings(_Table):
    """`[queue]`: where tasks wait."""

    url: str = "sqlite:///hookmirror.db"


class ReceiverSettings(_Table):
    """`[receiver]`: where hooks come in. `public_url` is signed exactly as written here.

    Who is in none of `allowed_networks` may not call, unless there are none; of `trusted_proxies` the
    X-Forwarded-For is believed; `burst` is how many requests of one address may come at once.
    """

    host: str = "0.0.0.0"  # noqa: S104 - hooks come from outside
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: str | None = None
    spool: Path | None = Field(default=None, description="a file that takes hooks while the broker is away")
    allowed_networks: tuple[IPvAnyNetwork, ...] = ()
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    requests_per_second: float = Field(default=1000.0, gt=0, description="by address")
    burst: int = Field(default=5000, ge=1)
    max_connections: int = Field(default=800, ge=1)

    @model_validator(mode="after")
    def _absolute(self) -> "ReceiverSettings":
        if self.public_url is not None and not urlsplit(self.public_url).netloc:
            raise ValueError('public_url must be absolute, like "https://hooks.example.org/webhook/3f9c"')
        if set("{}") & set(unquote(self.path)):
            raise ValueError("public_url has a brace in its path, which cannot be served")
        return self

    @property
    def path(self) -> str:
        """The path that is served: that of `public_url`, or /webhook."""
        return (urlsplit(self.public_url).path or "/") if self.public_url else "/webhook"


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
    """

    endpoint: str | None = None
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

    @model_validator(mode="after")
    def _whole(self) -> "StoreSettings":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both or neither")
        return self


class BrakeSettings(_Table):
    """`[routes.brake]`: more than so many deletes within so many seconds are held for a person."""

    deletes: int = Field(default=1000, ge=1)
    window: float = Field(default=300.0, gt=0)


Address = Annotated[str, Field(pattern=r"^[^:]+:[^:/]+$", examples=["mcs:myfiles-ash"])]


OnFailure = Literal["retry", "bury"]

MIRROR_ONLY = frozenset(
    {"target_prefix", "deletes", "storage_class", "sse", "kms_key", "max_bytes_per_second"}
)
"""Keys of a route that say how a target is kept: they mean nothing to an action."""

EXEC_TIMEOUT, FORWARD_TIMEOUT = 300.0, 30.0

SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks one

MAKE_SECRET = "Make one:  echo whsec_$(openssl rand -base64 32)"  # noqa: S105


class RouteSettings(_Table):
    """`[[routes]]`: what is done where. `source` is "store:bucket"; of `target` (another, kept equal to it),
    `exec` (a program) and `forward` (an URL) each route has one. `timeout` is in seconds."""

    name: str = ""
    source: Address
    target: Address | None = None
    exec: str | None = Field(default=None, min_length=1)
    forward: str | None = None
    timeout: float | None = Field(default=None, gt=0, le=540)
    on_failure: OnFailure = "retry"
    secret: SecretStr | None = None
    ca_bundle: FilePath | None = None
    prefix: str = ""
    suffix: str = ""
    target_prefix: str = ""
    deletes: Literal["mirror", "owned", "keep"] = "mirror"
    brake: BrakeSettings = Field(default_factory=BrakeSettings)
    storage_class: str | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    kms_key: str | None = None
    max_bytes_per_second: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_action(self) -> "RouteSettings":
        actions = [name for name in ("target", "exec", "forward") if getattr(self, name) is not None]
        if len(actions) != 1:
            named = " and ".join(actions) or "none of them"
            raise ValueError(
                f"a route has one of target, exec and forward, and this one {named}. "
                'For a mirror:  target = "store:bucket"'
            )
        allowed = {
            "target": MIRROR_ONLY,
            "exec": {"timeout", "on_failure"},
            "forward": {"timeout", "secret", "ca_bundle"},
        }
        for key in sorted(self.model_fields_set & set().union(*allowed.values()) - allowed[actions[0]]):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} means nothing beside {actions[0]}: leave it out")
        if self.forward is not None:
            self._check_forward(self.forward)
        return self

    def _check_forward(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
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

    @property
    def id(self) -> str:
        """The name tasks carry: `name`, or else source, filter and what is done, in one string.

        Of a URL only the host: its path may be a secret.
        """
        where = f"{self.target}/{self.target_prefix}"
        if self.exec is not None:
            where = f"exec {self.exec}"
        elif self.forward is not None:
            where = f"forward {urlsplit(self.forward).netloc}"
        return self.name or f"{self.source}/{self.prefix}*{self.suffix} -> {where}"


def _signing_key(written: str) -> bytes:
    """Return the bytes of a secret as Standard Webhooks writes it. The message never holds it."""
    try:
        key = base64.b64decode(written.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not written.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f'secret must be "{SECRET_PREFIX}" and 24 to 64 bytes in base64. {MAKE_SECRET}')
    return key


class Settings(BaseSettings):
    """The whole configuration, checked."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        secrets_dir=SECRETS_DIR,
        secrets_dir_missing="ok",
    )

    queue: QueueSettings = Field(default_factory=QueueSettings)
    receiver: ReceiverSettings = Field(default_factory=ReceiverSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    stores: dict[str, StoreSettings] = Field(default_factory=dict)
    routes: tuple[RouteSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before secret files before the TOML file."""
        folders = [settings_cls.model_config.get("secrets_dir"), os.environ.get("CREDENTIALS_DIRECTORY")]
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=[str(folder) for folder in folders if folder],
            secrets_dir_missing="ok",
            secrets_nested_delimiter="__",
            secrets_prefix=PREFIX,
        )
        return env_settings, secrets, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        for index, route in enumerate(self.routes):
            for side in ("source", "target"):
                store = (getattr(route, side) or "").partition(":")[0]
                if store and store not in self.stores:
                    raise ValueError(
                        f'routes.{index}.{side}: store "{store}" is not defined. Add:  [stores.{store}]'
                    )
            if route.source == route.target:
                raise ValueError(f"routes.{index}: source and target are the same bucket, {route.source}")
        names = [route.id for route in self.routes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'routes: two are called "{name}". Give each its own:  name = "..."')
        return self

    def secrets(self) -> Iterator[str]:
        """Yield every value that may never be written to a log."""
        for store in self.stores.values():
            for secret in (store.secret_access_key, store.session_token):
                if secret is not None:
                    yield secret.get_secret_value()
        if password := urlsplit(self.queue.url).password:
            yield from {password, unquote(password)}
        yield from _guarding(self.receiver.path)
        for route in self.routes:
            if route.secret is not None:
                yield from route.secret.get_secret_value().split()
            if route.forward is not None:
                url = urlsplit(route.forward)
                yield from _guarding(url.path)
                yield from (value for _, value in parse_qsl(url.query) if len(value) >= GUARDS)


GUARDS = 12


def _guarding(path: str) -> Iterator[str]:
    # A path as short as /webhook guards nothing, and hiding it would garble other lines.
    for part in path.split("/"):
        if len(part) >= GUARDS:
            yield from {part, unquote(part)}


def for_programs() -> dict[str, str]:
    """Return the environment for programs that we run: ours without our own values, for they are secrets."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}


def load(path: str | Path | None = None) -> Settings:
    """Return the configuration of `path`, of `HOOKMIRROR_CONFIG`, or of `hookmirror.toml` here.

    Raises `ConfigError` naming each wrong key and the line that mends it. Without any file the
    environment alone must say everything.
    """
    named = path or os.environ.get("HOOKMIRROR_CONFIG")
    file = Path(named or DEFAULT_FILE)
    if named and not file.is_file():
        raise ConfigError(f"{file}: no such file. Write one with:  hookmirror init --output {file}")
    _no_stray_variables(os.environ)
    try:
        return Settings(**TomlConfigSettingsSource(Settings, file)())
    except ValidationError as error:
        raise ConfigError(_explain(error, file)) from error
    except (SettingsError, ValueError, OSError) as error:  # TOML syntax, JSON in a variable, permissions
        raise ConfigError(f"{file}: {error}") from error


def log_format() -> str:
    """Return `HOOKMIRROR_LOG`: "json", "human" or "auto". Raises `ConfigError` for anything else."""
    value = os.environ.get("HOOKMIRROR_LOG", "auto")
    if value not in {"json", "human", "auto"}:
        raise ConfigError(f'HOOKMIRROR_LOG is "{value}". Set:  HOOKMIRROR_LOG=json  (or human, or auto)')
    return value


def _no_stray_variables(environ: Mapping[str, str]) -> None:
    for name in environ:
        if name.upper().startswith(PREFIX) and name.upper() not in OWN_VARIABLES:
            top = name.upper().removeprefix(PREFIX).partition("__")[0].lower()
            if top not in Settings.model_fields:
                raise ConfigError(f"{name}: unknown key. {_nearest(top, list(Settings.model_fields))}")


def _explain(error: ValidationError, file: Path) -> str:
    return "\n".join(f"{file}: {_sentence(e)}" for e in error.errors(include_url=False, include_input=False))


def _sentence(problem: Any) -> str:
    location, kind = ".".join(map(str, problem["loc"])), problem["type"]
    if kind == "extra_forbidden":
        return f"{location}: unknown key. {_nearest(str(problem['loc'][-1]), _known(problem['loc'][:-1]))}"
    if kind == "missing":
        return f'{location}: missing. Add:  {problem["loc"][-1]} = "..."'
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{location}: {message}" if location else message


def _known(location: tuple[Any, ...]) -> list[str]:
    """The keys there are in the table at `location`."""
    tables: dict[tuple[Any, ...], type[BaseModel]] = {
        (): Settings,
        ("queue",): QueueSettings,
        ("receiver",): ReceiverSettings,
        ("worker",): WorkerSettings,
    }
    by_name: dict[Any, type[BaseModel]] = {"stores": StoreSettings, "routes": RouteSettings}
    table = tables.get(location) or by_name.get(location[0] if location else "", Settings)
    return list(table.model_fields)


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known)}."
