"""What a limit learns: from refusals, from failures, from rounds, from a day that is over."""

import ast
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler import quota as package
from crawler.ledger.evidence import is_own, is_uneven, luck
from crawler.policy import BY_CHANCE
from crawler.quota.concurrency import narrowed, widened
from crawler.quota.gate import Failure, failed, lets_in, opened, refused, verified_at_ms
from crawler.quota.rate import CUT, FIRST_RATE, Refusal, free_starts, is_noisy, started
from crawler.quota.state import RECENT, SAMPLE, Quota, State, surprise
from crawler.quota.tokens import free_tokens, next_tokens_ms, used_tokens
from crawler.quota.window import slow_step_ms, window_cap

NOW_MS = 10_000_000
KNOWN = Quota(600, concurrency=50)
UNKNOWN = Quota(concurrency=50)
FILES = sorted(Path(package.__file__).parent.glob("*.py"))


def test_the_limiter_is_small():
    """Whoever comes new to it can read it at one go."""
    texts = [file.read_text("utf-8") for file in FILES]
    assert sum(1 for text in texts for line in text.splitlines() if line.strip()) <= 380
    assert len(State._fields) <= 16
    named = [name for text in texts for name in constants(ast.parse(text))]
    assert len(set(named) - {"WINDOW_MS", "US", "NEVER_MS"}) <= 16, named


def constants(tree):
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else []:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (name.id for name in names)


def refusal(at_ms, *, started_at_ms=None, **facts):
    started_ms = at_ms - 100 if started_at_ms is None else started_at_ms
    free_ms = at_ms + 59_000
    return Refusal(started_ms, at_ms, window_free_at_ms=free_ms, **facts)


def probed(state, quota, times, **facts):
    """Return a state after so many refused probes, and how long each was waited for, in ms."""
    pauses = []
    for _ in range(times):
        at_ms = state.gate_opens_at_ms + 100
        state = refused(state, quota, refusal(at_ms, **facts))
        pauses.append(state.gate_opens_at_ms - at_ms)
    return state, pauses


def let_in(state, quota, now_ms, ok=600, count=1):
    return opened(state, quota, ok, count, now_ms - 60_000, now_ms)


def starts_until(state, quota, until_ms, now_ms=NOW_MS):
    """Return when calls start that do so as soon as they may, and the state after that."""
    times = []
    while now_ms < until_ms:
        calls, _ = free_starts(state, quota, now_ms)
        if calls:
            state = started(state, quota, calls, now_ms, held=True)
            times += [now_ms] * calls
        now_ms = max(now_ms + 1, free_starts(state, quota, now_ms)[1])
    return times, state


def paced(rate, **facts):
    return State(tat_us=NOW_MS * 1_000, rate=rate, plateau=rate)._replace(**facts)


class TestWindow:
    def test_a_whole_window_starts_at_once_and_the_end_of_a_new_one_slowly(self):
        assert window_cap(State(), KNOWN) == 600
        assert slow_step_ms(State(), KNOWN, 0, 399) == 0
        assert slow_step_ms(State(), KNOWN, 0, 400) == 14, "75 a second"
        assert slow_step_ms(State(), KNOWN, 600, 500) == 0, "one was full before"
        assert slow_step_ms(State(), UNKNOWN, 0, 400) == 0

    def test_a_window_is_learned_where_probes_find_it_used_up(self):
        state = refused(State(), Quota(800, concurrency=9), refusal(NOW_MS))
        assert (state.gate_cause, state.gate_opens_at_ms) == ("quota", NOW_MS + 303), "of 4 starts"
        state, pauses = probed(state, Quota(800, concurrency=9), 4)
        assert pauses == [909, 2_727, 8_181, 24_543]
        state = let_in(state, Quota(800, concurrency=9), NOW_MS + 60_000)
        assert (state.gate_cause, state.tat_us) == (None, None)
        assert window_cap(state, Quota(800)) == 591, "a little less than was accepted"

    def test_few_that_were_accepted_are_no_window(self):
        state, _ = probed(refused(State(), UNKNOWN, refusal(NOW_MS)), UNKNOWN, 4)
        state = let_in(state, UNKNOWN, NOW_MS + 60_000, ok=SAMPLE - 1)
        assert state.tat_us is not None, "calls keep a distance"
        assert (state.plateau, state.window_seen_at_ms < 0) == (0, True)

    @pytest.mark.parametrize("quota", [KNOWN, UNKNOWN])
    def test_a_retry_after_alone_says_nothing_of_the_quota(self, quota):
        """One that lies costs its time, and a rate that comes back."""
        state = refused(State(), quota, refusal(NOW_MS, retry_after_ms=30_000))
        assert state.gate_opens_at_ms == NOW_MS + 30_000
        state = let_in(state, quota, NOW_MS + 30_100, ok=39)
        assert state.window_seen_at_ms < 0
        assert state.rate >= FIRST_RATE
        now_ms = NOW_MS + 30_100
        _, state = starts_until(state, quota, now_ms + 45_000, now_ms)
        assert state.rate > 550


