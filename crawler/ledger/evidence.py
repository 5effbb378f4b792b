"""What the earlier attempts of a request, and those of others, say of the end of this one.

Rule: nothing here writes. A refusal is only evidence of what it can show: one that comes back for
one word, while others are let in, is the word's own; and those that come without regard to time
are no quota's.
"""

import itertools
import math
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.runs import Scope
from crawler.ledger.window import Start, first_start, refusals
from crawler.policy import BY_CHANCE
from crawler.protocol import Finish
from crawler.quota.state import CHANCE, GAP_MS, RECENT, surprise
from crawler.states import Outcome
from crawler.states.kinds import Kind

LATEST_MS = 2**63 - 1
LOADING_TRIES = 100
"""The newest refusals that are looked at for how long a model is loading."""
FLOWS = 7
"""The newest refusals that are looked at for how many calls came between them."""
LONGEST_SEQUENCE = 20
"""The newest refusals of a request that are looked at."""


def judged(conn: sqlite3.Connection, scope: Scope, finish: Finish) -> Finish:
    """Return an end as it is to be recorded: some are final when they come again and again."""
    if finish.outcome is Outcome.SUCCEEDED:
        return finish  # the usual case
    most, odd = scope.policy.max_throttled, scope.policy.max_odd
    if finish.outcome is Outcome.THROTTLED and _is_its_own(conn, finish, most):
        said = f"refused {finish.number} times while others were let in"
        reason = f"its prompt is larger than the tokens a minute allow: {said}: {finish.reason}"
        kind = Kind.TOO_LARGE_FOR_QUOTA
        return finish._replace(outcome=Outcome.REJECTED, reason=reason, reason_code=kind)
    if finish.reason_code == Kind.RECITATION and _times(conn, finish, "recitation") >= odd - 1:
        return finish._replace(outcome=Outcome.BLOCKED)
    return finish


def luck(times: int, others: int, refused: int) -> float:
    """Return how likely so many refusals of one word are, if it is refused as others are meanwhile.

    What is believed depends on what is at stake. Below ``exp(-CHANCE)``, 1 in 1,000, the word waits
    by itself and the gate stays open (`is_own`): where that is wrong, one call is lost. Below
    `BY_CHANCE`, and if others were served in between, it fails.
    """
    share = (refused + 1) / (others + 2)
    return float(share**times)


def is_own(times: int, others: int, refused: int) -> bool:
    """Tell whether it is the word that is refused, so that no other waits."""
    return times > 1 and luck(times, others, refused) < math.exp(-CHANCE)


def is_uneven(flows: Sequence[tuple[int, int]]) -> bool:
    """Tell whether refusals come without regard to time, and so are no quota's.

    ``flows``: the calls that were let in between one refusal and the next, and in how many ms. A
    quota that is used up lets in as many as flow in; chance counts calls. How unlikely the flows
    are at one rate is summed up as for a Poisson process, where a call may overtake others. Those
    that come in a row, more often than chance has it, are a quota's again.
    """
    known = [(calls, ms + GAP_MS / 3) for calls, ms in flows if calls]
    total, all_ms = sum(calls for calls, _ in known), sum(ms for _, ms in known)
    unlikely = 0.0
    for calls, ms in known:
        due = total * ms / all_ms
        unlikely += min(1, RECENT / due) * (calls * math.log(calls / due) - calls + due)
    again, share = len(flows) - len(known), len(flows) / max(1, len(flows) + total)
    in_rows = again > share * len(flows) and surprise(again, len(flows), share) > CHANCE / 2
    return unlikely > CHANCE and not in_rows


def flows(
    conn: sqlite3.Connection, limit_id: int, first: Start, since_ms: int
) -> list[tuple[int, int]]:
    """Return the calls between the newest refusals since a moment, and in how many ms they were.

    ``first`` is the first start after that moment.
    """
    refused = conn.execute(
        "SELECT nth, started_at_ms FROM attempts INDEXED BY attempts_throttled WHERE limit_id = ?"
        " AND outcome = 'throttled' AND started_at_ms > ? ORDER BY started_at_ms DESC, nth DESC"
        " LIMIT ?",
        (limit_id, since_ms, FLOWS + 1),
    ).fetchall()
    ends = [(first.nth - 1, since_ms), *reversed(refused)][-FLOWS - 1 :]
    return [
        (nth - before - 1, till_ms - at_ms)
        for (before, at_ms), (nth, till_ms) in itertools.pairwise(ends)
    ]


class _Throttled(NamedTuple):
    """The newest attempts of a request, all of them throttled."""

    request_id: int
    limit_id: int
    starts: list[int]
    """When they started, the newest first."""


