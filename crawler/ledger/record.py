"""The ends of attempts: outcome, response, the next state of the request, the gate of its limit.

Rule: only an open attempt of the run that reports it can be closed, and only once. Whatever comes
too late changes nothing.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crawler.ledger.look import ledger_time_ms
from crawler.policy import Draw, Policy, gate_pause_ms, verdict
from crawler.states import CLOSES_GATE, COUNTS_AS_FAILURE, OPENS_GATE, Outcome, RequestState


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a run brings to each of its turns."""

    run_id: int
    policy: Policy
    clock: Callable[[], int]
    draw: Draw
    prompt_ids: tuple[int, ...] | None = None
    """The only prompts that this run serves; None for all that a program can serve."""
    request_id: int | None = None
    """The only request that this run serves; None for all of its prompts."""


class Finish(NamedTuple):
    """The end of an attempt, as the executor saw it."""

    request_id: int
    number: int
    finished_at_ms: int
    outcome: Outcome
    text: str | None = None
    """The answer; of an attempt that did not succeed, what it brought all the same."""
    reason: str | None = None
    status_code: int | None = None
    retry_after_ms: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_thought: int | None = None
    finish_reason: str | None = None
    model_version: str | None = None
    truncated: bool = False
    sent: bool = True
    """False for a request that never left this machine, so that it tells nothing of the server."""


class _Open(NamedTuple):
    """What the ledger knows of an attempt that hasn't ended."""

    limit_id: int
    started_at_ms: int


def record(conn: sqlite3.Connection, scope: Scope, finished: Sequence[Finish], now_ms: int) -> int:
    """Write down how this run's attempts ended; return how many came too late to count."""
    if not finished:
        return 0
    closed = _close(conn, scope.run_id, finished)
    succeeded = [finish for finish, _ in closed if finish.outcome is Outcome.SUCCEEDED]
    conn.executemany(
        "INSERT INTO responses (request_id, number, text) VALUES (?, ?, ?)",
        [(finish.request_id, finish.number, finish.text) for finish in succeeded],
    )
    conn.executemany(
        "UPDATE requests SET state = 'succeeded' WHERE id = ?",
        [(finish.request_id,) for finish in succeeded],
    )
    for finish, attempt in closed:
        if finish.outcome is not Outcome.SUCCEEDED:
            _settle(conn, scope, finish, attempt, now_ms)
    _open_gates(conn, closed)
    return len(finished) - len(closed)


def end_run(
    conn: sqlite3.Connection, scope: Scope, run_id: int, outcome: Outcome, reason: str
) -> int:
    """End a run, one's own or a dead one, and close its open attempts with the given outcome.

    Returns how many attempts were closed. A run that has ended already is left as it is.
    """
    now_ms = ledger_time_ms(conn, scope.clock())
    left_open = [
        Finish(request_id, number, now_ms, outcome, reason=reason)
        for request_id, number in _open_attempts(conn, run_id)
    ]
    for finish, attempt in _close(conn, run_id, left_open):
        _settle(conn, scope, finish, attempt, now_ms)
    conn.execute(
        "UPDATE runs SET ended_at_ms = ?, reason = ? WHERE id = ? AND ended_at_ms IS NULL",
        (now_ms, reason, run_id),
    )
    return len(left_open)


def _open_attempts(conn: sqlite3.Connection, run_id: int) -> dict[tuple[int, int], _Open]:
    rows = conn.execute(
        "SELECT request_id, number, limit_id, started_at_ms FROM attempts INDEXED BY attempts_open"
        " WHERE finished_at_ms IS NULL AND run_id = ?",
        (run_id,),
    )
    return {
        (request_id, number): _Open(limit_id, started_at_ms)
        for request_id, number, limit_id, started_at_ms in rows
    }


def _close(
    conn: sqlite3.Connection, run_id: int, finished: Sequence[Finish]
) -> list[tuple[Finish, _Open]]:
    """Close those attempts that are still this run's; the fence against late answers."""
    open_attempts = _open_attempts(conn, run_id)
    closed = []
    for finish in finished:
        attempt = open_attempts.pop((finish.request_id, finish.number), None)
        if attempt is not None:
            closed.append((finish, attempt))
    conn.executemany(
        "UPDATE attempts SET finished_at_ms = max(started_at_ms, ?), outcome = ?, reason = ?,"
        " status_code = ?, retry_after_ms = ?, tokens_in = ?, tokens_out = ?, tokens_thought = ?,"
        " finish_reason = ?, model_version = ?, truncated = ?"
        " WHERE request_id = ? AND number = ? AND finished_at_ms IS NULL",
        [
            (
                finish.finished_at_ms,
                finish.outcome.value,
                finish.reason,
                finish.status_code,
                finish.retry_after_ms,
                finish.tokens_in,
                finish.tokens_out,
                finish.tokens_thought,
                finish.finish_reason,
                finish.model_version,
                finish.truncated,
                finish.request_id,
                finish.number,
            )
            for finish, _ in closed
        ],
    )
    return closed


