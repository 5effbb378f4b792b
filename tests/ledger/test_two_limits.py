"""Two limits, two prompts under one of them: each is counted for itself, a budget for all."""

import dataclasses

import pytest

from crawler.ledger import control, intake
from crawler.ledger.budget import Allowance
from crawler.ledger.limits import put_limit
from crawler.ledger.runs import Selection
from crawler.ledger.status import status
from crawler.ledger.turn import turn
from crawler.states import Outcome
from crawler.states.kinds import Kind
from tests.ledger.several import Several, by_prompt

MINUTE_MS = 60_000


@pytest.fixture
def both():
    """Each of the three prompts is to ask about five words of its own."""
    made = Several()
    for prompt, words in ((made.p, "abcde"), (made.q, "fghij"), (made.r, "klmno")):
        made.ask(prompt, words)
    yield made
    made.conn.close()


def in_flight(both, limit):
    return both.row(
        "SELECT count(*) FROM attempts JOIN limits ON limits.id = limit_id"
        " WHERE name = ? AND finished_at_ms IS NULL",
        limit,
    )[0]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (0, {}),
        (1, {1: ["a"]}),
        (5, {1: [*"abcde"]}),
        (6, {1: [*"abcde"], 2: ["f"]}),
        (12, {1: [*"abcde"], 2: [*"fghij"], 3: [*"kl"]}),
    ],
)
def test_a_budget_of_calls_is_one_for_all_limits(both, budget, expected):
    assert by_prompt(both.turn(budget=budget).leases) == expected


def test_funds_are_one_for_all_limits(both):
    (each,) = {lease.cost for lease in both.turn(budget=1, left=10**6).leases}
    done = both.turn(left=5 * each)
    assert by_prompt(done.leases) == {1: [*"bcde"], 2: ["f"]}, "four of one limit, one of the other"
    assert done.over_budget
    assert sum(lease.cost for lease in done.leases) <= 5 * each


def test_who_has_funds_for_one_call_makes_one(both):
    (first,) = both.turn(budget=1, left=10**6).leases
    done = both.turn(left=1.5 * first.cost)
    assert len(done.leases) == 1
    assert done.over_budget


def test_where_funds_suffice_for_all_none_are_missing(both):
    done = both.turn(left=10**6)
    assert len(done.leases) == 15
    assert not done.over_budget


def test_each_prompt_has_an_estimate_of_its_own():
    ledger = Several()
    long = ledger.put("long", f"{'x' * 1_000} {{word}}", limit="other")
    ledger.ask(ledger.q, "a")
    ledger.ask(long, "a")
    control.set_tokens_per_minute(ledger.conn, "other", 10**9, ledger.now_ms)
    short_one, long_one = ledger.turn(left=10**6).leases
    assert long_one.cost - short_one.cost == 1_000 - len("Of ") + 1
    assert long_one.tokens > short_one.tokens + 200
    ledger.turn(ledger.finish(short_one, Outcome.SUCCEEDED, tokens_in=1, tokens_out=7), budget=0)
    means = "SELECT tokens_out_mean FROM tallies WHERE prompt_id = ?"
    assert ledger.row(means, ledger.q.id) == (7,)
    assert ledger.row(means, long.id) == (250,), "nobody has answered that one"


def test_places_in_flight_are_counted_by_limit(both):
    control.set_concurrency(both.conn, "quota", 2)
    control.set_concurrency(both.conn, "other", 7)
    leases = both.turn().leases
    assert by_prompt(leases) == {1: [*"ab"], 2: [*"fghij"], 3: [*"kl"]}
    assert both.turn().leases == []
    done = both.turn(both.finish(leases[0], Outcome.SUCCEEDED))
    assert by_prompt(done.leases) == {1: ["c"]}, "a place of the one is none of the other"
    assert (in_flight(both, "quota"), in_flight(both, "other")) == (2, 7)


