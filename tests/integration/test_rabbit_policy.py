"""A policy of RabbitMQ that would lose acknowledged hooks keeps hookmirror from starting."""

import logging
from collections.abc import Iterator

import pytest

from common.errors import ConfigError
from common.queue.port import Lane
from common.queue.rabbitmq import RabbitQueue
from tests.lab.rabbit import Broker, RabbitNode

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def managed(rabbit: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A node with the management plugin."""
    if not isinstance(rabbit, RabbitNode):
        pytest.skip("sets policies, and the broker of HOOKMIRROR_TEST_AMQP_URL is somebody else's")
    node = RabbitNode(tmp_path_factory.mktemp("managed"), managed=True)
    node.start()
    yield node
    node.stop()


async def started(node: RabbitNode, management: str | None = None) -> None:
    await (
        await RabbitQueue.open(node.url, look_after=1200, management=management or node.management)
    ).close()


async def refusal(node: RabbitNode) -> str:
    """Return why it does not start, "" when it does."""
    try:
        await started(node)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("pattern", "definition", "queue", "key"),
    [
        (".*", '{"message-ttl": 60000}', "hookmirror.", "message-ttl: 60000"),
        ("live", '{"expires": 3600000}', "hookmirror.live", "expires: 3600000"),
        ("dead", '{"max-length": 10}', "hookmirror.dead", "max-length: 10"),
        ("dead", '{"max-length-bytes": 1000}', "hookmirror.dead", "max-length-bytes: 1000"),
        ("dead", '{"delivery-limit": 3}', "hookmirror.dead", "delivery-limit: 3"),
    ],
)
@pytest.mark.parametrize("kind", ["policy", "operator_policy"])
async def test_a_policy_that_loses_is_refused_with_the_command_that_takes_it_off(
    managed: RabbitNode, pattern: str, definition: str, queue: str, key: str, kind: str
) -> None:
    managed.control(f"set_{kind}", "losing", pattern, definition, "--apply-to", "queues")
    try:
        refused = await refusal(managed)
    finally:
        managed.control(f"clear_{kind}", "losing")
    assert f"over {queue}" in refused
    assert key in refused
    assert refused.endswith(f"rabbitmqctl clear_{kind} -p / losing")
    assert await refusal(managed) == ""


async def test_a_policy_that_loses_nothing_is_none_of_our_business(managed: RabbitNode) -> None:
    managed.control("set_policy", "others", "^(?!hookmirror)", '{"message-ttl": 60000}')
    managed.control("set_operator_policy", "lanes", "live", '{"max-length": 1000}', "--apply-to", "queues")
    try:
        await started(managed)
    finally:
        managed.control("clear_policy", "others")
        managed.control("clear_operator_policy", "lanes")


@pytest.mark.parametrize("management", ["http://127.0.0.1:9", "{}/nowhere"])
async def test_an_api_that_does_not_tell_is_named_and_keeps_nobody_from_starting(
    managed: RabbitNode, caplog: pytest.LogCaptureFixture, management: str
) -> None:
    queue = await RabbitQueue.open(
        managed.url, look_after=1200, management=management.format(managed.management)
    )
    try:
        assert "queue.management_url" in caplog.text
        caplog.set_level(logging.WARNING)
        await queue.publish(b"x", lane=Lane.LIVE)
    finally:
        await queue.close()
