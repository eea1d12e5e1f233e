"""The mark on a copy: whose copy it is, of what."""

import base64
import hashlib
from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.store.mark import (
    PUT_WITHIN,
    Body,
    Kind,
    Mark,
    content_of,
    identity_of,
    mark_for,
    mark_on,
    origin_of,
    proven_md5,
    written_at,
)
from common.store.port import MARK, State
from worker.fidelity import MAX_METADATA, marked

HERE = origin_of("hb.vkcloud-storage.ru/photos")
MD5 = hashlib.md5(b"body", usedforsecurity=False).hexdigest()
SOURCE = State(MD5, 4, "Mon, 01 Jan 2024 00:00:10 GMT", "v1", {"content-type": "a/b"}, {"owner": "me"})
NEW_YEAR = 1_704_067_200
NO_KEY = hashlib.sha256(b"").digest()[:2]


def carrying(text: str, etag: str = MD5) -> State:
    """A target's object with this mark."""
    return State(etag, 4, "later", metadata={MARK: text})


def test_a_mark_tells_origin_identity_content_age_and_bytes() -> None:
    mark = mark_on(carrying(str(mark_for(SOURCE, HERE, body=Body.of(MD5, 4)))))
    assert mark == Mark(HERE, identity_of(SOURCE), content_of(SOURCE), NEW_YEAR + 10, Body.of(MD5, 4), NO_KEY)


def test_a_mark_is_the_same_for_ever() -> None:
    """It is on millions of objects: another form would have them all written again."""
    assert str(mark_for(SOURCE, HERE, body=Body.of(MD5, 4))) == "A9pbvKcV8O60ALWhkqEkbnDNZZIAioQaLWjjsAAA"


text = st.text(st.characters(exclude_categories=()), max_size=40)
md5s = st.just("") | st.binary(min_size=16, max_size=16).map(bytes.hex)
states = st.builds(
    State,
    etag=text,
    size=st.integers(0, 2**60),
    last_modified=text,
    version=text,
    headers=st.dictionaries(text, text, max_size=2),
    metadata=st.dictionaries(text, text, max_size=2),
    tags=text,
)


@given(states, text, md5s, st.none() | st.integers(0, 2**40))
def test_every_mark_is_forty_characters_of_ascii_and_is_read_as_it_was_written(
    source: State, place: str, md5: str, written: int | None
) -> None:
    origin = origin_of(place.encode(errors="replace").decode())
    mark = mark_for(source, origin, body=Body.of(md5, 4), written=written)
    assert len(str(mark)) == 40
    assert str(mark).isascii()
    assert mark_on(carrying(str(mark), md5 or "etag-2")) == mark


@given(text)
def test_nothing_that_stands_where_a_mark_does_raises(what: str) -> None:
    mark_on(carrying(what))
    written_at(what)


def packed(version: int, rest: int = 29) -> str:
    return base64.urlsafe_b64encode(bytes([version]) + bytes(rest)).decode()


@pytest.mark.parametrize(
    "rubbish",
    ["", "x", ";", ";;;", "a;b;c;d;e;f", "x" * 39, "x" * 41, "é" * 40, packed(1), packed(3), packed(2, 28)],
)
def test_what_is_no_mark_is_none(rubbish: str) -> None:
    assert mark_on(carrying(rubbish)) is None


def test_an_object_without_our_metadata_has_no_mark() -> None:
    assert mark_on(State(MD5, 4, metadata={"owner": "me"})) is None


@pytest.mark.parametrize(
    "source",
    [
        SOURCE,
        State("etag-2", 10, "Mon, 01 Jan 2024 00:00:10 GMT"),
        State("", 0),
        State("\udcff", 1, "\udcff"),
        State("\ud800", 1),
    ],
)
def test_an_older_mark_tells_identity_content_and_age_but_no_origin(source: State) -> None:
    mark = mark_on(State("whatever", source.size, metadata={MARK: source.identity}))
    assert mark == Mark(None, identity_of(source), content_of(source), written_at(source.last_modified))


def test_a_mark_on_other_bytes_than_it_was_written_with_is_none() -> None:
    mark = str(mark_for(SOURCE, HERE, body=Body.of(MD5, 4)))
    other = hashlib.md5(b"evil", usedforsecurity=False).hexdigest()
    assert mark_on(carrying(mark)) is not None
    assert mark_on(carrying(mark, other)) is None


def test_a_mark_that_was_copied_to_another_key_is_none() -> None:
    """A copy that is copied or renamed on its own side takes the mark along: it is an object of that side."""
    text = str(mark_for(SOURCE, HERE, key="a", body=Body.of(MD5, 4)))
    there = replace(carrying(text), key="a")
    assert mark_on(there) is not None
    assert mark_on(replace(there, key="b")) is None


