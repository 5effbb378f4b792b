"""What a limit has learned of its quota, and how it learns it: the pace of starts, and the gate.

Rule: pure. A `Pace` is a row of numbers that outlives the process; each function takes one and
gives the next. Rates are calls a minute, times are ms (of the pace: us, so that none is lost to
rounding at 60,000 a minute).

It begins optimistic: a whole window at once, until a refusal teaches better. One refusal closes the
gate for everybody, and a single probe opens it again. If the probes found the whole window used up,
what the server accepted in it is its quota. If the first was let in, the server takes no such
bursts: from then on starts keep a distance (GCRA: one number, the theoretical arrival time of the
next), and the rate follows the server as CUBIC follows a network: cut at a refusal, soon back to
where it was, then beyond it ever faster while nothing is refused. How long the way back takes
follows from the share of refusals that it may cost.
"""

import math
from typing import NamedTuple

WINDOW_MS = 60_000
US = 1_000
NEVER_MS = -1_000_000_000

BURST_SPREAD_US = 1_000_000
"""A whole window starts over this time, so that a first refusal is heard before all is out."""
CAREFUL_FROM, CAREFUL = 2 / 3, 8
"""From this share of the window on, starts of a burst are so much further apart: a limit may be set
somewhat too high, and then few are refused."""
RAMP_US, RAMP_MS = 50_000, 100
"""It begins with starts this far apart, and their rate doubles in so many ms: a server that is out
of order is not asked by a whole flight before it can say so."""
CATCH_UP_US = 300_000
"""Starts of this much time may be made up for at once; out of the guard, so it needs one."""
TURN_US = 50_000
"""The same where no quota is known: what the gaps between turns cost, and no more."""

FIRST_FLIGHT = 10
"""Calls to a server of which nothing is known that may be in flight before it has let one in."""
MOST_SERVED = 10_000

CUT = 0.85
"""The rate after a refusal, as a share of that before it."""
REFUSAL_SHARE = 0.015
"""Of all calls, how many may be refused for the sake of learning."""
SHORTEST_MS, WINDOWED_MS, LONGEST_MS = 15_000, 80_000, 240_000
"""Bounds of the way back; the second is the least where a minute's window was seen lately."""
LATELY_MS = 600_000
ECHO_MS = 65_000
"""For so long a used-up window echoes what has filled it: refusals then say nothing new."""
SAMPLE = 12
"""Starts since the last cut that it takes to say something new."""
HALFWAY = 0.5
"""A rate that was not refused halfway back to its plateau is no first guess any more."""
KEPT = 0.5
"""Where a refusal comes below the plateau, this share of the way back up is kept."""
FIRST_RATE = 60.0
"""Where to begin to double, when hardly anything was accepted before the first refusal."""
DOUBLING_MS = 8_000
IDLE_MS = 1_000
"""A start so long after it was due was not held back by the pace."""
FEWEST = 1.2
"""The lowest rate: one call in 50 s."""

FIRST_GAP_MS, FIRST_GAP_MOST_MS, MOST_GAP_MS = 300, 6_000, 12_000
GAP_STARTS = 4
"""The first pause lasts as long as this many starts."""
USED_UP = 4
"""Refused probes in a row that show a window to be used up."""
OUTAGE_AFTER = 5
"""Failures in a row that show the server to be out of order."""
OUTAGE_GAP_MS, OUTAGE_MOST_MS, OUTAGE_GROWTH = 2_000, 10_000, 1.5
PARKED_AFTER_MS = 3_600_000
"""A quota that refuses for so long is gone for the day."""
PARKED_GAP_MS = 900_000


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
    floor: float = 0.0
    """The rate is not cut below this before `floor_until_ms`."""
    floor_until_ms: int = 0
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


class Refusal(NamedTuple):
    """A call that the quota refused."""

    started_at_ms: int
    finished_at_ms: int
    reason: str
    retry_after_ms: int | None
    """When the server says to come back."""
    daily: bool
    accepted: int
    """Calls of the last minute that were not refused."""
    window_free_at_ms: int
    """When the first of them is a whole window ago."""


# -- how many may start -----------------------------------------------------------------------


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


def verified_at_ms(pace: Pace, probe_started_at_ms: int) -> int | None:
    """Return when a probe that was not refused has been let in; None: when it is answered."""
    if pace.gate_cause != "quota":
        return None
    return probe_started_at_ms + int(2 * pace.refusal_ms) + 50


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
    slower = CAREFUL if pace.burst_starts >= CAREFUL_FROM * cap else 1
    return math.ceil(max(ramp_us, BURST_SPREAD_US / cap * slower))


