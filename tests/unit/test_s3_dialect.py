"""S3 event records as each sender writes them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Unreadable
from common.task import Claim
from receiver.dialects.s3 import MAX_KEY, MAX_NAME, NAMELESS, Event, changes_nothing, keys, parse, records
from tests.lab.keys import AWKWARD, LONG, as_aws, as_it_is, as_minio
from tests.lab.samples import names, sample

CREATED, REMOVED = Claim.CREATED, Claim.REMOVED

SAMPLES = [
    # sample, bucket, key as written, claim, etag
    ("mcs/object_created", "bucketA", "some-file-to-bucket", CREATED, "aed563ecafb4bcc5654c597a421547b2"),
    ("mcs/object_removed", "bucketA", "some-file-to-bucket", REMOVED, None),
    ("mcs/object_acl", "bucketA", "some-file-to-bucket", None, "aed563ecafb4bcc5654c597a421547b2"),
    ("mcs/lifecycle_expiration", "bucketA", "old/2019.log", REMOVED, None),
    (
        "aws/object_created_put",
        "photos",
        "summer+2024/caf%C3%A9+%2B+1.jpg",
        CREATED,
        "d41d8cd98f00b204e9800998ecf8427e",
    ),
    ("aws/object_created_multipart", "photos", "video.mp4", CREATED, "9b2cf535f27731c974343645a3985328-7"),
    (
        "aws/object_removed_marker",
        "photos",
        "summer+2024/caf%C3%A9+%2B+1.jpg",
        REMOVED,
        "d41d8cd98f00b204e9800998ecf8427e",
    ),
    ("aws/lifecycle_expiration", "photos", "logs/2023-01-01.gz", REMOVED, None),
    ("aws/object_tagging", "photos", "photo.jpg", None, "d41d8cd98f00b204e9800998ecf8427e"),
    ("minio/object_created_put", "photos", "summer%2Fa+b.jpg", CREATED, "5eb63bbbe01eeed093cb22bb8f5acdc3"),
    ("minio/object_removed", "photos", "summer%2Fa+b.jpg", REMOVED, None),
    ("ceph/object_created_put", "photos", "a+b%20c/日本.txt", CREATED, "37b51d194a7513e45b56f6524f2d51f2"),
    ("ceph/object_created_multipart", "photos", "disk.img", CREATED, "1a79a4d60de6718e8e5b326e338ae533-2"),
    ("ceph/lifecycle_expiration", "photos", "logs/2023 01 01.gz", REMOVED, None),
    ("ceph/object_removed", "photos", "a+b%20c/日本.txt", REMOVED, None),
    ("plain/object_created_bare", "photos", "bare/a b.txt", CREATED, None),
    ("plain/object_created_loose", "photos", "a%2Fb+c%252B.txt", CREATED, "37b51d194a7513e45b56f6524f2d51f2"),
    (
        "sns/notification_raw",
        "photos",
        "summer+2024/caf%C3%A9+%2B+1.jpg",
        CREATED,
        "d41d8cd98f00b204e9800998ecf8427e",
    ),
]
OF_NO_KEY = {"mcs/subscription_confirmation", "aws/test_event", "plain/test_event_record"}
ENVELOPES = {
    "sns/subscription_confirmation",
    "sns/unsubscribe_confirmation",
    "sns/notification_v1",
    "sns/notification_v2",
    "sns/notification_test_event",
}
"""Read by tests of `receiver.dialects.sns`."""


@pytest.mark.parametrize(("name", "bucket", "key", "claim", "etag"), SAMPLES)
def test_the_record_of_each_sender_is_understood(
    name: str, bucket: str, key: str, claim: Claim | None, etag: str | None
) -> None:
    body = sample(name)
    [record] = records(body)
    event = parse(record)
    assert replace(event, size=None) == Event(body["Records"][0]["eventName"], bucket, key, claim, etag)
    said = body["Records"][0]["s3"]["object"].get("size")
    assert event.size == (None if said is None else int(said))


def test_every_sample_on_disk_is_in_a_table() -> None:
    assert set(names()) == {name for name, *_ in SAMPLES} | OF_NO_KEY | ENVELOPES


def is_hex(sequencer: object) -> bool:
    return isinstance(sequencer, str) and int(sequencer, 16) > 0


def is_created(record: Any) -> bool:
    return parse(record).claim is CREATED


VARIANTS: dict[str, Callable[[Any], bool]] = {
    "a sequencer that is a number": lambda record: isinstance(about(record).get("sequencer"), int),
    "a hex sequencer": lambda record: is_hex(about(record).get("sequencer")),
    "no sequencer": lambda record: "sequencer" not in about(record),
    "a creation without an eTag": lambda record: is_created(record) and not parse(record).etag,
    "a creation without a size": lambda record: is_created(record) and "size" not in about(record),
    "a removal without an eTag": lambda record: not is_created(record) and "eTag" not in about(record),
    "a removal without a size": lambda record: not is_created(record) and "size" not in about(record),
    "etag": lambda record: bool(about(record).get("etag")),
    "eTag": lambda record: bool(about(record).get("eTag")),
    "a quoted etag": lambda record: about(record).get("etag", "").startswith('"'),
    "a size that is a number": lambda record: isinstance(about(record).get("size"), int),
    "a size that is a string": lambda record: isinstance(about(record).get("size"), str),
    "a form-encoded key": lambda record: "%2B" in about(record)["key"] and "+" in about(record)["key"],
    "a key with its slash encoded": lambda record: "%2F" in about(record)["key"],
    "a raw key": lambda record: not about(record)["key"].isascii(),
    "a name with its prefix": lambda record: record["eventName"].startswith("s3:"),
    "a name without its prefix": lambda record: record["eventName"].startswith("Object"),
}


def about(record: Any) -> Any:
    """The part of a record that is about the object."""
    return record["s3"]["object"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_that_senders_write_is_in_a_sample_on_disk(variant: str) -> None:
    found = [name for name, *_ in SAMPLES if any(map(VARIANTS[variant], records(sample(name))))]
    assert found


def test_a_test_event_comes_alone_or_as_a_record() -> None:
    [record] = records(sample("plain/test_event_record"))
    assert changes_nothing(record)
    assert records(sample("aws/test_event")) == []


def record(name: object = "s3:ObjectCreated:Put", **changes: object) -> dict[str, object]:
    """A record with what is needed and no more; `changes` are of its object."""
    return {"eventName": name, "s3": {"bucket": {"name": "b"}, "object": {"key": "k", **changes}}}


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("s3:ObjectCreated:*", CREATED),
        ("s3:ObjectCreated:Put", CREATED),
        ("s3:ObjectCreated:Post", CREATED),
        ("s3:ObjectCreated:Copy", CREATED),
        ("s3:ObjectCreated:CompleteMultipartUpload", CREATED),
        ("ObjectCreated:Put", CREATED),  # Ceph and AWS leave the prefix out
        ("PutObject", CREATED),  # MCS's console
        ("CompleteMultipartUpload", CREATED),
        ("s3:ObjectSynced:Create", CREATED),  # Ceph's, of another zone
        ("ObjectSynced:Delete", REMOVED),
        ("ObjectSynced:DeletionMarkerCreated", REMOVED),
        ("s3:ObjectRemoved:*", REMOVED),
        ("s3:ObjectRemoved:Delete", REMOVED),
        ("s3:ObjectRemoved:DeleteMarkerCreated", REMOVED),
        ("ObjectRemoved:Delete", REMOVED),
        ("DeleteObject", REMOVED),
        ("OBJECT_DELETE", REMOVED),  # Google's
        ("s3:LifecycleExpiration:Delete", REMOVED),
        ("s3:LifecycleExpiration:DeleteMarkerCreated", REMOVED),
        ("s3:ObjectLifecycle:Expiration:Current", REMOVED),  # Ceph's
        ("ObjectLifecycle:Expiration:DeleteMarker", REMOVED),
        ("ObjectLifecycle:Expiration:Noncurrent", None),
        ("ObjectLifecycle:Transition:Current", None),
        ("s3:ObjectTagging:Put", None),
        ("s3:ObjectTagging:Delete", None),
        ("DeleteObjectTagging", None),
        ("PutObjectTagging", None),
        ("s3:ObjectCreated:DeleteTagging", None),  # MinIO's
        ("s3:ObjectCreated:PutRetention", None),
        ("PutObjectAcl", None),
        ("s3:ObjectAcl:Put", None),
        ("s3:ObjectRestore:Completed", None),
        ("s3:ObjectRestore:Post", None),
        ("s3:ObjectRestore:Delete", None),
        ("AbortMultipartUpload", None),
        ("s3:ReducedRedundancyLostObject", None),
        ("s3:SomethingNew:Happened", None),
        ("objectcreated", None),
        ("ObjectCreated:写", None),
        ("look", None),
        ("s3:*", None),
        (":", None),
    ],
)
def test_every_name_makes_a_hint_and_claims_what_all_its_parts_say(name: str, claim: Claim | None) -> None:
    event = parse(record(name))
    assert (event.bucket, event.key, event.claim) == ("b", "k", claim)
    assert not changes_nothing(record(name))
    assert event.name == (NAMELESS if name == "look" else name)  # tasks that no hook brought are called so


@pytest.mark.parametrize("name", [None, 5, "", ["ObjectCreated:Put"], "\ud83d", "x" * 200_000])
def test_a_record_without_a_name_for_its_event_is_a_hint_too(name: object) -> None:
    event = parse(record(name))
    assert (event.key, event.claim) == ("k", None)
    assert 0 < len(event.name.encode()) <= MAX_NAME


@pytest.mark.parametrize(
    "name",
    [
        "s3:TestEvent",
        "TestEvent",
        "s3:Replication:OperationFailedReplication",
        "s3:Replication:*",
        "Replication:x",
    ],
)
def test_what_is_known_to_change_nothing_needs_neither_bucket_nor_key(name: str) -> None:
    assert changes_nothing({"eventName": name})
    assert changes_nothing(record(name))


@pytest.mark.parametrize(
    ("changes", "etag"),
    [
        ({"eTag": "abc"}, "abc"),
        ({"etag": "abc"}, "abc"),
        ({"eTag": '"abc"'}, "abc"),
        ({"eTag": "", "etag": "abc"}, "abc"),
        ({"eTag": None}, None),
        ({"eTag": "\ud83d"}, None),  # a hint: the record is as good without it
        ({"eTag": "\ud83d", "etag": "abc"}, "abc"),
        ({"eTag": "a" * 257}, None),
        ({"eTag": 17}, None),
        ({}, None),
    ],
)
def test_the_etag_may_be_written_in_every_way_or_be_missing(
    changes: dict[str, object], etag: str | None
) -> None:
    assert parse(record(**changes)).etag == etag


@pytest.mark.parametrize("size", [0, 100, "100", "", None, -1, 1e9, [], {}])
@pytest.mark.parametrize("sequencer", [1577453615, "0055AED6DCD90281E5", None, 1.5])
def test_size_and_sequencer_are_nobodys_business(size: object, sequencer: object) -> None:
    assert parse(record(size=size, sequencer=sequencer)).key == "k"


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (None, "s3.bucket.name"),
        ("text", "s3.bucket.name"),
        ([], "s3.bucket.name"),
        ({}, "s3.bucket.name"),
        ({"eventName": "ObjectCreated:Put"}, "s3.bucket.name"),
        ({"eventName": "ObjectCreated:Put", "s3": "x"}, "s3.bucket.name"),
        ({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}}}, "s3.object.key"),
        ({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": []}}, "s3.object.key"),
        (record(key=""), "s3.object.key"),
        (record(key=12), "s3.object.key"),
        (record(key=["k"]), "s3.object.key"),
        (record(key="\ud83d"), "surrogate"),
        (record(key="x" * (3 * MAX_KEY + 1)), "s3.object.key"),
        (record(key="é" * (2 * MAX_KEY)), "s3.object.key"),
    ],
)
def test_a_record_that_names_no_key_is_unreadable_and_says_where(broken: object, named: str) -> None:
    with pytest.raises(Unreadable, match=named):
        parse(broken)


def test_the_longest_key_there_is_is_read_even_when_all_of_it_is_encoded() -> None:
    written = "%C3%A9" * (MAX_KEY // 2)
    assert keys(parse(record(key=written)).key, "url") == ["é" * (MAX_KEY // 2)]


@pytest.mark.parametrize("key", LONG)
def test_a_reading_longer_than_any_key_is_none(key: str) -> None:
    assert keys(as_aws(key), "auto") == keys(key, "auto") == [key]
    assert keys(f"+{key}", "auto") == []


@pytest.mark.parametrize("written", ["x" * (MAX_KEY + 1), "é" * MAX_KEY, "a\0b"])
def test_what_no_store_can_hold_is_no_reading_unless_the_operator_says_how_keys_are_written(
    written: str,
) -> None:
    assert keys(written, "auto") == []
    assert keys(written, "raw") == keys(written, "url") == [written]


def test_the_awkward_keys_are_legal_many_and_stand_for_one_another() -> None:
    assert len(set(AWKWARD)) == len(AWKWARD) >= 64
    assert max(len(key.encode()) for key in AWKWARD) == MAX_KEY
    confused = [key for key in AWKWARD if ({*keys(key, "auto")} - {key}) & {*AWKWARD}]
    assert len(confused) >= 6


@pytest.mark.parametrize("key", AWKWARD)
def test_an_awkward_key_is_among_the_readings_of_every_way_to_write_it(key: str) -> None:
    assert keys(key, "raw") == [key]
    for write in (as_aws, as_minio):
        assert keys(write(key), "url") == [key]
    for write in (as_it_is, as_aws, as_minio):
        assert (key in keys(write(key), "auto")) is ("\0" not in key)


@pytest.mark.parametrize(
    "body",
    [None, 1, "x", [], [{}], {}, {"Records": []}, {"Records": {}}, {"Records": "x"}, {"records": [{}]}],
)
def test_a_body_without_records_is_no_hook(body: object) -> None:
    with pytest.raises(Unreadable, match=r"no list of records|no hook: "):
        records(body)


@pytest.mark.parametrize(
    "event", [[], {}, [["s3:TestEvent"]], {"s3:TestEvent": 1}, 1, None, True, "s3:Other"]
)
def test_a_lone_event_of_any_other_kind_is_no_hook(event: object) -> None:
    with pytest.raises(Unreadable):
        records({"Event": event})


@pytest.mark.parametrize(
    ("written", "raw", "url", "auto"),
    [
        ("plain.txt", ["plain.txt"], ["plain.txt"], ["plain.txt"]),
        ("a+b", ["a+b"], ["a b"], ["a+b", "a b"]),
        ("a%2Bb", ["a%2Bb"], ["a+b"], ["a%2Bb", "a+b"]),
        ("a%20b", ["a%20b"], ["a b"], ["a%20b", "a b"]),
        ("a%2Fb", ["a%2Fb"], ["a/b"], ["a%2Fb", "a/b"]),
        ("a b", ["a b"], ["a b"], ["a b"]),
        ("100%", ["100%"], ["100%"], ["100%"]),
        ("%zz", ["%zz"], ["%zz"], ["%zz"]),
        ("%zz+1", ["%zz+1"], ["%zz 1"], ["%zz+1", "%zz 1"]),
        ("%25", ["%25"], ["%"], ["%25", "%"]),
        ("%2525", ["%2525"], ["%25"], ["%2525", "%25"]),  # decoded once, not for ever
        ("%FF", ["%FF"], ["%FF"], ["%FF"]),  # what is not UTF-8 was not encoded
        ("%C3", ["%C3"], ["%C3"], ["%C3"]),
        ("%C3%A9", ["%C3%A9"], ["é"], ["%C3%A9", "é"]),
        ("%c3%a9", ["%c3%a9"], ["é"], ["%c3%a9", "é"]),
        ("é", ["é"], ["é"], ["é"]),  # NFC stays
        ("e\u0301", ["e\u0301"], ["e\u0301"], ["e\u0301"]),  # and NFD stays
        ("e%CC%81", ["e%CC%81"], ["e\u0301"], ["e%CC%81", "e\u0301"]),
        ("//a//", ["//a//"], ["//a//"], ["//a//"]),
        ("./../a", ["./../a"], ["./../a"], ["./../a"]),
        ("%0A%0D", ["%0A%0D"], ["\n\r"], ["%0A%0D", "\n\r"]),
        ("%00%0A", ["%00%0A"], ["\0\n"], ["%00%0A"]),  # no store holds a key with a NUL
    ],
)
def test_the_keys_that_a_written_key_may_mean(
    written: str, raw: list[str], url: list[str], auto: list[str]
) -> None:
    assert (keys(written, "raw"), keys(written, "url"), keys(written, "auto")) == (raw, url, auto)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
NAMES = st.sampled_from(
    ["s3:ObjectCreated:Put", "ObjectRemoved:Delete", "s3:TestEvent", "s3:ObjectTagging:Put"]
)
NEARLY_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "eventName": NAMES | JSON,
        "s3": st.fixed_dictionaries(
            {},
            optional={
                "bucket": st.fixed_dictionaries({}, optional={"name": st.text() | JSON}) | JSON,
                "object": st.fixed_dictionaries(
                    {}, optional={"key": st.text() | JSON, "eTag": JSON, "etag": JSON}
                )
                | JSON,
            },
        )
        | JSON,
    },
)


@given(NEARLY_RECORDS | JSON)
def test_any_json_value_is_an_event_or_unreadable(value: object) -> None:
    try:
        event = parse(value)
    except Unreadable:
        return
    assert event.bucket
    assert event.key
    "".join([event.name, event.bucket, event.key]).encode()


@given(JSON | st.fixed_dictionaries({}, optional={"Records": JSON, "Event": JSON}))
def test_any_json_value_has_records_or_is_no_hook(value: object) -> None:
    try:
        found = records(value)
    except Unreadable:
        return
    assert isinstance(found, list)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.sampled_from(["raw", "auto"]),
)
def test_a_key_always_has_a_reading_and_every_reading_is_a_text_that_can_be_sent(
    written: str, encoding: str
) -> None:
    found = keys(written, encoding)
    assert found or len(written.encode()) > MAX_KEY
    assert len(set(found)) == len(found)
    for key in found:
        assert key
        key.encode()
