"""`crawler export --side-by-side`: a row a word, a column a prompt or a version."""

import csv
import json
from pathlib import Path

import pytest
from openpyxl import load_workbook

from crawler.errors import Exit
from tests.program import crawler, told


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Return a function that runs the program; two prompts have answered some words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.csv").write_text("word,level\nwane,B\nabhor,A\nmaim,C\n", "utf-8")

    def run(*args, code=Exit.DONE):
        ran = crawler("--db", tmp_path / "c.db", *args)
        assert ran.code == code, ran
        return ran

    for name, model, words in (("one", "m1", 12), ("two", "m2", 3)):
        template = ("--template", "Define {word}.", "--param", f"words={words}")
        run("prompt", "add", name, "--provider", "scripted", "--model", model, *template)
    run("add", "w.csv", "--prompt", "one")
    run("add", "abhor", "wane", "--prompt", "two")
    run("run")
    return run


def table(ran):
    return list(csv.reader(ran.out.splitlines()))


def test_what_two_prompts_have_answered_stands_in_a_row(do):
    ran = do("export", "--side-by-side")
    head, *rows = table(ran)
    assert head == ["word", "level", "one m1", "two m2"]
    assert [row[:2] for row in rows] == [["wane", "B"], ["abhor", "A"]], "the order of the list"
    assert all(one.startswith(two.removesuffix(".")) for *_, one, two in rows)
    assert ran.err == "2 rows (1 more without an answer of each: --all)\n"
    whole = table(do("export", "--side-by-side", "--all"))
    assert [row[0] for row in whole[1:]] == ["wane", "abhor", "maim"]
    assert whole[3][3] == ""


def test_versions_are_compared_where_they_differ(do):
    do("prompt", "edit", "one", "--template", "Define {word}. Be brief.", "--param", "words=4")
    do("retry", "wane", "--prompt", "one")
    do("run")
    versions = ("--prompt", "one@1", "--prompt", "one@2")
    head, *rows = table(do("export", "--side-by-side", *versions))
    assert head == ["word", "level", "one@1 m1", "one@2 m1"]
    [(word, _, old, new)] = rows
    assert word == "wane"
    assert len(old.split()) > len(new.split()) == 4 + 1
    differing = table(do("export", "--side-by-side", "--differ", "--all", *versions))
    assert [row[0] for row in differing[1:]] == ["wane", "abhor", "maim"]
    same = ("--prompt", "one@1", "--prompt", "one@1")
    assert table(do("export", "--side-by-side", "--differ", *same))[1:] == []
    [standing] = [row for row in table(do("export", "--side-by-side"))[1:] if row[0] == "wane"]
    assert standing[2] == new, "of a prompt by its name the answer that counts"


def test_removed_words_are_in_no_row_and_other_forms_have_the_same(do):
    do("remove", "abhor", "--prompt", "one")
    do("export", "--side-by-side", "both.jsonl")
    rows = [json.loads(line) for line in Path("both.jsonl").read_text("utf-8").splitlines()]
    assert [row["word"] for row in rows] == ["wane"]
    assert set(rows[0]["answers"]) == {"one", "two"}
    do("export", "--side-by-side", "both.xlsx")
    sheet = load_workbook("both.xlsx").active
    assert [cell.value for cell in sheet[1]] == ["word", "level", "one m1", "two m2"]
    assert sheet.max_row == 2


def test_fields_of_a_schema_are_columns_of_their_side(do):
    schema = '{"type": "object", "properties": {"gloss": {"type": "string"}}}'
    what = ("--provider", "scripted", "--template", "Define {word}.", "--schema", schema)
    do("prompt", "add", "three", *what)
    do("add", "wane", "--prompt", "three")
    do("run")
    head, row = table(do("export", "--side-by-side", "--prompt", "two", "--prompt", "three"))
    assert head[2:] == ["two m2", "three.gloss"]
    assert row[3] == "a word that the script knows by heart and explains at no"


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (("--prompt", "one", "--prompt", "two"), "--side-by-side"),
        (("--differ", "--prompt", "one"), "--side-by-side"),
        (("--side-by-side", "--failed"), "--prompt"),
        (("--side-by-side", "--prompt", "one@7"), "no version 7"),
        (("--side-by-side", "--prompt", "onf"), "onf"),
    ],
)
def test_what_makes_no_sense_is_told(do, options, cause):
    assert cause in " ".join(told(do("export", *options, code=Exit.USAGE), Exit.USAGE))
