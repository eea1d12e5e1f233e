"""The OpenAPI 3.1 document, built from the receiver's settings: pure.

It is written, not derived, for the way of a hook is one plain route for every path (receiver/app.py). The
tests hold it to what the receiver does.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from common.errors import BadRequest
from common.tables import ReceiverSettings
from receiver.hook import MAX_RECORDS
from receiver.intake import MAX_BODY
from receiver.openapi.examples import HOOK_ANSWERS, HOOKS, STACK_ANSWERS, STACKS, Example
from receiver.openapi.schemas import HOOK_BODIES, SCHEMAS, Schema, reference
from receiver.ready import WAITING

HOOK_PATH, STACK_PATH = "/PATH-OF-receiver.public_url", "/PATH-OF-receiver.stack_url"
"""What stands for the paths in a document that is served: they are secrets."""

Described = dict[str, Any]

ABOUT = f"""\
hookmirror takes the webhooks of S3 stores, and keeps a bucket in one cloud equal to a bucket in another.

**200 is a promise**: every record of the hook is durable, or needs nothing done. After any other answer
nothing is promised: after 503 or 429 send the whole hook again. A record that comes twice does no harm.
A hook is a hint, never an order: whoever forges one makes a worker look at the source, no more.

**No hook is refused for its content**, for its sender might repeat it for ever. What is none of the bodies
described here, or not even JSON, gets 200 as well and is kept whole as a dead letter for a person; of one
address so many, and then it is only counted. Records of a bucket that no route names are counted.

**Limits**: {MAX_BODY // 1024} KiB and {MAX_RECORDS} records a hook, 16 KiB of headers, 5 s for the headers
and 5 s for the body, `receiver.requests_per_second` by address, `receiver.max_connections` at once.

**What is read**: the body alone. Neither `Content-Type` (Amazon SNS sends text/plain) nor the senders' own
headers are; fields that are not described here are ignored. Of the headers only `X-Forwarded-For` counts,
when one of `receiver.trusted_proxies` has written it.

The paths of hooks and of stack notifications are those of `receiver.public_url` and `receiver.stack_url`.
They are secrets, and so are not in this document: `{HOOK_PATH}` stands for the one, and is not
itself served. A path of a store's own (`stores.NAME.public_url`) takes what that one takes, of this store's
buckets. Every other path, and every other method, gets 404.
"""

_DESCRIPTIONS = {
    200: "Done, and durable.",
    400: "No HTTP, or a body that was cut off.",
    403: "The caller's address may not call; or the subscription or the topic is none that is configured; or"
    " the signature is not the sender's.",
    404: "Another path, or another method.",
    408: "The request has not arrived in time. The connection is closed.",
    413: f"More than {MAX_BODY // 1024} KiB, or more than {MAX_RECORDS} records.",
    429: "This address has sent more than `receiver.requests_per_second`.",
    431: "The headers have more than 16 KiB. The connection is closed.",
    503: "It cannot be made durable now, or there are too many connections. Send it again.",
}

Words = dict[int, tuple[str, ...]]
"""What is answered with a status, each a whole `error`."""

ANY_REQUEST: Words = {
    400: ("not HTTP",),
    408: ("too slow",),
    431: ("too large",),
    503: ("too many connections",),
}
"""Answered by `common.guard`, before there is a request."""

ADMISSION = (403, 404, 429)
"""Who calls where the secret path would be has to be let in."""

AWAY: Words = {400: ("incomplete",), 503: ("this cannot be taken now, send it again",)}


def served(receiver: ReceiverSettings, paths: Iterable[str], *, version: str) -> Described:
    """Return the document that anybody may see. `paths` are those of hooks."""
    stacks = STACK_PATH if receiver.stack_path is not None else None
    return build(hooks=HOOK_PATH, stacks=stacks, front="/" not in paths, version=version)


def build(*, hooks: str, stacks: str | None, front: bool = True, version: str) -> Described:
    """Return the document with these paths in it. `front` says that `/` is no path of hooks."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hookmirror receiver",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "senders"}, {"name": "operators"}],
        "paths": _paths(hooks, stacks, front),
        "components": {"schemas": SCHEMAS},
    }


def _paths(hooks: str, stacks: str | None, front: bool) -> Described:
    paths: defaultdict[str, Described] = defaultdict(dict)
    if front:
        paths["/"]["get"] = _greeting("greet", "Whether a receiver is there")
    for path, operation in _pages():
        paths[path]["get"] = operation
    # Last, for a secret path may be that of a page, whose GET is served before it.
    paths[hooks]["post"] = _take_hook()
    if stacks is not None:
        paths[stacks]["get"] = _greeting("greet_stacks", "Whether stack notifications are taken here")
        paths[stacks]["post"] = _take_stack()
    return dict(paths)


def _take_hook() -> Described:
    return {
        "operationId": "take_hook",
        "tags": ["senders"],
        "summary": "Take a hook",
        "description": "At the path of `receiver.public_url`, or of a store's own: S3 records, or a"
        " subscription to confirm. The body alone says which.",
        "parameters": [_header("X-Amz-Sns-Message-Type", "Sent by MCS and Amazon SNS; not read.")],
        "requestBody": _body(HOOK_BODIES, HOOKS),
        "responses": _answers(("Accepted", "McsConfirmed", "SnsSubscription"), HOOK_ANSWERS),
    }


