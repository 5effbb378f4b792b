"""From a row to the provider and from its answer to the row: each field arrives, and as it was."""

import asyncio
import itertools
import json
import os
import socket
from importlib.metadata import version

import pytest

from crawler.clock import boot_id
from crawler.ledger.runs import Selection
from crawler.policy import Policy
from crawler.protocol import Answer, Call, ProviderError
from crawler.states import Outcome
from tests.crawling import Played, a_store, crawled, put, rows

PARAMS = {"temperature": 0, "stop": "", "echo": False, "nothing": None, "list": [0], "ü": "é"}
NOW_MS = 1_000_000_000_000


def crawl_of(provider, words=("a",), policy=None, more=(), **facts):
    """Make a run over words; return what is asked of the file after it."""

    async def main():
        async with a_store(words, **facts) as store:
            ending = await crawled(store, provider, policy or Policy(max_failures=1))
            return [ending, *[await rows(store, sql) for sql in more]]

    return asyncio.run(main())


def test_each_field_of_a_call_is_that_of_its_rows():
    """Two prompts of two models, one of them with a beginning, about words with fields."""
    first, second = Played(lambda call: Answer("x")), Played(lambda call: Answer("y"))
    words = [("zähe", {"gloss": "0"}), ("b", {})]

    async def main():
        async with a_store(
            words, template="Of {word}[[ ({gloss})]]{answer}A {word}", params=PARAMS
        ) as store:
            await store.run(put, ["b"], name="q", model="n", template="On {word}", limit="other")
            policy = Policy(call_timeout_ms=7_123)
            await crawled(store, {"m": first, "n": second}, policy)

    asyncio.run(main())
    usual = {"provider": "scripted", "timeout_ms": 7_123, "number": 1}
    with_start = {**usual, "model": "m", "params": PARAMS}
    assert first.calls == [
        Call(request_id=1, word="zähe", prompt="Of zähe (0)", prefill="A zähe", **with_start),
        Call(request_id=2, word="b", prompt="Of b", prefill="A b", **with_start),
    ]
    assert second.calls == [
        Call(request_id=3, word="b", prompt="On b", prefill="", model="n", params={}, **usual)
    ]


def test_each_attempt_of_a_request_has_its_own_number_and_two_requests_are_not_mixed_up():
    def answer(call):
        if call.number < len(call.word):
            return ProviderError(Outcome.TRANSIENT, "again", retry_after_ms=0)
        return Answer(f"{call.word} {call.number}")

    provider = Played(answer)
    _, results = crawl_of(
        provider,
        ["one", "a"],
        Policy(backoff_base_ms=1, backoff_cap_ms=1),
        ["SELECT word, text, attempts FROM results ORDER BY word"],
    )
    assert results == [("a", "a 1", 1), ("one", "one 3", 3)]
    assert [call.number for call in provider.calls if call.word == "one"] == [1, 2, 3]


OF_ATTEMPT = (
    "SELECT outcome, reason, status_code, retry_after_ms, tokens_in, tokens_out, tokens_thought,"
    " finish_reason, model_version, truncated FROM attempts"
)


@pytest.mark.parametrize(
    ("details", "kept"),
    [
        ({"response_id": "ïd", "avg_logprobs": -0.5}, ("ïd", -0.5)),
        *[(odd, (None, None)) for odd in (None, {}, "text", {"a": object()}, {"a": "x" * 5_000})],
        ({"avg_logprobs": float("nan")}, (None, None)),
    ],
)
def test_what_else_a_service_says_is_kept_as_json(details, kept):
    asked = "SELECT details ->> 'response_id', details ->> 'avg_logprobs' FROM attempts"
    _, attempts = crawl_of(Played(lambda call: Answer("t", details=details)), more=[asked])
    assert attempts == [kept]


