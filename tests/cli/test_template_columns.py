"""Columns that a template names: they are there, or what is meant is told before it costs money."""

import pytest

from crawler.errors import Exit
from tests.program import crawler, rows, told

SCRIPTED = ("--provider", "scripted", "--template")
LIST = "word,Part of speech,Level\ncat,noun,A1\nrun,verb,B2\n"


@pytest.fixture
def do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    (tmp_path / "list.csv").write_text(LIST)
    return crawler


def test_a_column_with_blanks_is_filled_in(do):
    do("prompt", "add", "p", *SCRIPTED, "The {Part of speech} {word}[[ of {Level}]]")
    ran = do("add", "-n", "list.csv")
    assert ran.out == "cat: The noun cat of A1\nrun: The verb run of B2\n"


@pytest.mark.parametrize(
    "text", ["{word}[[ as {x}", "{word} {x", "{word} as {x}]]", "{ word }, {x}"]
)
def test_what_would_be_sent_with_its_braces_is_refused(do, tmp_path, text):
    what, _, hint = told(do("prompt", "add", "p", *SCRIPTED, text), Exit.USAGE)
    assert what.startswith("the template would ask with")
    assert hint.startswith("write ")
    assert not (tmp_path / "crawl.db").exists()


@pytest.mark.parametrize(
    ("template", "told_too"),
    [
        ("Explain {wrod} {word}", "is {word} meant? its words need {wrod}: a list with the column"),
        ("{word} at {Level}", "its words need {Level}: a list with the column Level"),
    ],
)
def test_before_there_is_a_list_what_it_needs_is_told(do, template, told_too):
    ran = do("prompt", "add", "p", *SCRIPTED, template)
    assert (ran.code, told_too in ran.err) == (Exit.DONE, True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wrod", "write {word}"),
        ("level", "write {Level}"),
        ("part of speech", "write {Part of speech}"),
        ("gloss", "add the column first"),
    ],
)
def test_a_column_that_no_word_has_is_refused_where_there_are_words(do, tmp_path, name, hint):
    do("prompt", "add", "p", *SCRIPTED, "{word}")
    do("add", "list.csv")
    ran = do("prompt", "edit", "p", *SCRIPTED, f"{{word}} {{{name}}}")
    what, cause, said = told(ran, Exit.USAGE)
    assert what.startswith(f"no word has {{{name}}}")
    assert cause == "the lists have word, Part of speech, Level"
    assert said.startswith(hint)
    assert rows(tmp_path / "crawl.db", "SELECT count(*) FROM prompts") == [(1,)]
    ran = do("prompt", "edit", "p", *SCRIPTED, f"{{word}}[[ {{{name}}}]]")
    assert f"no word has {{{name}}}: what is in [[ … ]]" in ran.err
    assert do("prompt", "edit", "p", *SCRIPTED, "{word} {Level}").err.startswith("p version 3")


def test_a_list_whose_column_differs_by_case_is_told_with_what_to_write(do):
    do("prompt", "add", "p", *SCRIPTED, "{word} at {level}")
    _, cause, hint = told(do("add", "list.csv"), Exit.USAGE)
    assert cause.startswith("the list has Part of speech, Level: prompt 'p' needs level")
    assert hint == "write {Level} in the template (crawler prompt edit)"


def test_words_listed_with_another_prompt_count(do):
    do("prompt", "add", "p", *SCRIPTED, "{word}")
    do("add", "list.csv", "--prompt", "p")
    do("prompt", "add", "q", *SCRIPTED, "On {word}")
    do("add", "cat", "--prompt", "q")
    assert do("prompt", "edit", "q", *SCRIPTED, "{word} at {Level}").code == Exit.DONE
