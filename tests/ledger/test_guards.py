"""What the schema refuses, each condition by itself: plain `sqlite3` can't break the file either.

Each statement breaks one rule and keeps all others; what is allowed beside it is tried as well.
"""

import sqlite3

import pytest

from crawler.states import Outcome
from tests.ledger.several import Several

ATTEMPT = "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms"
LIMIT = "INSERT INTO limits (name, concurrency"
PROMPT = (
    "INSERT INTO prompts (name, version, template, provider, model, params, limit_id, current,"
    " created_at_ms) VALUES"
)
RUN = "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms, ended_at_ms, reason)"
NOW_MS = 1_000_000_000_000


@pytest.fixture
def conn():
    """Requests of `p`: 1 succeeded, 2 failed, 3 to 5 in flight, 6 pending after a failure.

    Request 7 asks `q` about the word of 1; word 7 is asked about by none.
    """
    ledger = Several()
    ledger.ask(ledger.p, "abcdef")
    good, bad, _, _, _, again = ledger.turn().leases
    ledger.turn(
        ledger.finish(good, Outcome.SUCCEEDED),
        ledger.finish(bad, Outcome.BLOCKED, text="draft"),
        ledger.finish(again, Outcome.TRANSIENT),
        budget=0,
    )
    ledger.ask(ledger.q, "a")
    ledger.conn.execute("INSERT INTO words (text, fields, added_at_ms) VALUES ('g', '{}', 1)")
    yield ledger.conn
    ledger.conn.close()


def leased(conn, request_id, attempts):
    """Put a request into the state of one that is in flight, without its attempt."""
    conn.execute(
        "UPDATE requests SET state = 'leased', attempts = ? WHERE id = ?", (attempts, request_id)
    )


def test_the_file_is_as_the_tests_take_it_to_be(conn):
    found = conn.execute("SELECT id, state, attempts, failures FROM requests").fetchall()
    assert found == [
        (1, "succeeded", 1, 0),
        (2, "failed", 1, 0),
        (3, "leased", 1, 0),
        (4, "leased", 1, 0),
        (5, "leased", 1, 0),
        (6, "pending", 1, 1),
        (7, "pending", 0, 0),
    ]


