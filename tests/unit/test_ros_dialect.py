"""Notifications of Alibaba Cloud ROS: what is one, what is none, and which routes it is for."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Unreadable
from common.routes import StackRouteSettings
from common.task import Output, Stack, Task
from receiver.dialects.ros import MAX_DEPTH, MAX_OUTPUTS, MAX_TEXT, parse
from receiver.intake import parse_json
from receiver.routing import StackRouting
from tests.lab.samples import names, sample

ID = "80bd6b6c-e888-4573-ae3b-93d29144911d"
BODY: dict[str, Any] = {"StackId": ID, "StackName": "s", "Status": "CREATE_COMPLETE"}
SAMPLES = {
    "ros/create_complete": ("test-web-hook", "CREATE_COMPLETE", ["CurlCli"]),
    "ros/create_failed": ("test-web-hook", "CREATE_FAILED", []),
    "ros/update_complete": ("prod-web", "UPDATE_COMPLETE", ["PublicIp", "InstanceIds", "Port"]),
    "ros/delete_complete": ("prod-web", "DELETE_COMPLETE", []),
    "ros/rollback_complete": ("test-web-hook", "ROLLBACK_COMPLETE", []),
    "ros/create_rollback_failed": ("prod-db", "CREATE_ROLLBACK_FAILED", []),
    "ros/credentials": ("prod-db", "CREATE_COMPLETE", ["Endpoint", "AdminPassword", "Dsn", "Login", "Key"]),
}


@pytest.mark.parametrize("name", names(of="ros/"))
def test_each_sample_is_understood(name: str) -> None:
    stack = parse(sample(name))
    assert (stack.name, stack.status, [output.key for output in stack.outputs]) == SAMPLES[name]
    assert stack.id == sample(name)["StackId"]


def test_an_output_is_taken_as_it_is() -> None:
    outputs = parse(sample("ros/update_complete")).outputs
    assert outputs[0] == Output(key="PublicIp", value="47.96.12.34", description="The address to open")
    assert outputs[1].value == ["i-bp1gtjxuuvwj17zr7q2k", "i-bp1gtjxuuvwj17zr7q2m"]
    assert outputs[2] == Output(key="Port", value=8080, description="")


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def output(**fields: Any) -> dict[str, Any]:
    return {"Outputs": [{"OutputKey": "k", "OutputValue": "v"} | fields]}


@pytest.mark.parametrize(
    "change",
    [
        {"StackId": None}, {"StackId": ""}, {"StackId": 1}, {"StackId": "x" * (MAX_TEXT + 1)},
        {"StackId": "\ud800"},
        {"StackName": None}, {"StackName": ""}, {"StackName": ["s"]}, {"StackName": "x" * (MAX_TEXT + 1)},
        {"Status": None}, {"Status": ""}, {"Status": "create"}, {"Status": "A B"}, {"Status": "A" * 65},
        {"Status": "CREATE_COMPLETE\n"}, {"Status": 1},
        {"Outputs": {}}, {"Outputs": "x"}, {"Outputs": [1]}, {"Outputs": [{}]},
        {"Outputs": [{"OutputKey": "k"}]},
        {"Outputs": False}, {"Outputs": 0},
        {"Outputs": [{"OutputKey": "k", "OutputValue": 1}] * (MAX_OUTPUTS + 1)},
        output(OutputKey=1), output(Description=1), output(Description="\udfff"), output(OutputKey="\ud800"),
        output(OutputValue="\ud800"), output(OutputValue={"\ud800": 1}), output(OutputValue=float("nan")),
        output(OutputValue=[float("inf")]), output(OutputValue=nested(MAX_DEPTH + 1)),
    ],
)  # fmt: skip
def test_what_is_no_notification_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(BODY | change)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("body", [None, 1, "x", [], [BODY], {}, {"Records": []}])
def test_what_is_no_object_of_that_kind_is_refused(body: object) -> None:
    with pytest.raises(Unreadable):
        parse(body)


@pytest.mark.parametrize(
    "change",
    [
        {}, {"Outputs": None}, {"Outputs": []}, {"More": {"x": [1]}}, {"Status": "A"},
        {"StackName": "x" * MAX_TEXT}, {"StackName": "a\nb\0\x1b"}, output(OutputKey=""),
        output(Description=None),
        output(OutputValue=None), output(OutputValue=10**30), output(OutputValue=nested(MAX_DEPTH)),
        {"Outputs": [{"OutputKey": "k", "OutputValue": 1}] * MAX_OUTPUTS},
    ],
)  # fmt: skip
def test_a_notification_travels_through_the_queue_whole(change: dict[str, Any]) -> None:
    stack = parse(BODY | change)
    task = Task(route="r", key=stack.name, event=stack.status, stack=stack)
    assert Task.decode(task.encode()) == task


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "StackId": JSON | st.text(min_size=1),
        "StackName": JSON | st.text(min_size=1),
        "Status": JSON | st.sampled_from(["CREATE_COMPLETE", "DELETE_FAILED"]),
        "Outputs": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"OutputKey": st.text(), "OutputValue": JSON}, optional={"Description": JSON}
            )
        ),
    },
)


@given(JSON | FIELDS | FIELDS.map(lambda fields: BODY | fields))
def test_any_json_is_a_notification_or_unreadable_and_nothing_else(body: Any) -> None:
    try:
        stack = parse(parse_json(json.dumps(body).encode()))
    except Unreadable:
        return
    task = Task(route="r", key=stack.name, event=stack.status, stack=stack)
    assert Task.decode(task.encode()) == task


@given(st.binary(max_size=200))
def test_any_bytes_are_unreadable(body: bytes) -> None:
    with contextlib.suppress(Unreadable):
        parse(parse_json(body))


def stack(name: str, status: str) -> Stack:
    return Stack(id=ID, name=name, status=status)


@pytest.mark.parametrize(
    ("pattern", "statuses", "name", "status", "known", "fits"),
    [
        ("*", ["*"], "anything", "CREATE_COMPLETE", True, True),
        ("prod-*", ["*_FAILED"], "prod-web", "CREATE_FAILED", True, True),
        ("prod-*", ["*_FAILED"], "prod-web", "CREATE_COMPLETE", True, False),
        ("prod-*", ["*_FAILED"], "Prod-web", "CREATE_FAILED", False, False),
        ("prod-*", ["*"], "test-web", "CREATE_FAILED", False, False),
        ("db-?", ["CREATE_COMPLETE", "UPDATE_*"], "db-1", "UPDATE_FAILED", True, True),
        ("db-[12]", ["CREATE_COMPLETE"], "db-3", "CREATE_COMPLETE", False, False),
        ("a", ["CREATE"], "a", "CREATE_COMPLETE", True, False),
    ],
)
def test_a_route_takes_the_names_and_statuses_that_fit_its_patterns(
    pattern: str, statuses: list[str], name: str, status: str, known: bool, fits: bool
) -> None:
    routing = StackRouting([StackRouteSettings(name="r", stack=pattern, status=tuple(statuses), log=True)])
    assert routing.knows(name) is known
    assert [task.route for task in routing.tasks(stack(name, status), 12.5)] == ["r"] * fits


def test_each_fitting_route_gets_a_task_of_its_own() -> None:
    routes = [StackRouteSettings(name=name, log=True) for name in "ab"]
    one, two = StackRouting(routes).tasks(stack("s", "DELETE_COMPLETE"), 12.5)
    assert (one.route, two.route) == ("a", "b")
    assert one.id != two.id
    assert (one.key, one.event, one.received, one.stack) == (
        "s", "DELETE_COMPLETE", 12.5, stack("s", "DELETE_COMPLETE"),
    )  # fmt: skip
