"""Rows of a list that have one word: one item, several, or a list that has to say what is meant."""

import csv
import io

import pytest

from crawler.errors import Exit
from tests.program import crawler, rows, told

LEMMAS = "lemma,pos,gloss\nbank,noun,money\nbank,noun,river\nzeal,noun,zest\nbank,verb,tilt\n"


@pytest.fixture
def do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    asked = ("--template", "Define {word}[[: {pos}]]", "--provider", "scripted")
    crawler("prompt", "add", "senses", *asked)
    (tmp_path / "lemmas.csv").write_text(LEMMAS)
    yield crawler
    assert crawler("check").code == Exit.DONE


def items():
    return rows("crawl.db", "SELECT text, fields FROM words ORDER BY id")


def test_rows_that_differ_are_refused_with_the_ways_out(do):
    what, cause, hint = told(do("add", "lemmas.csv", "--column", "lemma"), Exit.USAGE)
    assert what == "1 word stands in several rows that differ; none was added"
    assert cause == "in gloss, for example: bank: money and river"
    assert hint == (
        "crawler add lemmas.csv --column lemma --key lemma,gloss asks about each of them;"
        " crawler add lemmas.csv --column lemma --keep-first about the first row of each"
    )
    assert items() == []
    assert told(do("add", "-n", "lemmas.csv", "--column", "lemma"), Exit.USAGE)[0] == what
    how = ("--prompt", "senses", "--column", "lemma", "--delimiter", ",", "--update")
    hint = told(do("add", "lemmas.csv", *how), Exit.USAGE)[2]
    assert hint.startswith(f"crawler add lemmas.csv {' '.join(how)} --key lemma,gloss asks")


def test_each_way_out_works(do):
    ran = do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,pos,gloss")
    assert ran.err == "4 added to senses version 1 (scripted, scripted)\n"
    assert [text for text, _ in items()] == ["bank", "bank", "zeal", "bank"]
    assert do("run").code == Exit.DONE
    shown = list(csv.DictReader(io.StringIO(do("export").out)))
    assert [(row["key"], row["gloss"]) for row in shown] == [
        ("bank/noun/money", "money"),
        ("bank/noun/river", "river"),
        ("zeal/noun/zest", "zest"),
        ("bank/verb/tilt", "tilt"),
    ]


def test_the_first_of_each_is_taken_where_that_is_said(do):
    ran = do("add", "lemmas.csv", "--column", "lemma", "--keep-first")
    assert ran.err == (
        "2 added to senses version 1 (scripted, scripted)\n2 repeated in the list: bank\n"
    )
    assert items()[0] == ("bank", '{"pos": "noun", "gloss": "money"}')


def test_the_key_is_kept_for_the_lists_to_come(do, tmp_path):
    key = ("--column", "lemma", "--key", "lemma,pos,gloss")
    do("add", "lemmas.csv", *key)
    (tmp_path / "more.csv").write_text(f"{LEMMAS}bank,verb,rely\n")
    assert do("add", "more.csv", "--column", "lemma").err.startswith("1 added to senses")
    (tmp_path / "fixed.csv").write_text("lemma,pos,gloss,level\nbank,noun,money,B1\n")
    assert "1 word changed" in do("add", "fixed.csv", "--column", "lemma", "--update").err
    (tmp_path / "plain.csv").write_text("word,pos\nword,noun\n")
    assert do("add", "plain.csv").err.startswith("1 added to senses")
    assert rows("crawl.db", "SELECT count(*) FROM words WHERE key IS NULL") == [(1,)]


def test_a_text_that_several_have_selects_all_and_a_key_selects_one(do):
    do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,pos,gloss")
    assert do("remove", "bank/noun/river").err.startswith("1 word removed from senses;")
    assert do("remove", "bank").err.startswith("2 words removed from senses;")
    assert do("add", "bank").err.endswith("3 on the list again, with what was answered\n")
    assert rows("crawl.db", "SELECT count(*) FROM words") == [(4,)], "bank is no new word"
    assert told(do("retry", "bank/noun/x"), Exit.USAGE)[0] == "there is no word 'bank/noun/x'"


def test_cancel_finds_words_by_text_and_by_key(do):
    do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,pos,gloss")
    assert do("cancel", "bank/verb/tilt").err == "1 pending request is cancelled\n"
    assert do("cancel", "bank").err == "2 pending requests are cancelled\n"
    assert "there is no word 'bunk'" in do("cancel", "bunk").err


