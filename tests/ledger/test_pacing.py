"""What is learned is on record: over restarts, for SQL, and in the transaction that leases."""

import itertools

import pytest

from crawler.ledger import control, intake
from crawler.ledger.finish import end_run
from crawler.ledger.limits import RATE_STEP, limits, put_limit
from crawler.ledger.status import status
from crawler.ledger.turn import Gate
from crawler.protocol import Word
from crawler.quota.state import State
from crawler.run.ending import gate_ending
from crawler.states import Outcome
from crawler.states.kinds import Kind


def history(ledger):
    return ledger.conn.execute("SELECT what, per_minute, why FROM limit_history").fetchall()


def whats(ledger):
    return [what for what, *_ in history(ledger)]


def test_a_pace_is_kept_in_the_columns_of_its_names(ledger):
    columns = [name for _, name, *_ in ledger.conn.execute("PRAGMA table_info(limits)")]
    assert set(State._fields) <= set(columns)
    (limit,) = limits(ledger.conn, 600).values()
    assert limit.state == State(), "a new row is a pace that has learned nothing"


def test_each_closing_of_a_gate_is_on_record_with_its_time(ledger):
    ledger.fix(1_000)
    ledger.add(map(str, range(9)))
    closed = []
    for n, outcome in enumerate(["unavailable", "unavailable", "throttled", "throttled"]):
        (lease,) = ledger.turn(budget=1).leases
        ledger.now_ms += 10
        ended = ledger.finish(lease, Outcome(outcome), reason=f"no {n}")
        ledger.turn(ended, budget=0)
        [opens_at_ms] = ledger.row("SELECT gate_opens_at_ms FROM limits")
        cause = "outage" if outcome == "unavailable" else "quota"
        closed.append((ledger.now_ms, opens_at_ms, f"{cause}: no {n}"))
        ledger.now_ms = opens_at_ms
    found = ledger.conn.execute(
        "SELECT at_ms, until_ms, why FROM limit_changes WHERE what = 'gate_closed' ORDER BY id"
    )
    assert found.fetchall() == closed
    shown = "SELECT why FROM limit_history WHERE what = 'gate_closed'"
    assert [why for (why,) in ledger.conn.execute(shown)] == [why for *_, why in closed]


def refuse(ledger, **facts):
    leases = ledger.turn().leases
    ledger.now_ms += 100
    ended = [
        ledger.finish(lease, Outcome.THROTTLED, reason="slow down", **facts) for lease in leases
    ]
    return ledger.turn(*ended, budget=0)


def test_gate_and_rate_leave_rows_that_say_why(ledger):
    ledger.add(map(str, range(500)))
    done = refuse(ledger)
    assert history(ledger) == [("gate_closed", None, "quota: slow down")]
    ledger.now_ms = done.gate.opens_at_ms
    (probe,) = ledger.turn().leases
    ledger.turn(ledger.finish(probe, Outcome.SUCCEEDED), budget=0)
    assert whats(ledger) == ["gate_closed", "gate_opened", "rate_learned"]
    before = len(history(ledger))
    for _ in range(200):
        ledger.now_ms += 250
        leases = ledger.turn().leases
        ledger.turn(*(ledger.finish(lease, Outcome.SUCCEEDED) for lease in leases), budget=0)
    raised = history(ledger)[before:]
    assert {what for what, *_ in raised} == {"rate_raised"}
    rates = [rate for _, rate, _ in raised]
    assert rates == sorted(rates)
    assert all(b / a < RATE_STEP**3 for a, b in itertools.pairwise(rates))


def test_what_was_learned_outlives_the_process(ledger):
    ledger.add(map(str, range(500)))
    done = refuse(ledger)
    ledger.now_ms = done.gate.opens_at_ms
    heir = ledger.start_run()
    (probe,) = ledger.turn(run_id=heir).leases
    ledger.turn(ledger.finish(probe, Outcome.SUCCEEDED), run_id=heir, budget=0)
    (limit,) = status(ledger.conn, 600, ledger.now_ms).limits
    assert limit.rate == 60, "hardly anything was accepted: it begins there"
    assert len(ledger.turn(run_id=heir).leases) <= 1


def test_setting_a_limit_anew_forgets_what_was_learned_and_the_same_again_does_not(ledger):
    ledger.add(map(str, range(500)))
    done = refuse(ledger)
    ledger.now_ms = done.gate.opens_at_ms
    (probe,) = ledger.turn().leases
    ledger.turn(ledger.finish(probe, Outcome.SUCCEEDED), budget=0)
    control.set_per_minute(ledger.conn, "quota", None, ledger.now_ms)
    assert ledger.row("SELECT rate FROM limits") == (60,)
    ledger.conn.execute("UPDATE limits SET tat_us = tat_us + 50000000, tokens_tat_us = 1 << 60")
    control.set_per_minute(ledger.conn, "quota", 90, ledger.now_ms)
    assert ledger.row("SELECT rate, tat_us FROM limits") == (None, None)
    assert ledger.row("SELECT tokens_tat_us FROM limits") == ((ledger.now_ms + 60_000) * 1_000,)
    assert len(ledger.turn().leases) > 0, "at once"
    assert ("set", 90, "per_minute = 90") in history(ledger)
    control.set_per_minute(ledger.conn, "quota", None, ledger.now_ms)
    assert history(ledger)[-1] == ("set", None, "per_minute = none")


