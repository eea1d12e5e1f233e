"""Policies of RabbitMQ that would lose what was confirmed, as its management API tells them.

A policy is laid over queues by their names, beside what we declare: `message-ttl` on `.*`, and tasks vanish.
AMQP does not tell of it.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from yarl import URL

from common.errors import ConfigError, QueueAway
from common.queue import topology

ASK_WITHIN = 10.0
"""Seconds for the management API to answer."""

DELETES = ("message-ttl", "expires")
"""What ends tasks, or a whole queue, by the clock."""

DROPS = ("max-length", "max-length-bytes", "delivery-limit")
"""What drops dead letters; the other queues refuse what is too much, and bury what came back too often."""

TIMEOUT = "consumer-timeout"

LONGEST_HOLD = 600
"""Seconds for which a worker may hold a delivery."""

_direct = build_opener(ProxyHandler({}))


async def effective(management: str, amqp: URL) -> list[dict[str, Any]]:
    """Return our queues with the policies on them. Raises `QueueAway` when the management API does not tell.

    Its user is that of `management`, else that of `amqp`.
    """
    parts = urlsplit(management)
    user = URL(management) if parts.username else amqp
    login = base64.b64encode(f"{user.user}:{user.password}".encode()).decode()
    base = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    columns = "name,policy,operator_policy,effective_policy_definition"
    url = f"{base}/api/queues/{quote(vhost(amqp), safe='')}?columns={columns}"
    request = Request(url, headers={"Authorization": f"Basic {login}"})  # noqa: S310 - checked to be http(s)

    def ask() -> Any:
        with _direct.open(request, timeout=ASK_WITHIN) as answer:
            return json.load(answer)

    try:
        queues = await asyncio.to_thread(ask)
        return [queue for queue in queues if queue["name"].startswith(topology.OURS)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise QueueAway(
            f"RabbitMQ's policies could not be checked, queue.management_url does not tell them: {error}"
        ) from error


def vhost(amqp: URL) -> str:
    """Return the virtual host that a URL names."""
    return amqp.path.removeprefix("/").replace("%2F", "/") or "/"


def refuse_losing(queues: list[dict[str, Any]], amqp: URL) -> None:
    """Raise `ConfigError` for a policy that loses what was confirmed, with the command that takes it off."""
    for queue in queues:
        name, definition = queue["name"], queue.get("effective_policy_definition") or {}
        losing = [key for key in DELETES if key in definition]
        if name == topology.dead_queue():
            losing += [key for key in DROPS if key in definition]
        if losing:
            what = ", ".join(f"{key}: {definition[key]}" for key in losing)
            raise ConfigError(
                f"RabbitMQ lays a policy over {name} that deletes what it holds ({what}). "
                f"Take it off, or give it a pattern that leaves out {topology.OURS}*:  {_remedy(queue, amqp)}"
            )


def _remedy(queue: dict[str, Any], amqp: URL) -> str:
    kinds = (("policy", "clear_policy"), ("operator_policy", "clear_operator_policy"))
    commands = (f"rabbitmqctl {verb} -p {vhost(amqp)} {queue[key]}" for key, verb in kinds if queue.get(key))
    return "  or  ".join(commands) or "rabbitmqctl list_policies"


def doubtful(queues: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each policy that loses nothing, and does harm."""
    for queue in queues:
        definition = queue.get("effective_policy_definition") or {}
        timeout = definition.get(TIMEOUT)
        if isinstance(timeout, int) and timeout < LONGEST_HOLD * 1000:
            yield (
                f"RabbitMQ's policy on {queue['name']} has {TIMEOUT} {timeout} ms: a task in progress for "
                f"longer is given to somebody else as well. Set it to {LONGEST_HOLD * 1000} or more"
            )
