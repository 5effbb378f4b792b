"""The limiter: from integers to how many calls may start, and when to look again.

Rule: pure and stateless. All that it knows is counted from the rows of the ledger at this moment,
so it holds over restarts and over every process on the file.

The window is exact. What a server counts is arrivals, and an attempt arrives somewhere between its
start and its end. So it keeps its place in the window until 60 s after its end, or 60 s after its
start + a guard if that is earlier: whenever it did arrive, its place was not given away before the
server's own 60 s had passed.
"""

from typing import NamedTuple

WINDOW_MS = 60_000


class Outlook(NamedTuple):
    """What the ledger shows of one limit at one moment."""

    concurrency: int
    in_flight: int
    probes: int
    """Those of them that started after the gate closed."""
    per_minute: int | None
    occupied: int
    """Places of the window that are taken."""
    place_free_at_ms: int | None
    """When the next of them is free again; None where the window is not full."""
    paused: bool
    gate_opens_at_ms: int
    gate_strikes: int
    next_due_at_ms: int | None
    """When the first request that waits for a later time is due."""


class Plan(NamedTuple):
    """How many calls may start now; what holds back more (None: nothing); when to look again."""

    room: int
    held_by: str | None
    wake_at_ms: int | None


def plan(outlook: Outlook, now_ms: int) -> Plan:
    """Decide how many calls may start at ``now_ms``.

    ``wake_at_ms`` is None where only an event can change the answer (a call ends, somebody
    resumes, a word is added).
    """
    if outlook.paused:
        return Plan(0, "paused", None)
    if now_ms < outlook.gate_opens_at_ms:
        return Plan(0, "gate", outlook.gate_opens_at_ms)
    room = outlook.concurrency - outlook.in_flight
    if room <= 0:
        return Plan(0, "concurrency", None)
    if outlook.gate_strikes > 0:
        room = min(room, 1 - outlook.probes)
        if room <= 0:
            return Plan(0, "gate", None)
    if outlook.per_minute is not None and outlook.per_minute - outlook.occupied < room:
        room = max(0, outlook.per_minute - outlook.occupied)
        return Plan(room, "per_minute", outlook.place_free_at_ms)
    return Plan(room, None, outlook.next_due_at_ms)


def place_until_ms(started_at_ms: int, finished_at_ms: int | None, guard_ms: int) -> int:
    """Return the last millisecond at which an attempt holds its place in the window."""
    arrived_by_ms = started_at_ms + guard_ms
    if finished_at_ms is not None:
        arrived_by_ms = min(arrived_by_ms, finished_at_ms)
    return arrived_by_ms + WINDOW_MS
