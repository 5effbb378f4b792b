"""Runs without an end on record, and whether the file has all that they recorded.

Rule: a file whose log lay beside it when it was opened lacks nothing, and neither does a backup. It
is noted then: the log is gone when the command ends, as it is of a copy that was made without it.
"""

import os
import socket
import sqlite3
from pathlib import Path

from crawler.clock import boot_id
from crawler.storage.locks import run_is_alive


def note_log(conn: sqlite3.Connection, database: Path) -> None:
    """Put on record of each dead run that its log was found."""
    _note(conn, database, alive=None)


def note_copy(conn: sqlite3.Connection, original: Path) -> None:
    """Put on record in a whole copy which runs were at work on the original, and which had died."""
    _note(conn, original, alive="copied")


def lives_elsewhere(pid: int, host: str, boot: str) -> bool:
    """Tell whether a process of this machine lives that a run belongs to: then on another file."""
    if (host, boot) != (socket.gethostname(), boot_id()) or not boot or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (OverflowError, ProcessLookupError):
        return False
    except OSError:
        pass  # it is another user's
    return True


def _note(conn: sqlite3.Connection, database: Path, alive: str | None) -> None:
    noted = "UPDATE runs SET options = json_set(options, '$.' || ?, 1) WHERE id = ?"
    for (run_id,) in conn.execute("SELECT id FROM runs WHERE ended_at_ms IS NULL").fetchall():
        what = "log_found" if run_is_alive(database, run_id) is False else alive
        if what is not None:
            conn.execute(noted, (what, run_id))
