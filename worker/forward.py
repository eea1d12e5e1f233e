"""The action `forward`: POST an event as a CloudEvent in JSON, signed as Standard Webhooks says."""

import asyncio
import base64
import hmac
import html
import json
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit, urlunsplit

import aiohttp

from common.errors import ActionFailed, ActionRefused, ConfigError, HookmirrorError, Throttled
from common.proxies import proxy_for
from common.retry_after import wait_asked
from common.routes import FORWARD_TIMEOUT, ActionTable
from common.telemetry import Action
from worker.actions import Order
from worker.verdict import Outcome

MAX_ANSWER = 2**12
"""Bytes of an answer that are read, to tell the reason of a refusal."""

SAID_WITHIN = 5.0
"""Seconds for reading them."""

SETUP = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 426, 451})
"""Refusals that say something of the way there, not of this event: they may end when somebody mends it."""


TELLS = 6
"""Characters of the shortest part of a URL that is hidden: hiding shorter ones would garble what was said."""

SIGNATURE = r"v1,[a-z0-9+/]{43}="


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
        self._hidden = _hidden(route.forward, self._proxy)
        self._keys = route.signing_keys
        self._timeout = route.timeout or FORWARD_TIMEOUT
        self._trusted = _trusted(route)
        self._clock = clock
        self._kept: aiohttp.ClientSession
        self._fresh: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open two pools of connections: one that keeps them, and one that never does."""
        self._kept = self._session(force_close=False)
        self._fresh = self._session(force_close=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._kept.close()
        await self._fresh.close()

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._trusted, force_close=force_close),
            timeout=aiohttp.ClientTimeout(total=None),  # `__call__` has one for both tries
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing],
        )

    async def __call__(self, order: Order) -> Outcome:
        """Send `order`. Done is a 2xx, all else raises: see `refusal` and `failure`."""
        body = order.document()
        try:
            async with asyncio.timeout(self._timeout), self._answer(order, body) as response:
                if 200 <= response.status < 300:
                    return Outcome(Action.FORWARDED, order.verb)
                said = await self._beginning(response)
                raise refusal(response.status, said, response.headers.get("Retry-After"), self._clock())
        except TimeoutError:
            raise ActionFailed(f"forward: no answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, EOFError, ValueError) as error:
            # Not `from error`: its text may hold the URL, the proxy's password, the headers.
            raise ActionFailed(f"forward: {failure(error)}") from None

    @asynccontextmanager
    async def _answer(self, order: Order, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """POST; once more, by a connection of its own, when a kept one was closed by the other side."""
        reuse = _Reuse()
        try:
            response = await self._post(self._kept, order, body, reuse)
        except aiohttp.ClientConnectionError:
            if not reuse.noted:
                raise
            response = await self._post(self._fresh, order, body, reuse)
        async with response:
            yield response

    async def _post(
        self, session: aiohttp.ClientSession, order: Order, body: bytes, reuse: "_Reuse"
    ) -> aiohttp.ClientResponse:
        # A redirect would carry what is signed to somebody who was not named.
        return await session.post(
            self._url,
            data=body,
            headers=self._headers(order, body),
            allow_redirects=False,
            proxy=self._proxy,
            trace_request_ctx=reuse,
        )

    def _headers(self, order: Order, body: bytes) -> dict[str, str]:
        id_, now = order.task.id, int(self._clock())
        return {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": "hookmirror",
            "webhook-id": id_,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(signature(key, id_, now, body) for key in self._keys),
        }

    async def _beginning(self, response: aiohttp.ClientResponse) -> str:
        """Return how the answer begins, without what it repeats of the request. Of an answer that breaks off
        or does not end nothing is shown, for half a secret is not known again: the status decides alone."""
        said = b""
        try:
            async with asyncio.timeout(SAID_WITHIN):
                while len(said) < MAX_ANSWER and (more := await response.content.read(MAX_ANSWER)):
                    said += more
        except (aiohttp.ClientError, TimeoutError):
            return ""
        return " ".join(self._hidden.sub("***", said.decode(errors="replace")).split())[:200]


@dataclass(slots=True)
class _Reuse:
    """Whether a request went by a connection that had served another."""

    noted: bool = False


async def _note_reuse(_session: aiohttp.ClientSession, context: Any, _: object) -> None:
    context.trace_request_ctx.noted = True


FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted"),
    (aiohttp.ClientConnectorSSLError, "no TLS there"),
    (aiohttp.ClientHttpProxyError, "the proxy refuses"),
    (aiohttp.ClientProxyConnectionError, "no connection to the proxy"),
    (aiohttp.ClientConnectorDNSError, "its name cannot be resolved"),
    (aiohttp.ClientConnectorError, "no connection"),
    (aiohttp.ClientConnectionError, "the connection was closed before the answer"),
    (aiohttp.ClientResponseError, "the answer is no HTTP"),
    (ValueError, "its URL, or that of the proxy, is none"),
)
"""What each error says, in words of ours; the first that fits."""


def failure(error: Exception) -> str:
    """Return why there was no answer. Nothing of the error's own text, which may hold the URL, a password of
    the proxy, the headers: only a status, and the names that the system and OpenSSL have for an error."""
    said = next((words for kind, words in FAILURES if isinstance(error, kind)), type(error).__name__)
    detail = ""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        detail = str(error.status)
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        detail = getattr(error.certificate_error, "verify_message", "")
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        number = cause.errno if cause.errno and cause.errno > 0 else 0
        detail = getattr(cause, "reason", None) or (os.strerror(number) if number else "")
    return f"{said}: {detail}" if detail else said


def _hidden(url: str, proxy: str | None) -> re.Pattern[str]:
    """Return what an answer may repeat of a request, and nobody may read: the parts of the URL, a proxy's
    user, signatures. Raises `ConfigError` for a proxy that is no URL."""
    parts = urlsplit(url)
    try:
        way = urlsplit(proxy or "")
    except ValueError:
        raise ConfigError("the proxy that the environment names for forward is no URL: mend it") from None
    user, password = unquote(way.username or ""), unquote(way.password or "")
    repeated = [
        urlunsplit(("", "", parts.path, parts.query, "")),
        *(parts.path, *parts.path.split("/")),
        *(parts.query, *parts.query.split("&"), *(value for _, value in parse_qsl(parts.query))),
        *(password, base64.b64encode(f"{user}:{password}".encode()).decode()),
    ]
    known = [text for text in repeated if len(text) >= TELLS]
    forms = {form for text in known for form in (text, unquote(text), quote(text), quote_plus(text))}
    forms |= {json.dumps(form)[1:-1] for form in forms} | {html.escape(form) for form in forms}
    longest = sorted(forms, key=len, reverse=True)  # what contains another is hidden whole
    return re.compile("|".join([SIGNATURE, *map(re.escape, longest)]), re.IGNORECASE)


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


def _trusted(route: ActionTable) -> ssl.SSLContext | bool:
    if route.ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=route.ca_bundle)
    except OSError as error:
        raise ConfigError(
            f"{route.id}: ca_bundle: {route.ca_bundle}: {error}. Name a file of PEM certificates."
        ) from error
