"""Database files: what is not ours stays as it is to the byte, what is ours is private, and a
schema is brought up to date wholly or not at all."""

import hashlib
import os
import random
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.errors import CrawlerError, Exit
from crawler.ledger.budget import ANYTHING
from crawler.ledger.check import check
from crawler.ledger.runs import Scope
from crawler.ledger.turn import turn
from crawler.policy import Policy
from crawler.storage import upgrade as migrate_module
from crawler.storage.database import reading, transact, writing
from crawler.storage.locks import WriteLock
from crawler.storage.upgrade import APPLICATION_ID, Migration, migrate, migrations, statements
from tests.program import crawler, state_of, told

SCRIPTS = Path(__file__).parents[2] / "migrations"
READS = [
    ("status",),
    ("show", "w1"),
    ("sql", "select 1"),
    ("export",),
    ("check",),
    ("limit",),
    ("prompt", "list"),
    ("prompt", "show", "study-notes"),
]
WRITES = [
    ("add", "new"),
    ("prompt", "add", "p", "--template", "{word}", "--provider", "scripted"),
    ("run", "--provider", "scripted"),
    ("retry",),
    ("cancel", "--all"),
    ("pause",),
    ("resume",),
    ("limit", "local", "--concurrency", "2"),
]


def ours(path):
    """Make a database of some pages."""
    listed = path.with_name("words.txt")
    listed.write_text("\n".join(f"w{n}" for n in range(2_000)))
    assert crawler("--db", path, "add", listed).code == Exit.DONE
    listed.unlink()
    path.with_name(f"{path.name}-lock").unlink()


def newer(path):
    ours(path)
    with sqlite3.connect(path) as conn:
        conn.execute("PRAGMA user_version = 99")
    conn.close()


def foreign(path):
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT)")
    conn.close()


def marked_by_another(path):
    with sqlite3.connect(path) as conn:
        conn.execute("PRAGMA application_id = 12345")
    conn.close()


def text(path):
    path.write_text("not a database\n" * 1_000)


def short_text(path):
    path.write_text("abase\n")


def truncated(path):
    ours(path)
    os.truncate(path, path.stat().st_size // 2)


def cut_in_a_page(path):
    ours(path)
    os.truncate(path, path.stat().st_size - 1_000)


def garbage_page(path):
    ours(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8192 * 4096)
        file.write(b"\xa5" * 4096)


def garbage_header(path):
    ours(path)
    with path.open("r+b") as file:
        file.write(b"\xa5" * 100)


def directory(path):
    path.mkdir()


def fifo(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (newer, "its schema is version 99, and this program knows"),
        (foreign, "it is the database of another program"),
        (marked_by_another, "it is the database of another program"),
        (text, "file is not a database"),
        (short_text, "file is not a database"),
        (truncated, "malformed|damaged"),
        (cut_in_a_page, "malformed|damaged"),
        (garbage_page, "malformed|damaged"),
        (garbage_header, "file is not a database"),
        (directory, "it is not a file"),
        (fifo, "it is not a file"),
    ],
)
def test_what_is_not_ours_to_write_is_refused_and_left_as_it_is(tmp_path, make, cause):
    path = tmp_path / "x.db"
    make(path)
    before = state_of(tmp_path)
    for command in (*READS, *WRITES):
        what, why, _ = told(crawler("--db", path, *command), Exit.CONFIGURATION)
        assert what == f"{path} can't be used", command
        assert re.search(cause, why), command
        assert state_of(tmp_path) == before, command


@pytest.mark.parametrize("command", READS)
def test_a_command_that_reads_never_makes_a_file(tmp_path, command):
    what, _, hint = told(crawler("--db", tmp_path / "x.db", *command), Exit.CONFIGURATION)
    assert what == f"there is no database at {tmp_path / 'x.db'}"
    assert hint == f"crawler --db {tmp_path / 'x.db'} add WORDS"
    assert state_of(tmp_path) == {}


@pytest.mark.parametrize("command", [command for command in WRITES if command[0] != "add"][1:])
def test_a_command_that_changes_what_is_there_makes_no_file_either(tmp_path, command):
    told(crawler("--db", tmp_path / "x.db", *command), Exit.CONFIGURATION)
    assert state_of(tmp_path) == {}


@pytest.mark.parametrize("command", READS)
def test_an_empty_file_is_empty_to_who_reads(tmp_path, command):
    (tmp_path / "x.db").touch()
    before = state_of(tmp_path)
    what, _, _ = told(crawler("--db", tmp_path / "x.db", *command), Exit.CONFIGURATION)
    assert what == f"the database at {tmp_path / 'x.db'} is empty"
    assert state_of(tmp_path) == before


