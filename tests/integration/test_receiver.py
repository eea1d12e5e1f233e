"""The receiver over real HTTP: what a sender gets, and what is in the queue when it got it."""

import asyncio
import copy
import gzip
import json
import logging
import random
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from common.errors import ConfigError, QueueAway
from common.metrics import Metrics
from common.queue.memory import MemoryQueue
from common.queue.port import Counts, Kind, Lane
from common.service import Program
from common.settings import Settings
from common.task import Claim, Task
from common.telemetry import Action
from demo.weed import free_ports
from receiver import hook, intake, program
from tests.lab.samples import names, raw, sample
from tests.lab.until import until

SETTINGS: dict[str, Any] = {
    "stores": {"mcs": {"key_encoding": "raw"}, "aws": {}, "minio": {"key_encoding": "url"}},
    "routes": [
        {"name": "plain", "source": "mcs:bucketA", "target": "aws:backup"},
        {"name": "pictures", "source": "mcs:pictures", "target": "aws:b2", "prefix": "in/", "suffix": ".jpg"},
        {"name": "auto", "source": "aws:photos", "target": "mcs:copy"},
    ],
}
PUBLIC_URL = "http://89.208.199.220/webhook"


class SlowQueue(MemoryQueue):
    """A queue whose confirms wait for `confirm`; `asked` counts who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.confirm = asyncio.Event()
        self.asked = 0

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        self.asked += 1
        await self.confirm.wait()
        await super().publish(body, lane=lane, delay=delay)


class AwayQueue(MemoryQueue):
    """A queue that cannot be reached."""

    async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
        raise QueueAway("RabbitMQ has not answered")

    async def bury(self, body: bytes, *, lane: Lane, why: str) -> None:
        raise QueueAway("RabbitMQ has not answered")

    async def counts(self) -> Counts:
        raise QueueAway("RabbitMQ has not answered")


@dataclass
class Answer:
    """What a sender gets."""

    status: int
    body: Any
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)


class Receiver:
    """A running receiver, and a client that is its only sender."""

    def __init__(
        self, queue: MemoryQueue, settings: Settings, session: aiohttp.ClientSession, run: Program
    ) -> None:
        self.queue = queue
        self.metrics = Metrics(route.id for route in settings.all_routes)
        self.port = settings.receiver.port
        self.stop = asyncio.Event()
        self._path = urlsplit(settings.receiver.public_url or "/webhook").path or "/"
        self._session = session
        self._running = asyncio.ensure_future(run(settings, queue, self.stop, self.metrics))

    async def answers(self) -> bool:
        """Whether it takes connections. Raises what ended it, if anything has."""
        if self._running.done():
            self._running.result()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def ended(self) -> None:
        """Return when it has wound up."""
        await self._running

    async def post(
        self, body: object, *, path: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """POST `body`: bytes and streams as they are, anything else as JSON."""
        data = body if isinstance(body, bytes | AsyncIterator) else json.dumps(body).encode()
        return await self.request("POST", path or self._path, data=data, headers=headers)

    async def request(self, method: str, path: str, **more: Any) -> Answer:
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with self._session.request(method, url, allow_redirects=False, **more) as response:
            text = await response.text()
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            return Answer(response.status, value, CIMultiDict(response.headers))

    async def tasks(self) -> list[Task]:
        """What is queued, in the order in which it came."""
        return [Task.decode(message.body) for message in self.queue._messages.values()]

    async def is_empty(self) -> bool:
        counts = await self.queue.counts()
        return (sum(counts.ready.values()), counts.waiting, counts.dead) == (0, 0, 0)


@asynccontextmanager
async def serving(queue: MemoryQueue, **receiver: Any) -> AsyncIterator[Receiver]:
    """Run the receiver on a free port of loopback; stop it in good order."""
    async with running(program.run, queue, **receiver) as server:
        yield server


@asynccontextmanager
async def running(run: Program, queue: MemoryQueue, /, **receiver: Any) -> AsyncIterator[Receiver]:
    """The same, put together by `run`."""
    [port] = free_ports(1)
    about = {"host": "127.0.0.1", "port": port, "public_url": PUBLIC_URL} | receiver
    settings = Settings.model_validate(SETTINGS | {"receiver": about})
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
    server = Receiver(queue, settings, session, run)
    try:
        await until(server.answers, "the receiver answers")
        yield server
    finally:
        await session.close()
        server.stop.set()
        await server.ended()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with serving(MemoryQueue()) as server:
        yield server


def record(
    key: object = "k", bucket: object = "bucketA", name: object = "s3:ObjectCreated:Put"
) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, "eTag": "e"}}}


def of(*records: object) -> dict[str, Any]:
    return {"Records": list(records)}


def taken(**counts: int) -> dict[str, int]:
    """What a hook is answered: these counts, and all others 0."""
    return dict.fromkeys(("queued", "ignored", "unrouted", "buried", "dropped"), 0) | counts


async def test_a_subscription_is_confirmed_with_the_published_signature() -> None:
    confirmation = {
        "Type": "SubscriptionConfirmation",
        "TopicArn": "mcs5259999770|bucketA|s3:ObjectCreated:*,s3:ObjectRemoved:*",
        "Timestamp": "2020-06-15T15:01:13+03:00",
        "Token": "E2itMqAMUVVZc51pUhFWSp13DoxezvRxkUh5P7LEuk1dEe9y",
    }
    async with serving(MemoryQueue(), public_url="http://test.com") as server:
        answer = await server.post(
            sample("mcs/subscription_confirmation"),
            headers={"x-amz-sns-messages-type": "SubscriptionConfirmation"},
        )
        assert (answer.status, answer.body) == (
            200,
            {"signature": "ea3fce4bb15c6de4fec365d36bcebbc34ccddf54616d5ca12e1972f82b6d37af"},
        )
        assert answer.headers["content-type"].startswith("application/json")
        assert (await server.post(confirmation)).status == 200
        assert await server.is_empty()


@pytest.mark.parametrize(
    ("topic", "status"),
    [("mcs1|strangers|s3:ObjectCreated:Put", 403), ("mcs1|bucketA", 200), ("", 200), (7, 200)],
)
async def test_a_subscription_of_a_stranger_or_of_nothing_is_not_confirmed(
    receiver: Receiver, topic: object, status: int
) -> None:
    answer = await receiver.post({**sample("mcs/subscription_confirmation"), "TopicArn": topic})
    assert answer.status == status
    assert "signature" not in answer.body


async def test_without_a_public_url_nothing_is_confirmed() -> None:
    async with serving(MemoryQueue(), public_url=None) as server:
        answer = await server.post(sample("mcs/subscription_confirmation"))
        assert answer.status == 403
        assert "signature" not in answer.body


async def test_a_record_is_queued_as_a_task(receiver: Receiver) -> None:
    before = time.time()
    answer = await receiver.post(
        raw("mcs/object_created"), headers={"X-Amz-Sns-Message-Type": "Notification"}
    )
    assert (answer.status, answer.body) == (200, taken(queued=1))
    [task] = await receiver.tasks()
    assert (task.route, task.key, task.claim) == ("plain", "some-file-to-bucket", Claim.CREATED)
    assert (task.etag, task.event) == ("aed563ecafb4bcc5654c597a421547b2", "s3:ObjectCreated:Put")
    assert before <= task.received <= time.time()
    assert (await receiver.queue.counts()).ready[Kind.LIVE] == 1


async def test_the_answer_comes_only_after_every_record_is_durable() -> None:
    queue = SlowQueue()
    async with serving(queue) as server:
        posting = asyncio.create_task(server.post(of(record("a"), record("b"))))
        await until(lambda: queue.asked == 2, "both records are being published")
        assert (await server.request("GET", "/healthz")).status == 200  # and nobody else waits for it
        assert not posting.done()
        queue.confirm.set()
        answer = await posting
        assert answer.status == 200
        assert [task.key for task in await server.tasks()] == ["a", "b"]


async def test_a_queue_that_does_not_confirm_is_a_503_within_three_seconds() -> None:
    queue = SlowQueue()
    async with serving(queue) as server:
        async with asyncio.timeout(3):
            answer = await server.post(of(record()))
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert await server.is_empty()


async def test_a_queue_that_is_away_is_a_503_that_names_no_broker() -> None:
    async with serving(AwayQueue()) as server:
        answer = await server.post(of(record()))
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "RabbitMQ" not in json.dumps(answer.body)
        assert (await server.post(of({"no": "event"}))).status == 503  # not even a dead letter can be kept


async def test_one_record_that_cannot_be_queued_makes_the_whole_hook_a_503() -> None:
    class Picky(MemoryQueue):
        async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
            if b'"bad"' in body:
                raise QueueAway("no room")
            await super().publish(body, lane=lane, delay=delay)

    async with serving(Picky()) as server:
        assert (await server.post(of(record("good"), record("bad")))).status == 503
        assert (await server.post(of(record("good")))).status == 200


@pytest.mark.parametrize("error", [RuntimeError("channel closed"), OSError(28, "No space left")])
async def test_a_queue_that_fails_as_nobody_foresaw_is_a_503_too(error: Exception) -> None:
    class Broken(MemoryQueue):
        async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
            raise error

    async with serving(Broken()) as server:
        assert (await server.post(of(record()))).status == 503


def nested(depth: int) -> bytes:
    return b'{"Records": ' + b"[" * depth + b"]" * depth + b"}"


LATIN_1 = json.dumps(of(record("photo.jpg") | {"metadata": "café"}), ensure_ascii=False).encode("latin-1")
BY_CLOUD_MONITOR = {"Product": "ros", "Name": "Stack:StatusChange", "Content": {"stackId": "a797d0e1"}}

NO_HOOKS: list[tuple[bytes | object, str]] = [
    (b"", "empty body"),
    (b" \r\n", "empty body"),
    (b"\0" * 100, "empty body"),
    (gzip.compress(b"{}", mtime=0), "gzip body"),
    (zlib.compress(b"{}"), "deflate body"),
    (b"<?xml version='1.0'?><a/>", "XML or HTML body"),
    (b"<html>", "XML or HTML body"),
    (b"payload=%7B%7D&x=1", "form-encoded body"),
    (b"--x\r\nContent-Type: text/plain\r\n\r\n--x--", "multipart body"),
    (b"hello", "no JSON: Expecting value at line 1, column 1"),
    (b'{"Records": [', "no JSON: Expecting value at line 1, column 14"),
    (b'{"a": "\xff"}', "no UTF-8: byte 0xff at 7"),
    (b"[" * 100_000, "no JSON: nested too deep"),
    (b'{"a":' * 40_000, "no JSON: nested too deep"),
    (nested(100_000), "no JSON: nested too deep"),
    (b"1" * 5000, "no JSON: a number of too many digits"),
    (None, "no hook: null, and no JSON object"),
    (17, "no hook: a number, and no JSON object"),
    (True, "no hook: true or false, and no JSON object"),
    ("x", "no hook: a string, and no JSON object"),
    ([], "no hook: a list, and no JSON object"),
    ({}, "no hook: a JSON object with nothing in it"),
    ({"a": 1, "\ud800": 2}, "no hook: a JSON object with a, ?"),
    ({"Event": []}, "no hook: a JSON object with Event"),
    ({"Type": "Notification"}, "no hook: a JSON object with Type"),
    ({"Records": []}, "Records is no list of records"),
    ({"Records": {}}, "Records is no list of records"),
    (BY_CLOUD_MONITOR, "Cloud Monitor's form of a ROS event"),
    ({"product": "ROS", "ver": "1.0"}, "Cloud Monitor's form of a ROS event"),
    ({"type": "ros:StackStateChange:CheckComplete"}, "EventBridge's form of a ROS event"),
    (sample("ros/create_failed"), "stack notification, which belongs to receiver.stack_url"),
    ({"detail-type": "Object Created", "detail": {}}, "EventBridge's form of an event"),
    ({"specversion": "1.0"}, "CloudEvents' form of an event"),
    ({"message": {}, "subscription": "projects/x"}, "Pub/Sub message of Google Cloud"),
    ({"Type": "Other", "TopicArn": "arn:aws:x"}, "SNS envelope, of an unknown Type or inside of another"),
    ({"Type": "SubscriptionConfirmation"}, "a SubscriptionConfirmation has TopicArn, Timestamp and Token"),
]
"""Bodies that no sender of ours sends, and what a person is told of each."""


@pytest.mark.parametrize(("body", "words"), NO_HOOKS, ids=lambda value: str(value)[:30])
async def test_what_is_no_hook_is_taken_and_kept_whole_and_says_what_it_is(
    receiver: Receiver, body: object, words: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await receiver.post(data)
    assert (answer.status, answer.body) == (200, taken(buried=1))
    [letter] = await receiver.queue.buried(10)
    assert letter.body == data
    assert letter.why.startswith(f"Unreadable: {words}")
    assert len(letter.why) < 300
    assert await receiver.tasks() == []


async def test_one_value_that_is_no_utf_8_does_not_hide_the_key(receiver: Receiver) -> None:
    answer = await receiver.post(LATIN_1)
    assert (answer.status, answer.body) == (200, taken(queued=1, buried=1))
    assert [task.key for task in await receiver.tasks()] == ["photo.jpg"]
    [letter] = await receiver.queue.buried(10)
    assert (letter.body, letter.why) == (LATIN_1, f"Unreadable: no UTF-8: byte 0xe9 at {LATIN_1.index(0xE9)}")


async def test_a_key_that_is_no_utf_8_is_kept_and_not_looked_at(receiver: Receiver) -> None:
    body = json.dumps(of(record("café"), record("tea")), ensure_ascii=False).encode("latin-1")
    assert (await receiver.post(body)).body == taken(queued=1, buried=1)
    assert [task.key for task in await receiver.tasks()] == ["tea"]


@pytest.mark.parametrize(
    "body",
    [
        b"x" * (intake.MAX_BODY + 1),
        json.dumps(of(*[record()] * (hook.MAX_RECORDS + 1))).encode(),
    ],
    ids=["bytes", "records"],
)
async def test_what_is_too_large_is_a_413_with_one_sentence_and_nothing_is_queued(
    receiver: Receiver, body: bytes
) -> None:
    answer = await receiver.post(body)
    assert (answer.status, answer.body) == (413, {"error": "too large"})
    assert await receiver.is_empty()


async def test_records_of_buckets_that_no_route_names_are_taken_and_counted(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hookmirror"):
        answer = await receiver.post(of(record(bucket="strangers"), record(bucket="others")))
    assert (answer.status, answer.body) == (200, taken(unrouted=2))
    assert await receiver.is_empty()
    [line] = [vars(one) for one in caplog.records if vars(one)["action"] == Action.HOOK]
    assert (line["msg"], line["levelname"]) == ("nothing queued: no route names it", "WARNING")
    assert line["fields"] == taken(unrouted=2) | {"bucket": "strangers, others", "caller": "127.0.0.1"}


async def test_of_one_address_so_many_dead_letters_are_kept_and_the_rest_is_counted() -> None:
    async with serving(MemoryQueue(), trusted_proxies=["127.0.0.1"]) as server:
        first = await server.post(of(*[None] * 60, record()))
        assert first.body == taken(queued=1, buried=60)
        second = await server.post(of(*[None] * 60, record()))
        assert second.body == taken(queued=1, buried=intake.LETTERS - 60, dropped=120 - intake.LETTERS)
        assert (await server.post(b"no JSON")).body == taken(dropped=1)
        assert (await server.queue.counts()).dead == intake.LETTERS
        other = await server.post(b"no JSON", headers={"X-Forwarded-For": "198.51.100.7"})
        assert other.body == taken(buried=1)


async def test_of_one_address_so_many_bytes_are_kept(receiver: Receiver) -> None:
    largest = b"x" * intake.MAX_BODY
    fit = intake.BYTES // intake.MAX_BODY
    answers = [(await receiver.post(largest)).body for _ in range(fit + 1)]
    assert answers == [taken(buried=1)] * fit + [taken(dropped=1)]


async def test_a_hook_that_will_come_again_has_left_no_dead_letter() -> None:
    class Full(MemoryQueue):
        """A queue that takes dead letters and no tasks."""

        async def publish(self, body: bytes, *, lane: Lane, delay: float = 0) -> None:
            raise QueueAway("the lane is full")

    async with serving(Full()) as server:
        for _ in range(3):
            assert (await server.post(of(record(), None))).status == 503
        assert await server.is_empty()


async def test_what_could_not_be_kept_does_not_use_up_what_may_be() -> None:
    queue = AwayQueue()
    async with serving(queue) as server:
        for _ in range(intake.LETTERS + 1):
            assert (await server.post(b"no JSON")).status == 503


@pytest.mark.parametrize(
    ("body", "said", "fields"),
    [
        (
            of(record(), record("k2", "photos")),
            "hook queued",
            taken(queued=2) | {"bucket": "bucketA, photos"},
        ),
        (of(record(name="s3:TestEvent")), "nothing to queue", taken(ignored=1) | {"bucket": ""}),
        (of(record("x", "pictures")), "nothing to queue", taken(ignored=1) | {"bucket": "pictures"}),
        (
            of(*[record(bucket=f"b{number}") for number in range(5)], record()),
            "hook queued",
            taken(queued=1, unrouted=5) | {"bucket": "b0, b1, b2 and 3 more"},
        ),
        (
            b"{",
            "nothing queued, kept as a dead letter: no JSON: "
            "Expecting property name enclosed in double quotes at line 1, column 2",
            taken(buried=1) | {"bucket": ""},
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_the_line_of_a_hook_says_what_was_done_for_which_bucket_and_who_called(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, body: object, said: str, fields: dict[str, object]
) -> None:
    with caplog.at_level(logging.INFO, "hookmirror"):
        await receiver.post(body)
    [line] = [vars(one) for one in caplog.records if vars(one)["action"] == Action.HOOK]
    assert (line["msg"], line["fields"]) == (said, fields | {"caller": "127.0.0.1"})


async def test_a_body_without_a_length_is_cut_off_as_soon_as_it_is_too_large(receiver: Receiver) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1000 * intake.MAX_BODY:
            yield b" " * 65536
            sent += 65536

    with suppress(aiohttp.ClientConnectionError):  # the answer may find the sender still sending
        assert (await receiver.post(endless())).status == 413
    assert sent < 900 * intake.MAX_BODY
    assert (await receiver.post(of(record()))).status == 200


async def test_a_body_of_exactly_the_largest_size_is_taken(receiver: Receiver) -> None:
    body = json.dumps(of(record())).encode()
    assert (await receiver.post(body.ljust(intake.MAX_BODY))).status == 200
    assert (await receiver.post(body.ljust(intake.MAX_BODY + 1))).status == 413


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is too slow for a crowd of hooks."""
    monkeypatch.setattr(intake, "ANSWER_WITHIN", 60.0)


