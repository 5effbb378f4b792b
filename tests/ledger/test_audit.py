"""Every promise of the file is one that `check` finds broken; a whole file breaks none."""

import pytest

from crawler.ledger import control, intake
from crawler.ledger.check import GUARDS, check
from crawler.ledger.invariants import INVARIANTS
from crawler.ledger.limits import put_limit
from crawler.states import Outcome

MINUTE_MS = 60_000
# What breaks a promise, by statements that the schema would refuse.
BREAKS = {
    "one_state": ["UPDATE requests SET state = 'lost' WHERE id = 4"],
    "succeeded_has_response": ["UPDATE requests SET state = 'failed' WHERE id = 1"],
    "attempts_without_gaps": ["DELETE FROM attempts WHERE request_id = 2 AND number = 1"],
    "leased_is_open": ["UPDATE requests SET state = 'pending' WHERE id = 6"],
    "failed_has_cause": [
        "UPDATE attempts SET outcome = 'throttled' WHERE request_id = 3 AND number = 1"
    ],
    "failures_are_its_own": ["UPDATE requests SET failures = 2 WHERE id = 2"],
    "waits_for_a_cause": ["UPDATE requests SET due_at_ms = 5 WHERE id = 9"],
    "cancelling_was_in_flight": ["UPDATE requests SET cancelling = 1 WHERE id = 9"],
    "one_stands": ["INSERT INTO requests (word_id, prompt_id, state) VALUES (1, 1, 'succeeded')"],
    "off_the_list_is_not_asked": ["UPDATE requests SET removed_at_ms = 1 WHERE id = 9"],
    "superseded_by_another": ["UPDATE requests SET superseded = 1 WHERE id = 1"],
    "replaces_an_answer": ["UPDATE requests SET replaces = 3 WHERE id = 9"],
    "asked_by_the_current": ["UPDATE tallies SET pending = 1 WHERE prompt_id = 1"],
    "revisions_without_gaps": ["UPDATE words SET revision = 2 WHERE id = 1"],
    "changed_was_asked": ["UPDATE requests SET changed = 1 WHERE id = 1"],
    "words_can_be_read": ["UPDATE words SET fields = '{gone}' WHERE id = 1"],
    "one_open": [
        "UPDATE attempts SET finished_at_ms = NULL, outcome = NULL WHERE request_id = 2",
    ],
    "one_success": ["UPDATE attempts SET outcome = 'succeeded' WHERE request_id = 2"],
    "success_has_response": [
        "UPDATE attempts SET outcome = 'succeeded' WHERE request_id = 2 AND number = 1"
    ],
    "response_has_attempt": [
        "UPDATE attempts SET outcome = 'blocked' WHERE request_id = 1 AND number = 1"
    ],
    "response_has_text": ["UPDATE responses SET text = ''"],
    "mark_has_answer": [
        "INSERT INTO reviews (request_id, mark, by, at_ms) VALUES (3, 'bad', 'me', 1)"
    ],
    "draft_has_attempt": ["UPDATE drafts SET request_id = 1, number = 1"],
    "ends_after_start": ["UPDATE attempts SET started_at_ms = started_at_ms + 1 WHERE number = 1"],
    "open_has_run": ["UPDATE runs SET ended_at_ms = started_at_ms + 1000000, reason = 'died'"],
    "within_its_run": ["UPDATE runs SET started_at_ms = started_at_ms + 1"],
    "runs_end_after_start": ["UPDATE runs SET heartbeat_at_ms = 0"],
    "window_is_kept": ["UPDATE attempts SET started_at_ms = started_at_ms - 601 WHERE nth = 9"],
    "limit_is_as_set": ["UPDATE limits SET per_minute = 60"],
    "starts_are_counted": ["UPDATE attempts SET nth = 1 WHERE nth = 2"],
    "starts_are_in_order": ["UPDATE attempts SET nth = 99 - nth"],
    "starts_under_its_limit": ["UPDATE attempts SET limit_id = 2 WHERE nth = 1"],
    "gate_is_whole": ["UPDATE limits SET gate_cause = 'quota'"],
    "pace_is_known": ["UPDATE limits SET tat_us = 0"],
    "one_current": ["UPDATE prompts SET current = 0"],
    "params_can_be_read": ["UPDATE prompts SET params = '{gone}'"],
    "tallies_agree": ["UPDATE tallies SET pending = pending + 1"],
    "views_are_there": ["DROP VIEW p"],
    "references_hold": ["DELETE FROM words WHERE id = 9"],
}
# Other ways to break the same promise.
MORE = [
    ("succeeded_has_response", "DELETE FROM responses"),
    ("attempts_without_gaps", "UPDATE requests SET attempts = 5 WHERE id = 9"),
    ("attempts_without_gaps", "UPDATE attempts SET number = 7 WHERE number = 1 AND request_id = 3"),
    ("leased_is_open", "UPDATE requests SET state = 'leased' WHERE id = 9"),
    ("failed_has_cause", "UPDATE requests SET state = 'failed' WHERE id = 9"),
    ("waits_for_a_cause", "UPDATE requests SET due_at_ms = -1 WHERE id = 9"),
    ("success_has_response", "UPDATE responses SET number = 2"),
    ("response_has_attempt", "UPDATE requests SET attempts = 2 WHERE id = 1"),
    ("draft_has_attempt", "UPDATE drafts SET request_id = 6, number = 1"),
    ("ends_after_start", "UPDATE attempts SET outcome = 'denied' WHERE finished_at_ms IS NULL"),
    ("within_its_run", "UPDATE runs SET ended_at_ms = started_at_ms - 1, reason = 'died'"),
    ("runs_end_after_start", "UPDATE runs SET ended_at_ms = 1, reason = 'died'"),
    ("runs_end_after_start", "UPDATE runs SET reason = 'died'"),
    ("starts_are_counted", "UPDATE limits SET started = 0"),
    ("gate_is_whole", "UPDATE limits SET gate_reason = 'slow down'"),
    ("gate_is_whole", "UPDATE limits SET gate_opens_at_ms = 1"),
    ("gate_is_whole", "UPDATE limits SET gate_strikes = 1"),
    ("pace_is_known", "UPDATE limits SET rate = 0"),
    ("pace_is_known", "UPDATE limits SET paused_until_ms = 1"),
    ("one_current", "UPDATE prompts SET version = 3 WHERE version = 2"),
    ("tallies_agree", "DELETE FROM tallies"),
    ("views_are_there", "UPDATE prompt_views SET prompt = 'q'"),
    ("words_can_be_read", "UPDATE words SET fields = '[]' WHERE id = 1"),
    ("off_the_list_is_not_asked", "UPDATE requests SET superseded = 1 WHERE id = 9"),
    ("revisions_without_gaps", "INSERT INTO revisions VALUES (1, 1, 'a', NULL, NULL, 1)"),
    ("revisions_without_gaps", "UPDATE attempts SET revision = 2"),
    ("off_the_list_is_not_asked", "UPDATE requests SET removed_at_ms = 1 WHERE state = 'leased'"),
    ("replaces_an_answer", "UPDATE requests SET replaces = 1 WHERE id = 9"),
    ("replaces_an_answer", "UPDATE requests SET replaces = 99 WHERE id = 9"),
    ("replaces_an_answer", "UPDATE requests SET replaces = id WHERE id = 1"),
    ("tallies_agree", "UPDATE requests SET removed_at_ms = 1 WHERE id = 1"),
    ("tallies_agree", "UPDATE requests SET superseded = 1 WHERE id = 1"),
]
MORE += [
    ("tallies_agree", f"UPDATE tallies SET {state} = {state} + 1")
    for state in ("leased", "succeeded", "failed", "cancelled", "removed")
]


