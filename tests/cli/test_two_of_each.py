"""Commands on a file with two prompts, two versions, and two limits named unlike providers."""

import json
import threading
from pathlib import Path

import pytest

from crawler.clock import wall_ms
from crawler.errors import Exit
from crawler.storage.database import writing
from tests.program import crawler, rows, told

SCRIPTED = ("--provider", "scripted", "--template")
BLOCKED = ("--param", 'errors={"blocked": 1}')


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Run the program in a folder of its own: `p` asks under `one`, `q` under `two`."""
    monkeypatch.chdir(tmp_path)
    for name in ("CRAWLER_DB", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    good(crawler("prompt", "add", "p", *SCRIPTED, "About {word}", "--limit", "one"))
    good(crawler("prompt", "add", "q", *SCRIPTED, "Of {word}", "--limit", "two"))
    good(crawler("add", "a", "b", "c", "--prompt", "p"))
    good(crawler("add", "b", "c", "d", "--prompt", "q"))
    return crawler


def good(ran):
    assert ran.code == Exit.DONE, ran
    return ran


def states(prompt, version=1):
    """Return the state of each word of a prompt's version."""
    return dict(
        rows(
            "crawl.db",
            "SELECT text, state FROM requests JOIN words ON words.id = word_id"
            " JOIN prompts ON prompts.id = prompt_id WHERE name = ? AND version = ?",
            prompt,
            version,
        )
    )


def limits(do):
    return {row["limit"]: row for row in json.loads(good(do("limit", "--json")).out)}


def another_version(do, *more):
    """Make another version of `p`: it asks what waits."""
    return good(do("prompt", "edit", "p", *SCRIPTED, "On {word}", "--limit", "one", *more))


class TestVersions:
    def test_what_was_cancelled_of_an_old_version_is_not_asked_again(self, do):
        do("cancel", "a", "--prompt", "p")
        another_version(do)
        assert (states("p"), set(states("p", 2))) == ({"a": "cancelled"}, {"b", "c"})
        assert do("run").code == Exit.DONE
        assert states("p") == {"a": "cancelled"}
        assert do("retry", "--cancelled").err == "1 cancelled request is pending again\n"
        assert states("p", 2)["a"] == "pending", "the new one asks it, where somebody says so"

    def test_what_has_failed_under_an_old_version_is_not_asked_again(self, do):
        another_version(do, *BLOCKED)
        assert do("run", "--prompt", "p").code == Exit.SOME_FAILED
        good(do("prompt", "edit", "p", "--to", "1"))
        assert good(do("run")).code == Exit.DONE, "what failed is no failure of today"
        assert set(states("p", 2).values()) == {"failed"}
        assert do("retry").err == "3 failed requests are pending again\n"
        assert set(states("p").values()) == {"pending"}, "the new one asks it"

    def test_a_cancel_of_all_leaves_the_old_version_as_it_is(self, do):
        another_version(do)
        assert do("cancel", "--all").err == "6 pending requests are cancelled\n"
        assert states("p") == {}, "what waited is the new one's"
        assert set(states("p", 2).values()) == {"cancelled"}

    def test_only_the_current_one_is_asked(self, do):
        good(do("run", "--prompt", "p", "--limit", "9"))
        another_version(do)
        good(do("add", "d", "--prompt", "p"))
        good(do("run"))
        assert set(states("p").values()) == {"succeeded"}
        assert states("p", 2) == {"d": "succeeded"}
        counts = "SELECT version, count(*) FROM results WHERE prompt = 'p' GROUP BY 1"
        assert rows("crawl.db", counts) == [(1, 3), (2, 1)]

    def test_the_status_counts_the_current_ones(self, do):
        good(do("run"))
        another_version(do)
        now = json.loads(do("status", "--json").out)
        assert now["unfinished"] == 0
        shown = {(row["prompt"], row["version"]): row for row in now["prompts"]}
        assert {key: row["current"] for key, row in shown.items()} == {
            ("p", 1): False,
            ("p", 2): True,
            ("q", 1): True,
        }
        assert (shown["p", 1]["succeeded"], shown["p", 2]["pending"]) == (3, 0)
        assert "3 succeeded, and no longer asked" in do("status").out

    def test_an_export_is_of_all_that_was_answered(self, do):
        good(do("run"))
        another_version(do)
        assert do("export", "--prompt", "p").err == "3 of 3 words have an answer\n"
        found = do("export", "--prompt", "q", "--format", "jsonl").out.splitlines()
        assert [json.loads(line)["word"] for line in found] == [*"bcd"]
        assert {json.loads(line)["prompt"] for line in found} == {"q"}

    def test_a_word_tells_of_all_of_them(self, do):
        good(do("run"))
        another_version(do)
        good(do("retry", "--stale", "--prompt", "p"))
        found = json.loads(do("show", "b", "--json").out)
        known = [(row["prompt"], row["version"], row["state"], row["number"]) for row in found]
        assert known == [
            ("p", 1, "succeeded", 1),
            ("q", 1, "succeeded", 1),
            ("p", 2, "pending", None),
        ]

    def test_another_model_keeps_the_limit_and_another_provider_has_its_own(self, do, monkeypatch):
        good(do("run", "--prompt", "q", "--model", "other", "--limit", "9"))
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        do("run", "--prompt", "p", "--provider", "openai", "--model", "m", "--deadline", "0s")
        found = json.loads(do("prompt", "list", "--json").out)
        known = [(row["name"], row["version"], row["model"], row["limit"]) for row in found]
        assert known == [
            ("p", 1, "scripted", "one"),
            ("p", 2, "m", "openai/m"),
            ("q", 1, "scripted", "two"),
            ("q", 2, "other", "two"),
        ]


