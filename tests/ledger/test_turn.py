"""Turns on a real database: what is leased, what is recorded, what is refused."""

import dataclasses
import random
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.ledger import control, intake
from crawler.ledger import turn as turns
from crawler.ledger.budget import Allowance
from crawler.ledger.check import check
from crawler.ledger.finish import end_run, released
from crawler.ledger.limits import put_limit
from crawler.ledger.results import answer, results, timeline
from crawler.ledger.runs import Selection
from crawler.ledger.status import status
from crawler.ledger.work import work
from crawler.policy import Policy
from crawler.protocol import Finish, Word
from crawler.quota.state import WINDOW_MS
from crawler.states import Outcome, RequestState
from tests.conftest import Ledger

TEN = Allowance(10)


def test_a_word_goes_from_pending_to_an_answer(ledger):
    ledger.add(["one", "two"])

    leases = ledger.turn().leases
    done = ledger.turn(*(ledger.finish(lease, Outcome.SUCCEEDED) for lease in leases))

    assert [lease.word for lease in leases] == ["one", "two"]
    assert done.unfinished == 0
    assert ledger.conn.execute("SELECT word, text FROM results").fetchall() == [
        ("one", "about one"),
        ("two", "about two"),
    ]
    assert not any(finding.broken for finding in check(ledger.conn))


def test_fresh_words_go_in_their_order_and_those_that_waited_before_them(ledger):
    ledger.add("abcd")
    first, *_ = ledger.turn(budget=1).leases
    ledger.turn(ledger.finish(first, Outcome.THROTTLED, retry_after_ms=1), budget=0)
    ledger.now_ms += 300

    probe = ledger.turn().leases
    ledger.turn(ledger.finish(probe[0], Outcome.SUCCEEDED), budget=0)

    assert [lease.word for lease in probe] == ["b"], "a may be refused whatever the server does"
    ledger.now_ms += 3_000
    assert [lease.word for lease in ledger.turn(budget=1).leases] == ["a"]
    ledger.now_ms += 3_000
    assert [lease.word for lease in ledger.turn(budget=1).leases] == ["c"]


def test_no_more_are_leased_than_budget_and_concurrency_allow(ledger):
    ledger.add(map(str, range(50)))

    assert len(ledger.turn(budget=3).leases) == 3
    assert len(ledger.turn().leases) == 7
    assert ledger.turn().leases == []


def test_a_backoff_is_a_due_time(ledger):
    ledger.add(["w"])
    (lease,) = ledger.turn().leases
    done = ledger.turn(ledger.finish(lease, Outcome.TRANSIENT, retry_after_ms=5_000))

    assert done.leases == []
    assert done.wake_at_ms == ledger.now_ms + 5_000
    ledger.now_ms += 5_000
    assert [lease.number for lease in ledger.turn().leases] == [2]


def test_who_lost_a_lease_cannot_write(ledger):
    ledger.add(["w"])
    (lease,) = ledger.turn().leases
    heir = ledger.start_run()
    end_run(ledger.conn, ledger.scope(heir), ledger.run_id, Outcome.ABANDONED, "died")
    (again,) = ledger.turn(run_id=heir).leases

    zombie = ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED, text="late"))

    assert zombie.lost
    assert zombie.late == 1
    assert zombie.leases == []
    assert ledger.row("SELECT late_answers FROM runs WHERE id = ?", ledger.run_id) == (1,)
    ledger.turn(ledger.finish(again, Outcome.SUCCEEDED, text="right"), run_id=heir)
    assert ledger.row("SELECT text FROM results") == ("right",)


def test_the_same_end_counts_once(ledger):
    ledger.add(["w"])
    (lease,) = ledger.turn().leases
    end = ledger.finish(lease, Outcome.SUCCEEDED)

    done = ledger.turn(end, end)

    assert done.late == 1
    assert ledger.row("SELECT count(*) FROM responses") == (1,)


