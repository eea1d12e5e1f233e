"""Our queues and exchanges, declared on RabbitMQ."""

from collections.abc import Iterable
from contextlib import suppress

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelPreconditionFailed

from common.errors import ConfigError
from common.queue import topology
from common.queue.rabbitmq.link import FOREIGN, fresh_channel


async def declare(connection: AbstractConnection, rungs: Iterable[int]) -> None:
    """Declare every queue for the waits `rungs`. Raises `ConfigError` for one that is there with other
    arguments, and what aio-pika raises."""
    channel = await fresh_channel(connection)
    for item in topology.declarations(rungs):
        try:
            queue = await channel.declare_queue(item.name, durable=True, arguments=dict(item.arguments))
        except ChannelPreconditionFailed as error:
            raise ConfigError(
                f"RabbitMQ has the queue {item.name} with other arguments: {error}. "
                "Empty and delete that queue, or name another virtual host in queue.url."
            ) from error
        if item.exchange:
            await channel.declare_exchange(item.exchange, "fanout", durable=True)
            await queue.bind(item.exchange)
    await channel.close()
    await _last(connection)


async def _last(connection: AbstractConnection) -> None:
    """Let none of ours be the queue that was declared last: see `topology.last`."""
    item = topology.last()
    with suppress(*FOREIGN):  # of no other use: a limit of queues, or a right that lacks, is no reason to end
        channel = await fresh_channel(connection)
        await channel.declare_queue(item.name, durable=True, arguments=dict(item.arguments))
        await channel.close()
