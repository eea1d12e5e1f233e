"""Amazon SNS at the receiver, over real HTTP, with a server that is Amazon to it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from common.queue.memory import MemoryQueue
from common.telemetry import Action
from receiver import certificates, program, sns
from receiver.sns import BURST, SnsTopics
from tests.integration.test_receiver import SETTINGS, AwayQueue, Receiver, running, taken
from tests.integration.test_receiver_metrics import counted
from tests.lab.amazon import (
    CERTIFICATE,
    HOST,
    TOPIC,
    Amazon,
    Page,
    amazon,
    certificate_look_alikes,
    certify,
    notification,
    rsa_key,
    signed,
    subscribe_look_alikes,
)
from tests.lab.proxy import proxy
from tests.lab.samples import raw, sample
from tests.lab.until import until

FOREIGN = "arn:aws:sns:eu-central-1:123456789012:somebody-elses"
TAKEN = taken(queued=2)
"""The sample's key has two readings, and the route takes both."""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a slow machine the time it needs, and no proxy of its environment a say."""
    monkeypatch.setattr(certificates, "PATIENCE", 30.0)
    monkeypatch.setattr(sns, "TIMEOUT", aiohttp.ClientTimeout(total=30))
    monkeypatch.setattr(sns, "CONFIRM_TIMEOUT", aiohttp.ClientTimeout(total=30))
    for variable in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.fixture
async def there() -> AsyncIterator[Amazon]:
    async with amazon() as server:
        yield server


class Times:
    """A clock, and a time of day, that stand still until they are moved."""

    def __init__(self) -> None:
        self.later = timedelta()

    def clock(self) -> float:
        return self.later.total_seconds()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.later


@pytest.fixture
def times() -> Times:
    return Times()


@asynccontextmanager
async def listening(
    there: Amazon,
    times: Times | None = None,
    *,
    queue: MemoryQueue | None = None,
    topics: tuple[str, ...] = (TOPIC,),
    **network: Any,
) -> AsyncIterator[Receiver]:
    """Run a receiver for `topics`, to which `there` is Amazon."""
    about: dict[str, Any] = {"resolver": there, "trusted": there.trusted} | network
    if times:
        about |= {"clock": times.clock, "now": times.now}
    run = partial(program.run, make_topics=partial(SnsTopics, **about))
    async with running(run, queue or MemoryQueue(), sns_topics=topics) as server:
        yield server


@pytest.fixture
async def receiver(there: Amazon, times: Times) -> AsyncIterator[Receiver]:
    async with listening(there, times) as server:
        yield server


@pytest.mark.parametrize("what", ["notification_v1", "notification_v2"])
@pytest.mark.parametrize("subject", [True, False])
async def test_a_notification_of_either_version_is_queued_as_its_records_are(
    receiver: Receiver, what: str, subject: bool
) -> None:
    envelope = sample(f"sns/{what}")
    if not subject:
        del envelope["Subject"]
    answer = await receiver.post(signed(envelope))
    assert (answer.status, answer.body) == (200, TAKEN)
    tasks = await receiver.tasks()
    assert [task.key for task in tasks] == [
        "summer+2024/caf%C3%A9+%2B+1.jpg",
        "summer 2024/café + 1.jpg",
    ]
    assert counted(receiver.metrics, "hookmirror_hooks_total") == {"accepted": 1}


async def test_an_envelope_runs_the_routes_of_the_url_that_it_came_to(
    there: Amazon, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"public_url": "https://hooks.example.org/webhook/of-the-photos"}
    monkeypatch.setitem(SETTINGS, "stores", SETTINGS["stores"] | {"aws": own})
    async with listening(there, times) as receiver:
        envelope = signed(sample("sns/notification_v2"))
        assert (await receiver.post(envelope)).body == taken(unrouted=1)
        assert (await receiver.post(envelope, path="/webhook/of-the-photos")).body == TAKEN
        assert {task.route for task in await receiver.tasks()} == {"auto"}