class TestPrompts:
    def test_a_cancel_of_a_word_is_of_every_prompt(self, do):
        assert do("cancel", "b").err == "2 pending requests are cancelled\n"
        assert (states("p")["b"], states("q")["b"]) == ("cancelled", "cancelled")
        assert do("retry", "--cancelled", "b").err == "2 cancelled requests are pending again\n"

    def test_or_of_the_one_that_is_named(self, do):
        assert do("cancel", "b", "--prompt", "q").err == "1 pending request is cancelled\n"
        assert (states("p")["b"], states("q")["b"]) == ("pending", "cancelled")
        nothing = "0 cancelled requests are pending again\n"
        assert do("retry", "--cancelled", "--prompt", "p").err == nothing
        again = do("retry", "--cancelled", "--prompt", "q")
        assert again.err == "1 cancelled request is pending again\n"

    def test_all_of_one_prompt_is_not_all(self, do):
        assert do("cancel", "--all", "--prompt", "p").err == "3 pending requests are cancelled\n"
        assert set(states("q").values()) == {"pending"}

    def test_a_word_of_another_prompt_is_none_of_this_one(self, do):
        assert do("cancel", "d", "--prompt", "p").err == "0 pending requests are cancelled\n"
        assert states("q")["d"] == "pending"

    def test_a_retry_is_of_the_prompt_that_is_named(self, do):
        another_version(do, *BLOCKED)
        good(do("prompt", "edit", "q", *SCRIPTED, "On {word}", "--limit", "two", *BLOCKED))
        assert do("run").code == Exit.SOME_FAILED
        assert do("retry", "--prompt", "q", "b", "c").err == "2 failed requests are pending again\n"
        assert states("q", 2) == {"b": "pending", "c": "pending", "d": "failed"}
        assert set(states("p", 2).values()) == {"failed"}

    def test_a_run_is_of_the_prompt_that_is_named(self, do):
        good(do("run", "--prompt", "q"))
        assert set(states("q").values()) == {"succeeded"}
        assert set(states("p").values()) == {"pending"}

    def test_one_that_fails_is_told_beside_one_that_does_not(self, do):
        good(do("prompt", "edit", "q", *SCRIPTED, "On {word}", "--limit", "two", *BLOCKED))
        assert do("run", "--prompt", "p").code == Exit.DONE
        assert do("run").code == Exit.SOME_FAILED
        failed = rows("crawl.db", "SELECT word, prompt, version FROM failures ORDER BY 1")
        assert failed == [(word, "q", 2) for word in "bcd"]

    def test_a_word_is_asked_of_the_prompt_that_is_named(self, do):
        ran = good(do("ask", "b", "--prompt", "q"))
        assert ran.out.startswith("B: ")
        assert (states("p")["b"], states("q")["b"]) == ("pending", "succeeded")
        assert limit_starts() == {"one": 0, "two": 1}


def limit_starts():
    return dict(rows("crawl.db", "SELECT name, started FROM limits"))