def test_an_empty_file_is_taken_by_who_writes(tmp_path):
    path = tmp_path / "x.db"
    path.touch()
    assert crawler("--db", path, "add", "w").code == Exit.DONE
    assert crawler("--db", path, "check").code == Exit.DONE


UNFINISHED = """
import os, sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("PRAGMA cache_size = 1")  # so that the file is written to before the commit
conn.execute("BEGIN")
conn.execute(sys.argv[2])
conn.execute("WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
             " INSERT INTO t SELECT randomblob(3000) FROM n")
os._exit(0)
"""


def cut_short(path, sql):
    """Die within a transaction of which some is in the file, and a journal to undo it."""
    subprocess.run([sys.executable, "-c", UNFINISHED, path, sql], check=True)
    assert path.stat().st_size
    assert path.with_name(f"{path.name}-journal").stat().st_size


def test_a_file_that_nobody_came_to_make_is_an_empty_one(tmp_path):
    path = tmp_path / "x.db"
    cut_short(path, "CREATE TABLE t (x)")
    before = state_of(tmp_path)
    what, _, _ = told(crawler("--db", path, "status"), Exit.CONFIGURATION)
    assert what == f"the database at {path} is empty"
    assert state_of(tmp_path) == before
    assert crawler("--db", path, "add", "w").code == Exit.DONE
    assert crawler("--db", path, "check").code == Exit.DONE


def test_the_journal_of_another_program_is_left_to_it(tmp_path):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE t (x)")
    conn.close()
    cut_short(path, "DELETE FROM t")
    before = state_of(tmp_path)
    what, _, _ = told(crawler("--db", path, "add", "w"), Exit.CONFIGURATION)
    assert what == f"{path} can't be used"
    assert state_of(tmp_path) == before


def test_a_disk_that_fails_is_not_taken_for_another_kind_of_file(tmp_path):
    path = tmp_path / "x.db"
    ours(path)
    path.with_name("x.db-wal").mkdir()
    for command in (("status",), ("add", "w"), ("run",)):
        what, why, _ = told(crawler("--db", path, *command), Exit.DATABASE)
        assert (what, why) == (f"{path} can't be read or written", "unable to open database file")


def test_where_memory_ends_nothing_is_damaged_and_it_is_told(tmp_path):
    def too_much(conn):
        conn.execute("CREATE TABLE lost (x)")
        raise MemoryError

    path = tmp_path / "x.db"
    with pytest.raises(CrawlerError, match="can't be") as told_of, writing(path, 1) as writer:
        writer.run(too_much)
    assert (told_of.value.cause, told_of.value.exit_code) == ("no memory is left", Exit.DATABASE)
    with reading(path) as conn:
        assert conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'lost'").fetchall() == []


@pytest.mark.parametrize("name", ["a b.db", "a?mode=rw.db", "a#b.db", "%41.db", ":memory:", "é"])
def test_any_name_will_do(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert crawler("--db", name, "add", "w").code == Exit.DONE
    assert crawler("--db", name, "run", "--provider", "scripted").code == Exit.DONE
    assert crawler("--db", name, "sql", "--csv", "select word from results").out == "word\nw\n"
    assert state_of(tmp_path).keys() == {name, f"{name}-lock"}


def test_reading_changes_nothing(tmp_path):
    path = tmp_path / "x.db"
    ours(path)
    before = state_of(tmp_path)
    for command in READS:
        assert crawler("--db", path, *command).code == Exit.DONE, command
    assert state_of(tmp_path) == before


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    path = tmp_path / "no" / "such" / "folder" / "x.db"
    what, cause, _ = told(crawler("--db", path, "add", "w"), Exit.DATABASE)
    assert (what, cause) == (f"{path} can't be written", "No such file or directory")


def test_files_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "x.db"
    umask = os.umask(0)
    try:
        with writing(path, 0) as writer:
            writer.run(lambda conn: conn.execute("UPDATE limits SET concurrency = 1"))
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600, "x.db-lock": 0o600}


def schema_of(conn):
    names = [name for (name,) in conn.execute("SELECT name FROM sqlite_schema")]
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    (application_id,) = conn.execute("PRAGMA application_id").fetchone()
    return version, application_id, set(names)


