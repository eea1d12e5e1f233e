"""Parts that tests share."""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.clouds import moto
from tests.lab.rabbit import Broker, ExternalNode, RabbitNode

# Taken out of the environment: the programs under test refuse a HOOKMIRROR_ variable they do not know.
SEED = int(os.environ.pop("HOOKMIRROR_TEST_SEED", "") or secrets.randbelow(10**9))
AMQP_URL = os.environ.pop("HOOKMIRROR_TEST_AMQP_URL", "")
WHOLE = os.environ.pop("HOOKMIRROR_TEST_WHOLE", "")


def pytest_configure(config: pytest.Config) -> None:
    """Two processes cannot share a broker: each empties its queues."""
    if AMQP_URL and config.getoption("numprocesses", None):
        raise pytest.UsageError("HOOKMIRROR_TEST_AMQP_URL is one broker. Add:  ARGS='-n 0'")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each of the parallel processes the seed that the header names."""
    node.workerinput["seed"] = SEED


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With HOOKMIRROR_TEST_WHOLE a test that was skipped, for want of a tool, fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if WHOLE and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_report_header() -> list[str]:
    """Say how to see the same again."""
    return [
        f"hookmirror: HOOKMIRROR_TEST_SEED={SEED}",
        f"hookmirror: broker {'of HOOKMIRROR_TEST_AMQP_URL' if AMQP_URL else 'of the tests'}",
    ]


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What chance is drawn from in the tests that draw anew each time; the run's header names it."""
    workerinput: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
    return int(workerinput.get("seed", SEED))


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker, shared by the session: a node of the tests, or that of HOOKMIRROR_TEST_AMQP_URL."""
    node = ExternalNode(AMQP_URL) if AMQP_URL else RabbitNode(tmp_path_factory.mktemp("rabbit"))
    try:
        if isinstance(node, RabbitNode):
            node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def own_rabbit(rabbit: Broker) -> RabbitNode:
    """The tests' own node; a test that kills it starts it again."""
    if isinstance(rabbit, ExternalNode):
        pytest.skip("kills the broker, and that of HOOKMIRROR_TEST_AMQP_URL is somebody else's")
    return rabbit


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """An S3 server that keeps every key."""
    with moto() as url:
        yield url
