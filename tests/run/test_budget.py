"""What a run spends: while a call lasts the most that it may cost, then what it says it used."""

import asyncio

import pytest

from crawler.ledger import control
from crawler.ledger.finish import tokens_used
from crawler.policy import Policy
from crawler.protocol import Answer, Finish, ProviderError
from crawler.states import Outcome
from tests.crawling import Played, a_store, crawled, put, rows
from tests.ledger.several import Several

PARAMS = {"max_output_tokens": 100}
MOST = len("About {word}") + len('{"max_output_tokens": 100}') + len("a") + 100
"""What a call about a word of one letter may use."""
ONCE = Policy(max_failures=1, guard_ms=10**6)


def asked(answer, words="abcdefgh", concurrency=1, **purse):
    """Make a run with a purse; return how many calls it made."""

    async def main():
        facts = {"params": PARAMS, "concurrency": concurrency}
        async with a_store(words, **facts) as store:
            provider = Played(answer)
            ending = await crawled(store, provider, ONCE, purse=purse)
            pending = await rows(store, "SELECT count(*) FROM requests WHERE state = 'pending'")
            assert pending == [(ending.unfinished,)]
            return len(provider.calls)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        Answer("x"),
        Answer("x", tokens_in=3),
        Answer("x", tokens_out=3),
        Answer("x", tokens_thought=3),
        Answer("x", tokens_in=3, tokens_thought=3),
        Answer("x", tokens_in=0),
        Answer("x", tokens_out=0),
    ],
)
def test_who_does_not_say_all_that_it_used_has_used_the_most(answer):
    assert asked(lambda call: answer, budget=2.5 * MOST) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer("x", 30, 0),
        Answer("x", 0, 30),
        Answer("x", 0, 0, 30),
        Answer("x", 10, 10, 10),
        Answer("x", 29, 1, 0),
    ],
)
def test_each_kind_of_token_is_paid_for(answer):
    assert asked(lambda call: answer, budget=MOST + 60) == 3
    assert asked(lambda call: answer, budget=MOST + 59) == 2


@pytest.mark.parametrize(
    "answer", [Answer("x", 10, 0), Answer("x", 0, 5), Answer("x", 0, 0, 5), Answer("x", 2, 3, 1)]
)
def test_each_kind_of_token_has_its_price(answer):
    price = {"price_in": 2.0, "price_out": 4.0}
    most = 2 * (MOST - 100) + 4 * 100
    assert asked(lambda call: answer, budget=most + 40, **price) == 3
    assert asked(lambda call: answer, budget=most + 39, **price) == 2


def test_who_has_used_nothing_has_cost_nothing():
    assert asked(lambda call: Answer("x", 0, 0), budget=MOST) == 8
    assert asked(lambda call: Answer("x", 0, 0), budget=MOST - 1) == 0


FREE, PAID = 4, 2


@pytest.mark.parametrize(
    ("facts", "answer", "calls"),
    [
        ({"status_code": 500}, None, FREE),
        ({"status_code": 503}, None, FREE),
        ({"status_code": 503}, Answer("half"), PAID),
        ({"status_code": 503}, Answer("half", tokens_in=1), PAID),
        ({"status_code": 503}, Answer("half", tokens_out=1), PAID),
        ({"status_code": 503}, Answer("half", 0, 0), FREE),
        ({"status_code": 499}, None, PAID),
        ({"status_code": 200}, None, PAID),
        ({}, None, PAID),
        ({}, Answer("half"), PAID),
        ({}, Answer("half", 0, 0), FREE),
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.TRANSIENT, Outcome.BLOCKED])
def test_a_failure_costs_what_it_brought_and_a_server_that_is_out_of_order_nothing(
    outcome, facts, answer, calls
):
    def fail(call):
        return ProviderError(outcome, "no", retry_after_ms=0, answer=answer, **facts)

    assert asked(fail, words="abcd", budget=2.5 * MOST) == calls