class TestLimits:
    @pytest.mark.parametrize(("most", "made"), [("1", 1), ("3", 3), ("4", 4), ("5", 5)])
    def test_a_number_of_calls_is_one_for_all(self, do, most, made):
        assert do("run", "--limit", most).code == Exit.WORK_LEFT
        assert rows("crawl.db", "SELECT count(*) FROM attempts") == [(made,)]
        assert sum(limit_starts().values()) == made

    def test_a_budget_is_one_for_all(self, do):
        """Each call may use four times the usual answer, and uses 15 of it."""
        each = len("About {word}") + len("{}") + 1 + 1_000
        assert do("run", "--budget", str(each)).code == Exit.WORK_LEFT
        assert rows("crawl.db", "SELECT count(*) FROM attempts") == [(1,)]
        assert do("run", "--budget", str(each - 100)).code == Exit.WORK_LEFT
        assert rows("crawl.db", "SELECT count(*) FROM attempts") == [(1,)], "nor for one of q"
        assert do("run", "--budget", str(each + 5 * 20)).code == Exit.DONE, "they use little"

    def test_what_a_run_sets_is_the_limit_of_the_prompt_that_is_named(self, do):
        good(do("run", "--prompt", "q", "--per-minute", "500", "--concurrency", "3"))
        found = limits(do)
        assert (found["two"]["per_minute"], found["two"]["concurrency"]) == (500, 3)
        assert (found["one"]["per_minute"], found["one"]["concurrency"]) == (None, 10)

    def test_one_is_set_and_shown_and_the_other_is_as_it_was(self, do):
        before = limits(do)["one"]
        options = ("--per-minute", "7", "--tokens-per-minute", "900", "--concurrency", "2")
        shown = good(do("limit", "two", *options, "--fixed")).out
        assert shown.split()[-5:] == ["two", "2", "7", "900", "fixed"]
        assert "one" not in shown
        assert limits(do)["one"] == before
        [one] = json.loads(do("limit", "one", "--json").out)
        assert one == before

    def test_one_of_them_paused_holds_the_words_of_its_prompts(self, do):
        good(do("pause", "two"))
        assert do("run", "--deadline", "1s").code == Exit.WORK_LEFT
        assert set(states("p").values()) == {"succeeded"}
        assert set(states("q").values()) == {"pending"}
        held = {name: row["held_by"] for name, row in limits(do).items()}
        assert held == {"one": None, "two": "paused"}
        good(do("resume", "one"))
        assert limits(do)["two"]["held_by"] == "paused", "that was another one"
        good(do("resume"))
        good(do("run"))

    def test_a_name_that_begins_like_that_of_a_provider_is_not_meant_by_it(self, do):
        for n, name in enumerate(("scripted", "scripted/m", "scripted-too", "scripted2/m")):
            good(do("prompt", "add", f"r{n}", *SCRIPTED, f"{n} {{word}}", "--limit", name))
        good(do("pause", "scripted"))
        paused = {name for name, row in limits(do).items() if row["held_by"] == "paused"}
        assert paused == {"scripted", "scripted/m"}
        good(do("limit", "scripted", "--per-minute", "7"))
        assert {name for name, row in limits(do).items() if row["per_minute"] == 7} == paused
        good(do("resume", "scripted"))
        good(do("pause", "scripted-too"))
        paused = {name for name, row in limits(do).items() if row["held_by"] == "paused"}
        assert paused == {"scripted-too"}

    def test_who_asks_about_one_word_is_told_of_the_limit_that_it_waits_for(self, do):
        good(do("pause", "one", "--until", "3s"))
        good(do("pause", "two", "--until", "1h"))
        told_lines = good(do("ask", "a", "--prompt", "p")).err.splitlines()
        assert len(told_lines) == 1, told_lines
        assert "resume one" in told_lines[0]

    def test_the_time_left_is_not_known_while_one_is_paused(self, do):
        do("run", "--limit", "4")  # so that each limit has answered
        assert json.loads(do("status", "--json").out)["eta_ms"] > 0
        good(do("pause", "two"))
        now = json.loads(do("status", "--json").out)
        assert (now["eta_ms"], now["unfinished"]) == (None, 2)
        assert " left" not in do("status").out.splitlines()[-1].partition(",")[2]
        good(do("resume", "two"))
        assert json.loads(do("status", "--json").out)["eta_ms"] > 0

    def test_another_model_and_a_pace_mean_the_limit_of_what_is_asked_of_it(self, do):
        """The list of words stays as it is, and so does its limit."""
        do("cancel", "--all", "--prompt", "q")
        good(do("prompt", "edit", "q", *SCRIPTED, "Of {word}", "--model", "m", "--limit", "one"))
        good(do("prompt", "add", "word-list", *SCRIPTED, "{word}", "--limit", "lists"))
        good(do("run", "--model", "other", "--per-minute", "60"))
        per_minute = {name: row["per_minute"] for name, row in limits(do).items()}
        assert per_minute == {"one": 60, "two": None, "lists": None}

    def test_the_time_left_is_nothing_when_there_is_nothing_left(self, do):
        good(do("run"))
        good(do("pause"))
        assert json.loads(do("status", "--json").out)["eta_ms"] == 0

    def test_a_status_has_a_line_for_each(self, do):
        do("run", "--limit", "1")
        good(do("limit", "two", "--per-minute", "5"))
        lines = do("status").out.splitlines()
        assert lines[2].startswith("limit one: 0 of 10 in flight, 1 started in the last minute")
        assert lines[3].startswith("limit two: 0 of 10 in flight, 0 of 5 started in the last")

    def test_a_version_that_is_there_does_not_change_its_limit(self, do):
        again = ("prompt", "add", "p", *SCRIPTED, "About {word}")
        what, cause, _ = told(do(*again, "--limit", "two"), Exit.USAGE)
        assert "with another limit" in what
        assert "it shares one" in cause
        assert limits(do).keys() == {"one", "two"}
        good(do(*again))  # nobody names another one
        assert limits(do).keys() == {"one", "two"}, "and none is left behind"


