"""The scheduler's question to the ledger: what has ended is recorded, what may start is leased.

Rule: a turn is one transaction and all the scheduling there is. Nothing that it decides on lives
outside the rows, so after a crash the next turn, of any process, simply goes on.
"""

import itertools
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.lease import NOTHING, Allowance, Lease
from crawler.ledger.look import (
    Limit,
    Served,
    ledger_time_ms,
    limits,
    look,
    served_prompts,
    served_request,
)
from crawler.ledger.pacing import save, tried
from crawler.ledger.record import Finish, Scope, record
from crawler.ledger.tokens import affordable
from crawler.quota.pace import next_tokens_ms, started, used_tokens
from crawler.quota.plan import plan

HEARTBEAT_MS = 5_000


class Gate(NamedTuple):
    """Where the gate of a limit stands; all 0 where it is open."""

    opens_at_ms: int
    closed_at_ms: int
    since_ms: int
    strikes: int
    cause: str


class Turn(NamedTuple):
    """What a turn gives back."""

    leases: list[Lease]
    now_ms: int
    wake_at_ms: int | None
    """When to look again, if nothing happens before; None: only an event can change the answer."""
    gate: Gate
    """Of the limits with work the one that opens first; open where one of them is."""
    unfinished: int
    """Pending and leased requests of the prompts that the run serves."""
    late: int
    """Answers that came after their attempt was taken from this run."""
    lost: bool
    """Another process has declared this run dead: it must not start another call."""
    out_of_funds: bool
    """There was a request that the run's funds may not pay for."""
    windowed: bool
    """Some of the leases have a place in a window, for a while that is agreed on."""


class _Dealt(NamedTuple):
    """What a turn has done under one limit."""

    limit: Limit
    leases: list[Lease]
    wake_at_ms: int | None
    out_of_funds: bool


def turn(
    conn: sqlite3.Connection, scope: Scope, finished: Sequence[Finish], allowance: Allowance
) -> Turn:
    """Record what has finished, plan, and lease what limits and allowance let start."""
    now_ms = ledger_time_ms(conn, scope.clock())
    before = limits(conn, scope.policy.guard_ms)
    after = dict(before)
    late = record(conn, scope, finished, after, now_ms)
    lost = not _beat(conn, scope.run_id, late, now_ms)
    if lost:
        allowance = NOTHING
    served = _served(conn, scope)
    dealt: list[_Dealt] = []
    for limit_id in sorted({row.limit_id for row in served}):
        prompt_ids = [row.prompt_id for row in served if row.limit_id == limit_id]
        deal = _deal(conn, scope, after[limit_id], prompt_ids, allowance, now_ms)
        after[limit_id] = deal.limit
        allowance = allowance.after(deal.leases)
        dealt.append(deal)
    save(conn, before, after, now_ms)
    wakes = [deal.wake_at_ms for deal in dealt if deal.wake_at_ms is not None]
    return Turn(
        leases=[lease for deal in dealt for lease in deal.leases],
        now_ms=now_ms,
        wake_at_ms=min(wakes, default=None),
        gate=min((_gate(deal.limit) for deal in dealt), default=OPEN),
        unfinished=sum(row.unfinished for row in served),
        late=late,
        lost=lost,
        out_of_funds=any(deal.out_of_funds for deal in dealt),
        windowed=any(deal.leases and deal.limit.quota.per_minute is not None for deal in dealt),
    )


def _deal(
    conn: sqlite3.Connection,
    scope: Scope,
    limit: Limit,
    prompt_ids: Sequence[int],
    allowance: Allowance,
    now_ms: int,
) -> _Dealt:
    """Lease what may start under one limit."""
    outlook = look(conn, limit, prompt_ids, now_ms)
    limit = tried(conn, limit, outlook, now_ms)
    step = plan(outlook._replace(pace=limit.pace), now_ms)
    room = min(step.room, allowance.calls)
    # Whether an outage is over is tried by turns with a request that has never failed and with one
    # that has: either kind may fail by itself.
    by_turns = limit.pace.gate_cause == "outage" and limit.pace.gate_strikes % 2 == 1
    drawn = _draw(conn, scope, prompt_ids, room, now_ms, fresh_first=by_turns)
    chosen = affordable(conn, drawn, limit.quota, step.tokens, allowance)
    wake_at_ms = step.wake_at_ms if len(drawn) == step.room else outlook.next_due_at_ms
    if chosen.leases:
        held = len(drawn) == step.room and step.held_by in ("pace", "per_minute")
        limit = _lease(conn, scope.run_id, limit, chosen.leases, now_ms, held=held)
    if chosen.held_by == "tokens":
        wake_at_ms = next_tokens_ms(limit.pace)
    return _Dealt(limit, chosen.leases, wake_at_ms, chosen.held_by == "funds")