def test_a_failure_costs_the_tokens_that_it_says():
    def fail(call):
        return ProviderError(Outcome.BLOCKED, "no", status_code=503, answer=Answer("x", 10, 10, 10))

    assert asked(fail, budget=MOST + 60) == 3
    assert asked(fail, budget=MOST + 59) == 2


def test_no_more_calls_are_in_flight_than_the_purse_has_the_most_for():
    """The first call is in flight until the last word is asked about."""
    in_flight, most = set(), []
    last = asyncio.Event()

    async def answer(call):
        in_flight.add(call.word)
        most.append(len(in_flight))
        if call.word == "h":
            last.set()
        await (last.wait() if call.word == "a" else asyncio.sleep(0))
        in_flight.remove(call.word)
        return Answer("x", 0, 0)

    assert asked(answer, concurrency=8, budget=2.5 * MOST) == 8
    assert max(most) == 2


def test_a_purse_is_one_for_two_limits():
    async def main():
        provider = Played(lambda call: Answer("x"))
        async with a_store("abc", limit="one", params=PARAMS) as store:
            facts = {"template": "Above {word}", "params": PARAMS, "limit": "two"}
            await store.run(put, "abc", name="q", **facts)
            await crawled(store, provider, ONCE, purse={"budget": 2.5 * MOST})
            return len(provider.calls)

    assert asyncio.run(main()) == 2


def test_what_was_not_sent_costs_nothing_and_is_no_call():
    """One of the words lacks what the template needs."""
    words = [("a", {}), ("b", {"gloss": "0"}), ("c", {"gloss": "1"}), ("d", {"gloss": "2"})]

    async def main(**go):
        provider = Played(lambda call: Answer("x"))
        async with a_store(words, template="{word}: {gloss}", params=PARAMS) as store:
            await crawled(store, provider, ONCE, **go)
            states = await rows(store, "SELECT state FROM requests WHERE id = 1")
        return provider.words, states

    assert asyncio.run(main(max_calls=2)) == (["b", "c"], [("failed",)])
    each = len("{word}: {gloss}") + len('{"max_output_tokens": 100}') + 100
    each += 2 * len('a{"gloss": "0"}')
    assert asyncio.run(main(purse={"budget": 2.5 * each})) == (["b", "c"], [("failed",)])


def test_a_word_that_is_asked_again_is_paid_for_again():
    def answer(call):
        if call.number < 3:
            return ProviderError(Outcome.TRANSIENT, "no", retry_after_ms=0)
        return Answer("x")

    async def main():
        provider = Played(answer)
        async with a_store("a", params=PARAMS) as store:
            await crawled(store, provider, purse={"budget": 2.5 * MOST})
            return len(provider.calls)

    assert asyncio.run(main()) == 2


class TestEstimate:
    """The most that a call may use is counted in bytes: no token is shorter than one."""

    @pytest.mark.parametrize(
        ("template", "params", "word", "names"),
        [
            ("About {word}", {}, "a", 1),
            ("Über {word}", {}, "a", 1),
            ("About {word}", {}, "語", 1),
            ("About {word}", {"system": "Ä"}, "a", 1),
            ("{word} und {word}: 語", {"system": "é"}, "früh", 2),
            ("{word}{answer}{word}", {}, "ß", 3),
        ],
    )
    def test_text_of_any_language_is_counted_in_bytes(self, template, params, word, names):
        ledger = Several()
        prompt = ledger.put("s", template, limit="other", max_output_tokens=7, **params)
        ledger.ask(prompt, [word])
        (stored,) = ledger.row("SELECT params FROM prompts WHERE id = ?", prompt.id)
        asked = len(f"{template}{stored}".encode()) + names * len(word.encode())
        assert ledger.turn(left=asked + 6).leases == []
        assert len(ledger.turn(left=asked + 7).leases) == 1

    def test_fields_are_counted_in_bytes_too(self):
        ledger = Several()
        prompt = ledger.put("s", "{word}", limit="other", max_output_tokens=7)
        ledger.ask(prompt, ["a"])
        fields = '{"é": "語"}'
        ledger.conn.execute("UPDATE words SET fields = ?", (fields,))
        (stored,) = ledger.row("SELECT params FROM prompts WHERE id = ?", prompt.id)
        asked = len(f"{{word}}{stored}a{fields}".encode())
        assert ledger.turn(left=asked + 6).leases == []
        assert len(ledger.turn(left=asked + 7).leases) == 1

    def test_an_answer_without_a_most_may_be_four_times_as_long_as_usual(self):
        ledger = Several()
        ledger.ask(ledger.q, ["a"])
        asked = len("Of {word}{}a")
        assert ledger.turn(left=asked + 999).leases == []
        assert len(ledger.turn(left=asked + 1_000).leases) == 1

    def test_the_most_that_the_prompt_allows_is_the_most_of_an_answer(self):
        ledger = Several()
        prompt = ledger.put("s", "{word}", limit="other", max_output_tokens=1)
        ledger.ask(prompt, ["a"])
        asked = len('{word}{"max_output_tokens": 1}a')
        assert ledger.turn(left=asked).leases == []
        assert len(ledger.turn(left=asked + 1).leases) == 1


