"""Tokens and funds: estimated before, settled after, and never more than there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.ledger import audit, control, look, tokens
from crawler.ledger import lease as leases
from crawler.ledger import turn as turns
from crawler.ledger.intake import PromptSpec, put_prompt
from crawler.ledger.record import Finish
from crawler.ledger.restamp import restamp
from crawler.run.funds import Funds
from crawler.states import Outcome
from tests.conftest import Ledger


def limited(most, **facts):
    ledger = Ledger(concurrency=1_000, **facts)
    control.set_tokens_per_minute(ledger.conn, "quota", most, ledger.now_ms)
    control.set_adaptive(ledger.conn, "quota", ledger.now_ms, adaptive=False)
    return ledger


def used(ledger, lease, tokens_in, tokens_out, **facts):
    facts = {"tokens_in": tokens_in, "tokens_out": tokens_out, **facts}
    return ledger.finish(lease, Outcome.SUCCEEDED, **facts)


@pytest.mark.parametrize(("most", "out"), [(6_000, 90), (60_000, 400), (3_000, 20)])
def test_tokens_of_a_minute_are_used_and_not_exceeded(most, out):
    """The first estimates are wrong (250 tokens an answer); what is used is what counts."""
    ledger = limited(most)
    ledger.add(map(str, range(3_000)))
    began_ms, in_flight, spent = ledger.now_ms, [], []
    while ledger.now_ms < began_ms + 300_000:
        ended = [entry for entry in in_flight if entry[0] <= ledger.now_ms]
        in_flight = [entry for entry in in_flight if entry[0] > ledger.now_ms]
        finished = [used(ledger, lease, 5, out) for _, lease in ended]
        done = ledger.turn(*finished)
        in_flight += [(ledger.now_ms + 2_000, lease) for lease in done.leases]
        spent += [ledger.now_ms] * len(done.leases)
        wakes = [entry[0] for entry in in_flight] + [done.wake_at_ms or 2**62]
        ledger.now_ms = max(ledger.now_ms + 1, min(wakes))
    each = 5 + out
    for first in spent:
        within = [at for at in spent if first <= at < first + 60_000]
        assert (len(within) - 1) * each <= most
    late = [at for at in spent if at >= began_ms + 60_000]
    assert len(late) * each >= 0.95 * 4 * most
    assert not any(finding.broken for finding in audit.check(ledger.conn))


def test_a_request_that_no_minute_has_tokens_for_is_refused_with_a_reason_and_no_other_is():
    ledger = limited(200)
    ledger.add(["short", "long " * 500])
    leases = ledger.turn().leases
    while len(leases) < 2:
        ledger.now_ms += 90_000
        leases += ledger.turn().leases
    reasons = {lease.word[:5]: lease.refusal for lease in leases}
    assert "tokens, and the limit allows 200 a minute" in reasons["long "]
    assert reasons["short"] is None, "its answer may be short, whatever the guess"


def test_a_long_answer_fails_no_other_word():
    ledger = limited(2_000)
    ledger.add(map(str, range(20)))
    asked = 0
    for n in range(40):
        leases = ledger.turn().leases
        assert all(lease.refusal is None for lease in leases)
        asked += len(leases)
        ends = [used(ledger, lease, 5, 2_500 if n == 0 else 20) for lease in leases]
        ledger.turn(*ends, budget=0)
        ledger.now_ms += 80_000
    assert asked == 20


def test_no_token_count_of_a_server_does_any_harm():
    ledger = limited(1_000)
    ledger.add(map(str, range(3)))
    (lease,) = ledger.turn(budget=1).leases
    ledger.turn(used(ledger, lease, 2**62, 2**62), budget=0)
    assert ledger.states()["0"] == "succeeded"
    ledger.now_ms += 2 * 10**6 * 61
    (lease,) = ledger.turn().leases
    assert lease.refusal is None


def test_an_estimate_is_never_above_what_the_prompt_allows():
    known = tokens.Usual(10, 10, 0.25, 250.0, 1, 30)
    assert known.estimate("word", None) == 30 + round(14 / 4)
    assert known._replace(most_out=None).estimate("word", None) == 254


def test_what_a_call_may_use_counts_the_word_as_often_as_the_template_does():
    ledger = Ledger()
    spec = PromptSpec("q", "{word} and {word}: {word}", "scripted", "m", {})
    prompt, _ = put_prompt(ledger.conn, spec, ledger.limit_id, 1)
    usual = tokens.usual(ledger.conn, prompt.id)
    tokens_in, tokens_out = usual.most("x" * 100, None)
    assert tokens_in >= 300
    assert tokens_out == 4 * 250, "four times the mean, where the prompt sets no most"
    ledger.conn.close()


def test_refused_calls_give_their_tokens_back():
    ledger = limited(10_000)
    ledger.add(map(str, range(50)))
    (lease,) = ledger.turn(budget=1).leases
    assert lease.tokens > 0
    taken = ledger.row("SELECT tokens_tat_us FROM limits")[0]
    ledger.turn(ledger.finish(lease, Outcome.THROTTLED), budget=0)
    assert ledger.row("SELECT tokens_tat_us FROM limits")[0] < taken
    assert ledger.row("SELECT tokens_out_mean FROM tallies")[0] == 250, "it tells nothing"


def test_estimates_follow_what_answers_take():
    ledger = limited(1_000_000)
    ledger.add(map(str, range(200)))
    for _ in range(60):
        ledger.now_ms += 1_000
        ledger.turn(*(used(ledger, lease, 12, 31) for lease in ledger.turn().leases), budget=0)
    usual = tokens.usual(ledger.conn, ledger.prompt.id)
    assert abs(usual.estimate("123", None) - 43) <= 3


def test_who_does_not_say_what_he_used_keeps_his_reserve():
    ledger = limited(10_000)
    ledger.add("ab")
    (lease,) = ledger.turn(budget=1).leases
    taken = ledger.row("SELECT tokens_tat_us FROM limits")
    ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED), budget=0)
    assert ledger.row("SELECT tokens_tat_us FROM limits") == taken


@pytest.mark.parametrize(("tokens_in", "tokens_out"), [(None, 7), (7, None)])
def test_who_says_half_of_what_it_used_keeps_its_reserve_and_teaches_nothing(tokens_in, tokens_out):
    ledger = limited(6_000)
    ledger.add("a")
    before = ledger.row("SELECT tokens_per_char, tokens_out_mean FROM tallies")
    (lease,) = ledger.turn().leases
    taken = ledger.row("SELECT tokens_tat_us FROM limits")
    ledger.turn(used(ledger, lease, tokens_in, tokens_out), budget=0)
    assert ledger.row("SELECT tokens_tat_us FROM limits") == taken
    assert ledger.row("SELECT tokens_per_char, tokens_out_mean FROM tallies") == before


def test_an_answer_as_long_as_its_question_teaches_as_much_as_another():
    ledger = limited(6_000)
    ledger.add("a")
    (lease,) = ledger.turn().leases
    ledger.turn(used(ledger, lease, 4, 4), budget=0)
    # The first answer of all: 4 tokens for "About {word}" and "a".
    assert ledger.row("SELECT tokens_per_char, tokens_out_mean FROM tallies") == (4 / 13, 4)


def test_calls_that_were_held_up_until_their_places_were_gone_give_their_tokens_back():
    ledger = limited(1_000_000)
    ledger.add("ab")
    leases = ledger.turn().leases
    assert ledger.row("SELECT tokens_tat_us FROM limits")[0] > ledger.now_ms * 1_000 + 20_000
    control.set_per_minute(ledger.conn, "quota", 1, ledger.now_ms)
    assert restamp(ledger.conn, ledger.scope(), leases) == (ledger.now_ms, 0)
    assert ledger.row("SELECT tokens_tat_us FROM limits")[0] <= ledger.now_ms * 1_000
    reasons = {reason for (reason,) in ledger.conn.execute("SELECT reason FROM attempts")}
    assert reasons == {"it was held up until there was no place for it any more"}


@pytest.mark.parametrize(("spare", "chosen"), [(-1, 1), (0, 1), (1, 2)])
def test_the_last_of_the_tokens_start_a_call_and_none_starts_without(spare, chosen):
    ledger = limited(6_000)
    drawn = [leases.Lease(n, 1, ledger.prompt.id, "a", None) for n in (1, 2, 3)]
    each = tokens.usual(ledger.conn, ledger.prompt.id).estimate("a", None)
    (limit,) = look.limits(ledger.conn, 600).values()
    facts = (limit.quota, each + spare, leases.ANYTHING)
    found = tokens.affordable(ledger.conn, drawn, *facts)
    assert (len(found.leases), found.held_by) == (chosen, "tokens")


def test_fields_are_part_of_a_question():
    usual = tokens.Usual(10, 10, 0.5, 20.0, 1, None)
    assert usual.estimate("word", None) == 27
    assert usual.estimate("word", "x" * 40) == 47


@pytest.mark.parametrize(("missing", "chosen"), [(0, 1), (1, 0)])
def test_funds_may_be_spent_to_the_last(ledger, missing, chosen):
    most = sum(tokens.usual(ledger.conn, ledger.prompt.id).most("a", None))
    drawn = [leases.Lease(1, 1, ledger.prompt.id, "a", None)]
    (limit,) = look.limits(ledger.conn, 600).values()
    funds = leases.Allowance(9, most - missing)
    found = tokens.affordable(ledger.conn, drawn, limit.quota, None, funds)
    assert len(found.leases) == chosen


def test_what_is_not_sent_costs_nothing():
    ledger = limited(100)
    drawn = [leases.Lease(1, 1, ledger.prompt.id, "long " * 500, None)]
    (limit,) = look.limits(ledger.conn, 600).values()
    funds = leases.Allowance(9, 1e9)
    ((refused,), _) = tokens.affordable(ledger.conn, drawn, limit.quota, 100, funds)
    assert refused.refusal is not None
    assert refused.cost == 0


def test_without_a_limit_nothing_is_estimated(ledger):
    ledger.add("ab")
    assert [lease.tokens for lease in ledger.turn().leases] == [None, None]


@given(
    funds=st.integers(0, 20_000),
    answers=st.lists(st.integers(0, 50), min_size=30, max_size=30),
    at_once=st.integers(1, 8),
)
def test_no_more_is_spent_than_was_given(funds, answers, at_once):
    ledger = Ledger(concurrency=at_once)
    ledger.conn.execute("DROP TRIGGER prompts_are_immutable")
    ledger.conn.execute("UPDATE prompts SET params = '{\"max_output_tokens\": 50}'")
    ledger.add(map(str, range(30)))
    purse = Funds(leases.ANYTHING._replace(funds=float(funds)))
    answers, spent, finished = iter(answers), 0, []
    while True:
        done = turns.turn(ledger.conn, ledger.scope(), finished, purse.left(100))
        finished = []
        for lease in done.leases:
            purse.begun(lease)
        for lease in done.leases:
            out = next(answers)
            spent += 9 + out
            finished.append(used(ledger, lease, 9, out))
            purse.ended(finished[-1])
        if not done.leases:
            break
        ledger.now_ms += 1_000
    assert spent <= funds
    most = leases.Allowance(1).cost(*tokens.usual(ledger.conn, 1).most("29", None))
    assert done.out_of_funds == (done.unfinished > 0)
    assert done.unfinished == 0 or funds - spent < most, "what is left would pay for no other"


def test_who_does_not_say_what_it_used_has_used_the_most():
    purse = Funds(leases.ANYTHING._replace(funds=100.0, price_in=2.0, price_out=3.0))
    lease = leases.Lease(1, 1, 1, "w", None, cost=40.0)
    purse.begun(lease)
    assert purse.left(1).funds == 60
    purse.ended(Finish(1, 1, 5, Outcome.SUCCEEDED, text="t"))
    assert purse.left(1).funds == 60
    purse.begun(lease)
    purse.ended(Finish(1, 1, 5, Outcome.SUCCEEDED, text="t", tokens_in=3, tokens_out=4))
    assert purse.left(1).funds == 60 - 3 * 2 - 4 * 3
    purse.begun(lease)
    purse.ended(Finish(1, 1, 5, Outcome.THROTTLED))
    assert purse.left(1).funds == 42, "nobody pays for a refusal"
    purse.begun(lease)
    purse.ended(Finish(1, 1, 5, Outcome.TRANSIENT, status_code=503))
    assert purse.left(1).funds == 42, "nor for a server that is out of order"
