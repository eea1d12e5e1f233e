"""What becomes of a delivery: pure, from how its attempt ended."""

import random
from dataclasses import dataclass

from common.backoff import delay
from common.errors import HookmirrorError, Never, TryAgain
from common.queue.port import MAX_DELAY, Bury, Done, Move, Retry, Verdict
from common.task import Task, Trouble
from common.telemetry import Action, without_secrets


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended that raised nothing: copied, deleted, skipped or left to a re-check; and the bytes
    of the object, where there is one."""

    action: Action
    why: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Continue:
    """The attempt did part of the work; the rest is `task`, for whoever takes it after `after` seconds."""

    task: Task
    why: str
    after: float = 0.0


class Blamed(Exception):
    """An attempt ended in `error`, and this is whose failure it was: it `counts` when it is the task's own;
    else the task comes back after `after` seconds. `trouble` is what the task carries on, None when nothing
    was tried."""

    def __init__(self, error: Exception, *, counts: bool, after: float, trouble: Trouble | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.counts = counts
        self.after = after
        self.trouble = trouble


def judge(
    result: Outcome | Continue | Move | Exception, attempt: int, *, attempts: int, rng: random.Random
) -> Verdict:
    """Return the verdict on attempt number `attempt` (from 1) of at most `attempts`.

    What is not in our error tree is a defect of ours or unknown: it is retried like a store that is
    away, never done.
    """
    if isinstance(result, Outcome):
        return Done(result.action)
    if isinstance(result, Move):
        return result
    if isinstance(result, Continue):
        return Retry(min(result.after, MAX_DELAY), result.why, counts=False, body=result.task.encode())
    if isinstance(result, Blamed) and not result.counts:
        return Retry(min(result.after, MAX_DELAY), _why(result.error), counts=False)
    error = result.error if isinstance(result, Blamed) else result
    why = _why(error)
    if isinstance(error, Never):
        return Bury(why)
    if isinstance(error, TryAgain) and not error.counts:
        return Retry(min(max(error.retry_after, error.patience), MAX_DELAY), why, counts=False)
    if attempt >= attempts:
        return Bury(f"{why} (attempt {attempt} of {attempts})")
    asked = error.retry_after if isinstance(error, TryAgain) else 0.0
    return Retry(min(max(asked, delay(attempt, rng)), MAX_DELAY), why)


def _why(error: Exception) -> str:
    name = error.reason if isinstance(error, HookmirrorError) else type(error).__name__
    return without_secrets(f"{name}: {error}")


def leave_to_promise(verdict: Verdict, tries: int) -> Verdict:
    """Return the verdict on a re-check that failed after it had promised the next one, which is its retry.

    Were it retried as well, every failure would double them. `tries` is how many have been promised in this
    chain already; a refusal is buried for the first look of a chain and not again for each that
    follows.
    """
    if isinstance(verdict, Retry) or (isinstance(verdict, Bury) and tries > 1):
        return Done(f"left to the promised re-check: {verdict.why}")
    return verdict
