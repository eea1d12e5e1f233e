"""Bodies that no sender sends: tests/corpus/hooks/<what is odd>.body, and recipes for the long ones."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from receiver import hook, intake

FOLDER = Path(__file__).parents[1] / "corpus" / "hooks"
"""One file a body, to the byte. The long fuzzing tests add what they find (`keep`)."""


def record(key: str = "k", bucket: str = "bucketA", **more: Any) -> dict[str, Any]:
    """A record of `key`, with `more` about the object."""
    return {
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, **more}},
    }


def of(*records: object) -> bytes:
    """The body of a hook."""
    return json.dumps({"Records": records}).encode()


def around(inside: bytes) -> bytes:
    """The body of a hook whose only record is, or holds, `inside`."""
    return b'{"Records": [{"deep": ' + inside + b"}]}"


RECIPES: dict[str, Callable[[], bytes]] = {
    "brackets-without-end": lambda: b"[" * 100_000,
    "objects-without-end": lambda: b'{"a":' * 40_000,
    "records-nested-100000": lambda: b'{"Records": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "record-nested-500": lambda: around(b"[" * 500 + b"]" * 500),
    "record-nested-900": lambda: around(b"[" * 900 + b"]" * 900),
    "record-nested-990": lambda: around(b"[" * 990 + b"]" * 990),
    "record-of-nested-objects": lambda: around(b'{"a":' * 950 + b"1" + b"}" * 950),
    "empty-lists-100000": lambda: b"[" + b"[]," * 80_000 + b"[]]",
    "record-of-empty-lists": lambda: around(b"[" + b"[]," * 80_000 + b"[]]"),
    "record-of-many-fields": lambda: of({str(number): number for number in range(15_000)}),
    "same-field-20000-times": lambda: b"{" + b'"Records": 1,' * 20_000 + b'"Records": []}',
    "digits-100000": lambda: b"1" * 100_000,
    "size-of-100000-digits": lambda: of(record(size="1" * 100_000)),
    "size-unquoted-of-100000-digits": lambda: of(record(size=0)).replace(b": 0", b": " + b"1" * 100_000),
    "fraction-of-100000-digits": lambda: of(record(size=0)).replace(b": 0", b": 0." + b"1" * 100_000),
    "exponent-of-100000-digits": lambda: of(record(size=0)).replace(b": 0", b": 1e" + b"9" * 100_000),
    "key-of-1025-bytes": lambda: of(record("k" * 1025)),
    "key-of-3072-bytes": lambda: of(record("k" * 3072)),
    "key-of-3073-bytes": lambda: of(record("k" * 3073)),
    "key-of-1537-characters-of-two-bytes": lambda: of(record("é" * 1537)),
    "key-encoded-3072-bytes": lambda: of(record("%41" * 1024, "photos")),
    "key-of-200000-bytes": lambda: of(record("k" * 200_000)),
    "key-of-percents": lambda: of(record("%" * 3000, "photos")),
    "etag-of-200000-bytes": lambda: of(record(eTag='"' * 100_000)),
    "bucket-of-200000-bytes": lambda: of(record(bucket="b" * 200_000)),
    "event-name-of-200000-bytes": lambda: of({**record(), "eventName": "s3:" * 66_000}),
    "records-1000": lambda: of(*[record(str(number)) for number in range(hook.MAX_RECORDS)]),
    "records-1000-unreadable": lambda: of(*[None] * hook.MAX_RECORDS),
    "records-1001": lambda: of(*[None] * (hook.MAX_RECORDS + 1)),
    "records-1001-test-events": lambda: of(*[{"eventName": "s3:TestEvent"}] * (hook.MAX_RECORDS + 1)),
    "largest": lambda: of(record()).ljust(intake.MAX_BODY),
    "too-large": lambda: of(record()).ljust(intake.MAX_BODY + 1),
    "escapes-throughout": lambda: b'"' + b"\\u0000" * 40_000 + b'"',
    "text-without-end": lambda: b'{"Records": ["' + b"a" * 200_000,
    "spaces": lambda: b" " * 200_000,
    "nul-bytes": lambda: bytes(200_000),
    "mcs-topic-of-bars": lambda: _confirmation("|" * 200_000),
    "mcs-topic-of-a-long-bucket": lambda: _confirmation(f"a|{'b' * 200_000}|c"),
    "mcs-topic-of-long-events": lambda: _confirmation(f"a|bucketA|{'c' * 200_000}"),
    "mcs-token-long": lambda: _confirmation("a|bucketA|b", Token="t" * 200_000),
    "sns-region-long": lambda: _notification(f"arn:aws:sns:{'a-' * 50_000}:123456789012:b"),
    "sns-topic-long": lambda: _notification(f"arn:aws:sns:a-b-1:123456789012:{'b' * 200_000}"),
    "ros-outputs-1001": lambda: _stack([{"OutputKey": "k", "OutputValue": "v"}] * 1001),
    "ros-output-value-long": lambda: _stack([{"OutputKey": "k", "OutputValue": "password=" * 25_000}]),
    "ros-output-value-wide": lambda: _stack([{"OutputKey": "k", "OutputValue": [[]] * 60_000}]),
    "ros-name-of-200000-bytes": lambda: _stack([], StackName="*" * 200_000),
}
"""What would be more than some kilobytes as a file."""


def _confirmation(topic: str, **more: str) -> bytes:
    body = {"Type": "SubscriptionConfirmation", "TopicArn": topic, "Timestamp": "now", "Token": "t"}
    return json.dumps(body | more).encode()


def _notification(topic: str) -> bytes:
    place = f"https://sns.{topic.split(':')[3]}.amazonaws.com/SimpleNotificationService-0.pem"
    body = {"Type": "Notification", "TopicArn": topic, "SigningCertURL": place, "SignatureVersion": "2"}
    return json.dumps(
        body | dict.fromkeys(("Message", "MessageId", "Timestamp", "Signature"), "AAAA")
    ).encode()


def _stack(outputs: list[Any], **more: str) -> bytes:
    body = {"Outputs": outputs, "StackId": "i", "StackName": "test", "Status": "CREATE_COMPLETE"}
    return json.dumps(body | more).encode()


def bodies() -> dict[str, bytes]:
    """Every body, by the name of what is odd in it."""
    stored = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.body"))}
    return stored | {name: make() for name, make in RECIPES.items()}


@contextmanager
def keeping(failed: list[bytes]) -> Iterator[None]:
    """Keep the last of `failed` when something is raised: of what Hypothesis tries, that is the least body
    that fails."""
    try:
        yield
    except BaseException as error:
        if failed:
            error.add_note(f"the body is kept as {keep(failed[-1])}")
        raise


def keep(body: bytes) -> Path:
    """Add `body` to the corpus, from where it is tried in every run; rename it for what is odd in it."""
    path = FOLDER / f"found-{hashlib.sha256(body).hexdigest()[:12]}.body"
    path.write_bytes(body)
    return path
