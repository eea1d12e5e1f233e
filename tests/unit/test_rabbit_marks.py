"""What a broker says of a mark that is another's, and what is read from it."""

import pytest

from common.queue.rabbitmq.mark import current
from common.queue.topology import MARK_ARGUMENT, apart, mark

MARK = mark("inventory/80bd6b6c/UPDATE_COMPLETE", "7", at=1_800_000_000.25, within=300)
LENGTH = int(MARK.arguments[MARK_ARGUMENT])
START = f"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{MARK.name}' in vhost "
EXPIRES = START.replace("x-max-length", "x-expires")


@pytest.mark.parametrize(
    "text",
    [
        f"{START}'/': received '5' but current is '{LENGTH}'",  # as 3.10.8 says it
        f"{START}'/': received the value '5' of type 'long' but current is the value '{LENGTH}'"
        " of type 'long'",
        f"{START}'/': received the value '5' of type 'long' but current is the value '{LENGTH}'"
        " of type 'signedint'",
        f"{START}'/': received none but current is the value '{LENGTH}' of type 'signedint'",
        f"{START}'/': received '5' but current is '{LENGTH}'; {EXPIRES}'/': received '6' but current is '7'",
        f"{EXPIRES}'/': received '6' but current is '7'; {START}'/': received '5' but current is '{LENGTH}'",
    ],
)
def test_what_a_mark_is_now_is_read_from_a_refusal(text: str) -> None:
    assert current(text) == LENGTH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "None",
        f"{EXPIRES}'/': received '5' but current is '6'",
        f"{START}'/': received the value '5' of type 'signedint' but current is none",
        f"{START}'/': received '5' but current is none; {EXPIRES}'/': received '6' but current is '7'",
        f"{START}'/': received '5' but current is '-6'",
        f"{START}'{'v' * 255}': received '{LENGTH}' but current is '{LENGTH}'"[:252] + "...",
        f"{START}'/': received '{LENGTH}' but current is '{LENGTH}'"[:-2] + "...",
        f"PRECONDITION_FAILED - cannot declare queue '{MARK.name}': queue limit in vhost '/' (5) is reached",
    ],
)
def test_what_cannot_be_read_is_none(text: str) -> None:
    assert current(text) is None


@pytest.mark.parametrize(
    ("vhost", "words"), [(36, "the value '{}' of type 'signedint'"), (78, "'{}'")], ids=["others", "3.10.8"]
)
def test_a_refusal_on_a_vhost_with_a_long_name_can_be_read(vhost: int, words: str) -> None:
    """A broker cuts its text to 255 bytes."""
    one = words.format(LENGTH)
    text = f"{START}'{'v' * vhost}': received {one} but current is {one}"
    assert current(text if len(text) <= 255 else text[:252] + "...") == LENGTH


def test_a_mark_tells_who_holds_it_and_when_he_came_to_the_millisecond() -> None:
    def length(holder: str, at: float) -> int:
        return int(mark("k", holder, at=at, within=300).arguments[MARK_ARGUMENT])

    at = 1_800_000_000.123456
    assert length("a", at) == length("a", at)
    assert length("a", at) != length("b", at)
    assert apart(length("a", at), length("b", at + 300)) == 300
    assert apart(length("b", at), length("a", at - 299.999)) == 299.999
    assert length("a", 10_000_000_000) < 2**63, "the year 2286 fits into what a broker takes"