def test_each_field_of_an_answer_is_in_its_row():
    answer = Answer(
        text="tëxt",
        tokens_in=11,
        tokens_out=12,
        tokens_thought=13,
        finish_reason="STOP",
        model_version="m-7",
        truncated=True,
        thoughts="hm",
        tokens_cached=9,
        details={"response_id": "ïd"},
    )
    cached = "SELECT tokens_cached, reason_code FROM attempts"
    _, attempts, texts, more = crawl_of(
        Played(lambda call: answer), more=[OF_ATTEMPT, "SELECT * FROM responses", cached]
    )
    assert more == [(9, None)]
    assert attempts == [("succeeded", None, None, None, 11, 12, 13, "STOP", "m-7", 1)]
    assert texts == [(1, 1, "tëxt", "hm")]


def test_what_is_nothing_or_unknown_stays_so():
    answers = {
        "zero": Answer("0", 0, 0, 0, "0", "0"),
        "unknown": Answer("false"),
    }
    _, attempts, texts = crawl_of(
        Played(lambda call: answers[call.word]),
        ["zero", "unknown"],
        more=[OF_ATTEMPT, "SELECT text FROM responses"],
    )
    assert attempts == [
        ("succeeded", None, None, None, 0, 0, 0, "0", "0", 0),
        ("succeeded", None, None, None, None, None, None, None, None, 0),
    ]
    assert texts == [("0",), ("false",)]


def test_each_field_of_a_failure_is_in_its_row():
    """With what the call brought all the same: it was paid for."""
    failure = ProviderError(
        Outcome.TRANSIENT,
        "bröken",
        status_code=503,
        retry_after_ms=4_321,
        answer=Answer("half", 11, 12, 13, "CUT", "m-7", truncated=True),
    )
    _, attempts, texts = crawl_of(
        Played(lambda call: failure), more=[OF_ATTEMPT, "SELECT * FROM drafts"]
    )
    assert attempts == [("transient", "bröken", 503, 4_321, 11, 12, 13, "CUT", "m-7", 1)]
    assert texts == [(1, 1, "half")]


def test_a_failure_of_which_all_is_nothing_or_unknown_stays_so():
    failures = {
        "zero": ProviderError(
            Outcome.BLOCKED, "", status_code=0, retry_after_ms=0, answer=Answer("0", 0, 0, 0)
        ),
        "unknown": ProviderError(Outcome.BLOCKED, "no"),
    }
    _, attempts, texts = crawl_of(
        Played(lambda call: failures[call.word]),
        ["zero", "unknown"],
        more=[OF_ATTEMPT, "SELECT text FROM drafts"],
    )
    assert attempts == [
        ("blocked", "", 0, 0, 0, 0, 0, None, None, 0),
        ("blocked", "no", None, None, None, None, None, None, None, 0),
    ]
    assert texts == [("0",)]


@pytest.mark.parametrize(("daily", "cause"), [(True, "day"), (False, "quota")])
def test_that_a_quota_is_that_of_the_day_arrives(daily, cause):
    """A run is not told to come back in a minute where the day is used up."""

    def answer(call):
        return ProviderError(Outcome.THROTTLED, "no more", retry_after_ms=3_600_000, daily=daily)

    ending, gate, states = crawl_of(
        Played(answer),
        more=["SELECT gate_cause, gate_reason FROM limits", "SELECT state FROM requests"],
    )
    assert gate == [(cause, "no more")]
    assert states == [("pending",)]
    assert ending.unfinished == 1


def test_a_day_without_a_time_to_come_back_ends_the_run_at_once():
    """What the provider has said is enough: nobody tries for an hour to find that out."""
    provider = Played(lambda call: ProviderError(Outcome.THROTTLED, "no more", daily=True))
    ending, causes = crawl_of(provider, more=["SELECT gate_cause FROM limits"])
    assert causes == [("day",)]
    assert ending.opens_at_ms is not None
    assert provider.words == ["a"]


