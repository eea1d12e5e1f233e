"""Parts that tests share."""

from collections.abc import Iterator

import pytest

from tests.lab.rabbit import RabbitNode


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A running node, shared by the session; a test that kills it starts it again."""
    node = RabbitNode(tmp_path_factory.mktemp("rabbit"))
    try:
        node.start()
        yield node
    finally:
        node.stop()
