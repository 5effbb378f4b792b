"""What the ends of attempts teach their limits: the limiter's lessons, with evidence from the rows.

Rule: nothing here writes. A limit is a value, and each function returns the next.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.limits import Limit
from crawler.ledger.window import accepted, first_start
from crawler.policy import is_out_of_order
from crawler.quota.learning import Refusal, answered, failed, opened, refused, verified_at_ms
from crawler.quota.pace import Pace
from crawler.quota.plan import Usage
from crawler.states import OPENS_GATE, Outcome


class Ended(NamedTuple):
    """The end of a call, as far as it tells of its limit."""

    outcome: Outcome
    started_at_ms: int
    finished_at_ms: int
    reason: str
    retry_after_ms: int | None
    daily: bool
    request_id: int
    first_failure: bool
    """The request had not failed before. One that had may fail whatever the server does."""


def learned(conn: sqlite3.Connection, limit: Limit, ended: Ended) -> Pace:
    """Return the pace of a limit after a call under it has ended."""
    pace, quota, now_ms = limit.pace, limit.quota, ended.finished_at_ms
    if ended.outcome is Outcome.THROTTLED:
        same_episode = ended.started_at_ms <= pace.gate_closed_at_ms
        count = 0 if same_episode else accepted(conn, limit, now_ms)
        return refused(pace, quota, _refusal(conn, limit, ended, count))
    if ended.outcome is Outcome.UNAVAILABLE:
        return failed(pace, ended.started_at_ms, ended.reason, refused=True, now_ms=now_ms)
    if ended.outcome not in OPENS_GATE:
        return pace
    out_of_order = is_out_of_order(ended.outcome, ended.retry_after_ms)
    if not out_of_order or pace.gate_cause in ("quota", "day"):
        count = accepted(conn, limit, now_ms) if pace.gate_cause else 0
        pace = answered(pace, quota, ended.started_at_ms, count, now_ms)
    if out_of_order and (ended.first_failure or pace.gate_cause == "outage"):
        pace = failed(pace, ended.started_at_ms, ended.reason, refused=False, now_ms=now_ms)
    return pace


def cut_off(conn: sqlite3.Connection, limits: dict[int, Limit], away: Sequence[Ended]) -> None:
    """Close the open gates of all limits of the providers that calls could not reach.

    ``limits`` gets what has changed. A limit that another provider shares finds out by itself.
    """
    for ended in away:
        rows = conn.execute(
            "SELECT limit_id FROM prompts GROUP BY limit_id HAVING min(provider) = max(provider)"
            " AND min(provider) = (SELECT provider FROM requests JOIN prompts"
            " ON prompts.id = prompt_id WHERE requests.id = ?)",
            (ended.request_id,),
        )
        for (limit_id,) in rows.fetchall():
            limit = limits[limit_id]
            if limit.pace.gate_cause is None and ended.started_at_ms > limit.pace.gate_closed_at_ms:
                pace = failed(
                    limit.pace,
                    ended.started_at_ms,
                    ended.reason,
                    refused=True,
                    now_ms=ended.finished_at_ms,
                )
                limits[limit_id] = limit._replace(pace=pace)


def tried(conn: sqlite3.Connection, limit: Limit, usage: Usage, now_ms: int) -> Limit:
    """Return the limit, its gate open if the call that tries it would have been refused by now."""
    pace, probe_at_ms = limit.pace, usage.probe_started_at_ms
    at_ms = None if probe_at_ms is None else verified_at_ms(pace, probe_at_ms)
    if at_ms is None or now_ms < at_ms:
        return limit
    pace = opened(pace, limit.quota, accepted(conn, limit, now_ms), now_ms)
    return limit._replace(pace=pace)


def _refusal(conn: sqlite3.Connection, limit: Limit, ended: Ended, count: int) -> Refusal:
    now_ms, window_ms = ended.finished_at_ms, limit.quota.window_ms
    first = first_start(conn, limit.id, now_ms - window_ms)
    return Refusal(
        started_at_ms=ended.started_at_ms,
        finished_at_ms=now_ms,
        reason=ended.reason,
        retry_after_ms=ended.retry_after_ms,
        daily=ended.daily,
        accepted=count,
        window_free_at_ms=(first.at_ms if first else now_ms) + window_ms + 1,
    )
