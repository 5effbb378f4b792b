"""`crawler.crawl`: a list of results, nothing asked twice, and a caller who may give up."""

import asyncio
import functools
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest

from crawler import Answer, CrawlerError, Outcome, Policy, ProviderError, Result, crawl
from crawler.errors import Exit
from tests import program
from tests.conftest import assert_no_thread_is_left

HASTY = Policy(max_failures=2, backoff_base_ms=1, backoff_cap_ms=1)


class Asked:
    """An async function that answers, and counts what it was asked."""

    def __init__(self):
        self.prompts = Counter()
        self.in_flight = self.most_in_flight = 0

    async def answer(self, prompt):
        self.prompts[prompt] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        return f"<{prompt}>"


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "x.db"
    yield path
    assert_no_thread_is_left()
    if path.exists():
        assert program.crawler("--db", path, "check").code == Exit.DONE


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def do(db, asked):
    """Return a function that crawls a file with `asked`, in a loop of its own."""

    def crawled(words, **settings):
        settings = {"provider": asked.answer, "model": "m", "database": db, **settings}
        return asyncio.run(crawl(words, **settings))

    return crawled


def rows(db, query):
    conn = sqlite3.connect(db)
    found = conn.execute(query).fetchall()
    conn.close()
    return found


def test_results_are_in_the_order_of_the_words_with_duplicates(do, asked):
    found = do(["b", "a", " b ", "c", "a"], prompt="About {word}")
    assert [(result.word, result.text) for result in found] == [
        (word, f"<About {word}>") for word in "babca"
    ]
    assert asked.prompts == {"About a": 1, "About b": 1, "About c": 1}


def test_a_result_tells_all_there_is(do):
    [result] = do(["a"])
    assert result.finished_at_ms is not None
    assert result._replace(finished_at_ms=None) == Result(
        word="a",
        text="<a>",
        state="succeeded",
        reason=None,
        provider="function",
        model="m",
        tokens_in=None,
        tokens_out=None,
        attempts=1,
        prompt="crawl",
        version=1,
        fields={},
        truncated=False,
        finished_at_ms=None,
    )


def test_words_may_come_from_anywhere(do):
    assert do([]) == []
    assert [result.word for result in do(word for word in ("x", "y"))] == ["x", "y"]
    assert [result.word for result in do({"x": 1, "z": 2})] == ["x", "z"]


def test_a_second_call_asks_nothing_again(do, asked):
    first = do(["a", "b"])
    assert do(["a", "b"]) == first
    assert [result.text for result in do(["b", "c", "a"])] == ["<b>", "<c>", "<a>"]
    assert asked.prompts == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    "change", [{"prompt": "{word}?"}, {"model": "other"}, {"params": {"t": 1}}, {"name": "other"}]
)
def test_what_shapes_an_answer_asks_anew_and_the_old_answers_stay(do, asked, change):
    first = do(["a"])
    other = do(["a"], **change)
    assert asked.prompts.total() == 2
    assert do(["a"]) == first
    assert do(["a"], **change) == other
    assert asked.prompts.total() == 2


async def by_name(prompt):
    return f"by name: {prompt}"


def test_a_function_is_known_by_its_name(do):
    [result] = do(["a"], provider=by_name, model=None)
    assert result.text == "by name: a"
    assert result.model.endswith("test_api.by_name")


def test_a_failing_function_is_asked_again_and_has_failed_in_the_end(do):
    calls = Counter()

    async def fail(prompt):
        calls[prompt] += 1
        raise ValueError("no luck")

    [result] = do(["a"], provider=fail, policy=HASTY)
    assert calls == {"a": 2}
    assert (result.state, result.text, result.attempts) == ("failed", None, 2)
    assert result.reason == "ValueError: no luck"
    assert do(["a"], provider=fail, policy=HASTY) == [result]
    assert calls == {"a": 2}, "what has failed for good is not asked again"


def test_a_failure_in_between_is_no_failure(do):
    calls = Counter()

    async def shaky(prompt):
        calls[prompt] += 1
        if calls[prompt] == 1:
            raise OSError("once")
        return "fine"

    [one, two] = do(["a", "b"], provider=shaky, policy=HASTY)
    assert (one.state, one.text, one.attempts) == ("succeeded", "fine", 2)
    assert two.attempts == 2


def test_a_function_may_say_itself_how_a_call_ended(do):
    async def refuse(prompt):
        raise ProviderError(Outcome.BLOCKED, "not this word", answer=Answer("", 7))

    [result] = do(["a"], provider=refuse)
    assert (result.state, result.reason, result.attempts) == ("failed", "not this word", 1)
    assert result.tokens_in == 7


