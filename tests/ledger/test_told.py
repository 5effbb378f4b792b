"""What a server tells of its quota is known from its first answer on, and on record."""

import pytest

from crawler.ledger import control, intake
from crawler.ledger.status import status
from crawler.protocol import Told, Word
from crawler.states import Outcome

MINUTE = (Told("requests", 20, "minute"),)


def answer(ledger, told, count=1):
    leases = ledger.turn(budget=count).leases
    ended = [ledger.finish(lease, Outcome.SUCCEEDED, told=told) for lease in leases]
    ledger.turn(*ended, budget=0)
    return len(leases)


def limit(ledger):
    (found,) = status(ledger.conn, 600, ledger.now_ms).limits
    return found.per_minute, found.per_minute_from


@pytest.fixture
def many(ledger):
    control.set_concurrency(ledger.conn, "quota", 100)
    ledger.add(map(str, range(200)))
    return ledger


def test_it_is_kept_from_the_first_answer_on(many):
    assert answer(many, MINUTE) == 1
    assert limit(many) == (20, "server")
    begun = 1
    for _ in range(200):
        many.now_ms += 250
        begun += answer(many, MINUTE, 100)
    assert begun == 20
    many.now_ms += 61_000
    assert answer(many, MINUTE, 100) > 0


def test_each_change_is_a_row_and_the_same_again_is_none(many):
    answer(many, MINUTE)
    answer(many, MINUTE)
    answer(many, (Told("requests", 30, "minute"), Told("tokens", 9_000, "minute")))
    rows = many.conn.execute("SELECT what, per_minute, why FROM limit_history").fetchall()
    assert [row for row in rows if row[0] == "told"] == [
        ("told", 20, "the server allows 20 requests a minute"),
        ("told", 30, "the server allows 30 requests a minute"),
        ("told", None, "the server allows 9000 tokens a minute"),
    ]


@pytest.mark.parametrize("per", ["day", None])
def test_a_window_that_is_not_known_sets_nothing(many, per):
    answer(many, (Told("requests", 20, per),))
    assert limit(many) == (None, None)


def test_the_lower_of_what_was_set_and_told_counts_unless_it_is_fixed(many):
    control.set_per_minute(many.conn, "quota", 50, many.now_ms)
    answer(many, MINUTE)
    assert limit(many) == (20, "server")
    control.set_per_minute(many.conn, "quota", 7, many.now_ms)
    assert limit(many) == (7, "you")
    control.set_per_minute(many.conn, "quota", 50, many.now_ms)
    control.set_adaptive(many.conn, "quota", many.now_ms, adaptive=False)
    assert limit(many) == (50, "you")


def test_what_was_learned_of_an_unknown_quota_is_forgotten(many):
    many.conn.execute("UPDATE limits SET rate = 5, plateau = 5, tat_us = 0")
    answer(many, MINUTE)
    assert many.row("SELECT rate, tat_us FROM limits") == (None, None)


def test_a_refusal_may_tell_it(many):
    (lease,) = many.turn(budget=1).leases
    ended = many.finish(lease, Outcome.THROTTLED, told=MINUTE, retry_after_ms=5_000)
    many.turn(ended, budget=0)
    assert limit(many) == (20, "server")
    assert many.row("SELECT gate_opens_at_ms FROM limits") == (many.now_ms + 5_000,)


def test_where_models_share_a_limit_the_lowest_of_what_they_are_told_counts(many):
    """Else each answer of the other one would change it, and forget what was learned."""
    spec = intake.PromptSpec("q", "Of {word}", "scripted", "another model", {})
    other, _ = intake.put_prompt(many.conn, spec, many.limit_id, many.now_ms)
    intake.add_words(many.conn, other.id, [Word("w", {})], many.now_ms)
    for count in (30, 20, 30):
        answer(many, (Told("requests", count, "minute"),))
    assert limit(many) == (20, "server")
    rows = many.row("SELECT count(*) FROM limit_history WHERE what = 'told'")
    assert rows == (2,)