@pytest.mark.usefixtures("patient")
async def test_a_record_nested_as_deep_as_json_goes_is_kept(receiver: Receiver) -> None:
    def nest(depth: int) -> bytes:
        return b'{"Records": [{"deep": ' + b"[" * depth + b"]" * depth + b"}]}"

    for start in range(800, 1000, 50):
        answers = await asyncio.gather(*(receiver.post(nest(start + more)) for more in range(50)))
        assert {answer.status for answer in answers} == {200}


async def test_a_hook_for_one_of_ours_and_one_of_a_stranger_queues_ours(receiver: Receiver) -> None:
    answer = await receiver.post(of(record("mine"), record("theirs", "strangers")))
    assert (answer.status, answer.body) == (200, taken(queued=1, unrouted=1))
    assert [task.key for task in await receiver.tasks()] == ["mine"]


async def test_an_unreadable_record_is_kept_whole_and_the_rest_goes_on(receiver: Receiver) -> None:
    bad: list[Any] = [
        None,
        {"eventName": "s3:ObjectCreated:Put"},
        record(key=None),
        record(key="\ud800"),
        7,
        "x",
    ]
    answer = await receiver.post(of(record("first"), *bad, record("last")))
    assert (answer.status, answer.body) == (200, taken(queued=2, buried=len(bad)))
    assert [task.key for task in await receiver.tasks()] == ["first", "last"]
    letters = await receiver.queue.buried(100)
    assert [json.loads(letter.body) for letter in letters] == bad
    assert all(letter.why.startswith("Unreadable: ") for letter in letters)


