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

from crawler.errors import count_of, require_name
from crawler.protocol import Told
from crawler.quota.rate import is_noisy
from crawler.quota.state import US, WINDOW_MS, Quota, State

RATE_STEP = 1.05
"""A rate that grows by this factor is worth a row."""


class Limit(NamedTuple):
    """A row of ``limits``."""

    id: int
    name: str
    per_minute: int | None
    """What somebody has set; what counts is in ``quota``."""
    tokens_per_minute: int | None
    told_per_minute: int | None
    """What the server has told."""
    told_tokens_per_minute: int | None
    paused_at_ms: int | None
    paused_until_ms: int | None
    started: int
    """Attempts that have started under it, ever."""
    gate_reason: str | None
    """What the refusal or failure has said that closed its gate."""
    quota: Quota
    state: State

    def is_paused(self, now_ms: int) -> bool:
        """Tell whether somebody has paused it."""
        ended = self.paused_until_ms is not None and self.paused_until_ms <= now_ms
        return self.paused_at_ms is not None and not ended


_LIMIT = "id, name, per_minute, tokens_per_minute, told_per_minute, told_tokens_per_minute,"
_OWN = f"{_LIMIT} paused_at_ms, paused_until_ms, started, gate_reason"
_COLUMNS = f"{_OWN}, concurrency, adaptive, {', '.join(State._fields)}"
_STATE_AT = 12


