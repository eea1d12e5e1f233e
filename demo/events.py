"""What MCS's publishing service reads and says, as values: pure.

Written from its documentation alone and sharing nothing with the receiver, so that the two check each
other. Which request is which event, the record of an event, who subscribed to what, and the signature
by which a subscriber proves that it knows its own URL.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

EVENTS = (
    "s3:ObjectCreated:*",
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectRemoved:*",
    "s3:ObjectRemoved:Delete",
    "s3:ObjectRemoved:DeleteMarkerCreated",
    "s3:LifecycleExpiration:*",
    "s3:LifecycleExpiration:Delete",
    "s3:LifecycleExpiration:DeleteMarkerCreated",
    "s3:ObjectTagging:*",
    "s3:ObjectTagging:Put",
    "s3:ObjectTagging:Delete",
    "s3:ObjectAcl:Put",
)
"""What can be subscribed to here."""

_SUBRESOURCES = frozenset(
    {
        "acl",
        "attributes",
        "legal-hold",
        "partNumber",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
    }
)
"""Query parameters that make a request one for something other than the object itself."""

_MEANING = {
    ("PUT", "acl"): "s3:ObjectAcl:Put",
    ("PUT", "tagging"): "s3:ObjectTagging:Put",
    ("DELETE", "tagging"): "s3:ObjectTagging:Delete",
    ("POST", "uploadId"): "s3:ObjectCreated:CompleteMultipartUpload",
}


@dataclass(frozen=True, slots=True)
class S3Request:
    """A path-style request, as far as events are concerned. `key` is empty for one about the bucket."""

    method: str
    bucket: str
    key: str
    query: frozenset[str]
    copies: bool = False

    @classmethod
    def read(cls, method: str, raw_path: str, headers: Mapping[str, str]) -> "S3Request":
        """Return the request of `raw_path`, the path and the query exactly as they came."""
        path, _, query = raw_path.partition("?")
        bucket, _, key = path.removeprefix("/").partition("/")
        names = frozenset(unquote(pair.partition("=")[0]) for pair in query.split("&") if pair)
        return cls(method, unquote(bucket), unquote(key), names, "x-amz-copy-source" in headers)

    @property
    def event(self) -> str | None:
        """The event that this request is, once it has succeeded; None for one that changes no object."""
        if not self.key:
            return None
        if parts := self.query & _SUBRESOURCES:
            return _MEANING.get((self.method, next(iter(parts)))) if len(parts) == 1 else None
        if self.method == "PUT":
            return "s3:ObjectCreated:Copy" if self.copies else "s3:ObjectCreated:Put"
        return "s3:ObjectRemoved:Delete" if self.method == "DELETE" else None

    @property
    def deletes_many(self) -> bool:
        """Whether this is a DeleteObjects, whose answer names what is gone."""
        return self.method == "POST" and not self.key and "delete" in self.query

    @property
    def answered_in_body(self) -> bool:
        """Whether a status of 200 is not yet a success: the body may be an error, sent after a long wait."""
        return self.deletes_many or self.event in {
            "s3:ObjectCreated:Copy",
            "s3:ObjectCreated:CompleteMultipartUpload",
        }


@dataclass(frozen=True, slots=True)
class Subscription:
    """One SimpleTopicConfiguration: hooks for these events of these keys go to `url`."""

    id: str
    url: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    def wants(self, event: str, key: str) -> bool:
        """Whether a hook is sent for `event` at `key`."""
        fits = any(
            event.startswith(name[:-1]) if name.endswith("*") else event == name for name in self.events
        )
        return fits and key.startswith(self.prefix) and key.endswith(self.suffix)

    def topic_arn(self, project: str, bucket: str) -> str:
        """Return the topic that a confirmation is about."""
        return f"{project}|{bucket}|{','.join(self.events)}"


@dataclass(frozen=True, slots=True)
class Happened:
    """One event at one key. `etag` and `size` are None when the object is gone."""

    event: str
    bucket: str
    key: str
    at: float
    etag: str | None = None
    size: int | None = None
    address: str = "127.0.0.1"
    request_id: str = ""


def record(happened: Happened, configuration: str, *, project: str, region: str) -> dict[str, Any]:
    """Return the record of an event as MCS writes it: the raw key, and a `sequencer` of whole seconds."""
    thing: dict[str, Any] = {"sequencer": int(happened.at), "key": happened.key}
    if happened.etag is not None:
        thing |= {"eTag": happened.etag, "size": happened.size or 0}
    return {
        "s3": {
            "object": thing,
            "configurationId": configuration,
            "bucket": {"name": happened.bucket, "ownerIdentity": {"principalId": project}},
            "s3SchemaVersion": "1.0",
        },
        "eventVersion": "1.0",
        "requestParameters": {"sourceIPAddress": happened.address},
        "userIdentity": {"principalId": "2407013e-cbc1-415f-9102-16fb9bd6946b"},
        "eventName": happened.event,
        "awsRegion": region,
        "eventSource": "aws:s3",
        "responseElements": {"x-amz-request-id": happened.request_id},
    }


def signature(url: str, topic_arn: str, timestamp: str, token: str) -> str:
    """Return what a subscriber must answer: hex(hmac(url, hmac(topic, hmac(timestamp, token)))), where
    hmac(message, key) is HMAC-SHA256 and the inner digests are raw bytes."""
    key = token.encode()
    for message in (timestamp, topic_arn, url):
        key = hmac.digest(key, message.encode(), "sha256")
    return key.hex()


def read_configuration(body: bytes) -> list[Subscription]:
    """Return the subscriptions in a NotificationConfiguration. Raises ValueError with a sentence."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - of a user who has signed; expat bounds what entities do
    except ElementTree.ParseError as error:
        raise ValueError(f"the configuration is not XML: {error}") from error
    if _name(root) != "NotificationConfiguration":
        raise ValueError(f"<{_name(root)}> is no NotificationConfiguration")
    return [_subscription(number, element) for number, element in enumerate(root, 1)]


