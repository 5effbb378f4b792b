"""A file that somebody else has made or damaged is refused as it is, or is harmless."""

import os
import re
import sqlite3
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import Exit
from tests.conftest import LONG
from tests.program import SHAPE, crawler, state_of, told

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


def test_what_a_person_adds_to_the_file_is_welcome(ours):
    change(
        ours,
        "CREATE VIEW mine AS SELECT word FROM results;"
        "CREATE INDEX mine_too ON words (added_at_ms);"
        "CREATE TABLE notes (x); ALTER TABLE words ADD COLUMN note TEXT;",
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
