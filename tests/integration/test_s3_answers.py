"""What the S3 store takes for an answer, and what it makes of others."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from botocore.credentials import ReadOnlyCredentials

from common import telemetry
from common.errors import (
    Corrupt,
    HookmirrorError,
    NotForThis,
    NotSupported,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    TryAgain,
    UploadGone,
)
from common.store import http, s3, wire
from common.store.pace import Pace
from common.store.s3 import S3Bucket, S3Store
from common.telemetry import Action, log, without_secrets
from tests.integration.test_s3_faults import (
    BODY,
    ETAG,
    LISTING,
    RESET,
    SAYS,
    SILENCE,
    Answer,
    Request,
    Server,
    error,
    failure,
    found,
    settings_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = Answer(200, b"<html><body>We are back soon.</body></html>", (("Content-Type", "text/html"),))
"""What a proxy says of everything while the store behind it is away."""


@dataclass
class Choosy(Server):
    """Answers by what it is asked, "METHOD" or "METHOD range" or "METHOD ?query"; else as told, in turn."""

    choices: dict[str, Answer] = field(default_factory=dict)

    async def _request(self, reader: asyncio.StreamReader) -> Request | None:  # type: ignore[override]
        request = await Server._request(reader)
        if request is not None:
            query = request.path.partition("?")[2].partition("=")[0]
            about = f" ?{query}" if query else " range" if "range" in request.headers else ""
            for named in (request.method + about, request.method):
                if named in self.choices:
                    self.answers = [self.choices[named]]
                    break
        return request


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listening() -> AsyncIterator[Choosy]:
    server = Choosy()
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
def server(listening: Choosy) -> Choosy:
    listening.answers, listening.requests, listening.choices = [], [], {}
    return listening


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(listening: Choosy) -> AsyncIterator[S3Store]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        store = await S3Store.open("mcs", settings_of(listening))
        yield store
        await store.close()


@pytest.fixture
def bucket(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    monkeypatch.setattr(wire, "PAUSES", (0, 0))
    monkeypatch.setattr(store, "_pace", Pace(name="test"))
    return answered(store)


def answered(store: S3Store) -> S3Bucket:
    """A bucket that has answered as one when it was asked before."""
    bucket = store.bucket("b")
    bucket._answers = True
    return bucket


async def read(bucket: S3Bucket) -> bytes | None:
    async with bucket.read("k") as reading:
        return await reading.body() if reading else None


async def read_range(bucket: S3Bucket) -> bytes:
    async with bucket.read_range("k", 2, 6, etag=ETAG) as reading:
        return await reading.body()


Verb = Callable[[S3Bucket], Awaitable[object]]

ASKS: dict[str, Verb] = {
    "head": lambda b: b.head("k"),
    "read": read,
    "read_range": read_range,
    "parts": lambda b: b.parts("k", "u"),
    "check": lambda b: b.check(),
    "list": lambda b: _all(b.list()),
    "uploads": lambda b: _all(b.uploads()),
    "notifications": lambda b: b.notifications(),
}
CHANGES: dict[str, Verb] = {
    "write": lambda b: b.write("k", BODY, headers={}, metadata={}),
    "restate": lambda b: b.restate("k", etag=ETAG, headers={}, metadata={}),
    "delete": lambda b: b.delete("k"),
    "create_upload": lambda b: b.create_upload("k", headers={}, metadata={}),
    "complete_upload": lambda b: b.complete_upload("k", "u", ["e"]),
}
PARTS: dict[str, Verb] = {
    "upload_part": lambda b: b.upload_part("k", "u", 1, BODY),
    "abort_upload": lambda b: b.abort_upload("k", "u"),
}


async def _all(listing: AsyncIterator[object]) -> list[object]:
    return [entry async for entry in listing]


def each(verbs: dict[str, Verb]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("verb", verbs.values(), ids=verbs)


@each(ASKS | CHANGES | PARTS)
async def test_a_page_that_says_200_to_everything_is_no_answer_to_anything(
    server: Choosy, bucket: S3Bucket, verb: Verb
) -> None:
    server.answers = [PAGE]
    assert isinstance(await failure(verb(bucket)), StoreAway | RouteDown)


async def test_a_page_that_says_200_has_no_tags(server: Choosy, bucket: S3Bucket) -> None:
    server.choices = {"HEAD": found(("x-amz-tagging-count", "1")), "GET ?tagging": PAGE}
    assert type(await failure(bucket.head("k"))) is StoreAway


NO_OBJECT = {
    "no ETag": (("Last-Modified", "Mon"),),
    "an empty ETag": (("Last-Modified", "Mon"), ("ETag", '""')),
    "no Last-Modified": (("ETag", f'"{ETAG}"'),),
    "a weak ETag": (("ETag", f'W/"{ETAG}"'), ("Last-Modified", "Mon")),
}


@each({name: ASKS[name] for name in ("head", "read", "read_range")})
@pytest.mark.parametrize("headers", NO_OBJECT.values(), ids=NO_OBJECT)
async def test_a_success_that_does_not_describe_an_object_is_none_and_counts(
    server: Choosy, bucket: S3Bucket, verb: Verb, headers: tuple[tuple[str, str], ...]
) -> None:
    ranged = Answer(206, BODY[2:6], (*headers, ("Content-Range", "bytes 2-5/10")))
    server.choices = {"GET": Answer(200, BODY, headers), "HEAD": Answer(200, BODY, headers)}
    server.choices["GET range"] = ranged
    raised = await failure(verb(bucket))
    assert type(raised) is StoreAway
    assert raised.counts
    assert "proxy" in str(raised)


async def test_nobody_is_asked_to_compress(server: Choosy, bucket: S3Bucket) -> None:
    server.answers = [found()]
    await bucket.head("k")
    await read(bucket)
    await bucket.write("k", BODY, headers={}, metadata={})
    assert {request.headers["Accept-Encoding"] for request in server.requests} == {"identity"}


WITHOUT_LENGTH = Answer(200, BODY, SAYS, length=-1)


@pytest.mark.parametrize(
    "ranged",
    [
        Answer(206, b"0", (*SAYS, ("Content-Range", "bytes 0-0/10"))),
        WITHOUT_LENGTH,  # takes no ranges: the whole is read, and its MD5 proves it
    ],
    ids=["by a range", "by the whole"],
)
async def test_a_length_that_an_answer_does_not_tell_is_found_otherwise(
    server: Choosy, bucket: S3Bucket, ranged: Answer
) -> None:
    server.choices = {"HEAD": WITHOUT_LENGTH, "GET": WITHOUT_LENGTH, "GET range": ranged}
    state = await bucket.head("k")
    assert state is not None
    assert state.size == len(BODY)
    async with bucket.read("k") as reading:
        assert reading is not None
        assert reading.state == state
        assert await reading.body() == BODY


async def test_an_empty_object_without_a_length_is_empty(server: Choosy, bucket: S3Bucket) -> None:
    ranged = Answer(416, b"", (("Content-Range", "bytes */0"),))
    server.choices = {"HEAD": Answer(200, b"", SAYS, length=-1), "GET range": ranged}
    state = await bucket.head("k")
    assert state is not None
    assert state.size == 0


@each({name: ASKS[name] for name in ("head", "read")})
async def test_a_length_that_nothing_proves_is_none(server: Choosy, bucket: S3Bucket, verb: Verb) -> None:
    server.answers = [Answer(200, BODY[:5], SAYS, length=-1)]
    assert type(await failure(verb(bucket))) is StoreAway


async def test_an_object_too_large_to_be_read_for_its_length_is_given_up(
    server: Choosy, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MAX_UNSIZED", 2**16)
    large = bytes(2**22)
    etag = hashlib.md5(large, usedforsecurity=False).hexdigest()
    server.answers = [Answer(200, large, (("ETag", etag), ("Last-Modified", "Mon")), length=-1)]
    assert type(await failure(bucket.head("k"))) is StoreAway


async def test_a_chunked_body_that_is_longer_than_the_object_is_corrupt(
    server: Choosy, bucket: S3Bucket
) -> None:
    ranged = Answer(206, b"0", (*SAYS, ("Content-Range", "bytes 0-0/10")))
    server.choices = {"GET": Answer(200, BODY + b"x", SAYS, length=-1), "GET range": ranged}
    assert type(await failure(read(bucket))) is Corrupt


@pytest.mark.parametrize("told", ["bytes 0-3/10", "bytes 2-6/10", "", "bytes */10"])
async def test_another_range_than_asked_for_is_not_taken(server: Choosy, bucket: S3Bucket, told: str) -> None:
    server.answers = [Answer(206, BODY[2:6], (*SAYS, ("Content-Range", told)))]
    assert type(await failure(read_range(bucket))) is StoreAway


async def test_a_range_of_another_state_is_not_taken(server: Choosy, bucket: S3Bucket) -> None:
    headers = (("ETag", '"another"'), ("Last-Modified", "Mon"), ("Content-Range", "bytes 2-5/10"))
    server.answers = [Answer(206, BODY[2:6], headers)]
    assert type(await failure(read_range(bucket))) is StoreAway


async def test_metadata_of_nine_kilobytes_is_read(server: Choosy, bucket: S3Bucket) -> None:
    server.answers = [found(*((f"x-amz-meta-{n}", "v" * 1000) for n in range(9)))]
    state = await bucket.head("k")
    assert state is not None
    assert len(state.metadata) == 9


async def test_headers_without_an_end_are_an_error_that_counts(server: Choosy, bucket: S3Bucket) -> None:
    server.answers = [found(*((f"x-amz-meta-{n}", "v" * 1000) for n in range(90)))]
    raised = await failure(bucket.head("k"))
    assert type(raised) is StoreAway
    assert "65536 bytes" in str(raised)


# What became of a write.

OVER = [error(500, "InternalError"), error(502), error(503, "SlowDown"), error(504), RESET, SILENCE, PAGE]
BROKEN = Answer(200, b"<Some>.......", SAYS, cut=5)


@each(CHANGES)
@pytest.mark.parametrize("answer", [*OVER, BROKEN, error(304), error(200, "InternalError")], ids=str)
async def test_a_write_whose_end_is_not_known_says_so_and_was_sent_once(
    server: Choosy, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, verb: Verb, answer: Answer
) -> None:
    for module, name in ((http, "SILENCE"), (wire, "SILENCE"), (wire, "WORKS_WITHIN")):
        monkeypatch.setattr(module, name, 0.1)
    bucket._client._kept.clear()  # their clocks are set for longer
    server.answers = [answer]
    raised = await failure(verb(bucket))
    assert isinstance(raised, TryAgain)
    assert raised.unsure
    assert len(server.requests) == 1


@each(CHANGES)
@pytest.mark.parametrize(
    "answer",
    [
        error(400),
        error(400, "BadDigest"),
        error(403, "AccessDenied"),
        error(404, "NoSuchBucket"),
        error(409, "OperationAborted"),
        error(429),
        error(301, "PermanentRedirect"),
    ],
    ids=str,
)
async def test_a_write_that_was_refused_is_over(
    server: Choosy, bucket: S3Bucket, verb: Verb, answer: Answer
) -> None:
    server.answers = [answer]
    raised = await failure(verb(bucket))
    assert isinstance(raised, TryAgain)
    assert not raised.unsure
    assert len(server.requests) == 1


@each(CHANGES)
async def test_a_write_that_was_not_sent_is_tried_again_and_is_over(
    bucket: S3Bucket, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket._way = http.Way.to("http://127.0.0.1:1", None)
    tries = 0
    request = bucket._client.request

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal tries
        tries += 1
        return await request(*args, **more)

    monkeypatch.setattr(bucket._client, "request", counted)
    raised = await failure(verb(bucket))
    assert type(raised) is RouteDown
    assert not raised.unsure
    assert tries == 3


@each(ASKS | PARTS)
async def test_a_question_leaves_nothing_open(server: Choosy, bucket: S3Bucket, verb: Verb) -> None:
    server.answers = [error(500, "InternalError")]
    raised = await failure(verb(bucket))
    assert isinstance(raised, TryAgain)
    assert not raised.unsure


# Who is to blame, and in which words.


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (error(400, "KeyTooLongError"), Refused, "key is longer"),
        (error(403, "InvalidObjectState"), Refused, "cold storage"),
        (error(403, "AccessDenied"), RouteDown, "AccessDenied"),
        (error(400, "MalformedDate"), Refused, "a date among its headers"),
        (error(400, "InvalidTag"), Refused, "tags"),
        (error(400, "InvalidArgument"), StoreAway, "InvalidArgument"),
        (error(451), Refused, "legal reasons"),
        (error(431), Refused, "headers and metadata"),
        (
            Answer(400, b"<html><center>Request Header Or Cookie Too Large</center></html>"),
            Refused,
            "headers and metadata",
        ),
        (error(407), RouteDown, "407"),
        (error(405), StoreAway, "405"),
    ],
    ids=str,
)
@each({name: ASKS[name] for name in ("head", "read", "read_range")})
async def test_a_failure_is_named_by_its_code_though_a_head_has_none(
    server: Choosy,
    bucket: S3Bucket,
    verb: Verb,
    answer: Answer,
    expected: type[HookmirrorError],
    words: str,
) -> None:
    server.answers = [answer]
    raised = await failure(verb(bucket))
    assert type(raised) is expected
    assert words in str(raised)


SSE_C = (
    "The object was stored using a form of Server Side Encryption. The correct parameters must be provided "
    "to retrieve the object."
)


@pytest.mark.parametrize("code", ["InvalidArgument", "InvalidRequest"])
@each({name: ASKS[name] for name in ("head", "read", "read_range")})
async def test_an_object_that_only_its_owner_can_read_is_refused_in_words(
    server: Choosy, bucket: S3Bucket, verb: Verb, code: str
) -> None:
    """Amazon says InvalidRequest, Ceph InvalidArgument."""
    body = f"<Error><Code>{code}</Code><Message>{SSE_C}</Message></Error>".encode()
    server.answers = [Answer(400, body)]
    raised = await failure(verb(bucket))
    assert type(raised) is Refused
    assert "SSE-C" in str(raised)


async def test_an_argument_of_a_write_says_nothing_of_the_object(server: Choosy, bucket: S3Bucket) -> None:
    body = f"<Error><Code>InvalidArgument</Code><Message>{SSE_C}</Message></Error>".encode()
    server.answers = [Answer(400, body)]
    assert type(await failure(CHANGES["write"](bucket))) is StoreAway


ELSEWHERE = {
    "301": error(301, "PermanentRedirect", ("x-amz-bucket-region", "eu-west-1")),
    "a bare 301": error(301, "", ("x-amz-bucket-region", "eu-west-1")),
    "307": error(307, "TemporaryRedirect", ("x-amz-bucket-region", "eu-west-1")),
    "a bare 400": error(400, "", ("x-amz-bucket-region", "eu-west-1")),
    "400": Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"),
}


@each(ASKS | CHANGES | PARTS)
@pytest.mark.parametrize("answer", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_a_wrong_region_stops_the_route_and_both_regions_are_named(
    server: Choosy, bucket: S3Bucket, verb: Verb, answer: Answer
) -> None:
    server.answers = [answer]
    raised = await failure(verb(bucket))
    assert type(raised) is RouteDown
    assert "eu-west-1" in str(raised)
    assert "stores.mcs.region says us-east-1" in str(raised)


async def test_a_read_that_moved_costs_no_attempt_and_a_412_for_ever_does(
    server: Choosy, bucket: S3Bucket
) -> None:
    gone = error(412, "PreconditionFailed")
    server.choices = {"GET": gone, "HEAD": Answer(200, BODY, (("ETag", '"new"'), ("Last-Modified", "Mon")))}
    moved = await failure(read_range(bucket))
    assert type(moved) is SourceMoved
    assert not moved.counts
    server.choices = {"GET": gone, "HEAD": found()}
    same = await failure(read_range(bucket))
    assert type(same) is SourceMoved
    assert same.counts
    server.choices = {"GET range": gone, "GET": error(404, "NoSuchKey"), "HEAD": error(404)}
    deleted = await failure(read_range(bucket))
    assert type(deleted) is SourceMoved
    assert not deleted.counts


async def test_a_412_to_what_was_not_pinned_counts(server: Choosy, bucket: S3Bucket) -> None:
    server.answers = [error(412)]
    for verb in (ASKS["read"], CHANGES["write"]):
        raised = await failure(verb(bucket))
        assert isinstance(raised, TryAgain)
        assert raised.counts


# A copy of an object onto itself.


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(501, "NotImplemented"), NotSupported),
        (error(501), NotSupported),
        (error(405, "MethodNotAllowed"), NotSupported),
        (error(400), NotForThis),
        (error(400, "InvalidRequest"), NotForThis),
        (error(400, "InvalidArgument"), NotForThis),
        (error(404, "NoSuchKey"), SourceMoved),
        (error(404, "NoSuchBucket"), RouteDown),
        (error(403, "AccessDenied"), RouteDown),
        (error(400, "MetadataTooLarge"), Refused),
        (error(200, "InternalError"), StoreAway),
        (error(503, "SlowDown"), Throttled),
        (found(), StoreAway),
    ],
    ids=str,
)
async def test_a_copy_onto_itself_that_fails_says_whether_there_is_another_way(
    server: Choosy, bucket: S3Bucket, answer: Answer, expected: type[HookmirrorError]
) -> None:
    server.answers = [answer]
    assert type(await failure(CHANGES["restate"](bucket))) is expected


@pytest.mark.parametrize(("etag", "expected"), [("new", SourceMoved), (ETAG, NotForThis)])
async def test_a_copy_onto_itself_of_another_state_has_moved_if_a_head_shows_it(
    server: Choosy, bucket: S3Bucket, etag: str, expected: type[HookmirrorError]
) -> None:
    now = Answer(200, BODY, (("ETag", f'"{etag}"'), ("Last-Modified", "Mon")))
    server.choices = {"PUT": error(412, "PreconditionFailed"), "HEAD": now}
    assert type(await failure(CHANGES["restate"](bucket))) is expected


@pytest.mark.parametrize(
    ("etag", "made", "moved"),
    [
        (ETAG, ETAG, False),
        (ETAG, "f" * 32, True),  # Ceph and moto do not compare: it is found out afterwards
        ("a-2", "f" * 32, False),  # what was made of parts is of one now
        (ETAG, "", True),
    ],
)
async def test_a_copy_onto_itself_that_was_made_of_another_state_has_moved(
    server: Choosy, bucket: S3Bucket, etag: str, made: str, moved: bool
) -> None:
    body = f"<CopyObjectResult><ETag>&quot;{made}&quot;</ETag></CopyObjectResult>".encode()
    server.answers = [Answer(200, body)]
    call = bucket.restate("k", etag=etag, headers={}, metadata={})
    if moved:
        assert type(await failure(call)) is SourceMoved
    else:
        await call


@each({name: (ASKS | CHANGES | PARTS)[name] for name in ("parts", "upload_part", "complete_upload")})
@pytest.mark.parametrize("code", ["NoSuchUpload", "NoSuchKey"])
async def test_an_upload_that_is_gone_is_begun_anew(
    server: Choosy, bucket: S3Bucket, verb: Verb, code: str
) -> None:
    """Ceph says NoSuchKey."""
    server.answers = [error(404, code)]
    assert type(await failure(verb(bucket))) is UploadGone


# No error shows a request.


@each(ASKS | CHANGES | PARTS)
@pytest.mark.parametrize(
    "answer", [RESET, SILENCE, Answer(200, b"", (("X", "\x00"),)), PAGE, error(400), BROKEN], ids=str
)
async def test_no_error_shows_a_request(
    server: Choosy,
    bucket: S3Bucket,
    monkeypatch: pytest.MonkeyPatch,
    verb: Verb,
    answer: Answer,
) -> None:
    for module, name in ((http, "SILENCE"), (wire, "SILENCE"), (wire, "WORKS_WITHIN")):
        monkeypatch.setattr(module, name, 0.1)
    bucket._client._kept.clear()
    if answer is SILENCE and verb in (ASKS["list"], ASKS["uploads"]):
        return  # botocore's patience is long, and its time-outs are made of the same words as its resets
    server.answers = [answer]
    raised: BaseException | None = await failure(verb(bucket))
    while raised is not None:
        for text in (str(raised), repr(raised)):
            assert "AWS4-HMAC" not in text
            assert "Signature" not in text
            assert "secret" not in text
        raised = raised.__cause__


async def test_what_the_credential_chain_delivers_is_hidden_when_it_comes(
    listening: Choosy, server: Choosy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = io.StringIO()
    telemetry.configure(fmt="json", stream=lines)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACHAIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "chain/secret+value")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "chain-token==")
    settings = settings_of(server).model_copy(update={"access_key_id": None, "secret_access_key": None})
    store = await S3Store.open("aws", settings)
    try:
        server.answers = [found()]
        await answered(store).head("k")
        assert server.requests[-1].headers["x-amz-security-token"] == "chain-token=="
        log(Action.FAILED, "chain/secret+value, chain-token== and chain%2Fsecret%2Bvalue")
        assert "chain" not in lines.getvalue()
        assert without_secrets("why: chain-token==") == "why: ***"
        monkeypatch.setattr(store._account, "_credentials", _Renewed())
        await answered(store).head("k")
        assert server.requests[-1].headers["x-amz-security-token"] == "renewed-token"
        assert without_secrets("renewed-secret, renewed-token, chain-token==") == "***, ***, ***"
    finally:
        await store.close()
        telemetry.configure()


class _Renewed:
    """Credentials that were renewed meanwhile."""

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("ASIA", "renewed-secret", "renewed-token")


async def test_a_listing_is_one(server: Choosy, bucket: S3Bucket) -> None:
    server.answers = [Answer(200, LISTING)]
    await bucket.check()
    assert len(await _all(bucket.list())) == 1