def test_a_gate_is_tried_and_opened_when_no_refusal_came_in_time(ledger):
    """An answer takes a while; a refusal would have come by now."""
    ledger.add(map(str, range(500)))
    done = refuse(ledger)
    ledger.now_ms = done.gate.opens_at_ms
    assert len(ledger.turn().leases) == 1
    waiting = ledger.turn()
    assert waiting.leases == []
    ledger.now_ms = waiting.wake_at_ms
    assert waiting.wake_at_ms - done.gate.opens_at_ms < 500
    ledger.turn()
    assert whats(ledger)[1] == "gate_opened"


def fail_all(ledger, gap_ms=50):
    """Have all calls that may start fail, one after the other; return the last turn."""
    for lease in ledger.turn().leases:
        ledger.now_ms += gap_ms
        done = ledger.turn(ledger.finish(lease, Outcome.TRANSIENT, status_code=503), budget=0)
    return done


def test_failures_of_an_outage_cost_no_request_anything(ledger):
    ledger.add(map(str, range(10)))
    done = fail_all(ledger)
    assert done.gate.cause == "outage", "all that there is"
    assert ledger.row("SELECT sum(failures), max(failures) FROM requests") == (9, 1)
    for _ in range(40):
        ledger.now_ms = max(done.gate.opens_at_ms, ledger.now_ms + 60_000)
        (probe,) = ledger.turn().leases
        ledger.now_ms += 10
        done = ledger.turn(ledger.finish(probe, Outcome.TRANSIENT), budget=0)
    assert ledger.row("SELECT sum(failures) FROM requests") == (9,)
    control.end_outage(ledger.conn, ledger.now_ms)
    assert history(ledger)[-1] == ("gate_opened", None, "the run gave up")
    ledger.now_ms += 60_000
    assert len(ledger.turn().leases) == 10


def test_an_outage_is_tried_by_turns_with_fresh_words_and_with_those_that_failed(ledger):
    ledger.add(map(str, range(200)))
    ledger.turn(*(ledger.finish(e, Outcome.SUCCEEDED) for e in ledger.turn().leases), budget=0)
    ledger.now_ms += 1_000
    done = fail_all(ledger)
    assert done.gate.cause == "outage"
    for n in range(20):
        ledger.now_ms = max(done.gate.opens_at_ms, ledger.now_ms + 60_000)
        (probe,) = ledger.turn().leases
        assert (probe.number == 1) == (n % 2 == 0)
        ledger.now_ms += 10
        done = ledger.turn(ledger.finish(probe, Outcome.TRANSIENT), budget=0)


@pytest.mark.parametrize(("concurrency", "grows"), [(1, False), (9, True)])
def test_a_rate_grows_only_where_it_has_held_back(ledger, concurrency, grows):
    ledger.add("abc")
    control.set_concurrency(ledger.conn, "quota", concurrency)
    ledger.conn.execute(
        "UPDATE limits SET rate = 60, plateau = 70, tat_us = ?", (ledger.now_ms * 1_000,)
    )
    assert len(ledger.turn().leases) == 1
    assert (ledger.row("SELECT rate FROM limits") > (60,)) == grows


def test_a_server_that_fails_has_let_the_call_in(ledger):
    ledger.add(map(str, range(500)))
    ledger.now_ms = refuse(ledger).gate.opens_at_ms
    (probe,) = ledger.turn().leases
    failed = ledger.finish(probe, Outcome.TRANSIENT, status_code=500)
    assert ledger.turn(failed, budget=0).gate.cause == ""


def test_who_has_died_before_says_nothing_of_the_server(ledger):
    ledger.add("abcdef")
    assert len(ledger.turn().leases) == 6
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.ABANDONED, "died")
    ledger.run_id = ledger.start_run()
    leases = ledger.turn().leases
    ended = [ledger.finish(lease, Outcome.TRANSIENT) for lease in leases]
    assert ledger.turn(*ended, budget=0).gate.cause == ""


def test_answers_that_are_no_good_are_no_outage(ledger):
    ledger.add(map(str, range(20)))
    leases = ledger.turn().leases
    ended = [ledger.finish(lease, Outcome.TRANSIENT, retry_after_ms=0) for lease in leases]
    assert ledger.turn(*ended, budget=0).gate.cause == ""


