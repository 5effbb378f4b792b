"""A copy of a database that is whole, also while runs are at work on it.

Rule: a copy is made in one step, from one state of the file, and is there whole or not at all.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from crawler.errors import CrawlerError, Exit
from crawler.storage.database import reading
from crawler.storage.dead_runs import note_copy
from crawler.storage.files import beside
from crawler.storage.whole_file import unfinished


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
    with reading(database) as source, unfinished(copy, copy) as hidden:
        _copy(source, hidden, database)
        with reading(hidden) as made:
            require_good(made)
        os.link(hidden, copy)  # never over a file that has come in the meantime
    _sync(copy.absolute().parent)


def _copy(source: sqlite3.Connection, path: Path, database: Path) -> None:
    target = sqlite3.connect(path.absolute(), isolation_level=None)
    try:
        target.execute("PRAGMA synchronous = FULL")
        source.backup(target)
        note_copy(target, database)
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
