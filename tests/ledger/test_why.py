"""Why a request is not being asked: one test for each code, each as the next turn would find it."""

import dataclasses

import pytest

from crawler.ledger import control, intake
from crawler.ledger.budget import Allowance
from crawler.ledger.doubt import told_doubts
from crawler.ledger.finish import end_run
from crawler.ledger.limits import put_limit
from crawler.ledger.runs import EVERYTHING, Selection, start_run
from crawler.ledger.turn import turn
from crawler.ledger.why import why_not
from crawler.protocol import Word
from crawler.states import Outcome, RequestState

LIMIT = "quota"


def why(ledger, request_id=1, alive=None):
    alive = {ledger.run_id} if alive is None else alive
    return why_not(ledger.conn, request_id, alive, ledger.policy, ledger.now_ms)


def end(ledger, lease, outcome, **facts):
    return ledger.turn(ledger.finish(lease, outcome, **facts), budget=0)


def test_next_says_how_many_come_first(ledger):
    ledger.add("abc")
    assert [why(ledger, n)[:1] + why(ledger, n)[-1:] for n in (1, 3)] == [("next", 0), ("next", 2)]


def test_in_flight_since_its_attempt_began(ledger):
    ledger.add("a")
    ledger.turn()
    began_ms, ledger.now_ms = ledger.now_ms, ledger.now_ms + 5
    assert why(ledger)[:2] == ("in_flight", began_ms)


@pytest.mark.parametrize(
    ("outcome", "state"), [(Outcome.SUCCEEDED, "succeeded"), (Outcome.BLOCKED, "failed")]
)
def test_what_is_not_to_be_asked_any_more(ledger, outcome, state):
    ledger.add("a")
    (lease,) = ledger.turn().leases
    end(ledger, lease, outcome, reason="so")
    assert (why(ledger).code, why(ledger).detail) == (state, "so")


def test_cancelled(ledger):
    ledger.add("a")
    control.cancel(ledger.conn, [ledger.prompt.id], None)
    assert why(ledger).code == "cancelled"
    control.retry(ledger.conn, [ledger.prompt.id], None, [RequestState.CANCELLED])
    assert why(ledger).code == "next"


def test_what_waits_is_asked_by_the_newest_version_and_what_was_asked_again_has_ended(ledger):
    ledger.add("a")
    spec = intake.PromptSpec("p", "Of {word}", "scripted", "m", {})
    intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
    assert why(ledger).code == "next"
    ledger.turn(ledger.finish(*ledger.turn().leases, Outcome.TRANSIENT), budget=0)
    intake.make_current(ledger.conn, ledger.prompt.id)
    assert why(ledger).code == "cancelled"
    assert why(ledger, request_id=2).code == "next"


def refused(ledger, outcome, reason, *, times, ends_as, **facts):
    """Make a run whose calls end alike, and end it."""
    ledger.run_id = ledger.start_run()
    for _ in range(times):
        (lease,) = ledger.turn(budget=1).leases
        end(ledger, lease, outcome, reason=reason, **facts)
        ledger.now_ms += 1
    ledger.end_run(ledger.run_id, Outcome.INTERRUPTED, ends_as)


def test_a_later_run_that_could_not_ask_says_what_is_wrong_now(ledger):
    ledger.add("abcd")
    key = {"times": 3, "ends_as": "credentials", "reason_code": "credentials"}
    refused(ledger, Outcome.DENIED, "401: wrong key", **key)
    assert why(ledger, alive=())[3:5] == ("credentials", "401: wrong key")
    ledger.run_id = ledger.start_run()
    ledger.end_run(ledger.run_id, Outcome.INTERRUPTED, "stopped")
    assert told_doubts(ledger.conn, EVERYTHING), "who stops a run says nothing of the key"
    loads = {"times": 1, "ends_as": "loading", "reason_code": "model_loading"}
    refused(ledger, Outcome.UNAVAILABLE, "503: loading", **loads)
    assert why(ledger, alive=())[3:5] == ("loading", "503: loading")
    assert told_doubts(ledger.conn, EVERYTHING) == {}
    ledger.now_ms += 60_000
    refused(ledger, Outcome.DENIED, "401: still", **{**key, "times": 1})
    (doubt,) = told_doubts(ledger.conn, EVERYTHING).values()
    assert (doubt.reason, why(ledger, alive=()).detail) == ("401: still", "401: still")