def test_one_request_has_at_most_one_open_attempt(ledger):
    ledger.add(["w"])
    (lease,) = ledger.turn().leases
    ledger.conn.execute("UPDATE requests SET state = 'pending'")
    ledger.conn.execute("UPDATE requests SET state = 'leased', attempts = 2")

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        ledger.conn.execute(
            "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms)"
            " VALUES (?, 2, ?, 1, 1)",
            (lease.request_id, ledger.run_id),
        )


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE attempts SET reason = 'x'", "never changes"),
        ("DELETE FROM attempts", "never deleted"),
        ("DELETE FROM responses", "never deleted"),
        ("UPDATE responses SET text = 'x'", "never changes"),
        ("DELETE FROM requests", "never deleted"),
        ("UPDATE requests SET word_id = 2", "for good"),
        ("UPDATE prompts SET template = 'x'", "never changes"),
        ("INSERT INTO requests (word_id, prompt_id, state) VALUES (2, 1, 'leased')", "pending"),
        (
            "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms)"  # noqa: ISC004
            " VALUES (1, 2, 1, 1, 1)",
            "next one",
        ),
    ],
)
def test_plain_sqlite_cannot_break_the_file(ledger, statement, message):
    ledger.add(["w"])
    (lease,) = ledger.turn().leases
    ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED))
    ledger.conn.execute("INSERT INTO words (text, added_at_ms) VALUES ('other', 1)")

    with pytest.raises(sqlite3.IntegrityError, match=message):
        ledger.conn.execute(statement)


def test_a_success_needs_its_response(ledger):
    ledger.add(["w"])
    ledger.turn()

    with pytest.raises(sqlite3.IntegrityError, match="with its response"):
        ledger.conn.execute("UPDATE requests SET state = 'succeeded'")


class TestGate:
    """One gate for all that share a quota."""

    def test_one_refusal_holds_everybody_once(self, ledger):
        ledger.add(map(str, range(20)))
        first, second, *_ = ledger.turn().leases
        done = ledger.turn(
            ledger.finish(first, Outcome.THROTTLED, reason="slow down"),
            ledger.finish(second, Outcome.THROTTLED, reason="slow down"),
        )

        assert done.leases == []
        assert done.gate.strikes == 1, "calls that left before the gate closed are one refusal"
        assert done.wake_at_ms == ledger.now_ms + 300

    def test_a_single_probe_goes_first_and_opens_it(self, ledger):
        ledger.add(map(str, range(20)))
        leases = ledger.turn().leases
        ledger.turn(*(ledger.finish(lease, Outcome.UNAVAILABLE) for lease in leases))
        ledger.now_ms += 2_000

        (probe,) = ledger.turn().leases
        assert ledger.turn().leases == []
        done = ledger.turn(ledger.finish(probe, Outcome.SUCCEEDED))

        assert len(done.leases) == 10

    def test_probes_that_fail_come_further_and_further_apart(self, ledger):
        ledger.add(["w"])
        (lease,) = ledger.turn().leases
        pauses = []
        for _ in range(8):
            done = ledger.turn(ledger.finish(lease, Outcome.UNAVAILABLE))
            pauses.append(done.gate.opens_at_ms - ledger.now_ms)
            ledger.now_ms = done.gate.opens_at_ms
            (lease,) = ledger.turn().leases

        assert pauses == [2_000, 3_000, 4_500, 6_750, 10_000, 10_000, 10_000, 10_000]
        assert ledger.row("SELECT failures, attempts FROM requests") == (0, 9)

    def test_an_answer_to_an_older_call_does_not_open_it(self, ledger):
        ledger.add(map(str, range(20)))
        first, second, *_ = ledger.turn().leases
        ledger.now_ms += 5
        ledger.turn(ledger.finish(first, Outcome.THROTTLED))
        done = ledger.turn(ledger.finish(second, Outcome.SUCCEEDED))

        assert done.leases == []
        assert done.gate.strikes == 1

    def test_a_restart_is_no_amnesty(self, ledger):
        ledger.add(["w", "x"])
        first, _ = ledger.turn().leases
        ledger.turn(ledger.finish(first, Outcome.THROTTLED, retry_after_ms=60_000))

        assert ledger.turn(run_id=ledger.start_run()).leases == []