class TestTokensOfAMinute:
    """What an answer has used is settled with the limit, each kind of token of it."""

    def settled(self, outcome, **facts):
        """Return how much later there are tokens again than was reserved, in tokens."""
        ledger = Several()
        control.set_tokens_per_minute(ledger.conn, "quota", 60_600, ledger.now_ms)
        ledger.ask(ledger.p, "ab")
        (lease,) = ledger.turn(budget=1).leases
        before_us = ledger.limit("quota", "tokens_tat_us")
        ledger.turn(ledger.finish(lease, outcome, **facts), budget=0)
        (reserved,) = ledger.row("SELECT tokens_reserved FROM attempts")
        return (ledger.limit("quota", "tokens_tat_us") - before_us) // 1_000 + reserved

    @pytest.mark.parametrize(
        "facts",
        [
            {"tokens_in": 900, "tokens_out": 0},
            {"tokens_in": 0, "tokens_out": 900},
            {"tokens_in": 0, "tokens_out": 0, "tokens_thought": 900},
            {"tokens_in": 300, "tokens_out": 300, "tokens_thought": 300},
        ],
    )
    @pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.BLOCKED, Outcome.TRANSIENT])
    def test_each_kind_of_token_counts(self, outcome, facts):
        assert self.settled(outcome, **facts) == 900

    @pytest.mark.parametrize(
        "facts",
        [{}, {"tokens_in": 900}, {"tokens_out": 900}, {"tokens_in": 0}, {"tokens_out": 0}],
    )
    @pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.TRANSIENT])
    def test_where_it_is_not_known_the_estimate_stands(self, outcome, facts):
        estimate = self.settled(outcome)
        assert estimate > 200
        assert self.settled(outcome, **facts) == estimate

    @pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.UNAVAILABLE])
    def test_who_was_not_let_in_has_used_nothing(self, outcome):
        assert self.settled(outcome) == 0

    def test_a_server_out_of_order_used_nothing_but_for_half_an_answer(self):
        estimate = self.settled(Outcome.TRANSIENT)
        assert self.settled(Outcome.TRANSIENT, status_code=500) == 0
        assert self.settled(Outcome.TRANSIENT, status_code=503, text="half") == estimate
        known = {"tokens_in": 4, "tokens_out": 5}
        assert self.settled(Outcome.TRANSIENT, status_code=503, text="half", **known) == 9
        assert self.settled(Outcome.TRANSIENT, status_code=503, **known) == 9

    def test_who_did_not_leave_has_used_nothing(self):
        assert self.settled(Outcome.INTERRUPTED, tokens_in=0, tokens_out=0) == 0


def test_what_a_model_thought_is_paid_for_where_the_server_failed_after_all():
    end = Finish(1, 1, 5, Outcome.TRANSIENT, status_code=503, tokens_in=4, tokens_out=5)
    assert tokens_used(end._replace(tokens_thought=900)) == (4, 905)
