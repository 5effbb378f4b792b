"""What a model, a server or a list has written is read by people, programs and spreadsheets; it
does nothing to them. One corpus, and a test for each way out."""

import csv
import io
import json
import re
import sqlite3

import pytest

from crawler.cli.ask import _Reader
from crawler.cli.live import Live, doing
from crawler.cli.terminal import as_json, print_table, printable, printable_lines, safe_cell, tell
from crawler.errors import CrawlerError, Exit
from crawler.ledger.status import status
from crawler.lists.model_list import read_items
from crawler.logs import json_lines
from crawler.protocol import Call
from crawler.states import Outcome
from tests.program import add_prompt, crawler

CORPUS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;evil\x1b\\",
    "erase": "\x1b[2J\x1b[1;1H",
    "c1": "\x9b2J\x9d0;evil\x9c",
    "link": "\x1b]8;;http://evil/\x1b\\click\x1b]8;;\x1b\\",
    "overwrite": "safe\revil\x08\x08\x7f",
    "nul": "a\x00b\x07\x0b\x0c",
    "bidi": "\u202eevil\u202c\u2066x\u2069\u200f\u061c",
    "lines": "a\u2028error: forged\u2029b\x85c",
    "line breaks": "a\nerror: forged\n  cause: none",
    "halves": "\ud83d\udc80 \udc9b",
    "unseen": "a\u200b\u2060\ufeff\xad\U000e0041\U000e007f b",
    "marks": "Z" + "\u0300" * 500,
    "long": "x" * 100_000,
    "formula": '=HYPERLINK("http://evil","click")',
    "command": "=cmd|'/C calc'!A0",
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(1)",
    "tab": "\t=1",
    "return": "\r=1",
    "line feed": "\n=1",
    "wide": "\uff1d1+1",
    "semicolon": 'a;=HYPERLINK("http://evil");"=1;@b',
    "option": "--db",
    "markup": "[red]x[/red] {task.fields} %s {0.__class__}",
}
ACTIVE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
# In SQLite there are no halves of characters, and in words no NUL.
STORED = {name: text.encode("utf-8", "replace").decode() for name, text in CORPUS.items()}
ALL = " ".join(text for name, text in STORED.items() if name != "long")
each = pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
each_stored = pytest.mark.parametrize("text", STORED.values(), ids=STORED)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A file with a word, its answer, a failed attempt before it, a run and a limit."""
    db = tmp_path_factory.mktemp("plain") / "x.db"
    add_prompt(db, "p", "{word}")
    crawler("--db", db, "add", "cat", "dog", "--prompt", "p")
    assert crawler("--db", db, "run", "--limit", "1").code == Exit.WORK_LEFT
    return db.read_bytes()


@pytest.fixture
def filled(tmp_path, plain):
    """Return a function that makes the file of a text: wherever others may have written, it is."""

    def fill(text):
        db = tmp_path / "x.db"
        db.write_bytes(plain)
        conn = sqlite3.connect(db, isolation_level=None)
        for trigger in TRIGGERS:
            conn.execute(f"DROP TRIGGER {trigger}")
        conn.execute("UPDATE responses SET text = ?", (text,))
        conn.execute("UPDATE words SET fields = ?", (json.dumps({text: text, "k": text}),))
        conn.execute("UPDATE prompts SET model = ?1, provider = ?1, template = ?1", (text,))
        conn.execute("UPDATE attempts SET reason = ?1, finish_reason = ?1", (text,))
        conn.execute("UPDATE runs SET host = ?, ended_at_ms = NULL, reason = NULL", (text,))
        conn.execute(
            "UPDATE limits SET name = ?1, gate_reason = ?1, gate_opens_at_ms = 9000000000000,"
            " gate_strikes = 1",
            (text,),
        )
        conn.close()
        return db

    return fill


TRIGGERS = (
    "responses_never_change",
    "words_change_by_revisions",
    "prompts_are_immutable",
    "attempts_end_once",
)


def test_on_a_terminal_it_is_read_and_nothing_else(filled):
    db = filled(ALL)
    for command in (
        ("show", "cat"),
        ("status",),
        ("limit",),
        ("prompt", "list"),
        ("prompt", "show", "p"),
        ("sql", "SELECT * FROM results"),
        ("sql", "SELECT * FROM failures UNION ALL SELECT * FROM failures"),
        ("ask", "cat", "--prompt", "p"),
    ):
        ran = crawler("--db", db, *command)
        assert ran.code == Exit.DONE, (command, ran.err)
        assert not ACTIVE.search(ran.out + ran.err), command


@pytest.mark.parametrize("command", [("status",), ("limit",), ("prompt", "list")])
def test_nothing_but_an_answer_has_lines_of_its_own(filled, command):
    usual = crawler("--db", filled("text"), *command).out.count("\n")
    ran = crawler("--db", filled(CORPUS["line breaks"]), *command)
    assert not re.search("^error: forged", ran.out, re.MULTILINE)
    assert ran.out.count("\n") == usual or command != ("status",)


def test_a_reason_begins_no_line_among_the_attempts(filled):
    shown = crawler("--db", filled(CORPUS["line breaks"]), "show", "cat").out
    attempts = shown.partition("\n\n")[0].splitlines()
    assert len(attempts) == 2
    assert attempts[1].endswith(r"a\nerror: forged\n  cause: none")


def test_json_says_exactly_what_there_is_in_signs_that_do_nothing(filled):
    text, db = ALL, filled(ALL)
    query = "SELECT text, model, fields FROM results"
    wanted = {"text": text, "model": text, "fields": json.dumps({text: text, "k": text})}
    whole = crawler("--db", db, "sql", "--json", query).out
    lines = crawler("--db", db, "sql", "--jsonl", query).out
    exported = crawler("--db", db, "export", "--prompt", "p", "--format", "jsonl").out
    assert json.loads(whole) == [wanted]
    assert [json.loads(line) for line in lines.splitlines()] == [wanted]
    [row] = [json.loads(line) for line in exported.splitlines()]
    assert (row["text"], row["fields"]) == (text, {text: text, "k": text})
    shown = crawler("--db", db, "show", "cat", "--json").out
    state = crawler("--db", db, "status", "--json").out
    assert json.loads(shown)[0]["text"] == text
    assert not ACTIVE.search(whole + lines + exported + shown + state)


@each_stored
def test_no_cell_is_a_formula_and_csv_says_all_the_rest(filled, text):
    db, wanted = filled(text), text.replace("\r", "\n")
    for ran in (
        crawler("--db", db, "sql", "--csv", "SELECT text, model FROM results"),
        crawler("--db", db, "export", "--prompt", "p"),
    ):
        table = list(csv.reader(io.StringIO(ran.out, newline="")))
        cells = [cell for row in table for cell in row]
        assert {len(row) for row in table} == {len(table[0])}
        assert wanted.replace("'", "") in [cell.replace("'", "") for cell in cells]
        assert not any(
            cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) for cell in cells
        )
        for separator in ";\t|":  # a spreadsheet that takes another one
            for part in ran.out.split(separator)[1:]:
                assert not part.lstrip('"').startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))


@each
def test_a_log_has_a_line_for_each_event(text):
    stream = io.StringIO()
    json_lines(stream=stream).info("attempt_failed", reason=text, outcome=Outcome.TRANSIENT)
    line = stream.getvalue()
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert not ACTIVE.search(line[:-1])
    assert json.loads(line)["reason"] == json.loads(json.dumps(text))


@each
def test_what_is_told_is_one_line(capsys, text):
    tell(f"said: {text}")
    err = capsys.readouterr().err
    assert err.startswith("said: ")
    assert err.count("\n") == 1
    assert not ACTIVE.search(err)


@each
def test_an_error_has_three_lines_whatever_it_quotes(text):
    told = str(CrawlerError(f"what {text}", f"why {text}", f"then {text}", Exit.USAGE))
    assert [line.split()[0] for line in told.split("\n")] == ["error:", "cause:", "hint:"]
    assert not ACTIVE.search(printable_lines(told))


@each
def test_an_answer_that_is_printed_as_it_comes_only_prints(capsys, text):
    call = Call(1, 1, "cat", "scripted", "m", "cat", "", {}, 1_000)
    reader = _Reader()
    for char in text[:600]:  # a sequence may come in pieces
        reader.read(call, char)
    reader.end_line()
    assert reader.gone is None
    assert not ACTIVE.search(capsys.readouterr().out)


def test_the_live_line_is_a_line(filled, capsys):
    conn = sqlite3.connect(filled(ALL))
    now = status(conn, 0, 1)
    conn.close()
    assert not ACTIVE.search(doing(now, " · "))
    assert "\n" not in doing(now, " · ")
    live = Live()
    live.show(now)
    live.say("stopping")
    live.stop()
    shown = capsys.readouterr().err
    assert not ACTIVE.search(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown))
    assert "evil\x1b" not in shown


@each
def test_a_table_is_a_table(capsys, text):
    print_table(("a", text), [(1, text), (text, None), (b"\x1b", 2.5)])
    assert not ACTIVE.search(capsys.readouterr().out)


@each
def test_every_form_of_a_text_keeps_what_can_be_read(text):
    readable = "".join(char for char in text if char.isalnum() and char.isascii())
    for said in (printable(text), printable_lines(text), as_json(text), str(safe_cell(text))):
        left = "".join(char for char in said if char.isalnum() and char.isascii())
        assert readable in left or set(readable) <= set(left)


def test_a_list_that_a_model_has_written_has_words_in_it_and_nothing_else():
    found = read_items("\n".join([*CORPUS.values(), "laconic"]), truncated=False)
    assert "laconic" in found.kept
    for term in found.kept:
        assert not ACTIVE.search(term)
        assert "\n" not in term
        assert not term.startswith(("-", "=", "+", "@", "'", "\t", "\uff1d"))
        assert len(term) <= 80
