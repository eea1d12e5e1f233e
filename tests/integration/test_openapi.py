"""The OpenAPI document and the running receiver: each says of the other what is true."""

import asyncio
import base64
import hashlib
import html.parser
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from schemathesis.core.failures import FailureGroup
from starlette.routing import Route

from common.metrics import Metrics
from common.queue.memory import MemoryQueue
from common.settings import Settings
from common.task import Task
from common.telemetry import as_json
from common.urls import PAGES
from receiver.app import make_app
from receiver.metrics import HookMetrics
from receiver.openapi import examples
from receiver.openapi.document import HOOK_PATH, build, served
from receiver.sns import SnsTopics
from tests.integration.test_receiver import SETTINGS, AwayQueue, Receiver, serving
from tests.integration.test_receiver_metrics import counted
from tests.lab import corpus
from tests.lab.fuzz import fuzz
from tests.unit.test_openapi import validator

PATH, STACKS = "/webhook/3f9c0a7b5d1e42", "/stacks/77aa0b5d1e42ff"
MANY: dict[str, Any] = {
    "public_url": f"https://hooks.example.org{PATH}",
    "stack_url": f"https://hooks.example.org{STACKS}",
    "requests_per_second": 1e6,
    "burst": 10**6,
}

EXPECTED = {
    **dict.fromkeys(examples.HOOKS, 200),
    "sns_subscription": 403,  # no topic is configured
    "sns": 403,
}
"""The status that each example of a hook gets."""

ROUTES = {"/", *PAGES, PATH, STACKS}


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    monkeypatch.setitem(SETTINGS, "stack_routes", [{"log": True}])
    async with serving(MemoryQueue(), **MANY) as server:
        yield server


def described() -> dict[str, Any]:
    """The document with the real paths in it."""
    return build(hooks=PATH, stacks=STACKS, version=version("hookmirror"))


async def test_the_document_is_served_as_it_was_built(receiver: Receiver) -> None:
    answer = await receiver.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    settings = Settings.model_validate(SETTINGS | {"receiver": MANY})
    assert answer.body == served(settings.receiver, [PATH], version=version("hookmirror"))
    assert not any(secret in str(answer.body) for secret in (PATH, STACKS))
    assert (await receiver.request("HEAD", "/openapi.json")).status == 200


