"""What the ledger shows at one moment: which prompts have work, and the outlook of each limit.

Rule: nothing here writes, so a status in another process sees just what the scheduler sees.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.plan import WINDOW_MS, Outlook, place_until_ms


class Served(NamedTuple):
    """A prompt with work left."""

    prompt_id: int
    limit_id: int
    unfinished: int
    """Its requests that are pending or leased."""


class Limit(NamedTuple):
    """A row of ``limits``."""

    id: int
    name: str
    concurrency: int
    per_minute: int | None
    paused_at_ms: int | None
    gate_closed_at_ms: int
    gate_opens_at_ms: int
    gate_strikes: int
    gate_reason: str | None


def served_prompts(conn: sqlite3.Connection, prompt_ids: tuple[int, ...] | None) -> list[Served]:
    """Return the prompts with work left: of the given ones, or of all that a program can serve.

    Those are the current versions, but for prompts whose provider is a Python function: only who
    brings the function can serve them.
    """
    chosen, values = "current = 1 AND provider <> 'function'", prompt_ids or ()
    if prompt_ids is not None:
        chosen = f"id IN ({', '.join('?' * len(prompt_ids))})"
    rows = conn.execute(
        "SELECT id, limit_id, pending + leased FROM prompts JOIN tallies ON prompt_id = id"
        f" WHERE pending + leased > 0 AND {chosen} ORDER BY id",
        values,
    )
    return list(map(Served._make, rows))


def served_request(conn: sqlite3.Connection, request_id: int) -> list[Served]:
    """Return the prompt of a request that is still to be answered; nothing where it is not."""
    rows = conn.execute(
        "SELECT prompts.id, limit_id, 1 FROM requests JOIN prompts ON prompts.id = prompt_id"
        " WHERE requests.id = ? AND state IN ('pending', 'leased')",
        (request_id,),
    )
    return list(map(Served._make, rows))


def limits(conn: sqlite3.Connection) -> list[Limit]:
    """Return every limit."""
    rows = conn.execute(
        "SELECT id, name, concurrency, per_minute, paused_at_ms, gate_closed_at_ms,"
        " gate_opens_at_ms, gate_strikes, gate_reason FROM limits ORDER BY id"
    )
    return list(map(Limit._make, rows))


def ledger_time_ms(conn: sqlite3.Connection, clock_ms: int) -> int:
    """Return the time, never earlier than the newest start on record.

    A wall clock that was set back must not make the window forget what has just been started.
    """
    (newest_ms,) = conn.execute(
        "SELECT max((SELECT max(started_at_ms) FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = limits.id)) FROM limits"
    ).fetchone()
    return max(clock_ms, newest_ms or 0)


def look(
    conn: sqlite3.Connection, limit: Limit, prompt_ids: Sequence[int], guard_ms: int, now_ms: int
) -> Outlook:
    """Count what the plan wants to know of a limit."""
    (in_flight,) = conn.execute(
        "SELECT count(*) FROM attempts INDEXED BY attempts_open"
        " WHERE limit_id = ? AND finished_at_ms IS NULL",
        (limit.id,),
    ).fetchone()
    probes = 0
    if limit.gate_strikes:
        (probes,) = conn.execute(
            "SELECT count(*) FROM attempts INDEXED BY attempts_open"
            " WHERE limit_id = ? AND finished_at_ms IS NULL AND started_at_ms > ?",
            (limit.id, limit.gate_closed_at_ms),
        ).fetchone()
    occupied, place_free_at_ms = 0, None
    if limit.per_minute is not None:
        occupied = _occupied(conn, limit.id, guard_ms, now_ms)
        if occupied >= limit.per_minute:
            place_free_at_ms = _place_free_at_ms(conn, limit.id, guard_ms, now_ms)
    return Outlook(
        concurrency=limit.concurrency,
        in_flight=in_flight,
        probes=probes,
        per_minute=limit.per_minute,
        occupied=occupied,
        place_free_at_ms=place_free_at_ms,
        paused=limit.paused_at_ms is not None,
        gate_opens_at_ms=limit.gate_opens_at_ms,
        gate_strikes=limit.gate_strikes,
        next_due_at_ms=_next_due_at_ms(conn, prompt_ids, now_ms),
    )


def _occupied(conn: sqlite3.Connection, limit_id: int, guard_ms: int, now_ms: int) -> int:
    """Count the places of the window that are taken (see plan.place_until_ms)."""
    # Whoever started within the window holds a place for sure: counted from the index alone.
    # Only those of the guard's width before it must be looked at one by one.
    window_from_ms = now_ms - WINDOW_MS
    (count,) = conn.execute(
        "SELECT (SELECT count(*) FROM attempts INDEXED BY attempts_started"
        "        WHERE limit_id = ?1 AND started_at_ms >= ?2)"
        "     + (SELECT count(*) FROM attempts INDEXED BY attempts_started"
        "        WHERE limit_id = ?1 AND started_at_ms < ?2 AND started_at_ms >= ?2 - ?3"
        "        AND (finished_at_ms IS NULL OR finished_at_ms >= ?2))",
        (limit_id, window_from_ms, guard_ms),
    ).fetchone()
    assert isinstance(count, int)
    return count


def _place_free_at_ms(
    conn: sqlite3.Connection, limit_id: int, guard_ms: int, now_ms: int
) -> int | None:
    """Return when the first taken place of the window is free."""
    first_ms: int | None = None
    rows = conn.execute(
        "SELECT started_at_ms, finished_at_ms FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = ? AND started_at_ms >= ? ORDER BY started_at_ms",
        (limit_id, now_ms - WINDOW_MS - guard_ms),
    )
    for started_at_ms, finished_at_ms in rows:
        if first_ms is not None and started_at_ms + WINDOW_MS > first_ms:
            break  # whoever started later can't be free earlier
        until_ms = place_until_ms(started_at_ms, finished_at_ms, guard_ms)
        if until_ms >= now_ms:
            first_ms = until_ms if first_ms is None else min(first_ms, until_ms)
    return None if first_ms is None else first_ms + 1


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
