"""Marks on RabbitMQ, which has no store of keys and values: the queue is the mark.

A declaration is atomic. With equal arguments it succeeds, and the queue's time begins anew; with others it is
refused, and the time runs on (measured on 3.10.8). A broker killed in the very moment may have lost it: then
a thing is done twice. See docs/decisions/0015-the-queue-is-the-mark.md.
"""

from contextlib import suppress

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed

from common.errors import QueueAway
from common.queue.rabbitmq.link import FOREIGN, Link, translated
from common.queue.topology import Declaration

MARK_WITHIN = 10.0
"""Seconds for the broker to say whose a mark is."""


async def declare(link: Link, mark: Declaration) -> bool:
    """Return whether `mark` is its holder's now. Raises `QueueAway`."""
    async with translated(MARK_WITHIN):
        try:
            channel = await link.another()  # a refusal closes it
            try:
                await channel.declare_queue(mark.name, durable=True, arguments=dict(mark.arguments))
            finally:
                await _close(channel)
        except ChannelPreconditionFailed as error:
            await _must_exist(link, mark, error)
            return False
    return True


async def _must_exist(link: Link, mark: Declaration, refusal: ChannelPreconditionFailed) -> None:
    """Raise `QueueAway` when there is no such queue: a broker that has reached its limit of queues refuses
    with the same code, and to take that for another holder would lose the task."""
    channel = await link.another()
    try:
        queue = await channel.get_queue(mark.name, ensure=False)
        await queue.purge()  # of nothing. A passive declaration would ask as well, and begin the time anew
    except FOREIGN as error:
        raise QueueAway(f"RabbitMQ makes no queue for a mark: {refusal}") from error
    finally:
        await _close(channel)


async def _close(channel: AbstractChannel) -> None:
    with suppress(*FOREIGN):
        await channel.close()
