"""The protocol as it is shipped has no counterexample, and each mutant has one."""

import multiprocessing
from dataclasses import dataclass

import pytest

from tests.model.explore import Explorer, Faults, Protocol, scripts

LEAST_WORLDS = 500_000

STRONG, EVENTUAL = Protocol(), Protocol(eventual=True)

SHIPPED = {
    "hints doubled": (STRONG, 3, Faults(doubled=1)),
    "a crash, its write late": (STRONG, 3, Faults(crashes=1)),
    "a crash and a timeout, both writes late": (STRONG, 2, Faults(crashes=1, timeouts=1)),
    "a timeout and a refusal": (STRONG, 2, Faults(timeouts=1, refusals=1)),
    "versions removed, and a crash": (STRONG, 2, Faults(crashes=1, versions=True)),
    "a crash and a refusal": (STRONG, 2, Faults(crashes=1, refusals=1)),
    "a zombie": (STRONG, 2, Faults(zombies=1)),
    "a crash, a zombie, a doubled hint": (STRONG, 1, Faults(doubled=1, crashes=1, zombies=1)),
    "eventual: hints doubled": (EVENTUAL, 2, Faults(doubled=1)),
    "eventual: a crash and a stale source": (EVENTUAL, 2, Faults(crashes=1, stale=True)),
    "eventual: a timeout and a stale source": (EVENTUAL, 1, Faults(timeouts=1, stale=True)),
    "eventual: versions removed, and a crash": (EVENTUAL, 2, Faults(crashes=1, versions=True)),
    "eventual: a crash and a refusal": (EVENTUAL, 1, Faults(crashes=1, refusals=1)),
    "eventual: a crash, a zombie, a stale source": (EVENTUAL, 1, Faults(crashes=1, zombies=1, stale=True)),
    "eventual: a zombie, a doubled hint, a stale source": (
        EVENTUAL,
        1,
        Faults(doubled=1, zombies=1, stale=True),
    ),
}
"""By name: which protocol, how many changes the source goes through, and what goes wrong meanwhile."""


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
    work = [job for case in SHIPPED.values() for job in jobs(*case)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.map(explore, work, chunksize=1)
    wrong = [way for _, way in results if way]
    assert wrong == []
    worlds = sum(count for count, _ in results)
    print(f"{worlds} worlds explored")  # noqa: T201 - for whoever runs it with -s
    assert worlds >= LEAST_WORLDS


MUTANTS = {
    "no look back": (Protocol(looks_back=False), Faults(), "ends with"),
    "no look in doubt": (Protocol(looks_in_doubt=False), Faults(crashes=1), "ends with"),
    "a claim that outlives a write": (Protocol(forgets_claim=False), Faults(refusals=1), "ends with"),
    "the strong protocol on a source that shows old states": (STRONG, Faults(stale=True), "ends with"),
    "no write-ahead look": (Protocol(eventual=True, promises=False), Faults(crashes=1), "ends with"),
    "no look at a contradiction": (
        Protocol(eventual=True, looks_again=False),
        Faults(stale=True),
        "ends with",
    ),
    "delete on any error": (Protocol(error_is_absent=True), Faults(refusals=1), "deletes without proof"),
    "obey the event": (Protocol(obeys=True), Faults(), ""),
    "obey the event, no look": (Protocol(eventual=True, obeys=True, promises=False), Faults(), ""),
}


@pytest.mark.parametrize(("mutant", "faults", "symptom"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught(mutant: Protocol, faults: Faults, symptom: str) -> None:
    ways = [way for job in jobs(mutant, 2, faults) if (way := explore(job)[1])]
    assert ways
    assert all(way[-1].startswith(symptom) for way in ways)
