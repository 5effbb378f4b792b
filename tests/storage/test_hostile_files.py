"""A file that somebody else has made or damaged is refused as it is, or is harmless."""

import os
import re
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import CrawlerError, Exit
from crawler.storage import database, upgrade
from crawler.storage.database import explained, writing
from crawler.storage.schema import require_our_schema
from crawler.storage.upgrade import migrations
from tests.conftest import LONG, empty_ledger
from tests.program import SHAPE, crawler, crawler_process, rows, state_of, told

READS = [
    ("status",),
    ("show", "w1"),
    ("sql", "SELECT * FROM results"),
    ("export", "--prompt", "p"),
    ("check",),
    ("limit",),
    ("prompt", "list"),
]
WRITES = [("add", "new", "--prompt", "p"), ("retry",), ("run", "--limit", "1", "--deadline", "5s")]
ENDLESS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"


def made(path):
    """Make a file of ours with answers, words that are left, and a view of a prompt."""
    crawler("--db", path, "prompt", "add", "p", *SPEC)
    words = [f"w{n}" for n in range(40)]
    assert crawler("--db", path, "add", *words, "--prompt", "p").code == Exit.DONE
    assert crawler("--db", path, "run", "--limit", "30").code == Exit.WORK_LEFT
    return path


SPEC = (
    "--template",
    "{word}",
    "--provider",
    "scripted",
    "--schema",
    '{"type": "object", "properties": {"a": {}}}',
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return made(tmp_path_factory.mktemp("good") / "x.db").read_bytes()


@pytest.fixture
def ours(tmp_path, good):
    path = tmp_path / "x.db"
    path.write_bytes(good)
    return path


def empty_copy():
    conn = sqlite3.connect(":memory:", isolation_level=None)
    empty_ledger().backup(conn)
    return conn


def change(path, script):
    conn = sqlite3.connect(path)
    conn.executescript(script)
    conn.close()


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (
            "CREATE TRIGGER spy AFTER INSERT ON attempts BEGIN DELETE FROM limits; END",
            "it has a trigger that is not ours, 'spy': it would run with what we write",
        ),
        (
            (
                "DROP TRIGGER responses_are_kept; CREATE TRIGGER responses_are_kept"
                " BEFORE DELETE ON responses BEGIN SELECT 1; END"
            ),
            (
                "it has a trigger that is not ours, 'responses_are_kept': it would run with what we"
                " write"
            ),
        ),
        (
            "CREATE TRIGGER spy INSTEAD OF INSERT ON results BEGIN SELECT 1; END",
            "it has a trigger that is not ours, 'spy': it would run with what we write",
        ),
        (f"DROP TABLE tallies; CREATE VIEW tallies AS {ENDLESS}", "its table tallies is none"),
        (
            f"DROP TABLE migrations; CREATE VIEW migrations AS {ENDLESS}",
            "its table migrations is none",
        ),
        (
            "DROP TABLE clocks; CREATE VIRTUAL TABLE clocks USING fts5 (boot_id, offset_ms)",
            "its table clocks is none",
        ),
    ],
)
def test_what_would_run_with_our_commands_is_refused(ours, script, cause):
    change(ours, script)
    before = state_of(ours.parent)
    for command in (*READS, *WRITES):
        what, why, _ = told(crawler("--db", ours, *command), Exit.CONFIGURATION)
        assert (what, why) == (f"{ours} can't be used", cause)
        assert state_of(ours.parent) == before


