"""What can't be sent fails in the turn that finds it, and takes nobody's place."""

from crawler.ledger import intake
from crawler.ledger.budget import Allowance
from crawler.ledger.check import check
from crawler.ledger.limits import put_limit
from crawler.ledger.turn import turn
from crawler.protocol import Word
from crawler.states import Outcome


def needy(ledger, words):
    spec = intake.PromptSpec("q", "{word}: {gloss}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, 1)
    intake.add_words(ledger.conn, prompt.id, words, 1)
    return prompt.id


def test_six_words_without_a_field_delay_a_good_one_by_nothing(ledger):
    ledger.fix(6)
    bare = [Word(str(n), {}) for n in range(6)]
    good = [Word(f"good {n}", {"gloss": "g"}) for n in range(7)]
    prompt_id = needy(ledger, bare + good)
    done = ledger.turn()
    assert [lease.word for lease in done.leases] == [f"good {n}" for n in range(6)]
    assert ledger.row("SELECT failed FROM tallies WHERE prompt_id = ?", prompt_id) == (6,)
    reasons = {reason for (reason,) in ledger.conn.execute("SELECT reason FROM failures")}
    assert reasons == {"the template needs {gloss}, which this word has not"}
    ledger.now_ms += 60_000 + ledger.policy.guard_ms
    assert ledger.turn().leases == [], "six have started in this minute"
    ledger.now_ms += 1
    assert len(ledger.turn().leases) == 1, "and six only"
    assert not any(finding.broken for finding in check(ledger.conn))


def test_a_window_that_begins_with_one_that_could_not_be_sent_counts_the_others(ledger):
    ledger.fix(2)
    needy(ledger, [Word("bare", {}), Word("a", {"gloss": "g"}), Word("b", {"gloss": "g"})])
    assert [lease.word for lease in ledger.turn(budget=1).leases] == ["a"]
    ledger.now_ms += 1_000
    assert [lease.word for lease in ledger.turn().leases] == ["b"]
    ledger.now_ms += 1_000
    needy(ledger, [Word("c", {"gloss": "g"}), Word("bare again", {})])
    assert ledger.turn().leases == []


def test_thousands_of_them_are_failed_in_turns_of_a_bounded_length(ledger):
    ledger.add(["first"])
    ledger.turn()  # a call is in flight: how far a turn looks is bounded
    needy(ledger, [*(Word(str(n), {}) for n in range(2_500)), Word("z", {"gloss": "g"})])
    done, turns = ledger.turn(), 1
    while not done.leases:
        assert done.wake_at_ms == ledger.now_ms, "at once"
        done, turns = ledger.turn(), turns + 1
    assert turns == 3
    assert [lease.word for lease in done.leases] == ["z"]


def test_a_field_that_is_no_json_is_told(ledger):
    prompt_id = needy(ledger, [Word("w", {"gloss": "g"})])
    ledger.conn.execute("DROP TRIGGER words_change_by_revisions")
    ledger.conn.execute("UPDATE words SET fields = '{broken}'")
    assert ledger.turn().leases == []
    (reason,) = ledger.row("SELECT reason FROM failures")
    assert reason.startswith("the fields of this word can't be read")
    assert ledger.row("SELECT failed FROM tallies WHERE prompt_id = ?", prompt_id) == (1,)


def test_a_parameter_of_the_wrong_type_that_is_in_the_file_crashes_no_turn(ledger):
    ledger.conn.execute("DROP TRIGGER prompts_are_immutable")
    ledger.conn.execute("""UPDATE prompts SET params = '{"max_output_tokens": "300"}'""")
    ledger.add("a")
    done = turn(ledger.conn, ledger.scope(), [], Allowance(9, 1e6))
    assert len(done.leases) == 1


def test_what_does_not_fit_under_one_limit_holds_back_no_other(ledger):
    other = put_limit(ledger.conn, "other", 5)
    spec = intake.PromptSpec("o", "Of {word}", "scripted", "m", {})
    prompt, _ = intake.put_prompt(ledger.conn, spec, other, 1)
    ledger.add(["long " * 9_000])
    intake.add_words(ledger.conn, prompt.id, [Word("b", {})], 1)
    done = turn(ledger.conn, ledger.scope(), [], Allowance(9, 3_000))
    assert [lease.word for lease in done.leases] == ["b"]
    assert done.over_budget
    ends = [ledger.finish(lease, Outcome.SUCCEEDED) for lease in done.leases]
    assert turn(ledger.conn, ledger.scope(), ends, Allowance(9, 3_000)).unfinished == 1
