"""Where what a server sent is read: in the event loop, or in a thread where there is much of it.

Rule: all other calls wait for what is done in the loop, so no more than `LARGE` bytes of one answer
are read there at once. How many threads there are, asyncio bounds.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

LARGE = 2**20
"""Bytes that are read in the loop, at the most."""

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


async def off_loop(
    size: int, read: Callable[_Given, _Found], *args: _Given.args, **more: _Given.kwargs
) -> _Found:
    """Return what a function makes of so many bytes; it has to be one that a thread may call."""
    if size <= LARGE:
        return read(*args, **more)
    return await asyncio.to_thread(read, *args, **more)
