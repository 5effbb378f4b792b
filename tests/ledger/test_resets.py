"""What is counted begins again at nothing, and what was said a second time holds a second time."""

import pytest

from crawler.ledger import control, intake
from crawler.policy import Policy
from crawler.states import Outcome
from tests import expected
from tests.conftest import Ledger

OUTAGE_AFTER = 11
"""Where nothing is known of the server: half of its calls may fail by chance, not so many."""


def end(ledger, *outcomes, **facts):
    """Ask about as many fresh words, and end the calls in this order; return the last turn.

    What has failed is not due again, so that it never comes in between.
    """
    done = None
    for outcome in outcomes:
        (lease,) = ledger.turn(budget=1).leases
        ledger.now_ms += 40
        pause = {"retry_after_ms": 10**9} if outcome == "transient" else {}
        ended = ledger.finish(lease, Outcome(outcome), **pause | facts)
        done = ledger.turn(ended, budget=0)
    return done


@pytest.fixture
def many(ledger):
    """A ledger with words enough, that keeps no pace."""
    ledger.fix(1_000)
    ledger.add(map(str, range(100)))
    return ledger


def gate(ledger):
    return ledger.row("SELECT gate_cause, gate_strikes, gate_opens_at_ms, gate_reason FROM limits")


OPEN = (None, 0, 0, None)


class TestFailuresInARow:
    """No success among several different words over a time; whatever serves begins a new row."""

    def test_ten_are_none_and_the_eleventh_is_one(self, many):
        assert end(many, *["transient"] * (OUTAGE_AFTER - 1)).gate.cause == ""
        assert end(many, "transient").gate.cause == "outage"

    def test_where_a_server_seldom_fails_two_are_one(self, many):
        end(many, *["succeeded"] * 60)
        assert end(many, "transient").gate.cause == ""
        many.now_ms += 300
        assert end(many, "transient").gate.cause == "outage"

    def test_so_many_at_one_moment_are_none(self, many):
        leases = many.turn(budget=10).leases
        many.now_ms += 100
        ends = [many.finish(lease, Outcome.TRANSIENT, status_code=503) for lease in leases]
        assert many.turn(*ends, budget=0).gate.cause == ""

    def test_calls_lost_with_one_connection_are_one_failure(self, many):
        end(many, *["succeeded"] * 60)
        end(many, "transient")
        many.now_ms += 400
        leases = many.turn(budget=10).leases
        many.now_ms += 100
        lost = [many.finish(one, Outcome.TRANSIENT, reason_code="transient") for one in leases]
        control.set_concurrency(many.conn, "quota", 30)
        assert many.turn(*lost, budget=0).gate.cause == "outage", "the second failure of a row"
        control.end_outage(many.conn, many.now_ms)
        end(many, "succeeded")
        leases = many.turn(budget=10).leases
        many.now_ms += 400
        lost = [many.finish(one, Outcome.TRANSIENT, reason_code="transient") for one in leases]
        assert many.turn(*lost, budget=0).gate.cause == ""

    def test_a_call_that_is_still_out_is_no_failure_yet(self, many):
        """Whatever started after it is not known to be an outage."""
        end(many, *["succeeded"] * 60)
        slow = many.turn(budget=1).leases[0]
        many.now_ms += 1
        assert end(many, *["transient"] * 20).gate.cause == ""
        many.turn(many.finish(slow, Outcome.SUCCEEDED), budget=0)
        assert end(many, "transient").gate.cause == "outage"

    def test_an_answer_begins_a_new_row(self, many):
        done = end(many, *["transient"] * 9, "succeeded", *["transient"] * 1)
        assert done.gate.cause == ""

    @pytest.mark.parametrize("outcome", sorted(expected.OUTCOMES - {"transient", "unavailable"}))
    def test_each_outcome_ends_the_row_or_says_nothing_of_it(self, many, outcome):
        end(many, *["transient"] * (OUTAGE_AFTER - 1), outcome)
        many.conn.execute("UPDATE limits SET gate_cause = NULL, gate_opens_at_ms = 0")
        serves = outcome in expected.OPENS_GATE or outcome == "throttled"
        assert end(many, "transient").gate.cause == ("" if serves else "outage")

    def test_an_answer_that_is_no_good_is_one_all_the_same(self, many):
        end(many, *["transient"] * (OUTAGE_AFTER - 1))
        end(many, "transient", retry_after_ms=0)
        assert end(many, "transient").gate.cause == ""

    def test_a_request_that_fails_again_is_one_word(self, many):
        (lease,) = many.turn(budget=1).leases
        for _ in range(12):
            done = many.turn(many.finish(lease, Outcome.TRANSIENT), budget=0)
            many.now_ms += 61_000
            lease = next(one for one in many.turn(budget=1).leases if one.word == lease.word)
        assert done.gate.cause == ""

    def test_a_busy_pool_that_lets_nobody_in_is_an_outage(self, many):
        busy = {"reason_code": "overloaded", "retry_after_ms": 10**9}
        done = end(many, *["throttled"] * (OUTAGE_AFTER - 1), **busy)
        assert done.gate.cause == "", "a busy pool says nothing of a quota"
        assert end(many, "throttled", **busy).gate.cause == "outage"
        assert many.row("SELECT max(failures) FROM requests") == (0,), "and no word pays"


