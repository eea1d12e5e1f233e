"""The task as it travels through the queue."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import Unreadable
from common.task import Claim, Task

AWKWARD = [
    "a",
    " ",
    "/",
    "//a//",
    "./../a",
    "a+b%20c%2B",
    'quote"back\\slash',
    "new\nline\r\ttab",
    "\x00\x01\x1b[2J\x7f",
    "é",
    "e\u0301",
    "日本語/ключ/🦀",
    "\u2028\u2029\ufeff\u202e",
    "\uffff\U0010ffff",
    "x" * 1024,
]

TEXT = st.text(st.characters(codec="utf-8"))
TASKS = st.builds(
    Task,
    route=TEXT,
    key=TEXT.filter(bool) | st.sampled_from(AWKWARD),
    claim=st.none() | st.sampled_from(Claim),
    etag=st.none() | TEXT,
    event=TEXT,
    received=st.floats(0, 4e9),
    approved=st.booleans(),
)


@given(TASKS)
def test_what_is_encoded_is_decoded_unchanged(task: Task) -> None:
    assert Task.decode(task.encode()) == task


@pytest.mark.parametrize("key", AWKWARD)
def test_a_key_travels_as_it_is(key: str) -> None:
    assert Task.decode(Task(route="r", key=key).encode()).key == key


def test_a_new_task_has_an_id_of_its_own_and_knows_when_it_was_made() -> None:
    before = time.time()
    one, two = Task(route="r", key="k"), Task(route="r", key="k")
    assert one.id != two.id
    assert before <= one.received <= time.time()


def test_a_body_says_which_version_it_is() -> None:
    assert json.loads(Task(route="r", key="k").encode())["v"] == 1


def test_unknown_fields_of_a_newer_receiver_are_ignored() -> None:
    task = Task(route="r", key="k", claim=Claim.REMOVED)
    newer = json.loads(task.encode()) | {"priority": 7, "trace": {"id": ["x"]}}
    assert Task.decode(json.dumps(newer).encode()) == task


def test_the_least_a_body_can_be_is_a_look() -> None:
    task = Task.decode(b'{"route": "r", "key": "k"}')
    assert (task.v, task.claim, task.etag, task.event) == (1, None, None, "look")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"v": 2, "route": "r", "key": "k"}', "v"),
        (b'{"v": "1", "route": "r", "key": "k"}', "v"),
        (b'{"key": "k"}', "route"),
        (b'{"route": "r"}', "key"),
        (b'{"route": "r", "key": ""}', "key"),
        (b'{"route": "r", "key": null}', "key"),
        (b'{"route": "r", "key": 1}', "key"),
        (b'{"route": "r", "key": "k", "claim": "exploded"}', "claim"),
        (b'{"route": "r", "key": "k", "received": "soon"}', "received"),
        (b'{"route": "r", "key": "\\ud800"}', "body"),
        (b"", "body"),
        (b"null", "body"),
        (b"[]", "body"),
        (b"\xff\xfe", "body"),
        (b"\x00", "body"),
        (b'{"route": "r", "key": "k"', "body"),
    ],
)
def test_a_body_that_is_no_task_is_unreadable_and_says_where(body: bytes, where: str) -> None:
    with pytest.raises(Unreadable, match=f"^not a task: {where}: "):
        Task.decode(body)


@given(st.binary(max_size=200))
def test_random_bytes_are_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        Task.decode(body)


@given(TASKS, st.data())
def test_a_body_that_was_cut_is_unreadable(task: Task, data: st.DataObject) -> None:
    body = task.encode()
    with pytest.raises(Unreadable):
        Task.decode(body[: data.draw(st.integers(0, len(body) - 1))])


def test_a_body_nested_without_end_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        Task.decode(b'{"route": "r", "key": "k", "x": ' + b"[" * 100_000)


@given(TASKS)
def test_a_look_drops_the_claim_and_keeps_the_name_of_the_object(task: Task) -> None:
    look = task.look()
    assert (look.claim, look.etag, look.event) == (None, None, "look")
    assert (look.id, look.route, look.key, look.received) == (task.id, task.route, task.key, task.received)
    assert look.tries == task.tries + 1
    assert look.look() == look.model_copy(update={"tries": look.tries + 1})


def test_an_approved_delete_leaves_a_look_that_the_brake_counts_again() -> None:
    approved = Task(route="r", key="k", claim=Claim.REMOVED).model_copy(update={"approved": True})
    assert Task.decode(approved.encode()).approved
    assert not approved.look().approved


def test_a_task_does_not_change() -> None:
    task = Task(route="r", key="k")
    with pytest.raises(ValidationError, match="frozen"):
        task.key = "other"
