"""Corrected items: what was sent stays readable, and an answer is stale where it would differ."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.ledger import intake, items, standing
from crawler.ledger.check import check
from crawler.protocol import Row, Word
from crawler.states import Outcome
from tests.conftest import Ledger


def put(ledger, template):
    spec = intake.PromptSpec("p", template, "scripted", "m", {})
    ledger.prompt, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)


def add(ledger, text, **fields):
    words = [Word(text, fields)]
    return intake.add_words(ledger.conn, ledger.prompt.id, words, ledger.now_ms)


def correct(ledger, text, columns=None, **fields):
    word = Word(text, fields) if columns is None else Row(text, fields, columns)
    return items.revised(ledger.conn, [word], ledger.now_ms)


def answer(ledger, **facts):
    for lease in ledger.turn().leases:
        ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED, **facts), budget=0)


def stale(ledger):
    return dict(ledger.conn.execute("SELECT word, stale FROM results"))


def test_an_answer_is_stale_where_its_template_uses_what_was_corrected(ledger):
    put(ledger, "Define {word} at {level}.[[ ({hint})]]")
    add(ledger, "abate", level="B1", note="x")
    answer(ledger)
    assert correct(ledger, "abate", note="y") == (1, 0), "no question uses it"
    assert correct(ledger, "abate", level="A2") == (1, 1)
    assert stale(ledger) == {"abate": 1}
    assert correct(ledger, "abate", level="B1") == (1, 0), "as it was sent"
    assert correct(ledger, "abate", hint="less") == (1, 1)
    assert intake.recorded_fields(ledger.conn, "abate") == {
        "level": "B1",
        "note": "y",
        "hint": "less",
    }
    assert ledger.row("SELECT count(*) FROM revisions") == (4,)
    assert correct(ledger, "abate", level="B1") == (0, 0), "that is nothing new"


def test_columns_that_a_list_lacks_are_kept_and_cells_that_it_empties_are_not(ledger):
    add(ledger, "a", x="1", y="2", z="3")
    assert correct(ledger, "a", columns=["x", "y"], x="9") == (1, 0)
    assert intake.recorded_fields(ledger.conn, "a") == {"x": "9", "z": "3"}


def test_a_word_that_is_renamed_keeps_fields_and_answers(ledger):
    put(ledger, "Define {word}")
    add(ledger, "seperate", level="B1")
    answer(ledger, text="old")
    old, new = "seperate", "separate"
    assert items.rename(ledger.conn, old, new, ledger.now_ms) == (old, new, 1)
    assert ledger.row("SELECT word, text, stale, fields FROM results") == (
        "separate",
        "old",
        1,
        '{"level": "B1"}',
    )
    assert items.rename(ledger.conn, new, old, ledger.now_ms) == (new, old, 0)
    assert stale(ledger) == {"seperate": 0}


def test_what_is_in_flight_is_stale_if_it_was_sent_before_the_correction(ledger):
    put(ledger, "{word}: {x}")
    add(ledger, "a", x="1")
    add(ledger, "b", x="1")
    flying = {lease.word: lease for lease in ledger.turn().leases}
    correct(ledger, "a", x="2")
    correct(ledger, "b", x="2")
    ends = [
        ledger.finish(flying["a"], Outcome.SUCCEEDED),
        ledger.finish(flying["b"], Outcome.INTERRUPTED),
    ]
    (again,) = ledger.turn(*ends).leases
    assert (again.call.prompt, again.revision) == ("b: 2", 2)
    ledger.turn(ledger.finish(again, Outcome.SUCCEEDED), budget=0)
    assert stale(ledger) == {"a": 1, "b": 0}
    sent = "SELECT number, revision FROM attempts ORDER BY request_id, number"
    assert ledger.conn.execute(sent).fetchall() == [(1, None), (1, None), (2, 2)]


def test_fields_that_come_later_are_a_revision_once_the_word_has_been_asked(ledger):
    put(ledger, "Define {word}[[ at {level}]].")
    for word in ("answered", "flying", "failed", "waiting"):
        add(ledger, word)
    leases = {lease.word: lease for lease in ledger.turn(budget=3).leases}
    ends = {"answered": Outcome.SUCCEEDED, "failed": Outcome.REJECTED}
    ledger.turn(*(ledger.finish(leases[word], end) for word, end in ends.items()), budget=0)
    for word in ("answered", "flying", "failed", "waiting"):
        assert add(ledger, word, level="B2") == (0, 0, 1, 0)
        assert add(ledger, word, level="B2") == (0, 0, 0, 0)
        assert intake.recorded_fields(ledger.conn, word) == {"level": "B2"}
    before = "SELECT words.text, revisions.fields FROM revisions JOIN words ON id = word_id"
    assert set(ledger.conn.execute(before)) == {(word, None) for word in leases}
    ledger.turn(ledger.finish(leases["flying"], Outcome.SUCCEEDED), budget=0)
    assert stale(ledger) == {"answered": 1, "flying": 1}


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("12"), st.booleans()), max_size=12),
    st.sampled_from(["{word}", "{word}{x}", "{word}[[{x}{y}]]", "[[{z}]]{word}"]),
)
@settings(max_examples=60)
def test_stale_is_what_would_be_asked_otherwise_today(steps, template):
    """Corrections and answers in any order; the values that the template uses tell."""
    ledger = Ledger()
    put(ledger, template)
    add(ledger, "a", x="1", y="1", z="1")
    answer(ledger)
    (first,) = ledger.row("SELECT id FROM requests")
    now = sent = {"x": "1", "y": "1", "z": "1"}
    for name, value, _ in steps:
        correct(ledger, "a", **{name: value})
        now = {**now, name: value}
        used = [column for column in "xyz" if f"{{{column}}}" in template]
        assert stale(ledger) == {"a": any(now[column] != sent[column] for column in used)}
    assert [finding for finding in check(ledger.conn) if finding.broken] == []
    assert first == 1
    ledger.conn.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE words SET text = 'b' WHERE id = 1",
        "UPDATE words SET fields = '{}' WHERE id = 1",
        "UPDATE words SET revision = 3 WHERE id = 1",
        "UPDATE words SET text = 'b', revision = 2 WHERE id = 1",
        "UPDATE words SET text = 'b', revision = 4 WHERE id = 1",
        "UPDATE words SET key = 'k' WHERE id = 1",
        "UPDATE words SET fields = '{}' WHERE id = 2",
        "UPDATE revisions SET text = 'b'",
        "DELETE FROM revisions",
        "INSERT OR REPLACE INTO revisions SELECT 1, 1, 'x', NULL, NULL, 1",
    ],
)
def test_a_word_changes_by_a_revision_alone(ledger, statement):
    add(ledger, "a", x="1")
    correct(ledger, "a", x="2")
    add(ledger, "asked")
    ledger.turn()
    before = list(ledger.conn.iterdump())
    with pytest.raises(sqlite3.IntegrityError):
        ledger.conn.execute(statement)
    assert list(ledger.conn.iterdump()) == before


def test_items_of_one_text_are_told_apart_by_their_keys(ledger):
    rows = [
        Row("bank", {"pos": "noun"}, ["pos"], items.key_of(["bank", "noun"])),
        Row("bank", {"pos": "verb"}, ["pos"], items.key_of(["bank", "verb"])),
        Word("bank", {}),
    ]
    assert intake.add_words(ledger.conn, ledger.prompt.id, rows, 1) == (3, 3, 0, 0)
    assert intake.add_words(ledger.conn, ledger.prompt.id, rows, 1) == (0, 0, 0, 0)
    assert [lease.word for lease in ledger.turn().leases] == ["bank"] * 3
    assert len(items.identities(ledger.conn, "bank")) == 3
    verb = items.key_of(["bank", "verb"])
    items.put_key(ledger.conn, ["lemma", "pos"], "lemma")
    items.rename(ledger.conn, verb, "banc", 1)
    assert items.identities(ledger.conn, "banc") == [items.key_of(["banc", "verb"])]
    assert ledger.row("SELECT text, key FROM revisions") == ("bank", verb)
    assert items.parts_of_key(verb) == ["bank", "verb"]


@pytest.mark.parametrize("outcome", [Outcome.INTERRUPTED, Outcome.TRANSIENT, Outcome.BLOCKED])
def test_a_call_that_an_edit_has_overtaken_leaves_the_answer_of_the_version_before(ledger, outcome):
    add(ledger, "a")
    answer(ledger, text="of 1")
    put(ledger, "On {word}")
    standing.ask_again(ledger.conn, ledger.prompt.id, [1])
    (flying,) = ledger.turn().leases
    put(ledger, "About {word}")
    ledger.now_ms += 10**9
    assert ledger.turn(ledger.finish(flying, outcome)).leases == []
    assert ledger.row("SELECT text, version, stale FROM results") == ("of 1", 1, 0)
    assert [finding for finding in check(ledger.conn) if finding.broken] == []
