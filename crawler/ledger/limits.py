"""The limits: what they are set to, what they have learned, and the record of each change.

They are enforced in a turn: `window.usage` counts the rows, `quota.plan.plan` says how many calls
may start, and `turn` leases no more than that.

Rule: a limit is read once in a transaction, changed in memory, and written once. Whatever changes
a rate or a gate leaves a row that says when and why.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crawler.errors import require_name
from crawler.quota.pace import Pace, Quota

RATE_STEP = 1.05
"""A rate that grows by this factor is worth a row."""


class Limit(NamedTuple):
    """A row of ``limits``."""

    id: int
    name: str
    concurrency: int
    quota: Quota
    paused_at_ms: int | None
    paused_until_ms: int | None
    started: int
    """Attempts that have started under it, ever."""
    pace: Pace

    def is_paused(self, now_ms: int) -> bool:
        """Tell whether somebody has paused it."""
        ended = self.paused_until_ms is not None and self.paused_until_ms <= now_ms
        return self.paused_at_ms is not None and not ended


_LIMIT = "id, name, concurrency, per_minute, tokens_per_minute, adaptive, paused_at_ms,"
_COLUMNS = f"{_LIMIT} paused_until_ms, started, {', '.join(Pace._fields)}"
_PACE_AT = 9
_FLAGS = [Pace._fields.index(name) for name in ("bursting", "doubling", "young")]


def limits(conn: sqlite3.Connection, guard_ms: int) -> dict[int, Limit]:
    """Return every limit by its id, as calls that need up to ``guard_ms`` to arrive have it."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM limits ORDER BY id")
    return {row[0]: _limit(row, guard_ms) for row in rows}


def _limit(row: Sequence[Any], guard_ms: int) -> Limit:
    limit_id, name, concurrency, per_minute, tokens, adaptive = row[:6]
    paused_at_ms, paused_until_ms, started = row[6:_PACE_AT]
    learned = list(row[_PACE_AT:])
    for flag in _FLAGS:
        learned[flag] = learned[flag] == 1
    return Limit(
        id=limit_id,
        name=name,
        concurrency=concurrency,
        quota=Quota(per_minute, tokens, adaptive == 1, guard_ms),
        paused_at_ms=paused_at_ms,
        paused_until_ms=paused_until_ms,
        started=started,
        pace=Pace._make(learned),
    )


def put_limit(conn: sqlite3.Connection, name: str, concurrency: int) -> int:
    """Return the id of a limit; a new one gets the given concurrency. Raises CrawlerError."""
    require_name(name)
    conn.execute(
        "INSERT INTO limits (name, concurrency) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (name, concurrency),
    )
    (limit_id,) = conn.execute("SELECT id FROM limits WHERE name = ?", (name,)).fetchone()
    assert isinstance(limit_id, int)
    return limit_id


def limit_names(conn: sqlite3.Connection) -> list[str]:
    """Return the names of the limits."""
    return [name for (name,) in conn.execute("SELECT name FROM limits ORDER BY id")]


def meant_limits(conn: sqlite3.Connection, name: str | None) -> list[str]:
    """Return the names of the limits that a person means; none where there is no such limit.

    None means all of them, the name of a provider all of its own (``openai``, ``openai/MODEL``),
    any other name the one that has it.
    """
    names = limit_names(conn)
    if name is None:
        return names
    is_provider = conn.execute("SELECT 1 FROM prompts WHERE provider = ? LIMIT 1", (name,))
    prefix = f"{name}/" if is_provider.fetchone() else None
    return [one for one in names if one == name or (prefix and one.startswith(prefix))]


def save(
    conn: sqlite3.Connection, before: Mapping[int, Limit], after: Mapping[int, Limit], now_ms: int
) -> None:
    """Write down what has changed of the limits, and a row for each change that matters."""
    for limit_id, limit in after.items():
        old = before[limit_id]
        if limit == old:
            continue
        write(conn, limit)
        note(conn, limit_id, _changes(old.pace, limit.pace), now_ms)


def write(conn: sqlite3.Connection, limit: Limit) -> None:
    """Write down what a limit has learned, and where its gate stands."""
    conn.execute(_WRITE, (limit.started, *limit.pace, limit.id))


_WRITE = (
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