REFUSED = [
    # words
    "INSERT INTO words (text, added_at_ms) VALUES ('', 1)",
    "INSERT INTO words (text, added_at_ms) VALUES ('a', 1)",
    "INSERT INTO words (text, added_at_ms) VALUES (NULL, 1)",
    "INSERT INTO words (text, added_at_ms) VALUES ('h', NULL)",
    "INSERT INTO words (text, fields, added_at_ms) VALUES ('h', '', 1)",
    "INSERT INTO words (text, fields, added_at_ms) VALUES ('h', '[]', 1)",
    "INSERT INTO words (text, fields, added_at_ms) VALUES ('h', '{', 1)",
    "INSERT INTO words (text, fields, added_at_ms) VALUES ('h', '}', 1)",
    "INSERT INTO words (text, added_at_ms) VALUES ('h', 'soon')",
    "UPDATE words SET id = 99 WHERE id = 7",
    "UPDATE words SET text = 'x' WHERE id = 7",
    "UPDATE words SET added_at_ms = 2 WHERE id = 7",
    "UPDATE words SET fields = '{\"a\": 1}' WHERE id = 7",
    "UPDATE words SET fields = NULL WHERE id = 7",
    "UPDATE words SET fields = '{\"a\": 0}' WHERE id = 1",
    "DELETE FROM words WHERE id = 1",
    # limits
    f"{LIMIT}) VALUES ('', 1)",
    f"{LIMIT}) VALUES ('quota', 1)",
    f"{LIMIT}) VALUES ('l', 0)",
    f"{LIMIT}) VALUES ('l', -1)",
    *(
        f"{LIMIT}, {column}) VALUES ('l', 1, {value})"
        for column, value in [
            ("per_minute", "0"),
            ("per_minute", "-1"),
            ("per_minute", "1.5"),
            ("tokens_per_minute", "0"),
            ("tokens_per_minute", "-1"),
            ("gate_strikes", "-1"),
            ("adaptive", "2"),
            ("adaptive", "-1"),
            ("width", "0"),
            ("told_per_minute", "0"),
            ("told_tokens_per_minute", "0"),
            ("gate_cause", "'pause'"),
            ("gate_cause", "''"),
            ("started", "NULL"),
            ("plateau", "NULL"),
            ("noise", "NULL"),
            ("rate", "'fast'"),
        ]
    ),
    "DELETE FROM limits WHERE name = 'other'",
    # prompts
    f"{PROMPT} ('', 1, 't', 's', 'm', '{{}}', 1, 0, 1)",
    f"{PROMPT} ('n', 0, 't', 's', 'm', '{{}}', 1, 0, 1)",
    f"{PROMPT} ('n', -1, 't', 's', 'm', '{{}}', 1, 0, 1)",
    f"{PROMPT} ('n', 1, 't', 's', 'm', '[]', 1, 0, 1)",
    f"{PROMPT} ('n', 1, 't', 's', 'm', '', 1, 0, 1)",
    f"{PROMPT} ('n', 1, 't', 's', 'm', '{{}}', 99, 0, 1)",
    f"{PROMPT} ('n', 1, 't', 's', 'm', '{{}}', 1, 2, 1)",
    f"{PROMPT} ('n', 1, 't', 's', 'm', '{{}}', 1, -1, 1)",
    f"{PROMPT} ('p', 1, 'other', 's', 'm', '{{}}', 1, 0, 1)",
    f"{PROMPT} ('p', 2, 'About {{word}}', 'scripted', 'm', '{{}}', 1, 0, 1)",
    f"{PROMPT} ('p', 2, 'other', 's', 'm', '{{}}', 1, 1, 1)",
    *(
        f"UPDATE prompts SET {change} WHERE id = 3"
        for change in [
            "id = 99",
            "name = 'n'",
            "version = 7",
            "template = 'x'",
            "provider = 'x'",
            "model = 'x'",
            "params = '{\"a\": 1}'",
            "limit_id = 1",
            "created_at_ms = 2",
        ]
    ),
    "DELETE FROM prompts WHERE id = 1",
    # runs
    f"{RUN} VALUES (1, 'h', '0', 1, 1, 2, NULL)",
    f"{RUN} VALUES (1, 'h', '0', 1, 1, NULL, 'died')",
    "UPDATE runs SET ended_at_ms = 2",
    "UPDATE runs SET reason = 'died'",
    "DELETE FROM runs",
    # requests
    "INSERT INTO requests (word_id, prompt_id) VALUES (1, 1)",
    "INSERT INTO requests (word_id, prompt_id) VALUES (99, 1)",
    "INSERT INTO requests (word_id, prompt_id) VALUES (7, 99)",
    "INSERT INTO requests (word_id, prompt_id, state) VALUES (7, 1, 'leased')",
    "INSERT INTO requests (word_id, prompt_id, state) VALUES (7, 1, 'succeeded')",
    "INSERT INTO requests (word_id, prompt_id, state) VALUES (7, 1, 'failed')",
    "INSERT INTO requests (word_id, prompt_id, state) VALUES (7, 1, 'cancelled')",
    "INSERT INTO requests (word_id, prompt_id, attempts) VALUES (7, 1, 1)",
    "INSERT INTO requests (word_id, prompt_id, failures) VALUES (7, 1, 1)",
    "INSERT INTO requests (word_id, prompt_id, cancelling) VALUES (7, 1, 2)",
    "INSERT OR REPLACE INTO requests (id, word_id, prompt_id) VALUES (5, 7, 1)",
    "INSERT INTO requests (word_id, prompt_id, superseded) VALUES (7, 1, 1)",
    "INSERT INTO requests (word_id, prompt_id, removed_at_ms) VALUES (7, 1, 1)",
    "INSERT INTO requests (word_id, prompt_id, replaces) VALUES (7, 1, 1)",
    "INSERT INTO requests (word_id, prompt_id, replaces) VALUES (7, 1, 99)",
    "INSERT INTO requests (word_id, prompt_id, replaces) VALUES (2, 3, 2)",
    "UPDATE requests SET superseded = 1 WHERE id = 6",
    "UPDATE requests SET superseded = 1 WHERE id = 3",
    "UPDATE requests SET superseded = 2 WHERE id = 1",
    "UPDATE requests SET removed_at_ms = 1 WHERE id = 6",
    "UPDATE requests SET removed_at_ms = 1 WHERE id = 3",
    "UPDATE requests SET removed_at_ms = 'soon' WHERE id = 1",
    "UPDATE requests SET replaces = 1 WHERE id = 7",
    "UPDATE requests SET place = 9 WHERE id = 7",
    "UPDATE requests SET prompt_id = 3 WHERE id = 6",
    "UPDATE requests SET removed_at_ms = 1, state = 'pending' WHERE id = 2",
    "UPDATE requests SET attempts = -1 WHERE id = 7",
    "UPDATE requests SET failures = -1 WHERE id = 6",
    "UPDATE requests SET failures = 2 WHERE id = 6",
    "UPDATE requests SET attempts = 0 WHERE id = 6",
    "UPDATE requests SET cancelling = 2 WHERE id = 3",
    "UPDATE requests SET cancelling = -1 WHERE id = 3",
    "UPDATE requests SET due_at_ms = NULL WHERE id = 6",
    "UPDATE requests SET id = 99 WHERE id = 7",
    "UPDATE requests SET word_id = 7 WHERE id = 7",
    "UPDATE requests SET prompt_id = 3 WHERE id = 7",
    "UPDATE requests SET state = 'succeeded' WHERE id = 3",
    "DELETE FROM requests WHERE id = 7",
    "DELETE FROM requests WHERE id = 1",
    # attempts
    f"{ATTEMPT}) VALUES (7, 0, 1, 2, 1)",
    f"{ATTEMPT}) VALUES (7, 1, 1, 2, 1)",
    f"{ATTEMPT}) VALUES (6, 1, 1, 1, 1)",
    f"{ATTEMPT}) VALUES (6, 2, 1, 1, 1)",
    f"{ATTEMPT}) VALUES (3, 2, 1, 1, 1)",
    f"{ATTEMPT}) VALUES (99, 1, 1, 1, 1)",
    f"UPDATE attempts SET finished_at_ms = {NOW_MS} WHERE request_id = 3",
    "UPDATE attempts SET outcome = 'blocked' WHERE request_id = 3",
    f"UPDATE attempts SET finished_at_ms = {NOW_MS - 1}, outcome = 'blocked' WHERE request_id = 3",
    f"UPDATE attempts SET finished_at_ms = {NOW_MS}, outcome = 'lost' WHERE request_id = 3",
    f"UPDATE attempts SET finished_at_ms = {NOW_MS}, outcome = '' WHERE request_id = 3",
    "UPDATE attempts SET truncated = 2 WHERE request_id = 3",
    "UPDATE attempts SET truncated = -1 WHERE request_id = 3",
    "UPDATE attempts SET number = 0 WHERE request_id = 3",
    "UPDATE attempts SET run_id = 99 WHERE request_id = 3",
    "UPDATE attempts SET limit_id = 99 WHERE request_id = 3",
    "UPDATE attempts SET started_at_ms = NULL WHERE request_id = 3",
    "UPDATE attempts SET tokens_in = 'many' WHERE request_id = 3",
    *(
        f"UPDATE attempts SET {column} = {value} WHERE request_id = 2"
        for column, value in [
            ("request_id", "99"),
            ("number", "2"),
            ("run_id", "1"),
            ("limit_id", "2"),
            ("started_at_ms", "1"),
            ("finished_at_ms", f"{NOW_MS + 1}"),
            ("outcome", "'rejected'"),
            ("reason", "'x'"),
            ("status_code", "1"),
            ("retry_after_ms", "1"),
            ("tokens_in", "1"),
            ("tokens_out", "1"),
            ("tokens_thought", "1"),
            ("finish_reason", "'x'"),
            ("model_version", "'x'"),
            ("truncated", "1"),
            ("nth", "99"),
            ("tokens_reserved", "1"),
        ]
    ),
    "UPDATE attempts SET finished_at_ms = NULL, outcome = NULL WHERE request_id = 2",
    "DELETE FROM attempts WHERE request_id = 2",
    "DELETE FROM attempts WHERE request_id = 3",
    # what attempts have brought
    "INSERT INTO responses (request_id, number, text) VALUES (1, 1, 'again')",
    "INSERT INTO responses (request_id, number, text) VALUES (3, 2, 'of no attempt')",
    "INSERT INTO responses (request_id, number, text) VALUES (99, 1, 'of no request')",
    "INSERT INTO responses (request_id, number, text) VALUES (3, 1, NULL)",
    "UPDATE responses SET text = 'x'",
    "UPDATE responses SET number = 1",
    "UPDATE responses SET request_id = 2",
    "DELETE FROM responses",
    "INSERT INTO drafts VALUES (3, 2, 'of no attempt')",
    "INSERT INTO drafts VALUES (3, 1, NULL)",
    # what is counted and noted
    *(
        f"UPDATE tallies SET {state} = -1"
        for state in ("pending", "leased", "succeeded", "failed", "cancelled")
    ),
    "INSERT INTO tallies (prompt_id) VALUES (99)",
    "INSERT INTO limit_changes (limit_id, at_ms, what) VALUES (99, 1, 'set')",
    "INSERT INTO limit_changes (limit_id, at_ms, what) VALUES (1, 1, NULL)",
    "INSERT INTO prompt_views VALUES (NULL, 'p')",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(conn, statement):
    before = list(conn.iterdump())
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(statement)
    assert list(conn.iterdump()) == before


ALLOWED = [
    "INSERT INTO words (text, fields, added_at_ms) VALUES ('0', '{\"a\": 0}', 0)",
    "UPDATE words SET fields = '{}' WHERE id = 7",
    f"{LIMIT}, per_minute, tokens_per_minute) VALUES ('l', 1, 1, 1)",
    f"{LIMIT}, per_minute, tokens_per_minute) VALUES ('l', 1, NULL, NULL)",
    f"{LIMIT}, gate_cause, gate_strikes) VALUES ('l', 1, 'quota', 0)",
    f"{LIMIT}, gate_cause, adaptive) VALUES ('l', 1, 'day', 0)",
    f"{LIMIT}) VALUES ('l', NULL)",
    f"{LIMIT}, gate_cause, tat_us) VALUES ('l', 1, 'outage', NULL)",
    f"{PROMPT} ('p', 2, 'other', 's', 'm', '{{}}', 1, 0, 0)",
    f"{PROMPT} ('n', 1, 'About {{word}}', 'scripted', 'm', '{{}}', 1, 1, 1)",
    "UPDATE prompts SET current = 0",
    f"{RUN} VALUES (1, 'h', '0', 5, 5, 5, '')",
    "INSERT INTO requests (word_id, prompt_id) VALUES (7, 1)",
    "INSERT INTO requests (word_id, prompt_id) VALUES (1, 3)",
    "UPDATE requests SET failures = 0 WHERE id = 6",
    "UPDATE requests SET cancelling = 1 WHERE id = 3",
    "UPDATE requests SET cancelling = 1, removed_at_ms = 1 WHERE id = 3",
    "UPDATE requests SET removed_at_ms = 1 WHERE id = 1",
    "UPDATE requests SET superseded = 1 WHERE id = 1",
    "UPDATE requests SET superseded = 1 WHERE id = 2",
    "INSERT INTO requests (word_id, prompt_id, replaces) VALUES (1, 3, 1)",
    f"UPDATE attempts SET finished_at_ms = {NOW_MS}, outcome = 'denied' WHERE request_id = 3",
    "UPDATE attempts SET started_at_ms = 5 WHERE request_id = 3",
    "INSERT INTO responses (request_id, number, text) VALUES (3, 1, '0')",
    "INSERT OR REPLACE INTO drafts VALUES (2, 1, 'newer')",
]


@pytest.mark.parametrize("statement", ALLOWED)
def test_what_breaks_no_rule_is_allowed(conn, statement):
    conn.execute(statement)


@pytest.mark.parametrize(
    ("attempts", "number", "taken"), [(2, 1, False), (2, 2, True), (2, 3, False)]
)
def test_an_attempt_has_the_number_that_its_leased_request_knows(conn, attempts, number, taken):
    leased(conn, 6, attempts)
    statement = f"{ATTEMPT}) VALUES (6, {number}, 1, 1, 1)"
    if taken:
        conn.execute(statement)
    else:
        with pytest.raises(sqlite3.IntegrityError):
            conn.execute(statement)


@pytest.mark.parametrize("state", ["pending", "failed", "cancelled"])
def test_only_a_leased_request_has_another_attempt(conn, state):
    leased(conn, 6, 2)
    conn.execute("UPDATE requests SET state = ? WHERE id = 6", (state,))
    with pytest.raises(sqlite3.IntegrityError, match="leased request"):
        conn.execute(f"{ATTEMPT}) VALUES (6, 2, 1, 1, 1)")


def test_a_leased_request_with_one_attempt_takes_no_second_one(conn):
    conn.execute(
        f"UPDATE attempts SET finished_at_ms = {NOW_MS}, outcome = 'denied' WHERE request_id = 3"
    )
    with pytest.raises(sqlite3.IntegrityError, match="leased request"):
        conn.execute(f"{ATTEMPT}) VALUES (3, 2, 1, 1, 1)")


def test_a_request_has_one_open_attempt(conn):
    conn.execute("UPDATE requests SET attempts = 2 WHERE id = 3")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        conn.execute(f"{ATTEMPT}) VALUES (3, 2, 1, 1, 1)")


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ("INSERT INTO requests (word_id, prompt_id) VALUES (7, 1)", (2, 3, 1, 1, 0)),
        ("UPDATE requests SET state = 'leased', attempts = 2 WHERE id = 6", (0, 4, 1, 1, 0)),
        ("UPDATE requests SET state = 'cancelled' WHERE id = 6", (0, 3, 1, 1, 1)),
        ("UPDATE requests SET state = 'pending' WHERE id = 3", (2, 2, 1, 1, 0)),
        ("UPDATE requests SET state = 'failed' WHERE id = 3", (1, 2, 1, 2, 0)),
        ("UPDATE requests SET state = 'cancelled' WHERE id = 3", (1, 2, 1, 1, 1)),
        ("UPDATE requests SET state = 'pending' WHERE id = 2", (2, 3, 1, 0, 0)),
        ("INSERT INTO requests (word_id, prompt_id) VALUES (7, 3)", (1, 3, 1, 1, 0)),
    ],
)
def test_each_change_of_a_state_is_counted_for_its_prompt(conn, change, counted):
    columns = "SELECT pending, leased, succeeded, failed, cancelled FROM tallies"
    assert conn.execute(columns).fetchone() == (1, 3, 1, 1, 0)
    others = conn.execute(f"{columns} WHERE prompt_id = 2").fetchall()
    conn.execute(change)
    assert conn.execute(columns).fetchone() == counted
    assert conn.execute(f"{columns} WHERE prompt_id = 2").fetchall() == others


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        (["removed_at_ms = 1 WHERE id = 1"], (1, 3, 0, 1, 0, 1)),
        (["removed_at_ms = 1 WHERE id = 2", "removed_at_ms = 2 WHERE id = 2"], (1, 3, 1, 0, 0, 1)),
        (
            ["removed_at_ms = 1 WHERE id = 2", "removed_at_ms = NULL WHERE id = 2"],
            (1, 3, 1, 1, 0, 0),
        ),
        (
            ["state = 'cancelled' WHERE id = 6", "removed_at_ms = 1 WHERE id = 6"],
            (0, 3, 1, 1, 0, 1),
        ),
        (["cancelling = 1, removed_at_ms = 1 WHERE id = 3"], (1, 3, 1, 1, 0, 0)),
        (
            ["cancelling = 1, removed_at_ms = 1 WHERE id = 3", "state = 'failed' WHERE id = 3"],
            (1, 2, 1, 1, 0, 1),
        ),
        (["superseded = 1 WHERE id = 1"], (1, 3, 0, 1, 0, 0)),
        (["superseded = 1 WHERE id = 1", "superseded = 0 WHERE id = 1"], (1, 3, 1, 1, 0, 0)),
        (["removed_at_ms = 1 WHERE id = 1", "superseded = 1 WHERE id = 1"], (1, 3, 0, 1, 0, 0)),
        (
            ["cancelling = 1, superseded = 1 WHERE id = 3", "state = 'cancelled' WHERE id = 3"],
            (1, 2, 1, 1, 0, 0),
        ),
    ],
)
def test_what_leaves_the_list_is_counted_apart_once_it_has_ended(conn, changes, counted):
    columns = "SELECT pending, leased, succeeded, failed, cancelled, removed FROM tallies"
    assert conn.execute(columns).fetchone() == (1, 3, 1, 1, 0, 0)
    for change in changes:
        conn.execute(f"UPDATE requests SET {change}")
    assert conn.execute(columns).fetchone() == counted


