"""Where values of the configuration come from: the TOML file, secret files, the environment; merged.

Nothing is checked here but that each source can be read and names keys that there are.
"""

import difflib
import json
import re
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from common import no_toml
from common.errors import ConfigError
from common.keys import Keys, place

PREFIX = "HOOKMIRROR_"

OWN_VARIABLES = ("HOOKMIRROR_CONFIG", "HOOKMIRROR_LOG")
"""Variables of ours that are no values of the configuration."""

AS_WRITTEN = frozenset({"prefix", "suffix", "target_prefix"})
"""Keys whose value may legally end in a line break: that is refused there, and not left out."""

_KUBERNETES = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


@dataclass(slots=True)
class Found:
    """The merged values. `origins` says of what came from a variable or a secret file which one it was,
    `notes` what was put right on the way."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Keys, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def origin(self, keys: Keys) -> str | None:
        """Return the variable or the secret file that says what is at `keys`; None for the TOML file."""
        ends = (keys[:end] for end in range(len(keys), 0, -1))
        return next((self.origins[end] for end in ends if end in self.origins), None)


def gather(top: type[BaseModel], file: Path, folders: Iterable[Path], environ: Mapping[str, str]) -> Found:
    """Return what `file`, then the secret files in `folders`, then `environ` say; the later wins.

    Raises `ConfigError` for a source that cannot be read, and for a variable or a secret file that names no
    key of `top`.
    """
    found = Found(read_toml(file))
    for folder in folders:
        for secret, text in _secrets(folder):
            _put(found, top, secret.name, text, str(secret))
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in OWN_VARIABLES:
            _put(found, top, name, environ[name], name)
    found.values = _stripped(found, found.values, ())
    return found


def _secrets(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the secret files of ours in `folder` with what they hold, without blanks around it."""
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror}. Let this user read it") from None
    for file in files:
        if file.name.upper().startswith(PREFIX) and file.is_file():
            yield file, read_text(file).strip()


def read_text(file: Path) -> str:
    """Return the text in `file`. Raises `ConfigError`."""
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is no UTF-8: save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}. Let this user read it") from None