def test_windows_are_counted_by_limit(both):
    both.fix_limit("quota", 2)
    both.fix_limit("other", 7)
    leases = both.turn().leases
    assert by_prompt(leases) == {1: [*"ab"], 2: [*"fghij"], 3: [*"kl"]}
    both.turn(*(both.finish(lease, Outcome.SUCCEEDED) for lease in leases), budget=0)
    assert both.turn().leases == []
    both.fix_limit("other", 8)
    assert by_prompt(both.turn().leases) == {3: ["m"]}
    assert (both.limit("quota", "started"), both.limit("other", "started")) == (2, 8)
    numbers = both.conn.execute("SELECT limit_id, nth FROM attempts ORDER BY 1, 2").fetchall()
    assert numbers == [(1, 1), (1, 2), *((2, n) for n in range(1, 9))]


def test_tokens_are_counted_by_limit(both):
    for limit in ("quota", "other"):
        both.fix_limit(limit, None)
    control.set_tokens_per_minute(both.conn, "quota", 3_000, both.now_ms)
    both.turn()
    assert in_flight(both, "quota") == 1, "the first one alone uses them up"
    assert in_flight(both, "other") == 10
    reserved = both.conn.execute("SELECT limit_id, tokens_reserved IS NULL FROM attempts")
    assert set(reserved) == {(1, 0), (2, 1)}, "only one of them counts tokens"


def test_a_pause_of_one_holds_no_other(both):
    assert control.pause(both.conn, "other", both.now_ms) == 1
    assert by_prompt(both.turn().leases) == {1: [*"abcde"]}
    assert control.pause(both.conn, None, both.now_ms) == 2
    assert control.resume(both.conn, "other", both.now_ms) == 1
    assert by_prompt(both.turn().leases) == {2: [*"fghij"], 3: [*"klmno"]}
    assert both.limit("quota", "paused_at_ms") == both.now_ms, "it is still paused"
    assert control.resume(both.conn, None, both.now_ms) == 2


@pytest.mark.parametrize(
    ("outcome", "kind"), [(Outcome.THROTTLED, None), (Outcome.UNAVAILABLE, Kind.MODEL_LOADING)]
)
def test_a_refusal_closes_the_gate_of_its_own_limit(both, outcome, kind):
    leases = {lease.prompt_id: lease for lease in both.turn().leases}
    both.ask(both.p, "stu")
    both.ask(both.r, "vwx")
    done = both.turn(both.finish(leases[both.r.id], outcome, reason="no", reason_code=kind))
    assert by_prompt(done.leases) == {1: [*"stu"]}
    assert both.limit("quota", "gate_cause") is None
    assert both.limit("other", "gate_reason") == "no"
    history = both.conn.execute('SELECT "limit", what FROM limit_history').fetchall()
    assert history == [("other", "gate_closed")]
    assert done.gate.cause == "", "a run with other work does not wait for it"


def test_who_cannot_be_reached_closes_the_open_gates_of_all_limits_of_the_provider(both):
    third = both.put("s", "To {word}", limit="third")
    both.ask(third, "a")
    both.conn.execute("DROP TRIGGER IF EXISTS prompts_are_immutable")
    both.conn.execute("UPDATE prompts SET provider = 'openai' WHERE name = 's'")
    leases = {lease.prompt_id: lease for lease in both.turn().leases}
    both.turn(both.finish(leases[both.r.id], Outcome.UNAVAILABLE, reason="refused"), budget=0)
    closed = both.conn.execute("SELECT name, gate_cause, gate_reason FROM limits ORDER BY id")
    assert closed.fetchall() == [
        ("quota", "outage", "refused"),
        ("other", "outage", "refused"),
        ("third", None, None),
    ]