def test_requests_that_always_fail_are_no_outage_where_others_are_served(ledger):
    ledger.add(map(str, range(100)))
    for _ in range(60):
        ledger.now_ms += 61_000
        leases = ledger.turn(budget=6).leases
        ends = [
            ledger.finish(e, Outcome.TRANSIENT if e.word in {"0", "1", "2"} else Outcome.SUCCEEDED)
            for e in leases
        ]
        done = ledger.turn(*ends, budget=0)
        assert done.gate.cause == ""
    states = ledger.states()
    assert [word for word, state in states.items() if state == "failed"] == ["0", "1", "2"]


def test_a_pause_ends_by_itself_when_it_was_said_to(ledger):
    ledger.add("abc")
    control.pause(ledger.conn, None, ledger.now_ms, ledger.now_ms + 5_000)
    waiting = ledger.turn()
    assert (waiting.leases, waiting.wake_at_ms) == ([], ledger.now_ms + 5_000)
    (limit,) = status(ledger.conn, 600, ledger.now_ms).limits
    assert (limit.held_by, limit.until_ms) == ("paused", ledger.now_ms + 5_000)
    ledger.now_ms += 5_000
    assert len(ledger.turn().leases) == 3
    assert whats(ledger) == ["paused"]


@pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.UNAVAILABLE])
@pytest.mark.parametrize("per_minute", [1, 5, 20])
def test_who_tries_a_gate_needs_a_place_like_all_others(ledger, outcome, per_minute):
    ledger.fix(per_minute)
    ledger.add(map(str, range(100)))
    for _ in range(400):
        ends = [ledger.finish(lease, outcome) for lease in ledger.turn().leases]
        ledger.now_ms += 100
        ledger.turn(*ends, budget=0)
        ledger.now_ms += 400
    starts = [at for (at,) in ledger.conn.execute("SELECT started_at_ms FROM attempts")]
    assert max(sum(first <= at < first + 60_000 for at in starts) for first in starts) <= per_minute


def test_a_gate_keeps_no_run_from_the_work_of_another_limit(ledger):
    other = put_limit(ledger.conn, "other", 5)
    spec = intake.PromptSpec("o", "Of {word}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, other, 1)
    ledger.add("abc")
    intake.add_words(ledger.conn, prompt.id, [Word(word, {}) for word in "xyz"], 1)
    leases = ledger.turn().leases
    ends = [ledger.finish(e, Outcome.THROTTLED, daily=True) for e in leases if e.prompt_id == 1]
    done = ledger.turn(*ends, budget=0)
    assert done.gate.cause == "", "there is another"
    ends = [ledger.finish(e, Outcome.THROTTLED, daily=True) for e in leases if e.prompt_id != 1]
    done = ledger.turn(*ends, budget=0)
    assert done.gate.cause == "day"
    assert gate_ending(done.gate, 6, 900_000, ledger.now_ms + 5_000).reason == "quota_day"


def test_which_closed_gates_end_a_run():
    def ending(cause, opens_at_ms, since_ms=0, now_ms=1_000_000):
        gate = Gate(opens_at_ms, 990_000, since_ms, 3, cause)
        found = gate_ending(gate, 7, 900_000, now_ms)
        return found and found.reason

    assert ending("day", 1_890_000) == "quota_day"
    assert ending("quota", 1_890_000) == "quota_day"
    assert ending("day", 1_889_999) is None
    assert ending("day", 1_890_000, now_ms=1_890_000) is None, "it is about to be tried"
    assert ending("outage", 1_005_000, since_ms=0) == "unreachable"
    assert ending("outage", 1_005_000, since_ms=200_000) is None
    assert ending("outage", 999_000, since_ms=0) is None, "of another day, perhaps"


def test_words_that_have_failed_once_know_an_outage_too(ledger):
    """Only such are left: they wait for the server, and none is lost."""
    ledger.add(map(str, range(10)))
    assert fail_all(ledger).gate.cause == "outage"
    control.end_outage(ledger.conn, ledger.now_ms)
    for _ in range(30):
        ledger.now_ms += 61_000
        done = ledger.turn(
            *(ledger.finish(e, Outcome.TRANSIENT) for e in ledger.turn().leases), budget=0
        )
    assert done.gate.cause == "outage"
    assert set(ledger.states().values()) == {"pending"}


def tried_until(ledger, until_ms, **said):
    """Have each call that tries the gate refused until a moment; return the last turn."""
    done = ledger.turn()
    while True:
        ends = [ledger.finish(lease, Outcome.UNAVAILABLE, **said) for lease in done.leases]
        done = ledger.turn(*ends, budget=0)
        if done.gate.opens_at_ms > until_ms:
            return done
        ledger.now_ms = done.gate.opens_at_ms
        done = ledger.turn()


LOADING = {"reason": "503: loading", "reason_code": Kind.MODEL_LOADING}


@pytest.mark.parametrize("pause_ms", [60_000, 120_000])
def test_a_model_that_is_loading_is_waited_for_as_long_as_its_server_asks(ledger, pause_ms):
    ledger.add("abc")
    began_ms = ledger.now_ms
    said = {**LOADING, "retry_after_ms": pause_ms}
    done = tried_until(ledger, began_ms + pause_ms, **said)
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms) is None
    done = tried_until(ledger, done.gate.opens_at_ms, **said)
    ending = gate_ending(done.gate, 3, 900_000, ledger.now_ms)
    assert (ending.reason, ending.detail) == ("loading", "503: loading")
    # The next run asks once: it ends as this one, or goes on.
    ledger.now_ms += 10**8
    leases = ledger.turn().leases
    assert len(leases) == 1
    leases = ledger.turn(ledger.finish(leases[0], Outcome.SUCCEEDED)).leases
    done = ledger.turn(ledger.finish(leases[0], Outcome.UNAVAILABLE, **said), budget=0)
    assert done.gate.cause == "outage"
    assert gate_ending(done.gate, 2, 900_000, ledger.now_ms) is None, "it was loaded since"