@pytest.mark.parametrize(
    "body",
    [
        sample("aws/test_event"),
        {"Event": "TestEvent"},
        of(record(name="s3:TestEvent")),
        of({"eventName": "s3:TestEvent"}),
        of(record(name="s3:Replication:OperationFailedReplication")),
        of(record(name="s3:TestEvent", bucket="strangers")),
    ],
)
async def test_an_event_that_changes_no_object_is_acknowledged_and_not_queued(
    receiver: Receiver, body: object
) -> None:
    answer = await receiver.post(body)
    assert (answer.status, answer.body["queued"]) == (200, 0)
    assert await receiver.is_empty()


@pytest.mark.parametrize("name", ["s3:ObjectSynced:Create", "s3:ObjectAcl:Put", "s3:SomethingNew", "", None])
async def test_every_record_that_names_a_key_of_a_route_is_queued(receiver: Receiver, name: object) -> None:
    assert (await receiver.post(of(record(name=name)))).body == taken(queued=1)
    assert [task.key for task in await receiver.tasks()] == ["k"]


@pytest.mark.parametrize("name", [name for name in names() if "Type" not in sample(name)])
async def test_every_senders_sample_is_acknowledged(receiver: Receiver, name: str) -> None:
    assert (await receiver.post(raw(name))).status == 200
    assert (await receiver.queue.counts()).dead == 0


