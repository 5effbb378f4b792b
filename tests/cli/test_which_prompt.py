"""Which prompt a command means that names none, templates that are mistaken, and the last calls."""

import json
import re

import pytest

from crawler.errors import Exit
from tests.program import crawler, told

ASKED = ("--template", "About {word}", "--provider", "scripted")


@pytest.fixture
def do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    return crawler


def test_the_only_prompt_is_meant_where_none_is_named(do):
    do("prompt", "add", "define", *ASKED)
    assert do("add", "cat").err.startswith("1 added to define version 1")
    assert do("add", "-n", "cat", "dog").err.startswith("1 of 2 would be added to define;")
    assert do("ask", "cat").out.startswith("Cat: ")
    assert do("export", "-").out.splitlines()[1].startswith("cat,Cat: ")
    assert '"study-notes"' not in do("prompt", "list", "--json").out


@pytest.mark.parametrize(
    "args",
    [("add", "cat"), ("add", "-n", "cat"), ("ask", "cat"), ("export",), ("seed", "animals")],
)
def test_of_several_prompts_one_is_to_be_named(do, args):
    do("prompt", "add", "define", *ASKED)
    do("prompt", "add", "to translate", *ASKED)
    what, cause, hint = told(do(*args), Exit.USAGE)
    assert what == "it is not clear which prompt is meant"
    assert cause == "there are define, to translate"
    assert hint == f"name one: crawler {args[0]} … --prompt define"
    assert do("sql", "select count(*) as n from words").out == "n\n0\n", "nothing was added"


def test_a_list_that_a_model_writes_is_no_prompt_to_choose(do):
    do("prompt", "add", "define", *ASKED)
    do("prompt", "add", "word-list", *ASKED)
    assert do("add", "cat").err.startswith("1 added to define")


def test_where_there_is_none_the_built_in_one_is_made(do):
    assert do("add", "cat").err.startswith("1 added to study-notes version 1")


def test_doubled_braces_are_no_name(do):
    what, _, hint = told(do("prompt", "add", "p", *ASKED[2:], "--template", "On {{word}}"), 2)
    assert (what, hint) == ("the template would ask with the braces of {{word}}", "write {word}")
    json_like = 'Answer {"about": {{word} }}'
    assert do("prompt", "add", "p", *ASKED[2:], "--template", json_like).code == Exit.DONE


def test_the_name_of_a_file_is_no_template(do, tmp_path):
    (tmp_path / "gloss.txt").write_text("About {word}")
    for template in ("gloss.txt", "x" * 5_000):
        _, cause, hint = told(do("prompt", "add", "p", *ASKED[2:], "--template", template), 2)
        is_file = template == "gloss.txt"
        assert ("name of a file" in cause, "@gloss.txt" in hint) == (is_file, is_file)


def test_the_last_calls_are_shown_the_newest_first(do):
    do("prompt", "add", "define", *ASKED)
    words = [f"w{n}" for n in range(25)]
    do("add", *words)
    do("run", "--concurrency", "1")
    last = json.loads(do("show", "--json").out)
    assert [row["word"] for row in last] == words[:-21:-1]
    assert {row["outcome"] for row in last} == {"succeeded"}
    ran = do("show")
    shown = ran.out.splitlines()
    assert shown[0].split()[:4] == ["word", "prompt", "outcome", "at"]
    line = r"w24   define  succeeded  \d\d:\d\d:\d\dZ  W24: a word that the script .*…"
    assert re.fullmatch(line, shown[1])
    assert max(map(len, shown)) <= 100
    assert len(shown) == 21
    assert ran.err == "20 of 25 words; all of them: crawler export\n"


def test_a_word_stands_once_among_the_last_with_its_last_call(do):
    do("prompt", "add", "p", *ASKED[2:], "--template", "{word}", "--param", 'errors={"blocked": 1}')
    do("add", "a", "b")
    do("run", "--concurrency", "1")
    do("retry", "a")
    do("run")
    assert [row["word"] for row in json.loads(do("show", "--json").out)] == ["a", "b"]
    assert do("show").err.startswith("2 of 2 words")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("blocked", "the model refused it, and may again: crawler retry --prompt p {}, then"),
        ("rejected", "mend the word, its list or the prompt; then crawler retry --prompt p {}"),
        ("transient", "it is not asked again by itself: crawler retry --prompt p {}, then crawl"),
    ],
)
def test_a_word_that_has_failed_has_a_next_step(do, outcome, said):
    errors = f'errors={{"{outcome}": 1}}'
    do("prompt", "add", "p", *ASKED[2:], "--template", "{word}", "--param", errors)
    do("add", "two words")
    do("run", "--max-failures", "1")
    shown = do("show", "two words").out
    assert said.format('"two words"') in shown
    assert do("retry", "--prompt", "p", "two words").err == "1 failed request is pending again\n"
    assert "crawler retry" not in do("show", "two words").out


def test_fields_on_record_count_where_a_list_lacks_them(do, tmp_path):
    do("prompt", "add", "define", "--template", "{word} of {level}", *ASKED[2:])
    (tmp_path / "all.csv").write_text("word,level\ncat,A1\ndog,A2\n")
    do("add", "all.csv", "--prompt", "define")
    rest = "select word from request_details where state = 'pending' and prompt = 'define'"
    (tmp_path / "rest.csv").write_text(do("sql", rest).out)
    do("prompt", "add", "rest", "--template", "{word} at {level}", *ASKED[2:])
    assert do("add", "rest.csv", "--prompt", "rest").err.startswith("2 added to rest")
    told(do("add", "cow", "--prompt", "rest"), Exit.USAGE)
    assert do("cancel", "--all", "--prompt", "define").code == Exit.DONE
