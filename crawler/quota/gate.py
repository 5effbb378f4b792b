"""Gate: a refusal stops everybody, and one call tries again; an outage is no success of many words.

Theory: `Retry-After` says when to try, and nothing of the quota. A window is used up where four
probes in a row are refused, or where it is told, and half of it was accepted. A probe that is not
refused in twice the time of a refusal is let in. Chance, as it was before, makes no outage.
"""

from typing import NamedTuple

from crawler.quota import concurrency, rate
from crawler.quota.rate import Refusal
from crawler.quota.state import CHANCE, GAP_MS, SAMPLE, US, WINDOW_MS, Quota, State, surprise

STRIKES = 4  # Refused probes that show a window to be used up
PARKED_MS = 900_000  # How late a gate is tried where a day's quota is gone


class Failure(NamedTuple):
    """A failure, and those in a row with it: after all that did not fail, before all still out."""

    started_at_ms: int
    finished_at_ms: int
    words: int = 0  # Different requests of them; those lost with one connection count as one
    left: int = 1  # Requests that are not done
    first_started_at_ms: int = 0
    first_ended_at_ms: int = 0
    before: int = 0  # Of the RECENT calls before the row, those that have ended, ...
    before_failed: int = 0  # ... and how many of those had failed
    nobody: bool = False  # Nobody was there at all; then one failure is enough


def refused(s: State, q: Quota, r: Refusal) -> State:
    """Return the state after a refusal. One episode closes the gate once, for everybody."""
    now_ms, parks = r.finished_at_ms, r.daily and s.gate_cause == "quota"
    if r.own:
        return s  # nobody else waits
    if s.gate_cause == "outage":
        s = ajar(s, now_ms)  # there is somebody, though he refuses
    if r.started_at_ms <= s.gate_closed_at_ms and not parks:
        told_ms = 0 if s.gate_cause is None else now_ms + (r.retry_after_ms or 0)
        return s._replace(gate_opens_at_ms=max(s.gate_opens_at_ms, told_ms))
    if s.gate_cause is None:
        if not rate.by_chance(s, r):
            s = _taught(s, q, r)
        if (rate.is_noisy(s) or rate.is_tested(s)) and not r.daily:
            return s  # it is chance, or may be: nobody waits
        s = s._replace(gate_since_ms=now_ms, gate_strikes=0)
    elif r.started_at_ms - s.gate_opens_at_ms > WINDOW_MS:
        s = s._replace(gate_since_ms=r.started_at_ms)  # nobody was there to try
    return _closed(s._replace(gate_strikes=s.gate_strikes + 1), q, r)


def _taught(s: State, q: Quota, r: Refusal) -> State:
    """Return the state with what the first refusal of an episode says of rate and width."""
    if rate.is_noisy(s):
        s = s._replace(noise=0.0)  # more than that: it was something else
    auto = q.concurrency is None and q.adaptive and not r.daily
    new = r.finished_at_ms >= s.round_at_ms or r.sent < SAMPLE  # else fewer at once were no use
    if auto and new and r.in_flight >= concurrency.IN_USE * int(s.width):  # few would be at a rate
        return concurrency.narrowed(s, r.in_flight, r.finished_at_ms)
    return rate.judged(s, q, r) if q.adaptive and s.tat_us is not None and r.sent else s


def _pause_ms(s: State, q: Quota) -> float:
    """Return how long to wait before the next probe, where the server says nothing."""
    starts_ms, most_ms = 4 * WINDOW_MS / (s.rate or q.ceiling), 40 * GAP_MS
    first_ms = min(most_ms / 2, max(GAP_MS, starts_ms))
    if s.tat_us is None:  # a whole window, it seems
        return min(WINDOW_MS, first_ms * 3.0 ** (s.gate_strikes - 1))
    return min(max(most_ms, starts_ms), first_ms * 2.0 ** (s.gate_strikes - 1))


def _closed(s: State, q: Quota, r: Refusal) -> State:
    now_ms, cause, wait_ms = r.finished_at_ms, "quota", _pause_ms(s, q)
    if s.tat_us is None:  # by then a window has something to give again
        wait_ms = min(wait_ms, max(GAP_MS, r.window_free_at_ms - now_ms))
    if r.retry_after_ms is not None:
        wait_ms = max(GAP_MS, r.retry_after_ms)
    if r.daily or now_ms - s.gate_since_ms > 60 * WINDOW_MS:
        before_ms = s.gate_opens_at_ms - s.gate_closed_at_ms if s.gate_cause == "day" else 0
        later_ms = min(2 * before_ms, PARKED_MS)  # twice as late each time that this was not true
        cause, wait_ms = "day", PARKED_MS if r.retry_after_ms is None else max(wait_ms, later_ms)
    opens_at_ms = now_ms + int(wait_ms)
    return s._replace(gate_cause=cause, gate_closed_at_ms=now_ms, gate_opens_at_ms=opens_at_ms)


