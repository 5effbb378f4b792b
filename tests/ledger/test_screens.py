"""What status and show read of two runs, two limits, two versions, and of times and prices."""

import pytest

from crawler.ledger import control
from crawler.ledger.budget import Allowance
from crawler.ledger.intake import add_words, prompts
from crawler.ledger.results import field_names, last_answered, last_ended, timeline
from crawler.ledger.runs import LastEnd, last_end, start_run
from crawler.ledger.standing import ask_by
from crawler.ledger.status import LimitStatus, Progress, Status, status
from crawler.ledger.turn import turn
from crawler.ledger.why import why_not
from crawler.protocol import Word
from crawler.states import Outcome, RequestState
from tests.ledger.several import Several

NOW_MS = 1_000_000


@pytest.fixture
def several():
    made = Several()
    yield made
    made.conn.close()


def limit_status(**facts):
    known = dict.fromkeys(LimitStatus._fields)
    return LimitStatus(**{**known, "succeeded_per_minute": 0.0, **facts})


def left(pending, *limits):
    """Return a status with so many requests left."""
    row = Progress("p", 1, "scripted", "m", pending, 0, 5, 0, 0, current=True)
    return Status([row], list(limits), [], NOW_MS)


class TestTimeLeft:
    def test_it_is_the_longest_wait_of_all_limits(self):
        short = limit_status(until_ms=NOW_MS + 5_000, succeeded_per_minute=60.0, unfinished=2)
        long = limit_status(until_ms=NOW_MS + 90_000, succeeded_per_minute=60.0, unfinished=2)
        none = limit_status(succeeded_per_minute=60.0, unfinished=2)
        assert left(2, short, long, none).eta_ms == 90_000
        assert left(2, long, none, short).eta_ms == 90_000
        assert left(2, none).eta_ms == 2_000

    def test_it_is_that_of_the_work_where_the_wait_is_shorter(self):
        wait = limit_status(until_ms=NOW_MS + 5_000, succeeded_per_minute=30.0, unfinished=10)
        other = limit_status(succeeded_per_minute=30.0, unfinished=10)
        assert left(20, wait, other).eta_ms == 20_000

    def test_it_is_that_of_the_slowest_limit(self):
        slow = limit_status(succeeded_per_minute=6.0, unfinished=10)
        quick = limit_status(succeeded_per_minute=600.0, unfinished=50)
        assert left(60, slow, quick).eta_ms == left(60, quick, slow).eta_ms == 100_000

    def test_a_limit_of_which_nothing_is_known_makes_all_unknown_and_an_idle_one_nothing(self):
        quick = limit_status(succeeded_per_minute=600.0, unfinished=50)
        silent = limit_status(unfinished=100_000)
        assert left(50, quick, silent).eta_ms is None
        paused = limit_status(held_by="paused", until_ms=NOW_MS + 10**6)
        assert left(50, quick, paused).eta_ms == 5_000

    def test_it_is_not_known_where_nothing_was_answered(self):
        assert left(20, limit_status(until_ms=NOW_MS + 5_000, unfinished=20)).eta_ms is None
        assert left(0, limit_status(held_by="paused")).eta_ms == 0


def limit_of(ledger, name="quota"):
    found = status(ledger.conn, 600, ledger.now_ms).limits
    return next(row for row in found if row.limit == name)


def answer_after(ledger, passed_ms):
    (lease,) = ledger.turn(budget=1).leases
    ledger.now_ms += passed_ms
    ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED), budget=0)


def test_a_rate_is_of_what_was_answered_and_not_of_what_is_allowed(ledger):
    ledger.fix(600)
    ledger.add("ab")
    answer_after(ledger, 10_000)
    assert limit_of(ledger).succeeded_per_minute == 6


def test_a_rate_is_taken_from_a_second_at_the_least(ledger):
    ledger.add("ab")
    answer_after(ledger, 5)
    assert limit_of(ledger).succeeded_per_minute == 60


