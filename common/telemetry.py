"""Logs: a sentence for people, fields for machines, one line an event, no secret ever."""

import io
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

from common.lines import LineWriter

_logger = logging.getLogger("hookmirror")


class Action(StrEnum):
    """What a log line is about: a closed list, so that a line can be counted on."""

    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    HOOK = "hook"
    HOOK_REFUSED = "hook_refused"
    HOOK_DEFERRED = "hook_deferred"
    SUBSCRIPTION = "subscription"
    EXPOSED = "exposed"
    COPIED = "copied"
    DELETED = "deleted"
    EXECUTED = "executed"
    FORWARDED = "forwarded"
    LOGGED = "logged"
    SKIPPED = "skipped"
    LOOK_LATER = "look_later"
    RETRIED = "retried"
    CONTINUED = "continued"
    OUTPUT = "output"
    STACK = "stack"
    BURIED = "buried"
    LOST = "lost"
    PAUSED = "paused"
    RESUMED = "resumed"
    QUEUE = "queue"
    SPOOLED = "spooled"
    DRAINED = "drained"
    THROTTLED = "throttled"
    FAILED = "failed"
    STORE = "store"
    LIBRARY = "library"


def log(action: Action, message: str, /, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line: `message` for a person, `action` and `fields` for a machine."""
    if _logger.isEnabledFor(level):
        _logger.log(level, message, extra={"action": action, "fields": fields})


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """Return `text` with control characters written out, so that a key can neither break a line nor
    steer a terminal."""
    return _CONTROL.sub(lambda m: m.group().encode("unicode_escape").decode(), text)


def as_json(record: logging.LogRecord, action: Action, fields: dict[str, Any]) -> str:
    """Return the record as one JSON object on one line."""
    entry = {
        "time": round(record.created, 6),
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "action": action,
        "message": record.getMessage(),
        **fields,
    }
    return json.dumps(entry, default=str)


def as_human(record: logging.LogRecord, action: Action, fields: dict[str, Any]) -> str:
    """Return the record for a terminal: local time and zone, level, action, sentence, then the fields."""
    at = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
    trace = fields.pop("traceback", None)
    pairs = "".join(f"  {name}={one_line(str(value))}" for name, value in fields.items())
    head = f"{at} {record.levelname:<7} {action:<13} {one_line(record.getMessage())}{pairs}"
    return "\n".join([head, *map(one_line, trace.splitlines())]) if trace else head


def _written(secret: str) -> set[str]:
    """Every way in which `secret` may stand in a line: plain, quoted for a URL, escaped, escaped twice."""
    plain = {secret, repr(secret)[1:-1], quote(secret), quote(secret, safe=""), quote_plus(secret)}
    plain |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return plain | {json.dumps(form)[1:-1] for form in plain}


SHORTEST_SECRET = 8
"""Characters. A shorter text is never hidden: it would be hidden inside of other words too."""


def _hidable(secret: str) -> bool:
    return len(secret) >= SHORTEST_SECRET


class _Secrets:
    """What may never be shown, in every way in which it may be written."""

    def __init__(self) -> None:
        self._known: tuple[str, ...] = ()
        self._renewed: dict[str, dict[str, None]] = {}
        self._forms: list[str] = []

    def set(self, secrets: Iterable[str]) -> None:
        """Hide these, and forget all others."""
        self._known = tuple(filter(_hidable, secrets))
        self._renewed.clear()
        self._rebuild()

    def add(self, owner: str, *secrets: str) -> None:
        """Hide these too, which `owner` has renewed: of his the last few are known."""
        renewed = self._renewed.setdefault(owner, {})
        for secret in filter(_hidable, secrets):
            renewed.setdefault(secret)
        while len(renewed) > RENEWED:
            del renewed[next(iter(renewed))]
        self._rebuild()

    def _rebuild(self) -> None:
        known = chain(self._known, *self._renewed.values())
        forms = {form for secret in known for form in _written(secret)}
        # The longest first, so that a secret which contains another is hidden whole.
        self._forms = sorted(forms, key=len, reverse=True)

    def masked(self, text: str) -> str:
        """Return `text` without them."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, "***")
        return text


RENEWED = 8
"""How many secrets that came at run time are remembered of each who renews his: a key has one and a token."""

_secrets = _Secrets()


def hide(owner: str, *secrets: str) -> None:
    """From now on show none of these: what a credential chain delivers to `owner`, and delivers anew."""
    _secrets.add(owner, *secrets)


def without_secrets(text: str) -> str:
    """Return `text` with `***` for every secret that is known."""
    return _secrets.masked(text)


def unexpected(error: BaseException) -> str:
    """Return one sentence on an error that nobody foresaw, with the line of code for who mends it."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {Path(frame.filename).name}, line {frame.lineno}," for frame in last)
    said = one_line(str(error)) or "nothing"
    return without_secrets(
        f"{type(error).__name__}{where} says: {said}. That is not foreseen: please report this line"
    )


class LineFormatter(logging.Formatter):
    """Renders a record by `render` and takes the secrets out, in whichever way they were escaped."""

    def __init__(self, render: Callable[[logging.LogRecord, Action, dict[str, Any]], str]) -> None:
        super().__init__()
        self._render = render
        self.always: dict[str, Any] = {}
        """Fields of every line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`."""
        fields = self.always | getattr(record, "fields", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return without_secrets(self._render(record, getattr(record, "action", Action.LIBRARY), fields))


def configure(*, fmt: str = "auto", secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (standard error unless told).

    `fmt` is "json", "human", or "auto": human on a terminal, else JSON. Lines of the libraries
    (uvicorn, aio-pika) take the same form, from warnings up. Each value in `secrets`, and what is given to
    `hide` later, is replaced by `***`.
    """
    out = stream or sys.stderr
    human = fmt == "human" or (fmt == "auto" and out.isatty())
    render = LineFormatter(as_human if human else as_json)
    handler = _handler(out, render)
    _secrets.set(secrets)
    handler.setFormatter(render)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _logger.setLevel(logging.INFO)
    # Our own lines say that the broker is away, or that there are no credentials: once, and in words.
    for chatty in ("aio_pika", "aiormq", "botocore", "aiobotocore"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)


def _handler(out: TextIO, render: LineFormatter) -> logging.Handler:
    try:
        fd = out.fileno()
    except io.UnsupportedOperation:
        return logging.StreamHandler(out)  # in memory: nothing to wait for
    return LineWriter(fd, lambda count: render.format(_lost(count)))


def share(turns: int, **fields: Any) -> None:
    """From now on several processes write this log, and take turns by the open file `turns`. Each line of
    ours has these `fields`, to tell whose it is."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineWriter):
            handler.turns = turns
        if isinstance(handler.formatter, LineFormatter):
            handler.formatter.always = fields


def _lost(count: int) -> logging.LogRecord:
    """The record that tells of lines which were not written."""
    said = f"{count} log lines were dropped: whoever reads this log was too slow, or stood still"
    about = {"msg": said, "levelno": logging.WARNING, "levelname": "WARNING", "created": time.time()}
    return logging.makeLogRecord({**about, "action": Action.FAILED, "fields": {"dropped": count}})


def dropped() -> int:
    """Return how many log lines of this process were dropped."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, LineWriter))


def flush() -> None:
    """Write what waits, within seconds: the process is about to end at once."""
    for handler in logging.getLogger().handlers:
        handler.close()
