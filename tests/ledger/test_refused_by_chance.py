"""No word fails for refusals that come by chance, however often they come."""

import random

import pytest

from crawler.states import Outcome
from tests.conftest import Ledger


@pytest.mark.parametrize("seed", range(5))
def test_no_word_of_2_000_fails_where_three_in_ten_are_refused(seed):
    ledger, chance = Ledger(concurrency=20), random.Random(seed)
    ledger.fix(1_000_000)
    ledger.add(f"w{n}" for n in range(2_000))
    ended, refused = [], 0
    while True:
        done = ledger.turn(*ended)
        if not done.unfinished:
            break
        ledger.now_ms = max(ledger.now_ms + 5, min(done.wake_at_ms or 0, ledger.now_ms + 500))
        outcomes = [
            Outcome.THROTTLED if chance.random() < 0.3 else Outcome.SUCCEEDED for _ in done.leases
        ]
        refused += outcomes.count(Outcome.THROTTLED)
        ended = [
            ledger.finish(lease, outcome, retry_after_ms=1)
            if outcome is Outcome.THROTTLED
            else ledger.finish(lease, outcome)
            for lease, outcome in zip(done.leases, outcomes, strict=True)
        ]
    assert refused > 500
    assert set(ledger.states().values()) == {"succeeded"}
    ledger.conn.close()


def test_a_word_that_is_refused_for_ever_fails_and_holds_up_no_other():
    """With one call at once, and a limit that learns: each refusal may be the rate's."""
    ledger, ended, most = Ledger(concurrency=1), [], 0
    words = ["poison", *(f"w{n}" for n in range(60))]
    ledger.add(words)
    began_ms = ledger.now_ms
    while ledger.now_ms < began_ms + 600_000:
        done = ledger.turn(*ended)
        if not done.unfinished:
            break
        at_ms = done.wake_at_ms or ledger.now_ms + 300
        ledger.now_ms = max(ledger.now_ms + 50, ledger.now_ms + 300 if done.leases else at_ms)
        ended = [
            ledger.finish(lease, Outcome.THROTTLED, reason="429", status_code=429)
            if lease.word == "poison"
            else ledger.finish(lease, Outcome.SUCCEEDED)
            for lease in done.leases
        ]
        most = max([most, *(lease.number for lease in done.leases)])
    states = ledger.states()
    assert states.pop("poison") == "failed"
    assert set(states.values()) == {"succeeded"}
    assert 5 <= most <= 20
    assert ledger.now_ms - began_ms < 180_000
    assert ledger.row("SELECT reason_code FROM attempts WHERE outcome = 'rejected'") == (
        "too_large_for_quota",
    )
    ledger.conn.close()


def test_the_last_refusal_of_such_a_word_opens_no_gate():
    """It fails for what it is; of the limit it says no more than any other refusal."""
    ledger, ended, cause = Ledger(concurrency=1), [], None
    ledger.add(["poison", *(f"w{n}" for n in range(200))])
    while ledger.states()["poison"] != "failed":
        ledger.conn.execute(
            "UPDATE limits SET gate_cause = NULL, gate_reason = NULL, gate_opens_at_ms = 0,"
            " gate_strikes = 0"
        )
        done = ledger.turn(*ended)
        ended, now_ms = [], ledger.now_ms
        ledger.now_ms += 500
        for lease in done.leases:
            if lease.word != "poison":
                ended.append(ledger.finish(lease, Outcome.SUCCEEDED))
                continue
            ledger.conn.execute(
                "UPDATE limits SET gate_cause = 'quota', gate_reason = '429', gate_strikes = 1,"
                f" gate_since_ms = {now_ms - 9}, gate_closed_at_ms = {now_ms - 9},"
                f" gate_opens_at_ms = {now_ms}"
            )
            end = ledger.finish(lease, Outcome.THROTTLED, reason="429", status_code=429)
            ledger.turn(end, budget=0)
            cause = ledger.row("SELECT gate_cause FROM limits")
    assert cause == ("quota",)
    ledger.conn.close()