OPEN = Gate(0, 0, 0, 0, "")


def _gate(limit: Limit) -> Gate:
    pace = limit.pace
    if pace.gate_cause is None:
        return OPEN
    return Gate(
        pace.gate_opens_at_ms,
        pace.gate_closed_at_ms,
        pace.gate_since_ms,
        pace.gate_strikes,
        pace.gate_cause,
    )


class LiveRun(NamedTuple):
    """A run that has not ended on record."""

    id: int
    heartbeat_at_ms: int
    boot_id: str
    """Of the machine's start that it belongs to; empty where that is not known."""


def start_run(
    conn: sqlite3.Connection, pid: int, host: str, version: str, now_ms: int, boot_id: str = ""
) -> int:
    """Put a run on record and return its id."""
    cursor = conn.execute(
        "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms, boot_id)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (pid, host, version, now_ms, now_ms, boot_id),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def live_runs(conn: sqlite3.Connection) -> list[LiveRun]:
    """Return the runs that have not ended on record."""
    rows = conn.execute(
        "SELECT id, heartbeat_at_ms, boot_id FROM runs INDEXED BY runs_live"
        " WHERE ended_at_ms IS NULL"
    )
    return list(map(LiveRun._make, rows))


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
    conn: sqlite3.Connection,
    run_id: int,
    limit: Limit,
    leases: Sequence[Lease],
    now_ms: int,
    *,
    held: bool,
) -> Limit:
    """Lease requests: from here on they are this run's. Returns the limit after that.

    ``held``: the pace of the limit has held back others.
    """
    conn.executemany(
        "UPDATE requests SET state = 'leased', attempts = ? WHERE id = ?",
        [(lease.number, lease.request_id) for lease in leases],
    )
    conn.executemany(
        "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms, nth,"
        " tokens_reserved) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (lease.request_id, lease.number, run_id, limit.id, now_ms, nth, lease.tokens)
            for nth, lease in enumerate(leases, limit.started + 1)
        ],
    )
    tokens = sum(lease.tokens or 0 for lease in leases)
    pace = started(limit.pace, limit.quota, len(leases), now_ms, held=held)
    pace = used_tokens(pace, limit.quota, tokens, now_ms)
    return limit._replace(pace=pace, started=limit.started + len(leases))


def _draw(
    conn: sqlite3.Connection,
    scope: Scope,
    prompt_ids: Sequence[int],
    room: int,
    now_ms: int,
    *,
    fresh_first: bool,
) -> list[Lease]:
    """Choose up to ``room`` requests: those that have waited first, then fresh ones in order."""
    if room <= 0:
        return []
    if scope.request_id is not None:
        return _draw_one(conn, scope.request_id, now_ms)
    drawn: list[Lease] = []
    orders = (_draw_fresh, _draw_waiting) if fresh_first else (_draw_waiting, _draw_fresh)
    for draw in orders:
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
    return list(itertools.starmap(Lease, rows))


def _draw_waiting(conn: sqlite3.Connection, prompt_id: int, now_ms: int, room: int) -> list[Lease]:
    rows = conn.execute(
        "SELECT requests.id, requests.attempts + 1, requests.prompt_id, words.text, words.fields"
        " FROM requests INDEXED BY requests_waiting CROSS JOIN words ON words.id = word_id"
        " WHERE prompt_id = ? AND state = 'pending' AND due_at_ms > 0 AND due_at_ms <= ?"
        " ORDER BY due_at_ms, requests.id LIMIT ?",
        (prompt_id, now_ms, room),
    )
    return list(itertools.starmap(Lease, rows))


def _draw_fresh(conn: sqlite3.Connection, prompt_id: int, now_ms: int, room: int) -> list[Lease]:
    del now_ms  # a fresh request is due at any time
    rows = conn.execute(
        "SELECT requests.id, requests.attempts + 1, requests.prompt_id, words.text, words.fields"
        " FROM requests INDEXED BY requests_fresh CROSS JOIN words ON words.id = word_id"
        " WHERE prompt_id = ? AND state = 'pending' AND due_at_ms = 0"
        " ORDER BY requests.id LIMIT ?",
        (prompt_id, room),
    )
    return list(itertools.starmap(Lease, rows))
