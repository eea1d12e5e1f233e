"""What is read from the policies of RabbitMQ's management API."""

from yarl import URL

from common.queue.rabbitmq.policy import doubtful, vhost


def test_a_consumer_timeout_shorter_than_a_task_may_take_is_named_before_it_strikes() -> None:
    def queue(timeout: int) -> list[dict[str, object]]:
        return [{"name": "hookmirror.live", "effective_policy_definition": {"consumer-timeout": timeout}}]

    [sentence] = doubtful(queue(60_000))
    assert "hookmirror.live has consumer-timeout 60000 ms" in sentence
    assert list(doubtful(queue(600_000))) == []
    assert list(doubtful([{"name": "hookmirror.live", "effective_policy_definition": []}])) == []


def test_a_virtual_host_is_named_as_the_broker_knows_it() -> None:
    urls = ("amqp://h", "amqp://h/", "amqp://h/%2F", "amqp://h/second", "amqp://h/with%20blank")
    assert [vhost(URL(url)) for url in urls] == ["/", "/", "/", "second", "with blank"]