class TestRate:
    def test_where_the_first_probe_is_let_in_calls_keep_a_distance(self):
        state = let_in(refused(State(), KNOWN, refusal(NOW_MS)), KNOWN, NOW_MS + 500, ok=60)
        assert state.plateau == KNOWN.ceiling
        assert math.isclose(state.rate, CUT * KNOWN.ceiling)
        times, _ = starts_until(state, KNOWN, NOW_MS + 10_500, now_ms=NOW_MS + 500)
        assert 80 <= len(times) <= 99

    def test_an_unknown_rate_doubles_until_a_refusal(self):
        state = let_in(refused(State(), UNKNOWN, refusal(NOW_MS)), UNKNOWN, NOW_MS, ok=7)
        assert (state.rate, state.plateau) == (FIRST_RATE, 0)
        times, state = starts_until(state, UNKNOWN, NOW_MS + 32_000)
        assert 8 * FIRST_RATE < state.rate <= 16.1 * FIRST_RATE
        assert len(times) > 100
        rate = state.rate
        found = refusal(NOW_MS + 32_100, sent=100, refused=3)
        again = state._replace(noise=0.1)
        assert refused(again, UNKNOWN, found).plateau == 0.7 * rate

    def test_a_first_refusal_says_nothing_yet_and_the_third_begins_at_a_quarter(self):
        """Calls go on as fast as before: chance shows itself by coming without regard to time."""
        state = refused(State(), UNKNOWN, refusal(NOW_MS))
        state = opened(state, UNKNOWN, 50, 1, NOW_MS - 100, NOW_MS + 400)
        fast = 1.5 * 50 * 200
        assert (state.rate, state.trial, state.noise) == (fast, fast, 0)
        late_ms = NOW_MS + 1_400
        closed = refused(state, UNKNOWN, refusal(late_ms, sent=9, refused=2))
        assert (closed.rate, closed.gate_cause) == (fast, "quota")
        again = opened(closed, UNKNOWN, 7, 2, NOW_MS + 400, late_ms + 400)
        assert (again.rate, again.gate_cause) == (fast, None)
        slow = opened(closed, UNKNOWN, 26, 3, NOW_MS + 400, late_ms + 400)
        assert math.isclose(slow.rate, 26 * 60_000 / 1_300 / 4), "of what flowed in"
        assert (slow.trial, slow.noise) == (4 * slow.rate, 3 / 29)

    def test_refusals_that_come_without_regard_to_time_are_chance(self):
        state = paced(9_000.0, plateau=0.0, trial=9_000.0)
        uneven = refusal(NOW_MS, sent=100, refused=4, uneven=True)
        state = refused(state, UNKNOWN, uneven)
        assert is_noisy(state)
        assert (state.rate, state.tat_us, state.gate_cause) == (None, None, None)

    def test_while_it_is_tested_nobody_waits(self):
        tested = paced(100.0, plateau=0.0, trial=300.0, noise=0.1)
        state = refused(tested, UNKNOWN, refusal(NOW_MS, sent=9, refused=1))
        assert (state.rate, state.gate_cause) == (75, None), "far below, until it is known"
        more = refused(tested, UNKNOWN, refusal(NOW_MS, sent=9, refused=7))
        assert (more.noise, more.gate_cause) == (0, "quota"), "more than before: it is a rate"

    def test_a_refusal_cuts_the_rate_and_it_comes_back_and_goes_beyond(self):
        cut = refused(paced(600.0), UNKNOWN, refusal(NOW_MS, sent=100, refused=1))
        state = let_in(cut, UNKNOWN, NOW_MS + 500)
        assert math.isclose(state.rate, CUT * 600)
        _, state = starts_until(state, UNKNOWN, NOW_MS + 19_000, now_ms=NOW_MS + 500)
        assert math.isclose(state.rate, 600, rel_tol=0.03)
        _, state = starts_until(state, UNKNOWN, NOW_MS + 45_000, now_ms=NOW_MS + 19_000)
        assert state.rate > 660

    def test_so_soon_after_a_cut_a_refusal_says_nothing_new(self):
        again = refusal(NOW_MS, sent=SAMPLE - 1, refused=2)
        assert refused(paced(600.0), UNKNOWN, again).rate == 600

    def test_a_known_quota_is_never_exceeded(self):
        state = let_in(refused(State(), KNOWN, refusal(NOW_MS)), KNOWN, NOW_MS, ok=60)
        _, state = starts_until(state, KNOWN, NOW_MS + 600_000)
        assert state.rate == KNOWN.ceiling

    def test_it_grows_only_while_it_holds_back_somebody(self):
        state, now_ms = paced(600.0), NOW_MS
        for _ in range(1_000):
            now_ms += 500
            state = started(state, UNKNOWN, 1, now_ms, held=False)
        assert state.rate == 600.0

    def test_a_limit_that_is_fixed_learns_nothing(self):
        fixed = Quota(600, adaptive=False)
        state, _ = probed(refused(State(), fixed, refusal(NOW_MS)), fixed, 4)
        state = let_in(state, fixed, NOW_MS + 60_000, ok=3)
        assert (state.rate, state.tat_us, window_cap(state, fixed)) == (None, None, 600)


