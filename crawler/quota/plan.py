"""The limiter: from numbers to how many calls may start, and when to look again.

Rule: pure and stateless. All that it knows comes from the rows of the ledger at this moment, so it
holds over restarts and over every process on the file.

The cap is exact: no more than `per_minute` starts in any minute, counted from the attempts. What a
server counts is arrivals, and those may be nearer to each other than the starts were. Therefore our
minute is longer than the server's by a guard.
"""

from typing import NamedTuple

from crawler.quota.learning import verified_at_ms
from crawler.quota.pace import (
    Pace,
    Quota,
    free_starts,
    free_tokens,
    most_in_flight,
    next_start_ms,
    next_tokens_ms,
    window_cap,
)


class Usage(NamedTuple):
    """What the ledger shows of one limit at one moment."""

    concurrency: int
    in_flight: int
    quota: Quota
    pace: Pace
    occupied: int
    """Places of the window that are taken."""
    place_free_at_ms: int | None
    """When the next of them is free again; None where the window is empty."""
    probe_started_at_ms: int | None
    """When the call started that tries whether the gate may open; None: there is none."""
    paused: bool
    paused_until_ms: int | None
    """When a pause ends by itself; None: when somebody ends it."""
    next_due_at_ms: int | None
    """When the first request that waits for a later time is due."""


class Plan(NamedTuple):
    """How many calls may start now; what holds back more (None: nothing); when to look again.

    The last two are true where that many calls do start. Where there is nothing more to be asked,
    nothing is held back.
    """

    room: int
    held_by: str | None
    wake_at_ms: int | None
    tokens: int | None = None
    """How many tokens these calls may use, but for the last of them; None: any number."""


def plan(usage: Usage, now_ms: int) -> Plan:
    """Decide how many calls may start at ``now_ms``.

    ``wake_at_ms`` is None where only an event can change the answer (a call ends, somebody
    resumes, a word is added). A gate that a probe has found open is opened before: see
    `learning.verified_at_ms`.
    """
    pace, quota = usage.pace, usage.quota
    if usage.paused:
        return Plan(0, "paused", usage.paused_until_ms)
    if now_ms < pace.gate_opens_at_ms:
        return Plan(0, "gate", pace.gate_opens_at_ms)
    room = usage.concurrency - usage.in_flight
    if room <= 0:
        return Plan(0, "concurrency", None)
    tokens = free_tokens(pace, quota, now_ms)
    if tokens == 0:
        return Plan(0, "tokens_per_minute", next_tokens_ms(pace))
    if pace.gate_cause is None:
        return _open_plan(usage, room, tokens, now_ms)
    if usage.probe_started_at_ms is not None:
        return Plan(0, "gate", verified_at_ms(pace, usage.probe_started_at_ms))
    if quota.per_minute is not None and usage.occupied >= quota.per_minute:
        return Plan(0, "per_minute", usage.place_free_at_ms)
    return Plan(1, "gate", None, tokens)


def _open_plan(usage: Usage, room: int, tokens: int | None, now_ms: int) -> Plan:
    """Decide how many of ``room`` calls may start while the gate is open."""
    pace, quota = usage.pace, usage.quota
    held_by, wake_at_ms = None, usage.next_due_at_ms
    most = most_in_flight(pace, quota)
    if most is not None and most - usage.in_flight < room:
        room = max(0, most - usage.in_flight)
        held_by, wake_at_ms = "pace", None
    cap = window_cap(pace, quota)
    if cap is not None and cap - usage.occupied < room:
        room = max(0, cap - usage.occupied)
        held_by, wake_at_ms = "per_minute", usage.place_free_at_ms
    free = free_starts(pace, quota, now_ms)
    if free is not None and free < room:
        room, held_by, wake_at_ms = free, "pace", next_start_ms(pace, quota, now_ms)
    return Plan(room, held_by, wake_at_ms, tokens)
