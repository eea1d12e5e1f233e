"""What an S3 store says when it fails, what that means, and the verdict that follows."""

import random
from datetime import UTC, datetime
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import (
    Corrupt,
    HookmirrorError,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    TryAgain,
    UploadGone,
)
from common.queue.port import Bury, Retry
from common.store.failures import (
    AGAIN,
    BROKEN,
    BUCKET,
    CLOCK,
    CODES,
    CREDENTIALS,
    MOVED,
    OBJECT,
    PLACEMENT,
    THROTTLE,
    UPLOAD,
    clock_ahead,
    error_code,
    translate,
)
from console.dead.letter import reason_of
from console.dead.where import where
from worker.verdict import judge


def document(code: str, message: str = "Because.") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        "<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    ).encode()


CLASSES: list[tuple[frozenset[str], type[HookmirrorError]]] = [
    (AGAIN, StoreAway),
    (BROKEN, Corrupt),
    (UPLOAD, UploadGone),
    (MOVED, SourceMoved),
    (OBJECT, Refused),
    (CREDENTIALS, RouteDown),
    (CLOCK, RouteDown),
    (BUCKET, RouteDown),
    (PLACEMENT, RouteDown),
    (THROTTLE, Throttled),
]

TABLE = [(code, error) for codes, error in CLASSES for code in sorted(codes)]


@pytest.mark.parametrize("status", [200, 400, 403, 404, 409, 412, 429, 500, 501, 503, 507])
@pytest.mark.parametrize(("code", "error"), TABLE)
def test_every_code_of_the_table_has_its_meaning_whatever_status_it_comes_with(
    code: str, error: type[HookmirrorError], status: int
) -> None:
    assert type(translate(status, document(code), doing="GET b")) is error


@pytest.mark.parametrize("attempt", [1, 12, 5000])
@pytest.mark.parametrize(("code", "error"), [*TABLE, ("SomethingNew", StoreAway), ("", StoreAway)])
def test_every_code_has_the_verdict_of_its_class(
    code: str, error: type[HookmirrorError], attempt: int
) -> None:
    failure = translate(400, document(code), doing="GET b", retry_after=90)
    verdict = judge(failure, attempt, attempts=12, rng=random.Random(1))
    if error is Refused or attempt >= 12:
        assert isinstance(verdict, Bury)
    else:
        assert isinstance(verdict, Retry)
        assert verdict.counts
        assert verdict.after >= 90
    assert code in verdict.why


def test_no_code_means_two_things_and_the_test_feeds_them_all() -> None:
    for (one, _), (other, _) in combinations(CLASSES, 2):
        assert not one & other
    assert {code for code, _ in TABLE} == set(CODES)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("InvalidObjectState", Refused),
        ("KeyTooLongError", Refused),
        ("EntityTooLarge", Refused),
        ("MetadataTooLarge", Refused),
        ("AccessDenied", RouteDown),
        ("InvalidAccessKeyId", RouteDown),
        ("SignatureDoesNotMatch", RouteDown),
        ("NoSuchBucket", RouteDown),
        ("RequestTimeTooSkewed", RouteDown),
        ("ExpiredToken", RouteDown),
        ("QuotaExceeded", RouteDown),
        ("InvalidStorageClass", RouteDown),
        ("SlowDown", Throttled),
        ("ServiceUnavailable", Throttled),
        ("KMS.ThrottlingException", Throttled),
        ("BadDigest", Corrupt),
        ("IncompleteBody", Corrupt),
        ("XAmzContentSHA256Mismatch", Corrupt),
        ("NoSuchUpload", UploadGone),
        ("PreconditionFailed", SourceMoved),
        ("InvalidRequest", Refused),
        ("RequestTimeout", StoreAway),
        ("InternalError", StoreAway),
        ("OperationAborted", StoreAway),
        ("InvalidPart", StoreAway),
    ],
)
def test_the_codes_that_matter_most_are_in_the_table(code: str, error: type[HookmirrorError]) -> None:
    """Written out, so that a line lost from the table is noticed."""
    assert type(translate(400, document(code), doing="GET b")) is error


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, StoreAway),  # an error inside a success, without a code
        (301, RouteDown),
        (307, RouteDown),
        (400, StoreAway),
        (401, RouteDown),
        (403, RouteDown),
        (404, StoreAway),  # no body says whether it is the key that is missing
        (405, StoreAway),
        (409, StoreAway),
        (412, SourceMoved),
        (418, StoreAway),
        (429, Throttled),
        (500, StoreAway),
        (502, StoreAway),
        (503, Throttled),
        (504, StoreAway),
        (507, RouteDown),
        (599, StoreAway),
    ],
)
def test_a_status_without_a_code_has_a_meaning_too(status: int, error: type[HookmirrorError]) -> None:
    assert type(translate(status, b"", doing="HEAD b")) is error
    assert type(translate(status, document(f"{status}"), doing="HEAD b")) is error  # as botocore tells it


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not XML",
        b"<html><h1>502 Bad Gateway</h1></html>",
        b"<Error><Code></Code></Error>",
        b"<Error><Code>AccessDen",
        b"\x00\xff\xfe" * 100,
        b'{"code": "AccessDenied"}',
        b"<Error><Code>" + b"x" * 5000 + b"</Code></Error>",
    ],
)
def test_a_body_that_is_no_error_document_has_no_code(body: bytes) -> None:
    assert error_code(body) == ""
    assert type(translate(500, body, doing="GET b")) is StoreAway