RENAMED = (
    "PRAGMA writable_schema = ON;"
    "UPDATE sqlite_schema SET {column} = '{new}' WHERE name LIKE '{old}%';"
)
ADDS_WORDS = (
    "CREATE TRIGGER spy AFTER INSERT ON responses BEGIN"
    " INSERT INTO words (text, added_at_ms) VALUES ('w' || random(), 1);"
    " INSERT INTO requests (word_id, prompt_id) SELECT max(id), 1 FROM words; END;"
)
HIDES_TOKENS = (
    "DROP TRIGGER attempts_end_once;"
    "CREATE TRIGGER spy2 AFTER UPDATE OF finished_at_ms ON attempts BEGIN"
    " UPDATE attempts SET tokens_in = 0, tokens_out = 0"
    " WHERE request_id = new.request_id AND number = new.number; END;"
)


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (
            ADDS_WORDS + HIDES_TOKENS + RENAMED.format(column="type", new="Trigger", old="spy"),
            "its schema has a row that SQLite did not write, 'spy'",
        ),
        (
            f"DROP TABLE tallies; CREATE VIEW tallies AS {ENDLESS};"
            + RENAMED.format(column="name", new="Tallies", old="tallies")
            + RENAMED.format(column="tbl_name", new="Tallies", old="Tallies"),
            "its table Tallies is none",
        ),
        (
            f"DROP VIEW request_details; CREATE VIEW request_details AS {ENDLESS}",
            "its view request_details is not as we make it: our commands read it",
        ),
    ],
)
def test_a_schema_that_is_spelt_otherwise_is_read_as_sqlite_reads_it(ours, script, cause):
    change(ours, script)
    before = state_of(ours.parent)
    for command in (*READS, *WRITES, ("run", "--budget", "5000", "--deadline", "5s")):
        assert told(crawler("--db", ours, *command), Exit.CONFIGURATION)[1] == cause
        assert state_of(ours.parent) == before


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("ALTER TABLE runs ADD COLUMN x TEXT AS (printf('%.*c', 900000000, 'x'))", "columns"),
        ("ALTER TABLE runs ADD COLUMN x TEXT CHECK (length(hex(zeroblob(9))) > 1)", "columns"),
        (
            (
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql,"
                " ') STRICT', ', x TEXT DEFAULT (hex(zeroblob(9)))) STRICT') WHERE name = 'clocks'"
            ),
            "columns",
        ),
        ("ALTER TABLE runs ADD COLUMN x INTEGER REFERENCES words (id)", "columns"),
        ("CREATE INDEX x ON runs (printf('%.*c', 60000000, 'x'))", "an index that"),
        ("CREATE INDEX x ON runs (pid) WHERE length(printf('%.*c', 60000000, 'x'))", "an index"),
        ("CREATE UNIQUE INDEX x ON responses (request_id)", "an index that may refuse"),
    ],
)
def test_what_would_compute_or_refuse_what_we_write_is_refused(ours, script, cause):
    change(ours, script)
    for command in (*READS[:1], *WRITES):
        assert cause in told(crawler("--db", ours, *command), Exit.CONFIGURATION)[1]


SPELLINGS = st.tuples(
    st.sampled_from(["trigger", "Trigger", "TRIGGER", "table", "view", "index", "", "x"]),
    st.sampled_from(["spy", "Spy", "responses_are_kept", "Responses_Are_Kept", "results"]),
    st.sampled_from(["responses", "Responses", "words"]),
    st.sampled_from(
        ["CREATE TRIGGER ", "create trigger ", "CREATE  TRIGGER ", "CREATE/**/TRIGGER "]
    ),
    st.sampled_from(["{}", '"{}"', "[{}]", "`{}`", "main.{}"]),
)


@settings(max_examples=5_000 if LONG else 60)
@given(spelling=SPELLINGS, other_name=st.booleans())
def test_no_trigger_runs_that_the_comparison_lets_pass(spelling, other_name):
    """SQLite itself says what it would run: its authorizer is asked for each trigger."""
    kind, name, table, begin, quotes = spelling
    conn = empty_copy()
    body = " AFTER INSERT ON words BEGIN DELETE FROM clocks; END"
    sql = f"{begin}{quotes.format('spy' if other_name else name)}{body}"
    conn.execute("PRAGMA writable_schema = ON")
    row = (kind, name, table, sql)
    conn.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, 0, ?)", row)
    conn.execute("PRAGMA writable_schema = RESET")
    run = set()
    conn.set_authorizer(lambda *asked: run.add(asked[-1]) or sqlite3.SQLITE_OK)
    scripts = [known.sql for known in migrations()]
    with suppress(sqlite3.DatabaseError):  # a schema that SQLite can't read runs nothing
        conn.execute("INSERT INTO words (text, added_at_ms) VALUES ('x', 1)")
    conn.set_authorizer(None)
    runs_more = run - {None, "words_are_not_replaced"}
    try:
        require_our_schema(conn, Path("x.db"), scripts)
        refused = False
    except (CrawlerError, sqlite3.DatabaseError):
        refused = True
    conn.close()
    assert refused or not runs_more, (spelling, runs_more)