def test_a_function_that_cannot_be_reached_holds_up_no_other(both):
    """Each is a service of its own."""
    leases = {lease.prompt_id: lease for lease in both.turn().leases}
    both.conn.execute("DROP TRIGGER IF EXISTS prompts_are_immutable")
    both.conn.execute("UPDATE prompts SET provider = 'function'")
    both.turn(both.finish(leases[both.p.id], Outcome.UNAVAILABLE, reason="away"), budget=0)
    closed = both.conn.execute("SELECT name, gate_cause FROM limits ORDER BY id")
    assert closed.fetchall() == [("quota", "outage"), ("other", None)]


def test_a_try_in_the_millisecond_in_which_the_gate_closed_is_one(both):
    leases = {lease.prompt_id: lease for lease in both.turn(budget=15).leases}
    both.turn(both.finish(leases[both.p.id], Outcome.THROTTLED), budget=0)
    control.resume(both.conn, "quota", both.now_ms)
    tries = 0
    for _ in range(3):
        tries += sum(lease.prompt_id == both.p.id for lease in both.turn().leases)
        tries += sum(lease.prompt_id == both.p.id for lease in both.turn().leases)
        both.now_ms += 1
    assert tries == 1


def test_what_ends_in_one_transaction_teaches_each_limit_its_own(both):
    leases = both.turn().leases
    ends = [
        both.finish(lease, Outcome.THROTTLED if lease.prompt_id == 1 else Outcome.SUCCEEDED)
        for lease in leases
    ]
    both.turn(*ends, budget=0)
    learned = both.conn.execute("SELECT name, gate_cause FROM limits ORDER BY id")
    assert learned.fetchall() == [("quota", "quota"), ("other", None)]


def test_an_outage_of_one_is_none_of_the_other(both):
    leases = both.turn().leases
    other = [lease for lease in leases if lease.prompt_id != 1]
    own = next(lease for lease in leases if lease.prompt_id == 1)
    for lease in other:
        both.now_ms += 50
        both.turn(both.finish(lease, Outcome.TRANSIENT, status_code=503), budget=0)
    both.turn(both.finish(own, Outcome.TRANSIENT, status_code=503), budget=0)
    assert both.limit("other", "gate_cause") == "outage"
    assert both.limit("quota", "gate_cause") is None


def test_the_end_of_an_outage_opens_no_gate_of_a_quota(both):
    leases = {lease.prompt_id: lease for lease in both.turn().leases}
    away = both.finish(leases[both.p.id], Outcome.UNAVAILABLE)
    refused = both.finish(leases[both.q.id], Outcome.THROTTLED, retry_after_ms=9_000)
    both.turn(away, refused, budget=0)
    control.end_outage(both.conn, both.now_ms)
    assert both.limit("quota", "gate_cause") is None
    assert both.limit("other", "gate_cause") == "quota"
    assert both.limit("other", "gate_opens_at_ms") == both.now_ms + 9_000
    ended = both.conn.execute("SELECT \"limit\" FROM limit_history WHERE why = 'the run gave up'")
    assert ended.fetchall() == [("quota",)]


def test_it_looks_again_when_the_first_of_them_has_something(both):
    leases = {lease.prompt_id: lease for lease in both.turn(budget=15).leases}
    soon = both.finish(leases[both.q.id], Outcome.THROTTLED, retry_after_ms=7_000)
    later = both.finish(leases[both.p.id], Outcome.THROTTLED, retry_after_ms=50_000)
    done = both.turn(later, soon)
    assert done.wake_at_ms == both.now_ms + 7_000
    assert done.gate.opens_at_ms == both.now_ms + 7_000
    assert done.unfinished == 15


def test_the_gate_that_is_told_is_one_with_work(both):
    """A gate that is closed for no work of the run ends it as little as one of another file."""
    leases = both.turn(budget=5).leases
    both.turn(*(both.finish(lease, Outcome.SUCCEEDED) for lease in leases[1:]), budget=0)
    done = both.turn(both.finish(leases[0], Outcome.THROTTLED, daily=True), budget=0)
    assert done.gate.cause == "", "the other limit is open"
    control.cancel(both.conn, [both.q.id, both.r.id], None)
    assert both.turn(budget=0).gate.cause == "day"
    control.cancel(both.conn, [both.p.id], None)
    done = both.turn(budget=0)
    assert (done.gate.cause, done.unfinished) == ("", 0)


