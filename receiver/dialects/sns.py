"""Amazon SNS envelopes: pure.

SNS wraps what it delivers over HTTP in a JSON object of strings, and signs some of them, by `Type` (its
documentation: "Verifying the signatures of Amazon SNS messages"). Until the signature is checked everything
in an envelope is the caller's word, the address of the certificate included: hence the one host that its
topic allows.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from common.errors import BadSignature, NotOurs, Unreadable

Kind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
Digest = Literal["sha1", "sha256"]

SIGNED: dict[Kind, tuple[str, ...]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
    "UnsubscribeConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
"""What the signature of each kind is about, in this order."""

DIGESTS: dict[str, Digest] = {"1": "sha1", "2": "sha256"}
"""By SignatureVersion."""

MAX_URL = 2048
"""Characters; a SubscribeURL has some 350."""

# Bounded, for a topic that may not deliver is written to the log; a topic's name has at most 256 characters.
_ARN = re.compile(r"arn:(aws[a-z-]{0,32}):sns:([a-z0-9-]{1,64}):[0-9]{12}:[A-Za-z0-9_.-]{1,256}")
_VISIBLE = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that has the shape of one; nobody has vouched for it yet.

    `signed` is what `signature` is about. `certificate_url`, and `subscribe_url` of a subscription to confirm
    ("" of anything else), name the one host of `topic`.
    """

    kind: Kind
    topic: str
    message: str
    signed: bytes
    signature: bytes
    digest: Digest
    certificate_url: str
    subscribe_url: str


def parse(body: object) -> Envelope | None:
    """Return the envelope that `body` is, None when it is something else. Raises `Unreadable` for one that is
    not whole, `BadSignature` or `NotOurs` for one that sends us to another host than its topic's.

    The topic tells SNS from MCS, whose SubscriptionConfirmation has the same Type: an ARN begins with "arn:"
    and holds no bar, MCS's reads project|bucket|events.
    """
    if not isinstance(body, Mapping):
        return None
    topic = body.get("TopicArn")
    kind = next((kind for kind in SIGNED if kind == body.get("Type")), None)
    if kind is None or not isinstance(topic, str) or not topic.startswith("arn:") or "|" in topic:
        return None
    host = find_host(topic)
    names = [name for name in SIGNED[kind] if name != "Subject" or body.get(name) is not None]
    fields = {name: _text(body, name) for name in names}
    confirms = kind == "SubscriptionConfirmation"
    return Envelope(
        kind=kind,
        topic=topic,
        message=fields["Message"],
        signed="".join(f"{name}\n{value}\n" for name, value in fields.items()).encode(),
        signature=_signature(_text(body, "Signature")),
        digest=_digest(_text(body, "SignatureVersion")),
        certificate_url=_certificate_url(_text(body, "SigningCertURL"), host),
        subscribe_url=_subscribe_url(fields["SubscribeURL"], host, topic) if confirms else "",
    )


def find_host(topic: str) -> str:
    """Return the one host that may be asked about `topic`. Raises `Unreadable` for what is no topic's ARN."""
    match = _ARN.fullmatch(topic)
    if match is None:
        raise Unreadable("TopicArn is not the ARN of an SNS topic")
    partition, region = match.groups()
    return f"sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


def _text(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} of an SNS envelope is missing or no string")
    # A line's end inside a field would let two different envelopes be the same signed text. Only the message,
    # which comes first, may have some: read from the end that text is still one envelope's alone.
    if name != "Message" and _CONTROL.search(value):
        raise Unreadable(f"{name} of an SNS envelope has control characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unreadable(f"{name} of an SNS envelope has half a surrogate pair") from error
    return value


def _signature(written: str) -> bytes:
    try:
        signature = base64.b64decode(written, validate=True)
    except ValueError:
        signature = b""
    # Even so Python lets padding pass that is too long, or hides bits.
    if not signature or base64.b64encode(signature).decode() != written:
        raise BadSignature("Signature of an SNS envelope is not base64")
    return signature


def _digest(version: str) -> Digest:
    if version not in DIGESTS:
        raise Unreadable("SignatureVersion of an SNS envelope is neither 1 nor 2")
    return DIGESTS[version]


def _certificate_url(url: str, host: str) -> str:
    """The URL, if it is that of a certificate at `host`. Compared as it is written, for those who take URLs
    apart disagree about the odd ones."""
    place = re.escape(f"https://{host}")
    if not re.fullmatch(rf"{place}(:443)?/SimpleNotificationService-[0-9a-fA-F]{{1,128}}\.pem", url):
        raise BadSignature(f"SigningCertURL of an SNS envelope is not that of a certificate at {host}")
    return url


def _subscribe_url(url: str, host: str, topic: str) -> str:
    place, _, query = url[:MAX_URL].partition("?")
    asked = parse_qs(query, keep_blank_values=True)
    fits = (
        len(url) <= MAX_URL
        and _VISIBLE.fullmatch(url)
        and "#" not in url
        and place in {f"https://{host}/", f"https://{host}:443/"}
        and asked.get("Action") == ["ConfirmSubscription"]
        and asked.get("TopicArn") == [topic]
    )
    if not fits:
        raise NotOurs(f"SubscribeURL does not confirm a subscription to its topic at {host}")
    return url
