"""The queue port and its backends; `open_queue` picks one by URL. The one in memory has no URL and is for
tests alone: a receiver would answer 200 for what dies with it."""

from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from common.errors import ConfigError
from common.queue.port import Queue


async def open_queue(
    url: str,
    *,
    look_after: int = 1200,
    create: bool = True,
    management: str | None = None,
    routes: Collection[str] = (),
) -> Queue:
    """Return the queue at `url`, ready for use: `amqp(s)://...` or `sqlite:///file`.

    `look_after` (seconds) becomes a wait of its own on RabbitMQ, where waits are queues, and `management` is
    the URL of its management API, which tells of policies that lose. The lanes of `routes` are made at once,
    others when they are needed. Without `create` a file that is not there is not made, a policy that loses is
    told by `counts` alone, and `QueueAway` is raised for a broker that does not answer. Raises `ConfigError`
    for a URL of no backend, a broker set up otherwise or a file that cannot be used.
    """
    scheme = urlsplit(url).scheme
    if scheme in {"amqp", "amqps"}:
        from common.queue.rabbitmq import RabbitQueue

        return await RabbitQueue.open(
            url, look_after=look_after, management=management, refuse=create, routes=routes
        )
    if scheme == "sqlite":
        from common.queue.sqlite import SqliteQueue

        path = Path(unquote(url.removeprefix("sqlite:///")))
        return await SqliteQueue.open(path, create=create, name="queue.url")
    raise ConfigError(
        f'queue.url: "{scheme}://" is no queue. Set:  url = "sqlite:///hookmirror.db"  (or amqp://...)'
    )
