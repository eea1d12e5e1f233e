"""Marks on RabbitMQ, which has no store of keys and values: the queue is the mark.

A declaration is atomic. With equal arguments it succeeds, and the queue's time begins anew; with others it is
refused, and the time runs on (measured on 3.10.8). A broker killed in the very moment may have lost it: then
a thing is done twice. See docs/decisions/0015-the-queue-is-the-mark.md.
"""

import re

from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from common.errors import QueueAway
from common.queue.rabbitmq.link import FOREIGN, Link, close, translated
from common.queue.topology import MARK_ARGUMENT, MARKS, Declaration, apart

MARK_WITHIN = 10.0
"""Seconds for the broker to say whose a mark is."""

# The only message whose text is read: over AMQP there is no other way to ask a queue for its arguments. The
# words are those of 3.10.8 and 4.0.5 (`current is '5'`) and of others (`is the value '5' of type 'long'`).
_CURRENT = re.compile(
    rf"inequivalent arg '{MARK_ARGUMENT}' for (?:(?!inequivalent arg).)*?"
    r" but current is (?:the value )?'(\d+)'"
)


def current(refusal: str) -> int | None:
    """Return what the broker says that `MARK_ARGUMENT` is, None when that cannot be read."""
    found = _CURRENT.search(refusal)
    return int(found[1]) if found else None


async def claim(link: Link, mark: Declaration, *, within: float) -> bool:
    """Return whether `mark` is its holder's now. Raises `QueueAway`.

    When it cannot be read who holds it the answer is True: better done twice than not at all.
    """
    async with translated(MARK_WITHIN):  # bounds the loop too: each round found yet another holder
        while (refusal := await _refused(link, mark)) is not None:
            holds = current(str(refusal))
            if holds is None:
                await _must_exist(link, mark, refusal)
                return True
            if apart(holds, int(mark.arguments[MARK_ARGUMENT])) < within:
                return False
            await _delete(link, mark)
    return True


async def _refused(link: Link, mark: Declaration) -> ChannelPreconditionFailed | None:
    """Declare `mark` and return how that was refused, None when it was not."""
    channel = await link.another()  # a refusal closes it
    try:
        await channel.declare_queue(mark.name, durable=True, arguments=dict(mark.arguments))
    except ChannelPreconditionFailed as error:
        return error
    except ChannelAccessRefused as error:
        raise QueueAway(
            f"RabbitMQ does not let this user declare {MARKS}: give it the right to configure it"
        ) from error
    finally:
        await close(channel)
    return None


async def _delete(link: Link, mark: Declaration) -> None:
    """Delete the mark of one who came long before or after.

    Two who do so in the same moment may each delete and declare, and then both are the first: what came
    twice may be done twice, and nothing is lost.
    """
    channel = await link.another()
    try:
        await channel.queue_delete(mark.name)
    finally:
        await close(channel)


async def _must_exist(link: Link, mark: Declaration, refusal: ChannelPreconditionFailed) -> None:
    """Raise `QueueAway` when there is no such queue: a broker that has reached its limit of queues refuses
    with the same code, and then whatever came twice would be done twice."""
    channel = await link.another()
    try:
        queue = await channel.get_queue(mark.name, ensure=False)
        await queue.purge()  # of nothing. A passive declaration would ask as well, and begin the time anew
    except FOREIGN as error:
        raise QueueAway(f"RabbitMQ makes no queue for a mark: {refusal}") from error
    finally:
        await close(channel)