def no_file(path: Path) -> str:
    """Return what is said of `path`, which is there and is no file that can be read twice."""
    what = "is a folder" if path.is_dir() else "is no file, but a pipe or a device"
    return f"{what}: name the configuration's file:  --config FILE  or  HOOKMIRROR_CONFIG=FILE"


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of `file`, none when it is not there. Raises `ConfigError`."""
    if not file.exists():
        return {}
    text = read_text(file).removeprefix("\ufeff")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {no_toml.explain(text, str(error))}") from None
    except RecursionError:
        raise ConfigError(
            f"{file}: lists or tables stand too deep in each other: take brackets out"
        ) from None


def _put(found: Found, top: type[BaseModel], name: str, text: str, origin: str) -> None:
    """Put what the variable or secret file `name` says into `found`."""
    keys: list[str | int] = list(name.upper().removeprefix(PREFIX).lower().split("__"))
    if keys[0] == "stores" and len(keys) > 1:  # names of stores keep the case that the file gives them
        known = found.values.get("stores")
        same = [one for one in known if one.lower() == keys[1]] if isinstance(known, dict) else []
        keys[1] = same[0] if same else keys[1]
    kind = _kind(top, keys)
    if kind is None:
        raise ConfigError(_unknown(top, name, text, origin))
    value = _parsed(kind, text, origin, "".join(str(keys[-1])))
    table = found.values
    for key in keys[:-1]:
        inner = table.get(key)  # type: ignore[arg-type]
        table[key] = inner = dict(inner) if isinstance(inner, Mapping) else {}  # type: ignore[index]
        table = inner
    last = keys[-1]
    both = isinstance(value, dict) and isinstance(table.get(last), dict)  # type: ignore[arg-type]
    table[last] = _merged(table[last], value) if both else value  # type: ignore[index]
    found.origins[tuple(keys)] = origin


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _parsed(kind: Any, text: str, origin: str, key: str) -> Any:
    """Return the value that `text` says, for a key of this `kind`: tables and lists are JSON."""
    if not _is_nested(kind):
        return text
    example = '{"...": ...}' if _is_table(kind) else '["..."]'
    if key.endswith("routes"):
        example = '[{"source": "mcs:my-bucket", "target": "aws:my-bucket-backup"}]'
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        what = "is empty" if not text.strip() else "is no JSON"
        raise ConfigError(f"{origin}: {key} {what}: write  {example}  or leave it out") from None


def bare(annotation: Any) -> Any:
    """Return the type in `annotation` without "or None", and without what is said of it."""
    if get_origin(annotation) in {Union, types.UnionType}:
        return bare(next(part for part in get_args(annotation) if part is not type(None)))
    return bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _is_nested(kind: Any) -> bool:
    return get_origin(kind) is tuple or _is_table(kind)


def _kind(top: Any, keys: Iterable[str | int]) -> Any:
    """Return the type of what is at `keys` below `top`; None when there is no such key."""
    kind = top
    for key in keys:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif _is_table(kind) and key in kind.model_fields:
            kind = bare(kind.model_fields[key].annotation)
        else:
            return None
    return kind


def table_at(top: type[BaseModel], keys: Iterable[str | int]) -> type[BaseModel] | None:
    """Return the table at `keys`, of lists too; None when there is none."""
    kind: Any = top
    for key in keys:
        if get_origin(kind) in {dict, tuple}:
            kind = get_args(kind)[-1 if get_origin(kind) is dict else 0]
        elif _is_table(kind) and key in kind.model_fields:
            kind = bare(kind.model_fields[key].annotation)
        else:
            return None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _variables(kind: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """Yield the name of every variable there is below `keys`; of stores those of one called NAME."""
    if keys:
        yield PREFIX + "__".join(keys).upper()
    if get_origin(kind) is dict:
        yield from _variables(get_args(kind)[1], (*keys, "name"))
    elif _is_table(kind):
        for name, one in kind.model_fields.items():
            yield from _variables(bare(one.annotation), (*keys, name))


def _is_of_kubernetes(name: str, text: str) -> bool:
    """Whether Kubernetes sets `name` in a pod, for a Service."""
    return bool(
        _KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", text))
    )


def _unknown(top: type[BaseModel], name: str, text: str, origin: str) -> str:
    """Return what is said of a variable or secret file that names no key."""
    if _is_of_kubernetes(name.upper(), text):
        return (
            f"{origin}: Kubernetes sets this variable for a Service whose name begins with hookmirror, and "
            "it is no key: add  enableServiceLinks: false  to the pod's spec"
        )
    if re.match(rf"{PREFIX}(STACK_)?ROUTES__", name.upper()):
        whole = name.upper().partition("__")[0]
        example = '[{"source": "mcs:my-bucket", "target": "aws:my-bucket-backup"}]'
        return f"{origin}: unknown key. Give all routes in one variable:  {whole}='{example}'"
    store = re.match(rf"{PREFIX}STORES__(\w+?)__", name.upper())
    known = list(_variables(top, ()))
    if store:
        known = [one.replace("__NAME", f"__{store[1]}") for one in known]
    shorts = [one.removeprefix(PREFIX) for one in (*known, *OWN_VARIABLES)]  # all have the prefix in common
    close = difflib.get_close_matches(name.upper().removeprefix(PREFIX), shorts, n=1, cutoff=0.75)
    tops = ", ".join((*(PREFIX + one.upper() for one in top.model_fields), *OWN_VARIABLES))
    return f"{origin}: unknown key. " + (
        f"Did you mean {PREFIX}{close[0]}?" if close else f"Known are: {tops}."
    )


def _stripped(found: Found, value: Any, keys: Keys) -> Any:
    """Return `value` without line breaks at the ends of its texts, each noted."""
    if isinstance(value, dict):
        return {key: _stripped(found, part, (*keys, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_stripped(found, part, (*keys, index)) for index, part in enumerate(value)]
    if not isinstance(value, str) or keys[-1] in AS_WRITTEN or value == (whole := value.rstrip("\r\n")):
        return value
    origin = found.origin(keys)
    name = origin if keys in found.origins else ": ".join(filter(None, [origin, place(keys)]))
    found.notes.append(f"{name}: the line break at its end is left out")
    return whole