def test_a_trigger_that_comes_after_the_file_was_opened_does_not_run(ours):
    trigger = "CREATE TRIGGER spy AFTER INSERT ON words BEGIN DELETE FROM clocks; END"
    with writing(ours, 1) as writer:
        change(ours, trigger)
        with pytest.raises(CrawlerError) as caught, explained(ours):
            writer.run(put_word)
    assert (caught.value.cause, caught.value.exit_code) == ("not authorized", Exit.DATABASE)
    assert "a trigger that is not ours" in caught.value.hint
    assert rows(ours, "SELECT count(*) FROM words") == [(40,)]


def put_word(conn):
    conn.execute("INSERT INTO words (text, added_at_ms) VALUES ('one more', 1)")


def computing(path, rows, length):
    """Give a file a table with a column that nobody has stored: its rows are made from little."""
    column = "y NOT NULL AS (hex(zeroblob(1 + 0 * x)))"
    change(
        path,
        f"CREATE TABLE notes (x, {column});"
        f"INSERT INTO notes (x) SELECT id FROM words LIMIT {rows};"
        "PRAGMA writable_schema = ON;"
        f"UPDATE sqlite_schema SET sql = replace(sql, '(1 ', '({length} ') WHERE name = 'notes'",
    )


def test_a_small_file_that_computes_long_values_takes_no_time(ours, monkeypatch):
    monkeypatch.setattr(upgrade, "CHECKED_IN_PASSING_S", 0.1)
    computing(ours, 40, 30_000_000)
    before = time.thread_time()
    assert crawler("--db", ours, "status").code == Exit.DONE
    assert time.thread_time() - before < 1


def test_a_small_file_that_computes_long_values_takes_no_memory(ours):
    computing(ours, 1, 450_000_000)
    ran = crawler_process("--db", ours, "status", bound=("RLIMIT_AS", 700 * 2**20))
    assert ran.code in (Exit.DONE, Exit.CONFIGURATION), ran  # and not: no memory is left


@pytest.mark.parametrize("command", [("status",), ("add", "new", "--prompt", "p")])
def test_what_sqlite_may_use_is_bounded_by_what_there_is_to_read(ours, monkeypatch, command):
    bounds = []
    monkeypatch.setattr(database, "bound_memory", lambda _, most: bounds.append(most))
    size = ours.stat().st_size
    assert crawler("--db", ours, *command).code == Exit.DONE
    assert set(bounds) == {512 * 2**20 + 2 * size}


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("value", [DEEP, DEEP[99_500:-99_500], "[", "1"])
@pytest.mark.parametrize(
    ("column", "where"),
    [
        ("prompts SET params", "the parameters of 'p'"),
        ("runs SET options", "the options of run 1"),
        ("words SET fields", "the fields of 'w1'"),
    ],
)
def test_what_is_nested_without_end_is_told(ours, value, column, where):
    change(
        ours,
        "DROP TRIGGER prompts_are_immutable; DROP TRIGGER words_change_by_revisions;"
        "UPDATE runs SET ended_at_ms = NULL, reason = NULL;"
        f"UPDATE {column} = '{{\"x\": {value}}}'",
    )
    for command in (*READS[:2], *READS[4:], *WRITES):
        ran = crawler("--db", ours, *command)
        assert "Traceback" not in ran.err
        assert "RecursionError" not in ran.err
        if ran.code == Exit.UNEXPECTED and command[0] != "check":
            assert f"cause: {where} are " in ran.err


