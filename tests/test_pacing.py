"""What is learned is on record: over restarts, for SQL, and in the transaction that leases."""

import itertools

from crawler.ledger import control, look, report
from crawler.ledger.pacing import RATE_STEP
from crawler.pace import Pace
from crawler.states import Outcome


def history(ledger):
    return ledger.conn.execute("SELECT what, per_minute, why FROM limit_history").fetchall()


def whats(ledger):
    return [what for what, *_ in history(ledger)]


def test_a_pace_is_kept_in_the_columns_of_its_names(ledger):
    columns = [name for _, name, *_ in ledger.conn.execute("PRAGMA table_info(limits)")]
    assert set(Pace._fields) <= set(columns)
    (limit,) = look.limits(ledger.conn, 600).values()
    assert limit.pace == Pace(), "a new row is a pace that has learned nothing"


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
    assert whats(ledger) == ["gate_closed", "gate_opened", "rate_raised"]
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
    (limit,) = report.status(ledger.conn, 600, ledger.now_ms).limits
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
    control.set_per_minute(ledger.conn, "quota", 90, ledger.now_ms)
    assert ledger.row("SELECT rate, bursting FROM limits") == (None, 1)
    assert history(ledger)[-1] == ("set", 90, "per_minute = 90")


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


def test_failures_of_an_outage_cost_no_request_anything(ledger):
    ledger.add(map(str, range(100)))
    leases = ledger.turn().leases
    ended = [ledger.finish(lease, Outcome.TRANSIENT, reason="503") for lease in leases]
    done = ledger.turn(*ended, budget=0)
    assert done.gate.cause == "outage"
    assert ledger.row("SELECT sum(failures), max(failures) FROM requests") == (4, 1)
    for n in range(40):
        ledger.now_ms = done.gate.opens_at_ms
        (probe,) = ledger.turn().leases
        assert (probe.number == 1) == (n % 2 == 0), (
            "by turns one that never failed and one that did"
        )
        ledger.now_ms += 10
        done = ledger.turn(ledger.finish(probe, Outcome.TRANSIENT), budget=0)
    assert ledger.row("SELECT sum(failures) FROM requests") == (4,)
    control.end_outage(ledger.conn, ledger.now_ms)
    assert len(ledger.turn().leases) == 10


def test_requests_that_always_fail_are_no_outage(ledger):
    ledger.add(map(str, range(3)))
    for _ in range(25):
        ledger.now_ms += 61_000
        leases = ledger.turn().leases
        done = ledger.turn(*(ledger.finish(lease, Outcome.TRANSIENT) for lease in leases), budget=0)
    assert done.gate.cause == ""
    assert set(ledger.states().values()) == {"failed"}


def test_a_pause_ends_by_itself_when_it_was_said_to(ledger):
    ledger.add("abc")
    control.pause(ledger.conn, None, ledger.now_ms, ledger.now_ms + 5_000)
    waiting = ledger.turn()
    assert (waiting.leases, waiting.wake_at_ms) == ([], ledger.now_ms + 5_000)
    (limit,) = report.status(ledger.conn, 600, ledger.now_ms).limits
    assert (limit.held_by, limit.until_ms) == ("paused", ledger.now_ms + 5_000)
    ledger.now_ms += 5_000
    assert len(ledger.turn().leases) == 3
    assert whats(ledger) == ["paused"]