def _subscription(number: int, element: ElementTree.Element) -> Subscription:
    if _name(element) != "SimpleTopicConfiguration":
        raise ValueError(f"<{_name(element)}> is not supported: this service knows SimpleTopicConfiguration")
    events, url = tuple(_texts(element, "Event")), "".join(_texts(element, "Url"))
    for event in events:
        if event not in EVENTS:
            raise ValueError(f'"{event}" is no event')
    if not events or not url.startswith(("http://", "https://")):
        raise ValueError("a SimpleTopicConfiguration has at least one Event and a Url of http or https")
    rules: dict[str, str] = {}
    for rule in (child for child in element.iter() if _name(child) == "FilterRule"):
        rules["".join(_texts(rule, "Name")).lower()] = "".join(_texts(rule, "Value"))
    if unknown := rules.keys() - {"prefix", "suffix"}:
        raise ValueError(f'a FilterRule is for Prefix or Suffix, not "{min(unknown)}"')
    id_ = "".join(_texts(element, "Id")) or str(number)
    return Subscription(id_, url, events, rules.get("prefix", ""), rules.get("suffix", ""))


def write_configuration(subscriptions: list[Subscription]) -> bytes:
    """Return the NotificationConfiguration of `subscriptions`: an empty element when there are none."""
    root = ElementTree.Element("NotificationConfiguration", xmlns=NAMESPACE)
    for subscription in subscriptions:
        element = ElementTree.SubElement(root, "SimpleTopicConfiguration")
        ElementTree.SubElement(element, "Id").text = subscription.id
        for event in subscription.events:
            ElementTree.SubElement(element, "Event").text = event
        ElementTree.SubElement(element, "Url").text = subscription.url
        key = ElementTree.SubElement(ElementTree.SubElement(element, "Filter"), "S3Key")
        for name, value in (("Prefix", subscription.prefix), ("Suffix", subscription.suffix)):
            if value:
                rule = ElementTree.SubElement(key, "FilterRule")
                ElementTree.SubElement(rule, "Name").text = name
                ElementTree.SubElement(rule, "Value").text = value
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root)


def error_document(code: str, message: str) -> bytes:
    """Return an S3 error as ElementTree."""
    root = ElementTree.Element("Error")
    ElementTree.SubElement(root, "Code").text = code
    ElementTree.SubElement(root, "Message").text = message
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root)


def is_error(body: bytes) -> bool:
    """Whether the body of a 200 tells of an error."""
    return b"<Error>" in body or b"<Error " in body


def deleted_keys(body: bytes) -> list[str]:
    """Return the keys that a DeleteResult names as gone."""
    root = ElementTree.fromstring(body)  # noqa: S314 - the answer of our own upstream
    return ["".join(_texts(element, "Key")) for element in root if _name(element) == "Deleted"]


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _texts(element: ElementTree.Element, name: str) -> list[str]:
    return [child.text or "" for child in element if _name(child) == name]
