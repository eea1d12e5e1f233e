"""What travels with the bytes."""

from email.header import decode_header, make_header

import pytest

from common.store.mark import mark_for, origin_of
from common.store.port import MARK, State
from worker.fidelity import MAX_METADATA, described, marked

OURS = mark_for(State("e", 4), origin_of("here"))


def test_a_copy_carries_the_headers_the_metadata_and_the_tags_of_its_source() -> None:
    source = State("e", 4, "Mon", "v1", {"content-type": "image/png"}, {"owner": "me"}, "a=1&b=2")
    headers, metadata = described(source)
    assert headers == {"content-type": "image/png", "x-amz-tagging": "a=1&b=2"}
    assert metadata == {"owner": "me"}


def test_a_mark_that_came_with_the_source_is_replaced_by_its_own() -> None:
    source = State("e", 4, metadata={MARK: "of an earlier mirror"})
    assert described(source)[1] == {}
    assert marked({}, OURS) == {MARK: str(OURS)}


def test_the_routes_choice_of_storage_is_sent_with_it() -> None:
    headers, _ = described(State("e", 4), {"x-amz-storage-class": "STANDARD_IA"})
    assert headers == {"x-amz-storage-class": "STANDARD_IA"}


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("gzip", "gzip"),
        ("gzip, br", "gzip, br"),
        ("", None),
    ],
)
def test_aws_chunked_is_stripped_from_the_content_encoding(source: str, sent: str | None) -> None:
    assert described(State("e", 4, headers={"content-encoding": source}))[0].get("content-encoding") == sent


@pytest.mark.parametrize("value", ["имя файла", "naïve", "😀" * 50])
def test_metadata_that_is_not_ascii_travels_as_an_encoded_word(value: str) -> None:
    sent = described(State("e", 4, metadata={"name": value}))[1]["name"]
    assert sent.isascii()
    assert "\n" not in sent
    assert str(make_header(decode_header(sent))) == value


def test_the_mark_yields_when_the_sources_own_metadata_leaves_no_room() -> None:
    metadata = {"long": "x" * (MAX_METADATA - 50)}
    assert marked(metadata, OURS) == metadata


def test_metadata_over_the_limit_is_sent_whole_for_the_store_to_judge() -> None:
    metadata = {"long": "x" * MAX_METADATA}
    assert marked(metadata, OURS) == {**metadata, MARK: str(OURS)}
