"""Starts that were held up on their way: moved to now, or given back.

Rule: what a server sees in any minute is what the window was asked for. A lease whose commit took
long, or whose process stood still before it could send, has its place only as long as the others
have counted it.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from crawler.ledger.lease import NOTHING, Lease
from crawler.ledger.look import ledger_time_ms, limits
from crawler.ledger.record import Finish, Scope
from crawler.ledger.turn import turn
from crawler.states import Outcome


def restamp(conn: sqlite3.Connection, scope: Scope, leases: Sequence[Lease]) -> tuple[int, int]:
    """Move the start of leased attempts, none of them sent yet, to now.

    Returns that time in ms, and how many of the attempts may be sent. If it is not all of them,
    none may: some were taken from the run, or there is no place for them any more, and they were
    given back.

    For when the commit of the lease took longer than the guard allows between a start on record
    and an arrival: the attempts keep their places in the window as long as it reaches back to them.
    """
    now_ms = ledger_time_ms(conn, scope.clock())
    if not _have_places(conn, scope, leases, now_ms):
        why = "it was held up until there was no place for it any more"
        give_back(conn, scope, leases, why)
        return now_ms, 0
    kept = 0
    for lease in leases:
        kept += _move(conn, lease, now_ms)
    return now_ms, kept


def _move(conn: sqlite3.Connection, lease: Lease, now_ms: int) -> int:
    """Let an attempt start now; return 1, or 0 if it is not open any more."""
    # It is counted anew, so that the count goes with the time; the old place stays taken.
    moved = conn.execute(
        "UPDATE attempts SET started_at_ms = ?,"
        " nth = (SELECT started + 1 FROM limits WHERE id = limit_id)"
        " WHERE request_id = ? AND number = ? AND finished_at_ms IS NULL RETURNING limit_id",
        (now_ms, lease.request_id, lease.number),
    ).fetchall()
    conn.executemany("UPDATE limits SET started = started + 1 WHERE id = ?", moved)
    return len(moved)


def give_back(conn: sqlite3.Connection, scope: Scope, leases: Sequence[Lease], reason: str) -> None:
    """End leased attempts, none of them sent, so that their requests are pending again."""
    now_ms = ledger_time_ms(conn, scope.clock())
    unsent = [
        Finish(
            lease.request_id,
            lease.number,
            now_ms,
            Outcome.INTERRUPTED,
            reason=reason,
            sent=False,
        )
        for lease in leases
    ]
    turn(conn, scope, unsent, NOTHING)


def _have_places(
    conn: sqlite3.Connection, scope: Scope, leases: Sequence[Lease], now_ms: int
) -> bool:
    """Tell whether leased attempts, were they to start now, would be within their limits."""
    known = limits(conn, scope.policy.guard_ms)
    moved: Counter[int] = Counter()
    for lease in leases:
        limit_id, started_at_ms = conn.execute(
            "SELECT limit_id, started_at_ms FROM attempts WHERE request_id = ? AND number = ?",
            (lease.request_id, lease.number),
        ).fetchone()
        moved[limit_id] += started_at_ms < now_ms - known[limit_id].quota.window_ms
    for limit_id, more in moved.items():
        quota = known[limit_id].quota
        (occupied,) = conn.execute(
            "SELECT count(*) FROM attempts INDEXED BY attempts_started"
            " WHERE limit_id = ? AND started_at_ms >= ?",
            (limit_id, now_ms - quota.window_ms),
        ).fetchone()
        if quota.per_minute is not None and occupied + more > quota.per_minute:
            return False
    return True
