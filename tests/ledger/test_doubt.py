"""What may be the fault of a prompt, an account or a network: the verdict waits for others."""

import heapq
import math
import random
from collections import Counter

import pytest

from crawler.ledger import control, intake
from crawler.ledger.finish import end_run
from crawler.ledger.limits import put_limit
from crawler.protocol import Word
from crawler.states import Outcome, RequestState
from crawler.states.kinds import Kind
from tests.conftest import LONG, Ledger


def refuse(ledger, leases, kind=Kind.MODEL_MISSING, outcome=Outcome.REFUSED, **facts):
    ends = [
        ledger.finish(
            e, outcome, reason="no such model", status_code=404, reason_code=kind, **facts
        )
        for e in leases
    ]
    return ledger.turn(*ends, budget=0)


def next_run(ledger):
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.INTERRUPTED, "configuration")
    ledger.run_id = ledger.start_run()


def counts(ledger):
    return ledger.row("SELECT pending, leased, succeeded, failed FROM tallies WHERE prompt_id = 1")


@pytest.fixture
def ledger():
    made = Ledger(concurrency=100)
    made.fix(1_000)
    made.add(map(str, range(40)))
    yield made
    made.conn.close()


@pytest.fixture
def doubted(ledger):
    done = refuse(ledger, ledger.turn(budget=10).leases)
    assert [doubt.reason for doubt in done.stops] == ["no such model"]
    return ledger


def test_nine_words_that_are_refused_have_failed_and_the_others_go_on(ledger):
    done = refuse(ledger, ledger.turn(budget=9).leases)
    assert done.stops == []
    assert counts(ledger) == (31, 0, 0, 9)
    assert len(ledger.turn().leases) == 31


def test_ten_that_are_refused_alike_stop_the_prompt_and_are_pending_again(doubted):
    assert counts(doubted) == (40, 0, 0, 0)
    done = doubted.turn()
    assert (done.leases, done.stopped, done.unfinished) == ([], 40, 40)


def test_what_was_in_flight_and_is_refused_as_well_comes_back_too(ledger):
    refuse(ledger, ledger.turn(budget=25).leases)
    assert counts(ledger) == (40, 0, 0, 0)


def test_a_thousand_successes_before_do_not_hide_it(ledger):
    leases = ledger.turn().leases
    ledger.turn(*(ledger.finish(e, Outcome.SUCCEEDED) for e in leases[:30]), budget=0)
    ledger.now_ms += 1
    assert refuse(ledger, leases[30:]).stops != []
    assert counts(ledger) == (10, 0, 30, 0)


def test_a_word_that_is_refused_while_others_are_served_has_failed_for_good(ledger):
    leases = ledger.turn().leases
    refuse(ledger, leases[:5])
    ledger.now_ms += 1
    ledger.turn(ledger.finish(leases[5], Outcome.SUCCEEDED), budget=0)
    ledger.now_ms += 1
    assert refuse(ledger, leases[6:15]).stops == [], "five and nine, with a success between"
    assert counts(ledger)[3] == 14


def test_refusals_of_two_kinds_are_not_alike(ledger):
    leases = ledger.turn().leases
    refuse(ledger, leases[:5])
    assert refuse(ledger, leases[5:14], Kind.PARAMETER).stops == []


def test_a_list_that_is_shorter_counts_as_a_whole():
    ledger = Ledger()
    ledger.add("ab")
    first, second = ledger.turn().leases
    assert refuse(ledger, [first]).stops == []
    assert refuse(ledger, [second]).stops != []
    assert counts(ledger) == (2, 0, 0, 0)


def test_each_new_run_sends_one_call_and_fails_no_word(doubted):
    for _ in range(3):
        next_run(doubted)
        (probe,) = doubted.turn().leases
        assert doubted.turn().leases == [], "one at a time"
        assert refuse(doubted, [probe]).stops != []
        assert doubted.turn().leases == []
        assert counts(doubted) == (40, 0, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.BLOCKED])
