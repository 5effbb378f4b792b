"""The tables of `states.py` and the triggers of the schema say what is expected of both."""

import sqlite3
from itertools import product

import pytest

from crawler.states import (
    COUNTS_AS_FAILURE,
    FINAL,
    OPENS_GATE,
    TRANSITIONS,
    UNPROCESSED,
    Outcome,
    RequestState,
)
from tests import expected
from tests.conftest import Ledger

WAYS = {
    RequestState.PENDING: (),
    RequestState.LEASED: (RequestState.LEASED,),
    RequestState.SUCCEEDED: (RequestState.LEASED, RequestState.SUCCEEDED),
    RequestState.FAILED: (RequestState.LEASED, RequestState.FAILED),
    RequestState.CANCELLED: (RequestState.CANCELLED,),
}

# Who leases begins an attempt.
STEP = "UPDATE requests SET attempts = attempts + (?1 = 'leased'), state = ?1"


def _request_in(ledger: Ledger, state: RequestState) -> None:
    """Bring the only request into a state; a response is there, so that only the arrow counts."""
    ledger.add(["w"])
    (lease,) = ledger.turn().leases
    ledger.conn.execute("UPDATE requests SET state = 'pending'")
    ledger.conn.execute(
        "INSERT INTO responses (request_id, number, text) VALUES (?, 1, 'text')",
        (lease.request_id,),
    )
    for step in WAYS[state]:
        ledger.conn.execute(STEP, (step.value,))


@pytest.mark.parametrize(("old", "new"), list(product(RequestState, RequestState)))
def test_the_schema_allows_what_the_table_allows(ledger, old, new):
    _request_in(ledger, old)

    if new.value in expected.MAY_FOLLOW[old.value]:
        ledger.conn.execute(STEP, (new.value,))
        assert ledger.states() == {"w": new}
    else:
        with pytest.raises(sqlite3.IntegrityError, match="not a legal transition"):
            ledger.conn.execute(STEP, (new.value,))
        assert ledger.states() == {"w": old}


@pytest.mark.parametrize("table", ["requests.state", "attempts.outcome"])
def test_the_schema_knows_no_other_words(ledger, table):
    ledger.add(["w"])
    ledger.turn()
    name, column = table.split(".")
    change = f"{column} = 'lost'" + (", finished_at_ms = 2e12" if column == "outcome" else "")

    with pytest.raises(sqlite3.IntegrityError):
        ledger.conn.execute(f"UPDATE {name} SET {change}")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_schema_knows_every_outcome(ledger, outcome):
    ledger.add(["w"])
    (lease,) = ledger.turn().leases

    ledger.turn(ledger.finish(lease, outcome))

    assert ledger.row("SELECT outcome FROM attempts") == (outcome.value,)


def test_the_tables_say_what_is_expected_of_them():
    assert {old.value: set(news) for old, news in TRANSITIONS.items()} == expected.MAY_FOLLOW
    assert set(Outcome) == expected.OUTCOMES
    assert COUNTS_AS_FAILURE == expected.COUNTS_AS_FAILURE
    assert FINAL == expected.FINAL
    assert UNPROCESSED == expected.CLOSES_GATE
    assert OPENS_GATE == expected.OPENS_GATE
