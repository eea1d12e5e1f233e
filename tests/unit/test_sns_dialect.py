"""Amazon SNS envelopes: what is one, what is signed of it, and whom it may send us to."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import BadRequest, BadSignature, NotOurs, Unreadable
from common.tables import ReceiverSettings
from receiver import handshake
from receiver.dialects.sns import Envelope, find_host, parse
from tests.lab.amazon import (
    CERTIFICATE_URL,
    HOST,
    TOPIC,
    certificate_look_alikes,
    string_to_sign,
    subscribe_look_alikes,
)
from tests.lab.samples import PUBLISHED, names, sample

ENVELOPES = [name for name in names() if name.startswith("sns/") and "Type" in sample(name)]


def opened(body: object) -> Envelope:
    envelope = parse(body)
    assert envelope is not None
    return envelope


@pytest.mark.parametrize("name", ENVELOPES)
def test_every_envelope_on_disk_is_understood(name: str) -> None:
    body = sample(name)
    envelope = opened(body)
    assert (envelope.kind, envelope.topic, envelope.message) == (body["Type"], TOPIC, body["Message"])
    assert envelope.signed.decode() == string_to_sign(body)
    assert envelope.digest == {"1": "sha1", "2": "sha256"}[body["SignatureVersion"]]
    assert envelope.certificate_url == CERTIFICATE_URL
    confirms = body["Type"] == "SubscriptionConfirmation"
    assert envelope.subscribe_url == (body["SubscribeURL"] if confirms else "")


def test_what_is_signed_of_a_notification_is_as_amazon_documents_it() -> None:
    body = sample("sns/notification_v1") | {"Message": "My Test\nMessage", "Subject": "My subject"}
    assert opened(body).signed == (
        b"Message\nMy Test\nMessage\nMessageId\n22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\nSubject\nMy subject\n"
        b"Timestamp\n2024-03-05T09:12:45.031Z\nTopicArn\narn:aws:sns:eu-central-1:123456789012:photos-events\n"
        b"Type\nNotification\n"
    )


@pytest.mark.parametrize(("subject", "signed"), [(None, False), ("", True), ("é", True)])
def test_a_subject_is_signed_if_there_is_one(subject: str | None, signed: bool) -> None:
    body = sample("sns/notification_v1")
    assert (f"\nSubject\n{subject}\n".encode() in opened(body | {"Subject": subject}).signed) == signed
    del body["Subject"]
    assert b"Subject" not in opened(body).signed


@pytest.mark.parametrize(
    ("topic", "host"),
    [
        ("arn:aws:sns:eu-central-1:123456789012:t", "sns.eu-central-1.amazonaws.com"),
        ("arn:aws:sns:us-east-1:123456789012:a_b-C.fifo", "sns.us-east-1.amazonaws.com"),
        ("arn:aws-cn:sns:cn-north-1:123456789012:t", "sns.cn-north-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:t", "sns.us-gov-west-1.amazonaws.com"),
    ],
)
def test_one_host_may_be_asked_about_a_topic(topic: str, host: str) -> None:
    assert find_host(topic) == host
    assert ReceiverSettings(sns_topics=(topic,)).sns_topics == (topic,)


@pytest.mark.parametrize(
    "topic",
    [
        "arn:",
        "arn:aws:sqs:eu-central-1:123456789012:t",
        "arn:aws:sns::123456789012:t",
        "arn:aws:sns:eu-central-1:12345678901:t",
        "arn:aws:sns:eu-central-1:123456789012:",
        "arn:aws:sns:eu-central-1:123456789012:t:2bcfbf39",
        "arn:aws:sns:eu-central-1:123456789012:t\n",
        "arn:aws:sns:evil.org/:123456789012:t",
        "arn:aws:sns:eu-central-1.evil.org#:123456789012:t",
        "arn:aws:sns:a@evil:123456789012:t",
        "arn:aws:sns:EU-CENTRAL-1:123456789012:t",
        "arn:aws:sns:eu-central-1:１２３４５６７８９０１２:t",
        "arn:aws:sns:eü:123456789012:t",
        "arn:AWS:sns:eu-central-1:123456789012:t",
    ],
)
def test_what_is_no_topics_arn_leads_nowhere_and_cannot_be_configured(topic: str) -> None:
    with pytest.raises(Unreadable, match="TopicArn"):
        parse(sample("sns/notification_v1") | {"TopicArn": topic})
    with pytest.raises(ValidationError):
        ReceiverSettings(sns_topics=(topic,))


@pytest.mark.parametrize("url", certificate_look_alikes())
def test_a_certificate_elsewhere_is_none(url: str) -> None:
    with pytest.raises((BadSignature, Unreadable), match="SigningCertURL"):
        parse(sample("sns/notification_v1") | {"SigningCertURL": url})


@pytest.mark.parametrize("url", subscribe_look_alikes())
def test_a_confirmation_elsewhere_or_of_something_else_is_none(url: str) -> None:
    with pytest.raises((NotOurs, Unreadable), match="SubscribeURL"):
        parse(sample("sns/subscription_confirmation") | {"SubscribeURL": url})


@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("topic", [TOPIC, TOPIC.replace(":", "%3A")])
def test_a_confirmation_may_be_written_in_more_than_one_way(port: str, topic: str) -> None:
    url = f"https://{HOST}{port}/?Token=1&TopicArn={topic}&Action=ConfirmSubscription&New=x"
    body = sample("sns/subscription_confirmation") | {"SubscribeURL": url}
    assert opened(body).subscribe_url == url


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "arn:",
        {},
        sample("mcs/subscription_confirmation"),
        sample("aws/test_event"),
        sample("sns/notification_raw"),
        sample("sns/notification_v1") | {"Type": "Other"},
        sample("sns/notification_v1") | {"Type": ["Notification"]},
        sample("sns/notification_v1") | {"Type": None},
        sample("sns/notification_v1") | {"TopicArn": None},
        sample("sns/notification_v1") | {"TopicArn": ["arn:"]},
        sample("sns/notification_v1") | {"TopicArn": "mcs1|photos|s3:ObjectCreated:*"},
        sample("sns/subscription_confirmation") | {"TopicArn": "arn:x|photos|s3:ObjectCreated:*"},
    ],
)
def test_what_is_no_envelope_is_somebody_elses_to_read(body: object) -> None:
    assert parse(body) is None


@pytest.mark.parametrize("topic", [topic for _, topic, *_ in PUBLISHED])
def test_each_of_two_confirmations_is_taken_by_the_right_one(topic: str) -> None:
    ours = sample("mcs/subscription_confirmation") | {"TopicArn": topic}
    assert parse(ours) is None
    assert handshake.parse(ours) is not None
    theirs = sample("sns/subscription_confirmation")
    assert opened(theirs).topic == TOPIC
    with pytest.raises(Unreadable):
        handshake.parse(theirs)


NEEDED = {
    "notification_v2": [
        "Message",
        "MessageId",
        "Timestamp",
        "Signature",
        "SignatureVersion",
        "SigningCertURL",
    ],
    "subscription_confirmation": ["SubscribeURL", "Token"],
    "unsubscribe_confirmation": ["SubscribeURL", "Token"],
}


@pytest.mark.parametrize("value", [None, 1, True, [], ["x"], {}, "\ud800"], ids=repr)
@pytest.mark.parametrize(("name", "field"), [(name, field) for name in NEEDED for field in NEEDED[name]])
def test_a_field_that_is_missing_or_no_text_makes_it_no_hook(name: str, field: str, value: object) -> None:
    with pytest.raises(Unreadable, match=field):
        parse(sample(f"sns/{name}") | {field: value})


@pytest.mark.parametrize("field", ["MessageId", "Subject", "Timestamp", "Signature", "SigningCertURL"])
@pytest.mark.parametrize("end", ["\n", "\r", "\x00", "\x7f"])
def test_no_field_but_the_message_has_control_characters(field: str, end: str) -> None:
    body = sample("sns/notification_v2")
    with pytest.raises(Unreadable, match=field):
        parse(body | {field: body[field] + end})


def test_a_message_cannot_pass_for_other_fields() -> None:
    """Both would be signed alike if a field might hold a line's end."""
    body = sample("sns/notification_v2")
    stretched = body | {"Message": "x", "MessageId": f"y\nMessageId\n{body['MessageId']}"}
    assert string_to_sign(stretched) == string_to_sign(body | {"Message": "x\nMessageId\ny"})
    with pytest.raises(Unreadable):
        parse(stretched)