def test_no_run_says_why_the_last_one_ended(ledger):
    ledger.add("a")
    assert why(ledger, alive=())[:1] == ("no_run",), "its process is gone, and not its row"
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.INTERRUPTED, "stopped")
    found = why(ledger, alive={ledger.run_id})
    assert (found.code, found.cause, found.since_ms) == ("no_run", "stopped", ledger.now_ms)


def test_not_selected(ledger):
    ledger.add("ab")
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.INTERRUPTED, "stopped")

    def code_beside(options, request_id=1):
        run = start_run(ledger.conn, 1, "h", "0", ledger.now_ms, options=options)
        found = why(ledger, request_id, {run}).code
        end_run(ledger.conn, ledger.scope(run), run, Outcome.INTERRUPTED, "stopped")
        return found

    assert code_beside({"prompt": "other"}) == "not_selected"
    assert code_beside({"prompt": "p"}) == "next"
    assert code_beside({"request_ids": [2]}) == "not_selected"
    assert code_beside({"request_ids": [2]}, 2) == "next"
    assert code_beside({"prompt_ids": [7]}) == "not_selected"
    assert code_beside({"prompt_ids": [1]}) == "next"


def test_function_unless_the_program_that_has_it_is_at_work(ledger):
    ledger.add("a")
    ledger.conn.execute("DROP TRIGGER prompts_are_immutable")
    ledger.conn.execute("UPDATE prompts SET provider = 'function'")
    assert why(ledger).code == "function"
    run = start_run(ledger.conn, 1, "h", "0", ledger.now_ms, options={"prompt_ids": [1]})
    assert why(ledger, alive={run}).code == "next"


def test_paused_until(ledger):
    ledger.add("a")
    control.pause(ledger.conn, LIMIT, ledger.now_ms, ledger.now_ms + 9_000)
    assert why(ledger)[:3] == ("paused", ledger.now_ms, ledger.now_ms + 9_000)
    ledger.now_ms += 9_000
    assert why(ledger).code == "next"


def test_backoff_until_it_is_due_again(ledger):
    ledger.add("a")
    (lease,) = ledger.turn().leases
    end(ledger, lease, Outcome.TRANSIENT, retry_after_ms=70_000, reason="it broke")
    found = why(ledger)
    assert (found.code, found.until_ms, found.detail) == (
        "backoff",
        ledger.now_ms + 70_000,
        "it broke",
    )
    ledger.now_ms = found.until_ms
    assert why(ledger).code == "next"


def test_over_budget_says_what_it_may_cost_and_what_is_left(ledger):
    ledger.add(["long " * 2_000, "a"])
    options = {"budget": 3_000.0, "price_in": 1.0, "price_out": 1.0}
    run = start_run(ledger.conn, 1, "h", "0", ledger.now_ms, options=options)
    turn(ledger.conn, ledger.scope(run), [], Allowance(0, 3_000.0))
    found = why(ledger, 1, {run})
    assert found.code == "over_budget"
    assert found.left == 3_000 < found.cost
    assert why(ledger, 2, {run}).code == "next"
    assert why(ledger, 1, {run, ledger.run_id}).code == "next", "another one has no budget"


def spender(ledger, budget):
    """Put a run on record that has so much left to spend."""
    options = {"budget": 9_000.0, "price_in": 1.0, "price_out": 1.0}
    run = start_run(ledger.conn, 1, "h", "0", ledger.now_ms, options=options)
    turn(ledger.conn, ledger.scope(run), [], Allowance(0, budget))
    return run


def test_over_budget_where_nothing_at_all_is_left(ledger):
    ledger.add("a")
    found = why(ledger, 1, {spender(ledger, 0.0)})
    assert (found.code, found.left) == ("over_budget", 0.0)
    assert found.cost > 0