def _is_its_own(conn: sqlite3.Connection, finish: Finish, most: int) -> bool:
    """Tell whether a request is throttled for what it is, and not by chance, and not as all are.

    Others were served between its refusals. And if it were refused as often as those that were
    asked around then, so many in sequence could not be.
    """
    if finish.number < most:
        return False
    own = _throttled(conn, finish)
    if len(own.starts) < most:
        return False
    asked, refused = _asked_around(conn, own)
    if luck(len(own.starts), asked, refused) <= BY_CHANCE:
        between = sum(_served_between(conn, own, *gap) for gap in itertools.pairwise(own.starts))
        if between + 1 >= most and luck(between + 1, asked, refused) <= BY_CHANCE:
            return True
    return len(own.starts) >= 2 * most and not refused and _is_left_alone(conn, own)


def _throttled(conn: sqlite3.Connection, finish: Finish) -> _Throttled:
    """Return the sequence of refusals of a request that an end belongs to."""
    rows = conn.execute(
        "SELECT limit_id, started_at_ms, outcome FROM attempts"
        " WHERE request_id = ? AND number <= ? ORDER BY number DESC LIMIT ?",
        (finish.request_id, finish.number, LONGEST_SEQUENCE),
    ).fetchall()
    alike = itertools.takewhile(lambda row: row[2] in (None, Outcome.THROTTLED), rows)
    return _Throttled(finish.request_id, rows[0][0], [at_ms for _, at_ms, _ in alike])


def _asked_around(conn: sqlite3.Connection, own: _Throttled) -> tuple[int, int]:
    """Count the calls for others since a request was first refused, and the refused of them."""
    since_ms = own.starts[-1]
    first = first_start(conn, own.limit_id, since_ms)
    (started,) = conn.execute("SELECT started FROM limits WHERE id = ?", (own.limit_id,)).fetchone()
    of_all = started - abs(first.nth) + 1 if first else 0
    refused = refusals(conn, own.limit_id, since_ms, LATEST_MS)
    # Its newest attempt is not closed yet.
    return max(0, of_all - len(own.starts)), max(0, refused - len(own.starts) + 1)


def _served_between(
    conn: sqlite3.Connection, own: _Throttled, until_ms: int, since_ms: int
) -> bool:
    """Tell whether another request of the limit had its answer between two refusals."""
    row = conn.execute(
        "SELECT 1 FROM attempts INDEXED BY attempts_started WHERE limit_id = ?"
        " AND started_at_ms BETWEEN ? AND ? AND (outcome = 'succeeded' OR outcome = 'blocked')"
        " AND finished_at_ms BETWEEN ? AND ? AND request_id <> ?"
        " ORDER BY started_at_ms DESC LIMIT 1",
        (own.limit_id, own.starts[-1], until_ms, since_ms, until_ms, own.request_id),
    ).fetchone()
    return row is not None


def _is_left_alone(conn: sqlite3.Connection, own: _Throttled) -> bool:
    """Tell whether no other request is left under its limit, and others were served meanwhile."""
    left, served_at_ms = conn.execute(
        "SELECT sum(pending + leased), max(served_at_ms) FROM prompts"
        " JOIN tallies ON prompt_id = prompts.id WHERE limit_id = ?",
        (own.limit_id,),
    ).fetchone()
    return bool(left == 1 and served_at_ms > own.starts[-1])


def is_loading_in_vain(
    conn: sqlite3.Connection, limit_id: int, since_ms: int, most_ms: int, now_ms: int
) -> bool:
    """Tell whether a server has loaded its model for longer than it asked to be waited for.

    That is the longest pause of all refusals in a row that say so, from the first of them on: each
    may tell what is left. It is ``most_ms`` at the most. What came before ``since_ms``, as before
    the run that asks, does not count, nor what came before the server was away.
    """
    rows = conn.execute(
        "SELECT reason_code, started_at_ms, retry_after_ms"
        " FROM attempts INDEXED BY attempts_started WHERE limit_id = ? AND started_at_ms >= ?"
        " AND outcome = 'unavailable' ORDER BY started_at_ms DESC LIMIT ?",
        (limit_id, since_ms, LOADING_TRIES),
    )
    loading = list(itertools.takewhile(lambda row: row[0] == Kind.MODEL_LOADING, rows))
    told_ms = [pause_ms for _, _, pause_ms in loading if pause_ms is not None]
    if not told_ms:
        return False
    began_ms = min(at_ms for _, at_ms, _ in loading)
    return bool(now_ms - began_ms >= min(most_ms, max(told_ms)))


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
