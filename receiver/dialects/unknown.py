"""What a body is that no dialect understands, in words for a person: pure."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_MAGIC = {
    b"\x1f\x8b": "gzip body",
    b"\x28\xb5\x2f\xfd": "zstd body",
    b"\x78\x01": "deflate body",
    b"\x78\x9c": "deflate body",
    b"\x78\xda": "deflate body",
    b"PK\x03\x04": "zip body",
}
"""How a compressed body begins."""

_TEXTS = {
    "XML or HTML body": re.compile(rb"<[?!A-Za-z].*", re.DOTALL),
    "multipart body": re.compile(rb"--[^\r\n]{1,200}\r?\n[Cc]ontent-.*", re.DOTALL),
    "form-encoded body": re.compile(rb"[\w.~%+-]{1,256}=[^\s<>{}\[\]]*"),
}
"""What else is no JSON and has a name."""

_SHAPES: dict[type, str] = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}

_FORMS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("Cloud Monitor's form of a ROS event", lambda body: _says(body, "product", "ros")),
    ("EventBridge's form of a ROS event", lambda body: _says(body, "type", "ros:")),
    (
        "stack notification, which belongs to receiver.stack_url",
        lambda body: {"StackId", "Status"} <= set(body),
    ),
    ("S3 records, which belong to receiver.public_url", lambda body: bool(body.get("Records"))),
    ("SNS envelope, of an unknown Type or inside of another", lambda body: "TopicArn" in body),
    ("EventBridge's form of an event", lambda body: {"detail-type", "detail"} <= set(body)),
    ("CloudEvents' form of an event", lambda body: "specversion" in body),
    ("Pub/Sub message of Google Cloud", lambda body: {"message", "subscription"} <= set(body)),
)
"""Forms of events that are known and not taken, the first that fits."""


def describe_bytes(body: bytes) -> str:
    """Return what `body` is, which is no JSON."""
    stripped = body.strip(b" \t\r\n\x00")
    if not stripped:
        return "empty body"
    compressed = (words for magic, words in _MAGIC.items() if body.startswith(magic))
    named = (words for words, pattern in _TEXTS.items() if pattern.fullmatch(stripped))
    return next(compressed, None) or next(named, None) or _flaw(body)


def _flaw(body: bytes) -> str:
    """Where it ends to be text, or JSON."""
    encoding = json.detect_encoding(body)
    try:
        json.loads(body.decode(encoding))
    except UnicodeDecodeError as error:
        return f"no {encoding.upper()}: byte 0x{body[error.start]:02x} at {error.start}"
    except json.JSONDecodeError as error:
        return f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        return "no JSON: nested too deep"
    except ValueError:
        return "no JSON: a number of too many digits"
    return "no JSON"


def describe(value: object) -> str:
    """Return what `value`, any JSON, is: the form of an event that is known, or its shape."""
    if not isinstance(value, Mapping):
        return f"no hook: {_SHAPES.get(type(value), 'a number')}, and no JSON object"
    known = (words for words, fits in _FORMS if fits(value))
    fields = ", ".join(name[:40] for name in list(value)[:8]).encode(errors="replace").decode()
    return next(known, None) or f"no hook: a JSON object with {fields or 'nothing in it'}"


def _says(body: Mapping[str, Any], name: str, beginning: str) -> bool:
    """Whether the field `name`, in any case, begins so, in any case."""
    found = (value for key, value in body.items() if key.lower() == name)
    return any(isinstance(value, str) and value.lower().startswith(beginning) for value in found)
