"""What is used of a limit at one moment: starts of the last minute, calls in flight, what is due.

Rule: nothing here writes, so a status in another process counts just what the turn counts.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.limits import Limit
from crawler.quota.plan import Usage


def ledger_time_ms(conn: sqlite3.Connection, clock_ms: int) -> int:
    """Return the time, never earlier than the newest start on record.

    A wall clock that was set back must not make the window forget what has just been started.
    """
    (newest_ms,) = conn.execute(
        "SELECT max((SELECT max(started_at_ms) FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = limits.id)) FROM limits"
    ).fetchone()
    return max(clock_ms, newest_ms or 0)


def usage(conn: sqlite3.Connection, limit: Limit, prompt_ids: Sequence[int], now_ms: int) -> Usage:
    """Count what the plan wants to know of a limit.

    ``prompt_ids`` are the prompts with work that share it: the next due time is theirs.
    """
    first = first_start(conn, limit.id, now_ms - limit.quota.window_ms)
    in_flight, served = load(conn, limit.id)
    closed = limit.state.gate_cause is not None
    return Usage(
        in_flight=in_flight,
        occupied=first.occupied(limit) if first else 0,
        place_free_at_ms=first.at_ms + limit.quota.window_ms + 1 if first else None,
        probe_started_at_ms=_probe_started_at_ms(conn, limit) if closed else None,
        refusal_ms=_refusal_ms(conn, limit.id) if closed else 0,
        served=served,
        newest_ms=_newest_ms(conn, limit.id) if limit.state.rate is None else 0,
        next_due_at_ms=_next_due_at_ms(conn, prompt_ids, now_ms),
    )


def load(conn: sqlite3.Connection, limit_id: int) -> tuple[int, int]:
    """Return how many calls are in flight under a limit, whoever made them, and were answered ever.

    From the tallies: an open attempt is a leased request, and counts under its prompt's limit. To
    count the attempts would cost the more, the more there are.
    """
    in_flight, served = conn.execute(
        "SELECT coalesce(sum(leased), 0), coalesce(sum(succeeded), 0) FROM prompts"
        " JOIN tallies ON prompt_id = prompts.id WHERE limit_id = ?",
        (limit_id,),
    ).fetchone()
    return int(in_flight), int(served)


class Start(NamedTuple):
    """A start under a limit: which one, and when."""

    nth: int
    """Its number among all starts of the limit. Below 0: it could not be sent and has no place;
    the next start has that number."""
    at_ms: int

    def occupied(self, limit: Limit) -> int:
        """Return how many places of the window are taken, where this is the first start in it."""
        return limit.started - abs(self.nth) + 1


def first_start(conn: sqlite3.Connection, limit_id: int, since_ms: int) -> Start | None:
    """Return the first start under a limit since a moment."""
    row = conn.execute(
        "SELECT nth, started_at_ms FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = ? AND started_at_ms >= ? ORDER BY started_at_ms, nth LIMIT 1",
        (limit_id, since_ms),
    ).fetchone()
    return None if row is None else Start._make(row)


def refusals(conn: sqlite3.Connection, limit_id: int, since_ms: int, until_ms: int) -> int:
    """Count the refused starts of a limit between two moments, 10,000 at the most."""
    (count,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM attempts INDEXED BY attempts_throttled WHERE"
        " limit_id = ? AND started_at_ms BETWEEN ? AND ? AND outcome = 'throttled' LIMIT 10000)",
        (limit_id, since_ms, until_ms),
    ).fetchone()
    return int(count)


def _probe_started_at_ms(conn: sqlite3.Connection, limit: Limit) -> int | None:
    """Return when the call started that tries a closed gate; None if there is none in flight."""
    (started_at_ms,) = conn.execute(
        "SELECT min(started_at_ms) FROM attempts INDEXED BY attempts_open"
        " WHERE limit_id = ? AND finished_at_ms IS NULL AND started_at_ms > ?",
        (limit.id, limit.state.gate_closed_at_ms),
    ).fetchone()
    return None if started_at_ms is None else int(started_at_ms)


def _refusal_ms(conn: sqlite3.Connection, limit_id: int) -> int:
    """Return how long the newest refusal took to come."""
    row = conn.execute(
        "SELECT finished_at_ms - started_at_ms FROM attempts INDEXED BY attempts_throttled"
        " WHERE limit_id = ? AND outcome = 'throttled' ORDER BY started_at_ms DESC LIMIT 1",
        (limit_id,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _newest_ms(conn: sqlite3.Connection, limit_id: int) -> int:
    """Return when the newest call of a limit started."""
    (newest_ms,) = conn.execute(
        "SELECT max(started_at_ms) FROM attempts INDEXED BY attempts_started WHERE limit_id = ?",
        (limit_id,),
    ).fetchone()
    return newest_ms or 0


def _next_due_at_ms(conn: sqlite3.Connection, prompt_ids: Sequence[int], now_ms: int) -> int | None:
    dues = [
        conn.execute(
            "SELECT min(due_at_ms) FROM requests INDEXED BY requests_waiting"
            " WHERE prompt_id = ? AND state = 'pending' AND due_at_ms > 0 AND due_at_ms > ?",
            (prompt_id, now_ms),
        ).fetchone()[0]
        for prompt_id in prompt_ids
    ]
    return min((due for due in dues if due is not None), default=None)
