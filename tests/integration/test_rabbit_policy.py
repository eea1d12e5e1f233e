"""A policy of RabbitMQ that would lose acknowledged hooks keeps hookmirror from starting."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.admin import sample
from common.errors import ConfigError, QueueAway
from common.metrics import Metrics
from common.queue import open_queue
from common.queue.rabbitmq import RabbitQueue
from common.queue.sqlite import SqliteQueue
from console import cli
from receiver.ready import WAITING, Readiness
from receiver.spool import SpoolingPublisher
from tests.lab.lanes import LIVE
from tests.lab.rabbit import Broker, RabbitNode
from tests.lab.until import until

ROOT = Path(__file__).parents[2]

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


CONFIG = """\
[queue]
url = "{url}"
management_url = "{management}"
[stores.a]
[stores.b]
[[routes]]
source = "a:from"
target = "b:to"
"""


def status(*arguments: str) -> Result:
    return CliRunner().invoke(cli.hookmirror, ["status", *arguments], prog_name="hookmirror")


def test_status_names_a_policy_that_loses_until_it_is_taken_off(
    managed: RabbitNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG.format(url=managed.url, management=managed.management))
    managed.control("set_policy", "losing", "live", '{"message-ttl": 60000}')
    try:
        told = json.loads(status("--json").stdout)["losing"]
        said, checked = status(), status("--check")
    finally:
        managed.control("clear_policy", "losing")
    [sentence] = told
    assert "over hookmirror.live that deletes what it holds (message-ttl: 60000)" in sentence
    assert sentence.endswith("rabbitmqctl clear_policy -p / losing")
    assert said.stdout.count(sentence) == 1
    assert (said.exit_code, checked.exit_code) == (0, 1)
    assert "losing" not in json.loads(status("--json").stdout)
    assert status("--check").exit_code == 0


def test_status_says_once_that_the_broker_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(
        CONFIG.format(url="amqp://guest:guest@127.0.0.1:9/", management="http://127.0.0.1:9")
    )
    ran = subprocess.run(
        [sys.executable, "-m", "console", "status"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    [said] = ran.stderr.splitlines()
    assert said.startswith("hookmirror: RabbitMQ has not answered: ")


@pytest.mark.parametrize("with_spool", [False, True])
async def test_readyz_and_the_metrics_tell_of_a_policy_that_loses_until_it_is_taken_off(
    managed: RabbitNode, with_spool: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A spool is of no help: the broker takes hooks, and so nothing goes there."""
    metrics = Metrics()
    managed.control("set_policy", "losing", "live", '{"message-ttl": 60000}')
    queue = await open_queue(managed.url, create=False, management=managed.management)
    spool = await SqliteQueue.open(tmp_path / "spool.db") if with_spool else None
    readiness = Readiness(queue, SpoolingPublisher(queue, spool) if spool else None)

    async def ready() -> bool:
        return (await readiness.ask()).yes

    try:
        answer = await readiness.ask()
        assert (answer.yes, json.loads(answer.body)) == (False, {"status": "waiting", "why": WAITING})
        assert "not ready for hooks: RabbitMQ lays a policy over hookmirror.live" in caplog.text
        await sample(metrics.queue, queue)
        assert b"\nhookmirror_queue_losing 1.0\n" in metrics.render("")[0]
        managed.control("clear_policy", "losing")
        await until(ready, "it is ready again", 60)
        await sample(metrics.queue, queue)
        assert b"\nhookmirror_queue_losing 0.0\n" in metrics.render("")[0]
    finally:
        with suppress(subprocess.CalledProcessError):  # it is off already, unless something has failed
            managed.control("clear_policy", "losing")
        await queue.close()
        if spool is not None:
            await spool.close()


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
        await queue.publish(b"x", lane=LIVE)
    finally:
        await queue.close()
