"""The OpenAPI document: whole, valid, and silent about the secret paths."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from common import guard
from common.errors import BadRequest
from common.tables import ReceiverSettings
from receiver.metrics import REFUSALS
from receiver.openapi import examples
from receiver.openapi.document import HOOK_PATH, STACK_PATH, build, served
from tests.lab.samples import sample

HOOKS, STACKS = "/webhook/3f9c0a7b5d1e42", "/stacks/77aa0b5d1e42ff"
SECRET = ReceiverSettings(
    public_url=f"https://hooks.example.org{HOOKS}", stack_url=f"https://hooks.example.org{STACKS}"
)
DOCUMENT = served(SECRET, [SECRET.path], version="0.1.0")

SAMPLES = {
    "mcs": "mcs/object_created",
    "mcs_removed": "mcs/object_removed",
    "mcs_subscription": "mcs/subscription_confirmation",
    "aws": "aws/object_created_put",
    "aws_test": "aws/test_event",
    "sns_subscription": "sns/subscription_confirmation",
    "sns": "sns/notification_v2",
    "minio": "minio/object_created_put",
    "ceph": "ceph/object_created_put",
    "created": "ros/create_complete",
}
"""What was recorded of the sender of each example."""


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every object in `value`, with its path."""
    if isinstance(value, dict):
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for name, part in inner:
        yield from walk(part, f"{path}/{name}")


def validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """A validator of `schema`, which may refer to those of the document."""
    return jsonschema_rs.validator_for(
        schema
        | {"components": DOCUMENT["components"], "$schema": "https://json-schema.org/draft/2020-12/schema"}
    )


CONTENTS = [
    (path, content)
    for path, value in walk(DOCUMENT["paths"])
    if "content" in value
    for content in value["content"].values()
]


def test_the_document_is_valid() -> None:
    schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT))).validate()
    for path, value in walk(DOCUMENT):
        if "$ref" in value:
            assert value["$ref"].removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"], (
                path
            )


@pytest.mark.parametrize(("path", "content"), CONTENTS, ids=[path for path, _ in CONTENTS])
def test_every_example_fits_its_schema(path: str, content: dict[str, Any]) -> None:
    shown = [example["value"] for example in content.get("examples", {}).values()] or [content["example"]]
    assert shown
    for value in shown:
        validator(content["schema"]).validate(value)


def test_every_schema_is_used() -> None:
    used = {value["$ref"].rpartition("/")[2] for _, value in walk(DOCUMENT) if "$ref" in value}
    assert used == set(DOCUMENT["components"]["schemas"])


def test_no_operation_is_named_twice() -> None:
    named = [value["operationId"] for _, value in walk(DOCUMENT["paths"]) if "operationId" in value]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    "part", [HOOKS, STACKS, "hooks.example.org", *HOOKS.split("/")[2:], *STACKS.split("/")[2:]]
)
def test_no_secret_is_in_the_document(part: str) -> None:
    assert part not in json.dumps(DOCUMENT)


def test_what_is_served_differs_from_the_real_one_in_the_paths_alone() -> None:
    real = build(hooks=HOOKS, stacks=STACKS, version="0.1.0")
    renamed = {
        {HOOKS: HOOK_PATH, STACKS: STACK_PATH}.get(path, path): operations
        for path, operations in real["paths"].items()
    }
    assert {**real, "paths": renamed} == DOCUMENT


@pytest.mark.parametrize(
    ("settings", "there", "missing"),
    [
        ({}, {"/", HOOK_PATH}, {STACK_PATH}),
        ({"stack_url": "https://h.example.org/"}, {"/", HOOK_PATH, STACK_PATH}, set()),
        ({"public_url": "https://h.example.org"}, {HOOK_PATH}, {"/", STACK_PATH}),
    ],
)
def test_what_is_not_served_is_not_described(
    settings: dict[str, Any], there: set[str], missing: set[str]
) -> None:
    paths = set(served(receiver := ReceiverSettings(**settings), [receiver.path], version="0")["paths"])
    assert there <= paths
    assert not missing & paths


def test_a_path_of_a_stores_own_is_not_told_and_takes_the_place_of_a_greeting() -> None:
    assert served(SECRET, ["/webhook/of-a-store"], version="0.1.0") == DOCUMENT
    assert "/" not in served(SECRET, ["/"], version="0.1.0")["paths"]


def test_paths_that_are_those_of_pages_keep_both_operations() -> None:
    paths = build(hooks="/ping", stacks="/", version="0")["paths"]
    assert set(paths["/ping"]) == {"get", "post"}
    assert set(paths["/"]) == {"get", "post"}
    assert paths["/"]["get"]["operationId"] == "greet_stacks"


@pytest.mark.parametrize("path", [HOOK_PATH, STACK_PATH])
def test_every_refusal_is_described_with_its_words(path: str) -> None:
    responses = DOCUMENT["paths"][path]["post"]["responses"]
    assert set(BadRequest.__subclasses__()) == set(REFUSALS)
    for kind in REFUSALS:
        shown = responses[str(kind.status)]["content"]["application/json"]["examples"].values()
        assert {"error": kind.answer} in [example["value"] for example in shown]
    assert set(responses) == {"200", "400", "403", "404", "408", "413", "429", "431", "503"}
    assert {status for status, response in responses.items() if "headers" in response} == {"429", "503"}


OPERATIONS = [
    pytest.param(operation, id=operation["operationId"])
    for _, operation in walk(DOCUMENT["paths"])
    if "operationId" in operation
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_answered_before_there_is_a_request_is_described_everywhere(
    operation: dict[str, Any],
) -> None:
    for status, words, _ in guard._ANSWERS.values():
        content = operation["responses"][str(status.value)]["content"]["application/json"]
        assert {"error": words} in [example["value"] for example in content["examples"].values()]


def shape(value: Any, path: str = "") -> set[str]:
    """The paths of all fields in `value`, those of a list's entries alike."""
    if isinstance(value, list):
        return set().union(*(shape(entry, f"{path}[]") for entry in value))
    if not isinstance(value, dict):
        return set()
    return set().union(*({f"{path}.{name}"} | shape(part, f"{path}.{name}") for name, part in value.items()))


@pytest.mark.parametrize("name", [*examples.HOOKS, *examples.STACKS])
def test_an_example_has_no_field_that_its_sender_does_not_send(name: str) -> None:
    _, value = (examples.HOOKS | examples.STACKS)[name]
    assert shape(value) <= shape(sample(SAMPLES[name]))


def test_placeholders_stand_for_no_parameter() -> None:
    assert not [path for path in DOCUMENT["paths"] if re.search(r"[{}]", path)]