def test_what_is_no_text_is_rejected(do):
    async def number(prompt):
        return 7

    [result] = do(["a"], provider=number)
    assert (result.state, result.reason) == ("failed", "the function returned int, not str")


def test_what_is_no_async_function_ends_the_crawl_and_no_word(do, db):
    def plain(prompt):
        return "x"

    with pytest.raises(CrawlerError) as error:
        do(["a"], provider=plain)
    assert error.value.exit_code == Exit.DENIED
    assert "no async function" in error.value.cause
    assert rows(db, "SELECT state, failures FROM requests") == [("pending", 0)]


def test_fields_fill_the_template(do, asked):
    words = [
        {"word": "a", "gloss": "first", "n": 1, "kind": None},
        {"word": "b", "gloss": "second", "kind": "noun"},
    ]
    found = do(words, prompt="{word} is {gloss}[[ ({kind})]]{answer}So")
    assert [result.text for result in found] == [
        "So<a is firstSo>",
        "So<b is second (noun)So>",
    ]


def test_a_word_that_lacks_a_field_is_not_sent(do, asked):
    [result] = do(["a"], prompt="{word} is {gloss}")
    assert (result.state, asked.prompts) == ("failed", {})
    assert "{gloss}" in result.reason


def test_a_database_in_memory_leaves_nothing(do, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert [result.text for result in do(["a"], database=":memory:")] == ["<a>"]
    assert asked.prompts == {"a": 2}
    assert list(tmp_path.iterdir()) == []


def test_the_database_may_be_named_by_a_text(do, db):
    assert do(["a"], database=str(db)) == do(["a"], database=db)


def test_a_provider_of_the_package_may_be_named(do, asked):
    [result] = do(["a"], provider="scripted", model=None, params={"words": 3})
    assert (result.text, result.provider) == ("A: a word that.", "scripted")
    assert asked.prompts == {}


def test_no_more_calls_are_in_flight_than_allowed(do, asked):
    do(map(str, range(50)), concurrency=3)
    assert asked.most_in_flight == 3
    do(map(str, range(50, 60)))
    assert asked.most_in_flight == 3, "a limit is kept from call to call"


def waiting(count):
    """Return a function that waits for ever, and an event for when it was called so often."""
    reached, calls = asyncio.Event(), []

    async def wait(prompt):
        calls.append(prompt)
        if len(calls) == count:
            reached.set()
        await asyncio.Event().wait()

    return wait, reached, calls


def test_no_more_calls_start_in_a_minute_than_allowed(db):
    async def main():
        calls, all_started = [], asyncio.Event()

        async def count(prompt):
            calls.append(prompt)
            if len(calls) == 4:
                all_started.set()
            return "x"

        words = map(str, range(20))
        task = asyncio.create_task(crawl(words, provider=count, database=db, per_minute=4))
        await asyncio.wait_for(all_started.wait(), 20)
        await asyncio.wait([task], timeout=0.4)
        task.cancel()
        await asyncio.wait([task])
        assert len(calls) == 4

    asyncio.run(main())
    assert rows(db, "SELECT per_minute FROM limits") == [(4,)]


@pytest.mark.parametrize("cancels", [1, 3])
def test_a_call_that_is_given_up_leaves_nothing_open_and_another_one_finishes(db, asked, cancels):
    words = [str(n) for n in range(20)]

    async def main():
        wait, reached, _ = waiting(5)
        task = asyncio.create_task(
            crawl(words, provider=wait, model="m", database=db, concurrency=5)
        )
        await reached.wait()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_no_thread_is_left()
        return await asyncio.wait_for(
            crawl(words, provider=asked.answer, model="m", database=db), 30
        )

    found = asyncio.run(main())
    assert [result.text for result in found] == [f"<{word}>" for word in words]
    assert asked.prompts.total() == 20
    assert rows(db, "SELECT count(*) FROM attempts WHERE finished_at_ms IS NULL") == [(0,)]
    assert rows(db, "SELECT count(*) FROM runs WHERE ended_at_ms IS NULL") == [(0,)]


def test_what_was_given_up_costs_no_failure(db):
    async def main():
        wait, reached, _ = waiting(2)
        task = asyncio.create_task(crawl(["a", "b"], provider=wait, database=db))
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert rows(db, "SELECT state, failures, attempts FROM requests") == [("pending", 0, 1)] * 2
    assert rows(db, "SELECT DISTINCT outcome FROM attempts") == [("interrupted",)]
    assert rows(db, "SELECT reason FROM runs") == [("stopped",)]


def test_a_time_limit_of_the_caller_is_a_cancellation(db):
    async def main():
        wait, _, calls = waiting(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await crawl(["a"], provider=wait, database=db)
        assert calls == ["a"]

    asyncio.run(main())
    assert rows(db, "SELECT count(*) FROM attempts WHERE finished_at_ms IS NULL") == [(0,)]


def test_two_crawls_of_one_file_at_once_pay_nothing_twice(db, asked):
    words = [str(n) for n in range(60)]

    async def main():
        settings = {"provider": asked.answer, "model": "m", "database": db}
        return await asyncio.gather(
            crawl(words, **settings), crawl(reversed(words), **settings), crawl(["new"], **settings)
        )

    one, two, three = asyncio.run(main())
    assert [result.text for result in one] == [f"<{word}>" for word in words]
    assert two == one[::-1]
    assert three[0].text == "<new>"
    assert asked.prompts == Counter([*words, "new"])


def test_two_functions_may_share_a_file(db):
    async def other(prompt):
        return f"other: {prompt}"

    async def main():
        return await asyncio.gather(
            crawl(["a", "b"], provider=by_name, database=db, name="one"),
            crawl(["a", "c"], provider=other, database=db, name="two"),
        )

    one, two = asyncio.run(main())
    assert [result.text for result in one] == ["by name: a", "by name: b"]
    assert [result.text for result in two] == ["other: a", "other: c"]


def test_the_loop_of_the_caller_goes_on(db, asked):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        await crawl(map(str, range(200)), provider=asked.answer, model="m", database=db)
        ticking.cancel()
        return ticks

    assert asyncio.run(main()) > 100


def test_the_program_leaves_the_prompts_of_a_function_alone(do, db):
    async def fail(prompt):
        raise ProviderError(Outcome.BLOCKED, "no")

    do(["a"], provider=fail)
    assert program.crawler("--db", db, "retry").code == Exit.DONE
    assert program.crawler("--db", db, "run").code in (Exit.DONE, Exit.SOME_FAILED)
    assert rows(db, "SELECT state FROM requests") == [("pending",)]
    assert do(["a"])[0].text == "<a>"


@pytest.mark.parametrize(
    ("words", "settings", "error"),
    [
        ("text", {}, TypeError),
        ([7], {}, TypeError),
        ([None], {}, TypeError),
        ([" "], {}, ValueError),
        ([{"gloss": "x"}], {}, ValueError),
        (["a"], {"prompt": "no name"}, ValueError),
        (["a"], {"prompt": "{word} \ud800"}, ValueError),
        (["a"], {"concurrency": 0}, ValueError),
        (["a"], {"per_minute": 0}, ValueError),
        (["a"], {"per_minute": 10**30}, ValueError),
        (["a"], {"name": ""}, ValueError),
        (["a"], {"provider": "openai", "model": None}, ValueError),
        (["a"], {"provider": functools.partial(by_name), "model": None}, ValueError),
        (["a"], {"params": {"x": object()}}, TypeError),
        (["a"], {"provider": "nmae"}, CrawlerError),
        (["a\ud800"], {}, CrawlerError),
        ([{"word": "a", "gloss": "\udfff"}], {}, CrawlerError),
        (["a\0b"], {}, CrawlerError),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_done(
    do, asked, tmp_path, words, settings, error
):
    with pytest.raises(error):
        do(words, **settings)
    assert asked.prompts == {}
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_program_is_left_alone(do, db):
    db.write_text("mine\n" * 100)
    with pytest.raises(CrawlerError, match="can't be used") as error:
        do(["a"])
    assert error.value.exit_code == Exit.CONFIGURATION
    assert db.read_text() == "mine\n" * 100
    db.unlink()


STUBBORN = """
import asyncio, sys
from crawler import crawl

asked = asyncio.Event()

async def stubborn(prompt):
    asked.set()
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            print("ignored", flush=True)

async def main():
    run = asyncio.create_task(crawl(["a"], provider=stubborn, database=sys.argv[1]))
    await asked.wait()
    run.cancel()
    await run

try:
    asyncio.run(main())
except asyncio.CancelledError:
    print("ended")
"""


def test_a_function_that_ignores_two_cancellations_keeps_no_program_from_its_end(db):
    ran = subprocess.run(
        [sys.executable, "-c", STUBBORN, str(db)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["ignored", "ignored", "ended"]
    assert ran.stderr == ""
    assert rows(db, "SELECT outcome FROM attempts") == [("interrupted",)]
