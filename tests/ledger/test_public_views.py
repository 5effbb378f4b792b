"""Every column of every public view, read back after a history that has two of everything.

The times are those of the fixture: it begins at 2001-09-09T01:46:40Z.
"""

import json

import pytest

from crawler.ledger import control, intake, standing
from crawler.protocol import Word
from crawler.states import Outcome
from tests.ledger.several import Several

SCHEMA = {
    "type": "object",
    "properties": {name: {} for name in ("number", "yes", "empty", "nothing", "list", "lacking")},
}
ANSWER = {"number": 0, "yes": False, "empty": "", "nothing": None, "list": [0]}
BEGAN_MS = 1_000_000_000_000


@pytest.fixture
def told():
    """Two runs: the first one died and came late; words were retried, cancelled, refused."""
    ledger = Several()
    ledger.q = ledger.put("q", "Of {word}", limit="other", response_schema=SCHEMA)
    words = [Word("ähm", {"gloss": "0"}), *(Word(word, {}) for word in "bcdefg")]
    intake.add_words(ledger.conn, ledger.p.id, words, BEGAN_MS)
    ledger.ask(ledger.q, ["ähm", "z"])
    first_run(ledger)
    second_run(ledger)
    yield ledger
    ledger.conn.close()


def first_run(ledger):
    """Five calls; one stays in flight when the run dies."""
    again, answered, blocked, left, cancelled = ledger.turn(budget=5).leases
    control.cancel(ledger.conn, [ledger.p.id], [5, 6])  # e, which is in flight, and f
    ledger.now_ms += 1_500
    ledger.turn(
        ledger.finish(
            again,
            Outcome.TRANSIENT,
            text="half of it",
            reason="first",
            status_code=503,
            retry_after_ms=9_000,
            tokens_in=1,
            tokens_out=2,
            tokens_thought=3,
            finish_reason="BROKEN",
            model_version="m-0",
            truncated=True,
        ),
        ledger.finish(
            answered,
            Outcome.SUCCEEDED,
            text="0",
            tokens_in=0,
            tokens_out=5,
            finish_reason="STOP",
            model_version="m-1",
        ),
        ledger.finish(blocked, Outcome.BLOCKED, reason="unsafe", status_code=200, text="b"),
        ledger.finish(cancelled, Outcome.TRANSIENT, reason="busy", status_code=500, tokens_in=7),
        budget=0,
    )
    ledger.now_ms += 500
    heir = ledger.start_run()
    assert ledger.end_run(ledger.run_id, Outcome.ABANDONED, "died", by=heir) == 1
    late = ledger.finish(left, Outcome.SUCCEEDED, text="late", tokens_in=100, tokens_out=100)
    assert ledger.turn(late).late == 1
    ledger.run_id = heir


def second_run(ledger):
    """A minute later: what is due is asked again, and the other prompt for the first time."""
    ledger.now_ms += 60_000
    leases = {(lease.prompt_id, lease.word): lease for lease in ledger.turn().leases}
    assert sorted(leases) == [(1, "d"), (1, "g"), (1, "ähm"), (4, "z"), (4, "ähm")]
    ledger.now_ms += 2_750
    ledger.turn(
        ledger.finish(
            leases[1, "ähm"],
            Outcome.SUCCEEDED,
            text="ganz",
            tokens_in=10,
            tokens_out=20,
            tokens_thought=30,
            finish_reason="MAX_TOKENS",
            model_version="m-2",
            truncated=True,
        ),
        ledger.finish(leases[1, "d"], Outcome.REJECTED, reason="too long", status_code=413),
        ledger.finish(leases[1, "g"], Outcome.TRANSIENT, text="g", reason="x", retry_after_ms=0),
        ledger.finish(leases[4, "ähm"], Outcome.SUCCEEDED, text=json.dumps(ANSWER), tokens_in=4),
        ledger.finish(leases[4, "z"], Outcome.THROTTLED, reason="slow", retry_after_ms=5_000),
        budget=0,
    )
    control.set_per_minute(ledger.conn, "other", 90, ledger.now_ms)
    control.pause(ledger.conn, "other", ledger.now_ms, ledger.now_ms + 250)
    control.resume(ledger.conn, "other", ledger.now_ms)


