"""No word fails for refusals that come by chance, however often they come."""

import random

import pytest

from crawler.states import Outcome
from tests.conftest import Ledger


@pytest.mark.parametrize("seed", range(5))
def test_no_word_of_2_000_fails_where_three_in_ten_are_refused(seed):
    ledger, chance = Ledger(concurrency=20), random.Random(seed)
    ledger.fix(1_000_000)
    ledger.add(f"w{n}" for n in range(2_000))
    ended, refused = [], 0
    while True:
        done = ledger.turn(*ended)
        if not done.unfinished:
            break
        ledger.now_ms = max(ledger.now_ms + 5, min(done.wake_at_ms or 0, ledger.now_ms + 500))
        outcomes = [
            Outcome.THROTTLED if chance.random() < 0.3 else Outcome.SUCCEEDED for _ in done.leases
        ]
        refused += outcomes.count(Outcome.THROTTLED)
        ended = [
            ledger.finish(lease, outcome, retry_after_ms=1)
            if outcome is Outcome.THROTTLED
            else ledger.finish(lease, outcome)
            for lease, outcome in zip(done.leases, outcomes, strict=True)
        ]
    assert refused > 500
    assert set(ledger.states().values()) == {"succeeded"}
    ledger.conn.close()
