"""Whether a route's lanes are taken from: not while the route is paused."""

import asyncio


class Gate:
    """Of one route; open at first. `opened` is set while it is open, and `closed` while it is not."""

    def __init__(self) -> None:
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        self.opened.set()

    def open(self) -> None:
        """Let tasks through."""
        self.closed.clear()
        self.opened.set()

    def close(self) -> None:
        """Let none through."""
        self.opened.clear()
        self.closed.set()
