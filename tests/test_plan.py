"""The limiter is never over its limits, and never stands still where it could go on."""

from hypothesis import assume, given
from hypothesis import strategies as st

from crawler.pace import WINDOW_MS, Pace, Quota, free_starts, most_in_flight, window_cap
from crawler.plan import Outlook, plan

NOW_MS = 10_000_000

quotas = st.builds(
    Quota,
    per_minute=st.none() | st.integers(1, 60_000),
    tokens_per_minute=st.none() | st.integers(1, 10**6),
    adaptive=st.booleans(),
)
paces = st.builds(
    Pace,
    tat_us=st.integers((NOW_MS - 5_000) * 1_000, (NOW_MS + 60_000) * 1_000),
    tokens_tat_us=st.integers((NOW_MS - 5_000) * 1_000, (NOW_MS + 60_000) * 1_000),
    rate=st.floats(1.2, 10**6),
    plateau=st.floats(1.2, 10**6),
    bursting=st.booleans(),
    burst_began_at_ms=st.integers(NOW_MS - 2_000, NOW_MS),
    served=st.integers(0, 200),
    gate_cause=st.sampled_from([None, None, "quota", "day", "outage"]),
    gate_opens_at_ms=st.integers(NOW_MS - 5_000, NOW_MS + 5_000),
)
outlooks = st.builds(
    Outlook,
    concurrency=st.integers(1, 500),
    in_flight=st.integers(0, 600),
    quota=quotas,
    pace=paces,
    occupied=st.integers(0, 1_200),
    place_free_at_ms=st.integers(NOW_MS + 1, NOW_MS + WINDOW_MS),
    probe_started_at_ms=st.none() | st.integers(NOW_MS - 100, NOW_MS),
    paused=st.booleans(),
    paused_until_ms=st.none() | st.integers(NOW_MS + 1, NOW_MS + 10**6),
    next_due_at_ms=st.none() | st.integers(NOW_MS + 1, NOW_MS + 10**6),
)


def bounds(outlook):
    """Return how many calls each of the limits would allow."""
    pace, quota = outlook.pace, outlook.quota
    found = [outlook.concurrency - outlook.in_flight]
    if pace.gate_cause is not None:
        full = quota.per_minute is not None and outlook.occupied >= quota.per_minute
        return [*found, 0 if full or outlook.probe_started_at_ms is not None else 1]
    cap, most = window_cap(pace, quota), most_in_flight(pace, quota)
    free = free_starts(pace, quota, NOW_MS)
    found += [] if cap is None else [cap - outlook.occupied]
    found += [] if most is None else [most - outlook.in_flight]
    return found + ([] if free is None else [free])


@given(outlooks)
def test_no_limit_is_passed(outlook):
    room, held_by, *_ = plan(outlook, NOW_MS)

    assert room >= 0
    if room:
        assert not outlook.paused
        assert outlook.pace.gate_opens_at_ms <= NOW_MS
        assert room <= min(bounds(outlook))
        assert outlook.quota.per_minute is None or (
            outlook.occupied + room <= outlook.quota.per_minute
        )
    else:
        assert held_by is not None


@given(outlooks)
def test_all_the_room_that_there_is_is_given(outlook):
    assume(not outlook.paused and outlook.pace.gate_opens_at_ms <= NOW_MS)
    assume(outlook.quota.tokens_per_minute is None)

    assert plan(outlook, NOW_MS).room == max(0, min(bounds(outlook)))


@given(outlooks)
def test_it_looks_again_later_and_not_at_once(outlook):
    step = plan(outlook, NOW_MS)
    waits_for_probe = outlook.probe_started_at_ms is not None and step.held_by == "gate"

    assert step.wake_at_ms is None or step.wake_at_ms > NOW_MS or waits_for_probe


def test_a_closed_gate_says_when_it_opens():
    pace = Pace(gate_cause="outage", gate_opens_at_ms=NOW_MS + 700)
    outlook = Outlook(1, 0, Quota(), pace, 0, None, None, False, None, None)

    assert plan(outlook, NOW_MS) == (0, "gate", NOW_MS + 700, None)
    assert plan(outlook, NOW_MS + 700).room == 1
