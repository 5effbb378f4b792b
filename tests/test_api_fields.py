"""`crawler.crawl`: every field of a result, two functions with a limit each, and what is false."""

import asyncio
import json
import sqlite3

import pytest

from crawler import Answer, Outcome, Policy, ProviderError, crawl
from crawler.errors import CrawlerError, Exit

ONCE = Policy(max_failures=1)


@pytest.fixture
def db(tmp_path):
    return tmp_path / "x.db"


def rows(db, query):
    conn = sqlite3.connect(db)
    found = conn.execute(query).fetchall()
    conn.close()
    return found


def crawled(words, db, provider, **settings):
    settings = {"model": "m", "policy": ONCE, **settings}
    return asyncio.run(crawl(words, provider=provider, database=db, **settings))


async def echo(prompt):
    return prompt


async def shout(prompt):
    return prompt.upper()


class Failing:
    """A function that fails as it is told."""

    def __init__(self, *args, **facts):
        self._error = ProviderError(*args, **facts)

    async def __call__(self, prompt):
        raise self._error


def test_a_failure_tells_what_its_function_has_said(db):
    draft = Answer("hälf", 1, 2, 3, "CUT", "m-1", truncated=True)
    fail = Failing(Outcome.BLOCKED, "nö", status_code=0, retry_after_ms=0, answer=draft)
    [result] = crawled([{"word": "ä", "n": 0}], db, fail, name="n", prompt="{word} {n}")
    assert result._asdict() == {
        "word": "ä",
        "text": None,
        "state": "failed",
        "reason": "nö",
        "provider": "function",
        "model": "m",
        "tokens_in": 1,
        "tokens_out": 2,
        "attempts": 1,
        "prompt": "n",
        "version": 1,
        "fields": {"n": "0"},
        "truncated": True,
        "finished_at_ms": result.finished_at_ms,
        "stale": False,
        "key": "",
        "review": None,
        "note": None,
    }
    said = rows(
        db,
        "SELECT status_code, retry_after_ms, tokens_thought, finish_reason,"
        " model_version FROM attempts",
    )
    assert said == [(0, 0, 3, "CUT", "m-1")]
    assert rows(db, "SELECT draft FROM failures") == [("hälf",)]


def test_a_result_tells_of_the_last_attempt(db):
    told = iter(
        [ProviderError(Outcome.TRANSIENT, "no", retry_after_ms=0, answer=Answer("x", 9)), 0]
    )

    async def second(prompt):
        if error := next(told):
            raise error
        return "good"

    quick = Policy(backoff_base_ms=1, backoff_cap_ms=1)
    [result] = crawled(["a"], db, second, policy=quick)
    assert (result.text, result.reason, result.attempts) == ("good", None, 2)
    assert result.tokens_in is None, "nine were those of the first"
    assert rows(db, "SELECT finished_at_ms FROM attempts WHERE number = 2") == [
        (result.finished_at_ms,)
    ]


def test_a_quota_of_the_day_is_told_to_the_caller(db):
    with pytest.raises(CrawlerError, match="the day is used up") as error:
        crawled(["a"], db, Failing(Outcome.THROTTLED, "no more", daily=True))
    assert error.value.exit_code == Exit.WORK_LEFT
    assert rows(db, "SELECT gate_cause FROM limits") == [("day",)]


def test_a_quota_that_is_none_of_the_day_is_another(db):
    with pytest.raises(CrawlerError, match="the quota is used up"):
        crawled(["a"], db, Failing(Outcome.THROTTLED, "no more", retry_after_ms=10**7))
    assert rows(db, "SELECT gate_cause FROM limits") == [("quota",)]