def test_a_correction_without_the_key_adds_no_twin(do, tmp_path):
    do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,pos,gloss")
    (tmp_path / "fix.csv").write_text("lemma,gloss\nzeal,fervour\n")
    what, cause, _ = told(do("add", "fix.csv", "--column", "lemma", "--update"), Exit.USAGE)
    assert "pos" in what
    assert cause == "the list of 'zeal' has gloss"
    assert len(items()) == 4


def test_rows_that_are_equal_are_one(do, tmp_path):
    (tmp_path / "list.csv").write_text("word,pos\na,noun\nb,noun\na,noun\n")
    assert do("add", "list.csv").err.endswith("1 repeated in the list: a\n")
    assert len(items()) == 2


def test_a_column_that_is_not_there_is_told(do):
    ran = do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,sense")
    assert told(ran, Exit.USAGE)[0].startswith("there is no column 'sense'")
    assert items() == []


def test_a_list_has_the_key_of_the_file_by_its_header(do, tmp_path):
    """Whatever its first rows lack: a list that is added again adds nothing."""
    (tmp_path / "k.csv").write_text("lemma,pos\nbank,\nriver,noun\n")
    key = ("--column", "lemma", "--key", "lemma,pos")
    assert do("add", "k.csv", *key).err.startswith("2 added")
    assert do("add", "k.csv", "--column", "lemma").err.startswith("0 added")
    (tmp_path / "k.json").write_text('[{"lemma": "bank", "pos": null}, {"lemma": "x", "pos": "y"}]')
    assert do("add", "k.json", "--column", "lemma").err.startswith("1 added")
    assert do("add", "k.csv", "k.json", *key).err.startswith("0 added")
    assert rows("crawl.db", "SELECT count(*), count(key) FROM words") == [(3, 3)]


@pytest.mark.parametrize("name", ["short.csv", "short.jsonl"])
def test_a_list_without_a_column_of_the_key_is_refused_where_that_is_named(do, tmp_path, name):
    (tmp_path / "short.csv").write_text("lemma,gloss\nbank,money\n")
    (tmp_path / "short.jsonl").write_text('{"lemma": "bank", "gloss": "x"}\n')
    ran = do("add", "lemmas.csv", name, "--column", "lemma", "--key", "lemma,pos,gloss")
    assert told(ran, Exit.USAGE)[0] == "there is no column 'pos', and nothing of it was added"
    assert items() == []


def test_another_key_than_that_of_the_file_is_refused(do, tmp_path):
    (tmp_path / "k.csv").write_text("lemma,pos,gloss\nbank,noun,money\nriver,noun,water\n")
    lemmas = ("--column", "lemma", "--key")
    do("add", "k.csv", *lemmas, "lemma,pos")
    assert do("add", "k.csv", *lemmas, "pos, lemma").err.startswith("0 added"), "the same"
    for dry in ((), ("-n",)):
        what, cause, hint = told(do("add", *dry, "k.csv", *lemmas, "lemma,pos,gloss"), Exit.USAGE)
        assert what == "this file has another key; nothing was added"
        assert (
            cause
            == "its items are told apart by lemma,pos: with lemma,pos,gloss known ones are new"
        )
        assert hint == "leave --key out; for another key a database of its own: --db FILE"
    assert do("add", "k.csv", "--column", "lemma").err.startswith("0 added")
    (tmp_path / "two.csv").write_text("lemma,pos,gloss\nbank,noun,a\nbank,noun,b\n")
    hint = told(do("add", "two.csv", "--column", "lemma"), Exit.USAGE)[2]
    assert hint == ("crawler add two.csv --column lemma --keep-first takes the first row of each")


def test_a_key_is_asked_about_and_a_text_that_several_have_is_not(do):
    do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,pos,gloss")
    assert do("ask", "bank/noun/river").out.startswith("Bank: a word ")
    assert do("ask", "bank/noun/river").err.startswith("answered at ")
    assert do("ask", "zeal").out.startswith("Zeal: a word "), "only one is meant"
    what, cause, hint = told(do("ask", "bank"), Exit.USAGE)
    assert what == "3 words have the text 'bank'"
    assert cause == (
        "it is not clear which is meant: bank/noun/money, bank/noun/river, bank/verb/tilt"
    )
    assert hint == "crawler ask bank/noun/money"
    do("remove", "bank/verb/tilt")
    assert do("ask", "bank/verb/tilt").out.startswith("Bank: a word ")
    assert rows("crawl.db", "SELECT count(*), count(key) FROM words") == [(4, 4)]
    assert rows("crawl.db", "SELECT count(*) FROM attempts") == [(3,)]


