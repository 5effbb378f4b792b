"""The emulator's windows against their laws, counted by brute force."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.emulator.quota import Bucket, FixedWindow, Quota, Refusal, SlidingWindow
from crawler.emulator.settings import Settings

WINDOW_MS = 100
LIMIT = 5
KINDS = {
    "fixed": lambda: FixedWindow(LIMIT, WINDOW_MS),
    "sliding": lambda: SlidingWindow(LIMIT, WINDOW_MS),
    "bucket": lambda: Bucket(LIMIT, WINDOW_MS, 3),
}
# How long after the one before, and how much it takes.
ARRIVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), max_size=60)


def taken(window, arrivals, start_ms=1_000_003):
    """Return when how much was let in, of what arrives after these gaps."""
    at_ms, let_in = start_ms, []
    for gap_ms, amount in arrivals:
        at_ms += gap_ms
        if window.wait_ms(amount, at_ms) == 0:
            window.take(amount, at_ms)
            let_in.append((at_ms, amount))
    return let_in


@given(ARRIVALS)
def test_a_fixed_window_lets_in_what_fits_into_each_minute_of_the_clock(arrivals):
    expected, used, at_ms = [], Counter(), 1_000_003
    for gap_ms, amount in arrivals:
        at_ms += gap_ms
        if used[at_ms // WINDOW_MS] + amount <= LIMIT:
            used[at_ms // WINDOW_MS] += amount
            expected.append((at_ms, amount))

    assert taken(KINDS["fixed"](), arrivals) == expected


@given(ARRIVALS)
def test_a_sliding_window_lets_in_what_fits_beside_the_last_minute(arrivals):
    expected, at_ms = [], 1_000_003
    for gap_ms, amount in arrivals:
        at_ms += gap_ms
        used = sum(other for then, other in expected if then > at_ms - WINDOW_MS)
        if used + amount <= LIMIT:
            expected.append((at_ms, amount))

    assert taken(KINDS["sliding"](), arrivals) == expected


@given(ARRIVALS)
def test_a_bucket_lets_in_its_capacity_and_what_flows_in_between_any_two_moments(arrivals):
    let_in = taken(KINDS["bucket"](), arrivals)

    for first, (from_ms, _) in enumerate(let_in):
        total = 0
        for at_ms, amount in let_in[first:]:
            total += amount
            assert total <= 3 + (at_ms - from_ms) * LIMIT / WINDOW_MS


@pytest.mark.parametrize("kind", KINDS)
@given(arrivals=ARRIVALS, amount=st.integers(1, 3), later_ms=st.integers(0, 250))
def test_a_wait_is_exactly_as_long_as_it_must_be(kind, arrivals, amount, later_ms):
    window = KINDS[kind]()
    taken(window, arrivals)
    now_ms = 1_000_003 + sum(gap_ms for gap_ms, _ in arrivals) + later_ms
    while window.wait_ms(1, now_ms) == 0:
        window.take(1, now_ms)

    wait_ms = window.wait_ms(amount, now_ms)

    assert 0 < wait_ms <= WINDOW_MS
    assert window.wait_ms(amount, now_ms + wait_ms - 1) > 0
    assert window.wait_ms(amount, now_ms + wait_ms) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_more_than_a_whole_window_is_never_let_in(kind):
    window = KINDS[kind]()

    assert all(window.wait_ms(LIMIT + 1, at_ms) > 0 for at_ms in range(0, 500, 7))


def test_a_refused_request_costs_nothing_in_any_of_the_quotas():
    quota = Quota(Settings(per_minute=3, tokens_per_minute=10, per_day=3, window_ms=1000), 0)

    assert quota.refusal(4, 0, 1) is None
    assert quota.refusal(7, 0, 2) == Refusal("tokens", 998)
    assert quota.refusal(6, 0, 3) is None
    assert quota.refusal(1, 0, 4) == Refusal("tokens", 996)
    assert quota.refusal(1, 0, 1_000) is None
    assert quota.refusal(1, 0, 2_000) == Refusal("day")


def test_calls_at_once_are_refused_first_and_without_a_time():
    quota = Quota(Settings(max_concurrent=2, per_minute=1), 0)

    assert quota.refusal(1, 1, 0) is None
    assert quota.refusal(1, 2, 1) == Refusal("concurrency")
    assert quota.refusal(1, 1, 1) == Refusal("minute", 59_999)


@pytest.mark.parametrize("window", KINDS)
@given(gaps_ms=st.lists(st.integers(0, WINDOW_MS), max_size=40), tenants=st.integers(1, 12))
def test_tenants_take_from_the_quota_as_if_each_of_them_had_called(window, gaps_ms, tenants):
    burst = 3 if window == "bucket" else None
    quota = Quota(
        Settings(
            per_minute=LIMIT, tenants=tenants, window=window, burst=burst, window_ms=WINDOW_MS
        ),
        0,
    )
    ours = list(itertools.accumulate(gaps_ms))
    others = [-(-nth * WINDOW_MS // tenants) for nth in range(len(gaps_ms) * tenants + 1)]
    alike = KINDS[window]()

    expected = []
    for at_ms, is_ours in sorted([(at, True) for at in ours] + [(at, False) for at in others]):
        fits = alike.wait_ms(1, at_ms) == 0
        if fits:
            alike.take(1, at_ms)
        if is_ours:
            expected.append(fits)

    assert [quota.refusal(1, 0, at_ms) is None for at_ms in ours] == expected


def test_tenants_alone_use_up_a_quota_that_is_as_large_as_they_are():
    quota = Quota(Settings(per_minute=10, tenants=10, window_ms=1_000), 0)

    assert quota.refusal(1, 0, 950) == Refusal("minute", 50)
    assert quota.refusal(1, 0, 10**12 + 950) == Refusal("minute", 50)  # and it takes no time
    assert quota.refusal(1, 0, 10**12 + 1_050) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_is_told_until_all_of_it_is_there_again(kind):
    window, now_ms = KINDS[kind](), 1_000_010
    full = window.room(now_ms)
    assert full.most == LIMIT
    assert full.full_in_ms == 0
    window.take(2, now_ms)
    rest = window.room(now_ms)
    assert rest.left == full.left - 2
    assert 0 < rest.full_in_ms <= WINDOW_MS
    assert window.room(now_ms + rest.full_in_ms) == full
