"""Waiting for other programs that write to the file, and saying for whom.

Rule: a program of somebody else (an editor with unsaved changes) may hold SQLite's lock for
minutes. Nothing that has been paid for is given up for that: it is waited, and told.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crawler.storage.files import beside

PATIENCE_S = 900.0
_TOLD_AFTER_S = 3.0
_PAUSE_S = 0.02


def _nobody(text: str) -> None:
    del text


say: Callable[[str], None] = _nobody
"""Tells a person whom we wait for. A program that has a person to tell sets it."""


def tries(database: Path | None) -> Iterator[None]:
    """Yield for each try to begin, until it is the caller's to give up; pause between them."""
    begun_at = time.monotonic()
    told = False
    while (waited_s := time.monotonic() - begun_at) < PATIENCE_S:
        yield
        if database is not None and not told and waited_s > _TOLD_AFTER_S:
            told = True
            say(
                f"waiting for {writer(database)}, which is writing to {database};"
                f" nothing is lost, and nothing is started until then"
            )
        time.sleep(_PAUSE_S)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Tell whether somebody else has the lock, and nothing has happened yet."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY


def writer(database: Path) -> str:
    """Return who holds a lock of SQLite on a file, as far as the system tells."""
    real = database.resolve()
    try:
        inodes = {path.stat().st_ino for path in (real, beside(real, "shm")) if path.exists()}
        lines = Path("/proc/locks").read_text("ascii").splitlines()
        for fields in map(str.split, lines):
            kind, access, process, place = fields[1], fields[3], fields[4], fields[5]
            mine = process == str(os.getpid())
            inode = int(place.rpartition(":")[2])
            if (kind, access) == ("POSIX", "WRITE") and inode in inodes and not mine:
                name = Path(f"/proc/{process}/comm").read_text("utf-8", "replace").strip()
                return f"{name!r} (pid {process})"
    except (OSError, ValueError, IndexError):
        pass
    return "another program"
