"""The configuration: one TOML file, overridden by secret files and by the environment; read once.

Sources, the first that names a value wins: the environment (`HOOKMIRROR_WORKER__CONCURRENCY=8`, tables and
lists as JSON), files named alike among systemd's credentials or under `/run/secrets`, the TOML file.
Only this module reads the environment.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from common import overlap, telemetry, values
from common.errors import ConfigError
from common.keys import place
from common.masking import masked
from common.relative import anchored
from common.routes import ActionTable, RouteSettings, StackRouteSettings
from common.sentences import alike, sentence
from common.sources import PREFIX, Found, gather, no_file
from common.tables import (
    MetricsSettings,
    QueueSettings,
    ReceiverSettings,
    StoreSettings,
    Table,
    WorkerSettings,
)
from common.urls import destination, path_of, weakness

__all__ = ["PREFIX", "Inlet", "Settings", "for_programs", "load", "log_format", "start"]

DEFAULT_FILE = "hookmirror.toml"
SECRETS_DIR = "/run/secrets"
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - it is only compared


@dataclass(frozen=True, slots=True)
class Inlet:
    """Where hooks come in: at `path`, registered as `url`, for `routes`."""

    path: str
    url: str | None
    routes: tuple[RouteSettings, ...]


class Settings(Table):
    """The whole configuration, checked. `notes` says what was put right while it was read."""

    _notes: tuple[str, ...] = PrivateAttr(default=())
    _again: Callable[[], "Settings"] | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _file: Path | None = PrivateAttr(None)

    queue: QueueSettings = Field(default_factory=QueueSettings)
    receiver: ReceiverSettings = Field(default_factory=ReceiverSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    stores: dict[str, StoreSettings] = Field(default_factory=dict)
    routes: tuple[RouteSettings, ...] = ()
    stack_routes: tuple[StackRouteSettings, ...] = ()

    @field_validator("stores")
    @classmethod
    def _named(cls, stores: dict[str, StoreSettings]) -> dict[str, StoreSettings]:
        for name in stores:
            values.store_name(name)
        return stores

    @property
    def folder(self) -> Path:
        """What relative paths are relative to: the folder of the configuration's file."""
        return self._folder

    @property
    def file(self) -> Path | None:
        """The configuration's file; None when the environment alone says everything."""
        return self._file

    @property
    def notes(self) -> tuple[str, ...]:
        """What was put right while it was read, a sentence each."""
        return self._notes

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        for index, route in enumerate(self.routes):
            self._check_stores(index, route)
        names = [route.id for route in self.all_routes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'routes: two are called "{name}": give each its own  name = "..."')
        if self.stack_routes and self.receiver.stack_url is None:
            raise ValueError(
                "stack_routes: there is no URL for notifications: "
                'add to [receiver]  stack_url = "https://hooks.example.org/stacks/..."'
            )
        self._check_ports()
        self._check_paths()
        self._check_forwards()
        overlap.check(self.routes, self.stores)
        overlap.check_hooks(self.routes, self.stores)
        return self

    def _check_stores(self, index: int, route: RouteSettings) -> None:
        for side in ("source", "target"):
            store, _, bucket = (getattr(route, side) or "").partition(":")
            if store and store not in self.stores:
                raise ValueError(
                    f'{place(("routes", index, side))}: store "{store}" is not defined: '
                    f"{alike(store, self.stores)}add  [stores.{store}]"
                )
            if store:
                self._check_endpoint(index, store, bucket)
        if route.storage_class is None or route.target is None:
            return
        name = route.target.partition(":")[0]
        known = values.STORAGE_CLASSES | set(self.stores[name].storage_classes)
        if route.storage_class not in known:
            written = masked("", route.storage_class)
            raise ValueError(
                f'{place(("routes", index, "storage_class"))} = "{written}": S3 has no such '
                f"class: write one of {', '.join(sorted(known))}; one that only this store has goes into "
                f"stores.{name}.storage_classes too"
            )

    def _check_endpoint(self, index: int, store: str, bucket: str) -> None:
        """The bucket's name is put behind the endpoint: one that is there already is one too many."""
        endpoint = self.stores[store].endpoint or ""
        if unquote(path_of(endpoint)).rstrip("/").endswith(f"/{bucket}"):
            route = place(("routes", index))
            raise ValueError(
                f'stores.{store}.endpoint = "{endpoint}": it ends in the bucket of {route}, which would '
                f"stand there twice: write it without  /{bucket}"
            )

    def _check_ports(self) -> None:
        ours, metrics = self.receiver, self.metrics
        same_host = ours.host == metrics.host or EVERYWHERE & {ours.host, metrics.host}
        if metrics.port and metrics.port == ours.port and same_host:
            raise ValueError(
                f"metrics.port = {metrics.port}: receiver.port is the same: write another, like 9464"
            )

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

    @property
    def _urls(self) -> dict[str, str | None]:
        """The URLs of ours that senders call, by the key that says each."""
        receiver = self.receiver
        urls = {"receiver.public_url": receiver.public_url, "receiver.stack_url": receiver.stack_url}
        return urls | {f"stores.{name}.public_url": store.public_url for name, store in self.stores.items()}

    def _check_forwards(self) -> None:
        ours = {destination(url): key for key, url in self._urls.items() if url is not None}
        host = f"[{self.receiver.host}]" if ":" in self.receiver.host else self.receiver.host
        here, _ = destination(f"http://{host}:{self.receiver.port}")  # without a proxy before it
        ours |= {(here, path): key for (_, path), key in ours.items()}
        ours.setdefault((here, unquote(self.receiver.path)), "receiver.port")
        for kind, routes in (("routes", self.routes), ("stack_routes", self.stack_routes)):
            for index, route in enumerate(routes):
                if route.forward is not None and (key := ours.get(destination(route.forward))):
                    where = place((kind, index, "forward"))
                    raise ValueError(
                        f"{where}: it leads to {key}, so that each event would come back: write the URL of "
                        "who is to get them"
                    )

    def reread(self, store: str) -> StoreSettings | None:
        """Return what the sources say of `store` by now; None when they cannot be used, or there are none."""
        try:
            return self._again().stores.get(store) if self._again else None
        except ConfigError as error:
            why = f"the configuration is not read again: {error}"
            telemetry.log(telemetry.Action.FAILED, why, level=logging.WARNING)
            return None

    def hook_url(self, source: str) -> str | None:
        """Return the URL to register at `source`, "store:bucket": its store's own, or the general one."""
        return self.stores[source.partition(":")[0]].public_url or self.receiver.public_url

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """Where hooks come in: first the general path, for the stores that have none of their own, if there
        are routes from any or it is configured."""
        by_url: dict[str | None, list[RouteSettings]] = {}
        for route in self.routes:
            by_url.setdefault(self.stores[route.source.partition(":")[0]].public_url, []).append(route)
        routes, url = tuple(by_url.get(None, ())), self.receiver.public_url
        general = [Inlet(self.receiver.path, url, routes)] if routes or url else []
        own = (
            Inlet(store.hook_path, store.public_url, tuple(by_url.get(store.public_url, ())))
            for store in self.stores.values()
            if store.hook_path is not None
        )
        return *general, *own

    def exposed(self) -> Iterator[str]:
        """Yield a sentence for each way in that a stranger may find."""
        receiver = self.receiver
        if None in [inlet.url for inlet in self.inlets]:
            yield (
                f"receiver.public_url: missing, so hooks are taken at {receiver.path}, where anybody may "
                'send them, and no subscription is confirmed. Set it:  public_url = "https://host/webhook/SECRET"'
            )
        for key, url in self._urls.items():
            if url is not None and (weak := weakness(url)):
                yield f"{key}: {weak}"
        yield from receiver.open_to_all()

    def two_ways(self) -> dict[str, str]:
        """Return the id of each route's inverse, for routes that keep two buckets equal both ways."""
        return overlap.two_ways(self.routes, self.stores)

    @property
    def all_routes(self) -> tuple[ActionTable, ...]:
        """The routes of both kinds; each has a name of its own."""
        return (*self.routes, *self.stack_routes)

    def secrets(self) -> Iterator[str]:
        """Yield every value that may never be written to a log."""
        for url in (self.queue.url, self.queue.management_url or ""):
            if password := urlsplit(url).password:
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

    Relative paths are relative to its folder, whatever says them. Raises `ConfigError` naming each wrong key
    and what to write. Without any file the environment alone must say everything, and something.
    """
    named = path or os.environ.get("HOOKMIRROR_CONFIG")
    file = Path(named or DEFAULT_FILE)
    if named and not file.exists():
        raise ConfigError(f"{file}: no such file. Write one with:  hookmirror init --output {file}")
    if file.exists() and not file.is_file():
        raise ConfigError(f"{file}: {no_file(file)}")
    folders = [Path(folder) for folder in (SECRETS_DIR, os.environ.get("CREDENTIALS_DIRECTORY")) if folder]
    found = gather(Settings, file, folders, os.environ)
    if not found.values and not file.is_file():
        raise ConfigError(
            f"{file.absolute()}: no such file. Write one with:  hookmirror init  or name it:  --config FILE"
        )
    folder = file.absolute().parent
    try:
        settings = Settings.model_validate(anchored(found.values, folder))
    except ValidationError as error:
        raise ConfigError(_explain(error, file, found)) from None
    settings._notes, settings._folder = tuple(found.notes), folder
    settings._file = file.absolute() if file.is_file() else None
    settings._again = partial(load, path)
    return settings


def start(path: str | Path | None = None) -> Settings:
    """Return `load(path)` and begin to log: in the form that is asked for, without the secrets in it."""
    settings = load(path)
    telemetry.configure(fmt=log_format(), secrets=settings.secrets())
    return settings


def log_format() -> str:
    """Return `HOOKMIRROR_LOG`: "json", "human" or "auto". Raises `ConfigError` for anything else."""
    value = os.environ.get("HOOKMIRROR_LOG", "auto").strip()
    if value not in {"json", "human", "auto"}:
        raise ConfigError(f'HOOKMIRROR_LOG = "{value}": write json, human or auto')
    return value


def _explain(error: ValidationError, file: Path, found: Found) -> str:
    """Return a line for each wrong value: the file, the variable or the secret file it is from, and what is
    wrong with it."""
    problems = error.errors(include_url=False)
    return "\n".join(f"{found.origin(one['loc']) or file}: {sentence(Settings, one)}" for one in problems)