class TestEndOfAnOutage:
    def outage(self, many):
        """Have calls fail until that is an outage."""
        for _ in range(OUTAGE_AFTER):
            if end(many, "transient", reason="503").gate.cause:
                return
        raise AssertionError("it is none")

    def probe(self, many, outcome, **facts):
        many.now_ms = gate(many)[2]
        return end(many, outcome, **facts)

    @pytest.mark.parametrize("outcome", sorted(expected.OUTCOMES))
    def test_whoever_lets_a_call_in_is_there_again(self, many, outcome):
        self.outage(many)
        before = gate(many)
        self.probe(many, outcome)
        if outcome in expected.OPENS_GATE - {"transient"}:
            assert gate(many) == OPEN
        elif outcome == "throttled":
            assert gate(many)[0] == "quota", "there is somebody, though he refuses"
        elif outcome in ("transient", "unavailable"):
            assert gate(many)[:2] == ("outage", 2)
            assert gate(many)[2] == many.now_ms + 3_000
        else:
            assert gate(many) == before

    def test_a_probe_whose_answer_is_no_good_was_let_in(self, many):
        self.outage(many)
        self.probe(many, "transient", retry_after_ms=0)
        assert gate(many) == OPEN

    @pytest.mark.parametrize("how", ["a probe", "the end of the run"])
    def test_after_it_one_failure_is_one(self, many, how):
        self.outage(many)
        if how == "a probe":
            self.probe(many, "succeeded")
        else:
            control.end_outage(many.conn, many.now_ms)
        end(many, "succeeded")
        end(many, "transient")
        assert gate(many) == OPEN

    def test_any_success_is_the_end_of_it(self, many):
        """It may have been in flight since before: if it began when others failed, it will do."""
        end(many, *["succeeded"] * 60)
        flying = many.turn(budget=3).leases
        many.now_ms += 100
        first, second = (many.finish(one, Outcome.TRANSIENT) for one in flying[:2])
        many.turn(first, budget=0)
        many.now_ms += 400
        many.turn(second._replace(finished_at_ms=many.now_ms), budget=0)
        assert gate(many)[0] == "outage"
        many.now_ms += 400
        many.turn(many.finish(flying[2], Outcome.SUCCEEDED), budget=0)
        assert gate(many) == OPEN

    def test_a_second_outage_is_as_the_first(self, many):
        pauses = []
        for _ in range(2):
            self.outage(many)
            closed_ms, since_ms = many.row("SELECT gate_closed_at_ms, gate_since_ms FROM limits")
            assert since_ms < closed_ms == many.now_ms
            pauses.append(gate(many)[2] - many.now_ms)
            self.probe(many, "transient")
            self.probe(many, "succeeded")
            many.now_ms += 10_000
            end(many, *["succeeded"] * 20)
        assert pauses == [2_000, 2_000]

    @pytest.mark.parametrize("setting", ["per_minute", "tokens_per_minute", "adaptive"])
    def test_a_limit_that_is_set_in_it_is_tried_no_faster(self, many, setting):
        self.outage(many)
        self.probe(many, "unavailable")
        many.now_ms += 1
        if setting == "adaptive":
            control.set_adaptive(many.conn, "quota", many.now_ms, adaptive=True)
        else:
            change = getattr(control, f"set_{setting}")
            change(many.conn, "quota", 2_000, many.now_ms)
        end(many, "unavailable")
        assert gate(many)[:2] == ("outage", 3)
        assert gate(many)[2] == many.now_ms + 4_500, "half as long again as the last time"

    def test_the_time_when_it_began_stays_while_it_lasts(self, many):
        began_ms = many.now_ms
        self.outage(many)
        since_ms = began_ms
        for _ in range(3):
            done = self.probe(many, "unavailable")
        assert (done.gate.since_ms, done.gate.strikes) == (since_ms, 4)

    def test_nobody_who_left_before_it_makes_it_longer(self, many):
        end(many, *["transient"] * (OUTAGE_AFTER - 1))
        last, straggler = many.turn(budget=2).leases
        many.now_ms += 1
        ended = many.finish(last, Outcome.TRANSIENT, reason="503")
        assert many.turn(ended, budget=0).gate.cause == "outage"
        before = gate(many)
        many.now_ms += 100
        many.turn(many.finish(straggler, Outcome.UNAVAILABLE, reason="another"), budget=0)
        assert gate(many) == before


