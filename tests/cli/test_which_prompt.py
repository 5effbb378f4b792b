"""Which prompt a command means that names none, templates that are mistaken, and the last calls."""

import json

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
    shown = do("show").out.splitlines()
    assert shown[0].split()[:3] == ["word", "prompt", "outcome"]
    assert shown[1] == "w24   define  succeeded  W24: a word that the script knows b…"
    assert len(shown) == 21


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
