"""Concurrency: where nobody sets it, one step wider as long as more calls end in a second.

Theory: hill climbing on answers a second, in rounds of twice the width. A step must bring 30 % of
its size, else back, and down as long as that costs less. A round that did not use the width says
nothing; 5xx stop growth and cut nothing; a refusal while it is in use cuts it, for a minute.
"""

from crawler.quota.state import WINDOW_MS, Quota, State

WIDTH, STEP, IN_USE = 10, 1.3, 0.8  # At once at first; a step; what share in use says something


def at_once(s: State, q: Quota) -> int:
    """Return how many calls may be in flight."""
    return q.concurrency if q.concurrency is not None else int(s.width)


def round_calls(s: State) -> float:
    """Return how many answers make a round."""
    return 2 * max(WIDTH, s.width)


def widened(s: State, ok: int, failed: int, since_ms: int, in_flight: int, now_ms: int) -> State:
    """Return the state with another width, where a round is over: on while it pays, else back."""
    if ok < round_calls(s):
        return s
    s = s._replace(round_at_ms=now_ms)
    if in_flight < IN_USE * int(s.width):
        return s
    speed = ok * WINDOW_MS / max(1, now_ms - since_ms)
    worth, far = 1 + (STEP - 1) ** 2, 1 + IN_USE * (STEP - 1)
    up = speed >= s.speed * worth if s.speed >= 0 else speed * worth < -s.speed
    if up and failed > (1 - IN_USE) * ok:
        return s._replace(speed=speed)  # it has trouble enough
    if not up:
        return s._replace(width=max(1.0, s.width / STEP), speed=-speed)
    step = STEP**2 if speed > s.speed * far > 0 else STEP
    return s._replace(width=min(500.0, s.width * step), speed=speed)  # files that may be open


def narrowed(s: State, in_flight: int, now_ms: int) -> State:
    """Return the state after a refusal that was one of too many at once."""
    width = max(1.0, 0.925 * min(s.width, in_flight))
    return s._replace(width=width, speed=0.0, round_at_ms=now_ms + WINDOW_MS, cut_at_ms=now_ms)
