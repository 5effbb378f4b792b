"""What a limit has learned of its quota, and how many calls it lets start for that.

Rule: pure. A `Pace` is a row of numbers that outlives the process; what it learns is in
`learning.py`. Rates are calls a minute, times are ms (the theoretical arrival times: us, so that
none is lost to rounding at 60,000 a minute).

It begins optimistic: a whole window at once, until a refusal teaches better. From then on starts
keep a distance (GCRA: one number, the theoretical arrival time of the next), and the rate grows as
that of CUBIC does in a network (RFC 9438): after a cut soon back to where it was, then beyond it
ever faster while nothing is refused. How long the way back takes follows from the share of refusals
that it may cost.
"""

import math
from typing import NamedTuple

WINDOW_MS = 60_000
US = 1_000
NEVER_MS = -1_000_000_000

BURST_SPREAD_US = 1_000_000
"""A whole window starts over this time, so that a first refusal is heard before all is out."""
CAREFUL_FROM, CAREFUL, CAREFUL_MOST_US = 2 / 3, 8, 100_000
"""From this share of the window on, starts of a burst are so much further apart (up to the time
that a refusal takes to come): a limit may be set somewhat too high, and then few are refused."""
RAMP_US, RAMP_MS = 50_000, 100
"""It begins with starts this far apart, and their rate doubles in so many ms: a server that is out
of order is not asked by a whole flight before it can say so."""
CATCH_UP_US = 300_000
"""Starts of this much time may be made up for at once; out of the guard, so it needs one."""
TURN_US = 50_000
"""The same where no quota is known: what the gaps between turns cost, and no more."""
FIRST_FLIGHT = 10
"""Calls to a server of which nothing is known that may be in flight before it has let one in."""
MOST_SERVED = 1_000
"""When so many were let in, any number may be in flight."""

CUT = 0.85
"""The rate after a refusal, as a share of that before it."""
REFUSAL_SHARE = 0.015
"""Of all calls, how many may be refused for the sake of learning."""
SHORTEST_MS, WINDOWED_MS, LONGEST_MS = 15_000, 80_000, 240_000
"""Bounds of the way back; the second is the least where a minute's window was seen lately."""
LATELY_MS = 600_000
HALFWAY = 0.5
"""A rate that was not refused halfway back to its plateau is no first guess any more."""
DOUBLING_MS = 8_000
STEEPEST_MS = 10_000
"""A rate grows by its own size in this time at the most."""


class Quota(NamedTuple):
    """What a limit is set to."""

    per_minute: int | None = None
    """Calls that may start in any minute; None: not known."""
    tokens_per_minute: int | None = None
    """Tokens, of prompts and answers, that may be used in a minute; None: any number."""
    adaptive: bool = True
    """Whether to learn from refusals."""
    guard_ms: int = 600
    """How much longer than the server's our minute is, for what calls need to get there."""

    @property
    def window_ms(self) -> int:
        """The minute in which no more than `per_minute` calls start."""
        return WINDOW_MS + self.guard_ms

    @property
    def ceiling(self) -> float:
        """The highest rate."""
        if self.per_minute is None:
            return float("inf")
        return self.per_minute * WINDOW_MS / self.window_ms


class Pace(NamedTuple):
    """What a limit has learned, and where its gate stands."""

    tat_us: int = 0
    """When the next start is due, at an even pace."""
    tokens_tat_us: int = 0
    """When all tokens that were taken so far have flowed in again."""
    rate: float | None = None
    """Calls a minute that are right now; None until a refusal has taught a rate."""
    plateau: float = 0.0
    """The rate that is believed to be right."""
    age_ms: int = 0
    """How long there have been starts at this pace since the last cut."""
    grown_at_ms: int = 0
    bursting: bool = True
    """A whole window may start at once."""
    burst_began_at_ms: int = 0
    burst_starts: int = 0
    served: int = 0
    """Calls that were let in, counted as long as it matters."""
    doubling: bool = False
    """Nothing is known of the rate but that it is too low."""
    young: bool = True
    """The plateau is a first guess."""
    starts_since_cut: int = 0
    """Since the last cut."""
    refusals_since_cut: int = 0
    """Likewise."""
    window_seen_at_ms: int = NEVER_MS
    """When a window was last found to be used up."""
    episode_cost: float = 1.5
    """Refusals an episode, smoothed."""
    episode_refusals: int = 1
    accepted: int = 0
    """The most that was accepted within a minute of this episode."""
    refusal_ms: float = 150.0
    """How long a refusal takes to come, smoothed."""
    failures: int = 0
    """In a row."""
    gate_cause: str | None = None
    """``quota``, ``day`` or ``outage``; None: the gate is open."""
    gate_reason: str | None = None
    gate_since_ms: int = 0
    """When it closed first."""
    gate_closed_at_ms: int = 0
    """When it closed last: a call that started later is a probe."""
    gate_opens_at_ms: int = 0
    gate_gap_ms: int = 0
    gate_strikes: int = 0
    """Refusals in a row, probes and the first."""


def window_cap(pace: Pace, quota: Quota) -> int | None:
    """Return how many calls may start in any window; None for any number."""
    if not pace.bursting or pace.rate is None:
        return quota.per_minute
    learned = max(1, int(pace.rate))
    return learned if quota.per_minute is None else min(learned, quota.per_minute)


def most_in_flight(pace: Pace, quota: Quota) -> int | None:
    """Return how many calls the pace lets be in flight; None for any number.

    Under a quota that nobody knows: as many as have been let in, which doubles with every answer
    that is awaited. So a first refusal finds few that share its fate.
    """
    unknown = quota.adaptive and quota.per_minute is None and pace.bursting
    if not unknown or pace.served >= MOST_SERVED:
        return None
    return max(FIRST_FLIGHT, pace.served)


