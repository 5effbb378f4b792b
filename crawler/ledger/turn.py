"""The scheduler's question to the ledger: what has ended is recorded, what may start is leased.

Rule: a turn is one transaction and all the scheduling there is. Nothing that it decides on lives
outside the rows, so after a crash the next turn, of any process, simply goes on.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from crawler.ledger.look import Served, ledger_time_ms, limits, look, served_prompts, served_request
from crawler.ledger.record import Finish, Scope, record
from crawler.plan import plan

HEARTBEAT_MS = 5_000


class Lease(NamedTuple):
    """A request handed out: its open attempt is (request_id, number)."""

    request_id: int
    number: int
    prompt_id: int
    word: str
    fields: str | None


class Turn(NamedTuple):
    """What a turn gives back."""

    leases: list[Lease]
    now_ms: int
    wake_at_ms: int | None
    """When to look again, if nothing happens before; None: only an event can change the answer."""
    gate_opens_at_ms: int
    """When the last of the gates in the way opens; 0 where none is closed."""
    gate_strikes: int
    """The most refusals in a row of any of them."""
    unfinished: int
    """Pending and leased requests of the prompts that the run serves."""
    late: int
    """Answers that came after their attempt was taken from this run."""
    lost: bool
    """Another process has declared this run dead: it must not start another call."""


def turn(conn: sqlite3.Connection, scope: Scope, finished: Sequence[Finish], budget: int) -> Turn:
    """Record what has finished, plan, and lease at most ``budget`` requests."""
    now_ms = ledger_time_ms(conn, scope.clock())
    late = record(conn, scope, finished, now_ms)
    lost = not _beat(conn, scope.run_id, late, now_ms)
    served = _served(conn, scope)
    leases: list[Lease] = []
    wakes: list[int] = []
    in_the_way = [limit for limit in limits(conn) if limit.id in {row.limit_id for row in served}]
    for limit in in_the_way:
        prompt_ids = [row.prompt_id for row in served if row.limit_id == limit.id]
        step = plan(look(conn, limit, prompt_ids, scope.policy.guard_ms, now_ms), now_ms)
        room = 0 if lost else min(step.room, budget - len(leases))
        if room > 0:
            drawn = _draw(conn, scope, prompt_ids, room, now_ms)
            leases += _lease(conn, scope.run_id, limit.id, drawn, now_ms)
        if step.wake_at_ms is not None:
            wakes.append(step.wake_at_ms)
    return Turn(
        leases=leases,
        now_ms=now_ms,
        wake_at_ms=min(wakes, default=None),
        gate_opens_at_ms=max((limit.gate_opens_at_ms for limit in in_the_way), default=0),
        gate_strikes=max((limit.gate_strikes for limit in in_the_way), default=0),
        unfinished=sum(row.unfinished for row in served),
        late=late,
        lost=lost,
    )


def restamp(
    conn: sqlite3.Connection, leases: Sequence[Lease], clock: Callable[[], int]
) -> tuple[int, int]:
    """Move the start of leased attempts, none of them sent yet, to now.

    Returns that time in ms, and how many of the attempts are still open.

    For when the commit of the lease took longer than the guard allows between a start on record
    and an arrival: the attempts keep their places in the window all the while.
    """
    now_ms = ledger_time_ms(conn, clock())
    kept = conn.executemany(
        "UPDATE attempts SET started_at_ms = ? WHERE request_id = ? AND number = ?"
        " AND finished_at_ms IS NULL",
        [(now_ms, lease.request_id, lease.number) for lease in leases],
    ).rowcount
    return now_ms, kept


def start_run(conn: sqlite3.Connection, pid: int, host: str, version: str, now_ms: int) -> int:
    """Put a run on record and return its id."""
    cursor = conn.execute(
        "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms)"
        " VALUES (?, ?, ?, ?, ?)",
        (pid, host, version, now_ms, now_ms),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def live_runs(conn: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return (id, heartbeat in ms) of the runs that have not ended on record."""
    return conn.execute(
        "SELECT id, heartbeat_at_ms FROM runs INDEXED BY runs_live WHERE ended_at_ms IS NULL"
    ).fetchall()


