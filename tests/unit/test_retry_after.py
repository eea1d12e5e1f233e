"""What a Retry-After asks for, of a store or of whom events are forwarded to: one answer for both."""

import pytest

from common.retry_after import wait_asked

NOW = 1_700_000_000
"""Tue, 14 Nov 2023 22:13:20 GMT."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("5", 5),
        (" 5 ", 5),
        ("120", 120),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("²", 0),
        ("٣", 3),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0),
        ("Tue, 99 Nov 2023 22:12:20 GMT", 0),
    ],
)
def test_it_is_a_number_or_a_date(value: str | None, seconds: float) -> None:
    assert wait_asked(value, NOW) == seconds