class Sources(html.parser.HTMLParser):
    """What a page loads, and the scripts in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loaded += [found[name] or "" for name in ("src", "href") if name in found]
        self._in_script = tag == "script" and "src" not in found

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)
            self._in_script = False


async def test_the_page_may_load_swagger_ui_and_nothing_else(receiver: Receiver) -> None:
    answer = await receiver.request("GET", "/docs")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Sources(answer.body)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    [style, icon, script] = page.loaded
    [own] = page.scripts
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].split() == [script, f"'sha256-{digest}'"]
    assert policy["style-src"].split() == [style, "'unsafe-inline'"]
    assert (policy["connect-src"], icon) == ("'self'", "data:,")
    assert PATH not in answer.body
    assert (await receiver.request("HEAD", "/docs")).status == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_the_docs_can_be_switched_off(path: str) -> None:
    async with serving(MemoryQueue(), docs=False) as server:
        there = await server.request("GET", path)
        other = await server.request("GET", "/no/such/path")
        assert (there.status, there.body) == (other.status, other.body) == (404, {"error": "not found"})


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_the_docs_are_only_read(receiver: Receiver, method: str, path: str) -> None:
    assert (await receiver.request(method, path)).status == 404


async def test_the_path_of_hooks_is_not_told_by_its_placeholder(receiver: Receiver) -> None:
    assert (await receiver.post({}, path=HOOK_PATH)).status == 404


def test_every_route_is_described_and_nothing_else() -> None:
    settings = Settings.model_validate(SETTINGS | {"receiver": MANY})
    app = make_app(settings, MemoryQueue(), HookMetrics(Metrics()), topics=SnsTopics(()))
    paths = {route.path for route in app.routes if isinstance(route, Route)} - {"/{path:path}"}
    assert paths | {"/", PATH, STACKS} == ROUTES == set(described()["paths"])


@pytest.mark.parametrize("name", examples.HOOKS)
async def test_every_example_of_a_hook_gets_what_is_described(receiver: Receiver, name: str) -> None:
    _, body = examples.HOOKS[name]
    answer = await receiver.post(body)
    assert answer.status == EXPECTED[name]
    responses = described()["paths"][PATH]["post"]["responses"]
    validator(responses[str(answer.status)]["content"]["application/json"]["schema"]).validate(answer.body)
    assert (await receiver.queue.counts()).dead == 0


async def test_every_example_of_a_stack_notification_gets_what_is_described(receiver: Receiver) -> None:
    for _, body in examples.STACKS.values():
        answer = await receiver.post(body, path=STACKS)
        assert answer.status == 200
        responses = described()["paths"][STACKS]["post"]["responses"]
        validator(responses["200"]["content"]["application/json"]["schema"]).validate(answer.body)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", PATH, 503), ("GET", "/readyz", 503), ("GET", "/healthz", 200)]
)
async def test_a_queue_that_is_away_is_answered_as_described(method: str, path: str, status: int) -> None:
    async with serving(AwayQueue(), **MANY) as server:
        answer = await server.request(method, path, json=examples.HOOKS["mcs"][1])
        assert answer.status == status
        response = described()["paths"][path][method.lower()]["responses"][str(status)]
        content = response["content"]["application/json"]
        validator(content["schema"]).validate(answer.body)
        assert answer.body in [example["value"] for example in content["examples"].values()]
        assert set(response.get("headers", {})) <= set(answer.headers)


async def test_answers_are_as_the_document_says(receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.port}"
    answers = await asyncio.to_thread(fuzz, described(), url, count=100)
    assert {answers[f"POST {PATH}", status] > 0 for status in (200, 403)} == {True}
    assert answers[f"POST {STACKS}", 200] > 0
    assert counted(receiver.metrics, "hookmirror_hooks_total").get("failed", 0) == 0
    assert (await receiver.post(examples.HOOKS["mcs"][1])).status == 200


def test_the_corpus_is_there() -> None:
    bodies = corpus.bodies()
    assert len(bodies) >= 150
    assert len(set(bodies.values())) == len(bodies), "no body is there twice"


LONGEST_LINE = 16 * 1024
"""Characters: nobody fills the log with a body of his."""


async def test_no_body_of_the_corpus_gets_a_5xx_and_a_good_hook_is_taken_after_each(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hookmirror")
    failures: list[tuple[str, str, int]] = []
    for path in (PATH, STACKS):
        for name, body in corpus.bodies().items():
            answer = await receiver.post(body, path=path)
            good = await receiver.post(examples.HOOKS["mcs"][1])
            if answer.status not in {200, 403, 413} or good.status != 200:
                failures.append((path, name, answer.status))
    assert not failures
    assert counted(receiver.metrics, "hookmirror_hooks_total").get("failed", 0) == 0
    for task in await receiver.tasks():
        assert Task.decode(task.encode()) == task
    lines = [
        as_json(record, record.__dict__["action"], record.__dict__["fields"]) for record in caplog.records
    ]
    assert len(lines) > len(corpus.bodies())
    assert max(map(len, lines)) < LONGEST_LINE


async def test_a_broken_promise_is_found_and_its_body_kept(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    document = described()
    del document["paths"][PATH]["post"]["responses"]["403"]
    url = f"http://127.0.0.1:{receiver.port}"
    with pytest.raises(FailureGroup, match="Undocumented status code"):
        await asyncio.to_thread(fuzz, document, url, count=100, seed=1)
    [body] = [body for name, body in corpus.bodies().items() if name.startswith("found-")]
    assert (await receiver.post(body)).status == 403


async def test_a_body_that_is_found_is_kept_to_the_byte_and_under_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    path = corpus.keep(b"\r\n\x00\xff")
    assert path == corpus.keep(b"\r\n\x00\xff")
    assert corpus.bodies()[path.stem] == b"\r\n\x00\xff"
