"""What the ledger shows at one moment: which prompts have work, and the outlook of each limit.

Rule: nothing here writes, so a status in another process sees just what the scheduler sees.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from crawler.quota.pace import WINDOW_MS, Pace, Quota
from crawler.quota.plan import Outlook


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
    quota: Quota
    paused_at_ms: int | None
    paused_until_ms: int | None
    started: int
    """Attempts that have started under it, ever."""
    pace: Pace

    def is_paused(self, now_ms: int) -> bool:
        """Tell whether somebody has paused it."""
        ended = self.paused_until_ms is not None and self.paused_until_ms <= now_ms
        return self.paused_at_ms is not None and not ended


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


_LIMIT = "id, name, concurrency, per_minute, tokens_per_minute, adaptive, paused_at_ms,"
_COLUMNS = f"{_LIMIT} paused_until_ms, started, {', '.join(Pace._fields)}"
_PACE_AT = 9
_FLAGS = [Pace._fields.index(name) for name in ("bursting", "doubling", "young")]


def limits(conn: sqlite3.Connection, guard_ms: int) -> dict[int, Limit]:
    """Return every limit by its id, as calls that need up to ``guard_ms`` to arrive have it."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM limits ORDER BY id")
    return {row[0]: _limit(row, guard_ms) for row in rows}


def _limit(row: Sequence[Any], guard_ms: int) -> Limit:
    limit_id, name, concurrency, per_minute, tokens, adaptive = row[:6]
    paused_at_ms, paused_until_ms, started = row[6:_PACE_AT]
    learned = list(row[_PACE_AT:])
    for flag in _FLAGS:
        learned[flag] = learned[flag] == 1
    return Limit(
        id=limit_id,
        name=name,
        concurrency=concurrency,
        quota=Quota(per_minute, tokens, adaptive == 1, guard_ms),
        paused_at_ms=paused_at_ms,
        paused_until_ms=paused_until_ms,
        started=started,
        pace=Pace._make(learned),
    )


def ledger_time_ms(conn: sqlite3.Connection, clock_ms: int) -> int:
    """Return the time, never earlier than the newest start on record.

    A wall clock that was set back must not make the window forget what has just been started.
    """
    (newest_ms,) = conn.execute(
        "SELECT max((SELECT max(started_at_ms) FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = limits.id)) FROM limits"
    ).fetchone()
    return max(clock_ms, newest_ms or 0)


def look(conn: sqlite3.Connection, limit: Limit, prompt_ids: Sequence[int], now_ms: int) -> Outlook:
    """Count what the plan wants to know of a limit."""
    (in_flight,) = conn.execute(
        "SELECT count(*) FROM attempts INDEXED BY attempts_open"
        " WHERE limit_id = ? AND finished_at_ms IS NULL",
        (limit.id,),
    ).fetchone()
    first = first_start(conn, limit.id, now_ms - limit.quota.window_ms)
    return Outlook(
        concurrency=limit.concurrency,
        in_flight=in_flight,
        quota=limit.quota,
        pace=limit.pace,
        occupied=limit.started - first.nth + 1 if first else 0,
        place_free_at_ms=first.at_ms + limit.quota.window_ms + 1 if first else None,
        probe_started_at_ms=_probe_started_at_ms(conn, limit),
        paused=limit.is_paused(now_ms),
        paused_until_ms=limit.paused_until_ms,
        next_due_at_ms=_next_due_at_ms(conn, prompt_ids, now_ms),
    )


class Start(NamedTuple):
    """A start under a limit: which one, and when."""

    nth: int
    at_ms: int


def first_start(conn: sqlite3.Connection, limit_id: int, since_ms: int) -> Start | None:
    """Return the first start under a limit since a moment."""
    row = conn.execute(
        "SELECT nth, started_at_ms FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = ? AND started_at_ms >= ? ORDER BY started_at_ms, nth LIMIT 1",
        (limit_id, since_ms),
    ).fetchone()
    return None if row is None else Start._make(row)


def accepted(conn: sqlite3.Connection, limit: Limit, now_ms: int) -> int:
    """Count the starts of the last minute that were not refused."""
    since_ms = now_ms - WINDOW_MS
    first = first_start(conn, limit.id, since_ms)
    if first is None:
        return 0
    (refused,) = conn.execute(
        "SELECT count(*) FROM attempts INDEXED BY attempts_throttled"
        " WHERE limit_id = ? AND started_at_ms >= ? AND outcome = 'throttled'",
        (limit.id, since_ms),
    ).fetchone()
    return max(0, limit.started - first.nth + 1 - int(refused))


def _probe_started_at_ms(conn: sqlite3.Connection, limit: Limit) -> int | None:
    """Return when the call started that tries a closed gate; None if there is none in flight."""
    if limit.pace.gate_cause is None:
        return None
    (started_at_ms,) = conn.execute(
        "SELECT min(started_at_ms) FROM attempts INDEXED BY attempts_open"
        " WHERE limit_id = ? AND finished_at_ms IS NULL AND started_at_ms > ?",
        (limit.id, limit.pace.gate_closed_at_ms),
    ).fetchone()
    return None if started_at_ms is None else int(started_at_ms)


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
