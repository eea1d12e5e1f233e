"""What an S3 store says when it fails, and what that means: one table, and the verdict that follows.

| what the store said | its class   | the verdict (`worker/verdict.py`)                                   |
|---------------------|-------------|---------------------------------------------------------------------|
| AGAIN, the unknown  | StoreAway   | Retry, one attempt the less; a dead letter after the last           |
| BROKEN              | Corrupt     | Retry, one attempt the less                                         |
| UPLOAD              | UploadGone  | Retry, one attempt the less, and the copy in parts begins anew      |
| MOVED               | SourceMoved | Retry, no attempt                                                   |
| THROTTLE            | Throttled   | Retry no sooner than the store asked, no attempt                    |
| OBJECT              | Refused     | Bury: this object never                                             |
| ROUTE               | RouteDown   | Retry, no attempt; `worker/pause.py` asks whether everything stopped |

The codes are those of Amazon's list of S3 errors, and the ones that MinIO and Ceph add to it. A code
that may mean several things stands where the least harm is done: counted, and tried again.
"""

import re
from collections.abc import Mapping

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
        "InvalidObjectState",  # in cold storage: unreadable until somebody restores it
        "InvalidRequest",  # a read without the key of an object that only its owner can decrypt (SSE-C)
        "InvalidURI",
        "KeyTooLong",
        "KeyTooLongError",
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
    **dict.fromkeys((301, 307, 401, 403), RouteDown),
    412: SourceMoved,
    429: Throttled,
    507: RouteDown,
}
"""What a status means when its code is not known, or when there is none: a HEAD's answer has no body."""


def error_code(body: bytes) -> str:
    """Return the Code of an S3 error document, "" when there is none."""
    found = _CODE.search(body)
    return found[1].decode(errors="replace") if found else ""


def translate(status: int, body: bytes, *, doing: str, retry_after: str | None = None) -> TryAgain | Refused:
    """Return the error of ours for an answer that is no success.

    `doing` names the request for people. What the table does not know is `StoreAway`: try again.
    """
    code = error_code(body)
    if code.isdigit():  # botocore's stand-in for the code of an answer without a body
        code = ""
    message = _MESSAGE.search(body)
    text = f"{doing}: {code or status}" + (f": {message[1].decode(errors='replace')}" if message else "")
    kind = CODES.get(code) or STATUSES.get(status, StoreAway)
    if status == 503 and not code:  # how S3 says "slow down" where there is no room to say it
        kind = Throttled
    if issubclass(kind, TryAgain):
        return kind(text, retry_after=_seconds(retry_after))
    return kind(text)


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdecimal() else 0.0
