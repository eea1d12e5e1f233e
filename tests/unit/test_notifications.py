"""Notification configurations: what is read of them, and that nothing of others' changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.store.notifications import EMPTY, NAMESPACE, SIMPLE, Configuration, Hook

OURS = Hook(SIMPLE, "hookmirror-1", "http://h/?a=1&b=<2>", ("s3:ObjectCreated:*",), "a&<b\r\n>/", " .jpg")

MIXED = """\ufeff<?xml version="1.0" encoding="UTF-8"?>
<!-- of the team --><NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <TopicConfiguration><Id>t</Id><Topic>arn:aws:sns:eu:1:t</Topic><Event>s3:ObjectCreated:Put</Event>
    <Filter><S3Key><FilterRule><Name>prefix</Name><Value>é&amp;/</Value></FilterRule></S3Key></Filter>
  </TopicConfiguration>
  <SimpleTopicConfiguration ><Url>http://hand</Url><Id>1</Id><Event>s3:ObjectRemoved:*</Event
  ></SimpleTopicConfiguration ><!-- after --><QueueConfiguration>
    <Queue><![CDATA[q]]></Queue></QueueConfiguration>
  <CloudFunctionConfiguration><CloudFunction>f</CloudFunction></CloudFunctionConfiguration>text
  <EventBridgeConfiguration a="/>"/><Unheard xmlns="urn:x"><y:Of xmlns:y="urn:y"/></Unheard>
</NotificationConfiguration>
<!-- end -->
""".encode()

OTHERS = st.sampled_from(
    [
        "<SimpleTopicConfiguration><Id>7</Id><Url>http://other</Url></SimpleTopicConfiguration>",
        "<QueueConfiguration><Queue>q</Queue></QueueConfiguration>",
        "<EventBridgeConfiguration/>",
        "<!-- <Id>no</Id> -->",
        "\n  ",
        "<?pi >?>",
        "<Unheard a='>'>é<![CDATA[</Unheard>]]></Unheard>",
        "&#233;",
    ]
)


def test_every_kind_is_read() -> None:
    read = Configuration.read(MIXED)
    assert [(hook.kind, hook.id, hook.target) for hook in read.hooks] == [
        ("TopicConfiguration", "t", "arn:aws:sns:eu:1:t"),
        (SIMPLE, "1", "http://hand"),
        ("QueueConfiguration", "", "q"),
        ("CloudFunctionConfiguration", "", "f"),
        ("EventBridgeConfiguration", "", ""),
        ("Unheard", "", ""),
    ]
    assert (read.hooks[0].prefix, read.hooks[0].suffix) == ("é&/", "")
    assert read.hooks[1].events == ("s3:ObjectRemoved:*",)


def test_what_is_not_changed_keeps_every_byte() -> None:
    read = Configuration.read(MIXED)
    cut = b"""<SimpleTopicConfiguration ><Url>http://hand</Url><Id>1</Id><Event>s3:ObjectRemoved:*</Event
  ></SimpleTopicConfiguration >"""
    changed = read.changed(without=[read.hooks[1]], added=[OURS])
    before, after = MIXED.split(cut)
    assert changed.startswith(before)
    rest = changed.removeprefix(before)
    at = rest.index(b"<SimpleTopic")
    assert rest[:at] + rest[rest.index(b"</NotificationC") :] == after
    assert Configuration.read(changed).hooks == (read.hooks[0], *read.hooks[2:], OURS)


@given(st.lists(OTHERS, max_size=8), st.sampled_from(["", "n:"]))
def test_adding_and_taking_back_leaves_no_trace(parts: list[str], prefix: str) -> None:
    name = f"{prefix}NotificationConfiguration"
    body = f'<{name} xmlns{":n" if prefix else ""}="{NAMESPACE}">{"".join(parts)}</{name}>'.encode()
    read = Configuration.read(body)
    added = Configuration.read(read.changed(without=(), added=[OURS, OURS]))
    assert added.hooks == (*read.hooks, OURS, OURS)
    assert added.changed(without=[OURS], added=()) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        EMPTY,
        b"<NotificationConfiguration />",
        b"<NotificationConfiguration></NotificationConfiguration>",
        b'<n:NotificationConfiguration xmlns:n="urn:n"/><!-- end -->\n',
        b"<?xml version='1.0' encoding='utf-8'?><NotificationConfiguration> </NotificationConfiguration>\n",
    ],
)
def test_the_first_hook_goes_into_an_empty_configuration(body: bytes) -> None:
    read = Configuration.read(body)
    assert read.hooks == ()
    added = Configuration.read(read.changed(without=(), added=[OURS]))
    assert added.hooks == (OURS,)
    assert Configuration.read(added.changed(without=[OURS], added=())).hooks == ()


def test_an_entry_of_ours_is_in_the_namespace_of_s3_whatever_the_root_is_called() -> None:
    body = f'<n:NotificationConfiguration xmlns:n="{NAMESPACE}"></n:NotificationConfiguration>'.encode()
    changed = Configuration.read(body).changed(without=(), added=[OURS])
    assert f'<{SIMPLE} xmlns="{NAMESPACE}">'.encode() in changed


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<NotificationConfiguration>", "not XML"),
        (b"never", "not XML"),
        (b"<ListBucketResult/>", "<ListBucketResult> is no NotificationConfiguration"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><NotificationConfiguration/>', "DOCTYPE"),
        ("<NotificationConfiguration/>".encode("utf-16-le"), "UTF-8"),
        (b'<?xml version="1.0" encoding="latin-1"?><NotificationConfiguration/>', "this is latin-1"),
    ],
)
def test_what_is_no_configuration_is_refused_with_a_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Configuration.read(body)


def test_a_prefix_that_xml_cannot_hold_is_refused() -> None:
    hook = Hook(SIMPLE, "1", "http://h", ("s3:ObjectCreated:*",), prefix="a\x01b")
    with pytest.raises(ValueError, match=r"'a\\x01b' has a character"):
        Configuration.read(b"").changed(without=(), added=[hook])
