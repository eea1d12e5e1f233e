"""The connections to RabbitMQ: none is left behind."""

import asyncio
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection
from yarl import URL

from common.queue.rabbitmq.link import Link
from common.queue.rabbitmq.notices import Notices


class Connection:
    """As much of aio-pika's as a link touches."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.closed = False

    async def close(self) -> None:
        self.closed = True


async def test_a_connection_that_cannot_be_prepared_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Connection] = []

    async def connect(*_: Any, **__: Any) -> Connection:
        opened.append(Connection())
        return opened[-1]

    async def prepare(_: AbstractConnection) -> None:
        raise TimeoutError("the broker is too busy to declare a queue")

    monkeypatch.setattr(aio_pika, "connect", connect)
    link = Link(URL("amqp://localhost/"), prepare, Notices())
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await link.channel()
    assert [connection.closed for connection in opened] == [True, True, True]