class TestNoise:
    """A refusal is evidence of the rate only while a much lower one has fewer of them."""

    def test_as_many_at_a_quarter_of_the_rate_are_chance(self):
        state = refused(paced(400.0), UNKNOWN, refusal(NOW_MS, sent=100, refused=10))
        assert (state.trial, state.noise) == (400, 0.1)
        state = let_in(state, UNKNOWN, NOW_MS + 500)._replace(rate=90.0, cut_at_ms=NOW_MS + 600)
        found = refusal(NOW_MS + 60_000, sent=30, refused=3)
        state = refused(state, UNKNOWN, found)
        assert is_noisy(state)
        assert (state.rate, state.gate_cause) == (None, None), "no rate, and open"

    def test_fewer_at_a_lower_rate_are_a_rate(self):
        state = paced(90.0, trial=400.0, noise=0.3, plateau=110.0)
        state = refused(state, UNKNOWN, refusal(NOW_MS, sent=60, refused=1))
        assert not is_noisy(state)
        assert (state.gate_cause, state.trial) == ("quota", 0)
        assert state.rate < 90

    def test_what_noise_explains_closes_nothing_and_more_is_forgotten(self):
        noisy = State(noise=0.1)
        found = refusal(NOW_MS, sent=RECENT, refused=8)
        assert refused(noisy, UNKNOWN, found) == noisy
        state = refused(noisy, UNKNOWN, found._replace(refused=25))
        assert (state.gate_cause, state.noise) == ("quota", 0)
        assert refused(noisy, UNKNOWN, found._replace(daily=True)).gate_cause == "day"

    @pytest.mark.parametrize(("refused", "is_window"), [(1, True), (12, False)])
    def test_probes_that_are_refused_as_often_as_all_are_no_window(self, refused, is_window):
        state = State(gate_cause="quota", gate_strikes=4, gate_since_ms=NOW_MS)
        state = opened(state, UNKNOWN, 30, refused, NOW_MS - 60_000, NOW_MS + 20_000)
        assert (state.window_seen_at_ms > 0) == is_window

    @given(st.integers(1, 200), st.floats(0.01, 0.99))
    def test_what_is_expected_surprises_nobody(self, calls, share):
        hits = round(calls * share)
        assert surprise(hits, calls, hits / calls) < 1e-6
        assert surprise(hits, calls, share) >= -1e-9


class TestOwn:
    def test_what_is_refused_while_others_are_let_in_is_the_words_own(self):
        assert is_own(2, 200, 1)
        assert not is_own(2, 5, 0), "of so few nothing is known"
        assert not is_own(2, 200, 150)
        assert not is_own(1, 200, 1)
        own = refusal(NOW_MS, own=True)
        assert refused(State(), KNOWN, own) == State(), "nobody else waits"

    @given(st.integers(2, 20), st.integers(0, 300), st.integers(0, 300))
    def test_what_fails_a_word_is_far_beyond_what_makes_it_wait(self, times, others, count):
        count = min(count, others)
        assert is_own(times, others, count) or luck(times, others, count) > BY_CHANCE


