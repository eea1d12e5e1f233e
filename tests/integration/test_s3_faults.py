"""The S3 store against a server that misbehaves, answer by answer."""

import asyncio
import base64
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_asyncio
from multidict import CIMultiDict
from pydantic import SecretStr

from common.errors import (
    Corrupt,
    HookmirrorError,
    Refused,
    RouteDown,
    SourceMoved,
    StoreAway,
    Throttled,
    TryAgain,
)
from common.store import http, pace, wire
from common.store.http import Way
from common.store.pace import Pace
from common.store.port import State
from common.store.s3 import S3Bucket, S3Store
from common.tables import StoreSettings
from worker.transfer import fetch

BODY = b"0123456789"
ETAG = hashlib.md5(BODY, usedforsecurity=False).hexdigest()

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Answer:
    """One answer, as its bytes go out. `cut` bytes at its end are never sent, and the connection closes."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    """What Content-Length says: the length of the body unless told, and -1 for none."""
    cut: int = 0

    def bytes(self, method: str) -> bytes:
        length = len(self.body) if self.length is None else self.length
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in self.headers)]
        lines += [f"Content-Length: {length}"] if length >= 0 else ["Connection: close"]
        whole = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if method == "HEAD" else self.body)
        return whole[: len(whole) - self.cut]

    @property
    def closes(self) -> bool:
        return bool(self.cut) or self.length is not None


RESET = Answer(cut=10**6)
"""No answer at all: the connection closes."""

SILENCE = Answer(status=-1)
"""No answer at all, and the connection stays."""


def error(status: int, code: str = "", *headers: tuple[str, str]) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>So.</Message></Error>" if code else ""
    return Answer(status, body.encode(), headers)


SAYS = (("ETag", f'"{ETAG}"'), ("Last-Modified", "Mon"))
"""What every answer about an object says."""


def found(*headers: tuple[str, str], body: bytes = BODY) -> Answer:
    return Answer(200, body, (*SAYS, *headers))


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes


@dataclass
class Server:
    """Answers what it was told, in turn; the last answer serves for all that follow."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await self._request(reader):
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is SILENCE:
                    await reader.read()
                    return
                writer.write(answer.bytes(request.method))
                await writer.drain()
                if answer.closes:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    @staticmethod
    async def _request(reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, path, _ = head[0].split(" ")
        headers: CIMultiDict[str] = CIMultiDict()
        for line in filter(None, head[1:]):
            name, _, value = line.partition(": ")
            headers.add(name, value)
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
        return Request(method, path, headers, body)

    @property
    def asked(self) -> str:
        """The verbs that came, in turn."""
        return " ".join(request.method for request in self.requests)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listening() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
def server(listening: Server) -> Server:
    """The server, with nothing said yet."""
    listening.answers, listening.requests = [], []
    return listening


def settings_of(server: Server) -> StoreSettings:
    return StoreSettings(
        endpoint=f"http://127.0.0.1:{server.port}",
        access_key_id="id",
        secret_access_key=SecretStr("secret-secret"),
        addressing="path",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(listening: Server) -> AsyncIterator[S3Store]:
    """One for all tests: the SDK takes its time to load."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        store = await S3Store.open("test", settings_of(listening))
        yield store
        await store.close()


@pytest.fixture
def bucket(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    monkeypatch.setattr(wire, "PAUSES", (0, 0))
    monkeypatch.setattr(store, "_pace", Pace(name="test"))  # what one test was refused slows no other
    bucket = store.bucket("b")
    bucket._answers = True  # as a bucket, when it was asked before
    return bucket


async def read(bucket: S3Bucket, key: str = "k") -> bytes | None:
    async with bucket.read(key) as reading:
        return await reading.body() if reading else None


async def write(bucket: S3Bucket) -> None:
    await bucket.write("k", BODY, headers={}, metadata={})


async def head(bucket: S3Bucket) -> State | None:
    return await bucket.head("k")


async def delete(bucket: S3Bucket) -> None:
    await bucket.delete("k")


Verb = Callable[[S3Bucket], Awaitable[object]]
ASKS: list[Verb] = [head, read]
VERBS: list[Verb] = [*ASKS, write, delete]
every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


async def failure(call: Awaitable[object]) -> HookmirrorError:
    with pytest.raises(HookmirrorError) as caught:
        await call
    return caught.value


async def test_an_object_is_read_with_all_that_belongs_to_it(server: Server, bucket: S3Bucket) -> None:
    server.answers = [
        found(
            ("Content-Type", "image/png"),
            ("content-encoding", "gzip"),
            ("X-Amz-Meta-Owner", "me"),
            ("x-amz-version-id", "v7"),
            ("Server", "x"),
        )
    ]
    async with bucket.read("k") as reading:
        assert reading is not None
        assert reading.state == State(
            ETAG,
            len(BODY),
            "Mon",
            "v7",
            {"content-type": "image/png", "content-encoding": "gzip"},
            {"owner": "me"},
            keeps_versions=True,
        )
        assert await fetch(reading) == BODY  # as stored: nothing is unpacked on the way
    assert await bucket.head("k") == reading.state


async def test_an_unversioned_bucket_has_no_version(server: Server, bucket: S3Bucket) -> None:
    server.answers = [found(("x-amz-version-id", "null"))]
    state = await bucket.head("k")
    assert state is not None
    assert state.version == ""


@pytest.mark.parametrize("cut", [1, 5, len(BODY)])
async def test_a_body_that_breaks_off_is_corrupt(server: Server, bucket: S3Bucket, cut: int) -> None:
    answer = found()
    server.answers = [Answer(answer.status, answer.body, answer.headers, cut=cut)]
    assert type(await failure(read(bucket))) is Corrupt


async def test_a_body_shorter_than_its_length_is_corrupt(server: Server, bucket: S3Bucket) -> None:
    server.answers = [Answer(200, BODY, SAYS, length=len(BODY) + 1)]
    assert type(await failure(read(bucket))) is Corrupt


async def test_bytes_that_changed_on_the_way_are_corrupt(server: Server, bucket: S3Bucket) -> None:
    server.answers = [found(body=b"X" + BODY[1:])]
    async with bucket.read("k") as reading:
        assert reading is not None
        with pytest.raises(Corrupt, match=ETAG):
            await fetch(reading)


@pytest.mark.parametrize(
    "header",
    [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption", "aws:kms:dsse"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ],
)
async def test_the_etag_of_an_encrypted_object_is_no_md5_and_proves_nothing(
    server: Server, bucket: S3Bucket, header: tuple[str, str]
) -> None:
    server.answers = [Answer(200, b"encrypted with a key of its own", (*SAYS, header))]
    async with bucket.read("k") as reading:
        assert reading is not None
        assert await fetch(reading) == b"encrypted with a key of its own"


async def test_the_etag_of_an_object_encrypted_by_the_store_itself_is_its_md5(
    server: Server, bucket: S3Bucket
) -> None:
    server.answers = [found(("x-amz-server-side-encryption", "AES256"), body=b"X" + BODY[1:])]
    async with bucket.read("k") as reading:
        assert reading is not None
        with pytest.raises(Corrupt):
            await fetch(reading)


async def test_only_a_definite_no_such_key_is_absence(server: Server, bucket: S3Bucket) -> None:
    server.answers = [error(404, "NoSuchKey")]
    assert await read(bucket) is None
    assert await head(bucket) is None
    await delete(bucket)


@pytest.mark.parametrize("key", ["", "<Key>k</Key>", "<Key>/k</Key>"])
@pytest.mark.parametrize("hand", ["x-amz-request-id", None])
async def test_an_absence_is_the_stores_own_word(
    server: Server, bucket: S3Bucket, hand: str | None, key: str
) -> None:
    """Whoever says it without the number that this store gives each answer is somebody else."""
    bucket._hand = hand
    said = f'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code>{key}</Error>'.encode()
    server.answers = [Answer(404, said, (("x-amz-request-id", "7"),))]
    assert await read(bucket) is None
    server.answers = [Answer(404, said)]
    if hand is None:
        assert await read(bucket) is None
    else:
        assert "not the store's own word" in str(await failure(read(bucket)))


async def test_an_absence_is_believed_only_of_what_answers_as_a_bucket(
    server: Server, bucket: S3Bucket
) -> None:
    server.answers = [error(404, "NoSuchKey")]
    bucket._answers = False  # nobody has asked it yet
    for ask in (read, head):
        refused = await failure(ask(bucket))
        assert type(refused) is RouteDown
        assert "the endpoint must not name the bucket" in str(refused)


NO_PROOF = [
    (error(404, "NoSuchBucket"), RouteDown),
    (error(404, "NoSuchVersion"), StoreAway),
    (error(404), StoreAway),
    (Answer(404, b"<html>nginx</html>"), StoreAway),
    (Answer(404, b"<html>docs: <Code>NoSuchKey</Code></html>"), StoreAway),
    (Answer(404, b"<Error><Code>NoSuchKey</Code><Key>another</Key></Error>"), StoreAway),
    (Answer(404, b"<Error><Code>NoSuchKey</Code></Error>", cut=5), StoreAway),
    (error(403, "AccessDenied"), RouteDown),
    (error(403), RouteDown),
    (error(401), RouteDown),
    (error(400, "ExpiredToken"), RouteDown),
    (error(403, "InvalidObjectState"), Refused),
    (error(410, "NoSuchKey"), StoreAway),
    (error(500, "InternalError"), StoreAway),
    (error(502), StoreAway),
    (error(503), Throttled),
    (error(503, "SlowDown"), Throttled),
    (error(429), Throttled),
    (error(412, "PreconditionFailed"), SourceMoved),
    (error(301, "PermanentRedirect"), RouteDown),
    (error(304), StoreAway),
    (error(204), StoreAway),
    (RESET, StoreAway),
]


@pytest.mark.parametrize(("answer", "expected"), NO_PROOF, ids=str)
async def test_no_other_answer_to_a_get_is_absence(
    server: Server, bucket: S3Bucket, answer: Answer, expected: type[HookmirrorError]
) -> None:
    server.answers = [answer]
    assert type(await failure(read(bucket))) is expected


@pytest.mark.parametrize(("answer", "expected"), NO_PROOF, ids=str)
async def test_a_head_that_finds_nothing_is_believed_only_after_a_get(
    server: Server, bucket: S3Bucket, answer: Answer, expected: type[HookmirrorError]
) -> None:
    server.answers = [error(404), answer]
    assert type(await failure(head(bucket))) is expected
    assert server.asked.startswith("HEAD GET")


async def test_an_object_that_appears_between_head_and_get_is_there(server: Server, bucket: S3Bucket) -> None:
    server.answers = [error(404), found()]
    state = await head(bucket)
    assert state is not None
    assert state.etag == ETAG


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 405, 412, 429, 500, 503])
async def test_a_head_that_is_refused_is_an_error(server: Server, bucket: S3Bucket, status: int) -> None:
    server.answers = [error(status)]
    await failure(head(bucket))


async def test_a_success_with_an_error_inside_is_none(server: Server, bucket: S3Bucket) -> None:
    server.answers = [error(200, "InternalError")]
    assert type(await failure(write(bucket))) is StoreAway
    server.answers = [error(200, "SlowDown")]
    assert type(await failure(write(bucket))) is Throttled


async def test_an_answer_to_a_write_that_breaks_off_is_no_success(server: Server, bucket: S3Bucket) -> None:
    server.answers = [Answer(200, b"<Error>......", cut=6)]
    assert type(await failure(write(bucket))) is StoreAway


@pytest.mark.parametrize("status", [201, 202, 204, 206, 304])
async def test_only_200_is_a_write(server: Server, bucket: S3Bucket, status: int) -> None:
    server.answers = [error(status)]
    assert type(await failure(write(bucket))) is StoreAway


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("EntityTooLarge", Refused),
        ("KeyTooLongError", Refused),
        ("MetadataTooLarge", Refused),
        ("BadDigest", Corrupt),
        ("NoSuchBucket", RouteDown),
        ("SignatureDoesNotMatch", RouteDown),
        ("RequestTimeTooSkewed", RouteDown),
        ("RequestTimeout", StoreAway),
    ],
)
async def test_a_write_that_is_refused_says_whose_fault_it_is(
    server: Server, bucket: S3Bucket, code: str, expected: type[HookmirrorError]
) -> None:
    server.answers = [error(400, code)]
    assert type(await failure(write(bucket))) is expected


@pytest.mark.parametrize("status", [200, 204])
async def test_a_delete_is_a_success_in_both_its_forms(server: Server, bucket: S3Bucket, status: int) -> None:
    server.answers = [error(status)]
    await delete(bucket)
    assert server.asked == "DELETE"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(404, "NoSuchBucket"), RouteDown),
        (error(404), StoreAway),
        (error(403, "AccessDenied"), RouteDown),
        (error(500), StoreAway),
        (RESET, StoreAway),
    ],
    ids=str,
)
async def test_a_delete_that_failed_is_none(
    server: Server, bucket: S3Bucket, answer: Answer, expected: type[HookmirrorError]
) -> None:
    server.answers = [answer]
    assert type(await failure(delete(bucket))) is expected


@pytest.mark.parametrize("verb", [read, write, delete], ids=lambda verb: verb.__name__)
async def test_a_throttled_request_waits_as_long_as_the_store_asked_and_is_not_repeated(
    server: Server, bucket: S3Bucket, verb: Verb
) -> None:
    server.answers = [error(503, "SlowDown", ("Retry-After", "17"))]
    throttled = await failure(verb(bucket))
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after == 17
    assert len(server.requests) == 1


async def test_a_store_may_ask_to_be_left_alone_until_a_date(server: Server, bucket: S3Bucket) -> None:
    asked = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.answers = [error(503, "SlowDown", ("Retry-After", asked))]
    throttled = await failure(read(bucket))
    assert isinstance(throttled, Throttled)
    assert 60 < throttled.retry_after <= 90


@pytest.mark.parametrize("status", [429, 503])
async def test_a_throttled_head_waits_as_long_as_the_store_asked(
    server: Server, bucket: S3Bucket, status: int
) -> None:
    """It has no body to say SlowDown with, only the header."""
    server.answers = [error(status, "", ("Retry-After", "17"))]
    throttled = await failure(head(bucket))
    assert isinstance(throttled, TryAgain)
    assert throttled.retry_after == 17


async def gather(*calls: Awaitable[object]) -> list[object]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_burst_of_slow_down_slows_the_whole_store_and_it_recovers(
    server: Server, bucket: S3Bucket, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "HOLD", 0.3)
    monkeypatch.setattr(pace, "RECOVERY", 1.0)
    server.answers = [*[error(503, "SlowDown")] * 40, found()]
    refused = await gather(
        *(failure(bucket.write(f"k{n}", BODY, headers={}, metadata={})) for n in range(40))
    )
    assert {type(answer) for answer in refused} == {Throttled}
    rate = store._pace.rate
    assert 5 <= rate <= 20  # not one cut for each: half of those that went out within a second, at least ten

    began = time.monotonic()
    another = store.bucket("another")
    another._answers = True
    await gather(write(bucket), read(another))
    assert time.monotonic() - began > 0.25  # nobody is let through before the rest is over
    assert len(server.requests) == 42

    await gather(*(write(bucket) for _ in range(10)))
    assert time.monotonic() - began > 0.25 + 0.15  # and then only so many a second, a few more each second
    while math.isfinite(store._pace.rate):
        assert store._pace.rate >= rate
        rate = store._pace.rate
        await write(bucket)


async def test_a_store_is_asked_no_more_often_than_configured(server: Server) -> None:
    server.answers = [found()]
    store = await S3Store.open("test", settings_of(server).model_copy(update={"max_requests_per_second": 50}))
    try:
        bucket, began = store.bucket("b"), time.monotonic()
        await gather(*(write(bucket) for _ in range(30)))
        assert time.monotonic() - began > 0.5
    finally:
        await store.close()


@every_verb
@pytest.mark.parametrize("fault", [RESET, error(500), error(502), error(504)], ids=str)
async def test_a_question_is_asked_again_for_seconds_and_what_changes_an_object_never(
    server: Server, bucket: S3Bucket, verb: Verb, fault: Answer
) -> None:
    server.answers = [fault, fault, found()]
    if verb in ASKS:
        await verb(bucket)
        assert len(server.requests) == 3
    else:
        error = await failure(verb(bucket))
        assert isinstance(error, StoreAway)
        assert error.unsure
        assert len(server.requests) == 1


@pytest.mark.parametrize("verb", ASKS, ids=lambda verb: verb.__name__)
@pytest.mark.parametrize(
    ("fault", "tries"),
    [(error(500, "InternalError"), 3), (RESET, 6)],  # what found a kept connection closed is sent again once
    ids=str,
)
async def test_a_question_is_asked_so_often_and_no_more(
    server: Server, bucket: S3Bucket, verb: Verb, fault: Answer, tries: int
) -> None:
    server.answers = [fault]
    assert type(await failure(verb(bucket))) is StoreAway
    assert 3 <= len(server.requests) <= tries


@every_verb
@pytest.mark.parametrize("status", [400, 403, 412, 503])
async def test_a_refusal_is_not_asked_for_again(
    server: Server, bucket: S3Bucket, verb: Verb, status: int
) -> None:
    server.answers = [error(status)]
    await failure(verb(bucket))
    # A HEAD cannot say why.
    assert server.asked == ("HEAD GET" if verb is head and status != 503 else server.requests[0].method)


@every_verb
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(server: Server, bucket: S3Bucket, verb: Verb, status: int) -> None:
    """A signature is for one host, and an object is not to go to another than configured."""
    server.answers = [error(status, "", ("Location", f"http://127.0.0.1:{server.port}/elsewhere"))]
    await failure(verb(bucket))
    assert "/elsewhere" not in {request.path for request in server.requests}


@every_verb
async def test_a_store_that_never_answers_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.1)
    monkeypatch.setattr(wire, "SILENCE", 0.1)
    monkeypatch.setattr(wire, "PAUSES", ())
    server.answers = [SILENCE]
    store = await S3Store.open("test", settings_of(server))
    try:
        assert type(await failure(verb(store.bucket("b")))) is StoreAway
    finally:
        await store.close()


@every_verb
async def test_an_endpoint_that_cannot_be_reached_is_no_fault_of_the_task(
    server: Server, bucket: S3Bucket, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent: refused connections and unknown hosts stop every object."""
    monkeypatch.setattr(wire, "PAUSES", (0, 0))
    tries = 0
    for nowhere in ("http://127.0.0.1:1", "http://nowhere.invalid"):
        bucket._way = Way.to(nowhere, None)
        sign = bucket._account.sign

        async def counted(*request: Any) -> dict[str, str]:
            nonlocal tries
            tries += 1
            return await sign(*request)  # noqa: B023 - called within this turn of the loop

        with monkeypatch.context() as patch:
            patch.setattr(bucket._account, "sign", counted)
            error = await failure(verb(bucket))
        assert type(error) is RouteDown
    assert tries == 2 * (1 + len(wire.PAUSES)), "it is tried for seconds first"


async def test_a_write_is_signed_and_carries_its_checksum_its_headers_and_its_metadata(
    server: Server, bucket: S3Bucket
) -> None:
    server.answers = [found()]
    headers = {"content-type": "image/png", "cache-control": "no-store", "x-amz-acl": "public-read"}
    await bucket.write("k", BODY, headers=headers, metadata={"owner": "me"})
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("PUT", "/b/k", BODY)
    digest = hashlib.md5(BODY, usedforsecurity=False).digest()
    assert request.headers["Content-MD5"] == base64.b64encode(digest).decode()
    assert request.headers["Content-Type"] == "image/png"
    assert request.headers["Cache-Control"] == "no-store"
    assert request.headers["x-amz-meta-owner"] == "me"
    assert "x-amz-acl" not in request.headers  # only what belongs to an object travels
    authorization = request.headers["Authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=id/")
    for signed in ("content-md5", "host", "x-amz-date", "x-amz-meta-owner"):
        assert signed in authorization


async def test_a_body_without_a_type_is_given_none(server: Server, bucket: S3Bucket) -> None:
    server.answers = [found()]
    await write(bucket)
    assert "Content-Type" not in server.requests[0].headers


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "/",
        "//a//",
        "./../a",
        "a b",
        "a+b",
        "a%20b",
        "%",
        "?x=1&y",
        "#",
        "é",
        "e\u0301",
        "\x00\n\x1b",
        "~*'()",
    ],
)
async def test_a_key_goes_out_as_it_is_whatever_it_holds(server: Server, bucket: S3Bucket, key: str) -> None:
    server.answers = [found()]
    await bucket.head(key)
    [request] = server.requests
    assert request.path.startswith("/b/")
    assert unquote(request.path.removeprefix("/b/")) == key
    assert not {"?", "#", " "} & set(request.path)