class TestControl:
    """Rows that other processes write."""

    def test_pause_and_resume(self, ledger):
        ledger.add(["w"])
        control.pause(ledger.conn, "quota", ledger.now_ms)
        assert ledger.turn().leases == []
        control.resume(ledger.conn, None, ledger.now_ms)
        assert len(ledger.turn().leases) == 1

    def test_a_new_limit_holds_at_the_next_turn(self, ledger):
        ledger.add(map(str, range(50)))
        assert len(ledger.turn().leases) == 10
        control.set_concurrency(ledger.conn, "quota", 12)
        ledger.fix(11)
        assert len(ledger.turn().leases) == 1

    def test_cancelling_keeps_the_answer_that_is_on_its_way(self, ledger):
        ledger.add(["w", "x", "y"])
        first, second = ledger.turn(budget=2).leases
        done = control.cancel(ledger.conn, [ledger.prompt.id], None)
        ledger.turn(
            ledger.finish(first, Outcome.SUCCEEDED), ledger.finish(second, Outcome.TRANSIENT)
        )

        assert done == (1, 2)
        assert ledger.states() == {"w": "succeeded", "x": "cancelled", "y": "cancelled"}

    def test_a_new_version_leaves_out_what_was_cancelled(self, ledger):
        ledger.add(["flying", "waiting", "wanted"])
        ledger.turn(budget=1)
        words = [control.word_id(ledger.conn, word) for word in ("flying", "waiting")]
        assert control.cancel(ledger.conn, [ledger.prompt.id], words) == (1, 1)
        spec = intake.PromptSpec("p", "Of {word}", "scripted", "m", {})
        new, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, 2)

        assert intake.waiting_words(ledger.conn, new.id) == 1
        assert [lease.word for lease in ledger.turn().leases] == ["wanted"]

    def test_what_was_rejected_is_asked_again_where_somebody_says_so(self, ledger):
        ledger.add(["w"])
        (lease,) = ledger.turn().leases
        ledger.turn(ledger.finish(lease, Outcome.REJECTED))
        assert control.retry(ledger.conn, [ledger.prompt.id], None, ["failed"]) == 1
        assert [lease.number for lease in ledger.turn().leases] == [2]


@pytest.mark.parametrize(
    ("params", "policy", "timeout_ms"),
    [
        ({"request_type": "flex"}, Policy(), 30 * 60_000),
        ({"request_type": "priority"}, Policy(), 120_000),
        ({"request_type": "flex"}, Policy(call_timeout_ms=5_000), 5_000),
    ],
)
def test_a_flexible_call_may_take_half_an_hour(params, policy, timeout_ms):
    ledger = Ledger(policy)
    spec = intake.PromptSpec("flex", "About {word}", "scripted", "m", params)
    limit_id = put_limit(ledger.conn, "flex", 10)
    prompt, *_ = intake.put_prompt(ledger.conn, spec, limit_id, ledger.now_ms)
    intake.add_words(ledger.conn, prompt.id, [Word("w", {})], ledger.now_ms)
    [lease] = ledger.turn().leases
    assert lease.call.timeout_ms == timeout_ms


def test_a_poison_item_does_not_loop_for_ever():
    ledger = Ledger(Policy(max_failures=3))
    ledger.add(["w"])
    for _ in range(3):
        assert len(ledger.turn().leases) == 1
        heir = ledger.start_run()
        end_run(ledger.conn, ledger.scope(heir), ledger.run_id, Outcome.ABANDONED, "died")
        ledger.run_id = heir

    assert ledger.states() == {"w": "failed"}
    assert ledger.row("SELECT outcome, failures FROM failures") == ("abandoned", 3)


def test_what_is_released_is_pending_and_its_place_stays_taken(ledger):
    ledger.fix(2)
    ledger.add(["w", "x", "y"])
    leases = ledger.turn().leases
    ledger.now_ms += 5_000

    done = ledger.turn(*(released(lease, ledger.now_ms) for lease in leases))

    assert (done.leases, done.late) == ([], 0)
    assert set(ledger.states().values()) == {"pending"}
    assert ledger.row("SELECT sum(failures) FROM requests") == (0,)
    ledger.now_ms += WINDOW_MS + ledger.policy.guard_ms - 5_000
    assert ledger.turn().leases == []
    ledger.now_ms += 1
    assert [lease.number for lease in ledger.turn().leases] == [2, 2]
    assert not any(finding.broken for finding in check(ledger.conn))


