"""Notifications of Alibaba Cloud ROS (Resource Orchestration Service): pure.

When an operation on a stack is over, ROS POSTs the stack's id, name, status and outputs to each URL that
CreateStack or UpdateStack was given (`NotificationURLs`). They are not signed. The value of an output may be
any JSON, and a secret: no message here holds one.
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from common.errors import Unreadable
from common.task import Output, Stack
from receiver.dialects.unknown import describe

MAX_TEXT = 256
"""Characters of the longest id and name."""

MAX_OUTPUTS = 1000

MAX_DEPTH = 32
"""How deep the value of an output may be nested: what is queued is read again by parsers with limits."""

_STATUS = re.compile(r"[A-Z_]{1,64}")


def parse(body: object) -> Stack:
    """Return the notification that `body` is. Raises `Unreadable`, in words that say what it is, when it is
    none."""
    if not isinstance(body, Mapping) or "StackId" not in body:
        raise Unreadable(describe(body))
    status = _text(body, "Status")
    if not _STATUS.fullmatch(status):
        raise Unreadable("Status is no word of capital letters, like CREATE_COMPLETE")
    outputs = body.get("Outputs")
    if not isinstance(outputs, list | None) or len(outputs or ()) > MAX_OUTPUTS:
        raise Unreadable(f"Outputs is no list of at most {MAX_OUTPUTS}")
    return Stack(
        id=_text(body, "StackId"),
        name=_text(body, "StackName"),
        status=status,
        outputs=tuple(map(_output, outputs or ())),
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise Unreadable(f"{name} is no string of 1 to {MAX_TEXT} characters")
    _check(value)
    return value


def _output(entry: object) -> Output:
    key = entry.get("OutputKey") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(key, str) or "OutputValue" not in entry:
        raise Unreadable("an output is an object with OutputKey, a string, and OutputValue")
    description = entry.get("Description") or ""
    if not isinstance(description, str):
        raise Unreadable("the Description of an output is no string")
    value = entry["OutputValue"]
    for part in (key, description, value):
        _check(part)
    return Output(key=key, value=value, description=description)


def _check(value: object, depth: int = 0) -> None:
    """Raise `Unreadable` for what cannot be written as JSON again, or not be read once more."""
    if depth > MAX_DEPTH:
        raise Unreadable(f"an OutputValue is nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float) and not isfinite(value):
        raise Unreadable("an OutputValue holds what is no number of JSON")
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _check(name, depth)
            _check(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("half a surrogate pair, which no text can hold") from error
