"""What a person changes while a crawl is running: pauses, limits, retries, cancellations.

Rule: a command writes rows and goes; a run sees them at its next turn.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crawler.ledger.clocks import file_ms
from crawler.ledger.limits import Change, forgotten, limits, note, write
from crawler.ledger.standing import ask_by, standing_requests
from crawler.states import TRANSITIONS, RequestState

_IN_FLIGHT = (
    "(SELECT request_id FROM attempts INDEXED BY attempts_lease WHERE finished_at_ms IS NULL)"
)
_LISTED = "superseded = 0 AND removed_at_ms IS NULL"


class Cancelled(NamedTuple):
    """What a cancellation did."""

    requests: int
    in_flight: int
    """Calls that had left already: their answers are kept, but they are not tried again."""


def pause(
    conn: sqlite3.Connection, limit: str | None, now_ms: int, until_ms: int | None = None
) -> int:
    """Let nothing more start under a limit (None: under any); return how many are paused now.

    It ends at ``until_ms``, or when somebody resumes.
    """
    changed = conn.execute(
        "UPDATE limits SET paused_at_ms = ?1, paused_until_ms = ?2 WHERE ?3 IS NULL OR name = ?3"
        " RETURNING id",
        (now_ms, until_ms, limit),
    ).fetchall()
    for (limit_id,) in changed:
        note(conn, limit_id, [Change("paused", None, until_ms, "crawler pause")], now_ms)
    return len(changed)


def resume(conn: sqlite3.Connection, limit: str | None, now_ms: int) -> int:
    """Undo a pause, and let a call try a closed gate; return for how many limits."""
    changed = conn.execute(
        # The call that tries is known by a start after the gate was closed: see window.usage.
        "UPDATE limits SET paused_at_ms = NULL, paused_until_ms = NULL, gate_opens_at_ms ="
        " iif(gate_cause IS NOT NULL AND gate_closed_at_ms >= ?2, gate_closed_at_ms + 1, 0)"
        " WHERE ?1 IS NULL OR name = ?1 RETURNING id",
        (limit, now_ms),
    ).fetchall()
    for (limit_id,) in changed:
        note(conn, limit_id, [Change("resumed", None, None, "crawler resume")], now_ms)
    return len(changed)


def end_outage(conn: sqlite3.Connection, now_ms: int) -> None:
    """Open the gates that an outage has closed: the next run finds out by itself."""
    changed = conn.execute(
        "UPDATE limits SET gate_cause = NULL, gate_reason = NULL, gate_opens_at_ms = 0,"
        " gate_strikes = 0 WHERE gate_cause = 'outage' RETURNING id"
    ).fetchall()
    for (limit_id,) in changed:
        note(conn, limit_id, [Change("gate_opened", None, None, "the run gave up")], now_ms)


def set_concurrency(conn: sqlite3.Connection, limit: str, concurrency: int | None) -> None:
    """Set how many calls may be in flight at once under a limit; None: it finds itself."""
    changed = conn.execute(
        "UPDATE limits SET concurrency = ?1 WHERE name = ?2 AND concurrency IS NOT ?1 RETURNING id",
        (concurrency, limit),
    ).fetchall()
    told = "none" if concurrency is None else concurrency
    for (limit_id,) in changed:
        note(conn, limit_id, [Change("set", None, None, f"concurrency = {told}")], file_ms(conn))


def set_tokens_per_minute(
    conn: sqlite3.Connection, limit: str, tokens: int | None, now_ms: int
) -> None:
    """Set how many tokens may be used in a minute under a limit; None for any number."""
    _set_quota(conn, limit, "tokens_per_minute", tokens, now_ms)


def set_per_minute(
    conn: sqlite3.Connection, limit: str, per_minute: int | None, now_ms: int
) -> None:
    """Set how many calls may start in any minute under a limit; None: not known."""
    _set_quota(conn, limit, "per_minute", per_minute, now_ms)


def set_adaptive(conn: sqlite3.Connection, limit: str, now_ms: int, *, adaptive: bool) -> None:
    """Set whether a limit learns from refusals."""
    _set_quota(conn, limit, "adaptive", int(adaptive), now_ms)


def _set_quota(
    conn: sqlite3.Connection, limit: str, name: str, value: int | None, now_ms: int
) -> None:
    """Set what a limit is told of its quota. What it has learned of another one, it forgets.

    A gate that is closed stays so, and the next call tries it at once.
    """
    changed = conn.execute(
        f"UPDATE limits SET {name} = ?1 WHERE name = ?2 AND {name} IS NOT ?1 RETURNING id",
        (value, limit),
    ).fetchall()
    for (limit_id,) in changed:
        known = limits(conn, 0)[limit_id]
        write(conn, known._replace(state=forgotten(known.state, now_ms)))
        rate = float(value) if name == "per_minute" and value is not None else None
        told = "none" if value is None else value
        note(conn, limit_id, [Change("set", rate, None, f"{name} = {told}")], now_ms)


def retry(
    conn: sqlite3.Connection,
    prompt_ids: Iterable[int],
    word_ids: Sequence[int] | None,
    states: Sequence[RequestState],
) -> int:
    """Make failed or cancelled requests pending again, with a new retry budget; return how many.

    A call in flight that was not to be tried again may be, if what was cancelled is meant.
    """
    assert all(RequestState.PENDING in TRANSITIONS[state] for state in states)
    prompt_ids = list(prompt_ids)
    if RequestState.CANCELLED in states:
        for prompt_id in prompt_ids:
            _update(
                conn,
                "requests",
                "cancelling = 0",
                f"state = 'leased' AND {_LISTED} AND id IN {_IN_FLIGHT}",
                prompt_id,
                word_ids,
            )
    return sum(
        _update(
            conn,
            f"requests INDEXED BY requests_{state}",
            "state = 'pending', due_at_ms = 0, failures = 0, no_answers = 0",
            f"state = '{state}' AND {_LISTED}",
            prompt_id,
            word_ids,
        )
        for state in states
        for prompt_id in prompt_ids
    )


def ask_for(conn: sqlite3.Connection, prompt_id: int, text: str) -> int:
    """Return the id of a request that is to be answered; failed or cancelled, it is pending again.

    The word must have been added for the prompt. Who asks is this version of it.
    """
    ask_by(conn, prompt_id, [text])
    [request] = standing_requests(conn, prompt_id, [text])
    retry(conn, [prompt_id], [request.word_id], [RequestState.FAILED, RequestState.CANCELLED])
    return request.id


def cancel(
    conn: sqlite3.Connection, prompt_ids: Sequence[int], word_ids: Sequence[int] | None
) -> Cancelled:
    """Cancel what has not been asked yet; what is in flight ends, but is not tried again."""
    cancelled = in_flight = 0
    for prompt_id in prompt_ids:
        for index, due in (("fresh", "due_at_ms = 0"), ("waiting", "due_at_ms > 0")):
            cancelled += _update(
                conn,
                f"requests INDEXED BY requests_{index}",
                "state = 'cancelled'",
                f"state = 'pending' AND {due}",
                prompt_id,
                word_ids,
            )
        in_flight += _update(
            conn,
            "requests",
            "cancelling = 1",
            f"state = 'leased' AND id IN {_IN_FLIGHT}",
            prompt_id,
            word_ids,
        )
    return Cancelled(cancelled, in_flight)


def word_id(conn: sqlite3.Connection, text: str) -> int | None:
    """Return the id of a word."""
    row = conn.execute("SELECT id FROM words WHERE coalesce(key, text) = ?", (text,)).fetchone()
    return None if row is None else int(row[0])


def _update(
    conn: sqlite3.Connection,
    source: str,
    changes: str,
    condition: str,
    prompt_id: int,
    word_ids: Sequence[int] | None,
) -> int:
    """Update requests of a prompt, all of them or those of some words; return how many."""
    if word_ids is None:
        return conn.execute(
            f"UPDATE {source} SET {changes} WHERE {condition} AND prompt_id = ?", (prompt_id,)
        ).rowcount
    return conn.executemany(
        f"UPDATE requests INDEXED BY requests_of_word SET {changes} WHERE {condition}"
        " AND superseded = 0 AND prompt_id = ? AND word_id = ?",
        [(prompt_id, word) for word in word_ids],
    ).rowcount
