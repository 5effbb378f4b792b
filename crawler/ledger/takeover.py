"""The limit of a prompt for which nobody has named one, and what it takes over.

Rule: a new limit is no way around what a person has set for the one before it.
"""

import sqlite3
from collections.abc import Iterator

from crawler.ledger import control
from crawler.ledger.clocks import file_ms
from crawler.ledger.intake import PromptSpec, current_prompt, default_limit
from crawler.ledger.limits import Change, Limit, limits, note, put_limit


def put_default_limit(conn: sqlite3.Connection, spec: PromptSpec, concurrency: int | None) -> int:
    """Return the id of a prompt's limit where nobody has named one; make it where it is missing.

    A new one has for each setting what a person has set for the limit that the prompt has had so
    far, and is paused if that is. The concurrency is taken over from the same provider alone: it
    is what a machine, or a server, can do.

    Args:
        conn: the ledger; the prompt's new version is not on record yet.
        spec: what the prompt is to be.
        concurrency: the usual one of its provider.

    """
    name = default_limit(conn, spec)
    limit_id = put_limit(conn, name, concurrency)
    old = current_prompt(conn, spec.name)
    known = limits(conn, 0)
    # A function is a service of its own; and a limit that was at work is as it was set.
    if old is None or spec.provider == "function" or known[limit_id].started:
        return limit_id
    if _has_had(conn, spec.name, limit_id):
        return limit_id
    before = next(limit for limit in known.values() if limit.name == old.limit)
    same_service = old.provider == spec.provider
    now_ms = file_ms(conn)
    taken = list(_take_over(conn, known[limit_id], before, now_ms, same_service=same_service))
    if taken:
        why = f"taken over from {before.name}: {', '.join(taken)}"
        note(conn, limit_id, [Change("set", None, None, why)], now_ms)
    return limit_id


def _has_had(conn: sqlite3.Connection, prompt: str, limit_id: int) -> bool:
    found = conn.execute(
        "SELECT 1 FROM prompts WHERE name = ? AND limit_id = ?", (prompt, limit_id)
    ).fetchone()
    return found is not None


def _take_over(
    conn: sqlite3.Connection, limit: Limit, before: Limit, now_ms: int, *, same_service: bool
) -> Iterator[str]:
    """Set for a limit what a person has set for another one; tell each setting.

    Of two numbers the lower one counts: another prompt may have brought its own.
    """
    name, quota = limit.name, before.quota
    if _is_lower(before.per_minute, limit.per_minute):
        control.set_per_minute(conn, name, before.per_minute, now_ms)
        yield "per_minute"
    if _is_lower(before.tokens_per_minute, limit.tokens_per_minute):
        control.set_tokens_per_minute(conn, name, before.tokens_per_minute, now_ms)
        yield "tokens_per_minute"
    if limit.quota.adaptive and not quota.adaptive:
        control.set_adaptive(conn, name, now_ms, adaptive=False)
        yield "adaptive"
    if same_service and _is_lower(quota.concurrency, limit.quota.concurrency):
        control.set_concurrency(conn, name, quota.concurrency)
        yield "concurrency"
    if before.is_paused(now_ms) and not limit.is_paused(now_ms):
        control.pause(conn, name, now_ms, before.paused_until_ms)
        yield "pause"


def _is_lower(number: int | None, other: int | None) -> bool:
    return number is not None and (other is None or number < other)