@pytest.fixture
def empty():
    conn = sqlite3.connect(":memory:", isolation_level=None)
    yield conn
    conn.close()


@pytest.fixture
def known(monkeypatch):
    """Return a function that sets which migrations there are, instead of those of the package."""
    return lambda *these: monkeypatch.setattr(migrate_module, "migrations", lambda: list(these))


EXTRA = Migration(
    len(migrations()) + 1,
    "9999_extra.sql",
    "CREATE TABLE extra (x INTEGER) STRICT;\n"
    "INSERT INTO extra VALUES (1);\n"
    "UPDATE limits SET concurrency = 77;\n",
)
BROKEN = Migration(
    EXTRA.version + 1,
    "9999_broken.sql",
    "UPDATE limits SET concurrency = 99;\nINSERT INTO nowhere VALUES (1);\n",
)


def test_an_empty_database_gets_every_migration_and_our_mark(empty):
    migrate(empty, 5)
    version, application_id, names = schema_of(empty)
    assert (version, application_id) == (len(migrations()), APPLICATION_ID)
    assert names >= {"words", "prompts", "requests", "attempts", "results", "requests_fresh"}
    recorded = empty.execute("SELECT version, name, sha256, applied_at_ms FROM migrations")
    files = sorted(SCRIPTS.glob("[0-9]*.sql"))
    assert len(files) == version
    assert recorded.fetchall() == [
        (number, file.name, hashlib.sha256(file.read_bytes()).hexdigest(), 5)
        for number, file in enumerate(files, 1)
    ]


def test_what_is_up_to_date_is_left_alone(empty):
    migrate(empty, 5)
    before = list(empty.iterdump())
    migrate(empty, 6)
    assert list(empty.iterdump()) == before


def test_an_older_file_gets_what_it_lacks_and_keeps_its_rows(tmp_path, known):
    path = tmp_path / "x.db"
    crawler("--db", path, "add", "w")
    known(*migrations(), EXTRA)
    before = state_of(tmp_path)
    assert "older version" in told(crawler("--db", path, "status"), Exit.CONFIGURATION)[0]
    assert state_of(tmp_path) == before, "an older program may be at work on it"
    assert crawler("--db", path, "add", "v").code == Exit.DONE
    with reading(path) as conn:
        assert schema_of(conn)[0] == EXTRA.version
        assert conn.execute("SELECT x FROM extra").fetchall() == [(1,)]
        assert conn.execute("SELECT concurrency FROM limits").fetchall() == [(77,)]
        assert conn.execute("SELECT text FROM words ORDER BY id").fetchall() == [("w",), ("v",)]


def test_a_file_from_before_quotas_were_learned_opens_no_burst(empty, known, monkeypatch):
    """Its attempts have no numbers yet, and still they are in the window."""
    now_ms = 1_000_000_000_000
    known(*migrations()[:2])
    migrate(empty, now_ms)
    empty.executescript(f"""
        INSERT INTO limits (name, concurrency, per_minute, gate_strikes) VALUES ('q', 50, 8, 2);
        INSERT INTO prompts (name, version, template, provider, model, params, limit_id, current,
            created_at_ms) VALUES ('p', 1, '{{word}}', 'scripted', 'm', '{{}}', 1, 1, 1);
        INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms)
            VALUES (1, 'h', '0', {now_ms}, {now_ms});
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
            INSERT INTO words (text, added_at_ms) SELECT i, 1 FROM n;
        INSERT INTO requests (word_id, prompt_id) SELECT id, 1 FROM words;
        UPDATE requests SET state = 'leased', attempts = 1 WHERE id <= 8;
        INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms)
            SELECT id, 1, 1, 1, {now_ms} FROM requests WHERE id <= 8;
    """)
    monkeypatch.undo()
    migrate(empty, now_ms)
    clock = [now_ms + 30_000]
    scope = Scope(run_id=1, policy=Policy(), clock=lambda: clock[0], draw=random.randint)
    assert turn(empty, scope, [], ANYTHING).leases == []
    clock[0] = now_ms + 60_601
    assert len(turn(empty, scope, [], ANYTHING).leases) > 0
    assert [finding for finding in check(empty) if finding.broken] == []


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path, known):
    path = tmp_path / "x.db"
    crawler("--db", path, "add", "w")
    before = state_of(tmp_path)
    known(*migrations(), EXTRA, BROKEN)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"), writing(path, 1):
        pass
    after = state_of(tmp_path)
    assert {name: state[0] for name, state in after.items()} == {
        name: state[0] for name, state in before.items()
    }


