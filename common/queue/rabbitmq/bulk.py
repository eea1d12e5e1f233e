"""Many messages published at once: encoded in one go, sent as one piece, their confirms awaited together.

The library publishes one by one, at 0.3 ms of processor each: for a hook of a thousand records that is longer
than its sender waits. What is done here is what its `basic_publish` does, at 0.03 ms.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection

import aiormq
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel
from aiormq import spec
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from common.queue.rabbitmq.wire import Headers


async def publish(
    channel: AbstractChannel, queue: str, bodies: Collection[bytes], headers: Callable[[], Headers]
) -> None:
    """Return when the broker has confirmed every one of `bodies` in `queue`. Raises what aio-pika raises for
    the first that it has not; the others may be there."""
    underlay = await channel.get_underlay_channel()
    if not isinstance(underlay, aiormq.Channel):
        raise TypeError("a channel of another library")
    messages = {secrets.token_hex(16): body for body in bodies}
    payload = _encode(underlay, queue, messages, headers)
    async with underlay.lock:
        await underlay.write_queue.put(ChannelFrame(payload=payload, should_close=False))
        # Not before: a message that was not sent after all would shift the tags of all that follow. And
        # without a wait, for the writer runs next.
        confirms = [_expect(underlay, name) for name in messages]
    await asyncio.gather(*confirms)


def _encode(
    underlay: aiormq.Channel, queue: str, messages: dict[str, bytes], headers: Callable[[], Headers]
) -> bytes:
    number, room = underlay.number, underlay.max_content_size
    frames = bytearray()
    publish_frame = marshal(spec.Basic.Publish(routing_key=queue, mandatory=True), number)
    for name, body in messages.items():
        properties = spec.Basic.Properties(
            headers=headers(), delivery_mode=DeliveryMode.PERSISTENT, message_id=name
        )
        frames += publish_frame
        frames += marshal(ContentHeader(properties=properties, body_size=len(body)), number)
        for start in range(0, len(body), room):
            frames += marshal(ContentBody(body[start : start + room]), number)
    return bytes(frames)


def _expect(underlay: aiormq.Channel, name: str) -> "asyncio.Future[object]":
    """Draw the next tag, for the message `name`, by which its return is known; give what its confirm sets."""
    underlay.delivery_tag += 1
    confirm = underlay.create_future()
    underlay.confirmations[underlay.delivery_tag] = confirm
    underlay.message_id_delivery_tag[name] = underlay.delivery_tag
    confirm.add_done_callback(lambda _: underlay.message_id_delivery_tag.pop(name, None))
    return confirm
