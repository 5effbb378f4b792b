"""Tokens: they flow in evenly, and each call puts a virtual clock (GCRA) forward by what it takes.

Theory: reserved before a call and settled after it. The last call may use more than are left.
"""

from crawler.quota.state import TURN_US, US, Quota, State


def free_tokens(s: State, q: Quota, now_ms: int) -> int | None:
    """Return how many tokens may be used now; None for any number."""
    if q.tokens_per_minute is None:
        return None
    free_us = min(now_ms * US + TURN_US - s.tokens_tat_us, TURN_US)
    return max(0, -(-free_us * q.tokens_per_minute // (q.window_ms * US)))


def next_tokens_ms(s: State) -> int:
    """Return when there are tokens again."""
    return (s.tokens_tat_us - TURN_US) // US + 1


def used_tokens(s: State, q: Quota, tokens: int, now_ms: int) -> State:
    """Return the state after tokens were taken, or (below 0) turned out not to be used."""
    if q.tokens_per_minute is None or not tokens:
        return s
    lasts_us = tokens * q.window_ms * US // q.tokens_per_minute
    begin_us = max(s.tokens_tat_us, now_ms * US) if tokens > 0 else s.tokens_tat_us
    return s._replace(tokens_tat_us=begin_us + lasts_us)