def verified_at_ms(s: State, probe_started_at_ms: int, refusal_ms: int) -> int | None:
    """Return when a probe that was not refused has been let in; None: when it is answered."""
    due_ms = probe_started_at_ms + max(GAP_MS, 2 * refusal_ms) + GAP_MS // 6
    return due_ms if s.gate_cause == "quota" else None


def lets_in(s: State, started_at_ms: int) -> bool:
    """Tell whether a call that was not refused opens the gate: a probe, or a sign of life."""
    outage = s.gate_cause == "outage" and started_at_ms >= s.gate_since_ms
    return s.gate_cause is not None and (outage or started_at_ms > s.gate_closed_at_ms)


def ajar(s: State, now_ms: int) -> State:
    """Return the state with its gate open; what it has learned stays."""
    tat_us = None if s.tat_us is None else max(s.tat_us, now_ms * US)
    return s._replace(gate_cause=None, gate_opens_at_ms=0, gate_strikes=0, tat_us=tat_us)


def opened(s: State, q: Quota, ok: int, refused: int, since_ms: int, now_ms: int) -> State:
    """Return the state after a probe was let in, with what the minute before the episode taught."""
    n, first, cause = s.gate_strikes, s.gate_strikes == 1, s.gate_cause
    proven = n >= STRIKES and surprise(n, n, (refused + 1) / (ok + refused + 2)) > CHANCE
    hinted = s.gate_opens_at_ms - s.gate_closed_at_ms > max(2_000, 1.2 * _pause_ms(s, q))
    s = ajar(s, now_ms)
    if cause != "quota" or not q.adaptive:
        return s
    if rate.is_untried(s):
        if refused < max(3, min(SAMPLE, ok / SAMPLE)):
            return s  # so few: go on, and see when the next ones come
        flow = max(1, ok) * WINDOW_MS / (s.gate_since_ms - since_ms + GAP_MS)
        s = rate.settled(s, q, max(rate.FIRST_RATE, flow / 4), now_ms, 1.0)
        return s._replace(plateau=0.0, trial=flow, noise=refused / max(1, ok + refused))
    if s.tat_us is not None:
        return s._replace(window_seen_at_ms=now_ms if proven or hinted else s.window_seen_at_ms)
    if first and s.cut_at_ms == s.gate_since_ms:
        return s  # there were too many at once
    told_up = q.per_minute and (hinted or refused >= SAMPLE) and 2 * ok >= q.per_minute
    if s.rate is None and (proven or told_up) and ok >= SAMPLE:  # this is what it holds
        s = s._replace(window_seen_at_ms=now_ms)
        return rate.settled(s, q, ok, now_ms, 1 - rate.REFUSAL_SHARE)
    s = s._replace(tat_us=now_ms * US)  # no window: from here on calls keep a distance
    if s.rate is not None or q.per_minute:
        return rate.settled(s, q, s.rate or q.ceiling, now_ms)
    fast = 1.5 * ok * WINDOW_MS / max(GAP_MS, s.gate_since_ms - since_ms)
    s = rate.settled(s, q, max(rate.FIRST_RATE, fast), now_ms, 1.0)  # as before, but evenly
    return s._replace(plateau=0.0, trial=s.plateau, noise=0.0)


def failed(s: State, f: Failure) -> State:
    """Return the state after a failure: an outage is more of them in a row than chance has."""
    now_ms, late = f.finished_at_ms, f.started_at_ms <= s.gate_closed_at_ms
    if s.gate_cause in ("quota", "day") or (s.gate_cause and late):
        return s
    if s.gate_cause is None:
        usual = (f.before_failed + 1) / (f.before + 2)
        unlikely = f.words > 0 and surprise(f.words, f.words, usual) > CHANCE
        enough = unlikely or f.words >= max(2, f.left)
        if not f.nobody and not (enough and now_ms - f.first_ended_at_ms >= GAP_MS):
            return s
        s = s._replace(gate_since_ms=f.first_started_at_ms, gate_strikes=0)
    opens_at_ms = now_ms + int(min(10_000, 2_000 * 1.5**s.gate_strikes))
    s = s._replace(gate_cause="outage", gate_strikes=s.gate_strikes + 1)
    return s._replace(gate_closed_at_ms=now_ms, gate_opens_at_ms=opens_at_ms)