@pytest.mark.parametrize("mark", ["removed_at_ms = 1", "superseded = 1"])
@pytest.mark.parametrize("state", ["pending", "leased"])
def test_what_is_off_the_list_is_not_asked(conn, mark, state):
    conn.execute(f"UPDATE requests SET {mark} WHERE id = 2")
    with pytest.raises(sqlite3.IntegrityError, match=r"not asked|not a legal"):
        leased(conn, 2, 2) if state == "leased" else conn.execute(
            "UPDATE requests SET state = 'pending' WHERE id = 2"
        )


def test_what_was_never_asked_goes_on_to_another_version(conn):
    conn.execute(f"{PROMPT} ('q', 2, 'x', 's', 'm', '{{}}', 2, 0, 1)")
    conn.execute("UPDATE requests SET prompt_id = 4 WHERE id = 7")
    assert conn.execute(
        "SELECT prompt_id, pending FROM tallies WHERE prompt_id > 1"
    ).fetchall() == [
        (2, 0),
        (3, 0),
        (4, 1),
    ]


def test_a_success_is_counted_when_it_has_its_response(conn):
    conn.execute("INSERT INTO responses (request_id, number, text) VALUES (3, 1, 'text')")
    conn.execute("UPDATE requests SET state = 'succeeded' WHERE id = 3")
    columns = "SELECT pending, leased, succeeded, failed, cancelled FROM tallies"
    assert conn.execute(columns).fetchone() == (1, 2, 2, 1, 0)