def _is_idle(pace: Pace, now_ms: int) -> bool:
    """Tell whether the next start begins a burst."""
    return now_ms * US - pace.tat_us > BURST_SPREAD_US


def _burst(pace: Pace, quota: Quota, interval_us: int) -> int:
    """Return how many starts may follow each other at once."""
    spare_us = TURN_US
    if not pace.bursting and quota.per_minute is not None:
        spare_us = max(TURN_US, min(CATCH_UP_US, quota.guard_ms * US - CATCH_UP_US))
    return 1 + spare_us // interval_us


# -- what starts, answers, failures and refusals teach ------------------------------------------


def started(pace: Pace, quota: Quota, calls: int, now_ms: int) -> Pace:
    """Return the pace after calls have started."""
    interval_us = _interval_us(pace, quota, now_ms)
    if _is_idle(pace, now_ms):
        pace = pace._replace(burst_began_at_ms=now_ms, burst_starts=0)
    if pace.gate_cause is None and quota.adaptive and pace.rate is not None:
        pace = _grown(pace, quota, now_ms)
    if interval_us is not None:
        tat_us = max(pace.tat_us, now_ms * US) + calls * interval_us
        pace = pace._replace(tat_us=tat_us, burst_starts=pace.burst_starts + calls)
    if pace.rate is None:
        return pace
    return pace._replace(starts_since_cut=pace.starts_since_cut + calls, grown_at_ms=now_ms)


def _grown(pace: Pace, quota: Quota, now_ms: int) -> Pace:
    """Let the rate grow for the time that the pace has held starts back."""
    assert pace.rate is not None
    longest_ms = quota.window_ms if pace.bursting else 10_000
    passed_ms = min(longest_ms, now_ms - pace.grown_at_ms)
    held_by_pace = pace.bursting or now_ms - pace.tat_us // US < IDLE_MS
    if passed_ms <= 0 or not held_by_pace:
        return pace
    age_ms = pace.age_ms + passed_ms
    young = pace.young
    if pace.doubling:
        rate = pace.rate * 2 ** (passed_ms / DOUBLING_MS)
    else:
        way = age_ms / _period_ms(pace, now_ms) - 1
        young = young and way <= -HALFWAY
        wanted = pace.plateau * (1 + (1 - CUT) * way**3)
        rate = min(max(pace.rate, wanted), pace.rate * (1 + passed_ms / 10_000))
    return pace._replace(rate=min(rate, quota.ceiling), age_ms=age_ms, young=young)


def _period_ms(pace: Pace, now_ms: int) -> float:
    """Return how long the way back to the plateau takes."""
    least_ms = WINDOWED_MS if now_ms - pace.window_seen_at_ms < LATELY_MS else SHORTEST_MS
    affordable_ms = pace.episode_cost / (REFUSAL_SHARE * pace.plateau) * WINDOW_MS
    return min(LONGEST_MS, max(least_ms, affordable_ms))


def is_calm(pace: Pace) -> bool:
    """Tell whether an answer teaches nothing but that one more call was let in."""
    return pace.gate_cause is None and not pace.failures


def served(pace: Pace, calls: int) -> Pace:
    """Return a calm pace after so many calls were let in."""
    if pace.served >= MOST_SERVED:
        return pace
    return pace._replace(served=min(MOST_SERVED, pace.served + calls))


def answered(pace: Pace, quota: Quota, started_at_ms: int, accepted: int, now_ms: int) -> Pace:
    """Return the pace after a call that was let in, whatever came of it."""
    if pace.failures:
        pace = pace._replace(failures=0)
    pace = served(pace, 1)
    if pace.gate_cause is not None and started_at_ms > pace.gate_closed_at_ms:
        return opened(pace, quota, accepted, now_ms)
    return pace