def test_what_is_released_is_leased_anew_in_the_same_turn(ledger):
    ledger.fix(4)
    ledger.add("ab")
    leases = ledger.turn().leases
    ledger.now_ms += 1_000
    again = ledger.turn(*(released(lease, ledger.now_ms) for lease in leases)).leases
    assert [(lease.word, lease.number) for lease in again] == [("a", 2), ("b", 2)]
    assert ledger.row("SELECT max(nth) FROM attempts") == (4,)


def test_a_status_tells_of_a_limit_what_there_is(ledger):
    ledger.add(map(str, range(20)))
    ledger.turn(budget=3)
    (limit,) = status(ledger.conn, 600, ledger.now_ms).limits
    assert (limit.in_flight, limit.started_last_minute, limit.adaptive) == (3, 3, True)
    ledger.fix(100)
    (limit,) = status(ledger.conn, 600, ledger.now_ms).limits
    assert (limit.per_minute, limit.adaptive) == (100, False)


def test_what_became_of_a_word_can_be_read(ledger):
    ledger.add("ab")
    first, second = ledger.turn().leases
    interrupted = ledger.finish(first, Outcome.INTERRUPTED)
    ledger.turn(interrupted, ledger.finish(second, Outcome.SUCCEEDED), budget=0)
    (again,) = ledger.turn().leases
    ledger.turn(ledger.finish(again, Outcome.SUCCEEDED), budget=0)

    rows = timeline(ledger.conn, "a")
    assert [(row.number, row.outcome, row.text) for row in rows] == [
        (1, "interrupted", None),
        (2, "succeeded", "about a"),
    ]
    prompt_id = ledger.prompt.id
    assert [row.text for row in results(ledger.conn, prompt_id)] == ["about a", "about b"]
    assert answer(ledger.conn, prompt_id, "b").text == "about b"
    assert answer(ledger.conn, prompt_id, "c") is None


def test_what_was_taken_from_a_run_is_not_released(ledger):
    ledger.add("ab")
    leases = ledger.turn().leases
    heir = ledger.scope(ledger.start_run())
    end_run(ledger.conn, heir, ledger.run_id, Outcome.ABANDONED, "killed")
    done = ledger.turn(*(released(lease, ledger.now_ms) for lease in leases))
    assert (done.late, done.lost) == (2, True)
    assert {o for (o,) in ledger.conn.execute("SELECT outcome FROM attempts")} == {"abandoned"}


def test_what_ends_with_its_run_says_why(ledger):
    ledger.add("a")
    ledger.turn()
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.INTERRUPTED, "signal")
    assert ledger.row("SELECT outcome, reason FROM attempts") == ("interrupted", "signal")
    assert ledger.row("SELECT reason FROM runs") == ("signal",)


def test_a_cancellation_counts_over_all_prompts(ledger):
    ledger.add("abc")
    first = ledger.prompt
    spec = intake.PromptSpec("q", "On {word}", "scripted", "m", {})
    ledger.prompt, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
    ledger.add("abc")
    assert len(ledger.turn(budget=4).leases) == 4
    both = [first.id, ledger.prompt.id]
    assert control.cancel(ledger.conn, both, None) == (2, 4)


def test_fields_are_kept_as_they_came_and_a_word_without_gets_them(ledger):
    def add(**words):
        rows = [Word(word, fields) for word, fields in words.items()]
        return intake.add_words(ledger.conn, ledger.prompt.id, rows, ledger.now_ms)

    assert add(a={"gloss": "über"}, b={}) == (2, 2, 0, 0)
    assert add(a={"gloss": "other"}, b={"gloss": "late"}, c={}) == (1, 1, 2, 0)
    assert add(a={"gloss": "über"}, b={}, c={}) == (0, 0, 0, 0)
    rows = ledger.conn.execute("SELECT text, fields FROM words ORDER BY id").fetchall()
    assert rows == [("a", '{"gloss": "über"}'), ("b", '{"gloss": "late"}'), ("c", None)]


