"""Runs that have died, and whether the file has all that they recorded.

Rule: a file whose log lay beside it when it was opened lacks nothing. It is noted then, because the
log is gone when the command ends, as it is of a copy that was made without it.
"""

import sqlite3
from pathlib import Path

from crawler.storage.locks import run_is_alive


def note_log(conn: sqlite3.Connection, database: Path) -> None:
    """Put on record of each dead run that its log was found."""
    noted = "UPDATE runs SET options = json_set(options, '$.log_found', 1) WHERE id = ?"
    for (run_id,) in conn.execute("SELECT id FROM runs WHERE ended_at_ms IS NULL").fetchall():
        if run_is_alive(database, run_id) is False:
            conn.execute(noted, (run_id,))
