"""A file from before words could be removed and asked again keeps all that it has."""

import sqlite3
from unittest.mock import patch

import pytest

from crawler.ledger.check import check
from crawler.ledger.reviews import review
from crawler.ledger.selectors import Selectors, chosen
from crawler.storage import upgrade

BEFORE = 12
PROMPT = (
    "INSERT INTO prompts (id, name, version, template, provider, model, params, limit_id, current,"
    " created_at_ms) VALUES"
)
VIEW = (
    "CREATE VIEW q AS SELECT word, (SELECT value FROM json_each(request_details.text)"
    " WHERE key = 'x') AS x FROM request_details WHERE prompt_id = {} AND text IS NOT NULL"
    " ORDER BY request_id"
)


def put(conn, word_id, prompt_id, state):
    """Put a request in a state on record as a program of that time did."""
    request_id = conn.execute(
        "INSERT INTO requests (word_id, prompt_id) VALUES (?, ?)", (word_id, prompt_id)
    ).lastrowid
    if state == "cancelled":
        conn.execute("UPDATE requests SET state = 'cancelled' WHERE id = ?", (request_id,))
    if state in ("pending", "cancelled"):
        return
    conn.execute("UPDATE limits SET started = started + 1")
    conn.execute("UPDATE requests SET state = 'leased', attempts = 1 WHERE id = ?", (request_id,))
    conn.execute(
        "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms)"
        " VALUES (?, 1, 1, 1, 1)",
        (request_id,),
    )
    if state == "leased":
        return
    outcome = "succeeded" if state == "succeeded" else "blocked"
    conn.execute(
        "UPDATE attempts SET finished_at_ms = 2, outcome = ? WHERE request_id = ?",
        (outcome, request_id),
    )
    if state == "succeeded":
        answer = f'{{"x": "{word_id} by {prompt_id}"}}'
        conn.execute(
            "INSERT INTO responses (request_id, number, text) VALUES (?, 1, ?)",
            (request_id, answer),
        )
    conn.execute("UPDATE requests SET state = ? WHERE id = ?", (state, request_id))


@pytest.fixture
def old():
    """A file of the version before, with a limit and a run."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    older = upgrade.migrations()[:BEFORE]
    with patch.object(upgrade, "migrations", lambda: older):
        upgrade.migrate(conn, 0)
    conn.execute("INSERT INTO limits (name, concurrency) VALUES ('quota', 1)")
    conn.execute(
        "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms)"
        " VALUES (1, 'h', '0', 1, 1)"
    )
    yield conn
    conn.close()


def migrate(conn):
    with conn:
        conn.execute("BEGIN")
        upgrade.migrate(conn, 0)
    assert [finding for finding in check(conn) if finding.broken] == []
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


STATES = ("pending", "leased", "succeeded", "failed", "cancelled", None)


@pytest.mark.parametrize("current", [1, 2])
def test_of_several_versions_the_current_one_stands_and_every_answer_is_kept(old, current):
    """Each state of a word under one version, with each under another, or with none."""
    for version in (1, 2):
        old.execute(
            f"{PROMPT} (?, 'q', ?, ?, 's', 'm', '{{}}', 1, ?, 1)",
            (
                version,
                version,
                f"{version} {{word}}",
                version == current,
            ),
        )
    old.execute(VIEW.format(current))
    old.execute("INSERT INTO prompt_views (name, prompt) VALUES ('q', 'q')")
    pairs = [(one, two) for one in STATES for two in STATES if one or two]
    for word_id, pair in enumerate(pairs, 1):
        old.execute("INSERT INTO words (text, added_at_ms) VALUES (?, 1)", (f"w{word_id}",))
        for version, state in enumerate(pair, 1):
            if state:
                put(old, word_id, version, state)
    answers = old.execute("SELECT * FROM responses").fetchall()
    known = ", ".join(name for _, name, *_ in old.execute("PRAGMA table_info(attempts)"))
    attempts = old.execute(f"SELECT {known} FROM attempts").fetchall()

    migrate(old)

    assert old.execute("SELECT * FROM responses").fetchall() == answers
    assert old.execute(f"SELECT {known} FROM attempts").fetchall() == attempts
    shown = dict(old.execute("SELECT word, version FROM results"))
    standing = dict(
        old.execute(
            "SELECT text, state FROM requests JOIN words ON words.id = word_id WHERE superseded = 0"
        )
    )
    asked_by = dict(old.execute("SELECT word, asked_by_id FROM list_details"))
    viewed = {word for (word,) in old.execute("SELECT word FROM q")}
    for word_id, (one, two) in enumerate(pairs, 1):
        own, other = (one, two) if current == 1 else (two, one)
        word = f"w{word_id}"
        assert standing[word] == (own or other)
        if own is None and other == "pending":
            assert asked_by[word] == current, "the current one asks it"
        answered = current if own == "succeeded" else 3 - current if other == "succeeded" else None
        assert shown.get(word) == answered, (one, two)
        assert (word in viewed) == (answered == current)
    of_stale = "SELECT standing_id FROM list_details WHERE stale = 1 ORDER BY place"
    found = chosen(old, current, Selectors(is_stale=True))
    assert [request.id for request in found] == [row for (row,) in old.execute(of_stale)] != []
    assert review(old, [request.id for request in found], "bad", None, "me", 1) == len(found)
    assert chosen(old, current, Selectors(review="bad")) == found


def test_no_word_is_put_twice_on_the_list_of_a_version(old):
    old.execute(f"{PROMPT} (1, 'q', 1, 't', 's', 'm', '{{}}', 1, 1, 1)")
    old.execute("INSERT INTO words (text, added_at_ms) VALUES ('a', 1)")
    put(old, 1, 1, "succeeded")
    migrate(old)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        old.execute("INSERT INTO requests (word_id, prompt_id) VALUES (1, 1)")
    found = old.execute(
        "EXPLAIN QUERY PLAN SELECT 1 FROM requests INDEXED BY requests_of_word"
        " WHERE word_id = 1 AND prompt_id = 1 AND superseded = 0"
    ).fetchall()
    assert "requests_of_word (word_id=? AND prompt_id=?)" in found[0][3]


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_file_of_before_is_whole_where_its_migration_is_broken_off(tmp_path, old, nth):
    """It ends at each of the new migrations, after all of its statements."""
    old.execute(f"{PROMPT} (1, 'q', 1, 't', 's', 'm', '{{}}', 1, 1, 1)")
    for word_id, state in enumerate(("pending", "succeeded", "failed", "cancelled"), 1):
        old.execute("INSERT INTO words (text, added_at_ms) VALUES (?, 1)", (f"w{word_id}",))
        put(old, word_id, 1, state)
    path = tmp_path / "c.db"
    conn = sqlite3.connect(path, isolation_level=None)
    old.backup(conn)
    before = list(conn.iterdump())
    calls = 0

    def broken_off(_name):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise KeyboardInterrupt

    conn.execute("BEGIN IMMEDIATE")
    with patch.object(upgrade, "failpoint", broken_off), pytest.raises(KeyboardInterrupt):
        upgrade.migrate(conn, 0)
    conn.close()
    conn = sqlite3.connect(path, isolation_level=None)
    assert list(conn.iterdump()) == before
    assert conn.execute("PRAGMA user_version").fetchone() == (BEFORE,)
    migrate(conn)
    assert conn.execute("SELECT count(*) FROM results").fetchone() == (1,)
    conn.close()
