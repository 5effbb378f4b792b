"""Tokens and budgets: estimated before, settled after, and never more than there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.ledger import control, tokens
from crawler.ledger import turn as turns
from crawler.ledger.budget import ANYTHING, Allowance
from crawler.ledger.check import check
from crawler.ledger.draw import Room, draw
from crawler.ledger.finish import released, tokens_used
from crawler.ledger.intake import PromptSpec, put_prompt
from crawler.ledger.limits import limits
from crawler.protocol import Finish
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
    assert not any(finding.broken for finding in check(ledger.conn))


def test_a_request_that_no_minute_has_tokens_for_fails_with_a_reason_and_no_other_does():
    ledger = limited(200)
    ledger.add(["long " * 500, "short"])
    (lease,) = ledger.turn().leases
    assert lease.word == "short", "its answer may be short, whatever the guess"
    assert ledger.states()["long " * 500] == "failed"
    (reason,) = ledger.row("SELECT reason FROM failures")
    assert "tokens, and the limit allows 200 a minute" in reason


def test_a_long_answer_fails_no_other_word():
    ledger = limited(2_000)
    ledger.add(map(str, range(20)))
    asked = 0
    for n in range(40):
        leases = ledger.turn().leases
        asked += len(leases)
        ends = [used(ledger, lease, 5, 2_500 if n == 0 else 20) for lease in leases]
        ledger.turn(*ends, budget=0)
        ledger.now_ms += 80_000
    assert asked == 20
    assert "failed" not in ledger.states().values()


def test_no_token_count_of_a_server_does_any_harm():
    ledger = limited(1_000)
    ledger.add(map(str, range(3)))
    (lease,) = ledger.turn(budget=1).leases
    ledger.turn(used(ledger, lease, 2**62, 2**62), budget=0)
    assert ledger.states()["0"] == "succeeded"
    ledger.now_ms += 2 * 10**6 * 61
    assert len(ledger.turn().leases) == 1


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


def test_calls_that_are_released_give_their_tokens_back():
    ledger = limited(1_000_000)
    ledger.add("ab")
    leases = ledger.turn().leases
    assert ledger.row("SELECT tokens_tat_us FROM limits")[0] > ledger.now_ms * 1_000 + 20_000
    ledger.turn(*(released(lease, ledger.now_ms) for lease in leases), budget=0)
    assert ledger.row("SELECT tokens_tat_us FROM limits")[0] <= ledger.now_ms * 1_000
    assert ledger.row("SELECT tokens_out_mean FROM tallies")[0] == 250, "it tells nothing"


def drawn(ledger, *, tokens=None, allowance=ANYTHING, most=None):
    (limit,) = limits(ledger.conn, 600).values()
    room = Room(9, tokens, {}, looked_at_most=most)
    return draw(
        ledger.conn, ledger.scope(), limit, [ledger.prompt.id], room, allowance, ledger.now_ms
    )


@pytest.mark.parametrize(("spare", "chosen"), [(-1, 1), (0, 1), (1, 2)])
def test_the_last_of_the_tokens_start_a_call_and_none_starts_without(spare, chosen):
    ledger = limited(6_000)
    ledger.add("abc")
    each = tokens.usual(ledger.conn, ledger.prompt.id).estimate("a", None)
    found = drawn(ledger, tokens=each + spare)
    assert (len(found.leases), found.out_of_tokens) == (chosen, True)


def test_fields_are_part_of_a_question():
    usual = tokens.Usual(10, 10, 0.5, 20.0, 1, None)
    assert usual.estimate("word", None) == 27
    assert usual.estimate("word", "x" * 40) == 47


@pytest.mark.parametrize(("missing", "chosen"), [(0, 1), (1, 0)])
def test_a_budget_may_be_spent_to_the_last(ledger, missing, chosen):
    ledger.add("a")
    most = sum(tokens.usual(ledger.conn, ledger.prompt.id).most("a", None))
    found = drawn(ledger, allowance=Allowance(9, most - missing))
    assert (len(found.leases), found.over_budget) == (chosen, not chosen)


def test_a_budget_passes_over_what_it_cannot_afford(ledger):
    ledger.add(["long " * 5_000, "a", "long " * 6_000, "b"])
    found = drawn(ledger, allowance=Allowance(9, 5_000))
    assert [lease.word for lease in found.leases] == ["a", "b"]
    assert found.over_budget


def test_bytes_are_what_a_budget_counts_of_a_word(ledger):
    ledger.add(["é" * 100])
    most = sum(tokens.usual(ledger.conn, ledger.prompt.id).most("é" * 100, None))
    assert most >= 200 + 4 * 250
    assert drawn(ledger, allowance=Allowance(9, most - 1)).leases == []


def test_how_far_a_drawing_looks_is_bounded_and_said(ledger):
    ledger.add(["long " * 5_000, "long " * 6_000, "a"])
    found = drawn(ledger, allowance=Allowance(9, 5_000), most=2)
    assert (found.leases, found.cut_short) == ([], True)
    found = drawn(ledger, allowance=Allowance(9, 5_000), most=3)
    assert ([lease.word for lease in found.leases], found.cut_short) == (["a"], False)


def test_what_can_not_be_sent_costs_nothing():
    ledger = limited(100)
    ledger.add(["long " * 500, "a"])
    most = sum(tokens.usual(ledger.conn, ledger.prompt.id).most("a", None))
    found = drawn(ledger, tokens=100, allowance=Allowance(9, most))
    assert [refused.request_id for refused in found.unsendable] == [1]
    assert [lease.word for lease in found.leases] == ["a"]


def test_without_a_limit_nothing_is_estimated(ledger):
    ledger.add("ab")
    assert [lease.tokens for lease in ledger.turn().leases] == [None, None]


@given(
    budget=st.integers(0, 20_000),
    answers=st.lists(st.integers(0, 50), min_size=30, max_size=30),
    at_once=st.integers(1, 8),
)
def test_no_more_is_spent_than_was_given(budget, answers, at_once):
    ledger = Ledger(concurrency=at_once)
    ledger.conn.execute("DROP TRIGGER prompts_are_immutable")
    ledger.conn.execute("UPDATE prompts SET params = '{\"max_output_tokens\": 50}'")
    ledger.add(map(str, range(30)))
    answers, spent, finished = iter(answers), 0, []
    while True:
        left = Allowance(100, float(budget - spent))
        done = turns.turn(ledger.conn, ledger.scope(), finished, left)
        assert sum(lease.cost for lease in done.leases) <= budget - spent
        finished = []
        for lease in done.leases:
            out = next(answers)
            spent += 9 + out
            finished.append(used(ledger, lease, 9, out))
        if not done.leases:
            break
        ledger.now_ms += 1_000
    assert spent <= budget
    most = Allowance(1).cost(*tokens.usual(ledger.conn, 1).most("29", None))
    assert done.over_budget == (done.unfinished > 0)
    assert done.unfinished == 0 or budget - spent < most, "what is left would pay for no other"


@pytest.mark.parametrize(
    ("outcome", "facts", "expected"),
    [
        (Outcome.SUCCEEDED, {"text": "t"}, (None, None)),
        (Outcome.SUCCEEDED, {"text": "t", "tokens_in": 3}, (3, None)),
        (Outcome.SUCCEEDED, {"text": "t", "tokens_in": 3, "tokens_out": 4}, (3, 4)),
        (
            Outcome.SUCCEEDED,
            {"text": "t", "tokens_in": 3, "tokens_out": 4, "tokens_thought": 5},
            (3, 9),
        ),
        (Outcome.THROTTLED, {}, (0, 0)),
        (Outcome.UNAVAILABLE, {}, (0, 0)),
        (Outcome.TRANSIENT, {"status_code": 503}, (0, 0)),
        (Outcome.TRANSIENT, {"status_code": 503, "text": "half"}, (None, None)),
        (Outcome.TRANSIENT, {"status_code": 499}, (None, None)),
    ],
)
def test_what_is_not_said_of_usage_is_not_known_unless_nothing_was_processed(
    outcome, facts, expected
):
    assert tokens_used(Finish(1, 1, 5, outcome, **facts)) == expected


@pytest.mark.parametrize(("most_out", "out"), [(None, 40), (10, 10), (40, 40), (500, 40)])
def test_an_estimate_is_of_the_usual_answer_unless_the_prompt_allows_less(most_out, out):
    known = tokens.Usual(10, 20, 0.5, 40.0, 1, most_out)
    assert known.estimate("abcd", None) == (10 + 4) * 0.5 + out
    assert known.estimate("abcd", "{12345}") == round((10 + 4 + 7) * 0.5 + out)