@pytest.mark.parametrize(
    ("key", "queued"), [("in/a.jpg", 1), ("in/a.png", 0), ("out/a.jpg", 0), ("IN/a.jpg", 0), ("in/.jpg", 1)]
)
async def test_a_route_takes_the_keys_that_begin_and_end_as_it_says(
    receiver: Receiver, key: str, queued: int
) -> None:
    answer = await receiver.post(of(record(key, "pictures")))
    assert answer.body == taken(queued=queued, ignored=1 - queued)


async def test_a_key_of_unknown_encoding_gives_a_task_for_each_reading(receiver: Receiver) -> None:
    await receiver.post(of(record("a+b%20c", "photos")))
    tasks = await receiver.tasks()
    assert [(task.route, task.key) for task in tasks] == [("auto", "a+b%20c"), ("auto", "a b c")]
    assert len({task.id for task in tasks}) == 2


@pytest.mark.parametrize("key", ["//a//", "./..", "a\nb\x1b[2J", "é", "e\u0301", "日本/🦀", "\x00", "%", " "])
async def test_an_awkward_key_arrives_as_it_is(receiver: Receiver, key: str) -> None:
    assert (await receiver.post(of(record(key)))).status == 200
    assert [task.key for task in await receiver.tasks()] == [key]


async def test_ping_health_and_readiness_answer(receiver: Receiver) -> None:
    assert (await receiver.request("GET", "/ping")).body == "Pong"
    assert (await receiver.request("GET", "/healthz")).status == 200
    assert (await receiver.request("GET", "/readyz")).status == 200
    for path in ("/ping", "/healthz", "/readyz"):
        assert (await receiver.request("HEAD", path)).status == 200


