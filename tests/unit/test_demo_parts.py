"""The demo's parts that decide something: its plan, its comparison, its verdict."""

import io
import random
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from common.store.memory import MemoryStore
from common.store.port import MARK, Bucket, State
from demo import demo
from demo.compare import compare
from demo.names import AWKWARD
from demo.stage import Options
from demo.tally import Tally
from demo.view import Scene
from demo.workload import LARGE, MIB, Kind, plan, remaining


def test_the_same_seed_makes_the_same_user() -> None:
    assert plan(300, random.Random(7)) == plan(300, random.Random(7))
    assert plan(300, random.Random(7)) != plan(300, random.Random(8))


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_holds_what_the_demo_promises(seed: int) -> None:
    steps = plan(300, random.Random(seed))
    written = [step.size for step in steps if step.kind is Kind.PUT]
    assert {step.kind for step in steps} == set(Kind)
    assert min(written) == 0
    assert max(written) <= LARGE[0] == 32 * MIB
    assert sum(written) < 400 * MIB
    assert len(remaining(steps)) >= 200


@pytest.mark.parametrize("seed", range(20))
def test_no_key_is_the_folder_of_another(seed: int) -> None:
    keys = {step.key for step in plan(1000, random.Random(seed))}
    folders = {key[:i] for key in keys for i, letter in enumerate(key) if letter == "/"}
    assert not keys & folders


def test_awkward_names_are_legal_and_different() -> None:
    assert len(set(AWKWARD)) == len(AWKWARD)
    assert max(len(key.encode()) for key in AWKWARD) > 1000
    for key in AWKWARD:
        assert 1 <= len(key.encode()) <= 1024
        assert all(len(part.encode()) <= 255 for part in key.split("/"))


def _buckets() -> tuple[Bucket, Bucket]:
    return MemoryStore().create("a"), MemoryStore().create("b")


async def test_equal_buckets_have_no_difference() -> None:
    source, target = _buckets()
    seen: list[State] = []
    await source.write("k", b"body", headers={"content-type": "text/x"}, metadata={"a": "1"})
    await target.write("k", b"body", headers={"content-type": "text/x"}, metadata={"a": "1", MARK: "m"})
    assert await compare(source, target, progress=seen.append) == []
    assert [state.size for state in seen] == [4]


async def test_every_kind_of_difference_is_told() -> None:
    source, target = _buckets()
    await source.write("missing\n", b"", headers={}, metadata={})
    await target.write("surplus", b"", headers={}, metadata={})
    await source.write("k", b"body", headers={"content-type": "text/x"}, metadata={"a": "1"})
    await target.write("k", b"dody", headers={"content-type": "text/y"}, metadata={"b": "1"})
    await source.write("short", b"12", headers={}, metadata={})
    await target.write("short", b"1", headers={}, metadata={})
    assert await compare(source, target) == [
        '"missing\\n" is missing on the target',
        '"surplus" is on the target only',
        '"k" differs in its bytes, 4 of them',
        "\"k\" differs in content-type: 'text/x', on the target 'text/y'",
        "\"k\" differs in metadata a: '1', on the target None",
        "\"k\" differs in metadata b: None, on the target '1'",
        '"short" differs in size: 2 bytes, on the target 1',
    ]


def test_the_tally_tells_a_turn_waited_for_from_a_failure() -> None:
    tally = Tally()
    tally.add({"action": "copied", "size": 5, "lag": 0.5})
    tally.add({"action": "retried", "counts": False, "level": "warning", "message": "KeyBusy"})
    tally.add({"action": "retried", "counts": True, "level": "warning", "message": "StoreAway"})
    tally.add({"action": "skipped", "lag": 1.5})
    tally.add({"action": "skipped"})
    assert (tally.attempts, tally.turns, tally.retried, tally.bytes) == (5, 1, 1, 5)
    assert tally.lag(50) == 1.0
    assert list(tally.warnings) == ["retried: StoreAway"]


def test_a_verdict_with_problems_names_each_and_how_to_see_it_again() -> None:
    out = io.StringIO()
    problems = [f'"[bold]{n}" is missing on the target' for n in range(25)]
    verdict = demo.Verdict(objects=3, bytes=10, problems=problems)
    options = Options("amqp://user:secret@host/", 300, 42)
    demo._report(options, Scene("t", Tally()), verdict, Console(file=out, width=200))
    text = out.getvalue()
    assert "NOT EQUAL: 25 problems" in text
    assert '"[bold]19" is missing' in text
    assert "and 5 more" in text
    assert "--seed 42" in text
    [again] = re.findall(r"The same again:  (\S+) demo --seed 42", text)
    assert Path(shutil.which(again) or again).is_file(), "it can be called as it is written"
    assert "secret" not in text