class TestUneven:
    """A quota lets in as many as flow in; chance counts calls."""

    def test_as_many_in_each_time_are_a_quota(self):
        assert not is_uneven([(143, 13_956), (15, 1_449), (12, 1_192), (12, 1_170), (10, 1_037)])

    def test_now_many_and_now_few_are_chance(self):
        assert is_uneven([(50, 780), (4, 780), (120, 1_300), (2, 480)])
        assert not is_uneven([(5, 780), (1, 780)]), "of so few nothing is known"

    def test_those_in_a_row_are_a_quota(self):
        assert not is_uneven([(400, 3_000), *[(0, 300)] * 4, (2, 3_000)])
        assert not is_uneven([(0, 300)])
        assert not is_uneven([])

    @given(st.floats(0.001, 0.5), st.lists(st.integers(300, 9_000), max_size=7))
    def test_no_even_flow_is_ever_taken_for_chance(self, per_ms, times):
        assert not is_uneven([(round(per_ms * ms), ms) for ms in times])


class TestGate:
    def test_calls_that_left_before_it_closed_are_the_same_episode(self):
        state = refused(State(), KNOWN, refusal(NOW_MS))
        late = refusal(NOW_MS + 50, started_at_ms=NOW_MS - 10)
        assert refused(state, KNOWN, late) == state
        later = refused(state, KNOWN, late._replace(retry_after_ms=9_000))
        assert later == state._replace(gate_opens_at_ms=NOW_MS + 9_050)

    def test_a_day_is_tried_again_as_the_server_says_or_every_quarter_of_an_hour(self):
        state = refused(State(), KNOWN, refusal(NOW_MS, daily=True))
        assert (state.gate_cause, state.gate_opens_at_ms) == ("day", NOW_MS + 900_000)
        hinted = refused(State(), KNOWN, refusal(NOW_MS, daily=True, retry_after_ms=36_000))
        assert hinted.gate_opens_at_ms == NOW_MS + 36_000
        _, pauses = probed(hinted, KNOWN, 6, daily=True, retry_after_ms=36_000)
        assert pauses == [72_000, 144_000, 288_000, 576_000, 900_000, 900_000], "it wasn't true"
        state = let_in(hinted, KNOWN, NOW_MS + 40_000, ok=0)
        assert (state.gate_cause, state.rate) == (None, None), "a day teaches nothing of a minute"

    def test_a_quota_that_refuses_for_an_hour_is_one_of_the_day(self):
        state = refused(State(), KNOWN, refusal(NOW_MS))
        while state.gate_opens_at_ms < NOW_MS + 3_600_000:
            assert state.gate_cause == "quota"
            state, _ = probed(state, KNOWN, 1)
        assert probed(state, KNOWN, 1)[0].gate_cause == "day"

    def test_nobody_tried_for_a_night_and_the_first_refusal_makes_no_day_of_it(self):
        state = refused(State(), KNOWN, refusal(NOW_MS))
        state = refused(state, KNOWN, refusal(NOW_MS + 8 * 3_600_000))
        assert state.gate_cause == "quota"

    @pytest.mark.parametrize("cause", ["quota", "day"])
    def test_a_server_that_is_out_of_order_makes_no_outage_of_a_quota(self, cause):
        state = refused(State(), KNOWN, refusal(NOW_MS, daily=cause == "day"))
        at_ms = state.gate_opens_at_ms
        for nobody in (False, True):
            down = Failure(at_ms, at_ms + 50, words=9, nobody=nobody)
            assert failed(state, down) == state

    def test_a_day_may_be_told_by_a_call_of_an_episode_that_has_begun(self):
        state = refused(State(), KNOWN, refusal(NOW_MS))
        late = refusal(NOW_MS + 50, started_at_ms=NOW_MS - 10, daily=True)
        state = refused(state, KNOWN, late)
        assert (state.gate_cause, state.gate_opens_at_ms) == ("day", NOW_MS + 50 + 900_000)

    def test_a_probe_has_been_let_in_when_a_refusal_would_have_come(self):
        for cause in ("day", "outage"):
            assert verified_at_ms(State(gate_cause=cause), NOW_MS, 100) is None
        closed = State(gate_cause="quota")
        assert verified_at_ms(closed, NOW_MS, 100) == NOW_MS + 350
        assert verified_at_ms(closed, NOW_MS, 1_500) == NOW_MS + 3_050, "refusals that take long"


def row(words, before=0, failures=0, *, lasted_ms=300, left=1_000):
    """Return a failure that ends a row of them."""
    return Failure(
        NOW_MS, NOW_MS + 10, words, left, NOW_MS - 50, NOW_MS + 10 - lasted_ms, before, failures
    )


