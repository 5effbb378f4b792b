"""Selectors mean what a few lines over all rows say, and read no more than they need."""

import itertools
import random

import pytest

from crawler.ledger import control, intake, items, standing
from crawler.ledger.reviews import review
from crawler.ledger.selectors import Selectors, chosen, nearest, unknown
from crawler.protocol import Word
from crawler.states import Outcome, RequestState
from tests.ledger.several import Several

STATES = list(RequestState)


@pytest.fixture(scope="module")
def mixed():
    """Two versions, each state, answers that are replaced, words that are removed."""
    ledger, chance = Several(), random.Random(4)
    control.set_concurrency(ledger.conn, "quota", 60)
    words = [f"w{n}" for n in range(60)]
    ledger.ask(ledger.p, words)
    for template in ("On {word}[[ {level}]]", "About {word}", "Of {word}[[ {level}]]"):
        for _ in range(4):
            ends = [Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.BLOCKED, Outcome.INTERRUPTED]
            leases = [lease for lease in ledger.turn(budget=8).leases if chance.random() < 0.8]
            ledger.turn(*(ledger.finish(lease, chance.choice(ends)) for lease in leases), budget=0)
        ids = [request.id for request in chosen(ledger.conn, ledger.p.id, Selectors())]
        standing.ask_again(ledger.conn, ledger.p.id, chance.sample(ids, 6))
        standing.remove(ledger.conn, chance.sample(ids, 3), 1)
        control.cancel(ledger.conn, [ledger.p.id], [chance.randrange(60)])
        for mark in ("bad", "good", "none", "bad"):
            review(ledger.conn, chance.sample(ids, 12), mark, None, "me", 1)
        fixes = [Word(word, {"level": template}) for word in chance.sample(words, 9)]
        items.revised(ledger.conn, fixes, 1)
        ledger.p = ledger.put("p", template, limit="quota")
    ids = [request.id for request in chosen(ledger.conn, ledger.p.id, Selectors())]
    standing.ask_again(ledger.conn, ledger.p.id, chance.sample(ids, 12))
    ledger.now_ms += 60_000
    leases = ledger.turn(budget=8).leases
    ledger.turn(*(ledger.finish(lease, Outcome.SUCCEEDED) for lease in leases[:6]), budget=0)
    fixes = [Word(word, {"level": "new"}) for word in words[::2]]
    items.revised(ledger.conn, fixes, 1)
    ledger.ask(ledger.p, ["z", *words[:3]])
    fresh = (
        "SELECT standing_id FROM list_details WHERE prompt = 'p' AND text NOT NULL AND stale = 0"
    )
    marked = [request_id for (request_id,) in ledger.conn.execute(fresh)]
    review(ledger.conn, marked[:3], "bad", None, "me", 1)
    yield ledger
    ledger.conn.close()


def expected(ledger, selectors):
    """Return the same from all that there is."""
    rows = ledger.conn.execute(
        "SELECT standing_id, word, state, stale, review, text FROM list_details"
        " WHERE removed_at_ms IS NULL AND prompt = 'p' ORDER BY place"
    )
    found = [
        standing_id
        for standing_id, word, state, stale, review, text in rows
        if (selectors.words is None or word in selectors.words)
        and (not selectors.states or state in selectors.states)
        and (stale or not selectors.is_stale)
        and (not selectors.review or (text and (review or "none") == selectors.review))
    ]
    return found[: selectors.first]


@pytest.mark.parametrize(
    "selectors",
    [
        Selectors(words, states, is_stale, review, first)
        for words, states, is_stale, review, first in itertools.product(
            (None, ["w3", "w50", "nobody", "w3"], [f"w{n}" for n in range(60)]),
            ((), *((state,) for state in STATES), (STATES[2], STATES[3]), tuple(STATES)),
            (False, True),
            (None, "bad", "none"),
            (None, 1, 5),
        )
    ],
)
def test_what_is_chosen_is_what_was_said_in_the_order_of_the_list(mixed, selectors):
    found = [request.id for request in chosen(mixed.conn, mixed.p.id, selectors)]
    assert found == expected(mixed, selectors)


def test_the_mixture_has_of_everything(mixed):
    for state in STATES:
        assert expected(mixed, Selectors(states=(state,))), state
    assert len(expected(mixed, Selectors(is_stale=True))) > 5
    assert expected(mixed, Selectors(states=("pending",), is_stale=True))
    changed = "SELECT count(*) FROM list_details WHERE changed AND current AND prompt = 'p'"
    assert mixed.row(changed) > (0,)
    bad = Selectors(review="bad")
    assert len(expected(mixed, bad)) > len(expected(mixed, bad._replace(is_stale=True))) > 0
    assert expected(mixed, bad._replace(states=("pending",)))


@pytest.mark.parametrize(
    ("state", "versions"),
    [
        *itertools.product([(), (RequestState.PENDING,)], [1, 2, 4]),
        ((RequestState.FAILED,), 1),
    ],
)
def test_the_first_of_many_cost_no_look_at_all(state, versions):
    ledger = Several()
    ledger.ask(ledger.p, map(str, range(3_000)))
    for version in range(1, versions):
        control.cancel(ledger.conn, [ledger.p.id], None)
        ids = [request.id for request in chosen(ledger.conn, ledger.p.id, Selectors())]
        ledger.p = ledger.put("p", f"{version} {{word}}", limit="quota")
        standing.ask_again(ledger.conn, ledger.p.id, ids)
    looked = 0

    def look():
        nonlocal looked
        looked += 1

    ledger.conn.set_progress_handler(look, 100)
    chosen(ledger.conn, ledger.p.id, Selectors(states=state, first=5))
    assert looked < 30
    ledger.conn.close()


def test_the_nearest_word_is_looked_for_among_its_neighbours(ledger):
    ledger.add(["abate", "abhor", "zeal", *map(str, range(100))])
    assert nearest(ledger.conn, "zeel") == "zeal"
    assert nearest(ledger.conn, "abhore") == "abhor"
    assert nearest(ledger.conn, "quite another") is None
    assert unknown(ledger.conn, ["abate", "abat", "7"]) == ["abat"]
    assert intake.recorded_fields(ledger.conn, "abate") == {}