@pytest.mark.parametrize(
    "signature", ["", "?", "AAA", "AAAA=", "AA AA", "AAAA\u00e9", "-_-_", "AAAA=AAA", "AAB="]
)
def test_a_signature_that_is_not_base64_is_none(signature: str) -> None:
    with pytest.raises(BadSignature, match="Signature"):
        parse(sample("sns/notification_v2") | {"Signature": signature})


@pytest.mark.parametrize("version", ["", "0", "3", "01", "1.0", " 1", "１"])
def test_a_version_that_nobody_knows_is_refused(version: str) -> None:
    with pytest.raises(Unreadable, match="SignatureVersion"):
        parse(sample("sns/notification_v2") | {"SignatureVersion": version})


TEXT = st.text(st.characters(codec=None), max_size=30)
ODD = st.none() | st.booleans() | st.integers() | TEXT | st.lists(TEXT) | st.dictionaries(TEXT, TEXT)
URLS = st.sampled_from(certificate_look_alikes() + subscribe_look_alikes())
TOPICS = st.builds("arn:{}:sns:{}:123456789012:{}".format, TEXT, TEXT, TEXT)
FIELDS = sorted({field for name in ENVELOPES for field in sample(name)})


@st.composite
def envelopes(draw: st.DrawFn) -> Any:
    """A sample of which some fields are replaced or gone."""
    body = sample(draw(st.sampled_from(ENVELOPES)))
    body |= draw(st.dictionaries(st.sampled_from(FIELDS), ODD | URLS | TOPICS, max_size=4))
    for field in draw(st.sets(st.sampled_from(FIELDS), max_size=2)):
        body.pop(field, None)
    return body


@given(envelopes() | ODD)
def test_whatever_comes_is_an_envelope_or_none_or_refused(body: Any) -> None:
    with suppress(BadRequest, Unreadable):
        envelope = parse(json.loads(json.dumps(body)))
        if envelope is not None:
            host = find_host(envelope.topic)
            assert envelope.certificate_url.startswith((f"https://{host}/", f"https://{host}:443/"))
            assert envelope.signed.decode() == string_to_sign(
                {key: value for key, value in body.items() if value is not None}
            )