@pytest.mark.parametrize("span", ["1s", "2m", "4m", "5m", "10m", "2h", "1d"])
def test_a_call_may_take_any_time(do, span):
    good(do("run", "--timeout", span))
    assert set(states("p").values()) == {"succeeded"}


def test_a_call_that_may_take_no_time_is_refused(do):
    _, cause, _ = told(do("run", "--timeout", "0s"), Exit.USAGE)
    assert "leaves no time for an answer" in cause
    assert set(states("p").values()) == {"pending"}


@pytest.mark.parametrize("most", ["1", "2"])
def test_a_word_may_fail_as_often_as_is_said(do, most):
    failing = ("--param", 'errors={"transient": 1}')
    good(do("prompt", "edit", "p", *SCRIPTED, "On {word}", "--limit", "one", *failing))
    do("cancel", "--all")
    good(do("add", "z", "--prompt", "p"))
    assert do("run", "--max-failures", most).code == Exit.SOME_FAILED
    assert rows("crawl.db", "SELECT attempts, failures FROM failures") == [(int(most),) * 2]


def test_a_run_for_one_prompt_ends_by_its_own_failures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = ("{word}", "--param", 'errors={"rejected": 1}')
    good(crawler("prompt", "add", "bad", *SCRIPTED, *bad))
    good(crawler("prompt", "add", "good", *SCRIPTED, "{word}"))
    good(crawler("add", "a", "--prompt", "bad"))
    good(crawler("add", "a", "--prompt", "good"))
    assert crawler("run", "--prompt", "bad").code == Exit.SOME_FAILED
    assert crawler("run", "--prompt", "good").code == Exit.DONE


def test_the_cancelled_are_requests_too(do):
    good(do("cancel", "a", "--prompt", "p"))
    first, second, *_ = good(do("status")).out.splitlines()
    assert "3 requests, 0 succeeded, 0 failed, 0 in flight, 2 pending, 1 cancelled" in first
    assert second.endswith("3 requests, 0 succeeded, 0 failed, 0 in flight, 3 pending")


def test_where_nobody_has_ever_run_the_status_says_no_time(do):
    last = good(do("status")).out.splitlines()[-1]
    assert last == "6 left, 0 a minute; nobody is at work: crawler run"


def test_each_version_of_a_prompt_has_a_paragraph_of_its_own(do):
    good(do("run", "--prompt", "p"))
    another_version(do)
    good(do("retry", "--stale"))
    good(do("run", "--prompt", "p"))
    paragraphs = good(do("show", "a")).out.strip().split("\n\n")
    heads = [text.splitlines()[0] for text in paragraphs if " · " in text.splitlines()[0]]
    assert [head.split(" (")[0] for head in heads] == ["a · p version 1", "a · p version 2"]


def test_a_template_of_ones_own_is_kept_for_another_model(do):
    """Under the name of the built-in prompt, too."""
    good(do("prompt", "add", "study-notes", *SCRIPTED, "Mine: {word}"))
    good(do("run", "--prompt", "study-notes", "--model", "other"))
    found = rows("crawl.db", SAID_BY)
    assert found == [("scripted", "Mine: {word}"), ("other", "Mine: {word}")]


def test_what_is_cancelled_while_it_waits_is_told_as_that(do):
    good(do("pause", "one"))
    waits = "SELECT request_id FROM request_details WHERE prompt = 'p' AND word = 'a'"
    [(request_id,)] = rows("crawl.db", waits)

    def cancel():
        while not rows("crawl.db", "SELECT 1 FROM runs"):
            pass
        with writing(Path("crawl.db"), wall_ms()) as writer:
            writer.run(lambda conn: conn.execute(CANCEL, (request_id,)))

    other = threading.Thread(target=cancel)
    other.start()
    what, cause, _ = told(crawler("ask", "a", "--prompt", "p"), Exit.SOME_FAILED)
    other.join()
    assert (what, cause) == ("there is no answer about 'a'", "the request was cancelled meanwhile")


SAID_BY = "SELECT model, template FROM prompts WHERE name = 'study-notes' ORDER BY version"
CANCEL = "UPDATE requests SET state = 'cancelled' WHERE id = ?"
