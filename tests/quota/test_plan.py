"""The limiter is never over its limits, and never stands still where it could go on."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crawler.quota.state import WINDOW_MS, Pace, Quota, free_starts, most_in_flight, window_cap
from crawler.quota.plan import Usage, plan

NOW_MS = 10_000_000

quotas = st.builds(
    Quota,
    per_minute=st.none() | st.integers(1, 60_000),
    tokens_per_minute=st.none() | st.integers(1, 10**6),
    adaptive=st.booleans(),
    guard_ms=st.integers(1, 5_000),
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
usages = st.builds(
    Usage,
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


def bounds(usage):
    """Return how many calls each of the limits would allow."""
    pace, quota = usage.pace, usage.quota
    found = [usage.concurrency - usage.in_flight]
    if pace.gate_cause is not None:
        full = quota.per_minute is not None and usage.occupied >= quota.per_minute
        return [*found, 0 if full or usage.probe_started_at_ms is not None else 1]
    cap, most = window_cap(pace, quota), most_in_flight(pace, quota)
    free = free_starts(pace, quota, NOW_MS)
    found += [] if cap is None else [cap - usage.occupied]
    found += [] if most is None else [most - usage.in_flight]
    return found + ([] if free is None else [free])


@given(usages)
def test_no_limit_is_passed(usage):
    room, held_by, *_ = plan(usage, NOW_MS)

    assert room >= 0
    if room:
        assert not usage.paused
        assert usage.pace.gate_opens_at_ms <= NOW_MS
        assert room <= min(bounds(usage))
        assert usage.quota.per_minute is None or (usage.occupied + room <= usage.quota.per_minute)
    else:
        assert held_by is not None


@given(usages)
def test_all_the_room_that_there_is_is_given(usage):
    assume(not usage.paused and usage.pace.gate_opens_at_ms <= NOW_MS)
    assume(usage.quota.tokens_per_minute is None)

    assert plan(usage, NOW_MS).room == max(0, min(bounds(usage)))


@given(usages)
def test_it_looks_again_later_and_not_at_once(usage):
    step = plan(usage, NOW_MS)
    waits_for_probe = usage.probe_started_at_ms is not None and step.held_by == "gate"

    assert step.wake_at_ms is None or step.wake_at_ms > NOW_MS or waits_for_probe


def test_a_closed_gate_says_when_it_opens():
    pace = Pace(gate_cause="outage", gate_opens_at_ms=NOW_MS + 700)
    usage = Usage(1, 0, Quota(), pace, 0, None, None, False, None, None)

    assert plan(usage, NOW_MS) == (0, "gate", NOW_MS + 700, None)
    assert plan(usage, NOW_MS + 700).room == 1


CLOSED = Pace(gate_cause="quota", refusal_ms=150.0)
SHUT = CLOSED._replace(gate_opens_at_ms=NOW_MS + 5_000)
NO_TOKENS = Pace(tokens_tat_us=(NOW_MS + 900) * 1_000)
NOBODY_KNOWS = Quota(adaptive=True)
FIXED = Quota(per_minute=10, adaptive=False)
IN_A_WHILE_MS = NOW_MS + 500
LATER_MS = NOW_MS + 5_000


def usage(**facts):
    usual = {
        "concurrency": 8,
        "in_flight": 0,
        "quota": FIXED,
        "pace": Pace(),
        "occupied": 0,
        "place_free_at_ms": LATER_MS,
        "probe_started_at_ms": None,
        "paused": False,
        "paused_until_ms": None,
        "next_due_at_ms": IN_A_WHILE_MS,
    }
    return Usage(**usual | facts)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, (8, None, IN_A_WHILE_MS, None)),
        ({"paused": True}, (0, "paused", None, None)),
        ({"paused": True, "paused_until_ms": LATER_MS}, (0, "paused", LATER_MS, None)),
        ({"in_flight": 7}, (1, None, IN_A_WHILE_MS, None)),
        ({"in_flight": 8}, (0, "concurrency", None, None)),
        ({"occupied": 2}, (8, None, IN_A_WHILE_MS, None)),
        ({"occupied": 3}, (7, "per_minute", LATER_MS, None)),
        ({"occupied": 10}, (0, "per_minute", LATER_MS, None)),
        ({"occupied": 11}, (0, "per_minute", LATER_MS, None)),
        # A closed gate is tried by one call, if there is a place for it.
        ({"pace": CLOSED}, (1, "gate", None, None)),
        ({"pace": CLOSED, "quota": Quota()}, (1, "gate", None, None)),
        ({"pace": CLOSED, "occupied": 9}, (1, "gate", None, None)),
        ({"pace": CLOSED, "occupied": 10}, (0, "per_minute", LATER_MS, None)),
        ({"pace": CLOSED, "probe_started_at_ms": NOW_MS}, (0, "gate", NOW_MS + 350, None)),
        (
            {"pace": CLOSED._replace(gate_cause="day"), "probe_started_at_ms": NOW_MS},
            (0, "gate", None, None),
        ),
        # What is closed is told before what is full: a place that is free would be of no use.
        ({"pace": SHUT, "in_flight": 8}, (0, "gate", LATER_MS, None)),
        ({"pace": SHUT, "occupied": 10}, (0, "gate", LATER_MS, None)),
        ({"pace": SHUT, "in_flight": 8, "paused": True}, (0, "paused", None, None)),
        ({"paused": True, "in_flight": 8, "occupied": 10}, (0, "paused", None, None)),
        ({"in_flight": 8, "occupied": 10}, (0, "concurrency", None, None)),
        ({"pace": CLOSED, "in_flight": 8}, (0, "concurrency", None, None)),
        (
            {"pace": CLOSED, "occupied": 10, "probe_started_at_ms": NOW_MS},
            (0, "gate", NOW_MS + 350, None),
        ),
        (
            {"pace": NO_TOKENS, "quota": FIXED._replace(tokens_per_minute=600), "in_flight": 8},
            (0, "concurrency", None, None),
        ),
        (
            {"pace": NO_TOKENS, "quota": FIXED._replace(tokens_per_minute=600), "occupied": 10},
            (0, "tokens_per_minute", NOW_MS + 851, None),
        ),
        # Of a quota that nobody knows as many are tried as have been let in, and ten at first.
        ({"quota": NOBODY_KNOWS, "concurrency": 10}, (10, None, IN_A_WHILE_MS, None)),
        ({"quota": NOBODY_KNOWS, "concurrency": 50}, (10, "pace", None, None)),
        ({"quota": NOBODY_KNOWS, "concurrency": 50, "in_flight": 12}, (0, "pace", None, None)),
        ({"quota": NOBODY_KNOWS, "concurrency": 20, "in_flight": 6}, (4, "pace", None, None)),
        (
            {"quota": NOBODY_KNOWS, "concurrency": 50, "pace": Pace(served=30), "in_flight": 9},
            (21, "pace", None, None),
        ),
        # An even pace: 60 a minute, one of them now, the next in a second.
        (
            {"pace": Pace(bursting=False, rate=60.0), "quota": NOBODY_KNOWS},
            (1, "pace", NOW_MS + 1_000, None),
        ),
        (
            {"pace": Pace(bursting=False, rate=60.0), "concurrency": 1},
            (1, None, IN_A_WHILE_MS, None),
        ),
        # Tokens: 600 a minute without a guard are one each 100 ms.
        ({"quota": FIXED._replace(tokens_per_minute=600, guard_ms=0)}, (8, None, IN_A_WHILE_MS, 1)),
        (
            {
                "quota": FIXED._replace(tokens_per_minute=600),
                "pace": Pace(tokens_tat_us=(NOW_MS + 900) * 1_000),
            },
            (0, "tokens_per_minute", NOW_MS + 851, None),
        ),
        (
            {"quota": FIXED._replace(tokens_per_minute=600, guard_ms=0), "pace": CLOSED},
            (1, "gate", None, 1),
        ),
    ],
)
def test_what_holds_back_says_so_and_when_to_look_again(facts, expected):
    assert plan(usage(**facts), NOW_MS) == expected