def _beat(conn: sqlite3.Connection, run_id: int, late: int, now_ms: int) -> bool:
    """Show that the run is alive; return whether it still may be."""
    row = conn.execute("SELECT heartbeat_at_ms, ended_at_ms FROM runs WHERE id = ?", (run_id,))
    heartbeat_at_ms, ended_at_ms = row.fetchone()
    if late or now_ms - heartbeat_at_ms >= HEARTBEAT_MS:
        conn.execute(
            "UPDATE runs SET heartbeat_at_ms = max(heartbeat_at_ms, ?),"
            " late_answers = late_answers + ? WHERE id = ?",
            (now_ms, late, run_id),
        )
    return ended_at_ms is None


def _served(conn: sqlite3.Connection, scope: Scope) -> list[Served]:
    if scope.request_id is not None:
        return served_request(conn, scope.request_id)
    return served_prompts(conn, scope.prompt_ids)


def _lease(
    conn: sqlite3.Connection, run_id: int, limit_id: int, drawn: Sequence[Lease], now_ms: int
) -> Sequence[Lease]:
    """Lease requests: from here on they are this run's."""
    conn.executemany(
        "UPDATE requests SET state = 'leased', attempts = ? WHERE id = ?",
        [(lease.number, lease.request_id) for lease in drawn],
    )
    conn.executemany(
        "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms)"
        " VALUES (?, ?, ?, ?, ?)",
        [(lease.request_id, lease.number, run_id, limit_id, now_ms) for lease in drawn],
    )
    return drawn


def _draw(
    conn: sqlite3.Connection, scope: Scope, prompt_ids: Sequence[int], room: int, now_ms: int
) -> list[Lease]:
    """Choose up to ``room`` requests: those that have waited first, then fresh ones in order."""
    if scope.request_id is not None:
        return _draw_one(conn, scope.request_id, now_ms)
    drawn: list[Lease] = []
    for draw in (_draw_waiting, _draw_fresh):
        for prompt_id in prompt_ids:
            if len(drawn) < room:
                drawn += draw(conn, prompt_id, now_ms, room - len(drawn))
    return drawn


def _draw_one(conn: sqlite3.Connection, request_id: int, now_ms: int) -> list[Lease]:
    rows = conn.execute(
        "SELECT requests.id, requests.attempts + 1, requests.prompt_id, words.text, words.fields"
        " FROM requests JOIN words ON words.id = word_id"
        " WHERE requests.id = ? AND state = 'pending' AND due_at_ms <= ?",
        (request_id, now_ms),
    )
    return list(map(Lease._make, rows))


def _draw_waiting(conn: sqlite3.Connection, prompt_id: int, now_ms: int, room: int) -> list[Lease]:
    rows = conn.execute(
        "SELECT requests.id, requests.attempts + 1, requests.prompt_id, words.text, words.fields"
        " FROM requests INDEXED BY requests_waiting CROSS JOIN words ON words.id = word_id"
        " WHERE prompt_id = ? AND state = 'pending' AND due_at_ms > 0 AND due_at_ms <= ?"
        " ORDER BY due_at_ms, requests.id LIMIT ?",
        (prompt_id, now_ms, room),
    )
    return list(map(Lease._make, rows))


def _draw_fresh(conn: sqlite3.Connection, prompt_id: int, now_ms: int, room: int) -> list[Lease]:
    del now_ms  # a fresh request is due at any time
    rows = conn.execute(
        "SELECT requests.id, requests.attempts + 1, requests.prompt_id, words.text, words.fields"
        " FROM requests INDEXED BY requests_fresh CROSS JOIN words ON words.id = word_id"
        " WHERE prompt_id = ? AND state = 'pending' AND due_at_ms = 0"
        " ORDER BY requests.id LIMIT ?",
        (prompt_id, room),
    )
    return list(map(Lease._make, rows))