def test_a_word_that_is_served_ends_the_doubt(doubted, outcome):
    next_run(doubted)
    (probe,) = doubted.turn().leases
    doubted.now_ms += 1
    assert doubted.turn(doubted.finish(probe, outcome), budget=0).stops == []
    assert len(doubted.turn().leases) == 39


def test_what_the_text_calls_the_words_fault_is_no_doubt(ledger):
    leases = ledger.turn().leases
    for outcome, kind in ((Outcome.REJECTED, Kind.WORD), (Outcome.BLOCKED, Kind.BLOCKED)):
        assert refuse(ledger, leases[:20], kind, outcome).stops == []
        leases = leases[20:]
    assert counts(ledger) == (0, 0, 0, 40)


@pytest.mark.parametrize(
    ("outcome", "kind", "enough"),
    [
        (Outcome.DENIED, Kind.CREDENTIALS, 3),
        (Outcome.DENIED, Kind.SETUP, 1),
        (Outcome.DENIED, Kind.SETUP_KEY, 1),
        (Outcome.NO_MONEY, Kind.MONEY, 1),
        (Outcome.REFUSED, Kind.FORBIDDEN, 3),
        (Outcome.REFUSED, Kind.NETWORK_BLOCKED, 3),
        (Outcome.REFUSED, Kind.PERMISSION_MODEL, 3),
        (Outcome.REFUSED, Kind.MODEL_MISSING, 10),
        (Outcome.REFUSED, Kind.PARAMETER, 10),
        (Outcome.REFUSED, Kind.CONFIGURATION, 10),
        (Outcome.REFUSED, Kind.UNCLEAR, 10),
    ],
)
def test_how_many_are_enough(ledger, outcome, kind, enough):
    leases = ledger.turn(budget=enough).leases
    assert refuse(ledger, leases[:-1], kind, outcome).stops == []
    (doubt,) = refuse(ledger, leases[-1:], kind, outcome).stops
    assert doubt.kind is kind
    assert counts(ledger) == (40, 0, 0, 0)


def test_an_account_stops_all_prompts_of_its_provider_and_no_other(ledger):
    for name, provider, limit in (("same", "scripted", "one"), ("other", "openai", "two")):
        spec = intake.PromptSpec(name, "Of {word}", provider, "m", {})
        prompt, _ = intake.put_prompt(ledger.conn, spec, put_limit(ledger.conn, limit, 3), 1)
        intake.add_words(ledger.conn, prompt.id, [Word(w, {}) for w in "xy"], 1)
    asked = ledger.turn(budget=1).leases
    done = refuse(ledger, asked, Kind.MONEY, Outcome.NO_MONEY)
    assert {doubt.prompt_id for doubt in done.stops} == {1, 2}
    assert (done.stopped, done.unfinished) == (42, 44)
    assert [lease.prompt_id for lease in ledger.turn().leases] == [3, 3]


