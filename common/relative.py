"""Paths of the configuration: relative to the folder of its file, wherever a program is started."""

from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

DEFAULT_QUEUE = "sqlite:///hookmirror.db"

_SQLITE = "sqlite:///"


def anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `values`, as they are written, with each relative path below `folder`, and the queue's default
    too. What is not written as it should be stays as it is, for whoever checks it."""
    queue = values.get("queue", {})
    if isinstance(queue, dict):
        queue = {"url": DEFAULT_QUEUE, **queue}
        queue["url"] = _url(queue["url"], folder)
    receiver = _with_path(values.get("receiver", {}), "spool", folder)
    certified: dict[str, Any] = {
        name: _each(values[name], folder) for name in ("stores", "routes", "stack_routes") if name in values
    }
    return {**values, **certified, "queue": queue, "receiver": receiver}


def _each(tables: Any, folder: Path) -> Any:
    if isinstance(tables, dict):
        return {name: _with_path(table, "ca_bundle", folder) for name, table in tables.items()}
    if isinstance(tables, list):
        return [_with_path(table, "ca_bundle", folder) for table in tables]
    return tables


def _with_path(table: Any, key: str, folder: Path) -> Any:
    if isinstance(table, dict) and isinstance(path := table.get(key), str) and path:
        return {**table, key: str(folder / path)}
    return table


def _url(url: Any, folder: Path) -> Any:
    """Return the URL of a file's queue with its whole path; any other as it is."""
    file = unquote(url.removeprefix(_SQLITE)) if isinstance(url, str) and url.startswith(_SQLITE) else ""
    wrong = not file or file.endswith("/") or file == ":memory:"
    return url if wrong else _SQLITE + quote(str(folder / file))