class TestTwoFunctions:
    def test_each_has_a_limit_of_its_own(self, db):
        crawled(["a"], db, echo, model="one", name="one", concurrency=3, per_minute=500)
        crawled(["a"], db, shout, model="two", name="two", concurrency=5)
        settings = "SELECT name, concurrency, per_minute, started FROM limits ORDER BY name"
        assert rows(db, settings) == [("one", 3, 500, 1), ("two", 5, None, 1)]
        crawled(["b"], db, shout, model="two", name="two", per_minute=700)
        assert rows(db, settings) == [("one", 3, 500, 1), ("two", 5, 700, 2)]

    def test_each_has_answers_of_its_own(self, db):
        found = [
            crawled(["a", "b"], db, function, model=name, name=name)
            for name, function in (("one", echo), ("two", shout))
        ]
        assert [[row.text for row in each] for each in found] == [["a", "b"], ["A", "B"]]
        assert [[row.prompt for row in each] for each in found] == [["one"] * 2, ["two"] * 2]
        assert [[row.model for row in each] for each in found] == [["one"] * 2, ["two"] * 2]

    def test_each_asks_about_what_is_pending_under_its_own_prompt(self, db):
        with pytest.raises(CrawlerError):
            crawled(["a"], db, Failing(Outcome.DENIED, "no"), model="one", name="one")
        crawled(["b"], db, shout, model="two", name="two")
        pending = (
            "SELECT text FROM requests JOIN words ON words.id = word_id WHERE state = 'pending'"
        )
        assert rows(db, pending) == [("a",)]

    def test_two_models_of_one_name_are_two_versions(self, db):
        [first] = crawled(["a"], db, echo, model="one")
        [second] = crawled(["a"], db, shout, model="two")
        [again] = crawled(["a"], db, shout, model="one")
        known = [(row.version, row.text) for row in (first, second, again)]
        assert known == [(1, "a"), (2, "A"), (1, "a")], "which was asked for before"


class TestFalseValues:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [(0, "0"), (0.0, "0.0"), (False, "False"), ("0", "0"), ([], "[]"), (None, None)],
    )
    def test_a_field_is_there_or_not(self, db, value, shown):
        words = [{"word": "a", "n": value}]
        [result] = crawled(words, db, echo, prompt="{word}[[ {n}]]")
        assert result.text == ("a" if shown is None else f"a {shown}")
        assert result.fields == ({} if shown is None else {"n": shown})

    def test_an_empty_field_has_no_value(self, db):
        [result] = crawled([{"word": "a", "n": ""}], db, echo, prompt="{word}[[ {n}]]")
        assert result.text == "a"

    @pytest.mark.parametrize("word", ["0", "False", "None", "-"])
    def test_a_word_is_one(self, db, word):
        assert [row.word for row in crawled([word], db, echo)] == [word]
        assert [row.word for row in crawled([{"word": word}], db, echo)] == [word]

    def test_a_word_may_be_a_number_in_a_mapping(self, db):
        assert [row.text for row in crawled([{"word": 0}], db, echo)] == ["0"]

    @pytest.mark.parametrize("answer", ["0", "False", "-"])
    def test_an_answer_is_one(self, db, answer):
        async def say(prompt):
            return answer

        assert [row.text for row in crawled(["a"], db, say)] == [answer]

    @pytest.mark.parametrize("answer", ["", 0, False, None])
    def test_nothing_is_no_answer(self, db, answer):
        async def say(prompt):
            return answer

        [result] = crawled(["a"], db, say)
        assert (result.text, result.state) == (None, "failed")

    @pytest.mark.parametrize("setting", ["concurrency", "per_minute"])
    def test_no_call_at_all_is_no_setting(self, db, setting):
        with pytest.raises(ValueError, match="at least 1"):
            crawled(["a"], db, echo, **{setting: 0})
        assert not db.exists()

    def test_values_of_parameters_make_versions(self, db):
        values = [0, False, "", None, 0.0, []]
        versions = [crawled(["a"], db, echo, params={"x": value})[0].version for value in values]
        versions += [crawled(["a"], db, echo)[0].version]
        assert versions == list(range(1, 8))
        kept = [
            json.loads(params) for (params,) in rows(db, "SELECT params FROM prompts ORDER BY id")
        ]
        assert list(map(repr, kept)) == [*(repr({"x": value}) for value in values), "{}"]

    def test_fields_of_an_answer(self, db):
        async def say(prompt):
            return '{"n": 0, "yes": false, "text": "", "none": null}'

        names = ("n", "yes", "text", "none")
        schema = {"type": "object", "properties": {name: {} for name in names}}
        crawled(["a"], db, say, params={"response_schema": schema})
        assert rows(db, "SELECT word, n, yes, text, none FROM crawl") == [("a", 0, 0, "", None)]