def broken(ledger):
    """Return what is broken, but for the guards: the tests take those away themselves."""
    names = {finding.name for finding in check(ledger.conn) if finding.broken}
    return names - {"guards_are_there"}


@pytest.fixture
def eventful(ledger):
    """A request in each state, a draft, a view, and two limits one after the other."""
    spec = intake.PromptSpec("p", "On {word}", "scripted", "m", SCHEMA)
    ledger.prompt, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
    put_limit(ledger.conn, "other", 1)
    ledger.add("abcdefghi")
    ledger.fix(4)
    answered, cut_off, *others = ledger.turn().leases
    ledger.turn(
        ledger.finish(answered, Outcome.SUCCEEDED),
        ledger.finish(cut_off, Outcome.TRANSIENT, text="cut o", retry_after_ms=0, truncated=True),
        ledger.finish(others[0], Outcome.REJECTED),
        ledger.finish(others[1], Outcome.INTERRUPTED),
    )
    control.cancel(ledger.conn, [ledger.prompt.id], [5])
    ledger.now_ms += MINUTE_MS + ledger.policy.guard_ms + 1
    assert len(ledger.turn().leases) == 4
    control.set_per_minute(ledger.conn, "quota", 1, ledger.now_ms)
    ledger.now_ms += MINUTE_MS + ledger.policy.guard_ms + 1
    assert len(ledger.turn().leases) == 1
    return ledger


