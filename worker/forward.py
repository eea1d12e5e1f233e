"""The action `forward`: POST an event as a CloudEvent in JSON, signed as Standard Webhooks says."""

import asyncio
import base64
import hmac
import ssl
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Self

import aiohttp

from common.errors import ActionFailed, ActionRefused, ConfigError, HookmirrorError, Throttled
from common.proxies import proxy_for
from common.tables import FORWARD_TIMEOUT, ActionTable
from common.telemetry import Action
from worker.actions import Order
from worker.verdict import Outcome

MAX_ANSWER = 2**10
"""Bytes of an answer that are read, to tell the reason of a refusal."""

SETUP = frozenset({401, 403, 404, 405, 408, 421, 425, 426, 451})
"""Refusals that say something of the way there, not of this event: they may end when somebody mends it."""


def signature(key: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """Return one entry of `webhook-signature`: https://www.standardwebhooks.com, symmetric, version 1."""
    signed = hmac.digest(key, b"%s.%d.%s" % (id_.encode(), timestamp, body), "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"


class Forward:
    """Whoever `route.forward` names: `async with Forward(route) as forward`. `clock` is in epoch seconds."""

    def __init__(self, route: ActionTable, clock: Callable[[], float] = time.time) -> None:
        if route.forward is None:
            raise ConfigError(f"{route.id}: forward: missing")
        self._url = route.forward
        self._proxy = proxy_for(route.forward)
        self._keys = route.signing_keys
        self._timeout = route.timeout or FORWARD_TIMEOUT
        self._trusted = _trusted(route)
        self._clock = clock
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open the connections' pool."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._trusted)
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._session.close()

    async def __call__(self, order: Order) -> Outcome:
        """Send `order`. Done is a 2xx, all else raises: see `refusal`."""
        body = order.document()
        try:
            # A redirect would carry what is signed to somebody who was not named.
            async with self._session.post(
                self._url,
                data=body,
                headers=self._headers(order, body),
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                if 200 <= response.status < 300:
                    return Outcome(Action.FORWARDED, order.verb)
                said = await _beginning(response)
                raise refusal(response.status, said, response.headers.get("Retry-After"), self._clock())
        except TimeoutError as error:
            raise ActionFailed(f"forward: no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise ActionFailed(f"forward: {type(error).__name__}: {error}") from error

    def _headers(self, order: Order, body: bytes) -> dict[str, str]:
        id_, now = order.task.id, int(self._clock())
        return {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": "hookmirror",
            "webhook-id": id_,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(signature(key, id_, now, body) for key in self._keys),
        }


def refusal(status: int, said: str, retry_after: str | None, now: float) -> HookmirrorError:
    """Return the error for an answer that is no success.

    Asked for patience (429, or 503 with Retry-After): `Throttled`, which waits as long as asked. 5xx, a
    redirect, and what an operator of either side can mend: `ActionFailed`. 410 and every other 4xx:
    `ActionRefused`, for the same event will be refused again.
    """
    asked = wait_asked(retry_after, now)
    why = f"forward: answered {status}" + (f": {said}" if said else "")
    if status == 429 or (status == 503 and asked):
        return Throttled(why, retry_after=asked)
    if 300 <= status < 400:
        return ActionFailed(f"forward: answered {status}: redirects are refused, name the URL it leads to")
    if status == 410:
        return ActionRefused("forward: answered 410: nothing more is wanted there. Take the route away")
    if 400 <= status < 500 and status not in SETUP:
        return ActionRefused(why)
    return ActionFailed(why, retry_after=asked)


def wait_asked(value: str | None, now: float) -> float:
    """Return the seconds that a Retry-After asks for: a number, or a date; 0 for none or nonsense."""
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now, 0.0)


async def _beginning(response: aiohttp.ClientResponse) -> str:
    said = await response.content.read(MAX_ANSWER)
    return " ".join(said.decode(errors="replace").split())[:200]


def _trusted(route: ActionTable) -> ssl.SSLContext | bool:
    if route.ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=route.ca_bundle)
    except OSError as error:
        raise ConfigError(
            f"{route.id}: ca_bundle: {route.ca_bundle}: {error}. Name a file of PEM certificates."
        ) from error