@pytest.mark.parametrize("budgets", [(1.0, 8_000.0), (8_000.0, 1.0)])
def test_of_two_runs_the_one_with_more_left_pays(ledger, budgets):
    ledger.add("a")
    poor, rich = sorted((budget, spender(ledger, budget)) for budget in budgets)
    assert why(ledger, 1, {poor[1], rich[1]}).code == "next"
    assert why(ledger, 1, {poor[1]}).code == "over_budget"


def test_gate_with_its_cause_and_when_it_opens(ledger):
    ledger.add("ab")
    first, _ = ledger.turn().leases
    end(ledger, first, Outcome.THROTTLED, retry_after_ms=60_000, reason="429")
    found = why(ledger)
    assert (found.code, found.cause, found.detail) == ("gate", "quota", "429")
    assert found.until_ms == ledger.now_ms + 60_000


def test_window_full_until_the_first_place_is_free(ledger):
    ledger.fix(2)
    ledger.add("abc")
    ledger.turn()
    found = why(ledger, 3)
    assert found[:3] == ("per_minute", None, ledger.now_ms + 60_000 + ledger.policy.guard_ms + 1)
    ledger.now_ms = found.until_ms - 1
    assert not ledger.turn().leases
    ledger.now_ms += 1
    assert len(ledger.turn().leases) == 1


def test_no_tokens_of_this_minute(ledger):
    control.set_tokens_per_minute(ledger.conn, LIMIT, 300, ledger.now_ms)
    ledger.add("abc")
    ledger.turn()
    found = why(ledger, 3)
    assert found.code == "tokens_per_minute"
    assert found.until_ms > ledger.now_ms


def test_pace_of_a_rate_that_was_learned(ledger):
    ledger.add(map(str, range(40)))
    ledger.conn.execute("UPDATE limits SET tat_us = 0, rate = 6, plateau = 6")
    ledger.turn()
    found = why(ledger, 40)
    assert found.code == "pace"
    assert found.until_ms > ledger.now_ms


def test_concurrency(ledger):
    ledger.add(map(str, range(40)))
    control.set_per_minute(ledger.conn, LIMIT, 600, ledger.now_ms)
    control.set_adaptive(ledger.conn, LIMIT, ledger.now_ms, adaptive=False)
    assert len(ledger.turn().leases) == 10
    assert why(ledger, 40).code == "concurrency"


def test_doubt_says_what_the_server_says(ledger):
    ledger.add("abcdefghijklmnop")
    leases = ledger.turn(budget=10).leases
    facts = {"reason": "no such model", "reason_code": "model_missing"}
    for lease in leases[:-1]:
        end(ledger, lease, Outcome.REFUSED, **facts)
    assert why(ledger, 16).code == "next"
    end(ledger, leases[-1], Outcome.REFUSED, **facts)
    found = why(ledger, 16)
    assert (found.code, found.cause, found.detail) == ("doubt", "model_missing", "no such model")
    heir = ledger.start_run()
    assert why(ledger, 16, {heir}).code == "next", "a new run sends one call"
    ledger.turn(run_id=heir)
    found = why(ledger, 16, {heir})
    assert (found.code, found.detail) == ("doubt", None)


def test_another_limit_holds_nothing_back(ledger):
    other = put_limit(ledger.conn, "other", 5)
    spec = intake.PromptSpec("o", "Of {word}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, other, 1)
    ledger.add("a")
    intake.add_words(ledger.conn, prompt.id, [Word("a", {})], 1)
    control.pause(ledger.conn, LIMIT, ledger.now_ms)
    assert (why(ledger, 1).code, why(ledger, 2).code) == ("paused", "next")


def test_it_agrees_with_a_turn_for_one_request(ledger):
    ledger.add("ab")
    ledger.fix(1)
    alone = dataclasses.replace(ledger.scope(), selection=Selection(request_ids=(2,)))
    assert why(ledger, 2).code == "next"
    assert [lease.word for lease in turn(ledger.conn, alone, [], Allowance(9)).leases] == ["b"]
    assert why(ledger, 1).code == "per_minute"
