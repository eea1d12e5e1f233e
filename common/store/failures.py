"""What an S3 store says when it fails, and what that means: one table."""

import re

from common.errors import HookmirrorError, Refused, RouteDown, SourceMoved, StoreAway, Throttled

_CODE = re.compile(rb"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,300})</Message>")

OBJECT = frozenset(
    {
        "EntityTooLarge",
        "InvalidObjectState",  # in cold storage: unreadable until somebody restores it
        "KeyTooLong",
        "KeyTooLongError",
        "MetadataTooLarge",
    }
)
"""Never, for this one object."""

ROUTE = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "InvalidToken",
        "NoSuchBucket",
        "NotSignedUp",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Wrong for every object at once: an operator must act."""

THROTTLE = frozenset(
    {"BandwidthLimitExceeded", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "TooManyRequests"}
)
"""The store asks for patience."""


def error_code(body: bytes) -> str:
    """Return the Code of an S3 error document, "" when there is none."""
    found = _CODE.search(body)
    return found[1].decode(errors="replace") if found else ""


def translate(status: int, body: bytes, *, doing: str, retry_after: str | None = None) -> HookmirrorError:
    """Return the error of ours for an answer that is no success.

    `doing` names the request for people. What the table does not know is `StoreAway`: try again.
    """
    code = error_code(body)
    message = _MESSAGE.search(body)
    text = f"{doing}: {code or status}" + (f": {message[1].decode(errors='replace')}" if message else "")
    if code in OBJECT:
        return Refused(text)
    if code in ROUTE or status in {301, 401, 403, 307}:
        return RouteDown(text)
    # Without a code (an answer to a HEAD has no body) a 503 is how S3 says "slow down".
    if code in THROTTLE or status == 429 or (status == 503 and not code):
        return Throttled(text, retry_after=_seconds(retry_after))
    if status == 412:
        return SourceMoved(text)
    return StoreAway(text, retry_after=_seconds(retry_after))


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdecimal() else 0.0
