"""A copy of a database that is whole, also while runs are at work on it.

Rule: a copy is made in one step, from one state of the file, and is there whole or not at all.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from crawler.errors import CrawlerError, Exit
from crawler.storage.database import reading
from crawler.storage.files import beside


def back_up(database: Path, copy: Path, require_good: Callable[[sqlite3.Connection], None]) -> None:
    """Copy a database into a new file, alone in itself. Raises CrawlerError, and leaves no copy.

    Args:
        database: what is copied; others may write to it in the meantime.
        copy: the new file.
        require_good: raises CrawlerError for a copy that is not to be kept.

    """
    for path in (copy, *(beside(copy, suffix) for suffix in ("wal", "journal", "lock"))):
        if path.exists() or path.is_symlink():
            raise CrawlerError(
                f"{copy} can't be written",
                f"{path} is there already",
                "name another file",
                Exit.USAGE,
            )
    unfinished = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        with reading(database) as source:
            os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            _copy(source, unfinished)
        with reading(unfinished) as made:
            require_good(made)
        os.link(unfinished, copy)  # never over a file that has come in the meantime
    except OSError as error:
        raise CrawlerError(
            f"{copy} can't be written",
            error.strerror or str(error),
            "name another file",
            Exit.USAGE,
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    _sync(copy.absolute().parent)


def _copy(source: sqlite3.Connection, path: Path) -> None:
    target = sqlite3.connect(path.absolute(), isolation_level=None)
    try:
        target.execute("PRAGMA synchronous = FULL")
        source.backup(target)
        # Without a log: one file is all of it.
        target.execute("PRAGMA journal_mode = DELETE")
    finally:
        target.close()


def _sync(folder: Path) -> None:
    """Have the disk keep a name."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
