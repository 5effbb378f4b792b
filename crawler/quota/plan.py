"""How many calls may start, and when to look again: each idea says it, and the least counts."""

from typing import NamedTuple

from crawler.quota import concurrency, gate, rate, tokens, window
from crawler.quota.state import Quota, State


class Usage(NamedTuple):
    """What the ledger shows of one limit at one moment."""

    in_flight: int = 0
    occupied: int = 0  # Places of the window that are taken
    place_free_at_ms: int | None = None
    probe_started_at_ms: int | None = None  # When the first call in flight started that is a probe
    refusal_ms: int = 0  # How long the newest refusal took to come
    served: int = 0  # Calls that were answered, ever
    newest_ms: int = 0  # When the newest call started
    next_due_at_ms: int | None = None  # When the first request that waits is due


class Plan(NamedTuple):
    """How many calls may start; what holds back more; when to look again (None: at an event)."""

    room: int
    held_by: str | None
    wake_at_ms: int | None
    tokens: int | None = None  # How many these calls may use, but for the last; None: any number


def plan(s: State, q: Quota, u: Usage, now_ms: int) -> Plan:
    """Decide how many calls may start at ``now_ms``."""
    if now_ms < s.gate_opens_at_ms:
        return Plan(0, "gate", s.gate_opens_at_ms)
    if s.gate_cause is not None and u.probe_started_at_ms is not None:
        return Plan(0, "gate", gate.verified_at_ms(s, u.probe_started_at_ms, u.refusal_ms))
    free = tokens.free_tokens(s, q, now_ms)
    least = min(_plans(s, q, u, now_ms), key=lambda plan: plan.room)
    if least.room > 0 and free == 0:
        return Plan(0, "tokens_per_minute", tokens.next_tokens_ms(s))
    if least.room > 0 and s.gate_cause is not None:
        least = Plan(1, "gate", None)
    return least._replace(room=max(0, least.room), tokens=free)


def _plans(s: State, q: Quota, u: Usage, now_ms: int) -> list[Plan]:
    plans = [Plan(concurrency.at_once(s, q) - u.in_flight, "concurrency", u.next_due_at_ms)]
    if s.rate is None and q.adaptive:  # nothing is known: twice as many with each answer
        plans.append(Plan(max(concurrency.WIDTH, u.served) - u.in_flight, "pace", None))
    cap = window.window_cap(s, q)
    if cap is not None:
        plans.append(Plan(cap - u.occupied, "per_minute", u.place_free_at_ms))
    step_ms = window.slow_step_ms(s, q, u.served, u.occupied)
    if step_ms:
        free = (now_ms - u.newest_ms) // step_ms
        plans.append(Plan(free, "pace", (now_ms if free else u.newest_ms) + step_ms))
    if s.tat_us is not None and s.gate_cause is None:
        free, next_ms = rate.free_starts(s, q, now_ms)
        plans.append(Plan(free, "pace", next_ms))
    return plans
