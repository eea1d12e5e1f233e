"""When the broker says that it takes no messages (`connection.blocked`: an alarm of memory or disk), and why.

The library hears it and tells nobody. So its two methods that hear it are wrapped, on the connection that is
ours; where another version of it has no such methods, nothing is told, and publishes end by the clock.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aio_pika.abc import AbstractConnection

Tell = Callable[[AbstractConnection, str], None]
"""Is called with the broker's reason, and with "" when it takes messages again."""

_HEARS = "_Connection__handle_connection_"
"""How the library's methods are called that take `blocked` and `unblocked`."""


def listen(connection: AbstractConnection, tell: Tell) -> None:
    """Call `tell` whenever the broker blocks `connection`, or unblocks it."""
    transport = connection.transport
    if transport is None:
        return
    for method in ("blocked", "unblocked"):
        heard = getattr(transport.connection, _HEARS + method, None)
        if heard is not None:
            setattr(transport.connection, _HEARS + method, _telling(heard, connection, tell))


def _telling(
    heard: Callable[[Any], Awaitable[None]], connection: AbstractConnection, tell: Tell
) -> Callable[[Any], Awaitable[None]]:
    async def hear(frame: Any) -> None:
        await heard(frame)
        tell(connection, str(getattr(frame, "reason", "")))

    return hear