@pytest.mark.parametrize(
    ("body", "etag", "ours"),
    [
        (Body.of(MD5, 4), f"{MD5}-2", False),
        (Body.of("", 4, parts=True), f"{MD5}-2", True),
        (Body.of("", 4, parts=True), MD5, False),
        (Body.of("", 4, parts=True), "etag", True),
        (Body.of("", 4), f"{MD5}-2", True),
        (Body.of("", 4), MD5, True),
    ],
    ids=str,
)
def test_a_mark_on_bytes_that_came_in_another_way_is_none(body: Body, etag: str, ours: bool) -> None:
    """What was sent whole and has the ETag of parts now, or the other way round, was replaced."""
    there = carrying(str(mark_for(SOURCE, HERE, body=body)), etag)
    assert (mark_on(there) is not None) == ours
    assert mark_on(replace(there, opaque=True)) is not None


@pytest.mark.parametrize("parts", [False, True])
def test_a_mark_on_bytes_of_another_number_is_none(parts: bool) -> None:
    there = carrying(str(mark_for(SOURCE, HERE, body=Body.of("", 4, parts=parts))), "etag-2")
    assert mark_on(there) is not None
    assert mark_on(replace(there, size=5)) is None
    assert mark_on(replace(there, size=5, opaque=True)) is None


@pytest.mark.parametrize(
    ("seconds", "ours"),
    [
        (0, True),
        (PUT_WITHIN, True),
        (-PUT_WITHIN, True),
        (PUT_WITHIN + 1, False),
        (-PUT_WITHIN - 1, False),
    ],
)
@pytest.mark.parametrize("began", [NEW_YEAR, NEW_YEAR // 65536 * 65536 + 1, 65535.9])
def test_a_mark_on_an_object_that_was_written_again_later_is_none(
    began: float, seconds: int, ours: bool
) -> None:
    """Renamed and back, or restored: the same bytes at the same key are another object."""
    text = str(mark_for(SOURCE, HERE, body=Body.of(MD5, 4), put=began))
    there = replace(carrying(text), last_modified=formatdate(int(began) + seconds, usegmt=True))
    assert (mark_on(there) is not None) == ours
    assert mark_on(replace(there, etag="etag-1-2", opaque=True)) is not None


@pytest.mark.parametrize(
    "target", [{"etag": "etag-2"}, {"etag": ""}, {"etag": MD5[::-1], "opaque": True}], ids=str
)
def test_an_etag_that_tells_nothing_of_the_bytes_voids_no_mark(target: dict[str, object]) -> None:
    mark = mark_for(SOURCE, HERE, body=Body.of(MD5, 4))
    assert mark_on(State(size=4, metadata={MARK: str(mark)}, **target)) == mark  # type: ignore[arg-type]


def test_a_mark_on_bytes_that_nobody_knew_is_not_voided() -> None:
    mark = mark_for(SOURCE, HERE)
    assert mark.body == Body.of("", 4)
    assert mark.body.kind is Kind.UNKNOWN
    assert mark_on(carrying(str(mark), "0" * 32)) == mark


def test_a_state_that_differs_in_its_description_alone_has_the_same_content() -> None:
    other = State(MD5, 4, "Tue, 02 Jan 2024 00:00:00 GMT", "v2", {}, {"owner": "you"}, "a=b")
    assert content_of(other) == content_of(SOURCE)
    assert identity_of(other) != identity_of(SOURCE)
    assert content_of(State(MD5, 5)) != content_of(SOURCE)
    assert content_of(State(MD5[::-1], 4)) != content_of(SOURCE)


@pytest.mark.parametrize(
    ("etag", "opaque", "md5"), [(MD5, False, MD5), (MD5, True, ""), (f"{MD5}-2", False, ""), ("", False, "")]
)
def test_an_md5_is_one_only_where_nothing_else_looks_like_it(etag: str, opaque: bool, md5: str) -> None:
    assert proven_md5(State(etag, 4, opaque=opaque)) == md5


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Mon, 01 Jan 2024 00:00:00 GMT", NEW_YEAR),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 01 Jan 1902 00:00:00 GMT", 0),
        ("Mon, 01 Jan 99999999999999 00:00:00 GMT", 0),
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_a_date_is_seconds_and_what_is_none_is_long_ago(date: str, seconds: int) -> None:
    assert written_at(date) == seconds


def test_a_copy_of_a_copy_is_as_old_as_the_first() -> None:
    assert mark_for(SOURCE, HERE, written=7).written == 7


def test_places_have_origins_of_their_own() -> None:
    assert len({HERE, origin_of("aws/photos"), origin_of("aws/photo"), origin_of("")}) == 4
    assert {len(HERE), len(origin_of(""))} == {6}


def test_a_mark_has_room_in_all_but_the_fullest_metadata() -> None:
    mark = mark_for(SOURCE, HERE, body=Body.of(MD5, 4))
    room = MAX_METADATA - len(MARK) - 40
    full = {"k": "v" * (room - 1)}
    assert marked(full, mark) == {**full, MARK: str(mark)}
    fuller = {"k": "v" * room}
    assert marked(fuller, mark) == fuller
