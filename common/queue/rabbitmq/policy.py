"""Policies of RabbitMQ that would lose what was confirmed, as its management API tells them.

A policy is laid over queues by their names, beside what we declare: `message-ttl` on `.*`, and tasks vanish.
AMQP does not tell of it. Which policy is over which queue is found out here, from the patterns: the API tells
it of a queue seconds after its declaration, and seconds after each change (measured, 3.10.8).
"""

import asyncio
import base64
import http.client
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from yarl import URL

from common.errors import QueueAway
from common.queue import topology
from common.queue.topology import Declaration

ASK_WITHIN = 5.0
"""Seconds for the management API to answer."""

ENDS = "expires"
"""What ends a whole queue by the clock."""

DELETES = ("message-ttl", ENDS)
"""What ends tasks, or a whole queue, by the clock."""

DROPS = ("max-length", "max-length-bytes", "delivery-limit")
"""What drops dead letters; the other queues refuse what is too much, and bury what came back too often."""

TIMEOUT = "consumer-timeout"

LONGEST_HOLD = 600
"""Seconds for which a worker may hold a delivery."""

KINDS = {"policies": "clear_policy", "operator-policies": "clear_operator_policy"}
"""Where the API tells of each kind, and the command that takes one off. Of each kind one is over a queue."""

NOT_TOLD = frozenset({401, 403, 404})
"""How the API answers a user who may not see the policies, and in a version that does not tell them."""

Policy = dict[str, Any]
Ask = Callable[[str], Any]

_direct = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Laid:
    """What is laid over one of our queues, and the command that takes it off."""

    queue: str
    definition: Policy
    remedy: str


class PatternUnknownError(Exception):
    """The broker's regular expressions know something that ours do not."""


async def laid(management: str, amqp: URL, queues: Iterable[Declaration]) -> list[Laid]:
    """Return what is over `queues`. Raises `QueueAway` when the management API does not tell.

    Its user is that of `management`, else that of `amqp`.
    """
    try:
        return await asyncio.to_thread(_laid, _asking(management, amqp), vhost(amqp), list(queues))
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise QueueAway(
            f"RabbitMQ's policies could not be checked, queue.management_url does not tell them: {error}"
        ) from error


def _laid(ask: Ask, host: str, queues: list[Declaration]) -> list[Laid]:
    there = quote(host, safe="")
    try:
        told = {command: ask(f"{kind}/{there}") for kind, command in KINDS.items()}
        return [
            Laid(queue.name, policy["definition"] or {}, f"rabbitmqctl {command} -p {host} {policy['name']}")
            for command, policies in told.items()
            for queue in queues
            for policy in over(queue, policies)
        ]
    except HTTPError as error:
        if error.code not in NOT_TOLD:
            raise
    except PatternUnknownError:
        pass
    columns = "name,policy,operator_policy,effective_policy_definition"
    return list(_late(ask(f"queues/{there}?columns={columns}"), host))


def over(queue: Declaration, policies: Iterable[Policy]) -> list[Policy]:
    """Return which of `policies`, all of one kind, is over `queue`: the one with the highest priority. It is
    not defined which of several with the same it is, so they are all returned."""
    matching = [policy for policy in policies if _matches(policy, queue)]
    highest = max((policy.get("priority", 0) for policy in matching), default=0)
    return [policy for policy in matching if policy.get("priority", 0) == highest]


def _matches(policy: Policy, queue: Declaration) -> bool:
    kind = f"{queue.arguments['x-queue-type']}_queues"
    if policy.get("apply-to", "all") not in {"all", "queues", kind}:
        return False
    pattern = policy["pattern"]
    try:
        if "[:" in pattern:  # as in [[:alpha:]], which means something else here
            raise PatternUnknownError
        return re.search(pattern, queue.name) is not None
    except re.error as error:
        raise PatternUnknownError from error


def _late(queues: Iterable[dict[str, Any]], host: str) -> Iterator[Laid]:
    """Yield what is over our queues as the API tells it of the queues: right, but late."""
    for queue in queues:
        if not queue["name"].startswith(topology.OURS):
            continue
        kinds = (("policy", "clear_policy"), ("operator_policy", "clear_operator_policy"))
        commands = (
            f"rabbitmqctl {command} -p {host} {queue[key]}" for key, command in kinds if queue.get(key)
        )
        remedy = "  or  ".join(commands) or "rabbitmqctl list_policies"
        yield Laid(queue["name"], queue.get("effective_policy_definition") or {}, remedy)


def _asking(management: str, amqp: URL) -> Ask:
    parts = urlsplit(management)
    user = URL(management) if parts.username else amqp
    login = base64.b64encode(f"{user.user}:{user.password}".encode()).decode()
    base = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")

    def ask(path: str) -> Any:
        url, headers = f"{base}/api/{path}", {"Authorization": f"Basic {login}"}
        request = Request(url, headers=headers)  # noqa: S310 - checked to be http(s)
        with _direct.open(request, timeout=ASK_WITHIN) as answer:
            return json.load(answer)

    return ask


def vhost(amqp: URL) -> str:
    """Return the virtual host that a URL names."""
    return amqp.path.removeprefix("/").replace("%2F", "/") or "/"


def losing(found: Iterable[Laid]) -> Iterator[str]:
    """Yield a sentence for each policy that loses what was confirmed, with the command that takes it off."""
    named = set[str]()
    for one in found:
        keys = [key for key in _loses(one.queue) if key in one.definition]
        if keys and one.remedy not in named:
            named.add(one.remedy)
            what = ", ".join(f"{key}: {one.definition[key]}" for key in keys)
            yield (
                f"RabbitMQ lays a policy over {one.queue} that deletes what it holds ({what}). "
                f"Take it off, or give it a pattern that leaves out {topology.OURS}*:  {one.remedy}"
            )


def _loses(queue: str) -> tuple[str, ...]:
    """Return what a policy must not set on `queue`."""
    if queue == topology.dead_queue():
        return DELETES + DROPS
    # Nothing is ever in a mark: it is lost with its queue alone.
    return (ENDS,) if topology.is_mark(queue) else DELETES


def doubtful(found: Iterable[Laid]) -> Iterator[str]:
    """Yield a sentence for each policy that loses nothing, and does harm."""
    for one in found:
        timeout = one.definition.get(TIMEOUT)
        if isinstance(timeout, int) and timeout < LONGEST_HOLD * 1000:
            yield (
                f"RabbitMQ's policy on {one.queue} has {TIMEOUT} {timeout} ms: a task in progress for "
                f"longer is given to somebody else as well. Set it to {LONGEST_HOLD * 1000} or more"
            )
