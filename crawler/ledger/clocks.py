"""One clock for all processes of a machine, agreed on in the file.

Rule: the file's time is the time since boot plus an offset on record. It can't differ between two
processes, so nobody's window forgets what another has just started; a wall clock that jumps moves
it only when nothing of the last minute could be forgotten by that.
"""

import sqlite3

from crawler import clock
from crawler.ledger.window import ledger_time_ms
from crawler.quota.state import WINDOW_MS

IDLE_MS = WINDOW_MS + 10_000
"""After so long without a start the window is empty, whatever the guard."""


def agree_offset_ms(
    conn: sqlite3.Connection, boot_id: str, since_boot_ms: int, wall_ms: int
) -> int:
    """Return what to add to the time since boot, in ms; the same for all that ask on this boot.

    It follows the wall clock when the boot is new to the file or the file is idle.
    """
    newest_ms = ledger_time_ms(conn, 0)
    offset_ms = max(wall_ms, newest_ms) - since_boot_ms
    agreed_ms = _offset_ms(conn, boot_id)
    if agreed_ms is not None:
        idle = since_boot_ms + agreed_ms - newest_ms > IDLE_MS and not _is_live(conn)
        if not idle or wall_ms <= newest_ms:
            offset_ms = max(agreed_ms, newest_ms - since_boot_ms)
    conn.execute(
        "INSERT INTO clocks (boot_id, offset_ms) VALUES (?1, ?2)"
        " ON CONFLICT (boot_id) DO UPDATE SET offset_ms = ?2",
        (boot_id, offset_ms),
    )
    return offset_ms


def read_ms(conn: sqlite3.Connection, boot_id: str, since_boot_ms: int, wall_ms: int) -> int:
    """Return the file's time, as its processes on this machine read it."""
    agreed_ms = _offset_ms(conn, boot_id)
    now_ms = wall_ms if agreed_ms is None or not _is_live(conn) else since_boot_ms + agreed_ms
    return ledger_time_ms(conn, now_ms)


def file_ms(conn: sqlite3.Connection) -> int:
    """Return the file's time now; for whoever is no run."""
    return read_ms(conn, clock.boot_id(), clock.since_boot_ms(), clock.wall_ms())


def _offset_ms(conn: sqlite3.Connection, boot_id: str) -> int | None:
    row = conn.execute("SELECT offset_ms FROM clocks WHERE boot_id = ?", (boot_id,)).fetchone()
    return None if row is None else int(row[0])


def _is_live(conn: sqlite3.Connection) -> bool:
    row = conn.execute(
        "SELECT 1 FROM runs INDEXED BY runs_live WHERE ended_at_ms IS NULL LIMIT 1"
    ).fetchone()
    return row is not None