def test_who_asks_for_a_word_wakes_no_other(ledger):
    ledger.add("ab")
    leases = ledger.turn().leases
    ledger.turn(*(ledger.finish(lease, Outcome.REJECTED) for lease in leases), budget=0)
    assert control.ask_for(ledger.conn, ledger.prompt.id, "b") == 2
    assert ledger.states() == {"a": "failed", "b": "pending"}


def test_a_run_does_not_end_before_it_began(ledger):
    """A machine that was started again may have lost the time."""
    ledger.now_ms -= 1_000
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.ABANDONED, "died")
    assert not any(finding.broken for finding in check(ledger.conn))


def test_a_clock_that_was_set_back_opens_no_burst(ledger):
    ledger.fix(5)
    ledger.add(map(str, range(20)))
    assert len(ledger.turn().leases) == 5
    ledger.now_ms -= 3_600_000

    assert ledger.turn().leases == []


def most_within_a_window(times):
    times = sorted(times)
    return max(sum(1 for t in times if start <= t < start + WINDOW_MS) for start in times)


@settings(max_examples=150)
@given(
    per_minute=st.integers(1, 6),
    steps=st.lists(
        st.tuples(st.sampled_from(["turn", "end", "die"]), st.integers(0, 20_000)),
        min_size=5,
        max_size=60,
    ),
    seed=st.integers(0, 10**6),
)
def test_a_server_never_sees_more_than_the_limit_in_any_minute(per_minute, steps, seed):
    """Whenever within its possible time each call arrives, over restarts and two runs."""
    ledger = Ledger(concurrency=4)
    chance = random.Random(seed)
    ledger.fix(per_minute)
    ledger.add(map(str, range(200)))
    runs = [ledger.run_id, ledger.start_run()]
    in_flight = []
    for step, pause_ms in steps:
        ledger.now_ms += pause_ms if chance.random() < 0.7 else chance.randint(0, 900)
        run_id = chance.choice(runs)
        if step == "turn":
            in_flight += [(run_id, lease) for lease in ledger.turn(run_id=run_id).leases]
        elif step == "end" and in_flight:
            run_id, lease = in_flight.pop(chance.randrange(len(in_flight)))
            in_flight += [
                (run_id, new)
                for new in ledger.turn(
                    ledger.finish(lease, Outcome.SUCCEEDED), run_id=run_id
                ).leases
            ]
        elif step == "die":
            heir = ledger.start_run()
            end_run(ledger.conn, ledger.scope(heir), run_id, Outcome.ABANDONED, "died")
            in_flight = [(owner, lease) for owner, lease in in_flight if owner != run_id]
            runs[runs.index(run_id)] = heir
    guard_ms = ledger.policy.guard_ms
    arrivals = [
        chance.uniform(start, start + guard_ms)
        for (start,) in ledger.conn.execute("SELECT started_at_ms FROM attempts")
    ]

    assert not arrivals or most_within_a_window(arrivals) <= per_minute
    assert not any(finding.broken for finding in check(ledger.conn))


@settings(max_examples=100)
@given(per_minute=st.integers(1, 5), ends=st.lists(st.integers(0, 2_000), min_size=12, max_size=12))
def test_a_place_is_given_at_the_first_moment_that_is_safe(per_minute, ends):
    """Whoever sleeps until wake_at_ms loses nothing: there is room then, and none before."""
    ledger = Ledger(concurrency=100)
    ledger.fix(per_minute)
    ledger.add(map(str, range(12)))
    took = iter(ends)
    while True:
        done = ledger.turn()
        for lease in done.leases:
            ledger.turn(
                Finish(
                    lease.request_id,
                    lease.number,
                    ledger.now_ms + next(took),
                    Outcome.SUCCEEDED,
                    text="t",
                ),
                budget=0,
            )
        done = ledger.turn()
        assert not done.leases
        if not done.unfinished:
            break
        ledger.now_ms = done.wake_at_ms - 1
        assert not ledger.turn().leases
        ledger.now_ms = done.wake_at_ms