def test_no_backoff_is_told_while_another_call_is_in_flight(ledger):
    ledger.add("ab")
    a, b = ledger.turn().leases
    ledger.turn(ledger.finish(a, Outcome.TRANSIENT, retry_after_ms=9_000), budget=0)
    assert (limit_of(ledger).in_flight, limit_of(ledger).held_by) == (1, None)
    ledger.turn(ledger.finish(b, Outcome.SUCCEEDED), budget=0)
    assert (limit_of(ledger).in_flight, limit_of(ledger).held_by) == (0, "backoff")


def test_no_backoff_is_told_of_a_version_that_nobody_asks(several):
    several.ask(several.p, "a")
    (lease,) = several.turn().leases
    several.turn(several.finish(lease, Outcome.TRANSIENT, retry_after_ms=9_000), budget=0)
    assert limit_of(several).held_by == "backoff"
    several.put("p", "On the {word}", limit="quota")
    assert limit_of(several).held_by is None


def test_a_backoff_is_since_its_attempt_began(ledger):
    ledger.add("a")
    began_ms = ledger.now_ms
    (lease,) = ledger.turn().leases
    ledger.now_ms += 7
    ledger.turn(ledger.finish(lease, Outcome.TRANSIENT, retry_after_ms=9_000), budget=0)
    found = why_not(ledger.conn, 1, {ledger.run_id}, ledger.policy, ledger.now_ms)
    assert (found.code, found.since_ms) == ("backoff", began_ms)


@pytest.mark.parametrize(("price_in", "price_out"), [(1.0, 3.0), (3.0, 1.0), (0.0, 2.0)])
def test_what_a_call_may_cost_is_of_both_prices(ledger, price_in, price_out):
    ledger.add("a")
    options = {"budget": 9.0, "price_in": price_in, "price_out": price_out}
    run = start_run(ledger.conn, 1, "h", "0", ledger.now_ms, options=options)
    turn(ledger.conn, ledger.scope(run), [], Allowance(0, 1.0))
    found = why_not(ledger.conn, 1, {run}, ledger.policy, ledger.now_ms)
    tokens_in = len("About {word}") + len("{}") + len("a")
    assert found.cost == price_in * tokens_in + price_out * 1_000


def test_the_last_end_is_that_of_the_run_that_was_last_begun(ledger):
    assert last_end(ledger.conn)[:2] == (None, None)
    newer = ledger.start_run()
    ledger.end_run(ledger.run_id, Outcome.INTERRUPTED, "deadline", by=newer)
    assert last_end(ledger.conn)[:2] == (None, None), "it goes on"
    ledger.now_ms += 1
    ledger.end_run(newer, Outcome.INTERRUPTED, "finished")
    assert last_end(ledger.conn) == LastEnd("finished", ledger.now_ms, ledger.now_ms - 1)


def test_of_two_runs_the_later_one_tells_also_where_it_has_ended_first(ledger):
    newer = ledger.start_run()
    ledger.end_run(newer, Outcome.INTERRUPTED, "max_calls")
    ledger.now_ms += 9
    ledger.end_run(ledger.run_id, Outcome.INTERRUPTED, "deadline")
    assert last_end(ledger.conn).reason == "max_calls"


def test_which_version_was_last_answered(ledger):
    """The current one, or else the newest of those with an answer."""

    def answered(prompt):
        add_words(ledger.conn, prompt.id, [Word("a", {})], ledger.now_ms)
        ask_by(ledger.conn, prompt.id, ["a"])
        (lease,) = ledger.turn().leases
        ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED), budget=0)

    several = Several()
    ledger, first = several, several.p
    assert last_answered(ledger.conn, "p") is None
    answered(first)
    answered(several.put("p", "Two {word}", limit="quota"))
    assert last_answered(ledger.conn, "p").version == 2
    several.put("p", "Three {word}", limit="quota")
    assert last_answered(ledger.conn, "p").version == 2
    several.put("p", "About {word}", limit="quota")
    assert last_answered(ledger.conn, "p").version == 1
    ledger.conn.close()


