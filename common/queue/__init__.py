"""The queue port and its three backends; `open_queue` picks one by URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from common.errors import ConfigError
from common.queue.port import Queue


async def open_queue(url: str, *, look_after: int = 1200) -> Queue:
    """Return the queue at `url`, ready for use: `amqp(s)://...`, `sqlite:///file` or `memory://`.

    `look_after` (seconds) becomes a wait of its own on RabbitMQ, where waits are queues.
    Raises `ConfigError` for a URL of no backend or a broker set up otherwise, `QueueAway` for one
    that does not answer.
    """
    scheme = urlsplit(url).scheme
    if scheme in {"amqp", "amqps"}:
        from common.queue.rabbitmq import RabbitQueue

        return await RabbitQueue.open(url, look_after=look_after)
    if scheme == "sqlite":
        from common.queue.sqlite import SqliteQueue

        return await SqliteQueue.open(Path(unquote(url.removeprefix("sqlite:///"))))
    if scheme == "memory":
        from common.queue.memory import MemoryQueue

        return MemoryQueue()
    raise ConfigError(
        f'queue.url: "{scheme}://" is no queue. Set:  url = "sqlite:///hookmirror.db"  (or amqp://...)'
    )