def test_every_question_of_a_turn_uses_its_index(ledger):
    """No statement of the hot path reads a whole table or sorts, whatever the statistics say."""
    ledger.fix(1_000)
    ledger.add(map(str, range(50)))
    asked: list[str] = []
    ledger.conn.set_trace_callback(asked.append)
    leases = ledger.turn().leases
    ledger.turn(
        *(ledger.finish(lease, Outcome.SUCCEEDED) for lease in leases[:5]),
        *(ledger.finish(lease, Outcome.THROTTLED) for lease in leases[5:7]),
    )
    ledger.now_ms += 2_000
    ledger.turn()
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.INTERRUPTED, "signal")
    ledger.conn.set_trace_callback(None)

    statements = {sql for sql in asked if not sql.startswith("--")}
    assert len(statements) > 20
    for sql in statements:
        for *_, step in ledger.conn.execute(f"EXPLAIN QUERY PLAN {sql}"):
            scans = [
                table for table in ("requests", "words", "responses") if f"SCAN {table}" in step
            ]
            assert not scans, f"{step}: {sql}"
            assert "SCAN attempts" not in step or "attempts_open" in step, f"{step}: {sql}"
            assert "TEMP B-TREE" not in step, f"{step}: {sql}"


def test_a_status_says_why_it_waits(ledger):
    ledger.add(["w", "x"])
    first, _ = ledger.turn().leases
    ledger.turn(ledger.finish(first, Outcome.THROTTLED, reason="quota", retry_after_ms=9_000))

    (limit,) = status(ledger.conn, 600, ledger.now_ms).limits
    assert (limit.held_by, limit.until_ms, limit.reason) == ("gate", ledger.now_ms + 9_000, "quota")
    control.pause(ledger.conn, None, ledger.now_ms)
    (limit,) = status(ledger.conn, 600, ledger.now_ms).limits
    assert limit.held_by == "paused"


def test_a_status_tells_rate_and_time_left(ledger):
    ledger.add(map(str, range(40)))
    for _ in range(2):
        leases = ledger.turn().leases
        ledger.now_ms += 10_000
        ledger.turn(*(ledger.finish(lease, Outcome.SUCCEEDED) for lease in leases), budget=0)

    now = status(ledger.conn, 600, ledger.now_ms)

    assert now.unfinished == 20
    assert now.succeeded_per_minute == 60
    assert now.eta_ms == 20_000


def test_prompts_of_a_function_are_left_to_who_brings_it(ledger):
    ledger.conn.execute("DROP TRIGGER prompts_are_immutable")
    ledger.add(["w"])
    ledger.conn.execute("UPDATE prompts SET provider = 'function'")

    assert work(ledger.conn, Selection()) == []
    assert len(work(ledger.conn, Selection(prompt_ids=(ledger.prompt.id,)))) == 1


def test_answers_that_are_cut_off_three_times_fail_and_the_last_of_them_is_kept(ledger):
    ledger.add(["word"])
    for number, (text, truncated) in enumerate(
        [("cut o", True), (None, False), ("cut off", True), ("", True)], 1
    ):
        [lease] = ledger.turn().leases
        assert lease.number == number
        facts = {"text": text, "truncated": truncated, "reason": "why"}
        facts |= {"reason_code": "truncated" if truncated else "not_an_answer"}
        ledger.turn(ledger.finish(lease, Outcome.NO_ANSWER, **facts), budget=0)
        ledger.now_ms += 100_000
    assert ledger.states() == {"word": "failed"}
    assert ledger.row("SELECT draft, attempts, failures FROM failures") == ("cut off", 4, 0)
    assert ledger.row("SELECT number FROM drafts") == (3,)
    assert ledger.turn().leases == []


