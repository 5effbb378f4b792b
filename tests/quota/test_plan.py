"""The limiter is never over its limits, and never stands still where it could go on."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crawler.quota.concurrency import at_once
from crawler.quota.plan import Usage, plan
from crawler.quota.rate import free_starts
from crawler.quota.state import WINDOW_MS, Quota, State
from crawler.quota.window import slow_step_ms, window_cap

NOW_MS = 10_000_000

quotas = st.builds(
    Quota,
    per_minute=st.none() | st.integers(1, 60_000),
    tokens_per_minute=st.none() | st.integers(1, 10**6),
    adaptive=st.booleans(),
    guard_ms=st.integers(1, 5_000),
    concurrency=st.none() | st.integers(1, 500),
)
tats = st.integers((NOW_MS - 5_000) * 1_000, (NOW_MS + 60_000) * 1_000)
states = st.builds(
    State,
    tat_us=tats,
    tokens_tat_us=tats,
    rate=st.floats(1.2, 10**6),
    plateau=st.floats(1.2, 10**6),
    gate_cause=st.sampled_from([None, None, "quota", "day", "outage"]),
    gate_opens_at_ms=st.integers(NOW_MS - 5_000, NOW_MS + 5_000),
    width=st.floats(1, 500),
)
states = states | st.builds(lambda s, r: s._replace(tat_us=None, rate=r), states, st.none())
states = states | st.builds(lambda s: s._replace(tat_us=None), states)
usages = st.builds(
    Usage,
    in_flight=st.integers(0, 600),
    occupied=st.integers(0, 1_200),
    place_free_at_ms=st.integers(NOW_MS + 1, NOW_MS + WINDOW_MS),
    probe_started_at_ms=st.none() | st.integers(NOW_MS - 100, NOW_MS),
    refusal_ms=st.integers(0, 3_000),
    served=st.integers(0, 2_000),
    newest_ms=st.integers(NOW_MS - 1_000, NOW_MS),
    next_due_at_ms=st.none() | st.integers(NOW_MS + 1, NOW_MS + 10**6),
)


def most(state, quota, usage):
    """Return how many calls each of the ideas would allow."""
    found = [at_once(state, quota) - usage.in_flight]
    cap = window_cap(state, quota)
    found += [] if cap is None else [cap - usage.occupied]
    if state.rate is None and quota.adaptive:
        found.append(max(10, usage.served) - usage.in_flight)
        step_ms = slow_step_ms(state, quota, usage.served, usage.occupied)
        found += [(NOW_MS - usage.newest_ms) // step_ms] if step_ms else []
    if state.gate_cause is not None:
        found.append(0 if usage.probe_started_at_ms is not None else 1)
    elif state.tat_us is not None:
        found.append(free_starts(state, quota, NOW_MS)[0])
    return max(0, min(found))


@given(states, quotas, usages)
def test_no_limit_is_passed(state, quota, usage):
    room, held_by, *_ = plan(state, quota, usage, NOW_MS)
    assert room >= 0
    if room:
        assert state.gate_opens_at_ms <= NOW_MS
        assert room <= most(state, quota, usage)
        assert quota.per_minute is None or usage.occupied + room <= quota.per_minute
    else:
        assert held_by is not None


@given(states, quotas, usages)
def test_all_the_room_that_there_is_is_given(state, quota, usage):
    assume(state.gate_opens_at_ms <= NOW_MS)
    assume(quota.tokens_per_minute is None)
    assert plan(state, quota, usage, NOW_MS).room == most(state, quota, usage)


@given(states, quotas, usages)
def test_it_looks_again_later_and_not_at_once(state, quota, usage):
    step = plan(state, quota, usage, NOW_MS)
    waits_for_probe = usage.probe_started_at_ms is not None and step.held_by == "gate"
    assert step.wake_at_ms is None or step.wake_at_ms > NOW_MS or waits_for_probe


def test_a_closed_gate_says_when_it_opens():
    state = State(gate_cause="outage", gate_opens_at_ms=NOW_MS + 700)
    assert plan(state, Quota(), Usage(), NOW_MS) == (0, "gate", NOW_MS + 700, None)
    assert plan(state, Quota(), Usage(), NOW_MS + 700).room == 1


CLOSED = State(gate_cause="quota")
SHUT = CLOSED._replace(gate_opens_at_ms=NOW_MS + 5_000)
NO_TOKENS = State(tokens_tat_us=(NOW_MS + 900) * 1_000)
FIXED = Quota(per_minute=10, adaptive=False, concurrency=8)
TOKENS = FIXED._replace(tokens_per_minute=600)
EVEN = State(rate=60.0, tat_us=0)
IN_A_WHILE_MS = NOW_MS + 500
LATER_MS = NOW_MS + 5_000


@pytest.mark.parametrize(
    ("state", "quota", "facts", "expected"),
    [
        (State(), FIXED, {}, (8, "concurrency", IN_A_WHILE_MS, None)),
        (State(), FIXED, {"in_flight": 7}, (1, "concurrency", IN_A_WHILE_MS, None)),
        (State(), FIXED, {"in_flight": 8}, (0, "concurrency", IN_A_WHILE_MS, None)),
        (State(), FIXED, {"occupied": 2}, (8, "concurrency", IN_A_WHILE_MS, None)),
        (State(), FIXED, {"occupied": 3}, (7, "per_minute", LATER_MS, None)),
        (State(), FIXED, {"occupied": 10}, (0, "per_minute", LATER_MS, None)),
        (State(), FIXED, {"occupied": 11}, (0, "per_minute", LATER_MS, None)),
        # Where nobody sets it, it is what was found; ten at first.
        (State(), Quota(), {}, (10, "concurrency", IN_A_WHILE_MS, None)),
        (State(width=33.8), Quota(), {"served": 99}, (33, "concurrency", IN_A_WHILE_MS, None)),
        # A closed gate is tried by one call, if there is a place for it.
        (CLOSED, FIXED, {}, (1, "gate", None, None)),
        (CLOSED, Quota(), {}, (1, "gate", None, None)),
        (CLOSED, FIXED, {"occupied": 9}, (1, "gate", None, None)),
        (CLOSED, FIXED, {"occupied": 10}, (0, "per_minute", LATER_MS, None)),
        (CLOSED, FIXED, {"probe_started_at_ms": NOW_MS}, (0, "gate", NOW_MS + 350, None)),
        (
            CLOSED,
            FIXED,
            {"probe_started_at_ms": NOW_MS, "refusal_ms": 1_000},
            (0, "gate", NOW_MS + 2_050, None),
        ),
        (
            State(gate_cause="day"),
            FIXED,
            {"probe_started_at_ms": NOW_MS},
            (0, "gate", None, None),
        ),
        # What is closed is told before what is full: a place that is free would be of no use.
        (SHUT, FIXED, {"in_flight": 8}, (0, "gate", LATER_MS, None)),
        (SHUT, FIXED, {"occupied": 10}, (0, "gate", LATER_MS, None)),
        (CLOSED, FIXED, {"in_flight": 8}, (0, "concurrency", IN_A_WHILE_MS, None)),
        (NO_TOKENS, TOKENS, {}, (0, "tokens_per_minute", NOW_MS + 851, None)),
        # Of a quota that nobody knows as many are tried as were answered, and ten at first.
        (State(), Quota(concurrency=50), {}, (10, "pace", None, None)),
        (State(), Quota(concurrency=50), {"in_flight": 12}, (0, "pace", None, None)),
        (State(), Quota(concurrency=20), {"in_flight": 6}, (4, "pace", None, None)),
        (State(), Quota(concurrency=50), {"served": 30, "in_flight": 9}, (21, "pace", None, None)),
        # An even pace: 60 a minute, one of them now, the next in a second.
        (EVEN, Quota(concurrency=8), {}, (1, "pace", NOW_MS + 1_000, None)),
        # Tokens: 600 a minute without a guard are one each 100 ms.
        (State(), TOKENS._replace(guard_ms=0), {}, (8, "concurrency", IN_A_WHILE_MS, 1)),
        (CLOSED, TOKENS._replace(guard_ms=0), {}, (1, "gate", None, 1)),
        # The last third of a window that was never full: 75 a second of 600 a minute.
        (
            State(),
            Quota(600, concurrency=50),
            {"served": 400, "occupied": 450, "newest_ms": NOW_MS - 30},
            (2, "pace", NOW_MS + 14, None),
        ),
    ],
)
def test_what_holds_back_says_so_and_when_to_look_again(state, quota, facts, expected):
    usual = {"place_free_at_ms": LATER_MS, "next_due_at_ms": IN_A_WHILE_MS}
    assert plan(state, quota, Usage(**usual | facts), NOW_MS) == expected