def test_a_rename_changes_the_part_of_the_word_and_its_undo_brings_it_back(do, tmp_path):
    (tmp_path / "k.csv").write_text("gloss,lemma\nseal,seal\nstamp,seal\nsael,lead\n")
    do("add", "k.csv", "--column", "lemma", "--key", "gloss,lemma")
    before = items()
    assert do("rename", "seal/seal", "sael").err == (
        "seal/seal is seal/sael now. Undo: crawler rename seal/sael seal\n"
    )
    assert items()[0] == ("sael", '{"gloss": "seal"}')
    assert do("rename", "seal/sael", "seal").code == Exit.DONE
    assert items() == before
    assert rows("crawl.db", "SELECT key FROM words ORDER BY id")[0] == ('\x1f["seal", "seal"]',)
    do("rename", "seal/seal", "sael")
    assert do("rename", "sael", "seal").code == Exit.DONE, "its key is another than stamp/seal"
    assert told(do("rename", "seal", "x"), Exit.USAGE)[2] == "crawler rename seal/seal x"
    (tmp_path / "more.csv").write_text("gloss,lemma\nseal,lead\n")
    do("add", "more.csv", "--column", "lemma")
    taken = told(do("rename", "seal/lead", "seal"), Exit.USAGE)
    assert taken[0] == "there is a word 'seal/seal' already"
    assert do("add", "plain").code == Exit.DONE
    assert told(do("rename", "plain", "lead"), Exit.USAGE)[0] == "there is a word 'lead' already"


def test_a_word_that_is_no_part_of_its_key_is_renamed(do, tmp_path):
    (tmp_path / "k.csv").write_text("word,id,gloss\nbank,bank,money\nbank,2,river\n")
    do("add", "k.csv", "--key", "id,gloss")
    assert do("rename", "bank/money", "banc").err == (
        "bank/money is banc now. Undo: crawler rename bank/money bank\n"
    )
    assert [text for text, _ in items()] == ["banc", "bank"]


def test_a_key_of_one_column_is_typed_as_it_is_shown(do, tmp_path):
    (tmp_path / "k.csv").write_text("word,id\nbank,1\nbank,a/2\n")
    do("add", "k.csv", "--key", "id")
    for command in (("show", "1"), ("retry", "1"), ("show", '"a/2"'), ("retry", "bank")):
        assert do(*command).code == Exit.DONE, command
    assert do("remove", '"a/2"').err.startswith("1 word removed")
    assert do("ask", "1").out.startswith("Bank: a word ")
    assert told(do("show", "2"), Exit.USAGE)[0] == "there is no word '2'"
    assert told(do("retry", '"\\q"'), Exit.USAGE)[0] == "there is no word '\"\\\\q\"'"
    assert told(do("retry", '"\\q"/x'), Exit.USAGE)[0] == "there is no word '\"\\\\q\"/x'"


def test_a_key_of_several_columns_is_shown_by_itself(do):
    do("add", "lemmas.csv", "--column", "lemma", "--key", "lemma,pos,gloss")
    do("remove", "bank/noun/river")
    assert do("show", "bank/noun/river").out.count("removed at") == 1
    assert do("show", "bank").out.count("pending") == 2


def test_what_stands_after_two_dashes_is_a_word(do, tmp_path):
    (tmp_path / "me").write_text("other\n")
    do("add", "other", "more", "--", "@me", "-x", "-")
    assert do("retry", "--", "@me", "-x", "-").err == "3 wait already\n"
    assert do("run", "more", "--", "@me").code == Exit.DONE
    assert do("mark", "bad", "--", "@me").err.startswith("1 answer marked bad")
    assert do("remove", "@me", "--", "-x").err.startswith("2 words removed")
    assert rows("crawl.db", "SELECT word FROM results ORDER BY 1") == [("@me",), ("more",)]


def test_a_key_without_the_word_drops_no_row(do, tmp_path):
    """Rows that differ in the word alone are no repeated row."""
    (tmp_path / "u.csv").write_text("word,unit\nlead,3\nbow,3\ntear,4\n", "utf-8")
    what, cause, hint = told(do("add", "u.csv", "--key", "unit"), Exit.USAGE)
    assert "differ" in what
    assert "lead and bow" in cause
    assert "--key unit,word" in hint
