"""`crawler sql` answers questions and does nothing else, whatever is typed."""

import json
import sqlite3
import subprocess
import sys
import tempfile
from typing import NamedTuple

import pytest

from crawler.cli.sql import restrict
from crawler.errors import Exit
from crawler.storage.database import reading
from tests.conftest import DAY, LONG
from tests.program import crawler, crawler_process, state_of, told

ENDLESS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A database with an answer, a failure and a word that is still to be asked about."""
    folder = tmp_path_factory.mktemp("sandbox")
    path = folder / "x.db"
    spec = ["--template", "About {word}", "--provider", "scripted"]
    crawler("--db", path, "prompt", "add", "p", *spec)
    crawler("--db", path, "add", "cat", "--prompt", "p")
    assert crawler("--db", path, "run").code == Exit.DONE
    crawler("--db", path, "prompt", "add", "q", *spec, "--param", 'errors={"blocked": 1}')
    crawler("--db", path, "add", "dog", "--prompt", "q")
    assert crawler("--db", path, "run").code == Exit.SOME_FAILED
    crawler("--db", path, "add", "emu", "--prompt", "q")
    with sqlite3.connect(folder / "other.db") as conn:
        conn.execute("CREATE TABLE secrets (x)")
    conn.close()
    return path


PROBES = [
    "INSERT INTO words (text, added_at_ms) VALUES ('x', 1)",
    "INSERT INTO words (text, added_at_ms) VALUES ('x', 1) RETURNING id",
    "REPLACE INTO words (text, added_at_ms) VALUES ('x', 1)",
    "WITH w AS (SELECT 1) INSERT INTO words (text, added_at_ms) SELECT 'x', 1 FROM w",
    "UPDATE words SET text = 'x'",
    "UPDATE limits SET paused_at_ms = 1",
    "DELETE FROM words",
    "DROP TABLE words",
    "DROP VIEW results",
    "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t (x)",
    "CREATE TEMP TABLE t AS SELECT * FROM words",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE VIRTUAL TABLE t USING fts5 (x)",
    "CREATE INDEX i ON words (added_at_ms)",
    "CREATE TEMP TRIGGER t AFTER INSERT ON words BEGIN SELECT 1; END",
    "ALTER TABLE words RENAME TO w",
    "ATTACH 'new.db' AS a",
    "ATTACH 'other.db' AS a",
    "ATTACH 'file:other.db?mode=rwc' AS a",
    "ATTACH ':memory:' AS a",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "SAVEPOINT s",
    "PRAGMA query_only = OFF",
    "PRAGMA QUERY_ONLY(0)",
    "PRAGMA writable_schema = ON",
    "PRAGMA trusted_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA user_version = 99",
    "PRAGMA application_id = 1",
    "PRAGMA temp_store_directory = '/'",
    "PRAGMA mmap_size = 1000000000",
    "PRAGMA optimize",
    "PRAGMA shrink_memory",
    "SELECT * FROM pragma_journal_mode('delete')",
    "SELECT * FROM pragma_wal_checkpoint('truncate')",
    "SELECT load_extension('evil')",
    "SELECT LOAD_EXTENSION('evil', 'init')",
    "SELECT readfile('other.db')",
    "SELECT writefile('new.db', 'x')",
    "SELECT edit('x')",
    "SELECT fts3_tokenizer('x')",
    "SELECT length(zeroblob(600000000))",
    "SELECT length(hex(zeroblob(90000000)))",
    "SELECT length(replace(hex(zeroblob(10000000)), '0', '0123456789abcdef'))",
    "SELECT length(group_concat(a)) FROM (SELECT zeroblob(60000000) AS a FROM words)",
    "SELECT 1; DROP TABLE words",
    "SELECT 1; SELECT 2",
    "EXPLAIN DELETE FROM words",
    "SELECT nonsense",
    "SELECT",
    "\0",
    "SELECT '\udcff'",
    ".dump",
    ".shell true",
    "COMMIT",
    "ROLLBACK",
    "RELEASE s",
    "CREATE TEMP TRIGGER t BEFORE DELETE ON requests BEGIN SELECT 1; END",
    "ATTACH 'file:crawler.db?mode=memory&cache=shared' AS a",
    "DETACH temp",
    "PRAGMA data_store_directory = '/'",
    "PRAGMA hard_heap_limit = 0",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA main.page_size = 512",
    "PRAGMA schema_version = 1",
    "PRAGMA legacy_alter_table = ON",
    "PRAGMA cell_size_check(0)",
    "PRAGMA incremental_vacuum",
    "PRAGMA integrity_check",
    "SELECT * FROM pragma_query_only(0)",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM dbstat",
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM sqlite_stmt",
    "SELECT * FROM fsdir('/')",
    "SELECT ?",
    "SELECT :name",
    "SELECT '\0'",
    "SELECT CAST(x'ff' AS TEXT)",
    "/* SELECT 1 */ DELETE FROM words",
    " -- SELECT 1\nDELETE FROM words",
    "SELECT 1 WHERE (DELETE FROM words)",
    f"SELECT {'(' * 5_000}1{')' * 5_000}",
    f"SELECT 1{'+1' * 5_000}",
    f"SELECT 1 IN ({','.join(['1'] * 600_000)})",
    f"SELECT {','.join(['1'] * 3_000)}",
    "SELECT json_group_array(replace(hex(zeroblob(10000000)), '0', 'x')) FROM json_each('[1,2,3]')",
    "SELECT json_array_length(printf('%.*c', 1000000, '['))",
    "SELECT randomblob(60000000)",
    "SELECT printf('%s', zeroblob(60000000))",
    "SELECT 'a' LIKE printf('%.*c', 100000, '%')",
]


@pytest.mark.parametrize("query", PROBES)
def test_what_is_no_question_is_refused(db, monkeypatch, query):
    monkeypatch.chdir(db.parent)
    before = state_of(db.parent)
    what, _, _ = told(crawler("--db", db, "sql", query), Exit.USAGE)
    assert what == "the query can't be answered"
    assert state_of(db.parent) == before


@pytest.mark.parametrize("name", ["readfile", "WriteFile", "edit", "load_extension"])
def test_a_function_that_reaches_out_is_forbidden_even_where_there_is_one(name):
    conn = sqlite3.connect(":memory:")
    conn.create_function(name, 1, lambda value: "reached out")
    assert conn.execute(f"SELECT {name}('x')").fetchone() == ("reached out",)
    restrict(conn, 10)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        conn.execute(f"SELECT {name}('x')")
    conn.close()


@pytest.fixture
def hostile(tmp_path):
    """A database whose maker has put functions in its views, and one of ours beside them."""
    path = tmp_path / "hostile.db"
    schema = '{"type": "object", "properties": {"definition": {}}}'
    spec = ["--template", "{word}", "--provider", "scripted", "--schema", schema]
    crawler("--db", path, "prompt", "add", "study-notes", *spec)
    crawler("--db", path, "add", "cat", "--prompt", "study-notes")
    assert crawler("--db", path, "run").code == Exit.DONE
    with sqlite3.connect(path) as conn:
        for number, function in enumerate(HOSTILE):
            conn.execute(f"CREATE VIEW evil{number} AS SELECT {function} AS x")
        conn.execute("DROP VIEW results")
        conn.execute("CREATE VIEW results AS SELECT writefile('new.txt', 'x') AS word")
    conn.close()
    return path


HOSTILE = [
    "load_extension('evil')",
    "readfile('hostile.db')",
    "writefile('new.txt', 'x')",
    "edit('x')",
    "fts3_tokenizer('simple')",
    "json_extract('{}', '$')",
    "(SELECT value FROM json_each(readfile('hostile.db')))",
    "(SELECT journal_mode FROM pragma_journal_mode('delete'))",
]


@pytest.mark.parametrize("view", [*(f"evil{number}" for number in range(len(HOSTILE))), "results"])
def test_the_views_of_a_hostile_file_can_do_no_more_than_a_question(hostile, monkeypatch, view):
    monkeypatch.chdir(hostile.parent)
    before = state_of(hostile.parent)
    told(crawler("--db", hostile, "sql", f"SELECT * FROM {view}"), Exit.USAGE)
    assert state_of(hostile.parent) == before


def test_a_view_of_a_prompt_can_be_asked_though_the_file_is_not_trusted(hostile):
    with reading(hostile) as conn:
        assert conn.execute("PRAGMA trusted_schema").fetchone() == (0,)
    ran = crawler("--db", hostile, "sql", "--csv", "SELECT word, definition FROM study_notes")
    assert (ran.code, ran.err) == (Exit.DONE, "")
    assert ran.out.startswith("word,definition\ncat,a word that")


def test_a_reading_connection_cannot_write_twice_over(db):
    write = "INSERT INTO words (text, added_at_ms) VALUES ('x', 1)"
    with reading(db) as conn:
        assert conn.execute("PRAGMA query_only").fetchone() == (1,)
        assert conn.execute("PRAGMA trusted_schema").fetchone() == (0,)
        conn.execute("PRAGMA query_only = OFF")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            conn.execute(write)


WITHOUT_END = (
    f"{ENDLESS} SELECT count(*) FROM c",
    f"{ENDLESS} SELECT x FROM c WHERE x < 0",
    f"{ENDLESS} SELECT x FROM c ORDER BY -x LIMIT 1",
    f"SELECT max(x) FROM words, ({ENDLESS} SELECT x FROM c)",
)
"""Each takes a second of the processor."""


@pytest.mark.parametrize("query", WITHOUT_END if LONG else WITHOUT_END[DAY % 2 :: 2])
def test_a_question_without_end_ends(db, query):
    """In a process of its own: where SQLite does not come back, the program ends its process."""
    before = state_of(db.parent)
    told(crawler_process("--db", db, "sql", "--timeout", "1", query), Exit.USAGE)
    assert state_of(db.parent) == before


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_answer_without_end_does_not_fill_the_memory(db, form):
    query = f"{ENDLESS} SELECT hex(zeroblob(5000000)) FROM c"
    ran = crawler_process("--db", db, "sql", *form, query, bound=("RLIMIT_AS", 2**30))
    assert ran.code == Exit.USAGE
    assert ran.err.startswith("error: the answer is too long\n")
    assert ran.out == ""


@pytest.mark.parametrize("form", ["--csv", "--jsonl"])
def test_a_long_answer_can_be_written_as_it_comes(db, monkeypatch, form):
    monkeypatch.setattr("crawler.cli.sql.LONGEST_ANSWER", 1_000)
    query = "SELECT a.id FROM words a, words b, words c"
    assert crawler("--db", db, "sql", form, query).code == Exit.DONE
    _, _, hint = told(crawler("--db", db, "sql", query), Exit.USAGE)
    assert form in hint


MANY = ",".join(f"printf('%.*c', 40000000, 'a') || char(128512) || {n}" for n in range(60))
LAUGHS = ", ".join(f"c{n} AS (SELECT a.x FROM c{n - 1} a, c{n - 1} b)" for n in range(1, 30))
HUGE = "printf('%.*c', 20000000, 'a')"


@pytest.mark.parametrize(
    ("timeout_s", "query", "cause"),
    [
        (60, f"SELECT {MANY}", "it needs too much memory"),
        (
            60,
            f"WITH c0 AS (SELECT 1 AS x), {LAUGHS} SELECT count(*) FROM c29",
            "it needs too much memory",
        ),
        # One step of SQLite, of hours.
        (1, f"SELECT instr({HUGE} || {HUGE}, {HUGE} || 'b')", "its time is over"),
        (
            1,
            f"SELECT {HUGE} LIKE '%' || printf('%.*c', 40000, 'a') || 'b'",
            "its time is over",
        ),
    ],
    ids=["many columns", "a billion laughs", "instr", "like"],
)
def test_a_bomb_is_bounded_in_time_and_memory(db, timeout_s, query, cause):
    """In time of the processor: on a machine that has other work to do it takes as much of that."""
    before = state_of(db.parent)
    code, out, err, used = measured("--db", db, "sql", "--timeout", timeout_s, query)
    assert (code, out) == (Exit.USAGE, "")
    assert err.startswith(f"error: the query can't be answered\n  cause: {cause}\n  hint: ")
    assert used.cpu_s < 20
    assert used.memory < 2**30
    assert state_of(db.parent) == before


def test_a_value_of_many_lines_is_not_multiplied_by_the_length_of_its_name(db):
    lines = "replace(hex(zeroblob(20000)), '00', '.' || char(10))"
    code, out, _, used = measured("--db", db, "sql", f'SELECT {lines} AS "{"n" * 5_000}"')
    assert (code, out.count("\n")) == (Exit.DONE, 20_001)
    assert used.memory < 150e6


# In between, so that what is measured is not the memory of the tests: a child begins with the
# record of whoever has started it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=file)
sys.exit(code)
"""
KIB = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`, in bytes."""


class Used(NamedTuple):
    """What a program has used."""

    memory: int
    """The most that it had, in bytes."""
    cpu_s: float


def measured(*args):
    """Run the program; return its code, what it printed (blanks at the begin of lines apart), and
    what it has used."""
    with tempfile.NamedTemporaryFile("r") as most, tempfile.TemporaryFile() as err:
        program = [sys.executable, "-m", "crawler", *map(str, args)]
        running = subprocess.Popen(
            [sys.executable, "-c", MEASURE, most.name, *program],
            stdout=subprocess.PIPE,
            stderr=err,
        )
        with running.stdout:
            out = "".join(line.decode().lstrip(" ") for line in running.stdout)
        code = running.wait()
        err.seek(0)
        memory, cpu_s = most.read().split()
        return code, out, err.read().decode(), Used(int(memory) * KIB, float(cpu_s))


def test_a_text_that_would_be_huge_is_not_made(db):
    ran = crawler("--db", db, "sql", "--csv", "SELECT length(printf('%.*c', 150000000, 'x')) AS n")
    assert ran == (Exit.DONE, 'n\n""\n', "")


@pytest.mark.parametrize(
    "view", ["results", "failures", "progress", "throughput_per_minute", "limit_history"]
)
@pytest.mark.parametrize("form", ["--json", "--csv", "--jsonl"])
def test_every_view_can_be_asked(db, view, form):
    ran = crawler("--db", db, "sql", form, f"SELECT * FROM {view}")
    assert (ran.code, ran.err) == (Exit.DONE, "")
    assert ran.out.count("\n") >= 2 or form == "--jsonl" or view == "limit_history"


def test_the_views_tell_what_became_of_the_words(db):
    def ask(query):
        return json.loads(crawler("--db", db, "sql", "--json", query).out)

    [answer] = ask("SELECT word, text, prompt, attempts, started_at FROM results")
    assert answer["text"].startswith("Cat: ")
    assert (answer["word"], answer["prompt"], answer["attempts"]) == ("cat", "p", 1)
    assert answer["started_at"].endswith("Z")
    [failure] = ask("SELECT word, outcome, reason FROM failures")
    assert failure == {"word": "dog", "outcome": "blocked", "reason": "as scripted"}
    assert ask("SELECT prompt, requests, pending, succeeded, failed FROM progress") == [
        {"prompt": "p", "requests": 1, "pending": 0, "succeeded": 1, "failed": 0},
        {"prompt": "q", "requests": 2, "pending": 1, "succeeded": 0, "failed": 1},
    ]
    minutes = ask("SELECT sum(started) AS started, sum(failed) AS f FROM throughput_per_minute")
    assert minutes == [{"started": 2, "f": 0}]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("PRAGMA table_info(words)", "id"),
        ("PRAGMA table_xinfo(results)", "word"),
        ("SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY 1", "failures"),
        ("SELECT text FROM words WHERE text LIKE 'c%' OR text REGEXP 'x'", None),
        ("SELECT upper(text), json_object('a', id) FROM words ORDER BY id", "CAT"),
        ("SELECT count(*) OVER () FROM words LIMIT 1", "3"),
        ("  -- a remark\nSELECT 'x'", "x"),
        ("EXPLAIN QUERY PLAN SELECT * FROM words", "SCAN words"),
        ("VALUES (1)", "1"),
    ],
)
def test_a_question_may_use_what_sql_has(db, query, first):
    ran = crawler("--db", db, "sql", query)
    if first is None:
        told(ran, Exit.USAGE)
        return
    assert (ran.code, ran.err) == (Exit.DONE, "")
    assert first in ran.out.split("\n", 1)[1]


def test_a_question_may_come_on_standard_input(db):
    assert crawler("--db", db, "sql", "--csv", "-", stdin="SELECT 1 AS n").out == "n\n1\n"


def test_nothing_asked_is_nothing_answered(db):
    assert crawler("--db", db, "sql", "") == (Exit.DONE, "", "")
