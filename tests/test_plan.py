"""The limiter is never over its limits, and never stands still where it could go on."""

from hypothesis import assume, given
from hypothesis import strategies as st

from crawler.plan import WINDOW_MS, Outlook, place_until_ms, plan

NOW_MS = 10_000_000

outlooks = st.builds(
    Outlook,
    concurrency=st.integers(1, 500),
    in_flight=st.integers(0, 600),
    probes=st.integers(0, 3),
    per_minute=st.none() | st.integers(1, 1_000),
    occupied=st.integers(0, 1_200),
    place_free_at_ms=st.none() | st.integers(NOW_MS + 1, NOW_MS + WINDOW_MS),
    paused=st.booleans(),
    gate_opens_at_ms=st.integers(NOW_MS - 5_000, NOW_MS + 5_000),
    gate_strikes=st.integers(0, 3),
    next_due_at_ms=st.none() | st.integers(NOW_MS + 1, NOW_MS + 10**6),
)


@given(outlooks)
def test_no_limit_is_passed(outlook):
    room, held_by, _ = plan(outlook, NOW_MS)

    assert room >= 0
    if room:
        assert not outlook.paused
        assert outlook.gate_opens_at_ms <= NOW_MS
        assert outlook.in_flight + room <= outlook.concurrency
        assert outlook.per_minute is None or outlook.occupied + room <= outlook.per_minute
        assert not outlook.gate_strikes or outlook.probes + room <= 1
    else:
        assert held_by is not None


@given(outlooks)
def test_all_the_room_that_there_is_is_given(outlook):
    assume(not outlook.paused and outlook.gate_opens_at_ms <= NOW_MS)
    room, _, _ = plan(outlook, NOW_MS)

    bounds = [outlook.concurrency - outlook.in_flight]
    if outlook.per_minute is not None:
        bounds.append(outlook.per_minute - outlook.occupied)
    if outlook.gate_strikes:
        bounds.append(1 - outlook.probes)
    assert room == max(0, min(bounds))


@given(outlooks)
def test_it_looks_again_later_and_not_at_once(outlook):
    wake_at_ms = plan(outlook, NOW_MS).wake_at_ms

    assert wake_at_ms is None or wake_at_ms > NOW_MS


def test_a_closed_gate_says_when_it_opens():
    outlook = Outlook(1, 0, 0, None, 0, None, False, NOW_MS + 700, 1, None)

    assert plan(outlook, NOW_MS) == (0, "gate", NOW_MS + 700)
    assert plan(outlook, NOW_MS + 700).room == 1


@given(st.integers(0, 10**6), st.none() | st.integers(0, 10**6), st.integers(1, 5_000))
def test_a_place_is_kept_for_a_window_after_the_latest_possible_arrival(start, took, guard):
    end = None if took is None else start + took
    latest_arrival = start + guard if end is None else min(end, start + guard)

    assert place_until_ms(start, end, guard) == latest_arrival + WINDOW_MS
