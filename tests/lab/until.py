"""Waiting for a condition, with a deadline: never for an amount of time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL = 0.02


async def until(condition: Callable[[], object | Awaitable[object]], what: str, within: float = 30.0) -> None:
    """Return when `condition` holds; fail with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(POLL)