async def test_a_queue_that_is_away_makes_the_receiver_unready_but_not_dead() -> None:
    async with serving(AwayQueue()) as server:
        assert (await server.request("GET", "/healthz")).status == 200
        assert (await server.request("GET", "/readyz")).status == 503


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/webhook"), ("PUT", "/webhook"), ("POST", "/other"), ("POST", "/"), ("POST", "/docs"),
     ("PUT", "/openapi.json"), ("POST", "/ping"), ("POST", "//webhook")],
)  # fmt: skip
async def test_another_path_or_method_is_a_4xx(receiver: Receiver, method: str, path: str) -> None:
    assert 400 <= (await receiver.request(method, path)).status < 500


@pytest.mark.parametrize(
    "path", ["/", "/a/b/", "/webhook/3f9c0a7b5d1e42", "/web%20hook", "/caf%C3%A9", "/a%2Fb", "/a+b"]
)
async def test_the_path_of_the_registered_url_is_served_and_no_other(path: str) -> None:
    async with serving(MemoryQueue(), public_url=f"https://hooks.example.org{path}") as server:
        assert (await server.post(of(record()), path=path)).status == 200
        assert (await server.post(of(record()), path="/other")).status == 404


async def test_hooks_in_hand_are_answered_after_a_stop() -> None:
    queue = SlowQueue()
    async with serving(queue) as server:
        posting = asyncio.create_task(server.post(of(record())))
        await until(lambda: queue.asked == 1, "the hook is in hand")
        server.stop.set()

        async def shut() -> bool:
            return not await server.answers()

        await until(shut, "nothing new is taken")
        queue.confirm.set()
        assert (await posting).status == 200
        await server.ended()
    assert (await queue.counts()).ready[Kind.LIVE] == 1


