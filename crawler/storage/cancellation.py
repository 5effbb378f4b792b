"""Work that no cancellation cuts short: it ends first, and then the cancellation goes on.

Rule: only what is sure to end soon is done so.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await something to its end and return what it returns, however often the caller is cancelled.

    Raises CancelledError after that end if there was one; then what the work raised is not told.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller hears of
        raise
