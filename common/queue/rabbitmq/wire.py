"""What a message says in its headers, there and back."""

import hashlib
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from common.queue.port import KILLER, DeadLetter, Delivery, Failure, Lane
from common.queue.topology import lane_of

Headers = dict[str, Any]

ID, ATTEMPT, RETURNED, FAILURES, WHY, AT, LANE = (
    f"hookmirror-{name}" for name in ("id", "attempt", "returned", "failures", "why", "at", "lane")
)


MAX_HEADER = 32 * 1024
"""Bytes of one header of ours. All headers travel in one frame of at most 128 KiB: for a longer one RabbitMQ
closes the connection, and a letter that was replayed for weeks would never be settled again."""


@dataclass(slots=True)
class Receipt:
    """What a delivery is settled by: the message, and the channel it came on."""

    message: AbstractIncomingMessage
    channel: AbstractChannel
    settled: bool = False


def receipt_of(delivery: Delivery) -> Receipt:
    """Return the receipt. Raises TypeError for a delivery of another queue."""
    if not isinstance(delivery.receipt, Receipt):
        raise TypeError("a delivery of another queue")
    return delivery.receipt


def delivery_from(message: AbstractIncomingMessage, channel: AbstractChannel, lane: Lane) -> Delivery:
    """Return the delivery."""
    return Delivery(
        message.body,
        _number(message.headers.get(ATTEMPT), 1),
        Receipt(message, channel),
        lane,
        _failures(message.headers.get(FAILURES)),
        returned(message),
    )


def returned(message: AbstractIncomingMessage) -> int:
    """Return how often it came back unsettled: what our header says, of before it was given back unseen, and
    what the broker has counted since."""
    headers = message.headers
    # The count is absent on a first delivery; an old broker may only set the flag.
    since = max(_number(headers.get("x-delivery-count"), 0), int(bool(message.redelivered)))
    return _number(headers.get(RETURNED), 0) + since


def letter_from(message: AbstractIncomingMessage) -> DeadLetter:
    """Return the dead letter. One that the broker laid there itself, for coming back too often, has no
    reason of ours."""
    headers = message.headers
    name = headers.get(LANE)
    return DeadLetter(
        id=str(headers.get(ID) or hashlib.sha256(message.body).hexdigest()[:32]),
        body=message.body,
        lane=Lane.named(str(name)) if name else lane_of(str(headers.get("x-first-death-queue"))),
        why=str(headers.get(WHY) or KILLER),
        at=float(str(headers.get(AT) or _died(headers))),
        attempt=_number(headers.get(ATTEMPT), 1),
        failures=_failures(headers.get(FAILURES)),
    )


def first_headers(id_: str = "") -> Headers:
    """The headers of a first attempt; of a new message when it has no id."""
    return {ID: id_ or secrets.token_hex(8), ATTEMPT: 1}


def dead_headers(lane: Lane, why: str) -> Headers:
    """The headers a dead letter has besides. The time is text: pamqp cuts a float to 32 bits."""
    return {WHY: _cut(why, MAX_HEADER), AT: repr(time.time()), LANE: lane.name}


def failures_header(failures: Iterable[Failure]) -> Headers:
    """The header that carries `failures`: the last ones, as many as fit."""
    kept: list[str] = []
    room = MAX_HEADER
    for failure in reversed(list(failures)):
        # Escaped, a character may take six bytes for one.
        entry = json.dumps(asdict(failure) | {"why": _cut(failure.why, MAX_HEADER // 8)})
        room -= len(entry) + 2
        if room < 0:
            break
        kept.append(entry)
    return {FAILURES: f"[{', '.join(reversed(kept))}]"}


def _cut(text: str, size: int) -> str:
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def own_headers(message: AbstractIncomingMessage) -> Headers:
    """The headers that are ours: x-death and its kin would mislead the broker when published again."""
    return {name: value for name, value in message.headers.items() if name.startswith("hookmirror-")}


def _died(headers: Headers) -> float:
    """When the broker itself dead-lettered the message, in whole seconds; 0 if it does not say."""
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    time_ = first.get("time") if isinstance(first, dict) else None
    return time_.timestamp() if isinstance(time_, datetime) else 0.0


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


def _failures(value: object) -> tuple[Failure, ...]:
    return tuple(Failure(**entry) for entry in json.loads(value)) if isinstance(value, str) else ()