async def test_a_port_that_is_taken_is_an_error_of_the_configuration(receiver: Receiver) -> None:
    settings = Settings.model_validate(SETTINGS | {"receiver": {"host": "127.0.0.1", "port": receiver.port}})
    with pytest.raises(ConfigError, match=rf"receiver.port = {receiver.port}: "):
        await program.run(settings, MemoryQueue(), asyncio.Event(), Metrics())


async def test_a_sender_that_goes_away_in_the_middle_leaves_nothing_behind(receiver: Receiver) -> None:
    body = json.dumps(of(record())).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 10}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await receiver.request("GET", "/ping")).status == 200
    assert await receiver.is_empty()


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"public_url": None}, ["receiver.public_url: missing"]),
        ({"public_url": "https://hooks.example.org/"}, ["receiver.public_url: it has no path"]),
        (
            {"public_url": "https://hooks.example.org/hooks"},
            ["receiver.public_url: it has a path that can be"],
        ),
        ({"public_url": "https://hooks.example.org/hooks/3f9c0a7b5d1e42"}, []),
        (
            {
                "public_url": "https://hooks.example.org/hooks/3f9c0a7b5d1e42",
                "trusted_proxies": ["0.0.0.0/0", "::/0"],
            },
            ["receiver.trusted_proxies: 0.0.0.0/0 and ::/0 is everybody: whoever calls can forge"],
        ),
    ],
)
async def test_a_start_says_how_a_stranger_gets_in_and_no_path_however_short(
    about: dict[str, Any], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hookmirror"):
        async with serving(MemoryQueue(), **about):
            pass
    lines = [vars(one) for one in caplog.records]
    warned = [line["msg"] for line in lines if line["action"] == Action.EXPOSED]
    assert [sentence[: len(start)] for sentence, start in zip(warned, said, strict=True)] == said
    [started] = [line["fields"] for line in lines if line["action"] == Action.STARTED]
    assert "/hooks" not in str(started)


def bodies(rng: random.Random) -> list[bytes]:
    """Five hundred bodies: noise, cut and flipped samples, and samples with one value replaced."""
    samples = [raw(name) for name in names()]
    odd: list[Any] = [None, True, 0, -1, 1e308, 10**400, float("nan"), [], {}, [[]], [{}], {"": None}]
    odd += [
        "",
        "x",
        "\x00",
        "\ud800",
        "|",
        "||",
        "%",
        "a" * 4000,
        "s3:ObjectCreated:Put",
        "SubscriptionConfirmation",
    ]

    def noise() -> bytes:
        return rng.randbytes(rng.randint(0, 300))

    def cut() -> bytes:
        whole = rng.choice(samples)
        return whole[: rng.randint(0, len(whole))]

    def flipped() -> bytes:
        body = bytearray(rng.choice(samples))
        for _ in range(rng.randint(1, 5)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        return bytes(body)

    def replaced() -> bytes:
        value = copy.deepcopy(sample(rng.choice(names())))
        for _ in range(rng.randint(1, 3)):
            path = list(walk(value))
            if path:
                holder, key = rng.choice(path)
                holder[key] = copy.deepcopy(rng.choice(odd))
        return json.dumps(value).encode()

    return [rng.choice([noise, cut, flipped, replaced, replaced])() for _ in range(500)]


def walk(value: Any) -> list[tuple[Any, Any]]:
    """Every place in `value` where something can be replaced."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in walk(value[key])]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_body_makes_the_receiver_fail(receiver: Receiver, seed: int) -> None:
    failures: list[tuple[int, bytes]] = []
    answers: set[int] = set()

    async def send(body: bytes) -> None:
        status = (await receiver.post(body)).status
        answers.add(status)
        if status not in {200, 403}:
            failures.append((status, body))

    crowd = bodies(random.Random(seed))
    for start in range(0, len(crowd), 50):
        await asyncio.gather(*map(send, crowd[start : start + 50]))
    assert not failures
    assert 200 in answers
    for task in await receiver.tasks():
        assert task.key
    assert (await receiver.post(of(record()))).status == 200