def test_a_server_that_counts_down_is_waited_for_as_long_as_it_said_at_first(ledger):
    ledger.add("abc")
    began_ms = ledger.now_ms
    for left_ms in range(600_000, 0, -50_000):
        said = {**LOADING, "retry_after_ms": max(60_000, left_ms)}
        done = tried_until(ledger, ledger.now_ms + 40_000, **said)
        assert gate_ending(done.gate, 3, 900_000, ledger.now_ms) is None, left_ms
        ledger.now_ms = done.gate.opens_at_ms
    done = tried_until(ledger, began_ms + 600_000, **LOADING, retry_after_ms=60_000)
    ledger.now_ms = done.gate.opens_at_ms
    done = tried_until(ledger, ledger.now_ms, **LOADING, retry_after_ms=60_000)
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms).reason == "loading"


def test_no_server_is_waited_for_longer_than_a_gate(ledger):
    ledger.add("abc")
    began_ms = ledger.now_ms
    done = tried_until(ledger, began_ms + 920_000, **LOADING, retry_after_ms=7_200_000)
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms).reason == "loading"


def test_a_model_is_loading_only_since_its_server_is_there_again(ledger):
    ledger.add("abc")
    done = tried_until(ledger, ledger.now_ms + 300_000, reason="refused")
    for loads_ms in (50_000, 20_000):
        ends = gate_ending(done.gate, 3, 900_000, ledger.now_ms)
        assert ends is None, "it was away for minutes, which says nothing of the model"
        until_ms = ledger.now_ms + loads_ms
        ledger.now_ms = done.gate.opens_at_ms
        done = tried_until(ledger, until_ms, **LOADING, retry_after_ms=60_000)
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms).reason == "loading"
    ledger.now_ms = done.gate.opens_at_ms
    done = tried_until(ledger, ledger.now_ms, reason="refused")
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms) is None, "its server is away again"


def test_a_run_counts_only_what_it_has_seen_of_a_closed_gate(ledger):
    """Whoever runs again has mended something: his run asks, and waits as long as the first did."""
    ledger.add("abc")
    said = {**LOADING, "retry_after_ms": 60_000}
    tried_until(ledger, ledger.now_ms + 3_600_000, **said)
    ledger.now_ms += 1_000
    ledger.run_id = ledger.start_run()
    done = ledger.turn()
    assert done.gate.opens_at_ms > ledger.now_ms, "the first run was killed at a closed gate"
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms) is None
    ledger.now_ms = done.gate.opens_at_ms
    began_ms = ledger.now_ms
    done = tried_until(ledger, began_ms + 50_000, **said)
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms) is None
    done = tried_until(ledger, began_ms + 70_000, **said)
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms).reason == "loading"


def test_a_run_that_begins_in_an_outage_asks_before_it_gives_up(ledger):
    ledger.add("abc")
    tried_until(ledger, ledger.now_ms + 1_000_000, reason="refused")
    assert gate_ending(ledger.turn().gate, 3, 900_000, ledger.now_ms).reason == "unreachable"
    ledger.now_ms += 1_000
    ledger.run_id = ledger.start_run()
    done = ledger.turn()
    assert done.gate.opens_at_ms > ledger.now_ms
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms) is None
    ledger.now_ms = done.gate.opens_at_ms
    done = tried_until(ledger, ledger.now_ms + 910_000, reason="refused")
    assert gate_ending(done.gate, 3, 900_000, ledger.now_ms).reason == "unreachable"