class TestClosedGate:
    def refused(self, many, **facts):
        """Have a call refused while two others are in flight; return those."""
        first, *others = many.turn(budget=3).leases
        many.now_ms += 50
        many.turn(many.finish(first, Outcome.THROTTLED, reason="slow", **facts), budget=0)
        return others

    def test_a_straggler_that_asks_for_less_changes_nothing(self, many):
        straggler, _ = self.refused(many, retry_after_ms=60_000)
        before = gate(many)
        many.now_ms += 100
        many.turn(many.finish(straggler, Outcome.THROTTLED, retry_after_ms=1_000), budget=0)
        assert gate(many) == before
        assert before[2] == many.now_ms - 100 + 60_000

    def test_a_straggler_that_asks_for_more_is_heard(self, many):
        straggler, _ = self.refused(many, retry_after_ms=1_000)
        many.now_ms += 100
        many.turn(many.finish(straggler, Outcome.THROTTLED, retry_after_ms=60_000), budget=0)
        assert gate(many)[1:3] == (1, many.now_ms + 60_000)

    def test_a_straggler_that_asks_for_nothing_changes_nothing(self, many):
        straggler, _ = self.refused(many, retry_after_ms=5_000)
        before = gate(many)
        many.now_ms += 4_000
        many.turn(many.finish(straggler, Outcome.THROTTLED), budget=0)
        assert gate(many) == before

    def test_a_straggler_that_is_answered_does_not_open_it(self, many):
        straggler, other = self.refused(many)
        before = gate(many)
        many.now_ms += 100
        many.turn(many.finish(straggler, Outcome.SUCCEEDED), budget=0)
        many.turn(many.finish(other, Outcome.BLOCKED), budget=0)
        assert gate(many) == before

    def test_after_it_has_opened_the_first_refusal_is_the_first(self, many):
        for _ in range(2):
            self.refused(many)
            assert gate(many)[1] == 1
            many.now_ms = gate(many)[2]
            end(many, "throttled")
            assert gate(many)[1] == 2
            many.now_ms = gate(many)[2]
            end(many, "succeeded")
            assert gate(many) == OPEN
            many.now_ms += 5_000

    def test_a_resume_lets_a_call_try_and_leaves_the_rest_to_it(self, many):
        self.refused(many, retry_after_ms=60_000)
        assert many.turn().leases == []
        many.now_ms += 1
        control.resume(many.conn, "quota", many.now_ms)
        assert len(many.turn().leases) == 1
        assert many.turn().leases == []
        assert gate(many)[0] == "quota", "it is tried, and not yet open"

    def test_a_resume_in_the_moment_of_its_closing_lets_one_call_try_too(self, many):
        self.refused(many, retry_after_ms=60_000)
        control.resume(many.conn, "quota", many.now_ms)
        assert many.turn().leases == [], "its start has to be later than the closing"
        many.now_ms += 1
        assert len(many.turn().leases) == 1
        assert many.turn().leases == [], "that one is known for what it is"

    def test_a_pause_and_a_gate_are_two_things(self, many):
        self.refused(many, retry_after_ms=60_000)
        control.pause(many.conn, "quota", many.now_ms)
        many.now_ms += 60_000
        assert many.turn().leases == []
        control.pause(many.conn, "quota", many.now_ms, many.now_ms + 10)
        many.now_ms += 10
        assert len(many.turn().leases) == 1

    def test_a_day_that_is_used_up_is_noticed_by_its_first_call(self, many):
        self.refused(many, daily=True, retry_after_ms=7_200_000)
        cause, _, opens_at_ms, reason = gate(many)
        assert (cause, opens_at_ms, reason) == ("day", many.now_ms + 7_200_000, "slow")

    def test_a_day_is_not_used_up_because_a_minute_is(self, many):
        self.refused(many, retry_after_ms=7_200_000)
        assert gate(many)[0] == "quota"


