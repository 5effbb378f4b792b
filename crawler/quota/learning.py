"""What the ends of calls teach a limit: its rate, and when to try again.

`refused` makes a 429 a wait: it closes the gate until `Pace.gate_opens_at_ms`, and `quota.plan`
lets nothing start before that.

Rule: pure. Each function takes a `Pace` and gives the next.

One refusal closes the gate for everybody, and a single probe opens it again. If the probes found
the whole window used up, what the server accepted in it is its quota. If the first was let in, the
server takes no such bursts, or others use the same quota: from then on calls keep a pace, and a
refusal cuts it. Failures in a row close the gate as well, and teach nothing of the quota.
"""

from typing import NamedTuple

from crawler.quota.pace import CUT, MOST_SERVED, US, WINDOW_MS, Pace, Quota

SAMPLE = 12
"""Starts since the last cut that it takes to say something new."""
KEPT = 0.5
"""Where a refusal comes below the plateau, this share of the way back up is kept."""
FIRST_RATE = 60.0
"""Where to begin to double, when hardly anything was accepted before the first refusal."""
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


def verified_at_ms(pace: Pace, probe_started_at_ms: int) -> int | None:
    """Return when a probe that was not refused has been let in; None: when it is answered."""
    if pace.gate_cause != "quota":
        return None
    return probe_started_at_ms + int(2 * pace.refusal_ms) + 50


def is_calm(pace: Pace) -> bool:
    """Tell whether an answer teaches nothing but that one more call was let in."""
    return pace.gate_cause is None and not pace.failures


def let_in(pace: Pace, calls: int) -> Pace:
    """Return a calm pace after the server has let in so many calls."""
    if pace.served >= MOST_SERVED:
        return pace
    return pace._replace(served=min(MOST_SERVED, pace.served + calls))


def answered(pace: Pace, quota: Quota, started_at_ms: int, accepted: int, now_ms: int) -> Pace:
    """Return the pace after a call that was let in, whatever came of it."""
    if pace.failures:
        pace = pace._replace(failures=0)
    pace = let_in(pace, 1)
    if pace.gate_cause is not None and started_at_ms > pace.gate_closed_at_ms:
        return opened(pace, quota, accepted, now_ms)
    return pace


def refused(pace: Pace, quota: Quota, refusal: Refusal) -> Pace:
    """Return the pace after a refusal. One episode closes the gate once, for everybody."""
    now_ms = refusal.finished_at_ms
    took_ms = now_ms - refusal.started_at_ms
    pace = _still(pace, refusal.started_at_ms)._replace(
        refusal_ms=pace.refusal_ms + (took_ms - pace.refusal_ms) * 0.1,
        refusals_since_cut=pace.refusals_since_cut + 1,
        failures=0,
        accepted=max(pace.accepted if pace.gate_cause else 0, refusal.accepted),
    )
    if pace.gate_cause == "outage":
        pace = _open_gate(pace, now_ms)  # a server is there, though it refuses
    parks = refusal.daily and pace.gate_cause == "quota"
    if refusal.started_at_ms <= pace.gate_closed_at_ms and not parks:
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


def _still(pace: Pace, probe_started_at_ms: int) -> Pace:
    """Return the pace as a probe finds it that comes so late that nothing tells of the time before.

    Nobody was there to try (a pause, no run): what it meets is no longer the same outage or day.
    """
    if pace.gate_cause is None or probe_started_at_ms - pace.gate_opens_at_ms < WINDOW_MS:
        return pace
    return pace._replace(gate_since_ms=probe_started_at_ms)


def _new_episode(pace: Pace, quota: Quota, refusal: Refusal) -> Pace:
    now_ms = refusal.finished_at_ms
    cost = pace.episode_cost + 0.3 * (pace.episode_refusals - pace.episode_cost)
    pace = pace._replace(
        episode_cost=cost, episode_refusals=1, gate_since_ms=now_ms, gate_strikes=1
    )
    if quota.adaptive:
        pace = _cut(pace, quota, now_ms)
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
        return max(FIRST_GAP_MS, retry_after_ms)
    return max(FIRST_GAP_MS, retry_after_ms, pace.gate_gap_ms)


def _cut(pace: Pace, quota: Quota, now_ms: int) -> Pace:
    """Lower the rate for the first refusal of an episode, if it says something new."""
    if pace.bursting:
        return pace  # what it says is known when the gate opens
    rate, plateau = pace.rate or 0.0, pace.plateau
    if pace.doubling and pace.starts_since_cut < SAMPLE // 2:
        return pace  # still the refusals of the burst before
    if pace.doubling:
        plateau = 0.7 * rate
        pace = pace._replace(doubling=False)
    elif pace.young and pace.starts_since_cut >= SAMPLE // 2:  # on the way down: by their share
        plateau = rate * (1 - min(0.5, pace.refusals_since_cut / pace.starts_since_cut))
    elif pace.starts_since_cut < SAMPLE:
        return pace
    elif rate < 0.97 * plateau:
        plateau = rate + KEPT * (plateau - rate)
    else:
        plateau = rate
    return _from_plateau(pace, quota, plateau, now_ms)


def _from_plateau(
    pace: Pace, quota: Quota, plateau: float, now_ms: int, share: float = CUT
) -> Pace:
    """Return the pace at a share of a rate that is believed to be right, with new counts."""
    plateau = max(plateau, FEWEST)
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
    pace = _open_gate(pace, now_ms)
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
        pace = _from_plateau(pace, quota, plateau, now_ms)
    return pace._replace(young=pace.young and pace.doubling)


def _open_gate(pace: Pace, now_ms: int) -> Pace:
    """Return the pace with its gate open; what it has learned stays."""
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
        return _from_plateau(pace, quota, float(pace.accepted), now_ms, share=1.0)
    # What that burst cost says nothing of what an even pace will.
    pace = pace._replace(bursting=False, tat_us=now_ms * US, episode_cost=1.5, episode_refusals=1)
    if pace.rate is not None:
        return _from_plateau(pace, quota, pace.rate, now_ms)
    if quota.per_minute is not None:
        pace = pace._replace(young=False)
        return _from_plateau(pace, quota, quota.ceiling, now_ms)
    pace = pace._replace(doubling=True)
    return _from_plateau(pace, quota, max(FIRST_RATE, pace.accepted), now_ms, share=1.0)


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
    pace = _still(pace, started_at_ms)._replace(failures=failures)
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
