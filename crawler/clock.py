"""What the system knows of time: since when the machine runs, and what the wall clock says.

Rule: the only file that reads a clock; everything else is given the time.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_ms() -> int:
    """Return the wall clock's time in ms."""
    return time.time_ns() // 1_000_000


def since_boot_ms() -> int:
    """Return the time since the machine was started, in ms, its sleep included; never jumps."""
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000


@functools.cache
def boot_id() -> str:
    """Return what tells one start of the machine from another.

    Where the system has no such thing it is empty: then the newest time on record keeps the file's
    time from going back after another start.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def steady_clock(offset_ms: int) -> Callable[[], int]:
    """Return a clock in ms: the time since boot plus an offset."""
    read_ns = time.clock_gettime_ns  # read for every call that ends: no detour
    return lambda: read_ns(_BOOT_CLOCK) // 1_000_000 + offset_ms
