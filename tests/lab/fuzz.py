"""schemathesis on the OpenAPI document: bodies made from the schemas, and answers held to them."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, CheckContext, GenerationMode, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tests.lab.corpus import keeping

AnyCase = Case[Any]
AnyOperation = APIOperation[Any, Any, Any, Any]
Answers = Counter[tuple[str, int]]
"""How often which operation answered with which status."""


def takes_what_fits(_: CheckContext, response: Response, case: AnyCase) -> None:
    """Records, test events and notifications of stacks that fit their schema are taken."""
    plain = isinstance(case.body, dict) and not {"Type", "TopicArn"} & set(case.body)
    if plain and case.meta and case.meta.generation.mode is GenerationMode.POSITIVE:
        assert response.status_code == 200, f"{response.status_code} for a body that fits its schema"


CHECKS: list[CheckFunction] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    takes_what_fits,
]
"""Left out, each for a reason:

- positive_data_acceptance: no schema says that SNS's certificate lies in the region of its topic, or that a
  Type beside records makes a subscription of them; `takes_what_fits` looks at all the others.
- negative_data_rejection: a record that does not fit is kept as a dead letter, and its hook gets 200.
- unsupported_method, allow_header_conformance: another method gets 404, as another path does, so that
  neither tells the secret one.
- missing_required_header, ignored_auth and the stateful ones: there are none of those here.
"""


class _Session(requests.Session):
    """Remembers what it sends: the body of an answer that never came is not in it."""

    def __init__(self) -> None:
        super().__init__()
        self.doubtful: list[bytes] = []

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        """See `requests.Session.send`."""
        body = request.body
        self.doubtful.append(body if isinstance(body, bytes) else str(body or "").encode())
        return super().send(request, **more)


def fuzz(document: dict[str, Any], url: str, *, count: int, seed: int | None = None) -> Answers:
    """Send `count` bodies, shared among the operations that take one, and hold every answer to `document`.

    Without a `seed` the same ones each time; with one, a body that fails is kept in the corpus.
    """
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == sum(map(len, document["paths"].values()))
    takers = [operation for operation in operations if len(operation.body)]
    answers: Answers = Counter()
    for operation in operations:
        if operation not in takers:
            _probe(operation, url, answers, count=1, seed=seed)
    while (missing := count - _sent(takers, answers)) > 0:
        before = _sent(takers, answers)
        for operation in takers:
            _probe(operation, url, answers, count=-(-missing // len(takers)), seed=seed)
        assert _sent(takers, answers) > before, "the strategies have no more bodies"
        seed = None if seed is None else seed + 1
    return answers


def _sent(operations: list[AnyOperation], answers: Answers) -> int:
    labels = {operation.label for operation in operations}
    return sum(number for (label, _), number in answers.items() if label in labels)


def _probe(operation: AnyOperation, url: str, answers: Answers, *, count: int, seed: int | None) -> None:
    session = _Session()

    def send(case: AnyCase) -> None:
        response = case.call(base_url=url, session=session)
        answers[operation.label, response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        session.doubtful.clear()

    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
    )
    with session, nullcontext() if seed is None else keeping(session.doubtful):
        test = settings(hypothesis.given(_cases(operation))(send))
        (test if seed is None else hypothesis.seed(seed)(test))()


def _cases(operation: AnyOperation) -> st.SearchStrategy[AnyCase]:
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not len(operation.body):
        return fitting
    return fitting | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