class TestRetry:
    """A retry gives a new budget, whatever the old one was spent on."""

    def worn_out(self, failures):
        ledger = Ledger(Policy(max_failures=failures))
        ledger.add(["w", "x"])
        for _ in range(failures):
            self.fail(ledger)
        assert ledger.states()["w"] == "failed"
        return ledger

    def fail(self, ledger):
        ledger.now_ms += 61_000
        (lease,) = [lease for lease in ledger.turn().leases if lease.word == "w"]
        ledger.turn(ledger.finish(lease, Outcome.TRANSIENT, retry_after_ms=0), budget=0)

    def test_it_may_fail_as_often_again(self):
        ledger = self.worn_out(3)
        assert control.retry(ledger.conn, [1], None, ["failed"]) == 1
        assert ledger.row("SELECT failures, due_at_ms, attempts FROM requests") == (0, 0, 3)
        for n in range(3):
            assert ledger.states()["w"] == "pending", n
            self.fail(ledger)
        assert ledger.states()["w"] == "failed"
        assert ledger.row("SELECT failures, attempts FROM failures") == (3, 6)

    def test_a_second_time_there_is_nothing_to_retry(self):
        ledger = self.worn_out(1)
        assert control.retry(ledger.conn, [1], None, ["failed"]) == 1
        assert control.retry(ledger.conn, [1], None, ["failed"]) == 0

    def test_one_budget_is_not_that_of_another_word(self):
        ledger = self.worn_out(2)
        assert ledger.row("SELECT failures FROM requests WHERE id = 2") == (0,)
        assert control.retry(ledger.conn, [1], [2], ["failed"]) == 0, "x has not failed"
        assert ledger.states()["w"] == "failed"

    def test_what_was_cancelled_while_it_waited_is_due_at_once(self, ledger):
        ledger.add(["w"])
        (lease,) = ledger.turn().leases
        ledger.turn(ledger.finish(lease, Outcome.TRANSIENT, retry_after_ms=50_000), budget=0)
        assert control.cancel(ledger.conn, [1], None) == (1, 0)
        assert control.retry(ledger.conn, [1], None, ["failed"]) == 0, "it has not failed"
        assert control.retry(ledger.conn, [1], None, ["cancelled"]) == 1
        assert ledger.row("SELECT failures, due_at_ms FROM requests") == (0, 0)
        assert len(ledger.turn().leases) == 1