def _take_stack() -> Described:
    return {
        "operationId": "take_stack",
        "tags": ["senders"],
        "summary": "Take a stack notification",
        "description": "At the path of `receiver.stack_url`: `[[stack_routes]]` say what is done with it.",
        "requestBody": _body(("StackNotification",), STACKS),
        "responses": _answers(("Accepted",), STACK_ANSWERS),
    }


def _greeting(name: str, summary: str) -> Described:
    said = _text("A sentence.", "text/plain", "hookmirror: webhooks are taken here\n")
    words = _merged(ANY_REQUEST, {status: _bad_requests()[status] for status in ADMISSION})
    return _get(name, summary, {200: said, **_refusals(words)}, tag="senders")


def _pages() -> Iterator[tuple[str, Described]]:
    refusals = _refusals(ANY_REQUEST)
    alive = _json("The process runs.", ["Alive"], {"alive": ("", {"status": "alive"})})
    yield "/ping", _get("ping", "Pong", {200: _text("Pong.", "text/plain", "Pong"), **refusals})
    yield "/healthz", _get("healthz", "Whether the process runs", {200: alive, **refusals})
    yield "/readyz", _get("readyz", "Whether hooks can be taken", {**refusals, **_readiness()})
    document = _json("This document.", ["OpenApi"], {"head": ("How it begins", {"openapi": "3.1.0"})})
    yield "/openapi.json", _get("openapi", "This document", {200: document, **refusals})
    page = _text("Swagger UI, which the browser loads from a CDN.", "text/html", "<!DOCTYPE html>")
    yield "/docs", _get("docs", "This document, to read", {200: page, **refusals})


def _readiness() -> dict[int, Described]:
    ready = {
        "ready": ("The queue takes them", {"status": "ready"}),
        "spooling": ("The spool takes hooks", {"status": "ready", "queue": "away, spooling"}),
    }
    waiting = {
        "waiting": ("", {"status": "waiting", "why": WAITING}),
        "crowded": ("", {"error": "too many connections"}),
    }
    return {
        200: _json("Hooks can be made durable, as of a second ago.", ["Ready"], ready),
        503: _json(
            "Neither queue nor spool can be written, or there are too many connections.",
            ["Waiting", "Refusal"],
            waiting,
        ),
    }


def _get(name: str, summary: str, responses: dict[int, Described], *, tag: str = "operators") -> Described:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": _sorted(responses),
    }


def _header(name: str, about: str) -> Described:
    return {
        "name": name,
        "in": "header",
        "description": about,
        "schema": {"type": "string"},
        "example": "Notification",
    }


def _body(names: Iterable[str], examples: dict[str, Example]) -> Described:
    schema, shown = _any_of(names), _examples(examples)
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": shown}}}


def _answers(names: Iterable[str], examples: dict[str, Example]) -> dict[str, Described]:
    refusals = _refusals(_merged(_bad_requests(), ANY_REQUEST, AWAY))
    responses = {200: _json(_DESCRIPTIONS[200], names, examples), **refusals}
    return _sorted(responses)


def _sorted(responses: dict[int, Described]) -> Described:
    return {str(status): responses[status] for status in sorted(responses)}


def _bad_requests() -> Words:
    """The words of every `BadRequest` there is, by status."""
    words: defaultdict[int, list[str]] = defaultdict(list)
    for kind in BadRequest.__subclasses__():
        words[kind.status].append(kind.answer)
    return {status: tuple(answers) for status, answers in words.items()}


def _merged(*tables: Words) -> Words:
    statuses = sorted(set().union(*tables))
    return {
        status: tuple(dict.fromkeys(word for table in tables for word in table.get(status, ())))
        for status in statuses
    }


def _refusals(words: Words) -> dict[int, Described]:
    return {status: _refusal(status, words[status]) for status in sorted(words)}


def _refusal(status: int, words: Iterable[str]) -> Described:
    shown = {word.replace(" ", "_").replace(",", ""): ("", {"error": word}) for word in words}
    answer = _json(_DESCRIPTIONS[status], ["Refusal"], shown)
    if status in {429, 503}:
        seconds = {"type": "integer", "minimum": 1}
        answer["headers"] = {
            "Retry-After": {"description": "Seconds.", "required": True, "schema": seconds, "example": 5}
        }
    return answer


def _json(about: str, names: Iterable[str], examples: dict[str, Example]) -> Described:
    content = {"schema": _any_of(names), "examples": _examples(examples)}
    return {"description": about, "content": {"application/json": content}}


def _text(about: str, media: str, example: str) -> Described:
    return {"description": about, "content": {media: {"schema": {"type": "string"}, "example": example}}}


def _any_of(names: Iterable[str]) -> Schema:
    """Not oneOf: fields that are not read may make a body look like two of them."""
    references = [reference(name) for name in names]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _examples(examples: dict[str, Example]) -> Described:
    return {
        name: ({"summary": summary} if summary else {}) | {"value": value}
        for name, (summary, value) in examples.items()
    }
