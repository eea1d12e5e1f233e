"""What is said of a wrong value: one sentence that names the key and says what to write. Pure.

No word of the library that checks the values comes through, and nothing that may be a secret.
"""

import difflib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from common.keys import LISTS, Keys, place
from common.masking import masked
from common.sources import bare, table_at

HIDDEN = frozenset(
    {
        "url",
        "management_url",
        "public_url",
        "stack_url",
        "forward",
        "secret",
        "access_key_id",
        "secret_access_key",
        "session_token",
    }
)
"""Keys whose value is never shown: it is a secret, or holds one, or is one by mistake."""

ADVISED = "advised"
"""What a field's schema calls the least value to advise, where a lower one is only for tests."""

LONGEST = 80
"""Characters of a value that are shown."""


def sentence(top: type[BaseModel], problem: Any) -> str:
    """Return what is wrong, from one error of pydantic's about a value below `top`."""
    keys: Keys = tuple(problem["loc"])
    kind, value = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"{place(keys)}: unknown key. {_nearest(top, keys)}"
    if kind == "missing":
        return f"{place(keys)}: missing: add  {keys[-1]} = {_example(_field(top, keys))}"
    if (table := table_at(top, keys)) and kind != "value_error":
        return f"{place(keys)}: {_table(table, keys)}"
    shown = _shown(keys, value)
    if kind == "value_error":
        return _of_ours(table, keys, shown, str(problem["ctx"]["error"]))
    if kind in {"path_not_file", "path_type"} and isinstance(value, str):
        return f"{place(keys)}{shown}: there is no such file: write the path of one that this user may read"
    return f"{place(keys)}{shown}: {_remedy(top, keys)}"


def _of_ours(table: type[BaseModel] | None, keys: Keys, shown: str, said: str) -> str:
    """Return what a check of ours `said`; one of a whole table begins with the key it is about."""
    begins = table is not None and said.partition(" ")[0] in table.model_fields
    return (
        f"{place(keys)}.{said}"
        if begins and keys and keys[0] not in LISTS
        else (f"{place(keys)}{shown}: {said}".removeprefix(": "))
    )


def _remedy(top: type[BaseModel], keys: Keys) -> str:
    """Return what to write at `keys`; of an entry of a list, for the whole list."""
    while isinstance(keys[-1], int):
        keys = keys[:-1]
    field = _field(top, keys)
    return wanted(str(keys[-1]), field) if field else "write another value"


def _field(top: type[BaseModel], keys: Keys) -> FieldInfo | None:
    table = table_at(top, keys[:-1])
    return table.model_fields.get(str(keys[-1])) if table else None


def _shown(keys: Keys, value: object) -> str:
    """Return ` = VALUE` for what may be shown, else nothing."""
    key = next((key for key in reversed(keys) if isinstance(key, str)), "")
    if key in HIDDEN or isinstance(value, dict | list | tuple | SecretStr | BaseModel) or value is None:
        return ""
    if isinstance(value, bool):
        return f" = {str(value).lower()}"
    text = str(value) if isinstance(value, int | float) else masked(key, str(value))
    text = "".join(char if char.isprintable() else "?" for char in text)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f' = "{text}"' if isinstance(value, str) else f" = {text}"


def no_value(name: str, field: FieldInfo, value: object) -> str | None:
    """Return why `value` is none for `field`, where pydantic would take it; None when it may be one."""
    kind = bare(field.annotation)
    if isinstance(value, str) and not value.strip() and field.default != "":
        return f"it is empty: {wanted(name, field)}, or leave it out"
    if isinstance(value, bool) and kind in {int, float}:
        return wanted(name, field)
    if isinstance(value, str | int | float) and get_origin(kind) is tuple:
        return wanted(name, field)
    return None


def wanted(name: str, field: FieldInfo) -> str:
    """Return what to write for `field`, the key `name`."""
    kind = bare(field.annotation)
    if get_origin(kind) is Literal:
        *most, last = (f'"{option}"' for option in get_args(kind))
        return f"write {', '.join(most)} or {last}"
    if kind is bool:
        return "write true or false"
    if kind in {int, float}:
        return f"write {_number(field, whole=kind is int)}"
    if get_origin(kind) is dict:
        return f"this is a table: write  [{name}.NAME]  on a line of its own, and its keys below"
    if get_origin(kind) is tuple:
        written = f"[[{name}]]" if name in LISTS else f"{name} = {_example(field)}"
        return f"this is a list: write  {written}"
    return f"write text in quotes, like {_example(field)}" if field.examples else "write text in quotes"


def _number(field: FieldInfo, *, whole: bool) -> str:
    bounds = [*field.metadata, *_inner(field.annotation)]
    low = next((part.ge for part in bounds if hasattr(part, "ge")), 0)
    high = next((part.le for part in bounds if hasattr(part, "le")), None)
    if isinstance(field.json_schema_extra, dict):
        low = field.json_schema_extra.get(ADVISED, low)
    name = f"a {'whole ' if whole else ''}number from {low}" + (f" to {high}" if high is not None else "")
    return f"{name} ({field.description})" if field.description else name


def _inner(annotation: Any) -> Iterator[Any]:
    """Yield what is said of the types in `annotation`: the bounds of a port, in "a port or none"."""
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is Annotated:
            for said in get_args(part)[1:]:
                yield from getattr(said, "metadata", [said])


def _example(field: FieldInfo | None) -> str:
    example = field.examples[0] if field and field.examples else "..."
    if field and get_origin(bare(field.annotation)) is tuple:
        return f'["{example}"]'
    return f'"{example}"'


def _table(table: type[BaseModel], keys: Keys) -> str:
    """Return how the table at `keys` is written, where something else stands."""
    if keys[0] in LISTS:
        inner = ".".join(str(key) for key in keys[2:])
        name = f"[{keys[0]}.{inner}]" if inner else f"[[{keys[0]}]]"
    elif keys[0] == "stores":
        name = "[stores.NAME]" if keys[-1] in table.model_fields else f"[stores.{keys[-1]}]"
    else:
        name = f"[{'.'.join(map(str, keys))}]"
    return f"this is a table: write  {name}  on a line of its own, and its keys below"


def _nearest(top: type[BaseModel], keys: Keys) -> str:
    table = table_at(top, keys[:-1]) or top
    return nearest(str(keys[-1]), table.model_fields)


def nearest(key: str, known: Iterable[str]) -> str:
    """Return what was probably meant by `key`, else all there is."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known)}."


def alike(name: str, known: Iterable[str]) -> str:
    """Return the question whether a name of `known` was meant by `name`, "" when none is like it."""
    lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f'did you mean "{lower[close[0]]}"? Else ' if close else ""
