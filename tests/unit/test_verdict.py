"""The verdict on each way an attempt can end."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import errors
from common.backoff import RUNGS
from common.errors import HookmirrorError, Never, QueueAway, RouteDown, StoreAway, Throttled, TryAgain
from common.queue.port import MAX_DELAY, Bury, Done, Retry, Verdict
from common.telemetry import Action, hide
from worker.verdict import Blamed, Outcome, judge, leave_to_promise

ATTEMPTS = 12


def verdict(result: Outcome | Exception, attempt: int = 1) -> Verdict:
    return judge(result, attempt, attempts=ATTEMPTS, rng=random.Random(attempt))


def tree(root: type[HookmirrorError]) -> Iterator[type[HookmirrorError]]:
    yield root
    for branch in root.__subclasses__():
        yield from tree(branch)


RETRIED_AND_COUNTED = "retried, and it was an attempt"
RETRIED_FOR_FREE = "retried, and it was none"
BURIED = "buried"

PLACES: dict[type[HookmirrorError], str] = {
    errors.HookmirrorError: RETRIED_AND_COUNTED,
    # None of the next ten should reach a worker; one that does is a defect, and a defect is retried.
    errors.ConfigError: RETRIED_AND_COUNTED,
    errors.BadRequest: RETRIED_AND_COUNTED,
    errors.NoSuchPath: RETRIED_AND_COUNTED,
    errors.NotAllowed: RETRIED_AND_COUNTED,
    errors.TooMany: RETRIED_AND_COUNTED,
    errors.Slow: RETRIED_AND_COUNTED,
    errors.NotOurs: RETRIED_AND_COUNTED,
    errors.BadSignature: RETRIED_AND_COUNTED,
    errors.TooLarge: RETRIED_AND_COUNTED,
    errors.LostDelivery: RETRIED_AND_COUNTED,
    errors.TryAgain: RETRIED_AND_COUNTED,
    errors.StoreAway: RETRIED_AND_COUNTED,
    errors.ActionFailed: RETRIED_AND_COUNTED,
    errors.UploadGone: RETRIED_AND_COUNTED,
    errors.SourceMoved: RETRIED_FOR_FREE,
    errors.NotSupported: RETRIED_AND_COUNTED,
    errors.NotForThis: RETRIED_AND_COUNTED,
    errors.TargetMoved: RETRIED_AND_COUNTED,
    errors.UnknownRoute: BURIED,
    errors.Corrupt: RETRIED_AND_COUNTED,
    errors.QueueAway: RETRIED_FOR_FREE,
    errors.QueueLoses: RETRIED_FOR_FREE,
    errors.SenderAway: RETRIED_FOR_FREE,  # of the receiver's alone, too
    errors.KeyBusy: RETRIED_FOR_FREE,
    errors.Throttled: RETRIED_AND_COUNTED,
    errors.RouteDown: RETRIED_AND_COUNTED,
    errors.Never: BURIED,
    errors.Unreadable: BURIED,
    errors.CameBack: BURIED,
    errors.Refused: BURIED,
    errors.ActionRefused: BURIED,
    errors.Foreign: BURIED,
    errors.NeverInStep: BURIED,
    errors.BrakeOn: BURIED,
}


def place(result: Verdict) -> str:
    if isinstance(result, Retry):
        return RETRIED_AND_COUNTED if result.counts else RETRIED_FOR_FREE
    return BURIED if isinstance(result, Bury) else "done"


def test_every_error_there_is_has_its_place_in_the_table() -> None:
    ours = {error for error in tree(HookmirrorError) if error.__module__ == errors.__name__}
    assert ours == set(PLACES)


@pytest.mark.parametrize(
    ("error", "expected"), PLACES.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_every_error_gets_the_verdict_of_its_place(error: type[HookmirrorError], expected: str) -> None:
    result = verdict(error("because"))
    assert place(result) == expected
    assert isinstance(result, Retry | Bury)
    assert result.why == f"{error.__name__}: because"


@pytest.mark.parametrize("error", PLACES, ids=lambda error: error.__name__)
def test_the_docstring_draws_the_tree_as_it_is(error: type[HookmirrorError]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), KeyError("x"), OSError(28, "No space left"), TimeoutError(), AssertionError()],
)
def test_an_error_nobody_knows_is_retried_and_never_done(error: Exception) -> None:
    assert place(verdict(error)) == RETRIED_AND_COUNTED
    assert place(verdict(error, ATTEMPTS)) == BURIED


@pytest.mark.parametrize("action", [Action.COPIED, Action.DELETED, Action.SKIPPED, Action.LOOK_LATER])
def test_an_attempt_that_raised_nothing_is_done_on_any_try(action: Action) -> None:
    for attempt in (1, ATTEMPTS, ATTEMPTS + 88):
        assert verdict(Outcome(action, "why"), attempt) == Done(action)


def test_the_twelfth_attempt_that_fails_is_the_last() -> None:
    fates = [place(verdict(StoreAway("500"), attempt)) for attempt in range(1, ATTEMPTS + 2)]
    assert fates == [RETRIED_AND_COUNTED] * 11 + [BURIED] * 2


def test_a_burial_after_the_last_attempt_says_which_it_was() -> None:
    assert verdict(StoreAway("HEAD b: 500"), ATTEMPTS) == Bury("StoreAway: HEAD b: 500 (attempt 12 of 12)")


@pytest.mark.parametrize(
    "error", [Throttled("x", counts=False), QueueAway("x"), errors.KeyBusy("x"), errors.SourceMoved("x")]
)
def test_a_wait_that_does_not_count_never_buries(error: TryAgain) -> None:
    result = verdict(error, 10_000)
    assert result == Retry(error.patience, f"{type(error).__name__}: x", counts=False)


@pytest.mark.parametrize("error", [Throttled, StoreAway, RouteDown])
def test_a_retry_waits_as_long_as_the_store_asked(error: type[TryAgain]) -> None:
    result = verdict(error("x", retry_after=90))
    assert isinstance(result, Retry)
    assert result.after == 90


@pytest.mark.parametrize("error", [Throttled, StoreAway])
def test_no_store_can_ask_for_a_longer_wait_than_a_queue_takes(error: type[TryAgain]) -> None:
    result = verdict(error("x", retry_after=1e9))
    assert isinstance(result, Retry)
    assert result.after == MAX_DELAY


def test_a_wait_for_less_than_our_patience_is_ours() -> None:
    error = Throttled("x", retry_after=0.5, counts=False)
    assert verdict(error) == Retry(Throttled.patience, "Throttled: x", counts=False)


@pytest.mark.parametrize(
    "error", [StoreAway("x"), Throttled("x"), RuntimeError("x"), errors.Refused("x", own=False)]
)
def test_a_failure_that_is_not_the_tasks_own_never_buries(error: Exception) -> None:
    spared = Blamed(error, counts=False, after=30, trouble=None)
    for attempt in (1, ATTEMPTS, 10_000):
        assert verdict(spared, attempt) == Retry(30, f"{type(error).__name__}: x", counts=False)


def test_a_failure_that_is_the_tasks_own_is_judged_by_its_error() -> None:
    def own(error: Exception) -> Blamed:
        return Blamed(error, counts=True, after=0, trouble=None)

    assert place(verdict(own(RouteDown("x")))) == RETRIED_AND_COUNTED
    assert verdict(own(RouteDown("x")), ATTEMPTS) == Bury("RouteDown: x (attempt 12 of 12)")
    assert verdict(own(errors.Refused("x", own=False))) == Bury("Refused: x")


@given(
    st.sampled_from([e for e in PLACES if issubclass(e, TryAgain)]),
    st.integers(1, 1000),
    st.floats(0, 1e6),
    st.randoms(use_true_random=False),
)
def test_every_wait_is_one_that_a_queue_takes(
    error: type[TryAgain], attempt: int, asked: float, rng: random.Random
) -> None:
    result = judge(error("x", retry_after=asked), attempt, attempts=ATTEMPTS, rng=rng)
    if isinstance(result, Retry):
        assert 1 <= result.after <= MAX_DELAY
        assert result.after >= min(asked, MAX_DELAY)


def test_waits_grow_with_the_attempts() -> None:
    result = [verdict(StoreAway("x"), attempt) for attempt in range(1, ATTEMPTS)]
    waits = [entry.after for entry in result if isinstance(entry, Retry)]
    assert waits[0] == RUNGS[0]
    assert waits[-1] >= RUNGS[-2]


def test_only_what_is_never_is_buried_at_once() -> None:
    assert {error for error, fate in PLACES.items() if fate == BURIED} == set(tree(Never))


@pytest.mark.parametrize(
    ("verdict", "tries", "expected"),
    [
        (Retry(30, "a timeout"), 1, "done"),
        (Retry(30, "a timeout", counts=False), 11, "done"),
        (Retry(30, "a timeout"), ATTEMPTS, "done"),
        (Bury("Refused"), 1, BURIED),
        (Bury("Refused"), 2, "done"),
    ],
)
def test_a_look_that_failed_after_its_promise_leaves_the_rest_to_the_promised_one(
    verdict: Verdict, tries: int, expected: str
) -> None:
    assert place(leave_to_promise(verdict, tries)) == expected


def test_a_reason_shows_no_secret() -> None:
    hide("mcs", "what-the-chain-delivered")
    for attempt in (1, ATTEMPTS):
        given = verdict(StoreAway("no answer: token=what-the-chain-delivered"), attempt)
        assert isinstance(given, Retry | Bury)
        assert "delivered" not in given.why
        assert "token=***" in given.why