def limits(conn: sqlite3.Connection, guard_ms: int) -> dict[int, Limit]:
    """Return every limit by its id, as calls that need up to ``guard_ms`` to arrive have it."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM limits ORDER BY id")
    return {row[0]: _limit(row, guard_ms) for row in rows}


def _limit(row: Sequence[Any], guard_ms: int) -> Limit:
    concurrency, adaptive = row[_STATE_AT - 2 : _STATE_AT]
    quota = Quota(None, None, adaptive == 1, guard_ms, concurrency)
    return in_force(Limit._make((*row[: _STATE_AT - 2], quota, State._make(row[_STATE_AT:]))))


def in_force(limit: Limit) -> Limit:
    """Return a limit with the quota that counts: the lower of what was set and what was told.

    Where it is to be kept as it is set, whatever the server says, that is what was set.
    """
    per_minute, tokens = limit.per_minute, limit.tokens_per_minute
    if limit.quota.adaptive:
        per_minute = _lower(per_minute, limit.told_per_minute)
        tokens = _lower(tokens, limit.told_tokens_per_minute)
    return limit._replace(
        quota=limit.quota._replace(per_minute=per_minute, tokens_per_minute=tokens)
    )


def _lower(one: int | None, other: int | None) -> int | None:
    return min((n for n in (one, other) if n is not None), default=None)


def forgotten(state: State, now_ms: int) -> State:
    """Return a state that has learned nothing, with the gate, the width and the tokens in use."""
    return state._replace(
        rate=None,
        plateau=0.0,
        tat_us=None,
        noise=0.0,
        trial=0.0,
        gate_opens_at_ms=0,
        tokens_tat_us=min(state.tokens_tat_us, (now_ms + WINDOW_MS) * US),
    )


def told(conn: sqlite3.Connection, limit: Limit, quotas: Sequence[Told], now_ms: int) -> Limit:
    """Return a limit with what its server tells: known as if somebody had set it.

    What was learned of another quota is forgotten. A limit whose window is not known is none. Where
    several models share a limit, each may be told another quota: the lowest of all counts.
    """
    found = {quota.what: quota.limit for quota in quotas if quota.per == "minute"}
    per_minute = found.get("requests", limit.told_per_minute)
    tokens = found.get("tokens", limit.told_tokens_per_minute)
    before = limit.told_per_minute, limit.told_tokens_per_minute
    if (per_minute, tokens) != before and _is_shared(conn, limit.id):
        per_minute, tokens = map(_lower, (per_minute, tokens), before)
    if (per_minute, tokens) == before:
        return limit
    after = in_force(limit._replace(told_per_minute=per_minute, told_tokens_per_minute=tokens))
    if after.quota == limit.quota:
        return after
    opens_at_ms = limit.state.gate_opens_at_ms
    state = forgotten(limit.state, now_ms)._replace(gate_opens_at_ms=opens_at_ms)
    return after._replace(state=state)


def _is_shared(conn: sqlite3.Connection, limit_id: int) -> bool:
    """Tell whether several models are asked under a limit."""
    (models,) = conn.execute(
        "SELECT count(*) FROM (SELECT DISTINCT provider, model FROM prompts"
        " WHERE limit_id = ? AND current = 1)",
        (limit_id,),
    ).fetchone()
    return int(models) > 1


def put_limit(conn: sqlite3.Connection, name: str, concurrency: int | None) -> int:
    """Return the id of a limit; a new one gets the given concurrency (None: it finds itself).

    Raises CrawlerError for a name that is none.
    """
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
        note(conn, limit_id, _changes(old, limit), now_ms)


def write(conn: sqlite3.Connection, limit: Limit) -> None:
    """Write down what a limit has learned, and where its gate stands."""
    own = limit.started, limit.gate_reason, limit.told_per_minute, limit.told_tokens_per_minute
    conn.execute(_WRITE, (*own, *limit.state, limit.id))


_WRITE = (
    "UPDATE limits SET started = ?, gate_reason = ?, told_per_minute = ?,"
    " told_tokens_per_minute = ?, "
    + ", ".join(f"{name} = ?" for name in State._fields)
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


def _changes(before: Limit, after: Limit) -> list[Change]:
    """Return what has changed of a limit that matters, and why."""
    old, new = before.state, after.state
    changes = _told_changes(before, after)
    rate = new.rate if new.tat_us is not None else None
    if new.gate_cause and new.gate_closed_at_ms != old.gate_closed_at_ms:
        why = f"{new.gate_cause}: {after.gate_reason}"
        changes.append(Change("gate_closed", rate, new.gate_opens_at_ms, why))
    if old.gate_cause and not new.gate_cause:
        changes.append(Change("gate_opened", rate, None, f"{old.gate_cause}: it serves again"))
    if new.rate is not None and _step(old.rate) != _step(new.rate):
        reason = after.gate_reason or before.gate_reason
        changes.append(Change(*_rate_change(old, new, reason)))
    if int(old.width) != int(new.width):
        changes.append(_width_change(old, new, after.gate_reason))
    return changes


def _told_changes(before: Limit, after: Limit) -> list[Change]:
    changes = []
    if after.told_per_minute not in (None, before.told_per_minute):
        count = after.told_per_minute
        changes.append(
            Change("told", count, None, f"the server allows {count_of(count, 'request')} a minute")
        )
    if after.told_tokens_per_minute not in (None, before.told_tokens_per_minute):
        count = after.told_tokens_per_minute
        changes.append(
            Change("told", None, None, f"the server allows {count_of(count, 'token')} a minute")
        )
    return changes


def _rate_change(old: State, new: State, reason: str | None) -> tuple[str, float | None, None, str]:
    """Return what the change of a rate is, and why."""
    if old.rate is None:
        if new.tat_us is None:
            return "rate_learned", new.rate, None, f"a minute has let in so many, then: {reason}"
        return "rate_learned", new.rate, None, f"no whole window starts at once here: {reason}"
    if is_noisy(new) and not is_noisy(old):
        why = f"{new.noise:.0%} are refused, and a lower rate had as many"
        return "rate_raised", new.rate, None, why
    if _step(old.rate) < _step(new.rate):
        why = "no more were refused than at any rate" if is_noisy(new) else "nothing was refused"
        return "rate_raised", new.rate, None, why
    more = ": more than at any rate" if is_noisy(old) else ""
    return "rate_lowered", new.rate, None, f"{reason}{more}"


def _width_change(old: State, new: State, reason: str | None) -> Change:
    """Return what the change of the calls at once is, and why."""
    what = "concurrency_raised" if new.width > old.width else "concurrency_lowered"
    if new.gate_cause and not new.speed:
        why = f"refused with so many in flight: {reason}"
    elif new.width > old.width:
        why = f"{abs(new.speed):.3g} answers a minute"
        why += f" after {abs(old.speed):.3g}" if old.speed else ""
    else:
        why = (
            f"{abs(new.speed):.3g} answers a minute after {abs(old.speed):.3g}: no worse with fewer"
        )
    return Change(what, None, None, f"{int(new.width)} at once: {why}")


def _step(rate: float | None) -> int:
    """Return which step of a rate this is; those of one step differ by less than is noted."""
    return 0 if rate is None else math.floor(math.log(rate) / math.log(RATE_STEP)) + 1_000