def _settle(
    conn: sqlite3.Connection, scope: Scope, finish: Finish, attempt: _Open, now_ms: int
) -> None:
    """Give a request that was not answered its next state, and close the gate if need be."""
    failures, cancelling = conn.execute(
        "SELECT failures, cancelling FROM requests WHERE id = ?", (finish.request_id,)
    ).fetchone()
    state, failures, due_at_ms = verdict(
        scope.policy,
        finish.outcome,
        failures=failures,
        retry_after_ms=finish.retry_after_ms,
        now_ms=now_ms,
        draw=scope.draw,
        truncated=_times_truncated(conn, finish, failures) if finish.truncated else 0,
    )
    if cancelling and state is RequestState.PENDING:
        state = RequestState.CANCELLED
    conn.execute(
        "UPDATE requests SET state = ?, failures = ?, due_at_ms = ?, cancelling = 0 WHERE id = ?",
        (state, failures, due_at_ms, finish.request_id),
    )
    if finish.text:
        # It was paid for. Nobody should have to ask again to see what was wrong with it.
        conn.execute(
            "INSERT OR REPLACE INTO drafts (request_id, number, text) VALUES (?, ?, ?)",
            (finish.request_id, finish.number, finish.text),
        )
    if finish.outcome in CLOSES_GATE:
        _close_gate(conn, scope.policy, finish, attempt, now_ms)


def _times_truncated(conn: sqlite3.Connection, finish: Finish, failures: int) -> int:
    """Count the cut-off answers among the failures of the present budget, this one included."""
    # A retry begins a new budget by forgetting the failures: those before it are not counted.
    counting = ", ".join(f"'{outcome}'" for outcome in sorted(COUNTS_AS_FAILURE))
    (times,) = conn.execute(
        "SELECT count(*) FROM (SELECT truncated FROM attempts WHERE request_id = ?"
        f" AND outcome IN ({counting}) ORDER BY number DESC LIMIT ?) WHERE truncated = 1",
        (finish.request_id, failures + 1),
    ).fetchone()
    assert isinstance(times, int)
    return times


def _close_gate(
    conn: sqlite3.Connection, policy: Policy, finish: Finish, attempt: _Open, now_ms: int
) -> None:
    """Close the gate; calls that left before it closed tell of the same refusal, not of another."""
    closed_at_ms, opens_at_ms, strikes = conn.execute(
        "SELECT gate_closed_at_ms, gate_opens_at_ms, gate_strikes FROM limits WHERE id = ?",
        (attempt.limit_id,),
    ).fetchone()
    if strikes and attempt.started_at_ms <= closed_at_ms:
        opens_at_ms = max(opens_at_ms, now_ms + (finish.retry_after_ms or 0))
    else:
        strikes += 1
        closed_at_ms = now_ms
        opens_at_ms = now_ms + gate_pause_ms(policy, strikes, finish.retry_after_ms)
    conn.execute(
        "UPDATE limits SET gate_closed_at_ms = ?, gate_opens_at_ms = ?, gate_strikes = ?,"
        " gate_reason = ? WHERE id = ?",
        (closed_at_ms, opens_at_ms, strikes, finish.reason or finish.outcome, attempt.limit_id),
    )


def _open_gates(conn: sqlite3.Connection, closed: Sequence[tuple[Finish, _Open]]) -> None:
    """Open the gates whose probe was answered."""
    for limit_id, closed_at_ms in conn.execute(
        "SELECT id, gate_closed_at_ms FROM limits WHERE gate_strikes > 0"
    ).fetchall():
        if any(
            attempt.limit_id == limit_id
            and attempt.started_at_ms > closed_at_ms
            and finish.outcome in OPENS_GATE
            and finish.sent
            for finish, attempt in closed
        ):
            conn.execute(
                "UPDATE limits SET gate_strikes = 0, gate_opens_at_ms = 0, gate_reason = NULL"
                " WHERE id = ?",
                (limit_id,),
            )