def refused(pace: Pace, quota: Quota, refusal: Refusal) -> Pace:
    """Return the pace after a refusal. One episode closes the gate once, for everybody."""
    now_ms = refusal.finished_at_ms
    took_ms = now_ms - refusal.started_at_ms
    pace = pace._replace(
        refusal_ms=pace.refusal_ms + (took_ms - pace.refusal_ms) * 0.1,
        refusals_since_cut=pace.refusals_since_cut + 1,
        failures=0,
        accepted=max(pace.accepted if pace.gate_cause else 0, refusal.accepted),
    )
    if pace.gate_cause == "outage":
        pace = _ajar(pace, now_ms)  # there is somebody, though he refuses
    if refusal.started_at_ms <= pace.gate_closed_at_ms:
        pace = pace._replace(episode_refusals=pace.episode_refusals + 1)
        if pace.gate_cause is None or refusal.retry_after_ms is None:
            return pace
        opens_at_ms = max(pace.gate_opens_at_ms, now_ms + refusal.retry_after_ms)
        return pace._replace(gate_opens_at_ms=opens_at_ms)
    if pace.gate_cause is None:
        pace = _new_episode(pace, quota, refusal)
    else:
        longest_ms = max(MOST_GAP_MS, _gap_ms(pace, quota))
        growth = 2
        if pace.gate_cause == "day":
            longest_ms = PARKED_GAP_MS
        elif pace.bursting:
            longest_ms, growth = WINDOW_MS, 3  # a whole window, it seems: see _closed
        pace = pace._replace(
            gate_strikes=pace.gate_strikes + 1,
            episode_refusals=pace.episode_refusals + 1,
            gate_gap_ms=int(min(longest_ms, pace.gate_gap_ms * growth)),
        )
    return _closed(pace, quota, refusal)


def _new_episode(pace: Pace, quota: Quota, refusal: Refusal) -> Pace:
    now_ms = refusal.finished_at_ms
    cost = pace.episode_cost + 0.3 * (pace.episode_refusals - pace.episode_cost)
    pace = pace._replace(
        episode_cost=cost, episode_refusals=1, gate_since_ms=now_ms, gate_strikes=1
    )
    if quota.adaptive:
        pace = _cut(pace, quota, refusal.accepted, now_ms)
    gap_ms = int(min(FIRST_GAP_MOST_MS, max(FIRST_GAP_MS, _gap_ms(pace, quota))))
    return pace._replace(gate_gap_ms=gap_ms)


def _gap_ms(pace: Pace, quota: Quota) -> float:
    rate = pace.rate if pace.rate is not None else quota.ceiling
    return GAP_STARTS * WINDOW_MS / rate


def _closed(pace: Pace, quota: Quota, refusal: Refusal) -> Pace:
    """Close the gate until a probe may try."""
    now_ms, cause = refusal.finished_at_ms, "quota"
    pause_ms = pace.gate_gap_ms
    strikes = pace.gate_strikes
    if pace.bursting:
        # By then every window of a minute has something to give again.
        pause_ms = min(pause_ms, max(FIRST_GAP_MS, refusal.window_free_at_ms - now_ms))
    if refusal.retry_after_ms is not None:
        pause_ms = max(FIRST_GAP_MS, refusal.retry_after_ms)
        if pause_ms > max(2_000, 1.2 * _gap_ms(pace, quota)):
            strikes = max(strikes, USED_UP)
    if refusal.daily or now_ms - pace.gate_since_ms > PARKED_AFTER_MS:
        cause = "day"
        pause_ms = _parked_ms(pace, refusal.retry_after_ms)
    return pace._replace(
        gate_gap_ms=pause_ms,
        gate_cause=cause,
        gate_reason=refusal.reason,
        gate_closed_at_ms=now_ms,
        gate_opens_at_ms=now_ms + pause_ms,
        gate_strikes=strikes,
    )


def _parked_ms(pace: Pace, retry_after_ms: int | None) -> int:
    """Return how long to wait for a day to end: as the server says, as long as that proves true."""
    if retry_after_ms is None:
        return PARKED_GAP_MS
    if pace.gate_cause != "day":
        return retry_after_ms
    return max(retry_after_ms, pace.gate_gap_ms)


def _cut(pace: Pace, quota: Quota, accepted: int, now_ms: int) -> Pace:
    """Lower the rate for the first refusal of an episode, if it says something new."""
    if pace.bursting:
        return pace  # what it says is known when the gate opens
    rate, plateau = pace.rate or 0.0, pace.plateau
    if pace.doubling and pace.starts_since_cut < SAMPLE // 2:
        return pace  # still the refusals of the burst before
    if pace.doubling:
        plateau = 0.7 * rate
        pace = pace._replace(
            doubling=False, floor=0.7 * accepted, floor_until_ms=now_ms + 2 * WINDOW_MS
        )
    elif now_ms - pace.window_seen_at_ms < ECHO_MS:
        return pace
    elif pace.young and pace.starts_since_cut >= SAMPLE // 2:  # on the way down: by their share
        plateau = rate * (1 - min(0.5, pace.refusals_since_cut / pace.starts_since_cut))
    elif pace.starts_since_cut < SAMPLE:
        return pace
    elif rate < 0.97 * plateau:
        plateau = rate + KEPT * (plateau - rate)
    else:
        plateau = rate
    return _settled(pace, quota, plateau, now_ms)


