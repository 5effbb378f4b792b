"""Rows that somebody has edited, past the guards: a run ends and says so, and `--repair` mends
what can be computed."""

import sqlite3

import pytest

from crawler.errors import Exit
from crawler.ledger.repair import mend, recount_in_passing
from crawler.states import Outcome
from tests.program import add_prompt, crawler, rows, told

WORDS = [f"w{n}" for n in range(20)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "c.db"
    add_prompt(path, "p", "{word}")
    assert crawler("--db", path, "add", *WORDS, "--prompt", "p").code == Exit.DONE
    return path


def edit(path, *statements):
    """Change rows as a program does that has no foreign keys, and no guards to heed."""
    conn = sqlite3.connect(path, isolation_level=None)
    guards = conn.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name NOT IN"
        " ('requests_insert', 'prompts_insert')"
    ).fetchall()
    for name, _ in guards:
        conn.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        conn.execute(statement)
    for _, sql in guards:
        conn.execute(sql)
    conn.close()


def answers(path):
    return rows(path, "SELECT count(*) FROM responses")[0][0]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("DELETE FROM words WHERE id = 5", 1),
        ("DELETE FROM words", 20),
        ("UPDATE requests SET due_at_ms = -5 WHERE id > 10", 10),
        ("UPDATE requests SET due_at_ms = 9000000000000000 WHERE id > 10", 10),
        ("UPDATE requests SET state = 'leased' WHERE id = 7", 1),
    ],
)
def test_a_run_of_which_nothing_left_can_be_asked_ends_and_is_mended(path, statement, left):
    edit(path, statement)
    ran = crawler("--db", path, "run", "--deadline", "60s")
    assert ran.code == Exit.UNEXPECTED
    assert "error: nothing that is left can ever be asked; what is left stays pending" in ran.err
    assert "crawler check --repair" in ran.err
    assert rows(path, "SELECT reason FROM runs") == [("stuck",)]
    assert answers(path) == 20 - left
    assert crawler("--db", path, "check").code == Exit.UNEXPECTED
    crawler("--db", path, "check", "--repair")
    [copy] = path.parent.glob("*.before-repair-*")
    assert answers(copy) == 20 - left
    lost = left if "DELETE" in statement else 0
    assert crawler("--db", path, "run").code == Exit.DONE
    assert answers(path) == 20 - lost


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tallies",
        "UPDATE tallies SET pending = 0",
        "UPDATE tallies SET pending = 0, succeeded = 20",
        "UPDATE tallies SET pending = 21",
        "UPDATE tallies SET leased = 3",
    ],
)
@pytest.mark.parametrize("most", [1_000_000, 5])
def test_counts_that_are_wrong_are_made_again_when_a_run_begins(path, statement, most, monkeypatch):
    edit(path, statement)
    monkeypatch.setattr("crawler.ledger.repair.RECOUNTED_AT_MOST", most)
    ran = crawler("--db", path, "run")
    assert ran.code == Exit.DONE, ran
    assert "tallies_recounted" in ran.err
    assert answers(path) == 20
    assert crawler("--db", path, "check").code == Exit.DONE


def test_right_counts_of_a_large_file_are_proven_at_little_cost(path, monkeypatch):
    monkeypatch.setattr("crawler.ledger.repair.RECOUNTED_AT_MOST", 5)
    conn = sqlite3.connect(path)
    steps = []
    conn.set_progress_handler(lambda: steps.append(1), 1)
    assert recount_in_passing(conn) == 0
    few = len(steps)
    monkeypatch.setattr("crawler.ledger.repair.RECOUNTED_AT_MOST", 50)
    assert recount_in_passing(conn) == 0
    conn.close()
    assert few < len(steps) - few


@pytest.mark.parametrize(
    ("statement", "command"),
    [
        ("DROP INDEX requests_fresh", "run"),
        ("DROP INDEX attempts_started", "status"),
        ("DROP INDEX runs_live", "run"),
        ("DELETE FROM limits", "run"),
    ],
)
def test_what_was_taken_away_gives_three_lines(path, statement, command):
    edit(path, statement)
    ran = crawler("--db", path, command)
    assert "Traceback" not in ran.err
    told(ran, ran.code)
    assert ran.code in {Exit.UNEXPECTED, Exit.DATABASE}
    assert "crawler check" in ran.err
    assert crawler("--db", path, "check").code == Exit.UNEXPECTED


def test_indexes_and_guards_are_made_again(path):
    edit(path, "DROP INDEX requests_fresh")
    conn = sqlite3.connect(path)
    conn.execute("DROP TRIGGER responses_are_kept")
    conn.close()
    assert crawler("--db", path, "check").code == Exit.UNEXPECTED
    ran = crawler("--db", path, "check", "--repair")
    assert ran.code == Exit.DONE
    assert "index requests_fresh made again; trigger responses_are_kept made again" in ran.err


def test_a_broken_page_is_found_and_the_rest_is_asked(path):
    listed = path.with_name("words.txt")
    listed.write_text("\n".join(f"{n} {'x' * 400}" for n in range(15_000)))
    crawler("--db", path, "add", listed, "--prompt", "p")
    assert path.stat().st_size > 8 * 2**20
    with path.open("r+b") as file:
        for page in range(60, 1_500, 90):
            file.seek(4096 * page)
            file.write(b"\xa5" * 4096)
    ran = crawler("--db", path, "check")
    assert ran.code == Exit.UNEXPECTED
    assert "Traceback" not in ran.err
    assert "BROKEN file_is_sound" in ran.out
    assert "ok     params_can_be_read" in ran.out


def test_what_is_carried_to_another_version_keeps_no_run_waiting(path):
    change = ("prompt", "edit", "p", "--template", "now {word}")
    assert crawler("--db", path, *change).code == Exit.DONE
    edit(path, "UPDATE requests SET due_at_ms = -5 WHERE prompt_id = 2")
    ran = crawler("--db", path, "run", "--deadline", "60s")
    assert rows(path, "SELECT reason FROM runs") == [("stuck",)], ran


def test_what_is_in_flight_without_a_call_is_pending_again_though_it_was_tried_before(ledger):
    ledger.add("ab")
    ends = [ledger.finish(lease, Outcome.TRANSIENT) for lease in ledger.turn().leases]
    ledger.turn(*ends, budget=0)
    ledger.conn.execute("DROP TRIGGER requests_transition")
    ledger.conn.execute("UPDATE requests SET state = 'leased' WHERE id = 1")
    assert "1 requests were in flight without an attempt: pending again" in mend(ledger.conn, [])
    assert ledger.states() == {"a": "pending", "b": "pending"}
