"""What a message on RabbitMQ says of itself: whatever happened to it, in headers that fit into a frame."""

import json

import pytest

from common.queue.port import Failure
from common.queue.rabbitmq.wire import FAILURES, MAX_HEADER, WHY, dead_headers, failures_header
from tests.lab.lanes import LIVE


def test_the_failures_of_one_letter_are_all_there_in_their_order() -> None:
    failures = [Failure(1.5, number, "StoreAway: no answer") for number in range(1, 13)]
    assert [Failure(**entry) for entry in json.loads(failures_header(failures)[FAILURES])] == failures
    assert json.loads(failures_header([])[FAILURES]) == []


@pytest.mark.parametrize("why", ["StoreAway: InternalError" * 5, "ж" * 50_000, "\x00" * 50_000])
def test_a_letter_replayed_for_years_keeps_its_last_failures_in_a_header_that_fits(why: str) -> None:
    failures = [Failure(float(number), number, why) for number in range(5000)]
    header = failures_header(failures)[FAILURES]
    assert len(header.encode()) <= MAX_HEADER
    kept = [entry["attempt"] for entry in json.loads(header)]
    assert kept
    assert kept == list(range(5000 - len(kept), 5000))


def test_a_reason_longer_than_a_header_may_be_is_cut_at_a_letter() -> None:
    why = dead_headers(LIVE, "ж" * 50_000)[WHY]
    assert why == "ж" * (MAX_HEADER // 2)
