"""What the earlier attempts of a request, and those of others, say of the end of this one.

Rule: nothing here writes. A refusal is only evidence of what it can show: one that comes back for
one word, while others are let in, is the word's own.
"""

import sqlite3

from crawler.ledger.runs import Scope
from crawler.protocol import Finish
from crawler.states import Outcome
from crawler.states.kinds import Kind


def judged(conn: sqlite3.Connection, scope: Scope, finish: Finish) -> Finish:
    """Return an end as it is to be recorded: some are final when they come again and again."""
    most, odd = scope.policy.max_throttled, scope.policy.max_odd
    if finish.outcome is Outcome.THROTTLED and _is_its_own(conn, finish, most - 1):
        said = f"refused {most} times while others were let in"
        reason = f"its prompt is larger than the tokens a minute allow: {said}: {finish.reason}"
        kind = Kind.TOO_LARGE_FOR_QUOTA
        return finish._replace(outcome=Outcome.REJECTED, reason=reason, reason_code=kind)
    if finish.reason_code == Kind.RECITATION and _times(conn, finish, "recitation") >= odd - 1:
        return finish._replace(outcome=Outcome.BLOCKED)
    return finish


def _is_its_own(conn: sqlite3.Connection, finish: Finish, before: int) -> bool:
    """Tell whether only this request was throttled in its last attempts, and others were served."""
    if finish.number <= before:
        return False
    times, since_ms, limit_id = conn.execute(
        "SELECT count(*), min(started_at_ms), max(limit_id) FROM (SELECT * FROM attempts"
        " WHERE request_id = ? AND number < ? ORDER BY number DESC LIMIT ?)"
        " WHERE outcome = 'throttled'",
        (finish.request_id, finish.number, before),
    ).fetchone()
    (served_at_ms,) = conn.execute(
        "SELECT max(served_at_ms) FROM tallies JOIN prompts ON prompts.id = prompt_id"
        " WHERE limit_id = ?",
        (limit_id,),
    ).fetchone()
    return bool(times == before and served_at_ms > since_ms)


def _times(conn: sqlite3.Connection, finish: Finish, kind: str) -> int:
    """Count the earlier answers of a request's present budget that were no good in some way."""
    (times,) = conn.execute(
        "SELECT count(*) FROM (SELECT reason_code FROM attempts WHERE request_id = ?1"
        " AND number < ?2 AND outcome = 'no_answer' ORDER BY number DESC"
        " LIMIT (SELECT no_answers FROM requests WHERE id = ?1)) WHERE reason_code = ?3",
        (finish.request_id, finish.number, kind),
    ).fetchone()
    return int(times)


def is_worn_out(conn: sqlite3.Connection, scope: Scope, finish: Finish) -> bool:
    """Tell whether an answer was no good for the last time, in a way that is paid for in vain."""
    if finish.outcome is not Outcome.NO_ANSWER or finish.reason_code is None:
        return False
    most = {Kind.TRUNCATED: scope.policy.max_truncated, Kind.ODD: scope.policy.max_odd}
    allowed = most.get(Kind(finish.reason_code)) if finish.reason_code in set(Kind) else None
    return allowed is not None and _times(conn, finish, finish.reason_code) + 1 >= allowed