def rows(ledger, sql):
    cursor = ledger.conn.execute(sql)
    names = [name for name, *_ in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_results_tell_of_the_attempt_that_brought_the_answer(told):
    assert rows(told, "SELECT * FROM results") == [
        {
            "word": "ähm",
            "text": "ganz",
            "prompt": "p",
            "version": 1,
            "provider": "scripted",
            "model": "m",
            "fields": '{"gloss": "0"}',
            "tokens_in": 10,
            "tokens_out": 20,
            "attempts": 2,
            "duration_ms": 2_750,
            "started_at": "2001-09-09T01:47:42.000Z",
            "finished_at": "2001-09-09T01:47:44.750Z",
            "word_id": 1,
            "request_id": 1,
            "tokens_thought": 30,
            "finish_reason": "MAX_TOKENS",
            "model_version": "m-2",
            "truncated": 1,
            "stale": 0,
            "key": None,
            "review": None,
            "note": None,
        },
        {
            "word": "b",
            "text": "0",
            "prompt": "p",
            "version": 1,
            "provider": "scripted",
            "model": "m",
            "fields": None,
            "tokens_in": 0,
            "tokens_out": 5,
            "attempts": 1,
            "duration_ms": 1_500,
            "started_at": "2001-09-09T01:46:40.000Z",
            "finished_at": "2001-09-09T01:46:41.500Z",
            "word_id": 2,
            "request_id": 2,
            "tokens_thought": None,
            "finish_reason": "STOP",
            "model_version": "m-1",
            "truncated": 0,
            "stale": 0,
            "key": None,
            "review": None,
            "note": None,
        },
        {
            "word": "ähm",
            "text": json.dumps(ANSWER),
            "prompt": "q",
            "version": 2,
            "provider": "scripted",
            "model": "m",
            "fields": '{"gloss": "0"}',
            "tokens_in": 4,
            "tokens_out": None,
            "attempts": 1,
            "duration_ms": 2_750,
            "started_at": "2001-09-09T01:47:42.000Z",
            "finished_at": "2001-09-09T01:47:44.750Z",
            "word_id": 1,
            "request_id": 8,
            "tokens_thought": None,
            "finish_reason": None,
            "model_version": None,
            "truncated": 0,
            "stale": 0,
            "key": None,
            "review": None,
            "note": None,
        },
    ]


def test_failures_tell_of_the_last_attempt(told):
    assert rows(told, "SELECT * FROM failures ORDER BY request_id") == [
        {
            "word": "c",
            "outcome": "blocked",
            "reason": "unsafe",
            "status_code": 200,
            "attempts": 1,
            "failures": 0,
            "prompt": "p",
            "version": 1,
            "provider": "scripted",
            "model": "m",
            "failed_at": "2001-09-09T01:46:41.500Z",
            "word_id": 3,
            "request_id": 3,
            "draft": "b",
            "reason_code": None,
            "current": 1,
        },
        {
            "word": "d",
            "outcome": "rejected",
            "reason": "too long",
            "status_code": 413,
            "attempts": 2,
            "failures": 1,
            "prompt": "p",
            "version": 1,
            "provider": "scripted",
            "model": "m",
            "failed_at": "2001-09-09T01:47:44.750Z",
            "word_id": 4,
            "request_id": 4,
            "draft": None,
            "reason_code": None,
            "current": 1,
        },
    ]


def test_progress_counts_every_request_of_every_version(told):
    counted = ("requests", "pending", "leased", "succeeded", "failed", "cancelled", "removed")
    named = ("prompt", "version", "provider", "model")
    found = rows(told, "SELECT * FROM progress ORDER BY prompt, version")
    assert [list(row) for row in found] == [[*named, *counted]] * 4
    assert [tuple(row.values()) for row in found] == [
        ("p", 1, "scripted", "m", 7, 1, 0, 2, 2, 2, 0),
        ("q", 1, "scripted", "m", 0, 0, 0, 0, 0, 0, 0),
        ("q", 2, "scripted", "m", 2, 1, 0, 1, 0, 0, 0),
        ("r", 1, "scripted", "m", 0, 0, 0, 0, 0, 0, 0),
    ]


def test_progress_counts_what_is_in_flight(told):
    told.ask(told.p, "uv")
    told.now_ms += 1_000
    assert len(told.turn(budget=2).leases) == 2, "g is due again"
    counted = "SELECT requests, pending, leased FROM progress WHERE prompt = 'p'"
    assert told.row(counted) == (9, 1, 2)


def test_throughput_is_by_minute_and_limit(told):
    columns = ("minute_at", "limit", "started", "succeeded", "throttled", "failed")
    found = rows(told, "SELECT * FROM throughput_per_minute ORDER BY minute_at, 2")
    assert [list(row) for row in found] == [[*columns, "tokens_in", "tokens_out"]] * 3
    assert [tuple(row.values()) for row in found] == [
        ("2001-09-09T01:46:00Z", "quota", 5, 1, 0, 3, 8, 7),
        ("2001-09-09T01:47:00Z", "other", 2, 1, 1, 0, 4, None),
        ("2001-09-09T01:47:00Z", "quota", 3, 1, 0, 1, 10, 20),
    ]


def test_throughput_counts_a_call_in_the_minute_in_which_it_started():
    ledger = Several()
    ledger.ask(ledger.p, "ab")
    (first,) = ledger.turn(budget=1).leases
    ledger.now_ms += 30_000
    ledger.turn(ledger.finish(first, Outcome.SUCCEEDED), budget=1)
    found = ledger.conn.execute("SELECT minute_at, started, succeeded FROM throughput_per_minute")
    assert found.fetchall() == [
        ("2001-09-09T01:46:00Z", 1, 1),
        ("2001-09-09T01:47:00Z", 1, 0),
    ]


def test_throughput_counts_each_kind_of_failure_and_what_is_in_flight():
    ledger = Several()
    outcomes = list(Outcome)
    ledger.ask(ledger.r, map(str, range(len(outcomes) + 1)))
    control.set_concurrency(ledger.conn, "other", 50)
    control.set_adaptive(ledger.conn, "other", ledger.now_ms, adaptive=False)
    leases = ledger.turn(budget=99).leases
    ends = zip(leases, outcomes, strict=False)
    ledger.turn(*(ledger.finish(lease, outcome) for lease, outcome in ends), budget=0)
    counts = "SELECT started, succeeded, throttled, failed FROM throughput_per_minute"
    assert ledger.row(counts) == (13, 1, 1, 4), "transient, unavailable, abandoned, no_answer"


def test_the_history_of_limits_tells_who_what_why_and_until_when(told):
    columns = ("changed_at", "limit", "what", "per_minute", "until_at", "why")
    found = rows(told, "SELECT * FROM limit_history")
    assert [list(row) for row in found] == [list(columns)] * 4
    at, until = "2001-09-09T01:47:44.750Z", "2001-09-09T01:47:49.750Z"
    assert [tuple(row.values()) for row in found] == [
        (at, "other", "gate_closed", None, until, "quota: slow"),
        (at, "other", "set", 90, None, "per_minute = 90"),
        (at, "other", "paused", None, "2001-09-09T01:47:45.000Z", "crawler pause"),
        (at, "other", "resumed", None, None, "crawler resume"),
    ]


def test_the_history_says_after_how_many_starts_a_limit_changed(told):
    changes = told.conn.execute("SELECT limit_id, started FROM limit_changes").fetchall()
    assert changes == [(2, 2)] * 4
    control.set_per_minute(told.conn, "quota", 50, told.now_ms)
    assert told.row("SELECT limit_id, started FROM limit_changes ORDER BY id DESC") == (1, 8)


def test_a_prompts_own_view_shows_values_that_are_false_as_they_are(told):
    assert rows(told, "SELECT * FROM q") == [
        {
            "word": "ähm",
            "number": 0,
            "yes": 0,
            "empty": "",
            "nothing": None,
            "list": "[0]",
            "lacking": None,
            "text": json.dumps(ANSWER),
            "model": "m",
            "version": 2,
            "finished_at": "2001-09-09T01:47:44.750Z",
            "word_id": 1,
            "request_id": 8,
        }
    ]


def test_a_prompts_own_view_tells_of_the_attempt_that_brought_the_answer(told):
    told.now_ms += 60_000
    (again,) = [lease for lease in told.turn().leases if lease.word == "z"]
    assert again.number == 2
    told.now_ms += 1_250
    told.turn(told.finish(again, Outcome.SUCCEEDED, text='{"number": 2}'), budget=0)
    found = told.row("SELECT word, number, finished_at, request_id FROM q ORDER BY 4 DESC")
    assert found == ("z", 2, "2001-09-09T01:48:46.000Z", 9)


def test_two_prompts_have_a_view_each_of_their_own_answers(told):
    other = told.put("s", "On {word}", limit="quota", response_schema=SCHEMA)
    told.ask(other, ["z", "ähm"])
    told.now_ms += 60_000
    leases = {lease.word: lease for lease in told.turn().leases if lease.prompt_id == other.id}
    told.turn(told.finish(leases["ähm"], Outcome.SUCCEEDED, text='{"number": 5}'), budget=0)
    assert [(row["word"], row["number"]) for row in rows(told, "SELECT * FROM s")] == [("ähm", 5)]
    assert [(row["word"], row["number"]) for row in rows(told, "SELECT * FROM q")] == [("ähm", 0)]


def test_runs_tell_of_their_lives(told):
    known = "id, pid, host, version, started_at_ms, heartbeat_at_ms, ended_at_ms, reason"
    found = told.conn.execute(f"SELECT {known}, late_answers FROM runs").fetchall()
    died_ms, now_ms = BEGAN_MS + 2_000, told.now_ms
    assert found == [
        (1, 1, "host", "0", BEGAN_MS, died_ms, died_ms, "died", 1),
        (2, 1, "host", "0", died_ms, now_ms - 2_750, None, None, 0),
    ]


def test_an_answer_that_came_late_is_in_no_view(told):
    assert told.row("SELECT count(*) FROM results WHERE text = 'late'") == (0,)
    assert told.row("SELECT sum(tokens_in) FROM throughput_per_minute") == (22,)


def test_what_was_cancelled_and_asked_for_again_is_shown_as_any_other(told):
    assert control.retry(told.conn, [told.p.id], None, ["cancelled"]) == 2
    told.now_ms += 60_000
    leases = {lease.word: lease for lease in told.turn().leases if lease.prompt_id == 1}
    assert {word: lease.number for word, lease in leases.items()} == {"e": 2, "f": 1, "g": 2}
    told.turn(told.finish(leases["e"], Outcome.SUCCEEDED, tokens_in=6), budget=0)
    found = told.row("SELECT attempts, tokens_in, started_at FROM results WHERE word = 'e'")
    assert found == (2, 6, "2001-09-09T01:48:44.750Z")
    assert told.row("SELECT requests, leased, cancelled FROM progress") == (7, 2, 0)


def test_a_failure_that_is_answered_after_a_retry_is_none_any_more(told):
    control.retry(told.conn, [told.p.id], [3], ["failed"])
    told.now_ms += 60_000
    (lease,) = [lease for lease in told.turn().leases if lease.word == "c"]
    told.turn(told.finish(lease, Outcome.REJECTED, reason="new", text="second"), budget=0)
    last = "SELECT reason, attempts, failures, draft FROM failures WHERE word = 'c'"
    assert told.row(last) == ("new", 2, 0, "second")
    control.retry(told.conn, [told.p.id], [3], ["failed"])
    told.now_ms += 60_000
    (lease,) = [lease for lease in told.turn().leases if lease.word == "c"]
    told.turn(told.finish(lease, Outcome.SUCCEEDED), budget=0)
    assert told.row(last) is None
    assert told.row("SELECT attempts FROM results WHERE word = 'c'") == (3,)


def test_a_failure_of_an_older_version_is_marked(ledger):
    ledger.add("a")
    (lease,) = ledger.turn().leases
    ledger.turn(ledger.finish(lease, Outcome.REJECTED))
    assert ledger.row("SELECT current FROM failures") == (1,)
    spec = intake.PromptSpec(ledger.prompt.name, "Of {word}", "scripted", "m", {})
    intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
    assert ledger.row("SELECT current FROM failures") == (0,)


def test_results_show_the_newest_answer_of_what_is_on_the_list(ledger):
    def answered(text):
        (lease,) = ledger.turn().leases
        ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED, text=text), budget=0)

    def shown():
        columns = "word, text, version, stale, request_id"
        return ledger.conn.execute(f"SELECT {columns} FROM results").fetchall()

    ledger.add("a")
    answered("old")
    standing.ask_again(ledger.conn, ledger.prompt.id, [1])
    assert shown() == [("a", "old", 1, 0, 1)], "it counts until the new one is there"
    answered("new")
    assert shown() == [("a", "new", 1, 0, 2)]
    spec = intake.PromptSpec(ledger.prompt.name, "Of {word}", "scripted", "m", {})
    intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
    assert shown() == [("a", "new", 1, 1, 2)]
    assert standing.remove(ledger.conn, [2], ledger.now_ms) == (1, 0)
    assert shown() == []
    assert ledger.row("SELECT sum(succeeded), sum(removed) FROM progress") == (0, 1)
    assert standing.bring_back(ledger.conn, ledger.prompt.id, ["a"]) == 1
    assert shown() == [("a", "new", 1, 1, 2)]


def test_the_first_results_are_found_without_a_look_at_all(ledger):
    """In the order of the list: nobody waits for a million rows to be sorted."""
    plan = ledger.conn.execute("EXPLAIN QUERY PLAN SELECT * FROM results LIMIT 5").fetchall()
    assert any("requests_in_order" in step[3] for step in plan)
    assert not any("ORDER BY" in step[3] for step in plan)
