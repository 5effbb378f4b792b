"""`crawler run -n`: the first question whole, what all would use, and nothing is sent."""

import re

import pytest

from crawler.errors import Exit
from tests.program import crawler, rows, told


@pytest.fixture
def do(tmp_path):
    """Return a function that runs the program; three words wait."""
    lines = tmp_path / "w.csv"
    lines.write_text("word,level\nabhor,A\nwane,B\nmaim,\n", "utf-8")

    def run(*args, code=Exit.DONE):
        ran = crawler("--db", tmp_path / "c.db", *args)
        assert ran.code == code, ran
        return ran

    template = "Define {word}[[ at {level}]].\nBriefly.{answer}It is"
    what = ("--provider", "scripted", "--model", "m", "--param", "system=Be kind")
    run("prompt", "add", "p", "--template", template, *what)
    run("add", lines, "--prompt", "p")
    run.path = tmp_path / "c.db"
    return run


def test_the_first_question_is_shown_whole_and_nothing_is_sent(do):
    *question, sums, last = do("run", "-n").out.splitlines()
    assert question == [
        "to m (scripted), the first question:",
        "  | Define abhor at A.",
        "  | Briefly.",
        "  the answer begins:",
        "  | It is",
        "  parameters: system=Be kind",
    ]
    assert re.fullmatch(r"p version 1: 3 calls; about \d\d tokens in; more is known .*", sums)
    assert last == "nothing was sent"
    assert rows(do.path, "SELECT count(*) FROM attempts") == [(0,)]
    assert rows(do.path, "SELECT count(*) FROM runs") == [(0,)]


def test_what_is_left_is_summed_up_by_what_the_answers_took(do):
    do("run", "--first", "1", "--per-minute", "2")
    [(tokens_in, tokens_out)] = rows(do.path, "SELECT tokens_in, tokens_out FROM attempts")
    said = do("run", "-n", "--price", "1000/3000").out.splitlines()
    assert said[1] == "  | Define wane at B."
    cost = 2 * (tokens_in * 1000 + tokens_out * 3000) / 10**6
    assert said[-2] == (
        f"p version 1: 2 calls; about {2 * tokens_in} tokens in, {2 * tokens_out} out;"
        f" about {cost:.2f} at 1000/3000 a million; about 1 min 0 s"
    )
    assert "2 calls" in do("run", "-n", "wane", "maim").out
    assert "1 call;" in do("run", "-n", "--limit", "1").out
    do("run", "--per-minute", "600")
    assert do("run", "-n").out == "no word waits: nothing would be sent\n"


def test_a_word_that_would_fail_is_told(do):
    do("prompt", "edit", "p", "--template", "Define {word} at {level}.")
    do("run", "abhor", "wane")
    said = do("run", "-n").out
    assert said == "not sent: maim has no level; it would fail\nnothing was sent\n"
    do("retry", "wane")
    said = do("run", "-n").out
    assert "not sent: maim has no level; it would fail" in said
    assert "p version 2: 1 call;" in said


def test_a_preview_changes_no_setting(do):
    before = rows(do.path, "SELECT * FROM limits")
    do("run", "-n", "--concurrency", "3", "--per-minute", "7")
    assert rows(do.path, "SELECT * FROM limits") == before
    _, cause, _ = told(do("run", "-n", "--model", "other", code=Exit.USAGE), Exit.USAGE)
    assert re.search("prompt edit", cause)


def test_what_another_prompt_of_the_model_took_says_nothing(do):
    what = ("--provider", "scripted", "--model", "m", "--template", "Define {word}.")
    do("prompt", "add", "other", *what)
    do("add", "lead", "--prompt", "other")
    do("run", "--prompt", "other")
    assert "more is known after some answers" in do("run", "-n", "--prompt", "p").out