@pytest.mark.parametrize(
    "change",
    [
        {"Message": json.dumps({"Records": [{"eventName": "ObjectRemoved:Delete"}]})},
        {"MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf325"},
        {"Subject": "Amazon S3 notification"},
        {"Subject": None},
        {"Timestamp": "2024-03-05T09:12:45.032Z"},
        {"TopicArn": TOPIC + "-2"},
        {"SignatureVersion": "1"},
        {"Signature": "AAAA"},
        {"Type": "UnsubscribeConfirmation", "SubscribeURL": "x", "Token": "x"},
    ],
    ids=lambda change: ",".join(change),
)
async def test_whatever_is_changed_the_signature_tells(there: Amazon, change: dict[str, object]) -> None:
    async with listening(there, topics=(TOPIC, TOPIC + "-2")) as server:
        answer = await server.post(signed("notification_v2") | change)
        assert (answer.status, answer.body) == (403, {"error": "bad signature"})
        assert await server.is_empty()
        assert counted(server.metrics, "hookmirror_hooks_total") == {"bad_signature": 1}


@pytest.mark.parametrize(
    ("what", "digest"),
    [("notification_v1", hashes.SHA256()), ("notification_v2", hashes.SHA1())],  # noqa: S303
)
async def test_a_signature_with_the_digest_of_the_other_version_is_refused(
    receiver: Receiver, what: str, digest: hashes.HashAlgorithm
) -> None:
    assert (await receiver.post(signed(what, digest=digest))).status == 403


async def test_a_signature_by_somebody_else_is_refused(receiver: Receiver) -> None:
    assert (await receiver.post(signed("notification_v2", key=rsa_key(1)))).status == 403
    assert await receiver.is_empty()


async def test_the_certificate_is_fetched_once_for_many_notifications(
    receiver: Receiver, there: Amazon
) -> None:
    there.answering.clear()
    crowd = [asyncio.create_task(receiver.post(signed("notification_v2"))) for _ in range(10)]
    await until(lambda: there.fetched, "the first of them asks for the certificate")
    there.answering.set()
    assert {answer.status for answer in await asyncio.gather(*crowd)} == {200}
    assert (await receiver.post(signed("notification_v1"))).status == 200
    assert there.fetched == 1
    assert there.asked == [f"{HOST}:443"]


async def test_certificates_anywhere_else_are_never_asked_for(receiver: Receiver, there: Amazon) -> None:
    for url in certificate_look_alikes(there.port):
        answer = await receiver.post(signed("notification_v2", SigningCertURL=url))
        refused = (answer.status, answer.body) == (403, {"error": "bad signature"})
        assert refused or answer.body == taken(buried=1), url  # which is one with a control character
    assert (there.asked, there.seen) == ([], [])


async def test_the_port_of_https_may_be_written_out(receiver: Receiver, there: Amazon) -> None:
    url = f"https://{HOST}:443{CERTIFICATE}"
    assert (await receiver.post(signed("notification_v2", SigningCertURL=url))).status == 200
    assert there.asked == [f"{HOST}:443"]