def test_what_a_person_adds_to_the_file_is_welcome(ours):
    change(
        ours,
        "CREATE VIEW mine AS SELECT word FROM results;"
        "CREATE INDEX mine_too ON words (added_at_ms);"
        "CREATE TABLE notes (x); ALTER TABLE words ADD COLUMN note TEXT;"
        "ALTER TABLE words ADD COLUMN level INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE words ADD COLUMN source TEXT DEFAULT 'me (and you)';",
    )
    for command in (*READS, *WRITES[:2]):
        assert crawler("--db", ours, *command).code == Exit.DONE, command
    assert crawler("--db", ours, "sql", "SELECT count(*) FROM mine").out.endswith("\n30\n")


def test_a_view_without_end_holds_up_nothing_but_its_own_question(ours):
    change(ours, f"DROP VIEW results; CREATE VIEW results AS {ENDLESS}")
    for command in [*READS[:2], *READS[3:], *WRITES[:2]]:
        assert crawler("--db", ours, *command).code == Exit.DONE, command
    told(crawler("--db", ours, "sql", "--timeout", "1", "SELECT max(x) FROM results"), Exit.USAGE)


def test_a_schema_that_is_no_text_is_told_as_damage(ours):
    content = ours.read_bytes()
    assert content.count(b"viewprogress") == 1
    content = content.replace(b"viewprogress", b"viewpr\xb3gress")
    ours.write_bytes(content.replace(b"CREATE VIEW progress", b"CREATE VIXW progress"))
    before = state_of(ours.parent)
    for command in (*READS, *WRITES):
        what, _, _ = told(crawler("--db", ours, *command), Exit.CONFIGURATION)
        assert what == f"{ours} can't be used"
        assert state_of(ours.parent) == before


def test_a_row_that_is_no_text_is_told_as_damage(ours):
    change(
        ours,
        "DROP TRIGGER responses_never_change;"
        "UPDATE responses SET text = CAST(x'41ff' AS TEXT) WHERE request_id = 2;",
    )
    for command in (("show", "w1"), ("export", "--prompt", "p")):
        ran = crawler("--db", ours, *command)
        assert ran.code == Exit.DATABASE
        assert "cause: Could not decode to UTF-8 column 'text'" in ran.err


damages = st.one_of(
    st.integers(0, 10**6),  # cut off there
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(100, 4_096), st.integers(0, 255)), min_size=1, max_size=3),
)


def damaged(content, damage):
    if isinstance(damage, int):
        return content[: damage % len(content)]
    content = bytearray(content)
    for at, byte in damage:
        content[at % len(content)] = byte
    return bytes(content)


@settings(max_examples=2_000 if LONG else 20)
@given(damage=damages)
def test_a_damaged_file_works_or_is_refused_as_it_is(tmp_path_factory, good, damage):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "x.db"
    content = damaged(good, damage)
    for command in (*READS, *WRITES):
        for left in folder.iterdir():
            left.unlink()
        path.write_bytes(content)
        ran = crawler("--db", path, *command)
        said = re.sub(r"^\{.*\}\n", "", ran.err, flags=re.MULTILINE)
        assert "Traceback" not in said
        if ran.code == Exit.CONFIGURATION:
            assert SHAPE.fullmatch(said), ran
            assert path.read_bytes() == content
        if ran.code == Exit.UNEXPECTED and command[0] != "check":
            assert re.search("no such|has no column|duplicate|malformed", said), ran


@pytest.mark.parametrize("umask", [0, 0o022])
def test_every_file_is_for_its_owner_alone(tmp_path, umask):
    before = os.umask(umask)
    try:
        db = made(tmp_path / "x.db")
        for form in ("csv", "jsonl"):
            crawler("--db", db, "export", "--prompt", "p", "-o", tmp_path / f"notes.{form}")
        conn = sqlite3.connect(db)
        conn.execute("UPDATE limits SET concurrency = 1")
        conn.commit()
        seen = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        conn.close()
    finally:
        os.umask(before)
    names = {"x.db", "x.db-wal", "x.db-shm", "x.db-lock", "notes.csv", "notes.jsonl"}
    assert seen == dict.fromkeys(names, 0o600)