class TestCancelInFlight:
    """A word in flight is cancelled when its call has ended; until then one may think better."""

    @pytest.fixture
    def flying(self, ledger):
        ledger.add("abc")
        ledger.leases = ledger.turn().leases
        assert control.cancel(ledger.conn, [1], [1, 2]) == (0, 2)
        return ledger

    def fail(self, ledger, lease, outcome=Outcome.TRANSIENT):
        ledger.turn(ledger.finish(lease, outcome), budget=0)
        return ledger.states()[lease.word]

    def test_it_is_not_tried_again(self, flying):
        states = [self.fail(flying, lease) for lease in flying.leases]
        assert states == ["cancelled", "cancelled", "pending"]
        assert flying.row("SELECT sum(cancelling) FROM requests") == (0,)

    @pytest.mark.parametrize("words", [None, [1], [1, 2]])
    def test_a_retry_of_a_word_in_flight_takes_it_back(self, flying, words):
        assert control.retry(flying.conn, [1], words, ["cancelled"]) == 0, "it was never cancelled"
        assert self.fail(flying, flying.leases[0]) == "pending"
        other = "cancelled" if words == [1] else "pending"
        assert self.fail(flying, flying.leases[1]) == other

    def test_a_retry_of_what_has_failed_does_not_mean_it(self, flying):
        control.retry(flying.conn, [1], None, ["failed"])
        assert self.fail(flying, flying.leases[0]) == "cancelled"

    def test_another_prompts_retry_does_not_mean_it(self, flying):
        spec = intake.PromptSpec("q", "On {word}", "scripted", "m", {})
        other, _ = intake.put_prompt(flying.conn, spec, 1, 1)
        flying.prompt = other
        flying.add("abc")
        control.retry(flying.conn, [other.id], [1], ["cancelled"])
        assert self.fail_of(flying, 1) == "cancelled"

    def fail_of(self, ledger, request_id):
        (lease,) = [lease for lease in ledger.leases if lease.request_id == request_id]
        ledger.turn(ledger.finish(lease, Outcome.TRANSIENT), budget=0)
        return ledger.row("SELECT state FROM requests WHERE id = ?", request_id)[0]

    @pytest.mark.parametrize("outcome", sorted(expected.OUTCOMES))
    def test_what_ends_is_kept_and_what_would_be_tried_again_is_cancelled(self, flying, outcome):
        final = {"succeeded": "succeeded"} | dict.fromkeys(expected.FINAL, "failed")
        ended = self.fail(flying, flying.leases[0], Outcome(outcome))
        assert ended == final.get(outcome, "cancelled")

    def test_once_it_is_over_a_retry_begins_as_with_any_other(self, flying):
        assert self.fail(flying, flying.leases[0]) == "cancelled"
        assert control.retry(flying.conn, [1], [1], ["cancelled"]) == 1
        flying.now_ms += 61_000
        (again,) = [lease for lease in flying.turn(budget=1).leases if lease.word == "a"]
        assert again.number == 2
        assert self.fail(flying, again) == "pending", "nobody has cancelled this one"

    def test_a_second_cancel_is_as_the_first(self, flying):
        assert control.cancel(flying.conn, [1], [1, 2]) == (0, 2)
        assert self.fail(flying, flying.leases[0]) == "cancelled"
        assert control.cancel(flying.conn, [1], [1, 2]) == (0, 1)

    def test_a_death_cancels_it_and_takes_nothing_from_the_others(self, flying):
        heir = flying.start_run()
        assert flying.end_run(flying.run_id, Outcome.ABANDONED, "died", by=heir) == 3
        assert flying.states() == {"a": "cancelled", "b": "cancelled", "c": "pending"}


class TestEndOfARun:
    def test_a_run_that_was_given_up_keeps_its_reason_and_its_time(self, ledger):
        ledger.add(["w"])
        (lease,) = ledger.turn().leases
        heir = ledger.start_run()
        ledger.now_ms += 1_000
        assert ledger.end_run(ledger.run_id, Outcome.ABANDONED, "silent", by=heir) == 1
        ended = ledger.row("SELECT ended_at_ms, reason FROM runs WHERE id = 1")
        ledger.now_ms += 1_000
        assert ledger.end_run(ledger.run_id, Outcome.INTERRUPTED, "lost") == 0
        assert ledger.row("SELECT ended_at_ms, reason FROM runs WHERE id = 1") == ended
        assert ended == (ledger.now_ms - 1_000, "silent")
        attempt = ledger.row("SELECT outcome, reason FROM attempts")
        assert attempt == ("abandoned", "silent")
        assert ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED)).lost

    def test_it_ends_its_own_calls_and_no_others(self, ledger):
        ledger.add("ab")
        mine = ledger.turn(budget=1).leases
        other = ledger.start_run()
        assert len(ledger.turn(budget=1, run_id=other).leases) == 1
        assert ledger.end_run(ledger.run_id, Outcome.INTERRUPTED, "stopped") == 1
        assert ledger.states() == {mine[0].word: "pending", "b": "leased"}
        reasons = ledger.conn.execute("SELECT reason FROM runs").fetchall()
        assert reasons == [("stopped",), (None,)]

    def test_answers_of_one_run_are_none_of_another(self, ledger):
        ledger.add("ab")
        (lease,) = ledger.turn(budget=1).leases
        other = ledger.start_run()
        done = ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED), run_id=other, budget=0)
        assert (done.late, done.lost) == (1, False)
        late = ledger.conn.execute("SELECT late_answers FROM runs").fetchall()
        assert late == [(0,), (1,)]
        ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED), budget=0)
        assert ledger.states()["a"] == "succeeded"

    @pytest.mark.parametrize("number", [0, 2])
    def test_an_answer_to_another_attempt_is_late(self, ledger, number):
        ledger.add("a")
        (lease,) = ledger.turn().leases
        other = ledger.finish(lease, Outcome.SUCCEEDED)._replace(number=number)
        assert ledger.turn(other).late == 1
        assert ledger.states() == {"a": "leased"}

    def test_late_answers_add_up(self, ledger):
        ledger.add("abc")
        leases = ledger.turn().leases
        heir = ledger.start_run()
        ledger.end_run(ledger.run_id, Outcome.ABANDONED, "died", by=heir)
        ends = [ledger.finish(lease, Outcome.SUCCEEDED) for lease in leases]
        assert ledger.turn(*ends[:2]).late == 2
        assert ledger.turn(ends[2]).late == 1
        assert ledger.row("SELECT late_answers FROM runs WHERE id = 1") == (3,)

    def test_a_heartbeat_comes_every_five_seconds_and_never_goes_back(self, ledger):
        began_ms = ledger.now_ms
        for passed_ms, seen_ms in [(4_999, 0), (1, 5_000), (4_999, 5_000), (1, 10_000)]:
            ledger.now_ms += passed_ms
            ledger.turn()
            assert ledger.row("SELECT heartbeat_at_ms FROM runs") == (began_ms + seen_ms,)
        ledger.now_ms = began_ms
        late = end_of_another(ledger)
        assert ledger.turn(late).late == 1
        assert ledger.row("SELECT heartbeat_at_ms FROM runs") == (began_ms + 10_000,)


