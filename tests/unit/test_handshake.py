"""The subscription handshake: what is signed, and what is no confirmation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Unreadable
from receiver.handshake import MAX_TOPIC, Subscription, parse, sign
from tests.lab.samples import PUBLISHED, sample

CONFIRMATION = {
    "Type": "SubscriptionConfirmation",
    "TopicArn": "mcs2883541269|bucketA|s3:ObjectCreated:Put",
    "Timestamp": "2019-12-26T19:29:12+03:00",
    "Token": "RPE5UuG94rGgBH6kHXN9FUPugFxj1hs2aUQc99btJp3E49tA",
}


@pytest.mark.parametrize(("url", "topic", "timestamp", "token", "signature"), PUBLISHED)
def test_the_published_vectors_are_reproduced(
    url: str, topic: str, timestamp: str, token: str, signature: str
) -> None:
    assert sign(url, topic, timestamp, token) == signature


@pytest.mark.parametrize(
    "url", ["http://test.com/", "http://TEST.com", "https://test.com", "http://test.com:80"]
)
def test_the_url_counts_to_the_character(url: str) -> None:
    _, topic, timestamp, token, signature = PUBLISHED[0]
    assert sign(url, topic, timestamp, token) != signature


def test_the_sample_of_the_documentation_is_confirmed_with_its_published_signature() -> None:
    subscription = parse(sample("mcs/subscription_confirmation"))
    assert subscription is not None
    assert subscription.bucket == "bucketA"
    assert subscription.signature("http://test.com") == PUBLISHED[0][-1]


def test_unknown_fields_of_a_confirmation_are_ignored() -> None:
    assert parse({**CONFIRMATION, "SubscribeURL": "https://x.example", "New": [1]}) == Subscription(
        CONFIRMATION["TopicArn"], CONFIRMATION["Timestamp"], CONFIRMATION["Token"]
    )


@pytest.mark.parametrize(
    "kind", [None, "Notification", "subscriptionconfirmation", 1, ["SubscriptionConfirmation"], {}]
)
def test_a_body_of_another_type_asks_for_no_subscription(kind: object) -> None:
    assert parse({**CONFIRMATION, "Type": kind}) is None


@pytest.mark.parametrize("field", ["TopicArn", "Timestamp", "Token"])
@pytest.mark.parametrize("value", ["", None, 7, 1.5, True, [], ["x"], {}, {"a": 1}, "\ud800"])
def test_a_confirmation_with_a_field_that_is_no_text_is_no_hook(field: str, value: object) -> None:
    with pytest.raises(Unreadable, match="TopicArn, Timestamp and Token"):
        parse({**CONFIRMATION, field: value})


@pytest.mark.parametrize("field", ["TopicArn", "Timestamp", "Token"])
def test_a_confirmation_without_a_field_is_no_hook(field: str) -> None:
    with pytest.raises(Unreadable):
        parse({name: value for name, value in CONFIRMATION.items() if name != field})


@pytest.mark.parametrize("topic", ["bucketA", "mcs1|bucketA", "|"])
def test_a_topic_that_names_no_bucket_is_no_hook(topic: str) -> None:
    with pytest.raises(Unreadable, match=r"project\|bucket\|events"):
        parse({**CONFIRMATION, "TopicArn": topic})


def test_a_topic_that_would_fill_the_log_is_no_hook() -> None:
    topic = "mcs1|bucketA|".ljust(MAX_TOPIC, "x")
    assert parse({**CONFIRMATION, "TopicArn": topic})
    with pytest.raises(Unreadable, match=str(MAX_TOPIC)):
        parse({**CONFIRMATION, "TopicArn": topic + "x"})


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(
    st.dictionaries(st.text(), VALUES),
    st.fixed_dictionaries(
        {},
        optional={
            "Type": st.just("SubscriptionConfirmation") | VALUES,
            "TopicArn": st.from_regex(r"[^|]*(\|[^|]*){0,4}") | VALUES,
            "Timestamp": VALUES,
            "Token": VALUES,
        },
    ),
)
def test_any_object_is_a_subscription_or_none_or_no_hook(
    noise: dict[str, object], fields: dict[str, object]
) -> None:
    try:
        subscription = parse(noise | fields)
    except Unreadable:
        return
    if subscription is not None:
        assert len(subscription.signature("http://test.com")) == 64
        assert "|" not in subscription.bucket