@pytest.mark.parametrize("what", ["notification_v2", "subscription_confirmation", "unsubscribe_confirmation"])
@pytest.mark.parametrize("topics", [(), (FOREIGN,)])
async def test_for_a_topic_that_is_not_configured_nobody_is_asked_and_the_log_says_what_to_add(
    there: Amazon, what: str, topics: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(there, topics=topics) as server:
        with caplog.at_level(logging.WARNING, "hookmirror"):
            assert (await server.post(signed(what))).status == 403
        assert counted(server.metrics, "hookmirror_hooks_total") == {"not_ours": 1}
        assert await server.is_empty()
    assert f'receiver.sns_topics = ["{TOPIC}"]' in caplog.text
    assert (there.asked, there.seen) == ([], [])


async def test_a_subscription_is_confirmed_once_and_the_log_holds_no_token(
    receiver: Receiver, there: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    envelope = signed("subscription_confirmation")
    with caplog.at_level(logging.DEBUG):
        answer = await receiver.post(envelope)
    assert (answer.status, answer.body) == (200, {"subscription": TOPIC})
    assert there.confirmed == [f"GET {envelope['SubscribeURL'].removeprefix('https://')}"]
    said = [vars(record) for record in caplog.records if record.name == "hookmirror"]
    assert {"topic": TOPIC} in [line["fields"] for line in said if line["action"] == Action.SUBSCRIPTION]
    assert envelope["Token"] not in caplog.text + str(said)
    assert counted(receiver.metrics, "hookmirror_hooks_total") == {"confirmed": 1}


@pytest.mark.parametrize("change", [{"Token": "other"}, {"Timestamp": "now"}, {"Signature": "AAAA"}])
async def test_a_forged_subscription_is_not_confirmed(
    receiver: Receiver, there: Amazon, change: dict[str, str]
) -> None:
    assert (await receiver.post(signed("subscription_confirmation") | change)).status == 403
    assert there.confirmed == []


async def test_subscriptions_are_confirmed_nowhere_else(receiver: Receiver, there: Amazon) -> None:
    for url in subscribe_look_alikes(there.port):
        answer = await receiver.post(signed("subscription_confirmation", SubscribeURL=url))
        assert "subscription" not in answer.body, url
    assert (there.asked, there.seen) == ([], [])


AWAY = Page(302, f"https://{HOST}/other")
BROKEN: dict[str, Page | bytes] = {
    "absent": Page(404),
    "failing": Page(500),
    "elsewhere": AWAY,
    "large": certify(rsa_key()) + b"\n" * sns.MAX_ANSWER,
    "empty": b"",
    "no certificate": b"<html></html>",
    "cut": certify(rsa_key())[:300],
    "of another kind": certify(ec.generate_private_key(ec.SECP256R1())),
    "expired": certify(rsa_key(), begins=-2, ends=-1),
    "not valid yet": certify(rsa_key(), begins=1, ends=2),
}


@pytest.mark.parametrize("page", BROKEN)
async def test_without_a_good_certificate_the_hook_is_to_come_again_and_then_may_pass(
    receiver: Receiver, there: Amazon, page: str
) -> None:
    there.pages |= {CERTIFICATE: BROKEN[page], "/other": certify(rsa_key())}
    for what in ("notification_v2", "subscription_confirmation"):
        answer = await receiver.post(signed(what))
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert there.seen == [f"GET {HOST}{CERTIFICATE}"] * 2, "no redirect is followed, nothing is confirmed"
    assert await receiver.is_empty()
    there.pages[CERTIFICATE] = certify(rsa_key())
    assert (await receiver.post(signed("notification_v2"))).status == 200


async def test_a_server_that_cannot_prove_to_be_amazon_is_told_nothing(there: Amazon) -> None:
    async with listening(there, trusted=True) as server:
        assert (await server.post(signed("notification_v2"))).status == 503
    assert there.asked
    assert there.seen == []


async def test_a_certificate_that_comes_late_serves_the_next_try(
    receiver: Receiver, there: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.answering.clear()
    monkeypatch.setattr(certificates, "PATIENCE", 0.02)
    assert (await receiver.post(signed("notification_v2"))).status == 503
    monkeypatch.setattr(certificates, "PATIENCE", 30.0)
    await until(lambda: there.fetched, "Amazon is asked")
    again = asyncio.create_task(receiver.post(signed("notification_v2")))
    there.answering.set()
    assert (await again).status == 200
    assert there.fetched == 1


async def test_a_certificate_that_has_been_kept_too_long_is_of_no_use(
    receiver: Receiver, there: Amazon, times: Times
) -> None:
    assert (await receiver.post(signed("notification_v2"))).status == 200
    times.later = timedelta(hours=2)
    assert (await receiver.post(signed("notification_v2"))).status == 503
    there.pages[CERTIFICATE] = certify(rsa_key(), ends=3)
    assert (await receiver.post(signed("notification_v2"))).status == 200
    assert there.fetched == 2


async def test_envelopes_that_name_ever_new_certificates_make_few_requests(
    receiver: Receiver, there: Amazon, times: Times
) -> None:
    def invented(number: int) -> dict[str, Any]:
        url = f"https://{HOST}/SimpleNotificationService-{number:x}.pem"
        return signed("notification_v2", SigningCertURL=url)

    assert (await receiver.post(signed("notification_v2"))).status == 200
    answers = [await receiver.post(invented(number)) for number in range(3 * BURST)]
    assert {answer.status for answer in answers} == {503}
    assert len(there.seen) == BURST
    assert (await receiver.post(signed("notification_v2"))).status == 200, "what is known is not asked for"
    assert (await receiver.post(signed("subscription_confirmation"))).status == 200
    times.later = timedelta(seconds=2)
    before = len(there.seen)
    for number in range(10):
        await receiver.post(invented(number))
    assert len(there.seen) == before + 2


@pytest.mark.parametrize("page", [Page(500), Page(403), AWAY])
async def test_a_confirmation_that_amazon_does_not_take_is_to_be_asked_for_again(
    receiver: Receiver, there: Amazon, page: Page
) -> None:
    there.pages["/"] = page
    answer = await receiver.post(signed("subscription_confirmation"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert len(there.confirmed) == 1
    assert "/other" not in str(there.seen)
    there.pages["/"] = b"fine"
    assert (await receiver.post(signed("subscription_confirmation"))).status == 200


async def test_a_confirmation_that_takes_too_long_is_given_up_without_a_word_of_its_token(
    receiver: Receiver,
    there: Amazon,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert (await receiver.post(signed("notification_v2"))).status == 200
    there.answering.clear()
    monkeypatch.setattr(sns, "CONFIRM_TIMEOUT", aiohttp.ClientTimeout(total=0.02))
    envelope = signed("subscription_confirmation")
    assert (await receiver.post(envelope)).status == 503
    assert envelope["Token"] not in caplog.text


async def test_an_end_of_a_subscription_is_logged_with_what_to_do_and_nothing_else_is_done(
    receiver: Receiver, there: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hookmirror"):
        answer = await receiver.post(signed("unsubscribe_confirmation"))
    assert (answer.status, answer.body) == (200, {"subscription": TOPIC})
    assert there.seen == [f"GET {HOST}{CERTIFICATE}"]
    assert "docs/senders.md" in caplog.text
    forged = signed("unsubscribe_confirmation") | {"Timestamp": "now"}
    assert (await receiver.post(forged)).status == 403


async def test_the_test_event_of_a_new_notification_is_acknowledged(receiver: Receiver) -> None:
    answer = await receiver.post(signed("notification_test_event"))
    assert (answer.status, answer.body) == (200, taken())


@pytest.mark.parametrize(
    "message",
    ["", "text", "null", "[]", "{}", '{"Records": []}', "[" * 5000, sample("mcs/subscription_confirmation")],
    ids=repr,
)
async def test_a_message_that_is_no_s3_event_is_kept(receiver: Receiver, message: object) -> None:
    assert (await receiver.post(notification(message))).body == taken(buried=1)


async def test_an_envelope_within_an_envelope_is_kept(receiver: Receiver) -> None:
    assert (await receiver.post(notification(signed("notification_v2")))).body == taken(buried=1)


async def test_records_of_a_strangers_bucket_are_counted(receiver: Receiver) -> None:
    records = sample("sns/notification_raw")
    records["Records"][0]["s3"]["bucket"]["name"] = "strangers"
    assert (await receiver.post(notification(records))).body == taken(unrouted=1)


async def test_a_notification_is_to_come_again_while_the_queue_is_away(there: Amazon) -> None:
    async with listening(there, queue=AwayQueue()) as server:
        assert (await server.post(signed("notification_v2"))).status == 503


async def test_a_raw_delivery_is_a_hook_like_any_other(receiver: Receiver, there: Amazon) -> None:
    headers = {
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "x-amz-sns-topic-arn": TOPIC,
        "x-amz-sns-subscription-arn": f"{TOPIC}:2bcfbf39-05c3-41de-beaa-fcfcc21c8f55",
        "x-amz-sns-rawdelivery": "true",
        "content-type": "text/plain; charset=UTF-8",
        "user-agent": "Amazon Simple Notification Service Agent",
    }
    answer = await receiver.post(raw("sns/notification_raw"), headers=headers)
    assert (answer.status, answer.body) == (200, TAKEN)
    wrapped = headers | {"x-amz-sns-rawdelivery": "false"}
    body = json.dumps(signed("notification_v2")).encode()
    assert (await receiver.post(body, headers=wrapped)).body == TAKEN
    assert there.fetched == 1


async def test_mcs_is_answered_as_ever_beside_sns(receiver: Receiver, there: Amazon) -> None:
    answer = await receiver.post(sample("mcs/subscription_confirmation"))
    assert (answer.status, list(answer.body)) == (200, ["signature"])
    assert there.asked == []


async def test_amazon_is_reached_by_the_proxy_that_the_environment_names(
    there: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy() as passing:
        passing.leads[f"{HOST}:443"] = there.port
        monkeypatch.setenv("https_proxy", passing.url)
        async with listening(there) as server:
            assert (await server.post(signed("subscription_confirmation"))).status == 200
    assert set(passing.seen) == {f"CONNECT {HOST}:443"}
    assert (there.asked, there.fetched, len(there.confirmed)) == ([], 1, 1)


async def test_a_receiver_stops_though_amazon_keeps_it_waiting(
    there: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.answering.clear()
    monkeypatch.setattr(certificates, "PATIENCE", 0.02)
    async with listening(there) as server:
        assert (await server.post(signed("notification_v2"))).status == 503
        await until(lambda: there.fetched, "Amazon is asked")
        server.stop.set()
        await server.ended()
