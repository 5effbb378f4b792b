"""A prompt that is rejected whatever the word stops, over restarts too, and stops no other."""

from crawler.ledger import control, intake
from crawler.ledger.finish import end_run
from crawler.ledger.limits import put_limit
from crawler.policy import Policy
from crawler.protocol import Word
from crawler.states import Outcome, RequestState


def reject(ledger, leases, outcome=Outcome.REJECTED):
    ends = [ledger.finish(e, outcome, reason="no such model", status_code=404) for e in leases]
    return ledger.turn(*ends, budget=0)


def next_run(ledger):
    end_run(ledger.conn, ledger.scope(), ledger.run_id, Outcome.INTERRUPTED, "configuration")
    ledger.run_id = ledger.start_run()


def in_doubt(ledger):
    ledger.policy = Policy(vain_rejections=4)
    ledger.add(map(str, range(40)))
    done = reject(ledger, ledger.turn(budget=4).leases)
    assert (done.stopped, done.unfinished, done.stop_reason) == (36, 36, "no such model")


def test_after_so_many_rejections_nothing_starts_in_this_run(ledger):
    in_doubt(ledger)
    assert ledger.turn().leases == []
    assert ledger.row("SELECT failed FROM tallies") == (4,)


def test_each_new_run_sends_one_call_and_fails_one_word(ledger):
    in_doubt(ledger)
    for failed in (5, 6, 7):
        next_run(ledger)
        probe = ledger.turn().leases
        assert len(probe) == 1
        assert ledger.turn().leases == [], "one at a time"
        done = reject(ledger, probe)
        assert done.stop_reason == "no such model"
        assert ledger.turn().leases == []
        assert ledger.row("SELECT failed FROM tallies") == (failed,)


def test_a_success_of_the_one_call_releases_the_prompt(ledger):
    in_doubt(ledger)
    next_run(ledger)
    (probe,) = ledger.turn().leases
    done = ledger.turn(ledger.finish(probe, Outcome.SUCCEEDED), budget=0)
    assert (done.stopped, done.stop_reason) == (0, None)
    assert len(ledger.turn().leases) == 10


def test_a_word_that_the_model_refuses_shows_that_the_prompt_is_in_order(ledger):
    in_doubt(ledger)
    next_run(ledger)
    (probe,) = ledger.turn().leases
    assert reject(ledger, [probe], Outcome.BLOCKED).stop_reason is None
    assert len(ledger.turn().leases) == 10


def test_who_asks_for_a_retry_begins_anew(ledger):
    in_doubt(ledger)
    control.retry(ledger.conn, [ledger.prompt.id], None, [RequestState.FAILED])
    assert len(ledger.turn().leases) == 10


def test_one_prompt_in_doubt_holds_back_no_other(ledger):
    other = put_limit(ledger.conn, "elsewhere", 3)
    for limit_id, name in ((ledger.limit_id, "same"), (other, "other")):
        spec = intake.PromptSpec(name, "Of {word}", "scripted", "m", {})
        prompt, _ = intake.put_prompt(ledger.conn, spec, limit_id, 1)
        intake.add_words(ledger.conn, prompt.id, [Word(w, {}) for w in ("x", "y")], 1)
    ledger.policy = Policy(vain_rejections=4)
    ledger.add(map(str, range(40)))
    asked = ledger.turn().leases
    assert {lease.prompt_id for lease in asked} == {1, 3}, "the first has all places of its limit"
    done = reject(ledger, [lease for lease in asked if lease.prompt_id == 1])
    assert (done.stopped, done.unfinished) == (30, 34)
    assert [lease.prompt_id for lease in ledger.turn().leases] == [2, 2]


def test_what_could_not_be_sent_says_nothing_of_the_prompt(ledger):
    ledger.policy = Policy(vain_rejections=2)
    spec = intake.PromptSpec("q", "{word} {gloss}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, 1)
    bare = [Word(str(n), {}) for n in range(9)]
    intake.add_words(ledger.conn, prompt.id, [*bare, Word("z", {"gloss": "g"})], 1)
    assert [lease.word for lease in ledger.turn().leases] == ["z"]
    assert ledger.row("SELECT failed FROM tallies WHERE prompt_id = ?", prompt.id) == (9,)
    assert ledger.turn().stop_reason is None