def test_an_attempt_lasts_from_its_lease_to_its_end():
    clock_ms = [NOW_MS]

    def answer(call):
        clock_ms[0] += 777
        return Answer("x") if call.word == "a" else ProviderError(Outcome.BLOCKED, "no")

    async def main():
        async with a_store(["a", "b"], concurrency=1) as store:
            await crawled(store, Played(answer), clock=lambda: clock_ms[0])
            return await rows(store, "SELECT started_at_ms, finished_at_ms FROM attempts")

    assert asyncio.run(main()) == [
        (NOW_MS, NOW_MS + 777),
        (NOW_MS + 777, NOW_MS + 2 * 777),
    ]


def test_a_call_is_given_up_after_its_own_time():
    """The time-out of the run is that of each call; two seconds more are a provider's own."""
    clock_ms = [NOW_MS]

    async def answer(call):
        clock_ms[0] += 7_123 + 2_000
        await asyncio.Event().wait()

    async def main():
        policy = Policy(call_timeout_ms=7_123, max_failures=1)
        async with a_store(["a"]) as store:
            await crawled(store, Played(answer), policy, clock=lambda: clock_ms[0])
            return await rows(store, "SELECT outcome, reason FROM attempts")

    assert asyncio.run(main()) == [("transient", "no answer within 7.123 s")]


def test_attempts_belong_to_their_run_and_to_the_limit_of_their_prompt():
    async def main():
        async with a_store(["a"], limit="one") as store:
            await store.run(put, ["a"], name="q", model="n", limit="two")
            told = itertools.cycle([ProviderError(Outcome.INTERRUPTED, "later"), Answer("x")])
            provider = Played(lambda call: next(told))
            for calls in (1, None):
                await crawled(store, {"m": provider, "n": provider}, max_calls=calls)
            return await rows(
                store,
                "SELECT request_id, number, run_id, limits.name, nth FROM attempts"
                " JOIN limits ON limits.id = limit_id ORDER BY run_id, request_id, number",
            )

    first, *others = asyncio.run(main())
    assert first == (1, 1, 1, "one", 1)
    assert {row[2] for row in others} == {2}
    assert {(row[0], row[3]) for row in others} == {(1, "one"), (2, "two")}


def test_a_run_is_on_record_with_who_it_is():
    _, runs = crawl_of(
        Played(lambda call: Answer("x")),
        more=["SELECT pid, host, version, boot_id, ended_at_ms IS NULL, late_answers FROM runs"],
    )
    assert runs == [(os.getpid(), socket.gethostname(), version("quotacrawl"), boot_id(), 0, 0)]


@pytest.mark.parametrize(
    ("told", "recorded"),
    [
        ({}, {}),
        ({"deadline_ms": 90_000}, {"deadline_at_ms": NOW_MS + 90_000}),
        ({"max_calls": 3}, {"max_calls": 3}),
        ({"selection": Selection(prompt="p")}, {"prompt": "p"}),
        ({"selection": Selection(prompt_ids=(1,))}, {"prompt_ids": [1]}),
        ({"selection": Selection(request_ids=(1,))}, {"request_ids": [1]}),
        (
            {"purse": {"budget": 9e9, "price_in": 2.0, "price_out": 3.0}},
            {"budget": 9e9, "price_in": 2.0, "price_out": 3.0},
        ),
    ],
)
def test_a_run_is_on_record_with_what_it_was_told(told, recorded):
    async def main():
        async with a_store("a") as store:
            await crawled(store, Played(lambda call: Answer("x")), clock=lambda: NOW_MS, **told)
            [(options,)] = await rows(store, "SELECT options FROM runs")
            assert json.loads(options) == recorded

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "stored"),
    [("a", "a"), ("\ud800", "?"), ("a\udfffb", "a?b"), ("é\U0001f600", "é\U0001f600")],
)
@pytest.mark.parametrize(("thoughts", "kept"), [("", None), ("hm \ud800", "hm ?")])
def test_half_a_character_has_its_place_and_no_thoughts_are_none(said, stored, thoughts, kept):
    _, responses = crawl_of(
        Played(lambda call: Answer(said, thoughts=thoughts)),
        more=["SELECT text, thoughts FROM responses"],
    )
    assert responses == [(stored, kept)]