def test_one_prompt_in_doubt_holds_back_no_other_of_its_limit(doubted):
    spec = intake.PromptSpec("same", "Of {word}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(doubted.conn, spec, doubted.limit_id, 1)
    intake.add_words(doubted.conn, prompt.id, [Word(w, {}) for w in "xy"], 1)
    assert [lease.prompt_id for lease in doubted.turn().leases] == [2, 2]


@pytest.fixture
def two_doubted(ledger):
    """Two prompts, each of them refused to ten words, and a new run."""
    spec = intake.PromptSpec("second", "Of {word}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, put_limit(ledger.conn, "two", 100), 1)
    intake.add_words(ledger.conn, prompt.id, [Word(str(n), {}) for n in range(10)], 1)
    leases = ledger.turn().leases
    done = refuse(ledger, leases)
    assert [doubt.prompt_id for doubt in done.stops] == [1, 2]
    next_run(ledger)
    return ledger


def test_a_prompt_that_is_only_in_doubt_is_not_among_the_stopped(two_doubted):
    """Its one call met a full quota: the run has to wait for it, though the other is stopped."""
    first, second = two_doubted.turn().leases
    busy = two_doubted.finish(second, Outcome.THROTTLED, reason="429")
    two_doubted.turn(busy, budget=0)
    done = refuse(two_doubted, [first])
    assert [doubt.prompt_id for doubt in done.stops] == [1]
    assert (done.stopped, done.unfinished) == (40, 50)


def test_an_answer_to_one_prompt_ends_no_doubt_of_another(two_doubted):
    first, second = two_doubted.turn().leases
    two_doubted.now_ms += 1
    two_doubted.turn(two_doubted.finish(second, Outcome.SUCCEEDED), budget=0)
    assert len(two_doubted.turn().leases) == 9, "the second is served again"
    assert [doubt.prompt_id for doubt in refuse(two_doubted, [first]).stops] == [1]
    next_run(two_doubted)
    asked = [lease.prompt_id for lease in two_doubted.turn().leases]
    assert (asked.count(1), asked.count(2)) == (1, 9), "one call again"


def test_the_one_call_of_a_new_run_is_one_though_some_have_waited_and_some_are_fresh(ledger):
    failed, *leases = ledger.turn(budget=11).leases
    ledger.turn(ledger.finish(failed, Outcome.TRANSIENT, reason="503"), budget=0)
    refuse(ledger, leases)
    next_run(ledger)
    ledger.now_ms += 120_000
    assert ledger.row("SELECT count(*) FROM requests WHERE due_at_ms > 0") == (1,)
    assert [lease.word for lease in ledger.turn().leases] == [failed.word]


def test_ten_answers_that_are_cut_off_stop_the_prompt(ledger):
    leases = ledger.turn(budget=10).leases
    done = refuse(ledger, leases, Kind.TRUNCATED, Outcome.NO_ANSWER, truncated=True, text="half of")
    assert [doubt.kind for doubt in done.stops] == [Kind.TRUNCATED]


ANSWERS = [Kind.HALF, Kind.ODD, Kind.RECITATION, Kind.NOT_AN_ANSWER]


@pytest.mark.parametrize("kind", ANSWERS)
def test_ten_words_whose_answers_are_no_good_alike_stop_the_prompt(ledger, kind):
    leases = ledger.turn(budget=10).leases
    assert refuse(ledger, leases[:9], kind, Outcome.NO_ANSWER, text="half of").stops == []
    done = refuse(ledger, leases[9:], kind, Outcome.NO_ANSWER, text="half of")
    assert [doubt.kind for doubt in done.stops] == [kind]
    assert counts(ledger) == (40, 0, 0, 0)
    next_run(ledger)
    ledger.now_ms += 2_000
    (probe,) = ledger.turn().leases
    assert refuse(ledger, [probe], kind, Outcome.NO_ANSWER).stops != []
    assert counts(ledger) == (40, 0, 0, 0)


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_that_are_no_good_with_a_success_between_stop_nothing(ledger, kind):
    leases = ledger.turn().leases
    refuse(ledger, leases[:9], kind, Outcome.NO_ANSWER)
    ledger.now_ms += 1
    ledger.turn(ledger.finish(leases[9], Outcome.SUCCEEDED), budget=0)
    ledger.now_ms += 1
    assert refuse(ledger, leases[10:19], kind, Outcome.NO_ANSWER).stops == []


def test_one_word_whose_answers_are_no_good_does_not_stop_the_prompt(ledger):
    for _ in range(5):
        lease = ledger.turn(budget=1).leases[0]
        assert lease.word == "0"
        assert refuse(ledger, [lease], Kind.HALF, Outcome.NO_ANSWER).stops == []
        ledger.now_ms += 2_000
    assert counts(ledger)[3] == 1


def test_a_short_list_stops_when_all_its_words_have_spent_their_tries_in_vain():
    ledger = Ledger()
    ledger.add("abc")
    for n in range(5):
        assert counts(ledger) == (3, 0, 0, 0)
        done = refuse(ledger, ledger.turn().leases, Kind.NOT_AN_ANSWER, Outcome.NO_ANSWER)
        assert len(done.stops) == (n == 4)
        ledger.now_ms += 2_000
    assert counts(ledger) == (3, 0, 0, 0)
    assert ledger.row("SELECT max(no_answers) FROM requests") == (0,)


def test_what_could_not_be_sent_says_nothing_of_the_prompt(ledger):
    spec = intake.PromptSpec("q", "{word} {gloss}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, put_limit(ledger.conn, "q", 9), 1)
    bare = [Word(f"bare {n}", {}) for n in range(20)]
    intake.add_words(ledger.conn, prompt.id, bare, 1)
    done = ledger.turn()
    assert done.stops == []
    assert ledger.row("SELECT failed FROM tallies WHERE prompt_id = ?", prompt.id) == (20,)


def test_one_word_that_is_throttled_five_times_while_others_are_let_in_has_failed(ledger):
    poison, *others = ledger.turn().leases
    for n, other in enumerate(others[:5]):
        ledger.turn(ledger.finish(poison, Outcome.THROTTLED, reason="too much"), budget=0)
        ledger.now_ms += 120_000
        ledger.turn(ledger.finish(other, Outcome.SUCCEEDED), budget=0)
        if n < 4:
            (poison,) = ledger.turn(budget=1).leases
            assert poison.word == "0"
    assert ledger.states()["0"] == "failed"
    outcome, reason, kind = ledger.row("SELECT outcome, reason, reason_code FROM failures")
    assert (outcome, kind) == ("rejected", "too_large_for_quota")
    assert "its prompt is larger than the tokens a minute allow" in reason


def test_one_word_that_is_throttled_for_ever_has_not_failed_while_nobody_is_let_in():
    ledger = Ledger()
    ledger.add("ab")
    served, refused = ledger.turn().leases
    ledger.turn(ledger.finish(served, Outcome.SUCCEEDED), budget=0)
    for _ in range(8):
        ledger.turn(ledger.finish(refused, Outcome.THROTTLED, reason="429"), budget=0)
        assert ledger.states()["b"] == "pending"
        ledger.now_ms += 120_000
        (refused,) = ledger.turn().leases


def storm(words, is_refused, concurrency=20):
    """Crawl words where calls are refused in 50 ms or answered within two seconds."""
    ledger, chance = Ledger(concurrency=concurrency), random.Random(words)
    ledger.add(map(str, range(words)))
    calls, flying, done = Counter(), [], ledger.turn()
    while done.unfinished:
        for lease in done.leases:
            calls[lease.word] += 1
            refused = is_refused(lease.word, chance)
            ends_at_ms = ledger.now_ms + (50 if refused else chance.randint(200, 2_000))
            heapq.heappush(flying, (ends_at_ms, sum(calls.values()), lease, refused))
        wakes = [ends for ends, *_ in flying[:1]] + [done.wake_at_ms or math.inf]
        ledger.now_ms = max(ledger.now_ms, min(wakes))
        ends = []
        while flying and flying[0][0] <= ledger.now_ms:
            *_, lease, refused = heapq.heappop(flying)
            outcome = Outcome.THROTTLED if refused else Outcome.SUCCEEDED
            ends.append(ledger.finish(lease, outcome, reason="429"))
        done = ledger.turn(*ends)
    failed = {word for word, state in ledger.states().items() if state == "failed"}
    ledger.conn.close()
    return failed, calls


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_no_word_fails_where_calls_are_refused_at_random(share):
    failed, calls = storm(20_000 if LONG else 1_000, lambda word, chance: chance.random() < share)
    assert max(calls.values()) > 3, "some were refused several times in sequence"
    assert failed == set()


@pytest.mark.parametrize(("words", "own"), [(300, {"5", "200"}), (300, {"299"}), (30, {"0"})])
def test_words_that_are_refused_while_others_are_let_in_fail_after_a_few_calls(words, own):
    failed, calls = storm(words, lambda word, chance: word in own)
    assert failed == own
    assert max(calls.values()) <= 10


def test_a_word_is_not_at_fault_because_others_were_served_only_before_its_refusals(ledger):
    poison, *others = ledger.turn().leases
    ledger.turn(*(ledger.finish(e, Outcome.SUCCEEDED) for e in others[:20]), budget=0)
    for _ in range(9):
        ledger.turn(ledger.finish(poison, Outcome.THROTTLED, reason="too much"), budget=0)
        ledger.now_ms += 120_000
        (poison,) = ledger.turn(budget=1).leases
    assert ledger.states()["0"] == "leased"


def test_all_words_that_are_throttled_have_not_failed(ledger):
    for _ in range(8):
        leases = ledger.turn().leases
        ledger.turn(*(ledger.finish(e, Outcome.THROTTLED) for e in leases), budget=0)
        ledger.now_ms += 120_000
    assert counts(ledger)[3] == 0


@pytest.mark.parametrize(
    ("kind", "tries", "outcome"),
    [
        (Kind.NOT_AN_ANSWER, 5, "no_answer"),
        (Kind.HALF, 5, "no_answer"),
        (Kind.ODD, 3, "no_answer"),
        (Kind.RECITATION, 3, "blocked"),
    ],
)
def test_how_often_an_answer_that_is_no_good_is_paid_for(kind, tries, outcome):
    ledger = Ledger()
    ledger.add("a")
    for n in range(1, tries + 1):
        assert ledger.states() == {"a": "pending"}
        (lease,) = ledger.turn().leases
        assert lease.number == n
        end = ledger.finish(lease, Outcome.NO_ANSWER, reason_code=kind, text="half", reason="no")
        ledger.turn(end, budget=0)
        ledger.now_ms += 60_000
    assert ledger.states() == {"a": "failed"}
    assert ledger.row("SELECT outcome, failures, draft FROM failures") == (outcome, 0, "half")


@pytest.mark.parametrize(("kinds", "tries"), [("rnrnr", 5), ("nnrrr", 5), ("rrr", 3)])
def test_answers_of_each_kind_are_counted_by_themselves(kinds, tries):
    ledger = Ledger()
    ledger.add("a")
    known = {"r": Kind.RECITATION, "n": Kind.NOT_AN_ANSWER}
    for kind in kinds:
        assert ledger.states() == {"a": "pending"}
        (lease,) = ledger.turn().leases
        end = ledger.finish(lease, Outcome.NO_ANSWER, reason_code=known[kind], reason="no")
        ledger.turn(end, budget=0)
        ledger.now_ms += 60_000
    assert ledger.states() == {"a": "failed"}
    assert ledger.row("SELECT outcome, attempts FROM failures") == ("blocked", tries)


def test_what_came_before_a_retry_is_not_counted():
    """The answers of the present budget are the latest ones."""
    ledger = Ledger()
    ledger.add("a")

    def no_good(kind):
        (lease,) = ledger.turn().leases
        end = ledger.finish(lease, Outcome.NO_ANSWER, reason_code=kind, reason="no")
        ledger.turn(end, budget=0)
        ledger.now_ms += 60_000
        return ledger.states()["a"]

    for _ in range(4):
        assert no_good(Kind.NOT_AN_ANSWER) == "pending"
    assert no_good(Kind.NOT_AN_ANSWER) == "failed"
    control.retry(ledger.conn, [ledger.prompt.id], None, [RequestState.FAILED])
    assert [no_good(Kind.RECITATION) for _ in range(3)] == ["pending", "pending", "failed"]
