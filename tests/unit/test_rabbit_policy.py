"""What is read from the policies of RabbitMQ's management API."""

import pytest
from yarl import URL

from common.queue import topology
from common.queue.rabbitmq.policy import Laid, PatternUnknownError, Policy, doubtful, losing, over, vhost

DEAD = topology.Declaration("hookmirror.dead", {"x-queue-type": "quorum"})


def names(queue: topology.Declaration, *policies: Policy) -> list[str]:
    filled = [{"name": str(i), "pattern": ".*", "definition": {}} | p for i, p in enumerate(policies)]
    return [policy["name"] for policy in over(queue, filled)]


def test_a_consumer_timeout_shorter_than_a_task_may_take_is_named_before_it_strikes() -> None:
    def laid(timeout: int) -> list[Laid]:
        return [Laid("hookmirror.live", {"consumer-timeout": timeout}, "")]

    [sentence] = doubtful(laid(60_000))
    assert "hookmirror.live has consumer-timeout 60000 ms" in sentence
    assert list(doubtful(laid(600_000))) == []
    assert list(doubtful([Laid("hookmirror.live", {}, "")])) == []


def test_a_virtual_host_is_named_as_the_broker_knows_it() -> None:
    urls = ("amqp://h", "amqp://h/", "amqp://h/%2F", "amqp://h/second", "amqp://h/with%20blank")
    assert [vhost(URL(url)) for url in urls] == ["/", "/", "/", "second", "with blank"]


def test_of_the_policies_of_a_kind_the_highest_priority_is_over_a_queue() -> None:
    assert names(DEAD, {"priority": 1}, {"priority": 7}, {"pattern": "live", "priority": 9}) == ["1"]
    assert names(DEAD, {}, {"priority": -1}) == ["0"]
    assert names(DEAD, {"priority": -2}, {"priority": -1}) == ["1"]
    assert names(DEAD, {"pattern": "^(?!hookmirror)"}) == []


def test_of_several_with_the_same_priority_it_may_be_any() -> None:
    assert names(DEAD, {}, {}) == ["0", "1"]


def test_a_policy_applies_to_the_kinds_of_queues_that_it_names() -> None:
    kinds = ["all", "queues", "quorum_queues", "classic_queues", "streams", "exchanges"]
    assert names(DEAD, *({"apply-to": kind} for kind in kinds)) == ["0", "1", "2"]
    assert names(topology.any_mark(), *({"apply-to": kind} for kind in kinds)) == ["0", "1", "3"]


@pytest.mark.parametrize("pattern", ["[[:alpha:]]+", r"\Qhookmirror.\E", "(?&name)"])
def test_a_pattern_of_the_broker_alone_is_not_guessed_at(pattern: str) -> None:
    with pytest.raises(PatternUnknownError):
        names(DEAD, {"pattern": pattern})


def test_a_mark_is_lost_with_its_queue_alone() -> None:
    mark = topology.any_mark().name
    assert list(losing([Laid(mark, {"message-ttl": 1, "max-length": 1}, "")])) == []
    [sentence] = losing([Laid(mark, {"expires": 5}, "rabbitmqctl clear_policy -p / p")])
    assert "hookmirror.once." in sentence
    assert "expires: 5" in sentence


def test_a_policy_over_many_queues_is_named_once() -> None:
    wide = [Laid(f"hookmirror.{lane}", {"message-ttl": 1}, "clear") for lane in ("live", "bulk")]
    assert len(list(losing(wide))) == 1
