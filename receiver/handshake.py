"""The subscription handshake of MCS (VK Cloud Object Storage): pure.

When a webhook is registered, the publishing service POSTs a `SubscriptionConfirmation` to its URL
and expects a signature that only somebody who knows the URL as it was registered can make
(VK Cloud's documentation of bucket webhooks; two published vectors are in the tests).
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import Unreadable

MAX_TOPIC = 2048
"""Characters; with every event there is a topic has some 500. It is written to the log, and a caller's own
quarter of a megabyte shall not be."""


def sign(url: str, topic_arn: str, timestamp: str, token: str) -> str:
    """Return the signature, in hex: HMAC-SHA256 of the url, keyed by that of the topic, keyed by that of
    the timestamp, keyed by the token. `url` counts to the character: a slash more is another signature."""

    def mac(key: bytes, message: str) -> bytes:
        return hmac.new(key, message.encode(), hashlib.sha256).digest()

    return mac(mac(mac(token.encode(), timestamp), topic_arn), url).hex()


@dataclass(frozen=True, slots=True)
class Subscription:
    """A request to confirm a subscription."""

    topic_arn: str
    timestamp: str
    token: str

    @property
    def bucket(self) -> str:
        """The bucket: the topic reads project|bucket|events."""
        return self.topic_arn.split("|")[1]

    def signature(self, url: str) -> str:
        """Return the signature to answer with."""
        return sign(url, self.topic_arn, self.timestamp, self.token)


def parse(body: Mapping[str, object]) -> Subscription | None:
    """Return the subscription that `body` asks to confirm, None when its Type is another.
    Raises `Unreadable` for one that is not whole."""
    if body.get("Type") != "SubscriptionConfirmation":
        return None
    values = [body.get(name) for name in ("TopicArn", "Timestamp", "Token")]
    topic, timestamp, token = (value if isinstance(value, str) else "" for value in values)
    if not (topic and timestamp and token) or not all(map(_encodable, (topic, timestamp, token))):
        raise Unreadable("a SubscriptionConfirmation has TopicArn, Timestamp and Token, each a string")
    if len(topic) > MAX_TOPIC:
        raise Unreadable(f"TopicArn has more than {MAX_TOPIC} characters")
    if topic.count("|") < 2:
        raise Unreadable('TopicArn does not read "project|bucket|events"')
    return Subscription(topic, timestamp, token)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