@pytest.mark.parametrize(
    "code", ["SomethingNew", "NoSuchKey", "InternalError", "accessdenied", "AccessDenied2"]
)
def test_a_code_nobody_knows_means_try_again(code: str) -> None:
    error = translate(400, document(code), doing="GET b")
    assert type(error) is StoreAway
    assert error.counts


@given(st.integers(100, 599), st.binary(max_size=200) | st.text().map(document))
def test_any_answer_is_an_error_of_ours(status: int, body: bytes) -> None:
    error = translate(status, body, doing="GET b")
    assert isinstance(error, TryAgain | Refused)
    assert str(error).startswith("GET b: ")


def test_the_sentence_names_the_request_the_code_and_what_the_store_said() -> None:
    error = translate(403, document("AccessDenied", "Not yours."), doing="PUT backup")
    assert str(error) == "PUT backup: AccessDenied: Not yours."
    assert str(translate(502, b"<html>", doing="PUT backup")) == "PUT backup: 502"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", "AccessDenied"),
        (403, "", "AccessDenied"),
        (403, "SomethingNew", "AccessDenied"),
        (404, "NoSuchBucket", "NoSuchBucket"),
        (400, "InvalidArgument", "InvalidArgument"),
        (405, "MethodNotAllowed", "MethodNotAllowed"),
        (500, "InternalError", "StoreAway"),
        (502, "", "StoreAway"),
        (400, "SomethingNew", "StoreAway"),
        (503, "SlowDown", "Throttled"),
        (400, "EntityTooLarge", "Refused"),
    ],
)
def test_a_failure_is_called_what_the_store_calls_it(status: int, code: str, reason: str) -> None:
    verdict = judge(translate(status, document(code), doing="PUT b"), 12, attempts=12, rng=random.Random(1))
    assert isinstance(verdict, Bury)
    assert verdict.why.startswith(f"{reason}: PUT b")
    assert reason_of(verdict.why) == reason
    assert where([("reason", reason.lower())], 0.0).reasons == {reason}


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Fri, 27 Nov 2026 02:20:00 GMT", 1200.0),
        ("Fri, 27 Nov 2026 02:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
    ],
)
def test_the_date_of_an_answer_tells_by_how_much_our_clock_is_off(date: str, ahead: float | None) -> None:
    assert clock_ahead(date, datetime(2026, 11, 27, 2, tzinfo=UTC).timestamp()) == ahead


def test_a_code_that_is_no_utf8_is_shown_all_the_same() -> None:
    assert "\ufffd" in str(translate(400, b"<Code>\xff</Code>", doing="GET b"))


@pytest.mark.parametrize("asked", [0, 7, 120])
@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, ""), (503, "ServiceUnavailable")])
def test_the_wait_the_store_asked_for_is_heeded(asked: float, status: int, code: str) -> None:
    error = translate(status, document(code), doing="GET b", retry_after=asked)
    assert isinstance(error, TryAgain)
    assert error.retry_after == asked