def test_each_attempt_is_shown_with_what_it_has_brought_itself(ledger):
    ledger.add(["a"])
    said = []
    for outcome, facts in [
        (Outcome.TRANSIENT, {"reason": "503"}),
        (Outcome.NO_ANSWER, {"reason": "cut off", "text": "half"}),
        (Outcome.THROTTLED, {"reason": "429"}),
        (Outcome.SUCCEEDED, {"text": "whole"}),
    ]:
        (lease,) = ledger.turn(budget=1).leases
        ledger.turn(ledger.finish(lease, outcome, **facts), budget=0)
        said += [row.said for row in last_ended(ledger.conn, 9)[0]]
        ledger.now_ms += 100_000
    shown = [(row.reason, row.draft, row.text) for row in timeline(ledger.conn, "a")]
    assert shown == [
        ("503", None, None),
        ("cut off", "half", None),
        ("429", None, None),
        (None, None, "whole"),
    ]
    assert said == ["503", "cut off", "429", "whole"], "the last call of a word stands for it"


def test_fields_have_the_order_in_which_they_came(ledger):
    words = [Word("b", {"z": "1", "m": "2"}), Word("a", {"a": "3", "z": "4"}), Word("c", {})]
    add_words(ledger.conn, ledger.prompt.id, words, ledger.now_ms)
    assert field_names(ledger.conn, ledger.prompt.id) == ["z", "m", "a"]


def test_the_same_fields_again_are_no_others(ledger):
    def added(**fields):
        words = [Word("a", fields)]
        return add_words(ledger.conn, ledger.prompt.id, words, ledger.now_ms).other_fields

    assert [added(x="1"), added(x="1"), added(), added(x="2"), added(x="1")] == [0, 0, 0, 1, 0]


def test_a_prompt_in_doubt_takes_no_place_that_another_has(several):
    """Its call that tries is one of those that may start, and not one more."""
    several.ask(several.q, "ab")
    several.ask(several.r, map(str, range(12)))
    control.pause(several.conn, "quota", several.now_ms)
    control.set_concurrency(several.conn, "other", 20)
    several.fix_limit("other", 1_000)
    leases = [one for one in several.turn().leases if one.prompt_id == several.r.id]
    facts = {"reason": "no", "reason_code": "model_missing", "status_code": 404}
    several.turn(*(several.finish(one, Outcome.REFUSED, **facts) for one in leases), budget=0)
    heir = several.start_run()
    several.end_run(several.run_id, Outcome.INTERRUPTED, "configuration", by=heir)
    first = several.turn(run_id=heir, budget=2)
    assert [lease.prompt_id for lease in first.leases] == [several.q.id] * 2
    then = several.turn(run_id=heir, budget=5)
    assert [lease.prompt_id for lease in then.leases] == [several.r.id], "one tries"


def test_what_has_waited_comes_before_what_is_fresh(ledger):
    ledger.add("abc")
    control.cancel(ledger.conn, [ledger.prompt.id], [1, 2])
    (c,) = ledger.turn().leases
    ledger.turn(ledger.finish(c, Outcome.TRANSIENT, retry_after_ms=1_000), budget=0)
    control.retry(ledger.conn, [ledger.prompt.id], [1, 2], [RequestState.CANCELLED])
    ledger.now_ms += 60_000
    found = [
        why_not(ledger.conn, request_id, {ledger.run_id}, ledger.policy, ledger.now_ms)
        for request_id in (1, 2, 3)
    ]
    assert [(why.code, why.ahead) for why in found] == [("next", 0), ("next", 1), ("next", 0)]
    assert [lease.word for lease in ledger.turn(budget=2).leases] == ["c", "a"]


def test_prompts_are_listed_by_name_and_version(several):
    several.put("q", "Another {word}", limit="other")
    several.put("a", "Of {word}", limit="other")
    several.put("q", "A third {word}", limit="other")
    found = [(prompt.name, prompt.version) for prompt in prompts(several.conn)]
    assert found == [("a", 1), ("p", 1), ("q", 1), ("q", 2), ("q", 3), ("r", 1)]


def test_when_all_is_done_nothing_waits(ledger):
    ledger.fix(1)
    ledger.add("ab")
    (lease,) = ledger.turn().leases
    ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED))
    assert limit_of(ledger).held_by == "per_minute"
    ledger.conn.execute("UPDATE requests SET state = 'cancelled' WHERE state = 'pending'")
    assert limit_of(ledger).held_by is None
    control.pause(ledger.conn, None, ledger.now_ms)
    assert limit_of(ledger).held_by == "paused", "a person has set it"