def end_of_another(ledger):
    """Return the end of a call of another run."""
    ledger.add(["w"])
    (lease,) = ledger.turn(run_id=ledger.start_run()).leases
    return ledger.finish(lease, Outcome.SUCCEEDED)


class TestDrafts:
    def test_the_last_text_is_kept_and_an_attempt_without_leaves_it(self, ledger):
        ledger.add(["w"])
        for number, text in enumerate(["first", None, "", "0"], 1):
            (lease,) = ledger.turn().leases
            ledger.turn(ledger.finish(lease, Outcome.TRANSIENT, text=text), budget=0)
            ledger.now_ms += 61_000
            kept = ("0", 4) if number == 4 else ("first", 1)
            assert ledger.row("SELECT text, number FROM drafts") == kept

    def test_each_request_has_its_own(self, ledger):
        ledger.add("ab")
        ends = [
            ledger.finish(x, Outcome.BLOCKED, text=f"of {x.word}") for x in ledger.turn().leases
        ]
        ledger.turn(*ends, budget=0)
        drafts = ledger.conn.execute("SELECT word, draft FROM failures ORDER BY 1").fetchall()
        assert drafts == [("a", "of a"), ("b", "of b")]


class TestPause:
    def test_it_may_be_said_again_and_the_last_word_holds(self, ledger):
        ledger.add(["w"])
        control.pause(ledger.conn, "quota", ledger.now_ms, ledger.now_ms + 1_000)
        control.pause(ledger.conn, "quota", ledger.now_ms)
        ledger.now_ms += 2_000
        assert ledger.turn().leases == [], "until somebody resumes"
        control.pause(ledger.conn, "quota", ledger.now_ms, ledger.now_ms + 1_000)
        ledger.now_ms += 999
        assert ledger.turn().leases == []
        ledger.now_ms += 1
        assert len(ledger.turn().leases) == 1

    def test_a_resume_leaves_nothing_of_it(self, ledger):
        control.pause(ledger.conn, "quota", ledger.now_ms, ledger.now_ms + 1_000)
        control.resume(ledger.conn, "quota", ledger.now_ms)
        assert ledger.row("SELECT paused_at_ms, paused_until_ms FROM limits") == (None, None)


def test_an_edited_prompt_asks_only_what_has_no_answer_and_is_edited_back_at_no_cost(ledger):
    def version(text):
        spec = intake.PromptSpec("p", text, "scripted", "m", {})
        new, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
        return new, intake.waiting_words(ledger.conn, new.id)

    ledger.add("ab")
    first, second = ledger.turn().leases
    ledger.turn(ledger.finish(first, Outcome.SUCCEEDED), budget=0)
    new, words = version("On {word}")
    assert (new.version, words) == (2, 0), "a is answered, and b is in flight"
    ledger.turn(ledger.finish(second, Outcome.INTERRUPTED), budget=0)
    assert [lease.call.prompt for lease in ledger.turn().leases] == ["On b"], "it is carried on"
    back, words = version("About {word}")
    assert (back.id, back.version, back.current, words) == (1, 1, True, 0)
    assert ledger.row("SELECT word, version, stale FROM results") == ("a", 1, 0)
    assert ledger.row("SELECT sum(current), count(*) FROM prompts") == (1, 2)
