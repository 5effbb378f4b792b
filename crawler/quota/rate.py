"""Rate: what nobody tells is learned from refusals, as CUBIC does (RFC 9438): cut, back, beyond.

Theory: starts keep a distance (GCRA). Where the rate stands on the cubic curve says how old it is;
each start that was held back stands for its share of a minute. A cut is a hypothesis, that fewer
are refused at the lower rate. `noise` is the share at the rate `trial`; if a half of that (a
quarter on the curve) has it too, or it is `uneven`, it is chance, and cuts nothing until it grows.
"""

import math
from typing import NamedTuple

from crawler.quota import state
from crawler.quota.state import CHANCE, GAP_MS, SAMPLE, TURN_US, US, WINDOW_MS, Quota, State

CUT = 0.85  # The rate after a refusal, as a share of the one before it
REFUSAL_SHARE = 0.014  # Of all calls, how many may be refused for learning: so long is the way back
SHORTEST_MS, WINDOWED_MS = 18_000, 80_000  # The least; where a window was seen in ten minutes
FIRST_RATE, DOUBLING_MS = 60.0, 8_000  # Where an unknown rate begins; none grows faster


class Refusal(NamedTuple):
    """A call that was refused, and what the ledger counts at that moment, this one included."""

    started_at_ms: int
    finished_at_ms: int
    retry_after_ms: int | None = None
    daily: bool = False
    own: bool = False  # It is this request that is refused, and no other
    window_free_at_ms: int = 0  # When the first call of the window is a whole one ago
    sent: int = 0  # Ended calls since ``cut_at_ms`` (of a noisy server the newest), ...
    refused: int = 0  # ... and how many of them were refused
    in_flight: int = 0
    uneven: bool = False  # Refusals since the cut don't come as those of a quota do


def free_starts(s: State, q: Quota, now_ms: int) -> tuple[int, int]:
    """Return how many calls may start at this pace, and when the next may after them."""
    step_us, begin_us = _step_us(s), max(s.tat_us or 0, now_ms * US)
    spare_us = min(GAP_MS, q.guard_ms - GAP_MS) * US if q.per_minute else 0  # what the guard leaves
    ahead_us = max(TURN_US, spare_us) // step_us * step_us
    free = max(0, 1 + (now_ms * US + ahead_us - begin_us) // step_us)
    return free, -(-(begin_us + free * step_us - ahead_us) // US)


def _step_us(s: State) -> int:
    return math.ceil(WINDOW_MS * US / (s.rate or FIRST_RATE))


def started(s: State, q: Quota, calls: int, now_ms: int, *, held: bool) -> State:
    """Return the state after starts; ``held``: rate or window have held back others."""
    if s.tat_us is not None:
        s = s._replace(tat_us=max(s.tat_us, now_ms * US) + calls * _step_us(s))
    if held and s.gate_cause is None and q.adaptive and s.rate is not None:
        grown = _grown(s, q, s.rate, calls * WINDOW_MS / s.rate, now_ms)
        s = s._replace(rate=min(q.ceiling, grown))
    return s


def _grown(s: State, q: Quota, rate: float, passed_ms: float, now_ms: int) -> float:
    """Return the rate after it has held for so long: from where it stands on the curve."""
    doubled = rate * 2 ** (passed_ms / DOUBLING_MS)
    if not s.plateau:
        return doubled
    least_ms = WINDOWED_MS if now_ms - s.window_seen_at_ms < 10 * WINDOW_MS else SHORTEST_MS
    cost = 1.2 if q.per_minute else 1.6  # refusals of an episode, as they were counted
    period_ms = min(4 * WINDOW_MS, max(least_ms, cost / (REFUSAL_SHARE * s.plateau) * WINDOW_MS))
    way = math.cbrt((rate / s.plateau - 1) / (1 - CUT)) + passed_ms / period_ms
    return min(max(rate, s.plateau * (1 + (1 - CUT) * way**3)), doubled)


def is_noisy(s: State) -> bool:
    """Tell whether it is believed that some calls are refused at any rate."""
    return s.noise > 0 and not s.trial


def by_chance(s: State, r: Refusal) -> bool:
    """Tell whether the server refuses no more than it does at any rate."""
    few = r.refused <= s.noise * r.sent or state.surprise(r.refused, r.sent, s.noise) < CHANCE
    return few and is_noisy(s) and not r.daily


def is_untried(s: State) -> bool:
    """Tell whether a rate that nobody told is still about what it was when it was first refused."""
    return s.trial > 0 and not s.noise and not s.plateau and s.tat_us is not None


def is_tested(s: State) -> bool:
    """Tell whether a rate that nobody told is far below the one that was refused."""
    return s.noise > 0 and not s.plateau and (s.rate or FIRST_RATE) <= s.trial / 1.25


def judged(s: State, q: Quota, r: Refusal) -> State:
    """Return the state with its rate cut, or free where a much lower one was of no use."""
    now_ms, share, rate = r.finished_at_ms, r.refused / r.sent, s.rate or FIRST_RATE
    free = s._replace(rate=None, tat_us=None, plateau=0.0, noise=max(share, s.noise), trial=0.0)
    if is_untried(s):
        return free if r.uneven else s
    far = 2.0 if q.per_minute else 4.0 if s.plateau else 1.25  # what was measured is no guess
    if s.trial and rate <= s.trial / far:
        if state.surprise(r.refused, r.sent, s.noise) < CHANCE / 2:  # no fewer, nor more
            if r.refused > 1 and r.sent >= SAMPLE / 2:
                return free
            return s._replace(rate=max(FIRST_RATE, s.trial / 4)) if is_tested(s) else s
        s = s._replace(noise=0.0, trial=0.0)
    elif rate >= s.trial:
        s = s._replace(noise=share, trial=rate)
    if r.sent < (SAMPLE if s.plateau else SAMPLE / 2):
        return s  # too soon after the last cut
    plateau = rate if s.plateau else 0.7 * rate
    if rate < 0.97 * s.plateau:
        kept = 1.0 if q.per_minute else min(1.0, r.sent * REFUSAL_SHARE)
        plateau += kept / 2 * (s.plateau - rate)
    return settled(s, q, plateau, now_ms)


def settled(s: State, q: Quota, plateau: float, now_ms: int, share: float = CUT) -> State:
    """Begin anew at a share of a rate that is believed to be right."""
    plateau = max(plateau, 1.2)
    return s._replace(plateau=plateau, rate=min(q.ceiling, share * plateau), cut_at_ms=now_ms)