def free_starts(pace: Pace, quota: Quota, now_ms: int) -> int | None:
    """Return how many calls the pace lets start now; None for any number."""
    interval_us = _interval_us(pace, quota, now_ms)
    if interval_us is None:
        return None
    ahead_us = max(0, pace.tat_us - now_ms * US)
    return max(0, _burst(pace, quota, interval_us) - -(-ahead_us // interval_us))


def next_start_ms(pace: Pace, quota: Quota, now_ms: int) -> int:
    """Return when the pace lets another call start, if all those start that it lets start now."""
    interval_us = _interval_us(pace, quota, now_ms)
    assert interval_us is not None
    burst = _burst(pace, quota, interval_us)
    calls = free_starts(pace, quota, now_ms) or 0
    tat_us = max(pace.tat_us, now_ms * US) + calls * interval_us if calls else pace.tat_us
    return -(-(tat_us - (burst - 1) * interval_us) // US)


def free_tokens(pace: Pace, quota: Quota, now_ms: int) -> int | None:
    """Return how many tokens may be used now; None for any number.

    The last call may use more than are left; then the next one waits so much longer. No burst is
    allowed beyond what the gaps between turns cost: on a server that counts the last minute,
    even a short one earns refusals.
    """
    if quota.tokens_per_minute is None:
        return None
    spare_us = now_ms * US + TURN_US - pace.tokens_tat_us
    return max(0, -(-min(spare_us, TURN_US) * quota.tokens_per_minute // (quota.window_ms * US)))


def next_tokens_ms(pace: Pace) -> int:
    """Return when there are tokens again."""
    return (pace.tokens_tat_us - TURN_US) // US + 1


def used_tokens(pace: Pace, quota: Quota, tokens: int, now_ms: int) -> Pace:
    """Return the pace after so many tokens were taken, or (below 0) turned out not to be used."""
    if quota.tokens_per_minute is None or not tokens:
        return pace
    lasts_us = tokens * quota.window_ms * US // quota.tokens_per_minute
    begin_us = max(pace.tokens_tat_us, now_ms * US) if tokens > 0 else pace.tokens_tat_us
    return pace._replace(tokens_tat_us=begin_us + lasts_us)


def _interval_us(pace: Pace, quota: Quota, now_ms: int) -> int | None:
    """Return the distance between starts; None where there is none."""
    if not pace.bursting:
        assert pace.rate is not None
        return math.ceil(WINDOW_MS * US / pace.rate)
    cap = window_cap(pace, quota)
    if cap is None or not quota.adaptive:
        return None
    if _is_idle(pace, now_ms):
        return RAMP_US
    ramp_us = RAMP_US * 2 ** ((pace.burst_began_at_ms - now_ms) / RAMP_MS)
    even_us = BURST_SPREAD_US / cap
    if pace.burst_starts >= CAREFUL_FROM * cap:
        even_us = max(even_us, min(even_us * CAREFUL, CAREFUL_MOST_US))
    return math.ceil(max(ramp_us, even_us))


def _is_idle(pace: Pace, now_ms: int) -> bool:
    """Tell whether the next start begins a burst."""
    return now_ms * US - pace.tat_us > BURST_SPREAD_US


def _burst(pace: Pace, quota: Quota, interval_us: int) -> int:
    """Return how many starts may follow each other at once."""
    spare_us = TURN_US
    if not pace.bursting and quota.per_minute is not None:
        spare_us = max(TURN_US, min(CATCH_UP_US, quota.guard_ms * US - CATCH_UP_US))
    return 1 + spare_us // interval_us


def started(pace: Pace, quota: Quota, calls: int, now_ms: int, *, held: bool) -> Pace:
    """Return the pace after calls have started; ``held``: it has held back others."""
    interval_us = _interval_us(pace, quota, now_ms)
    if interval_us is not None and _is_idle(pace, now_ms):
        pace = pace._replace(burst_began_at_ms=now_ms, burst_starts=0)
    if held and pace.gate_cause is None and quota.adaptive and pace.rate is not None:
        pace = _grown(pace, quota, now_ms)
    if interval_us is not None:
        tat_us = max(pace.tat_us, now_ms * US) + calls * interval_us
        pace = pace._replace(tat_us=tat_us, burst_starts=pace.burst_starts + calls)
    if pace.rate is None:
        return pace
    return pace._replace(starts_since_cut=pace.starts_since_cut + calls, grown_at_ms=now_ms)


def _grown(pace: Pace, quota: Quota, now_ms: int) -> Pace:
    """Let the rate grow for the time that it has held starts back."""
    assert pace.rate is not None
    passed_ms = min(quota.window_ms, now_ms - pace.grown_at_ms)
    if passed_ms <= 0:
        return pace
    age_ms = pace.age_ms + passed_ms
    young = pace.young
    if pace.doubling:
        rate = pace.rate * 2 ** (passed_ms / DOUBLING_MS)
    else:
        way = age_ms / _period_ms(pace, now_ms) - 1
        young = young and way <= -HALFWAY
        wanted = pace.plateau * (1 + (1 - CUT) * way**3)
        rate = min(max(pace.rate, wanted), pace.rate * (1 + passed_ms / STEEPEST_MS))
    return pace._replace(rate=min(rate, quota.ceiling), age_ms=age_ms, young=young)


def _period_ms(pace: Pace, now_ms: int) -> float:
    """Return how long the way back to the plateau takes."""
    least_ms = WINDOWED_MS if now_ms - pace.window_seen_at_ms < LATELY_MS else SHORTEST_MS
    affordable_ms = pace.episode_cost / (REFUSAL_SHARE * pace.plateau) * WINDOW_MS
    return min(LONGEST_MS, max(least_ms, affordable_ms))
