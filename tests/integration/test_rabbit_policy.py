"""A policy of RabbitMQ that would lose acknowledged hooks keeps hookmirror from starting."""

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest

from common.errors import ConfigError, QueueAway
from common.queue import open_queue
from common.queue.port import Lane
from common.queue.rabbitmq import RabbitQueue
from tests.lab.rabbit import Broker, RabbitNode
from tests.lab.until import until

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


async def test_the_policy_at_fault_is_named_and_not_the_harmless_one_beside_it(managed: RabbitNode) -> None:
    managed.control("set_policy", "harmless", "live", '{"max-length": 1000000}', "--priority", "9")
    managed.control("set_policy", "hidden", "live", '{"expires": 60000}')
    managed.control("set_operator_policy", "losing", ".*", '{"message-ttl": 60000}')
    try:
        refused = await refusal(managed)
    finally:
        managed.control("clear_policy", "harmless")
        managed.control("clear_policy", "hidden")
        managed.control("clear_operator_policy", "losing")
    assert "clear_operator_policy -p / losing" in refused
    assert "clear_policy" not in refused.replace("clear_operator_policy", "")


async def test_a_user_who_may_not_see_policies_is_told_what_the_queues_say(managed: RabbitNode) -> None:
    managed.control("add_user", "poor", "poorpoor")
    managed.control("set_user_tags", "poor", "management")
    managed.control("set_permissions", "poor", ".*", ".*", ".*")
    management = managed.management.replace("//", "//poor:poorpoor@")
    await started(managed)
    managed.control("set_policy", "losing", "live", '{"message-ttl": 60000}')

    async def refused() -> bool:
        try:
            await started(managed, management)
        except ConfigError as error:
            return "rabbitmqctl clear_policy -p / losing" in str(error)
        return False

    try:
        await until(refused, "the refusal names the policy", 120)
    finally:
        managed.control("clear_policy", "losing")
        managed.control("delete_user", "poor")


async def test_a_policy_that_comes_while_it_runs_is_told_with_the_next_connection_and_so_is_its_end(
    managed: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await RabbitQueue.open(managed.url, look_after=1200, management=managed.management)
    managed.control("set_policy", "losing", "live", '{"message-ttl": 60000}')
    managed.control("close_all_connections", "so that there is a new one")

    async def losing() -> bool:
        with suppress(QueueAway):
            return bool((await queue.counts()).losing)
        return False

    async def mended() -> bool:
        return not await losing()

    try:
        await until(losing, "the depths tell of the policy", 60)
        with pytest.raises(QueueAway, match="clear_policy -p / losing"):
            await queue.check()
        assert "clear_policy -p / losing" in caplog.text
        managed.control("clear_policy", "losing")
        await until(mended, "the depths tell that it is gone", 60)
        await queue.check()
    finally:
        await queue.close()


async def test_a_policy_is_told_where_the_broker_was_away_at_the_start(managed: RabbitNode) -> None:
    managed.control("set_policy", "losing", "live", '{"message-ttl": 60000}')
    managed.control("stop_app")
    queue = await RabbitQueue.open(managed.url, look_after=1200, management=managed.management)

    async def told() -> bool:
        with suppress(QueueAway):
            return "clear_policy -p / losing" in str((await queue.counts()).losing)
        return False

    try:
        managed.control("start_app")
        await until(told, "the depths tell of the policy", 60)
    finally:
        managed.control("clear_policy", "losing")
        await queue.close()


async def test_who_only_looks_is_told_and_not_refused(managed: RabbitNode) -> None:
    managed.control("set_policy", "losing", "live", '{"message-ttl": 60000}')
    try:
        queue = await open_queue(managed.url, create=False, management=managed.management)
        counts = await queue.counts()
        await queue.close()
    finally:
        managed.control("clear_policy", "losing")
    assert "clear_policy -p / losing" in counts.losing[0]


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
