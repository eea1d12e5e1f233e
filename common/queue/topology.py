"""The queues on RabbitMQ: their names and arguments, as plain values. No other module spells a name.

    hookmirror.live.<route>             the lanes of a route, and hookmirror.bulk.<route>. What AMQP does not
                                        let be in a name is quoted (`#3E` is `>`), a long id is cut. Returned
                                        too often, a message dead-letters to hookmirror.dead: never into a
                                        wait queue, since that would be a cycle, which RabbitMQ drops.
    hookmirror.live, hookmirror.bulk    the lanes of nobody; until 0.1 those of all routes.
    hookmirror.lanes                    one message for each route that has lanes: AMQP lists no queues.
    hookmirror.wait.<seconds>           one for each wait. A fan-out exchange of the same name feeds it;
                                        when the queue's TTL ends, the default exchange takes the message
                                        back to the lane that its routing key names. (A TTL by message
                                        would only end at the head.)
    hookmirror.dead                     dead letters, for ever. Its delivery limit is out of reach,
                                        because looking at a letter counts as a delivery.
    hookmirror.once.<hash>              a mark: see `Marks.first`. Nothing is ever put into it.
    hookmirror.last.<random>            declared after all others, and gone in a minute: see `last`.

The same declarations serve RabbitMQ 3.10 to 4.x. At-least-once dead-lettering needs a quorum queue with
`reject-publish`; without it RabbitMQ silently falls back to a mode that loses.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from common.queue.port import MAX_DELIVERIES, Kind, Lane, mark_lives

Arguments = dict[str, str | int]

MAX_LENGTH = 10_000_000
"""Messages a lane takes before it refuses more: disk is finite, and a refusal becomes a 503."""

OURS = "hookmirror."
"""How the name of each begins."""

LONGEST_ID = 150
"""Bytes of a route's id, quoted, in the name of a queue: RabbitMQ takes 255 in all."""

_PLAIN = " :/@,+"
"""What AMQP lets be in a name besides letters, digits, `-`, `_` and `.`; and `#`, which quotes all else."""

_CUT = "#."
"""Before the digest of an id that was cut: no quoted text has it."""

MARKS = "hookmirror.once.*"
"""Marks, as a person names them all."""

MARK_ARGUMENT = "x-max-length"
"""The argument of a mark that tells its holder and when he came."""

_HOLDER_BITS = 16

_QUORUM: Arguments = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
    "x-dead-letter-exchange": "",
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """One durable queue, and the fan-out exchange that feeds it if it has one."""

    name: str
    arguments: Arguments = field(default_factory=dict)
    exchange: str | None = None


def lane_queue(lane: Lane) -> str:
    """The queue of a lane."""
    if not lane.route:
        return f"{OURS}{lane.kind}"
    quoted = quote(lane.route, safe=_PLAIN).replace("~", "%7E").replace("%", "#")
    if len(quoted) > LONGEST_ID:
        quoted = f"{quoted[:LONGEST_ID]}{_CUT}{hashlib.sha256(lane.route.encode()).hexdigest()[:16]}"
    return f"{OURS}{lane.kind}.{quoted}"


def lane_of(queue: str) -> Lane:
    """The lane of a queue's name; where that does not tell its route, or is no lane's, nobody's."""
    kind, _, quoted = queue.removeprefix(OURS).partition(".")
    route = "" if _CUT in quoted else unquote(quoted.replace("#", "%"))
    return Lane.named(f"{kind}/{route}")


def wait_queue(seconds: int) -> str:
    """The queue, and the exchange before it, in which a message waits `seconds`."""
    return f"hookmirror.wait.{seconds}s"


def dead_queue() -> str:
    """The queue of the dead letters."""
    return "hookmirror.dead"


def register() -> str:
    """The queue that tells which routes have lanes."""
    return "hookmirror.lanes"


def dead_lock() -> str:
    """An exclusive queue whose owner alone looks at the dead letters."""
    return "hookmirror.dead.lock"


def nowhere() -> str:
    """The name of no queue."""
    return "hookmirror.nowhere"


def last() -> Declaration:
    """A quorum queue to be declared after those that count; it goes by itself.

    RabbitMQ keeps the name of the quorum queue that was declared last in memory for up to a second, until it
    declares another. Killed before, it comes back with that queue empty and without a leader: it confirms
    nothing, and who consumes from it gets 541. Every queue declared before is safe (measured, 3.10.8, 4.0.5).
    """
    arguments: Arguments = {"x-queue-type": "quorum", "x-expires": 60_000}
    return Declaration(f"hookmirror.last.{secrets.token_hex(4)}", arguments)


def mark(key: str, holder: str, *, at: float, within: float) -> Declaration:
    """The queue that is `holder`'s mark on `key`: it goes by itself when it was not declared for so long.

    The broker makes one of it, whoever declares it first; to declare it with other arguments is refused. So
    an argument that does nothing for an empty queue tells when the holder came, and who he is: two are the
    same when they came in the same millisecond, and then once in 65 536. The time is part of the name: of
    another time the holder himself would be refused. The name is short, since a refusal names it, and is cut
    after 255 bytes. A classic queue, since a quorum queue costs an election, and on RabbitMQ 3.10 may be lost
    with a broker killed seconds later.
    """
    lasts = round(mark_lives(within) * 1000)
    name = base64.urlsafe_b64encode(hashlib.sha256(f"{lasts} {key}".encode()).digest()[:9]).decode()
    whose = int.from_bytes(hashlib.sha256(holder.encode()).digest()[:2])
    length = max(0, round(at * 1000)) << _HOLDER_BITS | whose
    arguments: Arguments = {"x-queue-type": "classic", "x-expires": lasts, MARK_ARGUMENT: length}
    return Declaration(f"hookmirror.once.{name}", arguments)


def any_mark() -> Declaration:
    """A mark, for what holds for all of them."""
    return mark("", "", at=0, within=0)


def is_mark(queue: str) -> bool:
    """Whether a mark has this name."""
    return queue.startswith(MARKS.removesuffix("*"))


def apart(length: int, other: int) -> float:
    """Return how many seconds apart the holders of two marks came, whose `MARK_ARGUMENT` these are."""
    return abs((length >> _HOLDER_BITS) - (other >> _HOLDER_BITS)) / 1000


def lanes(route: str) -> list[Declaration]:
    """The queues of a route's lanes."""
    arguments = _QUORUM | {
        "x-dead-letter-routing-key": dead_queue(),
        "x-delivery-limit": MAX_DELIVERIES,
        "x-max-length": MAX_LENGTH,
    }
    return [Declaration(lane_queue(Lane(route, kind)), arguments) for kind in Kind]


def declarations(rungs: Iterable[int]) -> list[Declaration]:
    """Every queue there must be when the waits are `rungs` (seconds), but for the lanes of routes."""
    waits = [
        Declaration(wait_queue(rung), _QUORUM | {"x-message-ttl": rung * 1000}, exchange=wait_queue(rung))
        for rung in rungs
    ]
    # Looking counts as a delivery.
    looked_at = [
        Declaration(name, {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000})
        for name in (dead_queue(), register())
    ]
    return [*looked_at, *lanes(""), *waits]
