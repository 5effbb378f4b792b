"""What a limit learns: from refusals, from failures, from a day that is over."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from crawler.quota import learning
from crawler.quota import pace as paces
from crawler.quota.learning import Refusal, answered, failed, opened, refused
from crawler.quota.pace import (
    Pace,
    Quota,
    free_starts,
    free_tokens,
    most_in_flight,
    next_start_ms,
    next_tokens_ms,
    started,
    used_tokens,
    window_cap,
)

NOW_MS = 10_000_000
KNOWN = Quota(600)
UNKNOWN = Quota()


def refusal(at_ms, *, started_at_ms=None, retry_after_ms=None, daily=False, accepted=600):
    return Refusal(
        started_at_ms=at_ms - 100 if started_at_ms is None else started_at_ms,
        finished_at_ms=at_ms,
        reason="429",
        retry_after_ms=retry_after_ms,
        daily=daily,
        accepted=accepted,
        window_free_at_ms=at_ms + 59_000,
    )


def probed(pace, quota, times, **facts):
    """Return a pace after so many refused probes, and how long each was waited for, in ms."""
    pauses = []
    for _ in range(times):
        at_ms = pace.gate_opens_at_ms + 100
        pace = refused(pace, quota, refusal(at_ms, **facts))
        pauses.append(pace.gate_opens_at_ms - at_ms)
    return pace, pauses


def starts_until(pace, quota, until_ms, now_ms=NOW_MS):
    """Return when calls start that do so as soon as they may, and the pace after that."""
    times = []
    while now_ms < until_ms:
        calls = free_starts(pace, quota, now_ms)
        assert calls is not None
        if calls:
            pace = started(pace, quota, calls, now_ms, held=True)
            times += [now_ms] * calls
        now_ms = max(now_ms + 1, next_start_ms(pace, quota, now_ms))
    return times, pace


def paced(rate, quota=UNKNOWN, **facts):
    return Pace(bursting=False, rate=rate, plateau=rate, grown_at_ms=NOW_MS, **facts)


def test_a_known_window_starts_within_seconds_and_begins_and_ends_gently():
    times, _ = starts_until(Pace(), KNOWN, NOW_MS + 4_000)
    assert times[399] < NOW_MS + 1_100
    assert times[599] < NOW_MS + 4_000
    assert sum(at < NOW_MS + 100 for at in times) <= 5, "a server out of order can say so"
    last = [at for at in times[:600] if at >= times[450]]
    assert len([at for at in last if at < times[450] + 100]) <= 12, "a limit may be too high"


def test_the_first_refusals_teach_a_window_where_probes_find_it_used_up():
    pace = refused(Pace(), Quota(800), refusal(NOW_MS))
    assert (pace.gate_cause, pace.gate_opens_at_ms) == ("quota", NOW_MS + 303), "of 4 starts"
    pace, pauses = probed(pace, Quota(800), 4)
    assert pauses == [909, 2_727, 8_181, 24_543]
    pace = opened(pace, Quota(800), 600, NOW_MS + 60_000)
    assert (pace.gate_cause, pace.bursting, window_cap(pace, Quota(800))) == (None, True, 600)


def test_the_first_refusals_teach_an_even_pace_where_the_first_probe_is_let_in():
    pace = opened(refused(Pace(), KNOWN, refusal(NOW_MS)), KNOWN, 60, NOW_MS + 500)
    assert not pace.bursting
    assert pace.plateau == KNOWN.ceiling
    assert math.isclose(pace.rate, 0.85 * KNOWN.ceiling)
    times, _ = starts_until(pace, KNOWN, NOW_MS + 10_500, now_ms=NOW_MS + 500)
    assert 80 <= len(times) <= 99


def test_of_an_unknown_quota_that_takes_no_bursts_the_rate_doubles_until_a_refusal():
    pace = opened(refused(Pace(), UNKNOWN, refusal(NOW_MS, accepted=7)), UNKNOWN, 7, NOW_MS)
    assert (pace.rate, pace.doubling) == (learning.FIRST_RATE, True)
    times, pace = starts_until(pace, UNKNOWN, NOW_MS + 32_000)
    assert 8 * learning.FIRST_RATE < pace.rate <= 16.1 * learning.FIRST_RATE
    assert len(times) > 100
    at_ms = NOW_MS + 32_100
    pace = refused(pace, UNKNOWN, refusal(at_ms, accepted=300))
    assert not pace.doubling
    assert pace.rate < 0.7 * 16.1 * learning.FIRST_RATE


def test_few_that_were_accepted_are_no_window():
    pace = refused(Pace(), UNKNOWN, refusal(NOW_MS, accepted=2))
    pace, _ = probed(pace, UNKNOWN, 4, accepted=2)
    pace = opened(pace, UNKNOWN, 0, NOW_MS + 60_000)
    assert (pace.bursting, pace.rate) == (False, learning.FIRST_RATE)


def test_a_refusal_cuts_the_rate_and_it_comes_back_and_goes_beyond():
    before = paced(600.0, starts_since_cut=100, young=False)
    pace = opened(refused(before, UNKNOWN, refusal(NOW_MS)), UNKNOWN, 590, NOW_MS + 500)
    assert math.isclose(pace.rate, 0.85 * 600)
    _, pace = starts_until(pace, UNKNOWN, NOW_MS + 16_000, now_ms=NOW_MS + 500)
    assert math.isclose(pace.rate, 600, rel_tol=0.02)
    _, pace = starts_until(pace, UNKNOWN, NOW_MS + 40_000, now_ms=NOW_MS + 16_000)
    assert pace.rate > 660


def test_a_known_quota_is_never_exceeded_by_the_rate():
    pace = opened(refused(Pace(), KNOWN, refusal(NOW_MS)), KNOWN, 60, NOW_MS)
    _, pace = starts_until(pace, KNOWN, NOW_MS + 600_000)
    assert pace.rate == KNOWN.ceiling


def test_calls_that_left_before_the_gate_closed_are_the_same_episode():
    pace = refused(Pace(), KNOWN, refusal(NOW_MS))
    again = refused(pace, KNOWN, refusal(NOW_MS + 50, started_at_ms=NOW_MS - 10))
    assert again.gate_opens_at_ms == pace.gate_opens_at_ms
    assert again.gate_strikes == 1
    hinted = refused(
        pace, KNOWN, refusal(NOW_MS + 50, started_at_ms=NOW_MS - 10, retry_after_ms=9_000)
    )
    assert hinted.gate_opens_at_ms == NOW_MS + 9_050


def test_the_server_says_when_to_come_back():
    pace = refused(Pace(), KNOWN, refusal(NOW_MS, retry_after_ms=41_000))
    assert pace.gate_opens_at_ms == NOW_MS + 41_000
    assert opened(pace, KNOWN, 600, NOW_MS + 41_100).bursting, "a long hint shows a window"


def test_a_limit_that_is_fixed_learns_nothing():
    fixed = Quota(600, adaptive=False)
    pace = refused(Pace(), fixed, refusal(NOW_MS))
    assert pace.gate_cause == "quota"
    pace, _ = probed(pace, fixed, 4)
    pace = opened(pace, fixed, 3, NOW_MS + 60_000)
    assert (pace.rate, pace.bursting, window_cap(pace, fixed)) == (None, True, 600)
    assert free_starts(pace, fixed, NOW_MS) is None


def test_a_day_that_is_used_up_is_looked_at_again_as_the_server_says_or_every_quarter_of_an_hour():
    pace = refused(Pace(), KNOWN, refusal(NOW_MS, daily=True))
    assert (pace.gate_cause, pace.gate_opens_at_ms) == ("day", NOW_MS + 900_000)
    hinted = refused(Pace(), KNOWN, refusal(NOW_MS, daily=True, retry_after_ms=36_000))
    assert hinted.gate_opens_at_ms == NOW_MS + 36_000
    _, pauses = probed(hinted, KNOWN, 6, daily=True, retry_after_ms=36_000)
    assert pauses == [72_000, 144_000, 288_000, 576_000, 900_000, 900_000], "it wasn't true"
    reopened = opened(hinted, KNOWN, 0, NOW_MS + 40_000)
    assert (reopened.gate_cause, reopened.rate) == (None, None), "a day teaches nothing of a minute"


def test_a_quota_that_refuses_for_an_hour_is_one_of_the_day():
    pace = refused(Pace(), KNOWN, refusal(NOW_MS))
    while pace.gate_opens_at_ms < NOW_MS + 3_600_000:
        assert pace.gate_cause == "quota"
        pace, _ = probed(pace, KNOWN, 1, accepted=0)
    assert probed(pace, KNOWN, 1)[0].gate_cause == "day"


def fail(pace, at_ms, *, refused_connection=False):
    return failed(pace, at_ms - 10, "503", refused=refused_connection, now_ms=at_ms)


def test_five_failures_in_a_row_are_an_outage_and_probes_come_ever_slower():
    pace = Pace()
    for n in range(4):
        pace = fail(pace, NOW_MS + n)
        assert pace.gate_cause is None
    pace = fail(pace, NOW_MS + 4)
    assert pace.gate_cause == "outage"
    pauses = [pace.gate_opens_at_ms - NOW_MS - 4]
    for _ in range(5):
        at_ms = pace.gate_opens_at_ms + 100
        pace = fail(pace, at_ms)
        pauses.append(pace.gate_opens_at_ms - at_ms)
    assert pauses == [2_000, 3_000, 4_500, 6_750, 10_000, 10_000]


def test_an_answer_ends_the_row_and_a_probes_answer_the_outage():
    pace = Pace()
    for n in range(20):
        pace = fail(pace, NOW_MS + n)
        pace = answered(pace, KNOWN, NOW_MS + n, 0, NOW_MS + n)
    assert pace.gate_cause is None
    pace = fail(pace, NOW_MS + 100, refused_connection=True)
    assert pace.gate_cause == "outage", "nobody there: one is enough"
    late = answered(pace, KNOWN, NOW_MS, 0, NOW_MS + 200)
    assert late.gate_cause == "outage", "it left before the gate closed"
    assert answered(pace, KNOWN, NOW_MS + 2_200, 0, NOW_MS + 2_300).gate_cause is None


def test_a_refusal_ends_an_outage_for_there_is_somebody():
    pace = fail(Pace(), NOW_MS, refused_connection=True)
    pace = refused(pace, KNOWN, refusal(NOW_MS + 2_200, started_at_ms=NOW_MS + 2_100))
    assert (pace.gate_cause, pace.gate_strikes) == ("quota", 1)


def test_a_server_of_which_nothing_is_known_gets_a_flight_that_doubles():
    assert most_in_flight(Pace(), UNKNOWN) == 10
    assert most_in_flight(Pace(served=37), UNKNOWN) == 37
    assert most_in_flight(Pace(served=paces.MOST_SERVED), UNKNOWN) is None
    assert most_in_flight(Pace(), KNOWN) is None
    assert most_in_flight(Pace(), Quota(adaptive=False)) is None
    assert most_in_flight(paced(100.0), UNKNOWN) is None


@given(
    tokens=st.integers(1, 10**6),
    sizes=st.lists(st.integers(1, 5_000), min_size=20, max_size=60),
    errors=st.lists(st.floats(0.2, 1.0), min_size=60, max_size=60),
)
def test_no_minute_uses_more_tokens_than_the_limit(tokens, sizes, errors):
    """Where estimates are never too low; a call may begin when the last token has flowed in."""
    quota = Quota(tokens_per_minute=tokens)
    pace, now_ms, used = Pace(), NOW_MS, []
    for size, error in zip(sizes, errors, strict=False):
        if free_tokens(pace, quota, now_ms) == 0:
            now_ms = next_tokens_ms(pace)
        assert free_tokens(pace, quota, now_ms) > 0
        pace = used_tokens(pace, quota, size, now_ms)
        actual = max(1, int(size * error))
        pace = used_tokens(pace, quota, actual - size, now_ms)
        used.append((now_ms, actual))
    for at_ms, _ in used:
        within = [n for when, n in used if at_ms <= when < at_ms + 60_000]
        # The last one may reach beyond the minute: what it has too much, the next one waits for.
        assert sum(within[:-1]) <= tokens * 60_100 / 60_600 + 1


rates = st.floats(1.2, 10**6)


@given(rate=rates, at=st.lists(st.integers(0, 3_000), min_size=1, max_size=50))
def test_an_even_pace_is_never_exceeded(rate, at):
    pace, quota, now_ms, times = paced(rate), Quota(adaptive=False), NOW_MS, []
    for pause_ms in at:
        now_ms += pause_ms
        calls = free_starts(pace, quota, now_ms)
        if calls:
            pace = started(pace, quota, calls, now_ms, held=True)
            times.append((now_ms, calls))
    for n, (first, _) in enumerate(times):
        calls = 0
        for last, more in times[n:]:
            calls += more
            assert calls <= (last - first + 50) * rate / 60_000 + 2


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["start", "refuse", "fail", "answer", "daily", "hint"]),
            st.integers(0, 30_000),
        ),
        max_size=80,
    ),
    quota=st.sampled_from([KNOWN, UNKNOWN, Quota(60), Quota(5, adaptive=False)]),
)
def test_whatever_happens_it_keeps_its_promises(steps, quota):
    """The rate stays within its bounds, and a closed gate always says when it opens."""
    pace, now_ms, started_at_ms = Pace(), NOW_MS, NOW_MS
    for step, pause_ms in steps:
        now_ms += pause_ms
        match step:
            case "start":
                started_at_ms = now_ms
                pace = started(pace, quota, 1, now_ms, held=True)
            case "answer":
                pace = answered(pace, quota, started_at_ms, 10, now_ms)
            case "fail":
                pace = failed(pace, started_at_ms, "503", refused=False, now_ms=now_ms)
            case _:
                facts = {"daily": step == "daily"}
                facts |= {"retry_after_ms": 7_000} if step == "hint" else {}
                found = refusal(now_ms, started_at_ms=started_at_ms, accepted=50, **facts)
                pace = refused(pace, quota, found)
        if pace.rate is not None:
            assert learning.FEWEST * paces.CUT - 1e-9 <= pace.rate <= quota.ceiling
        assert quota.adaptive or pace.rate is None
        if pace.gate_cause is not None:
            assert pace.gate_closed_at_ms < pace.gate_opens_at_ms <= now_ms + 900_000
            assert pace.gate_strikes >= 1
        else:
            assert pace.gate_opens_at_ms == 0
        assert (window_cap(pace, quota) or 1) <= (quota.per_minute or math.inf)


def test_a_pace_is_a_row():
    assert not dataclasses.is_dataclass(Pace)
    assert all(isinstance(value, int | float | str | None) for value in Pace())


def test_a_rate_grows_only_while_it_holds_back_somebody():
    pace = paced(600.0, young=False)
    now_ms = NOW_MS
    for _ in range(10_000):
        now_ms += 500
        pace = started(pace, UNKNOWN, 1, now_ms, held=False)
    assert pace.rate == 600.0


def test_a_day_that_is_over_is_found_by_an_answer_and_not_by_silence():
    for cause in ("day", "outage"):
        assert learning.verified_at_ms(Pace(gate_cause=cause), NOW_MS) is None
    assert learning.verified_at_ms(Pace(gate_cause="quota", refusal_ms=100), NOW_MS) == NOW_MS + 250


def test_nobody_tried_for_a_night_and_the_first_refusal_makes_no_day_of_it():
    pace = refused(Pace(), KNOWN, refusal(NOW_MS))
    pace = refused(pace, KNOWN, refusal(NOW_MS + 8 * 3_600_000))
    assert pace.gate_cause == "quota"
    pace = fail(Pace(), NOW_MS, refused_connection=True)
    pace = fail(pace, NOW_MS + 8 * 3_600_000)
    assert pace.gate_since_ms > NOW_MS + 7 * 3_600_000


def test_a_day_may_be_told_by_a_call_of_an_episode_that_has_begun():
    pace = refused(Pace(), KNOWN, refusal(NOW_MS))
    pace = refused(pace, KNOWN, refusal(NOW_MS + 50, started_at_ms=NOW_MS - 10, daily=True))
    assert (pace.gate_cause, pace.gate_opens_at_ms) == ("day", NOW_MS + 50 + 900_000)
