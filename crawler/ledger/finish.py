"""The ends of attempts: outcome, response, the next state of the request, what its limit learns.

Rule: only an open attempt of the run that reports it can be closed, and only once. Whatever comes
too late changes nothing.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.evidence import is_worn_out, judged
from crawler.ledger.limits import Limit, told
from crawler.ledger.pacing import Ended, Lesson, cut_off, is_busy, learned
from crawler.ledger.runs import Scope
from crawler.ledger.standing import carry_on, let_answers_stand
from crawler.ledger.tokens import learn_tokens
from crawler.ledger.window import ledger_time_ms
from crawler.policy import verdict
from crawler.protocol import Finish, Lease
from crawler.quota.tokens import used_tokens
from crawler.states import OPENS_GATE, SERVED, TRANSITIONS, UNPROCESSED, Outcome, RequestState
from crawler.states.kinds import Kind

_REACHED = OPENS_GATE | {Outcome.THROTTLED}
SERVER_ERROR = 500
"""The first HTTP status of those that a server gives instead of an answer."""


class _Open(NamedTuple):
    """What the ledger knows of an attempt that hasn't ended."""

    limit_id: int
    started_at_ms: int
    tokens_reserved: int | None


def record(
    conn: sqlite3.Connection,
    scope: Scope,
    finished: Sequence[Finish],
    limits: dict[int, Limit],
    now_ms: int,
) -> int:
    """Write down how this run's attempts ended; return how many came too late to count.

    What that teaches their limits is put into ``limits``.
    """
    if not finished:
        return 0
    closed = _close(conn, scope.run_id, [judged(conn, scope, end) for end in finished])
    _note_served(conn, [finish for finish, _ in closed if finish.outcome in SERVED])
    succeeded = [finish for finish, _ in closed if finish.outcome is Outcome.SUCCEEDED]
    conn.executemany(
        "INSERT INTO responses (request_id, number, text, thoughts) VALUES (?, ?, ?, ?)",
        [(end.request_id, end.number, end.text, end.thoughts or None) for end in succeeded],
    )
    conn.executemany(
        "UPDATE requests SET state = 'succeeded' WHERE id = ?",
        [(finish.request_id,) for finish in succeeded],
    )
    _teach(conn, scope, finished, closed, limits, now_ms)
    return len(finished) - len(closed)


def _teach(
    conn: sqlite3.Connection,
    scope: Scope,
    finished: Sequence[Finish],
    closed: Sequence[tuple[Finish, _Open]],
    limits: dict[int, Limit],
    now_ms: int,
) -> None:
    """Put into ``limits`` what ends teach, and write the next states of what was not answered.

    A limit learns of what the server said (``finished``); how that was judged (``closed``) is of
    the word alone.
    """
    said = {
        (end.request_id, end.number): end
        for end in finished
        if end.outcome is not Outcome.SUCCEEDED
    }
    together = sum(finish.outcome is Outcome.SUCCEEDED for finish, _ in closed)
    away: list[Ended] = []
    for finish, attempt in closed:
        if finish.told:
            limits[attempt.limit_id] = told(conn, limits[attempt.limit_id], finish.told, now_ms)
        limit, answered = limits[attempt.limit_id], finish.outcome is Outcome.SUCCEEDED
        if answered and attempt.tokens_reserved is None and limit.state.gate_cause is None:
            continue  # the usual case, by the thousand: it teaches nothing
        end = finish if answered else said[finish.request_id, finish.number]
        ended = _ended(end, attempt, together)
        lesson = _learn(conn, limit, end, attempt, ended)
        limits[attempt.limit_id] = lesson.limit
        if not answered:
            _next_state(conn, scope, finish, now_ms, lesson)
        if finish.outcome is Outcome.UNAVAILABLE and finish.reason_code != Kind.MODEL_LOADING:
            away.append(ended)
    cut_off(conn, limits, away)