@pytest.mark.parametrize("value", ["plain", "é", "日本", "caf\udce9"])
async def test_metadata_of_any_kind_is_sent_or_refused_in_words_of_ours(
    server: Server, bucket: S3Bucket, value: str
) -> None:
    """Some stores hand out raw bytes there, and the half that is no UTF-8 comes as a surrogate."""
    server.answers = [Answer()]
    with suppress(HookmirrorError):
        await bucket.write("k", BODY, headers={}, metadata={"name": value})
        assert "x-amz-meta-name" in server.requests[0].headers


LISTING = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>b</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>k</Key><Size>1</Size>"
    b'<ETag>"e"</ETag></Contents></ListBucketResult>'
)


async def listed(bucket: S3Bucket) -> list[str]:
    return [entry.key async for entry in bucket.list()]


async def test_a_bucket_is_listed(server: Server, bucket: S3Bucket) -> None:
    server.answers = [Answer(200, LISTING, (("Content-Type", "application/xml"),))]
    assert await listed(bucket) == ["k"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(404, "NoSuchBucket"), RouteDown),
        (error(403, "AccessDenied"), RouteDown),
        (Answer(200, LISTING, cut=20), StoreAway),
        (Answer(200, LISTING[:-30]), StoreAway),
        (Answer(200, b"<html>a portal</html"), StoreAway),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_listing_that_failed_is_an_error_of_ours(
    server: Server, bucket: S3Bucket, answer: Answer, expected: type[HookmirrorError]
) -> None:
    server.answers = [answer]
    assert type(await failure(listed(bucket))) is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(200, LISTING), None),
        (error(200), RouteDown),
        (Answer(200, b"<html>we are back soon</html>"), RouteDown),
        (error(404), RouteDown),
        (error(403), RouteDown),
        (error(301, "", ("x-amz-bucket-region", "eu-west-1")), RouteDown),
    ],
    ids=str,
)
async def test_a_bucket_can_be_asked_for_itself(
    server: Server, bucket: S3Bucket, answer: Answer, expected: type[HookmirrorError] | None
) -> None:
    server.answers = [answer]
    if expected is None:
        await bucket.check()
    else:
        assert type(await failure(bucket.check())) is expected
