"""What all requests of senders have in common: a bounded body, JSON, and no answer before all is durable."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

from common.errors import NotAHook, QueueAway, Slow, TooLarge

MAX_BODY = 256 * 1024
"""Bytes; a record has at most a few kilobytes."""

BODY_WITHIN = 5.0
"""Seconds for a body to arrive."""

ANSWER_WITHIN = 2.0
"""Seconds for all of a hook's records to be confirmed; then the sender is asked to come again."""


async def read_bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the whole body. Raises `TooLarge` as soon as it is more than MAX_BODY, `Slow` when it takes
    longer than BODY_WITHIN."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN):
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_BODY:
                    raise TooLarge(f"a hook is at most {MAX_BODY} bytes")
    except TimeoutError as error:
        raise Slow(f"the body has not arrived within {BODY_WITHIN:.0f} s") from error
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """Return the JSON value of `body`. Raises `NotAHook` for anything else, nesting without end included."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAHook("the body is not JSON, or nested too deep") from error


async def all_durable(publishing: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Publish everything at once and wait for all of it. Raises `QueueAway` when some is not confirmed within
    ANSWER_WITHIN."""

    try:
        async with asyncio.timeout(ANSWER_WITHIN), asyncio.TaskGroup() as group:
            for call in publishing:
                group.create_task(call)
    except TimeoutError as error:
        raise QueueAway("the queue has not confirmed the records in time") from error
    except ExceptionGroup as group_error:
        raise QueueAway(str(group_error.exceptions[0])) from group_error