def _settled(pace: Pace, quota: Quota, plateau: float, now_ms: int, share: float = CUT) -> Pace:
    """Begin anew at a share of a rate that is believed to be right."""
    plateau = max(plateau, FEWEST, pace.floor if now_ms < pace.floor_until_ms else 0.0)
    return pace._replace(
        plateau=plateau,
        rate=min(quota.ceiling, share * plateau),
        age_ms=0,
        starts_since_cut=0,
        refusals_since_cut=0,
        grown_at_ms=now_ms,
    )


def opened(pace: Pace, quota: Quota, accepted: int, now_ms: int) -> Pace:
    """Return the pace after a probe was let in; ``accepted`` as in `Refusal`."""
    used_up = pace.gate_strikes >= USED_UP
    learns = pace.gate_cause == "quota" and quota.adaptive
    pace = _ajar(pace, now_ms)
    if not learns:
        return pace
    if pace.bursting:
        return _taught(pace, quota, now_ms, used_up=used_up)
    if not used_up:
        return pace
    least = 0.3 if pace.young else 0.9
    pace = pace._replace(window_seen_at_ms=now_ms)
    if accepted >= SAMPLE // 2:
        plateau = min(pace.plateau, max(float(accepted), least * pace.plateau))
        pace = _settled(pace, quota, plateau, now_ms)
    return pace._replace(young=pace.young and pace.doubling)


def _ajar(pace: Pace, now_ms: int) -> Pace:
    """Open the gate."""
    return pace._replace(
        gate_cause=None,
        gate_reason=None,
        gate_opens_at_ms=0,
        gate_strikes=0,
        tat_us=max(pace.tat_us, now_ms * US),
        grown_at_ms=now_ms,
    )


def _taught(pace: Pace, quota: Quota, now_ms: int, *, used_up: bool) -> Pace:
    """Draw the conclusion from the first refusals of all: the server's window, or its pace."""
    if used_up and pace.rate is None and pace.accepted >= SAMPLE:
        # A window, and this is what it holds.
        pace = pace._replace(window_seen_at_ms=now_ms, young=False)
        return _settled(pace, quota, float(pace.accepted), now_ms, share=1.0)
    # What that burst cost says nothing of what an even pace will.
    pace = pace._replace(bursting=False, tat_us=now_ms * US, episode_cost=1.5, episode_refusals=1)
    if pace.rate is not None:
        return _settled(pace, quota, pace.rate, now_ms)
    if quota.per_minute is not None:
        pace = pace._replace(young=False)
        return _settled(pace, quota, quota.ceiling, now_ms)
    pace = pace._replace(doubling=True)
    return _settled(pace, quota, max(FIRST_RATE, pace.accepted), now_ms, share=1.0)


def failed(pace: Pace, started_at_ms: int, reason: str, *, refused: bool, now_ms: int) -> Pace:
    """Return the pace after a call to a server that is out of order.

    Args:
        pace: what it was.
        started_at_ms: when the call started.
        reason: what the failure says.
        refused: nobody was there at all; then one failure is enough.
        now_ms: the time.

    """
    if pace.gate_cause is not None and started_at_ms <= pace.gate_closed_at_ms:
        return pace
    failures = pace.failures + 1
    pace = pace._replace(failures=failures)
    if pace.gate_cause == "outage":
        gap_ms = int(min(OUTAGE_MOST_MS, pace.gate_gap_ms * OUTAGE_GROWTH))
    elif refused or failures >= OUTAGE_AFTER:
        gap_ms = OUTAGE_GAP_MS
        pace = pace._replace(gate_since_ms=now_ms, gate_strikes=0)
    else:
        return pace
    return pace._replace(
        gate_cause="outage",
        gate_reason=reason,
        gate_closed_at_ms=now_ms,
        gate_opens_at_ms=now_ms + gap_ms,
        gate_gap_ms=gap_ms,
        gate_strikes=pace.gate_strikes + 1,
    )
