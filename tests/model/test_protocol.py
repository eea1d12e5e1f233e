"""The protocol as it is shipped has no counterexample, and each mutant has one."""

import multiprocessing
from dataclasses import dataclass

import pytest

from tests.model.explore import Explorer, Faults, Protocol, scripts

LEAST_WORLDS = 500_000

SHIPPED = {
    "hints doubled": (2, Faults(doubled=1)),
    "a crash, its write late": (2, Faults(crashes=1)),
    "a crash and a timeout, both writes late": (2, Faults(crashes=1, timeouts=1)),
    "a crash and a stale source": (2, Faults(crashes=1, stale=True)),
    "a timeout and a stale source": (2, Faults(timeouts=1, stale=True)),
    "versions removed, and a crash": (2, Faults(crashes=1, versions=True)),
    "a crash and a refusal": (2, Faults(crashes=1, refusals=1)),
    "a crash, a zombie, a doubled hint, a stale source": (
        1,
        Faults(doubled=1, crashes=1, zombies=1, stale=True),
    ),
}
"""By name: how many changes the source goes through, and what goes wrong meanwhile."""


@dataclass(frozen=True)
class Job:
    """One beginning to explore; small enough to be handed to another process."""

    protocol: Protocol
    faults: Faults
    begin: int
    script: tuple[int, ...]


def explore(job: Job) -> tuple[int, list[str]]:
    """Return the number of worlds and the way to a wrong one."""
    return Explorer(job.protocol, job.faults, job.script, job.begin).explore(limit=5_000_000)


def jobs(protocol: Protocol, changes: int, faults: Faults) -> list[Job]:
    """Every beginning and every script of so many changes."""
    return [Job(protocol, faults, begin, script) for begin, script in scripts(changes)]


@pytest.mark.timeout(600)
def test_no_interleaving_of_what_may_go_wrong_leaves_target_and_source_apart() -> None:
    work = [job for changes, faults in SHIPPED.values() for job in jobs(Protocol(), changes, faults)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.map(explore, work, chunksize=1)
    wrong = [way for _, way in results if way]
    assert wrong == []
    worlds = sum(count for count, _ in results)
    print(f"{worlds} worlds explored")  # noqa: T201 - for whoever runs it with -s
    assert worlds >= LEAST_WORLDS


@pytest.mark.parametrize(
    ("mutant", "faults", "symptom"),
    [
        (Protocol(promises=False), Faults(crashes=1), "ends with"),
        (Protocol(looks_again=False), Faults(stale=True), "ends with"),
        (Protocol(error_is_absent=True), Faults(refusals=1), "deletes without proof"),
        (Protocol(obeys=True), Faults(), "deletes without proof"),
        (Protocol(obeys=True, promises=False), Faults(), ""),
    ],
    ids=[
        "no write-ahead look",
        "no look at a contradiction",
        "delete on any error",
        "obey the event",
        "obey the event, no look",
    ],
)
def test_a_mutant_is_caught(mutant: Protocol, faults: Faults, symptom: str) -> None:
    ways = [way for job in jobs(mutant, 2, faults) if (way := explore(job)[1])]
    assert ways
    assert all(way[-1].startswith(symptom) for way in ways)
