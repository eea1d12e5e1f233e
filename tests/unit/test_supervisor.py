"""How many processes there are, and when one that ended is started again."""

import os

import pytest

from common.tables import WorkerSettings
from console.supervisor import FORGIVEN, Pauses, end, how_many


def test_pauses_double_up_to_half_a_minute_and_begin_anew_after_a_minute_of_life() -> None:
    pauses = Pauses()
    assert [pauses.after(lived=0.5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert pauses.after(FORGIVEN - 1) == 30
    assert [pauses.after(FORGIVEN), pauses.after(0.0)] == [1, 2]


@pytest.mark.parametrize(
    ("code", "said"),
    [(-9, "was killed by SIGKILL"), (-11, "was killed by SIGSEGV"), (1, "ended with exit code 1")],
)
def test_an_end_is_told_in_words(code: int, said: str) -> None:
    assert end(code) == said


def test_auto_is_one_for_each_processor_that_this_process_may_use() -> None:
    whole = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(whole)})
        assert how_many(WorkerSettings(processes="auto")) == 1
    finally:
        os.sched_setaffinity(0, whole)
    assert how_many(WorkerSettings(processes="auto")) == len(whole)
    assert (how_many(WorkerSettings()), how_many(WorkerSettings(processes=3))) == (1, 3)