def test_one_request_waits_for_its_turn_under_the_limit(ledger):
    ledger.add("abcd")
    ledger.fix(2)
    assert len(ledger.turn().leases) == 2
    alone = dataclasses.replace(ledger.scope(), selection=Selection(request_ids=(4,)))
    waiting = turns.turn(ledger.conn, alone, [], TEN)
    assert (waiting.leases, waiting.unfinished) == ([], 1)
    ledger.now_ms = waiting.wake_at_ms
    [lease] = turns.turn(ledger.conn, alone, [], TEN).leases
    assert (lease.word, lease.number) == ("d", 1)
    assert ledger.now_ms > 1_000_000_000_000 + 60_000
    turns.turn(ledger.conn, alone, [ledger.finish(lease, Outcome.SUCCEEDED)], TEN)
    assert turns.turn(ledger.conn, alone, [], TEN).unfinished == 0
    assert ledger.states()["c"] == "pending", "nobody asked for it"


def test_a_prompt_that_is_removed_is_asked_no_more_by_a_run_of_some_words(ledger):
    ledger.add("abc")
    alone = dataclasses.replace(ledger.scope(), selection=Selection(request_ids=(1, 2, 3)))
    [lease] = turns.turn(ledger.conn, alone, [], Allowance(1)).leases
    intake.remove_prompt(ledger.conn, "p", ledger.now_ms)
    left = turns.turn(ledger.conn, alone, [ledger.finish(lease, Outcome.SUCCEEDED)], TEN)
    assert (left.leases, left.unfinished) == ([], 0)


def test_a_retry_forgets_the_answers_that_were_cut_off_before_it(ledger):
    ledger.add(["word"])

    def end(outcome, **facts):
        [lease] = ledger.turn().leases
        ledger.turn(ledger.finish(lease, outcome, text="cut o", **facts), budget=0)
        ledger.now_ms += 100_000

    for _ in range(2):  # the second time with a budget that is new
        for _ in range(2):
            end(Outcome.NO_ANSWER, truncated=True, reason_code="truncated")
            end(Outcome.INTERRUPTED)  # which is no failure
            assert ledger.states() == {"word": "pending"}
        end(Outcome.NO_ANSWER, truncated=True, reason_code="truncated")
        assert ledger.states() == {"word": "failed"}
        control.retry(ledger.conn, [ledger.prompt.id], None, [RequestState.FAILED])


def test_a_request_that_waits_is_not_asked_before_its_time_when_it_is_asked_alone(ledger):
    ledger.add("ab")
    alone = dataclasses.replace(ledger.scope(), selection=Selection(request_ids=(1,)))
    [lease] = turns.turn(ledger.conn, alone, [], TEN).leases
    failed = ledger.finish(lease, Outcome.TRANSIENT, retry_after_ms=30_000)
    waiting = turns.turn(ledger.conn, alone, [failed], TEN)
    assert (waiting.leases, waiting.unfinished) == ([], 1)
    ledger.now_ms += 29_999
    assert turns.turn(ledger.conn, alone, [], TEN).leases == []
    ledger.now_ms += 61_000
    assert len(turns.turn(ledger.conn, alone, [], TEN).leases) == 1


def test_the_oldest_call_in_flight_is_told_with_its_age(ledger):
    ledger.add(["one", "two"])
    assert status(ledger.conn, 600, ledger.now_ms).oldest_call is None
    (first,) = ledger.turn(budget=1).leases
    ledger.now_ms += 5_000
    ledger.turn(budget=1)
    ledger.now_ms += 2_000
    oldest = status(ledger.conn, 600, ledger.now_ms).oldest_call
    assert oldest == (first.request_id, 1, "one", "p", 7_000)
    ledger.turn(ledger.finish(first, Outcome.SUCCEEDED), budget=0)
    assert status(ledger.conn, 600, ledger.now_ms).oldest_call.word == "two"


def test_a_call_says_whether_its_prompt_was_served_before(ledger):
    """By then a refusal that says nothing may be the word's."""
    ledger.add("abc")
    (first,) = ledger.turn(budget=1).leases
    (second,) = ledger.turn(ledger.finish(first, Outcome.TRANSIENT), budget=1).leases
    ledger.now_ms += 1
    (third,) = ledger.turn(ledger.finish(second, Outcome.SUCCEEDED), budget=1).leases
    assert [lease.call.served_before for lease in (first, second, third)] == [False, False, True]
