"""Window: what is told is kept exactly, by counting the starts on record.

Theory: no more starts than the quota in any minute and its guard, and those at once. The last third
of a window that was never full starts slowly: it may be smaller than told, and few are refused.
"""

from crawler.quota.state import Quota, State


def window_cap(s: State, q: Quota) -> int | None:
    """Return how many calls may start in any window; None for any number."""
    if s.rate is None or s.tat_us is not None:
        return q.per_minute
    return min(max(1, int(s.rate)), q.per_minute or 10**9)


def slow_step_ms(s: State, q: Quota, served: int, occupied: int) -> int:
    """Return how far apart the starts are that may be the last of a window; 0 where they aren't."""
    most = q.per_minute or 0
    new = q.adaptive and s.rate is None and served < most
    return -(-8_000 // most) if new and 3 * occupied >= 2 * most else 0
