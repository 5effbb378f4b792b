"""Answers are marked good or bad, and the bad ones are asked again."""

import csv
import io
import sqlite3

import pytest

from crawler.errors import Exit
from tests.program import crawler, rows


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Three words with answers, and one that has none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    crawler("prompt", "add", "p", "--template", "About {word}", "--provider", "scripted")
    crawler("add", "a", "b", "c")
    crawler("run")
    crawler("add", "late")
    yield crawler
    assert crawler("check").code == Exit.DONE


def marks():
    found = csv.DictReader(io.StringIO(crawler("export", "--all").out))
    return {row["word"]: (row["review"], row["note"]) for row in found}


def test_a_mark_belongs_to_an_answer_and_the_newest_counts(do):
    ran = do("mark", "bad", "a", "b", "late", "--note", "says nothing")
    assert ran.err == "2 answers marked bad; undo: crawler mark none a b\n"
    assert do("mark", "good", "b").err == (
        '1 answer marked good; undo: crawler mark bad b --note "says nothing"\n'
    )
    assert marks() == {
        "a": ("bad", "says nothing"),
        "b": ("good", ""),
        "c": ("", ""),
        "late": ("", ""),
    }
    assert do("mark", "none", "--bad").err == (
        '1 answer unmarked; undo: crawler mark bad a --note "says nothing"\n'
    )
    assert marks()["a"] == ("", "")
    assert rows("crawl.db", "SELECT mark, by NOT NULL FROM reviews") == [
        ("bad", 1),
        ("bad", 1),
        ("good", 1),
        ("none", 1),
    ]


def test_what_is_bad_is_asked_again_and_the_new_answer_has_no_mark(do):
    do("mark", "bad", "a", "c")
    assert do("retry", "--bad").err.startswith("2 answers are asked again;")
    assert marks()["a"] == ("bad", ""), "the old one counts"
    assert do("mark", "bad", "--review", "none").err.startswith("1 answer marked bad; undo:")
    do("run")
    assert [mark for mark, _ in marks().values()] == ["", "bad", "", ""]
    assert do("retry", "--bad").err.startswith("1 answer is asked again;")


def test_who_says_nothing_marks_nothing(do):
    assert do("mark", "bad").code == Exit.USAGE
    assert do("mark", "worse", "a").code == Exit.USAGE
    assert do("mark", "bad", "nobody").code == Exit.USAGE
    assert rows("crawl.db", "SELECT count(*) FROM reviews") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reviews SET mark = 'good'",
        "DELETE FROM reviews",
        "REPLACE INTO reviews (id, request_id, mark, by, at_ms) VALUES (1, 2, 'good', 'x', 1)",
        "INSERT INTO reviews (request_id, mark, by, at_ms) VALUES (4, 'good', 'x', 1)",
        "INSERT INTO reviews (request_id, mark, by, at_ms) VALUES (1, 'fine', 'x', 1)",
    ],
)
def test_marks_are_rows_that_stay(do, statement):
    do("mark", "bad", "a")
    conn = sqlite3.connect("crawl.db")
    conn.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(statement)
    conn.close()
