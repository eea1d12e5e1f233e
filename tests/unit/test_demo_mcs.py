"""What the stand-in for MCS says and understands, without any server."""

import pytest

from demo import events
from demo.events import Happened, S3Request, Subscription
from tests.lab.samples import PUBLISHED

MIRROR = Subscription("1", "http://h/w", ("s3:ObjectCreated:*", "s3:ObjectRemoved:*"))


@pytest.mark.parametrize(
    ("method", "path", "event"),
    [
        ("PUT", "/b/k", "s3:ObjectCreated:Put"),
        ("PUT", "/b/k?x-id=PutObject", "s3:ObjectCreated:Put"),
        ("PUT", "/b/a%3Fpart%20uploads", "s3:ObjectCreated:Put"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", None),
        ("PUT", "/b/k?tagging", "s3:ObjectTagging:Put"),
        ("PUT", "/b/k?tagging=", "s3:ObjectTagging:Put"),
        ("PUT", "/b/k?acl", "s3:ObjectAcl:Put"),
        ("PUT", "/b/k?retention", None),
        ("PUT", "/b", None),
        ("PUT", "/b/", None),
        ("POST", "/b/k?uploads", None),
        ("POST", "/b/k?uploadId=u", "s3:ObjectCreated:CompleteMultipartUpload"),
        ("POST", "/b?delete", None),
        ("DELETE", "/b/k", "s3:ObjectRemoved:Delete"),
        ("DELETE", "/b/k?uploadId=u", None),
        ("DELETE", "/b/k?tagging", "s3:ObjectTagging:Delete"),
        ("DELETE", "/b", None),
        ("GET", "/b/k", None),
        ("HEAD", "/b/k", None),
    ],
)
def test_each_request_is_the_event_it_should_be(method: str, path: str, event: str | None) -> None:
    assert S3Request.read(method, path, {}).event == event


def test_a_put_with_a_source_is_a_copy() -> None:
    copy = S3Request.read("PUT", "/b/k", {"x-amz-copy-source": "/b/other"})
    assert copy.event == "s3:ObjectCreated:Copy"
    assert copy.answered_in_body


def test_the_key_is_decoded_once() -> None:
    asked = S3Request.read("PUT", "/b/a%2Bb%20%2525/%C3%A9%3Fx?x-id=1", {})
    assert (asked.bucket, asked.key) == ("b", "a+b %25/é?x")


def test_a_record_has_the_documented_shape() -> None:
    happened = Happened(
        "s3:ObjectCreated:Put",
        "bucketA",
        "some-file-to-bucket",
        1577453615.7,
        "aed563ecafb4bcc5654c597a421547b2",
        100,
        "185.6.245.156",
        "VGJR5rtJ",
    )
    assert events.record(happened, "1", project="mcs2883541269", region="ru-msk") == {
        "s3": {
            "object": {
                "eTag": "aed563ecafb4bcc5654c597a421547b2",
                "sequencer": 1577453615,
                "key": "some-file-to-bucket",
                "size": 100,
            },
            "configurationId": "1",
            "bucket": {"name": "bucketA", "ownerIdentity": {"principalId": "mcs2883541269"}},
            "s3SchemaVersion": "1.0",
        },
        "eventVersion": "1.0",
        "requestParameters": {"sourceIPAddress": "185.6.245.156"},
        "userIdentity": {"principalId": "2407013e-cbc1-415f-9102-16fb9bd6946b"},
        "eventName": "s3:ObjectCreated:Put",
        "awsRegion": "ru-msk",
        "eventSource": "aws:s3",
        "responseElements": {"x-amz-request-id": "VGJR5rtJ"},
    }


@pytest.mark.parametrize(("url", "topic", "timestamp", "token", "signature"), PUBLISHED)
def test_the_signature_expected_is_the_published_one(
    url: str, topic: str, timestamp: str, token: str, signature: str
) -> None:
    assert events.signature(url, topic, timestamp, token) == signature


def test_a_configuration_survives_the_way_to_xml_and_back() -> None:
    filtered = Subscription("2", "https://h/ü?a=1&b=2", ("s3:ObjectCreated:Put",), "photos & co/", ".jpg")
    assert events.read_configuration(events.write_configuration([MIRROR, filtered])) == [MIRROR, filtered]
    assert events.read_configuration(events.write_configuration([])) == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"not xml", "is not XML"),
        (b"<Other/>", "is no NotificationConfiguration"),
        (b"<NotificationConfiguration><TopicConfiguration/></NotificationConfiguration>", "is not supported"),
        (
            events.write_configuration([Subscription("1", "ftp://h", ("s3:ObjectCreated:*",))]),
            "http or https",
        ),
        (events.write_configuration([Subscription("1", "http://h", ())]), "at least one Event"),
        (events.write_configuration([Subscription("1", "http://h", ("s3:Everything",))]), "is no event"),
    ],
)
def test_a_wrong_configuration_is_refused_with_a_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        events.read_configuration(body)


@pytest.mark.parametrize(
    ("event", "key", "wanted"),
    [
        ("s3:ObjectCreated:Copy", "in/a.jpg", True),
        ("s3:ObjectCreated:Copy", "out/a.jpg", False),
        ("s3:ObjectCreated:Copy", "in/a.png", False),
        ("s3:ObjectRemoved:Delete", "in/a.jpg", False),
        ("s3:ObjectTagging:Put", "in/a.jpg", True),
    ],
)
def test_hooks_are_filtered_by_event_prefix_and_suffix(event: str, key: str, wanted: bool) -> None:
    subscription = Subscription(
        "1", "http://h", ("s3:ObjectCreated:*", "s3:ObjectTagging:Put"), "in/", ".jpg"
    )
    assert subscription.wants(event, key) is wanted


def test_the_keys_of_a_multiple_delete_are_read_from_its_answer() -> None:
    body = (
        b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Deleted><Key>a &amp; b</Key></Deleted>"
        b"<Error><Key>c</Key></Error></DeleteResult>"
    )
    assert events.deleted_keys(body) == ["a & b"]
