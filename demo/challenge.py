"""The publishing service's side of the handshake: a subscriber proves that it knows its own URL."""

import hmac
import json
import secrets
from datetime import datetime, timedelta, timezone

import aiohttp

from demo.events import Subscription, signature

MOSCOW = timezone(timedelta(hours=3))

WITHIN = aiohttp.ClientTimeout(total=10)

HEADERS = {"Content-Type": "application/json", "X-Amz-Sns-Messages-Type": "SubscriptionConfirmation"}


class Unconfirmed(Exception):
    """The subscriber has not proved it; the message says how it failed."""


async def confirm(session: aiohttp.ClientSession, subscription: Subscription, topic: str) -> None:
    """Return when the subscriber has answered with the right signature. Raises `Unconfirmed` otherwise."""
    stamp = datetime.now(MOSCOW).isoformat(timespec="seconds")
    token = secrets.token_urlsafe(36)
    message = {
        "Timestamp": stamp,
        "Type": "SubscriptionConfirmation",
        "Message": f"You have chosen to subscribe to the topic {topic}. "
        "To confirm the subscription you need to response with calculated signature",
        "TopicArn": topic,
        "SignatureVersion": 1,
        "Token": token,
    }
    answered = await _ask(session, subscription.url, json.dumps(message).encode())
    if not hmac.compare_digest(answered, signature(subscription.url, topic, stamp, token).encode()):
        raise Unconfirmed(f"{subscription.url} answered with a wrong signature")


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes) -> bytes:
    """Return the signature that `url` answers with."""
    try:
        async with session.post(
            url, data=body, headers=HEADERS, timeout=WITHIN, allow_redirects=False
        ) as answer:
            said = await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unconfirmed(f"{url} has not answered: {error!r}") from error
    if answer.status != 200 or answer.content_type != "application/json":
        raise Unconfirmed(f"{url} answered {answer.status} ({answer.content_type})")
    try:
        return str(json.loads(said)["signature"]).encode()
    except (ValueError, KeyError, TypeError) as error:
        raise Unconfirmed(f"{url} answered without a signature") from error