def test_a_first_migration_that_fails_leaves_an_empty_database(empty, known):
    known(BROKEN._replace(version=1))
    with pytest.raises(sqlite3.OperationalError, match="limits"):
        transact(empty, WriteLock(None), migrate, 1)
    assert schema_of(empty) == (0, 0, set())


def test_a_migration_that_was_edited_is_refused(tmp_path, known):
    path = tmp_path / "x.db"
    crawler("--db", path, "add", "w")
    before = path.read_bytes()
    first, *others = migrations()
    known(first._replace(sql=f"{first.sql}\n-- edited"), *others)
    with pytest.raises(CrawlerError, match="not the one") as error, writing(path, 1):
        pass
    assert error.value.exit_code == Exit.CONFIGURATION
    assert path.read_bytes() == before


TRIGGER = """\
CREATE TRIGGER t AFTER INSERT ON a
BEGIN
    UPDATE a SET x = ';' WHERE x = 1;
    SELECT CASE WHEN 1 THEN 2 END;
END;
"""


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("", 0),
        ("-- only a remark; nothing more\n", 0),
        ("SELECT 1;\nSELECT\n 2;\n", 2),
        ("SELECT ';\n-- no end';\n", 1),
        ("CREATE TABLE a (x); -- why; and how\n", 1),
        (f"CREATE TABLE a (x);\n{TRIGGER}CREATE TABLE b (y);\n-- the end\n", 3),
    ],
)
def test_a_script_is_split_where_its_statements_end(empty, script, count):
    found = list(statements(script))
    assert len(found) == count
    for statement in found:
        empty.execute(statement)


def test_a_script_that_breaks_off_is_refused():
    with pytest.raises(AssertionError):
        list(statements("SELECT 1;\nSELECT 2\n"))


def test_nothing_of_a_real_script_is_lost():
    for migration in migrations():
        found = list(statements(migration.sql))
        assert "".join(found).strip() == migration.sql.strip()
        assert sum("CREATE TRIGGER" in statement for statement in found) == (
            migration.sql.count("CREATE TRIGGER")
        )


class Meanwhile(sqlite3.Connection):
    """A connection beside which a file is made, as soon as it has asked its first question."""

    path = None

    def execute(self, sql, *values):
        cursor = super().execute(sql, *values)
        if self.path and "PRAGMA" in sql:
            path, self.path = self.path, None
            with writing(path, 1):
                pass
        return cursor


def test_a_file_that_is_being_made_is_not_taken_for_a_foreign_one(tmp_path):
    path = tmp_path / "x.db"
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.close()
    conn = sqlite3.connect(path, factory=Meanwhile)
    conn.path = path
    assert migrate_module._version_of(conn, path) == 0
    conn.close()
    assert crawler("--db", path, "status").code == Exit.DONE


OPENER = "import sys; from crawler.cli import main; sys.stdin.readline(); main()"


def test_four_processes_may_make_a_file_at_once(tmp_path):
    for n in range(3):
        path = tmp_path / f"{n}.db"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", OPENER, "--db", str(path), "add", f"w{i}"],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(4)
        ]
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0, 0], said
        with reading(path) as conn:
            words = {text for (text,) in conn.execute("SELECT text FROM words")}
        assert words == {"w0", "w1", "w2", "w3"}
        assert crawler("--db", path, "check").code == Exit.DONE


def test_a_file_keeps_its_limits_and_what_they_have_learned(empty, known, monkeypatch):
    known(*migrations()[:6])
    migrate(empty, 1)
    empty.executescript("""
        INSERT INTO limits
            (name, concurrency, per_minute, rate, plateau, bursting, tat_us, doubling)
        VALUES ('even', 50, NULL, 300, 350, 0, 77, 0), ('window', 7, 20, 590, 590, 1, 5, 0),
               ('young', 1, NULL, 80, 80, 0, 9, 1), ('new', 10, 60, NULL, 0, 1, 0, 0);
    """)
    monkeypatch.undo()
    migrate(empty, 2)
    kept = empty.execute(
        "SELECT name, concurrency, per_minute, rate, plateau, tat_us FROM limits ORDER BY id"
    ).fetchall()
    assert kept == [
        ("even", 50, None, 300, 350, 77),
        ("window", 7, 20, 590, 590, None),
        ("young", 1, None, 80, 0, 9),
        ("new", 10, 60, None, 0, None),
    ]
    assert [finding for finding in check(empty) if finding.broken] == []