class TestOutage:
    @pytest.mark.parametrize(
        ("words", "before", "failures", "outage"),
        [
            (10, 0, 0, False),
            (11, 0, 0, True),  # where nothing is known, half may fail by chance
            (1, 48, 0, False),
            (2, 48, 0, True),
            (5, 48, 33, False),  # 70 % always fail
            (20, 48, 33, True),
            (60, 48, 45, False),
        ],
    )
    def test_it_is_more_failures_in_a_row_than_chance_has(self, words, before, failures, outage):
        found = failed(State(), row(words, before, failures))
        assert (found.gate_cause == "outage") == outage

    def test_a_moment_is_no_outage(self):
        assert failed(State(), row(50, lasted_ms=299)).gate_cause is None

    def test_all_that_are_left_are_enough(self):
        assert failed(State(), row(2, left=2)).gate_cause == "outage"
        assert failed(State(), row(1, left=1)).gate_cause is None, "it may be the word's own"

    def test_it_is_tried_ever_more_slowly(self):
        state, pauses = State(), []
        for _ in range(6):
            at_ms = max(NOW_MS, state.gate_opens_at_ms + 100)
            failure = Failure(at_ms, at_ms, words=50, first_ended_at_ms=0)
            state = failed(state, failure)
            pauses.append(state.gate_opens_at_ms - at_ms)
        assert pauses == [2_000, 3_000, 4_500, 6_750, 10_000, 10_000]

    def test_any_call_that_began_in_it_and_was_let_in_ends_it(self):
        state = failed(State(), row(50))
        assert lets_in(state, NOW_MS - 50), "when the first of the row began"
        assert not lets_in(state, NOW_MS - 51)
        quota = refused(State(), KNOWN, refusal(NOW_MS))
        assert not lets_in(quota, NOW_MS - 50), "a quota is tried by a probe"

    def test_a_refusal_ends_it_for_there_is_somebody(self):
        state = failed(State(), Failure(NOW_MS, NOW_MS, nobody=True))
        assert state.gate_cause == "outage", "nobody there: one is enough"
        state = refused(state, KNOWN, refusal(NOW_MS + 2_200, started_at_ms=NOW_MS + 2_100))
        assert (state.gate_cause, state.gate_strikes) == ("quota", 1)


class TestConcurrency:
    def test_it_grows_while_a_step_pays_and_goes_back_where_it_does_not(self):
        state = widened(State(), 20, 0, NOW_MS - 2_000, 10, NOW_MS)
        assert (int(state.width), state.speed) == (13, 600)
        paid = widened(state, 26, 0, NOW_MS, 13, NOW_MS + 2_000)
        assert int(paid.width) == 21, "two steps, where it is nearly proportional"
        vain = widened(state, 26, 0, NOW_MS, 13, NOW_MS + 2_600)
        assert (int(vain.width), vain.speed) == (10, -600)

    def test_a_round_that_is_not_over_or_did_not_use_it_says_nothing(self):
        assert widened(State(), 19, 0, NOW_MS - 2_000, 10, NOW_MS) == State()
        idle = widened(State(), 20, 0, NOW_MS - 2_000, 7, NOW_MS)
        assert idle == State(round_at_ms=NOW_MS)

    def test_it_never_wants_more_files_than_may_be_open(self):
        wide = State(width=450.0, speed=600.0)
        assert widened(wide, 900, 0, NOW_MS - 2_000, 450, NOW_MS).width == 500

    def test_failures_stop_growth_and_cut_nothing(self):
        state = widened(State(), 20, 5, NOW_MS - 2_000, 10, NOW_MS)
        assert int(state.width) == 10

    def test_a_refusal_at_full_width_cuts_the_width_and_not_the_rate(self):
        auto = Quota()
        state = refused(paced(600.0), auto, refusal(NOW_MS, in_flight=10, sent=100, refused=1))
        assert (state.rate, int(state.width), state.gate_cause) == (600, 9, "quota")
        assert state == refused(paced(600.0), auto, refusal(NOW_MS, in_flight=10)), "whatever else"
        fewer = refused(paced(600.0), auto, refusal(NOW_MS, in_flight=5, sent=100, refused=1))
        assert (fewer.rate, fewer.width) == (CUT * 600, 10)
        fixed = refused(paced(600.0), KNOWN, refusal(NOW_MS, in_flight=50, sent=99, refused=1))
        assert (fixed.rate, fixed.width) == (CUT * 600, 10)

    def test_after_that_it_waits_for_a_minute(self):
        state = narrowed(State(width=40.0, speed=900.0), 40, NOW_MS)
        assert (int(state.width), state.speed, state.round_at_ms) == (37, 0, NOW_MS + 60_000)