def test_a_new_prompt_begins_with_counts_of_its_own(conn):
    conn.execute(f"{PROMPT} ('n', 1, 't', 's', 'm', '{{}}', 1, 1, 1)")
    assert conn.execute("SELECT * FROM tallies WHERE prompt_id = 4").fetchall() == [
        (4, 0, 0, 0, 0, 0, 0.25, 250.0, 0, 0)
    ]


# Programs of others have foreign keys off, and REPLACE runs no triggers of DELETE.
BY_HAND = [
    ("DELETE FROM words WHERE id = 7", "crawler cancel WORD"),
    ("INSERT OR REPLACE INTO words (id, text, added_at_ms) VALUES (7, 'z', 1)", "crawler add"),
    ("DELETE FROM prompts WHERE id = 2", "crawler cancel --all --prompt NAME"),
    (
        f"{PROMPT.replace('INSERT', 'INSERT OR REPLACE')} ('p', 1, 'x', 's', 'm', '{{}}', 1, 0, 1)",
        "crawler prompt add",
    ),
    ("UPDATE requests SET due_at_ms = -5 WHERE id = 7", "crawler retry"),
    ("UPDATE requests SET due_at_ms = 999999999999999 WHERE id = 7", "crawler retry"),
    ("UPDATE requests SET state = 'leased' WHERE id = 7", "crawler run, crawler retry WORD"),
    (
        "INSERT OR REPLACE INTO responses (request_id, number, text) VALUES (1, 1, 'mine')",
        "a new version of the prompt",
    ),
    ("DELETE FROM tallies", "crawler check --repair"),
    ("DELETE FROM limits WHERE name = 'other'", "crawler limit NAME"),
    (f"{LIMIT.replace('INSERT', 'REPLACE')}, id) VALUES ('new', 1, 1)", "crawler limit NAME"),
    ("DELETE FROM runs", "the next run"),
]


@pytest.mark.parametrize(("statement", "named"), BY_HAND)
def test_what_is_edited_by_hand_is_refused_and_a_command_is_named(conn, statement, named):
    conn.execute("PRAGMA foreign_keys = OFF")
    before = list(conn.iterdump())
    with pytest.raises(sqlite3.IntegrityError) as refused:
        conn.execute(statement)
    assert named in str(refused.value)
    assert list(conn.iterdump()) == before
