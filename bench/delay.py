"""A distance: passes TCP on to a port of this machine, each byte so many milliseconds late.

python -m bench.delay LISTEN TO MILLISECONDS
"""

import asyncio
import sys
from typing import cast

import uvloop


class _End(asyncio.Protocol):
    """One end of a connection; what comes in goes out at the `other` end, `late` seconds later."""

    def __init__(self, late: float) -> None:
        self._late = late
        self.other: _End | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        for data in self._early:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self.other:
            asyncio.get_running_loop().call_later(self._late, self.other.write, data)

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio."""
        if self.other:
            asyncio.get_running_loop().call_later(self._late, self.other.close)

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until there is a connection."""
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is left, and close."""
        if self._transport:
            self._transport.close()


async def serve(listen: int, to: int, late: float) -> None:
    """Pass on for ever; `late` is in seconds, each way."""
    loop = asyncio.get_running_loop()
    joining = set[asyncio.Task[object]]()

    def join() -> _End:
        near, far = _End(late), _End(late)
        near.other, far.other = far, near
        task = asyncio.ensure_future(loop.create_connection(lambda: far, "127.0.0.1", to))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return near

    server = await loop.create_server(join, "127.0.0.1", listen, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    port, target, milliseconds = map(int, sys.argv[1:])
    uvloop.run(serve(port, target, milliseconds / 1000))
