"""`rename` and `add --update`: a list is mended, and nothing is paid for twice."""

import json

import pytest

from crawler.errors import Exit
from tests.program import crawler, told


@pytest.fixture
def do(tmp_path, monkeypatch):
    """A list with levels, and its answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    asked = ("--template", "Define {word} at {level}", "--provider", "scripted")
    crawler("prompt", "add", "define", *asked)
    (tmp_path / "list.csv").write_text("word,level,note\nseperate,B1,x\nlead,B2,y\n")
    crawler("add", "list.csv")
    assert crawler("run").code == Exit.DONE
    yield crawler
    assert crawler("check").code == Exit.DONE


def exported():
    rows = map(json.loads, crawler("export", "--format", "jsonl").out.splitlines())
    return [(row["word"], row["fields"], row["stale"]) for row in rows]


def test_a_word_is_renamed_and_back(do):
    assert do("rename", "seperate", "separate").err == (
        "seperate is separate now; its answer is stale (ask again: crawler retry separate)."
        " Undo: crawler rename separate seperate\n"
    )
    assert exported()[0] == ("separate", {"level": "B1", "note": "x"}, True)
    assert do("rename", "separate", "seperate").err == (
        "separate is seperate now. Undo: crawler rename seperate separate\n"
    )
    assert exported()[0] == ("seperate", {"level": "B1", "note": "x"}, False)
    assert told(do("rename", "seperate", "lead"), Exit.USAGE)[0] == (
        "there is a word 'lead' already"
    )
    assert told(do("rename", "seperat", "x"), Exit.USAGE)[1].endswith("the nearest is seperate")
    do("remove", "lead")
    hint = told(do("rename", "seperate", "lead"), Exit.USAGE)[2]
    assert hint == "crawler add lead && crawler remove seperate"
    assert do("rename", "seperate", " ").code == Exit.USAGE


def test_a_corrected_list_makes_stale_what_its_columns_have_changed(do, tmp_path):
    (tmp_path / "new.csv").write_text("word,level\nseperate,A2\nlead,B2\nnew,C1\n")
    preview = do("add", "-n", "new.csv", "--update").err
    assert "1 would change" in preview
    assert do("add", "new.csv", "--update").err == (
        "1 added to define version 1 (scripted, scripted), 2 known already\n"
        "1 word changed; 1 answer is stale (ask again: crawler retry --stale)\n"
    )
    assert exported() == [
        ("seperate", {"level": "A2", "note": "x"}, True),
        ("lead", {"level": "B2", "note": "y"}, False),
    ]
    assert "word changed" not in do("add", "new.csv", "--update").err
    assert "1 pending; 1 stale" in do("status").out
    do("retry", "--stale")
    do("run")
    assert [stale for *_, stale in exported()] == [False, False, False]
    assert do("sql", "select count(*) as n from attempts").out == "n\n4\n"


def test_without_it_a_known_word_stays_as_it_is(do, tmp_path):
    (tmp_path / "new.csv").write_text("word,level\nlead,C2\n")
    assert "1 known with other fields: kept" in do("add", "new.csv").err
    assert exported()[1] == ("lead", {"level": "B2", "note": "y"}, False)


def test_a_column_of_the_list_that_has_nothing_empties_a_field(do, tmp_path):
    (tmp_path / "one.csv").write_text("word,note\nseperate,\n")
    (tmp_path / "other.json").write_text('[{"word": "lead", "level": "C1"}]')
    assert "2 would change" in do("add", "-n", "one.csv", "other.json", "--update").err
    done = "0 added to define version 1 (scripted, scripted), 2 known already\n2 words changed;"
    assert do("add", "one.csv", "other.json", "--update").err.startswith(done)
    assert [fields for _, fields, _ in exported()] == [
        {"level": "B1"},
        {"level": "C1", "note": "y"},
    ]
    assert do("add", "one.csv", "--update").err.endswith("\n0 words changed\n")


def test_a_field_that_the_template_needs_is_not_emptied(do, tmp_path):
    (tmp_path / "less.csv").write_text("word,level\nlead,C2\nseperate,\n")
    for dry in ((), ("-n",)):
        what, cause, _ = told(do("add", *dry, "less.csv", "--update"), Exit.USAGE)
        assert what == "1 of 2 words can't be asked about; none was added"
        assert cause.endswith("needs level, which they have not, for example seperate")
    assert [fields["level"] for _, fields, _ in exported()] == ["B1", "B2"]
    assert do("add", "less.csv").err.startswith("0 added"), "it takes nothing away"


def test_an_old_list_does_not_bring_the_old_text_of_a_renamed_word(do, tmp_path):
    do("rename", "seperate", "seprate")
    do("rename", "seprate", "separate")
    told_of = (
        "1 was renamed, and a list does not bring it back: seperate is separate now; as a word of"
        " its own: crawler add -- seperate\n"
    )
    assert told_of in do("add", "-n", "list.csv").err
    assert do("add", "list.csv", "--update").err == (
        "0 added to define version 1 (scripted, scripted), 1 known already\n"
        f"{told_of}0 words changed\n"
    )
    assert [word for word, *_ in exported()] == ["separate", "lead"]
    (tmp_path / "all.csv").write_text("word,level,note\nseperate,B1,x\nseprate,B1,x\n")
    assert "2 were renamed, and a list does not bring them back:" in do("add", "all.csv").err
    do("prompt", "edit", "define", "--template", "Define {word}")
    assert do("add", "--", "seperate").err.startswith("1 added"), "who types it means it"
    assert "renamed" not in do("add", "list.csv").err