def test_a_run_for_one_prompt_waits_for_no_other_limit(both):
    only = dataclasses.replace(both.scope(), selection=Selection(prompt_ids=(both.r.id,)))
    both.scope = lambda run_id=None: only
    done = both.turn()
    assert by_prompt(done.leases) == {3: [*"klmno"]}
    assert done.unfinished == 5


@pytest.mark.parametrize("selection", [Selection(), Selection(prompt="f")])
def test_no_program_asks_what_a_function_answers_though_it_is_named(both, selection):
    spec = intake.PromptSpec("f", "About {word}", "function", "module.f", {})
    function = intake.put_prompt(both.conn, spec, put_limit(both.conn, "module.f", 10), 1)[0]
    both.ask(function, "xyz")
    scope = dataclasses.replace(both.scope(), selection=selection)
    done = turn(both.conn, scope, [], Allowance(99))
    assert function.id not in by_prompt(done.leases)
    assert done.unfinished == (0 if selection.prompt else 15)
    its_own = dataclasses.replace(scope, selection=Selection(prompt_ids=(function.id,)))
    assert by_prompt(turn(both.conn, its_own, [], Allowance(99)).leases) == {function.id: [*"xyz"]}


def test_a_new_setting_is_that_of_one_limit(both):
    both.turn(budget=0)
    columns = ("per_minute", "tokens_per_minute", "adaptive", "concurrency")
    before = [both.limit("quota", column) for column in columns]
    control.set_per_minute(both.conn, "other", 7, both.now_ms)
    control.set_tokens_per_minute(both.conn, "other", 900, both.now_ms)
    control.set_adaptive(both.conn, "other", both.now_ms, adaptive=False)
    control.set_concurrency(both.conn, "other", 3)
    assert [both.limit("quota", column) for column in columns] == before
    assert [both.limit("other", column) for column in columns] == [7, 900, 0, 3]
    told = both.conn.execute('SELECT "limit", why FROM limit_history ORDER BY why').fetchall()
    assert told == [
        ("other", "adaptive = 0"),
        ("other", "concurrency = 3"),
        ("other", "per_minute = 7"),
        ("other", "tokens_per_minute = 900"),
    ]


def test_the_time_of_a_file_is_that_of_its_newest_start_under_any_limit(both):
    """A clock that was set back opens no burst under the limit that started last, either."""
    both.fix_limit("other", 3)
    control.pause(both.conn, "other", both.now_ms)
    assert len(both.turn().leases) == 5
    both.now_ms += 10_000
    control.resume(both.conn, "other", both.now_ms)
    newest_ms = both.now_ms
    assert len(both.turn().leases) == 3
    both.now_ms -= 3_600_000
    done = both.turn()
    assert (done.leases, done.now_ms) == ([], newest_ms)


def test_calls_that_share_a_prompt_name_but_no_version_share_the_limit(both):
    old = both.q
    new = both.put("q", "Of {word}!", limit="other")
    assert intake.waiting_words(both.conn, new.id) == 5
    control.set_concurrency(both.conn, "other", 3)
    leases = both.turn().leases
    assert by_prompt(leases) == {1: [*"abcde"], 3: [*"klm"]}, "r was there before that version"
    assert both.turn().unfinished == 15, "the old version of q is nobody's work any more"
    assert both.state_of(old) == {}, "what waited is asked by the new version"


