"""What ends and starts of attempts teach their limits, and the record of it.

Rule: paces are read once in a transaction, changed in memory, and written once. Whatever changes a
rate or a gate leaves a row that says when and why.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crawler.ledger.look import Limit, accepted, first_start
from crawler.policy import is_out_of_order
from crawler.quota.learning import Refusal, answered, failed, opened, refused, verified_at_ms
from crawler.quota.pace import Pace
from crawler.quota.plan import Outlook
from crawler.states import OPENS_GATE, Outcome

RATE_STEP = 1.05
"""A rate that grows by this factor is worth a row."""


class Ended(NamedTuple):
    """The end of a call, as far as it tells of its limit."""

    outcome: Outcome
    started_at_ms: int
    finished_at_ms: int
    reason: str
    retry_after_ms: int | None
    daily: bool
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


def tried(conn: sqlite3.Connection, limit: Limit, outlook: Outlook, now_ms: int) -> Limit:
    """Return the limit, its gate open if the call that tries it would have been refused by now."""
    pace, probe_at_ms = limit.pace, outlook.probe_started_at_ms
    at_ms = None if probe_at_ms is None else verified_at_ms(pace, probe_at_ms)
    if at_ms is None or now_ms < at_ms:
        return limit
    pace = opened(pace, limit.quota, accepted(conn, limit, now_ms), now_ms)
    return limit._replace(pace=pace)


def save(
    conn: sqlite3.Connection, before: Mapping[int, Limit], after: Mapping[int, Limit], now_ms: int
) -> None:
    """Write down what has changed of the limits, and a row for each change that matters."""
    for limit_id, limit in after.items():
        old = before[limit_id]
        if limit == old:
            continue
        conn.execute(_SAVE, (limit.started, *limit.pace, limit_id))
        note(conn, limit_id, _changes(old.pace, limit.pace), now_ms)


_SAVE = (
    "UPDATE limits SET started = ?, "
    + ", ".join(f"{name} = ?" for name in Pace._fields)
    + " WHERE id = ?"
)


class Change(NamedTuple):
    """A change of a limit: what, the rate from here on, until when, why."""

    what: str
    rate: float | None
    until_ms: int | None
    why: str | None


def note(conn: sqlite3.Connection, limit_id: int, changes: Sequence[Change], now_ms: int) -> None:
    """Put changes of a limit on record."""
    conn.executemany(
        "INSERT INTO limit_changes (limit_id, at_ms, what, rate, until_ms, why, started)"
        " SELECT ?, ?, ?, ?, ?, ?, started FROM limits WHERE id = ?1",
        [(limit_id, now_ms, *change) for change in changes],
    )


def _changes(old: Pace, new: Pace) -> list[Change]:
    changes = []
    rate = new.rate if not new.bursting else None
    if new.gate_cause and new.gate_closed_at_ms != old.gate_closed_at_ms:
        why = f"{new.gate_cause}: {new.gate_reason}"
        changes.append(Change("gate_closed", rate, new.gate_opens_at_ms, why))
    if old.gate_cause and not new.gate_cause:
        changes.append(Change("gate_opened", rate, None, f"{old.gate_cause}: it serves again"))
    if _step(old.rate) > _step(new.rate):
        changes.append(Change("rate_lowered", new.rate, None, new.gate_reason or old.gate_reason))
    elif _step(old.rate) < _step(new.rate):
        why = "learned" if old.rate is None else "nothing was refused"
        changes.append(Change("rate_raised", new.rate, None, why))
    return changes


def _step(rate: float | None) -> int:
    """Return which step of a rate this is; those of one step differ by less than is noted."""
    return 0 if rate is None else math.floor(math.log(rate) / math.log(RATE_STEP)) + 1_000


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
