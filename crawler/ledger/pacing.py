"""What the ends of attempts teach their limits: the limiter's lessons, with evidence from the rows.

Rule: nothing here writes. A limit is a value, and each function returns the next. What a lesson
needs is counted only where it can change something, so that a calm answer costs nothing.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.evidence import flows, is_own, is_uneven
from crawler.ledger.limits import Limit
from crawler.ledger.window import first_start, load, refusals
from crawler.policy import is_out_of_order
from crawler.quota.concurrency import round_calls, widened
from crawler.quota.gate import (
    Failure,
    failed,
    lets_in,
    opened,
    refused,
    verified_at_ms,
)
from crawler.quota.plan import Plan, Usage, plan
from crawler.quota.rate import Refusal, is_noisy, is_untried
from crawler.quota.state import RECENT, WINDOW_MS, State
from crawler.states import OPENS_GATE, Outcome
from crawler.states.kinds import Kind

LOOKED_AT = 1_000
"""The newest attempts that are looked at for a row of failures."""
TRIES = 3
"""A request that has failed so often is no witness of an outage: it may fail by itself."""
MOMENT_MS = 100
"""Calls without any response that end within this time are lost with one connection."""


class Ended(NamedTuple):
    """The end of a call, as far as it tells of its limit."""

    request_id: int
    number: int
    outcome: Outcome
    started_at_ms: int
    finished_at_ms: int
    reason: str
    retry_after_ms: int | None
    daily: bool
    busy: bool
    """The server refuses, and says that it is not for a quota of ours."""
    together: int
    """Calls that were answered at the same time: until then they were in flight with it."""


class Lesson(NamedTuple):
    """A limit after the end of a call."""

    limit: Limit
    alone: int = 0
    """How often the request was refused by itself, so that nobody else waits; 0: all wait."""


def learned(conn: sqlite3.Connection, limit: Limit, ended: Ended) -> Lesson:
    """Return what the end of a call has taught its limit."""
    if ended.outcome is Outcome.THROTTLED and not ended.busy:
        return _of_refusal(conn, limit, ended)
    if ended.outcome is Outcome.UNAVAILABLE:
        times = ended.started_at_ms, ended.finished_at_ms
        nobody = Failure(*times, first_started_at_ms=ended.started_at_ms, nobody=True)
        return Lesson(_with(limit, failed(limit.state, nobody), ended.reason))
    if ended.outcome not in OPENS_GATE and not ended.busy:
        return Lesson(limit)
    out_of_order = ended.busy or is_out_of_order(ended.outcome, ended.retry_after_ms)
    if limit.state.gate_cause != "outage" or not out_of_order:
        limit = _let_in(conn, limit, ended.started_at_ms, ended.finished_at_ms)
    if out_of_order:
        state = failed(limit.state, _failure(conn, limit, ended))
        limit = _with(limit, state, ended.reason)
    return Lesson(limit, alone=1 if ended.busy else 0)


def cut_off(conn: sqlite3.Connection, limits: dict[int, Limit], away: Sequence[Ended]) -> None:
    """Close the open gates of all limits of the providers that calls could not reach.

    ``limits`` gets what has changed. A limit that another provider shares finds out by itself.
    """
    for ended in away:
        rows = conn.execute(
            "SELECT limit_id FROM prompts WHERE provider <> 'function'"
            " GROUP BY limit_id HAVING min(provider) = max(provider)"
            " AND min(provider) = (SELECT provider FROM requests JOIN prompts"
            " ON prompts.id = prompt_id WHERE requests.id = ?)",
            (ended.request_id,),
        )
        for (limit_id,) in rows.fetchall():
            state = limits[limit_id].state
            if state.gate_cause is None and ended.started_at_ms > state.gate_closed_at_ms:
                limits[limit_id] = learned(conn, limits[limit_id], ended).limit


def tried(conn: sqlite3.Connection, limit: Limit, usage: Usage, now_ms: int) -> Limit:
    """Return the limit, its gate open if the call that tries it would have been refused by now."""
    probe_at_ms = usage.probe_started_at_ms
    if probe_at_ms is None:
        return limit
    at_ms = verified_at_ms(limit.state, probe_at_ms, usage.refusal_ms)
    if at_ms is None or now_ms < at_ms:
        return limit
    return _let_in(conn, limit, probe_at_ms, now_ms)


def next_step(limit: Limit, usage: Usage, now_ms: int) -> Plan:
    """Return how many calls may start under a limit now; none while somebody has paused it."""
    if limit.is_paused(now_ms):
        return Plan(0, "paused", limit.paused_until_ms)
    return plan(limit.state, limit.quota, usage, now_ms)


def round_over(conn: sqlite3.Connection, limit: Limit, in_flight: int, now_ms: int) -> Limit:
    """Return the limit with another width, where a round of calls shows that it pays."""
    state = limit.state
    first = first_start(conn, limit.id, state.round_at_ms + 1)
    if first is None or first.occupied(limit) - in_flight < round_calls(state):
        return limit
    ok, lost = conn.execute(
        "SELECT count(*), coalesce(sum(outcome = 'transient' OR reason_code = 'overloaded'), 0)"
        " FROM attempts INDEXED BY attempts_started WHERE limit_id = ? AND started_at_ms > ?"
        " AND finished_at_ms IS NOT NULL AND (reason_code IS 'overloaded'"
        " OR outcome NOT IN ('throttled', 'unavailable', 'interrupted', 'abandoned'))",
        (limit.id, state.round_at_ms),
    ).fetchone()
    state = widened(state, ok - lost, lost, first.at_ms, in_flight, now_ms)
    return limit._replace(state=state)


def _with(limit: Limit, state: State, reason: str) -> Limit:
    """Return a limit in another state, and what was said where that has closed its gate."""
    if state is limit.state:
        return limit
    if state.gate_cause is None:
        return limit._replace(state=state, gate_reason=None)
    closed = state.gate_closed_at_ms != limit.state.gate_closed_at_ms or not limit.gate_reason
    return limit._replace(state=state, gate_reason=reason if closed else limit.gate_reason)


def _let_in(conn: sqlite3.Connection, limit: Limit, started_at_ms: int, now_ms: int) -> Limit:
    """Return a limit after a call was not refused: its gate is open, if that call can open it."""
    if not lets_in(limit.state, started_at_ms):
        return limit
    state = opened(limit.state, limit.quota, *_minute(conn, limit), now_ms)
    return limit._replace(state=state, gate_reason=None)


def _minute(conn: sqlite3.Connection, limit: Limit) -> tuple[int, int, int]:
    """Return the starts of the minute up to the closing of a gate that were not refused and were.

    And when the first of them was. Of a rate that is untried, no more than since it began.
    """
    until_ms = limit.state.gate_since_ms
    since_ms = until_ms - WINDOW_MS
    if is_untried(limit.state):
        since_ms = max(since_ms, limit.state.cut_at_ms + 1)
    first, after = first_start(conn, limit.id, since_ms), first_start(conn, limit.id, until_ms + 1)
    if first is None or first.at_ms > until_ms:
        return 0, 0, until_ms
    starts = first.occupied(limit) - (after.occupied(limit) if after else 0)
    count = refusals(conn, limit.id, since_ms, until_ms)
    return max(0, starts - count), count, first.at_ms


# Refusals


def _of_refusal(conn: sqlite3.Connection, limit: Limit, ended: Ended) -> Lesson:
    state = limit.state
    facts = Refusal(
        ended.started_at_ms, ended.finished_at_ms, ended.retry_after_ms, daily=ended.daily
    )
    times = 1
    if ended.number > 1 and not ended.daily:
        times, *others = _of_request(conn, limit, ended)
        facts = facts._replace(own=is_own(times, *others))
    same_episode = ended.started_at_ms <= state.gate_closed_at_ms
    if not facts.own and (not same_episode or (ended.daily and state.gate_cause == "quota")):
        facts = _of_limit(conn, limit, ended, facts)
    state = refused(state, limit.quota, facts)
    alone = times if facts.own else int(state.gate_cause is None)
    return Lesson(_with(limit, state, ended.reason), alone)


def _of_request(conn: sqlite3.Connection, limit: Limit, ended: Ended) -> tuple[int, int, int]:
    """Count the refusals of one request, the calls for others since the first, and their refusals.

    Calls that have not ended say nothing yet.
    """
    times, since_ms = conn.execute(
        "SELECT count(*), min(started_at_ms) FROM (SELECT started_at_ms, outcome FROM attempts"
        " WHERE request_id = ? AND number <= ? ORDER BY number DESC LIMIT ?)"
        " WHERE outcome = 'throttled'",
        (ended.request_id, ended.number, RECENT),
    ).fetchone()
    first = first_start(conn, limit.id, since_ms) if times > 1 else None
    if first is None:
        return 1, 0, 0
    sent = first.occupied(limit) - _open_since(conn, limit.id, since_ms)
    count = refusals(conn, limit.id, since_ms, ended.finished_at_ms)
    return times, max(0, sent - times), max(0, count - times)


def _of_limit(conn: sqlite3.Connection, limit: Limit, ended: Ended, facts: Refusal) -> Refusal:
    """Count what a refusal can change the rate, the width and the gate by."""
    state, now_ms, window_ms = limit.state, ended.finished_at_ms, limit.quota.window_ms
    first = first_start(conn, limit.id, now_ms - window_ms)
    in_flight, _ = load(conn, limit.id)
    facts = facts._replace(
        window_free_at_ms=(first.at_ms if first else now_ms) + window_ms + 1,
        in_flight=in_flight + ended.together,
    )
    if is_noisy(state):
        recent, count = _newest(conn, limit)
        return facts._replace(sent=recent, refused=count)
    since = first_start(conn, limit.id, state.cut_at_ms + 1)
    if since is None:
        return facts
    sent = since.occupied(limit) - _open_since(conn, limit.id, since.at_ms)
    count = refusals(conn, limit.id, since.at_ms, now_ms)
    uneven = is_untried(state) and is_uneven(flows(conn, limit.id, since, state.cut_at_ms))
    return facts._replace(sent=max(sent, count), refused=count, uneven=uneven)


def _newest(conn: sqlite3.Connection, limit: Limit) -> tuple[int, int]:
    """Return how many of the newest calls since the last cut have ended, and were refused."""
    ended, count = conn.execute(
        "SELECT count(*), coalesce(sum(outcome = 'throttled'), 0) FROM (SELECT outcome"
        " FROM attempts INDEXED BY attempts_started WHERE limit_id = ? AND started_at_ms > ?"
        " AND finished_at_ms IS NOT NULL ORDER BY started_at_ms DESC, nth DESC LIMIT ?)",
        (limit.id, limit.state.cut_at_ms, RECENT),
    ).fetchone()
    return int(ended), int(count)


def _open_since(conn: sqlite3.Connection, limit_id: int, since_ms: int) -> int:
    """Count the calls in flight that started at a moment or later."""
    (count,) = conn.execute(
        "SELECT count(*) FROM attempts INDEXED BY attempts_open"
        " WHERE limit_id = ? AND finished_at_ms IS NULL AND started_at_ms >= ?",
        (limit_id, since_ms),
    ).fetchone()
    return int(count)


# Failures


class _Try(NamedTuple):
    """An attempt, as far as it tells whether the server is there."""

    request_id: int
    started_at_ms: int
    finished_at_ms: int | None
    failed: int
    lost: int
    """It ended with its connection, and no response."""


def _failure(conn: sqlite3.Connection, limit: Limit, ended: Ended) -> Failure:
    """Return a failure with the row of failures that it belongs to."""
    facts = Failure(ended.started_at_ms, ended.finished_at_ms)
    if limit.state.gate_cause is not None:
        return facts  # it is known to be out of order
    row, before = _failures_in_a_row(conn, limit.id)
    if not row:
        return facts
    (left,) = conn.execute(
        "SELECT sum(pending + leased) FROM prompts JOIN tallies ON prompt_id = prompts.id"
        " WHERE limit_id = ?",
        (limit.id,),
    ).fetchone()
    return facts._replace(
        words=_words(conn, row),
        left=left,
        first_started_at_ms=min(one.started_at_ms for one in row),
        first_ended_at_ms=min(one.finished_at_ms or 0 for one in row),
        before=len(before),
        before_failed=sum(one.failed for one in before),
    )


def _failures_in_a_row(conn: sqlite3.Connection, limit_id: int) -> tuple[list[_Try], list[_Try]]:
    """Return the failures after the newest start of a call that has not failed, and those before.

    A call that is still out is no failure yet: whatever started after it is not looked at.
    """
    row: list[_Try] = []
    before: list[_Try] = []
    sign_ms: int | None = None
    for one in map(_Try._make, conn.execute(_TRIES, (limit_id, LOOKED_AT))):
        if len(before) == RECENT:
            break
        if one.finished_at_ms is None and sign_ms is None:
            row = []
        elif one.finished_at_ms is not None and sign_ms is None and one.failed:
            row.append(one)
        elif one.finished_at_ms is not None:
            sign_ms = one.started_at_ms if sign_ms is None else sign_ms
            before.append(one)
    return [one for one in row if sign_ms is None or one.started_at_ms > sign_ms], before


_TRIES = (
    "SELECT request_id, started_at_ms, finished_at_ms, coalesce(reason_code = 'overloaded', 0)"
    " OR coalesce(outcome = 'unavailable', 0)"
    " OR (coalesce(outcome = 'transient', 0) AND retry_after_ms IS NOT 0),"
    " reason_code IS 'transient' AND coalesce(status_code, 503) = 503"
    " FROM attempts INDEXED BY attempts_started WHERE limit_id = ? AND nth >= 0"
    " AND (outcome IS NULL OR outcome NOT IN ('interrupted', 'abandoned', 'denied', 'no_money'))"
    " ORDER BY started_at_ms DESC, nth DESC LIMIT ?"
)


def _words(conn: sqlite3.Connection, row: list[_Try]) -> int:
    """Count the different requests of a row of failures that bear witness of the server.

    What was lost with one connection counts as one.
    """
    times: dict[int, int] = {}
    for one in row:
        times[one.request_id] = times.get(one.request_id, 0) + 1
    found = conn.execute(
        "SELECT requests.id, failures FROM json_each(?) CROSS JOIN requests ON requests.id = value",
        (json.dumps(list(times)),),
    )
    failures = dict(found.fetchall())
    witnesses = {word for word, n in times.items() if failures[word] - n < TRIES}
    lost = {one.request_id: (one.finished_at_ms or 0) // MOMENT_MS for one in row if one.lost}
    return len({("lost", lost[word]) if word in lost else word for word in witnesses})


def is_busy(outcome: Outcome, reason_code: str | None) -> bool:
    """Tell whether a server refuses because it is busy, and not for a quota of ours."""
    return outcome is Outcome.THROTTLED and reason_code == Kind.OVERLOADED
