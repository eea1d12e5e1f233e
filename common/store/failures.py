"""What an S3 store says when it fails, and what that means: one table, and the verdict that follows.

| what the store said | its class   | the verdict (`worker/verdict.py`)                                   |
|---------------------|-------------|---------------------------------------------------------------------|
| AGAIN, the unknown  | StoreAway   | Retry, one attempt the less; a dead letter after the last           |
| BROKEN              | Corrupt     | Retry, one attempt the less                                         |
| UPLOAD              | UploadGone  | Retry, one attempt the less, and the copy in parts begins anew      |
| MOVED               | SourceMoved | Retry, one attempt the less; none when a HEAD shows that it moved   |
| THROTTLE            | Throttled   | Retry no sooner than the store asked, one attempt the less          |
| OBJECT              | Refused     | Bury: this object never                                             |
| ROUTE               | RouteDown   | Retry, one attempt the less; none while the route is paused         |

While nothing passes no attempt is taken for any of them: see `worker/blame.py`.

The codes are those of Amazon's list of S3 errors, and the ones that MinIO and Ceph add to it. A code
that may mean several things stands where the least harm is done: counted, and tried again.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from common.errors import (
    Corrupt,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    TryAgain,
    UploadGone,
)

_CODE = re.compile(rb"<Code>([^<]{1,100})</Code>")
_ERROR = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>)?\s*<Error[\s>]")
_KEY = re.compile(rb"<Key>([^<]{1,4000})</Key>")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_MESSAGE = re.compile(rb"<Message>([^<]{1,300})</Message>")

AGAIN = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "InternalServerError",
        "InvalidArgument",  # of many things, from a part's number to a header that one store does not know
        "InvalidPart",  # the parts are listed and completed again
        "InvalidPartOrder",
        "InvalidRange",
        "KMS.InternalException",
        "MalformedXML",
        "MethodNotAllowed",
        "MissingContentLength",
        "NoSuchBucketPolicy",  # no answer to anything that is asked here
        "NoSuchKey",  # of a read or a delete this is no failure and never comes here
        "NoSuchVersion",
        "OperationAborted",
        "RequestTimeout",  # the body did not arrive in time
        "XMinioBackendDown",
        "XMinioObjectExistsAsDirectory",  # "a" cannot be while there is "a/b": which may go, in its own turn
        "XMinioParentIsObject",
        "XMinioServerNotInitialized",
    }
)
"""Try again: it says nothing about the object, or not enough."""

BROKEN = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InvalidDigest",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
        "XMinioObjectTampered",
    }
)
"""The bytes that arrived there are not those that were sent."""

UPLOAD = frozenset({"NoSuchUpload"})
"""The upload in parts is no more."""

MOVED = frozenset({"PreconditionFailed"})
"""A read that was pinned to one state found another."""

OBJECT = frozenset(
    {
        "EntityTooLarge",
        "EntityTooSmall",
        "InvalidObjectName",
        "InvalidObjectState",  # in cold storage: unreadable until somebody restores it
        "InvalidRequest",  # a read without the key of an object that only its owner can decrypt (SSE-C)
        "InvalidTag",
        "InvalidURI",
        "KeyTooLong",
        "KeyTooLongError",
        "MalformedDate",
        "MaxMessageLengthExceeded",
        "MetadataTooLarge",
        "ObjectNotInActiveTierError",
        "RequestHeaderSectionTooLarge",
        "XMinioInvalidObjectName",
        "XMinioInvalidResourceName",
    }
)
"""Never, for this one object."""

CREDENTIALS = frozenset(
    {
        "AccessDenied",
        "AccessForbidden",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidPayer",
        "InvalidSecurity",
        "InvalidToken",
        "MissingSecurityHeader",
        "NoSuchUser",
        "NotSignedUp",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnauthorizedAccess",
        "UserSuspended",
        "XMinioInvalidIAMCredentials",
    }
)
"""Who we are is not known, not enough, or no longer valid."""

CLOCK = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
"""The clock here is wrong, by more than 15 minutes."""

BUCKET = frozenset(
    {
        "IllegalLocationConstraint",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
        "InvalidBucketName",
        "InvalidBucketState",
        "InvalidLocationConstraint",
        "InvalidRegion",
        "NoSuchBucket",
        "PermanentRedirect",
        "QuotaExceeded",
        "Redirect",
        "TemporaryRedirect",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
"""The bucket is not there, not here, or full."""

PLACEMENT = frozenset(
    {
        "InvalidEncryptionAlgorithmError",
        "InvalidStorageClass",
        "KMS.AccessDeniedException",
        "KMS.DisabledException",
        "KMS.InvalidKeyUsageException",
        "KMS.InvalidStateException",
        "KMS.KMSInvalidStateException",
        "KMS.NotFoundException",
        "KMSNotConfigured",
        "NotImplemented",  # a header that this store does not know
    }
)
"""The storage class or the encryption that the route asks for cannot be had, or its key is shut."""

ROUTE = CREDENTIALS | CLOCK | BUCKET | PLACEMENT
"""Wrong for every object at once: an operator must act."""

THROTTLE = frozenset(
    {
        "BandwidthLimitExceeded",
        "KMS.ThrottlingException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
"""The store asks for patience."""

UNREACHABLE = "Unreachable"
"""What a request is called that never came to a store."""

WRONG_REGION = "WrongRegion"

NO_CREDENTIALS = "NoCredentials"
"""What it is called when there are no keys to sign a request with."""

NAMED = (*sorted(ROUTE | AGAIN), UNREACHABLE, WRONG_REGION, NO_CREDENTIALS)
"""What a failure may be called besides the class of its error."""

DENIED = "AccessDenied"
"""What a 401 or 403 without a code is called."""

Kind = type[TryAgain] | type[Refused]

CODES: Mapping[str, Kind] = {
    **dict.fromkeys(AGAIN, StoreAway),
    **dict.fromkeys(BROKEN, Corrupt),
    **dict.fromkeys(UPLOAD, UploadGone),
    **dict.fromkeys(MOVED, SourceMoved),
    **dict.fromkeys(OBJECT, Refused),
    **dict.fromkeys(ROUTE, RouteDown),
    **dict.fromkeys(THROTTLE, Throttled),
}
"""Every code that is known, and what it means."""

STATUSES: Mapping[int, Kind] = {
    **dict.fromkeys((301, 307, 401, 403, 407), RouteDown),
    412: SourceMoved,
    414: Refused,
    429: Throttled,
    431: Refused,
    451: Refused,
    507: RouteDown,
}
"""What a status means when its code is not known, or when there is none."""

_COLD = "it is in cold storage, and must be restored there before it can be read"
_LONG = "its key is longer than the store takes"
_HEADERS = "its headers and metadata are larger than the store, or a proxy before it, takes"
_LOCKED = "it is encrypted with a key of its owner's (SSE-C): only who has that key can read it"

WORDS: Mapping[str, str] = {
    "414": _LONG,
    "431": _HEADERS,
    "451": "it may not be read for legal reasons",
    "EntityTooLarge": "it is larger than the store takes",
    "InvalidObjectName": "its key is none that the store takes",
    "InvalidObjectState": _COLD,
    "InvalidTag": "its tags are such as the store does not take",
    "KeyTooLong": _LONG,
    "KeyTooLongError": _LONG,
    "MalformedDate": "a date among its headers is none that the store can read",
    "MetadataTooLarge": "it has more metadata than the store takes (2 KB at Amazon)",
    "ObjectNotInActiveTierError": _COLD,
    "RequestHeaderSectionTooLarge": _HEADERS,
}
"""What a refusal of one object means, for people, by its code or its status."""

_ABOUT_KEYS = re.compile(rb"(?i)server.side.encryption|\bSSE-?C\b|customer.(?:provided|key|algorithm)")
"""How the message of a read sounds that was made without the key of the object (Amazon, Ceph, MinIO)."""

_HEADERS_HTML = b"Request Header Or Cookie Too Large"
"""How nginx says 431, with status 400."""

_REGION = re.compile(rb"<Region>([^<]{1,60})</Region>")


def error_code(body: bytes) -> str:
    """Return the Code of an S3 error document, "" when there is none."""
    found = _CODE.search(body)
    return found[1].decode(errors="replace") if found else ""


def says_no_such_key(body: bytes, key: str) -> bool:
    """Whether an error document says that there is no such `key`. A page of somebody else's may hold the word
    too, and a store that answers for another key is not believed; keys are compared where they are plain."""
    if not _ERROR.match(body) or error_code(body) != "NoSuchKey":
        return False
    told = _KEY.search(body)
    return told is None or not _PLAIN.fullmatch(key) or told[1].decode(errors="replace").strip("/") == key


def translate(
    status: int, body: bytes, *, doing: str, retry_after: float = 0.0, reads: bool = False
) -> TryAgain | Refused:
    """Return the error of ours for an answer that is no success.

    `doing` names the request for people, `retry_after` is the wait that was asked for (in seconds), `reads`
    says that it was a read of an object. What the table does not know is `StoreAway`: try again. A
    `SourceMoved` counts here: only who pinned the read, and looked, can tell that the object has moved.
    """
    code = error_code(body)
    if code.isdigit():  # botocore's stand-in for the code of an answer without a body
        code = ""
    message = _MESSAGE.search(body)
    text = f"{doing}: {code or status}" + (f": {message[1].decode(errors='replace')}" if message else "")
    kind = CODES.get(code) or STATUSES.get(status, StoreAway)
    words = WORDS.get(code or str(status), "")
    if reads and code in {"InvalidArgument", "InvalidRequest"} and message and _ABOUT_KEYS.search(message[1]):
        kind, words = Refused, _LOCKED
    if status == 400 and not code and _HEADERS_HTML in body:
        kind, words = Refused, _HEADERS
    if status == 503 and not code:  # how S3 says "slow down" where there is no room to say it
        kind = Throttled
    if not issubclass(kind, TryAgain):
        # Of a write it may be about a header that goes with every one.
        return kind(f"{text} ({words})" if words else text, own=reads or code != "InvalidRequest")
    error = kind(text, retry_after=retry_after)
    error.code = _named(status, code)
    if isinstance(error, SourceMoved):
        error.counts = True
    return error


def _named(status: int, code: str) -> str:
    """Return the code by which people know a failure, "" when its class has the better name: one of ours for
    what says nothing of who asks, a store's 5xx among it."""
    if code in ROUTE or (code in AGAIN and 400 <= status < 500):
        return code
    return DENIED if status in {401, 403} and code not in CODES else ""


def clock_ahead(date: str, now: float) -> float | None:
    """Return by how many seconds the clock of who wrote the header `date` is before ours, where it is `now`;
    None for no date."""
    try:
        return parsedate_to_datetime(date).timestamp() - now if date else None
    except ValueError:
        return None


def wrong_region(status: int, body: bytes, headers: Mapping[str, str]) -> str:
    """Return the region in which a bucket is, where that is what an answer says; else ""."""
    if status not in {301, 307, 400} and error_code(body) not in BUCKET:
        return ""
    told = _REGION.search(body)
    return headers.get("x-amz-bucket-region", "") or (told[1].decode(errors="replace") if told else "")


def elsewhere(bucket: str, where: str, store: str, here: str) -> RouteDown:
    """Return the error for a bucket that is in the region `where`, and `store` is configured for `here`."""
    error = RouteDown(
        f'{bucket} is in the region {where}, stores.{store}.region says {here}. Set:  region = "{where}"'
    )
    error.code = WRONG_REGION
    return error