def released(lease: Lease, now_ms: int) -> Finish:
    """Return the end of a lease that was not handed out: its commit ended too late for its start.

    The request is pending again, and the tokens that it reserved are free. The place in the window
    stays taken: another process may have counted it.
    """
    reason = "its commit ended too late for its place in the window"
    end = Finish(lease.request_id, lease.number, now_ms, Outcome.INTERRUPTED, reason=reason)
    return end._replace(tokens_in=0, tokens_out=0)


def tokens_used(finish: Finish) -> tuple[int | None, int | None]:
    """Return the tokens that a call has used, in and out; None where that is not known."""
    out_of_order = (finish.status_code or 0) >= SERVER_ERROR and finish.text is None
    if finish.outcome in UNPROCESSED or out_of_order:
        return finish.tokens_in or 0, (finish.tokens_out or 0) + (finish.tokens_thought or 0)
    if finish.tokens_out is None:
        return finish.tokens_in, None
    return finish.tokens_in, finish.tokens_out + (finish.tokens_thought or 0)


def shows_server(finish: Finish) -> bool:
    """Tell whether a call shows that there is a server, whatever it said."""
    return finish.outcome in _REACHED or finish.reason_code == Kind.MODEL_LOADING


def _ended(finish: Finish, attempt: _Open, together: int) -> Ended:
    return Ended(
        finish.request_id,
        finish.number,
        finish.outcome,
        attempt.started_at_ms,
        max(attempt.started_at_ms, finish.finished_at_ms),
        finish.reason or finish.outcome,
        finish.retry_after_ms,
        finish.daily,
        is_busy(finish.outcome, finish.reason_code),
        together,
    )


def _learn(
    conn: sqlite3.Connection, limit: Limit, finish: Finish, attempt: _Open, ended: Ended
) -> Lesson:
    """Return a limit with what the end of a call has taught it."""
    lesson = learned(conn, limit, ended)
    if attempt.tokens_reserved is None:
        return lesson
    more = learn_tokens(conn, finish.request_id, *tokens_used(finish), attempt.tokens_reserved)
    limit = lesson.limit
    state = used_tokens(limit.state, limit.quota, more, finish.finished_at_ms)
    return lesson._replace(limit=limit._replace(state=state))


def end_run(
    conn: sqlite3.Connection,
    scope: Scope,
    run_id: int,
    outcome: Outcome,
    reason: str,
    detail: str | None = None,
) -> int:
    """End a run, one's own or a dead one, and close its open attempts with the given outcome.

    ``reason`` is the run's, ``detail`` that of its open attempts. Returns how many attempts were
    closed. A run that has ended already is left as it is.
    """
    now_ms = ledger_time_ms(conn, scope.clock())
    open_attempts = conn.execute(
        "SELECT request_id, number FROM attempts INDEXED BY attempts_open"
        " WHERE finished_at_ms IS NULL AND run_id = ?",
        (run_id,),
    )
    left_open = [
        Finish(request_id, number, now_ms, outcome, reason=detail or reason)
        for request_id, number in open_attempts.fetchall()
    ]
    for finish, _ in _close(conn, run_id, left_open):
        _next_state(conn, scope, finish, now_ms)
    conn.execute(
        "UPDATE runs SET ended_at_ms = max(started_at_ms, ?), reason = ?"
        " WHERE id = ? AND ended_at_ms IS NULL",
        (now_ms, reason, run_id),
    )
    return len(left_open)


def _close(
    conn: sqlite3.Connection, run_id: int, finished: Sequence[Finish]
) -> list[tuple[Finish, _Open]]:
    """Close those attempts that are still this run's; the fence against late answers.

    Each is found by its request: what a turn costs does not depend on how many are in flight.
    """
    ids = json.dumps([finish.request_id for finish in finished])
    open_attempts = {
        (request_id, number): _Open._make(known)
        for request_id, number, *known in conn.execute(_OPEN, (ids, run_id))
    }
    closed = []
    for finish in finished:
        attempt = open_attempts.pop((finish.request_id, finish.number), None)
        if attempt is not None:
            closed.append((finish, attempt))
    conn.executemany(
        _CLOSE,
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
                finish.reason_code,
                finish.tokens_cached,
                finish.details,
                finish.request_id,
                finish.number,
            )
            for finish, _ in closed
        ],
    )
    return closed