@given(
    tokens=st.integers(1, 10**6),
    sizes=st.lists(st.integers(1, 5_000), min_size=20, max_size=60),
    errors=st.lists(st.floats(0.2, 1.0), min_size=60, max_size=60),
)
def test_no_minute_uses_more_tokens_than_the_limit(tokens, sizes, errors):
    """Where estimates are never too low; a call may begin when the last token has flowed in."""
    quota = Quota(tokens_per_minute=tokens)
    state, now_ms, used = State(), NOW_MS, []
    for size, error in zip(sizes, errors, strict=False):
        if free_tokens(state, quota, now_ms) == 0:
            now_ms = next_tokens_ms(state)
        assert free_tokens(state, quota, now_ms) > 0
        state = used_tokens(state, quota, size, now_ms)
        actual = max(1, int(size * error))
        state = used_tokens(state, quota, actual - size, now_ms)
        used.append((now_ms, actual))
    for at_ms, _ in used:
        within = [n for when, n in used if at_ms <= when < at_ms + 60_000]
        # The last one may reach beyond the minute: what it has too much, the next one waits for.
        assert sum(within[:-1]) <= tokens * 60_100 / 60_600 + 1


@given(rate=st.floats(1.2, 10**6), at=st.lists(st.integers(0, 3_000), min_size=1, max_size=50))
def test_an_even_pace_is_never_exceeded(rate, at):
    state, quota, now_ms, times = paced(rate), Quota(adaptive=False), NOW_MS, []
    for pause_ms in at:
        now_ms += pause_ms
        calls, _ = free_starts(state, quota, now_ms)
        if calls:
            state = started(state, quota, calls, now_ms, held=True)
            times.append((now_ms, calls))
    for n, (first, _) in enumerate(times):
        calls = 0
        for last, more in times[n:]:
            calls += more
            assert calls <= (last - first + 50) * rate / 60_000 + 2


steps = st.tuples(
    st.sampled_from(["start", "refuse", "fail", "answer", "daily", "hint", "round"]),
    st.integers(0, 30_000),
    st.integers(0, 60),
)


@given(
    history=st.lists(steps, max_size=80),
    quota=st.sampled_from([KNOWN, UNKNOWN, Quota(), Quota(60), Quota(5, adaptive=False)]),
)
def test_whatever_happens_it_keeps_its_promises(history, quota):
    """The rate stays within its bounds, and a closed gate always says when it opens."""
    state, now_ms, started_ms = State(), NOW_MS, NOW_MS
    for step, pause_ms, count in history:
        now_ms += pause_ms
        match step:
            case "start":
                started_ms = now_ms
                state = started(state, quota, 1, now_ms, held=True)
            case "answer" if lets_in(state, started_ms):
                state = let_in(state, quota, now_ms, ok=count)
            case "fail":
                words, since_ms = count // 3, now_ms - 400
                state = failed(
                    state, Failure(started_ms, now_ms, words, 99, since_ms, since_ms, 9, 1)
                )
            case "round":
                state = widened(state, count, count // 9, now_ms - 1_000, count, now_ms)
            case "refuse" | "daily" | "hint":
                facts = {"daily": step == "daily", "in_flight": count, "own": count > 55}
                facts |= {"retry_after_ms": 7_000} if step == "hint" else {}
                facts |= {"sent": count, "refused": count // 2 + 1 if count else 0}
                facts |= {"uneven": count % 7 == 6}
                state = refused(state, quota, refusal(now_ms, started_at_ms=started_ms, **facts))
        holds(state, quota, now_ms)


def holds(state, quota, now_ms):
    if state.rate is not None:
        assert 1.2 * CUT - 1e-9 <= state.rate <= quota.ceiling
    assert quota.adaptive or state.rate is None
    assert state.tat_us is None or state.rate is not None
    assert state.width >= 1
    if state.gate_cause is not None:
        assert state.gate_closed_at_ms < state.gate_opens_at_ms <= now_ms + 900_000
        assert state.gate_strikes >= 1
    else:
        assert state.gate_opens_at_ms == 0
    assert (window_cap(state, quota) or 1) <= (quota.per_minute or math.inf)


def test_a_state_is_a_row():
    assert all(isinstance(value, int | float | str | None) for value in State())
