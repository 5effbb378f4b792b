"""Settings that make no sense are refused, and verdicts are what DESIGN's table says."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.policy import Policy, backoff_ms, verdict
from crawler.states import Outcome, RequestState
from tests.expected import COUNTS_AS_FAILURE, FINAL

POLICY = Policy()
NOW_MS = 1_000_000


def judge(outcome, failures=0, retry_after_ms=None, seed=0, policy=POLICY):
    return verdict(
        policy,
        outcome,
        failures=failures,
        retry_after_ms=retry_after_ms,
        now_ms=NOW_MS,
        draw=random.Random(seed).randint,
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"max_failures": 0},
        {"backoff_base_ms": 0},
        {"backoff_base_ms": 10, "backoff_cap_ms": 5},
        {"call_timeout_ms": 400_000},
        {"lost_after_ms": 122_000},
        {"guard_ms": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting)).split("_")[0]):
        Policy(**setting)


def test_every_setting_may_be_as_small_as_one():
    least = {field.name: 1 for field in dataclasses.fields(Policy)}
    Policy(**least | {"lost_after_ms": 2_002})
    with pytest.raises(ValueError, match="lost_after_ms"):
        Policy(**least | {"lost_after_ms": 2_001})


def highest(low, high):
    assert low == 0, "full jitter begins at nothing"
    return high


@pytest.mark.parametrize(
    ("failures", "pause_ms"), [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000)]
)
def test_a_backoff_doubles_until_its_cap(failures, pause_ms):
    assert backoff_ms(POLICY, failures, highest) == pause_ms
    facts = {"retry_after_ms": None, "now_ms": NOW_MS, "draw": highest}
    counted = verdict(POLICY, Outcome.TRANSIENT, failures=failures - 1, **facts)
    assert counted[:3] == (RequestState.PENDING, failures, NOW_MS + pause_ms)
    out_of_order = verdict(POLICY, Outcome.TRANSIENT, failures=failures, outage=True, **facts)
    assert out_of_order[:3] == (RequestState.PENDING, failures, NOW_MS + pause_ms)


def test_an_outage_holds_back_as_well_who_has_never_failed():
    facts = {"retry_after_ms": None, "now_ms": NOW_MS, "draw": highest}
    first = verdict(POLICY, Outcome.TRANSIENT, failures=0, outage=True, **facts)
    assert first[:3] == (RequestState.PENDING, 0, NOW_MS + POLICY.backoff_base_ms)


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, *map(Outcome, sorted(FINAL))])
def test_what_has_ended_is_not_due_any_more(outcome):
    assert judge(outcome, failures=2)[1:3] == (2, 0)


def test_what_has_failed_too_often_is_not_due_any_more():
    assert judge(Outcome.TRANSIENT, failures=19)[:3] == (RequestState.FAILED, 20, 0)


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_backoff_is_full_jitter_under_a_doubling_ceiling(failures, seed):
    ceiling = min(POLICY.backoff_cap_ms, POLICY.backoff_base_ms * 2 ** (failures - 1))

    assert 0 <= backoff_ms(POLICY, failures, random.Random(seed).randint) <= ceiling
    assert backoff_ms(POLICY, failures, lambda low, high: low) == 0
    assert backoff_ms(POLICY, failures, lambda low, high: high) == ceiling


@given(
    outcome=st.sampled_from(Outcome),
    failures=st.integers(0, 30),
    retry_after_ms=st.none() | st.integers(0, 10**7),
    seed=st.integers(),
)
def test_a_request_pays_only_for_its_own_failures(outcome, failures, retry_after_ms, seed):
    state, after, due_at_ms, _ = judge(outcome, failures, retry_after_ms, seed)

    assert after == failures + (outcome in COUNTS_AS_FAILURE)
    if outcome is Outcome.SUCCEEDED:
        assert state is RequestState.SUCCEEDED
    elif outcome in FINAL or (outcome in COUNTS_AS_FAILURE and after >= POLICY.max_failures):
        assert state is RequestState.FAILED
    else:
        assert state is RequestState.PENDING
        assert due_at_ms >= NOW_MS


def test_a_server_that_asks_for_a_pause_gets_it():
    assert judge(Outcome.TRANSIENT, retry_after_ms=90_000).due_at_ms >= NOW_MS + 90_000


def test_where_the_server_is_well_an_answer_is_asked_for_again_soon():
    latest = verdict(
        POLICY,
        Outcome.TRANSIENT,
        failures=15,
        retry_after_ms=0,
        now_ms=NOW_MS,
        draw=highest,
    )

    assert latest.due_at_ms == NOW_MS + POLICY.backoff_base_ms


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.THROTTLED,
        Outcome.UNAVAILABLE,
        Outcome.NO_MONEY,
        Outcome.INTERRUPTED,
        Outcome.ABANDONED,
    ],
)
def test_what_is_not_its_fault_is_due_at_once(outcome):
    assert judge(outcome).due_at_ms == NOW_MS


@given(no_answers=st.integers(0, 30), failures=st.integers(0, 18), worn_out=st.booleans())
def test_an_answer_that_is_no_good_again_and_again_is_not_paid_for_for_ever(
    no_answers, failures, worn_out
):
    judged = verdict(
        POLICY,
        Outcome.NO_ANSWER,
        failures=failures,
        retry_after_ms=0,
        now_ms=NOW_MS,
        draw=random.Random(0).randint,
        no_answers=no_answers,
        worn_out=worn_out,
    )
    gone = worn_out or no_answers + 1 >= POLICY.max_no_answers
    assert judged.state is (RequestState.FAILED if gone else RequestState.PENDING)
    assert (judged.failures, judged.no_answers) == (failures, no_answers + 1)


@given(failures=st.integers(0, 19), asked_ms=st.none() | st.integers(1, 10**9))
def test_an_outage_costs_nothing_and_the_server_says_when_to_come_back(failures, asked_ms):
    judged = verdict(
        POLICY,
        Outcome.TRANSIENT,
        failures=failures,
        retry_after_ms=asked_ms,
        now_ms=NOW_MS,
        draw=lambda low, high: high,
        outage=True,
    )
    assert (judged.state, judged.failures) == (RequestState.PENDING, failures)
    assert judged.due_at_ms >= NOW_MS + max(POLICY.backoff_base_ms, asked_ms or 0)


def test_an_answer_that_is_no_good_is_no_outages_fault():
    facts = {"failures": 3, "now_ms": NOW_MS, "draw": lambda low, high: high, "outage": True}
    judged = verdict(POLICY, Outcome.TRANSIENT, retry_after_ms=0, **facts)
    assert judged.failures == 4