_OPEN = (
    "SELECT request_id, number, limit_id, started_at_ms, tokens_reserved"
    " FROM json_each(?) CROSS JOIN attempts INDEXED BY attempts_lease ON request_id = value"
    " WHERE finished_at_ms IS NULL AND run_id = ?"
)
_CLOSE = (
    "UPDATE attempts SET finished_at_ms = max(started_at_ms, ?), outcome = ?, reason = ?,"
    " status_code = ?, retry_after_ms = ?, tokens_in = ?, tokens_out = ?, tokens_thought = ?,"
    " finish_reason = ?, model_version = ?, truncated = ?, reason_code = ?, tokens_cached = ?,"
    " details = ?"
    " WHERE request_id = ? AND number = ? AND finished_at_ms IS NULL"
)


class _Spent(NamedTuple):
    """What a request has spent of its tries."""

    failures: int
    no_answers: int
    cancelling: int
    """It is not to be tried again."""
    current_id: int
    """The version of its prompt that is asked now."""
    prompt_id: int


def _spent_by(conn: sqlite3.Connection, request_id: int) -> _Spent:
    row = conn.execute(
        "SELECT failures, no_answers, cancelling, coalesce(newest.id, own.id), own.id FROM requests"
        " JOIN prompts AS own ON own.id = prompt_id"
        " LEFT JOIN prompts AS newest ON newest.name = own.name AND newest.current = 1"
        " WHERE requests.id = ?",
        (request_id,),
    ).fetchone()
    return _Spent._make(row)


def _note_served(conn: sqlite3.Connection, served_now: Sequence[Finish]) -> None:
    """Write down when prompts were last served: what was refused before says nothing any more."""
    if not served_now:
        return
    newest_ms = max(finish.finished_at_ms for finish in served_now)
    ids = json.dumps([finish.request_id for finish in served_now])
    conn.execute(
        "UPDATE tallies SET served_at_ms = max(served_at_ms, ?) WHERE prompt_id IN"
        " (SELECT prompt_id FROM json_each(?) CROSS JOIN requests ON requests.id = value)",
        (newest_ms, ids),
    )


def _next_state(
    conn: sqlite3.Connection,
    scope: Scope,
    finish: Finish,
    now_ms: int,
    lesson: Lesson | None = None,
) -> None:
    """Write the next state of a request that was not answered, as the policy's verdict says."""
    spent = _spent_by(conn, finish.request_id)
    state, failures, due_at_ms, no_answers = verdict(
        scope.policy,
        finish.outcome,
        failures=spent.failures,
        retry_after_ms=finish.retry_after_ms,
        now_ms=now_ms,
        draw=scope.draw,
        no_answers=spent.no_answers,
        worn_out=is_worn_out(conn, scope, finish),
        outage=lesson is not None and lesson.limit.state.gate_cause == "outage",
        alone=lesson.alone if lesson else 0,
    )
    if spent.cancelling and state is RequestState.PENDING:
        state = RequestState.CANCELLED
    assert state in TRANSITIONS[RequestState.LEASED]
    conn.execute(
        "UPDATE requests SET state = ?, failures = ?, due_at_ms = ?, no_answers = ?, cancelling = 0"
        " WHERE id = ?",
        (state, failures, due_at_ms, no_answers, finish.request_id),
    )
    if spent.current_id != spent.prompt_id:  # its prompt was edited while it was in flight
        let_answers_stand(conn, spent.current_id, [finish.request_id])
        if state is RequestState.PENDING:
            carry_on(conn, spent.current_id)
    if finish.text:
        # It was paid for. Nobody should have to ask again to see what was wrong with it.
        conn.execute(
            "INSERT OR REPLACE INTO drafts (request_id, number, text) VALUES (?, ?, ?)",
            (finish.request_id, finish.number, finish.text),
        )
