"""The configuration: one TOML file, overridden by the environment and by secret files; read once.

Sources, the first that names a value wins: the environment (`HOOKMIRROR_WORKER__CONCURRENCY=8`,
lists as JSON), files named alike among systemd's credentials or under `/run/secrets`, the TOML file.
Only this module reads the environment.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from common import overlap
from common.errors import ConfigError
from common.tables import (
    ActionTable,
    MetricsSettings,
    QueueSettings,
    ReceiverSettings,
    RouteSettings,
    StackRouteSettings,
    StoreSettings,
    WorkerSettings,
)

PREFIX = "HOOKMIRROR_"
DEFAULT_FILE = "hookmirror.toml"
SECRETS_DIR = "/run/secrets"
OWN_VARIABLES = {"HOOKMIRROR_CONFIG", "HOOKMIRROR_LOG"}


@dataclass(frozen=True, slots=True)
class Inlet:
    """Where hooks come in: at `path`, registered as `url`, for `routes`."""

    path: str
    url: str | None
    routes: tuple[RouteSettings, ...]


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
    stack_routes: tuple[StackRouteSettings, ...] = ()

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
        names = [route.id for route in self.all_routes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'routes: two are called "{name}". Give each its own:  name = "..."')
        if self.stack_routes and self.receiver.stack_url is None:
            raise ValueError(
                "stack_routes: there is no URL for notifications. "
                'Add to [receiver]:  stack_url = "https://hooks.example.org/stacks/..."'
            )
        self._check_paths()
        overlap.check(self.routes, self.stores)
        overlap.check_hooks(self.routes, self.stores)
        return self

    def _check_paths(self) -> None:
        known = {unquote(self.receiver.path): "receiver.public_url"}
        if self.receiver.stack_path is not None:
            known[unquote(self.receiver.stack_path)] = "receiver.stack_url"
        for name, store in self.stores.items():
            if store.hook_path is None:
                continue
            other = known.setdefault(unquote(store.hook_path), f"stores.{name}.public_url")
            if other != f"stores.{name}.public_url":
                raise ValueError(
                    f"stores.{name}.public_url and {other} have the same path: give each its own"
                )

    def hook_url(self, source: str) -> str | None:
        """Return the URL to register at `source`, "store:bucket": its store's own, or the general one."""
        return self.stores[source.partition(":")[0]].public_url or self.receiver.public_url

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """Where hooks come in: first the general path, for the stores that have none of their own."""
        by_url: dict[str | None, list[RouteSettings]] = {}
        for route in self.routes:
            by_url.setdefault(self.stores[route.source.partition(":")[0]].public_url, []).append(route)
        general = Inlet(self.receiver.path, self.receiver.public_url, tuple(by_url.get(None, ())))
        own = (
            Inlet(store.hook_path, store.public_url, tuple(by_url.get(store.public_url, ())))
            for store in self.stores.values()
            if store.hook_path is not None
        )
        return general, *own

    def two_ways(self) -> dict[str, str]:
        """Return the id of each route's inverse, for routes that keep two buckets equal both ways."""
        return overlap.two_ways(self.routes, self.stores)

    @property
    def all_routes(self) -> tuple[ActionTable, ...]:
        """The routes of both kinds; each has a name of its own."""
        return (*self.routes, *self.stack_routes)

    def secrets(self) -> Iterator[str]:
        """Yield every value that may never be written to a log."""
        if password := urlsplit(self.queue.url).password:
            yield from {password, unquote(password)}
        yield from self.receiver.secrets()
        for store in self.stores.values():
            yield from store.secrets()
        for route in self.all_routes:
            yield from route.secrets()


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
    if kind == "tuple_type":
        name = problem["loc"][-1]
        written = f'{name} = ["..."]' if "." in location else f"[[{name}]]"
        return f"{location}: this is a list. Write:  {written}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{location}: {message}" if location else message


def _known(location: tuple[Any, ...]) -> list[str]:
    """The keys there are in the table at `location`."""
    tables: dict[tuple[Any, ...], type[BaseModel]] = {
        (): Settings,
        ("queue",): QueueSettings,
        ("receiver",): ReceiverSettings,
        ("worker",): WorkerSettings,
        ("metrics",): MetricsSettings,
    }
    by_name: dict[Any, type[BaseModel]] = {
        "stores": StoreSettings,
        "routes": RouteSettings,
        "stack_routes": StackRouteSettings,
    }
    table = tables.get(location) or by_name.get(location[0] if location else "", Settings)
    return list(table.model_fields)


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known)}."