SCHEMA = {"response_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}


def test_a_whole_file_breaks_no_promise(eventful):
    assert broken(eventful) == set()


def test_every_promise_is_shown_to_be_broken_by_something():
    assert set(BREAKS) == {invariant.name for invariant in INVARIANTS} | {"references_hold"}


def test_a_start_a_whole_minute_after_the_last_of_its_window_is_in_time(eventful):
    unprotect(eventful.conn)
    eventful.conn.execute("UPDATE attempts SET started_at_ms = started_at_ms - 600 WHERE nth = 9")
    assert "window_is_kept" not in broken(eventful)
    eventful.conn.execute("UPDATE attempts SET started_at_ms = started_at_ms - 1 WHERE nth = 9")
    assert "window_is_kept" in broken(eventful)


def starts(ledger, count):
    ledger.add(map(str, range(20)))
    control.set_concurrency(ledger.conn, "quota", 20)
    return ledger.turn(budget=count).leases


def test_a_limit_is_asked_only_of_the_starts_that_it_was_set_for(ledger):
    control.set_adaptive(ledger.conn, "quota", ledger.now_ms, adaptive=False)
    starts(ledger, 6)
    ledger.fix(3)
    assert starts(ledger, 6) == []
    ledger.fix(8)
    assert len(starts(ledger, 6)) == 2
    assert broken(ledger) == set()
    unprotect(ledger.conn)
    ledger.conn.execute("UPDATE limit_changes SET started = started - 1 WHERE rate = 3")
    assert broken(ledger) == {"window_is_kept"}


def test_a_limit_that_was_lifted_is_asked_of_nobody(ledger):
    ledger.fix(3)
    starts(ledger, 3)
    control.set_per_minute(ledger.conn, "quota", None, ledger.now_ms)
    assert len(starts(ledger, 6)) == 6
    assert broken(ledger) == set()


def test_a_limit_from_before_there_was_a_record_is_asked_of_all_starts(ledger):
    ledger.conn.execute("UPDATE limits SET per_minute = 3, adaptive = 0")
    assert len(starts(ledger, 6)) == 3
    assert broken(ledger) == set()
    ledger.conn.execute("UPDATE limits SET per_minute = 2")
    assert broken(ledger) == {"window_is_kept"}
    ledger.conn.execute("UPDATE attempts SET nth = 0")
    assert broken(ledger) == set(), "starts from before they were numbered"


def test_a_record_that_says_not_for_which_starts_condemns_none(ledger):
    ledger.fix(3)
    starts(ledger, 3)
    ledger.fix(2)
    ledger.conn.execute("UPDATE limit_changes SET why = 'per_minute = 2' WHERE rate = 2")
    ledger.conn.execute("UPDATE limit_changes SET why = 'per_minute = 3' WHERE rate = 3")
    assert broken(ledger) == set()


@pytest.mark.parametrize(
    ("name", "sql"), [(name, sql) for name, (sql,) in BREAKS.items()] + MORE, ids=str
)
def test_what_breaks_a_promise_is_found(eventful, name, sql):
    unprotect(eventful.conn)
    eventful.conn.execute(sql)
    assert name in broken(eventful)


def test_a_finding_says_what_was_promised_how_often_it_is_broken_and_five_examples(ledger):
    ledger.add("abcdefgh")
    unprotect(ledger.conn)
    ledger.conn.execute("UPDATE requests SET due_at_ms = 1")
    _, found = [finding for finding in check(ledger.conn) if finding.broken]
    assert found == (
        "waits_for_a_cause",
        "only a request that was tried waits for a later time",
        8,
        [f"request {n}" for n in range(1, 6)],
    )


def unprotect(conn):
    """Take away whatever keeps a file from being broken."""
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute("PRAGMA ignore_check_constraints = ON")
    things = conn.execute(
        "SELECT type, name FROM sqlite_schema WHERE type = 'trigger'"
        " OR sql LIKE '%UNIQUE INDEX%' AND name <> 'requests_of_word'"
    ).fetchall()
    for kind, name in things:
        conn.execute(f"DROP {kind.split()[-1]} {name}")


def test_guards_that_are_gone_are_missed(ledger):
    made = ledger.conn.execute(
        "SELECT name FROM sqlite_schema WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
    )
    assert {name for (name,) in made} == GUARDS
    ledger.conn.execute("DROP TRIGGER responses_are_kept")
    ledger.conn.execute("DROP INDEX attempts_started")
    found = {finding.name: finding.examples for finding in check(ledger.conn)}
    assert found["guards_are_there"] == ["attempts_started", "responses_are_kept"]
    assert found["window_is_kept"] == ["it can't be asked: no such index: attempts_started"]