def test_a_status_counts_the_current_versions_alone(both):
    """An old version has what has ended: answered or failed. What was pending is the new one's."""
    one, two = (lease for lease in both.turn(budget=7).leases if lease.prompt_id == both.q.id)
    ends = both.finish(one, Outcome.SUCCEEDED), both.finish(two, Outcome.BLOCKED)
    both.turn(*ends, budget=0)
    both.put("q", "Of the {word}", limit="other")
    now = status(both.conn, 600, both.now_ms)
    old = next(row for row in now.progress if not row.current)
    assert (old.prompt, old.succeeded, old.failed, old.pending) == ("q", 1, 1, 0)
    assert (now.succeeded, now.failed, now.unfinished) == (0, 0, 13)


def test_a_status_tells_of_a_backoff_under_its_own_limit(both):
    control.cancel(both.conn, [both.p.id, both.r.id], None)
    leases = both.turn().leases
    both.turn(*(both.finish(one, Outcome.TRANSIENT, retry_after_ms=9_000) for one in leases[:4]))
    both.turn(*(both.finish(one, Outcome.SUCCEEDED) for one in leases[4:]), budget=0)
    quota, other = status(both.conn, 600, both.now_ms).limits
    assert (quota.held_by, quota.until_ms) == (None, None)
    assert other.held_by == "backoff"
    assert other.until_ms >= both.now_ms + 9_000


def test_a_status_tells_of_each_limit_what_is_its_own(both):
    both.fix_limit("quota", 20)
    control.set_concurrency(both.conn, "other", 4)
    leases = both.turn(budget=7).leases
    both.now_ms += 6_000
    own = [both.finish(lease, Outcome.SUCCEEDED) for lease in leases if lease.prompt_id == 1]
    both.turn(*own, budget=0)
    control.pause(both.conn, "other", both.now_ms, both.now_ms + 9_000)
    quota, other = status(both.conn, 600, both.now_ms).limits
    assert (quota.limit, quota.concurrency, quota.per_minute) == ("quota", 10, 20)
    assert (quota.in_flight, quota.started_last_minute, quota.held_by) == (0, 5, None)
    assert quota.succeeded_per_minute == 20, "50 a minute, but no minute has more"
    assert (other.limit, other.concurrency, other.per_minute) == ("other", 4, None)
    assert (other.in_flight, other.started_last_minute, other.held_by) == (2, 2, "paused")
    assert (other.until_ms, other.succeeded_per_minute) == (both.now_ms + 9_000, 0)


def test_a_status_of_what_a_run_asks_has_its_prompts_and_the_limits_that_it_waits_for(both):
    both.turn()
    only = status(both.conn, 0, both.now_ms, Selection(prompt="q"))
    assert [row.prompt for row in only.progress] == ["q"]
    assert [row.limit for row in only.limits] == ["other"]
    everything = status(both.conn, 0, both.now_ms)
    assert [row.prompt for row in everything.progress] == ["p", "q", "r"]
    assert [row.limit for row in everything.limits] == ["quota", "other"]


def test_the_time_left_is_that_of_the_slowest_limit(both):
    """What the one is quick at is of no use to what is left under the other."""
    slow, *_, quick = both.turn(budget=6).leases
    both.now_ms += 30_000
    ended = [both.finish(lease, Outcome.SUCCEEDED) for lease in (slow, quick)]
    both.turn(*ended, budget=0)
    done = both.turn(budget=0)
    assert done.unfinished == 13
    more = [lease for lease in both.turn().leases if lease.prompt_id != both.p.id]
    both.now_ms += 1
    both.turn(*(both.finish(lease, Outcome.SUCCEEDED) for lease in more[:7]), budget=0)
    now = status(both.conn, 600, both.now_ms)
    left = {limit.limit: (limit.unfinished, limit.eta_ms) for limit in now.limits}
    assert (left["quota"][0], left["other"][0]) == (4, 2)
    assert now.eta_ms == left["quota"][1] == pytest.approx(4 * 30_001, abs=200)
    assert left["other"][1] == pytest.approx(2 * 30_001 / 8, abs=200)
