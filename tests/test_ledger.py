"""The ledger against a model of a few lines: they always agree, and the audit is clean."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crawler.ledger import audit, control, record
from crawler.policy import Policy
from crawler.states import CLOSES_GATE, COUNTS_AS_FAILURE, FINAL, OPENS_GATE, Outcome
from tests.conftest import Ledger

MAX_FAILURES = 3
WORDS = st.sampled_from("abcdefgh")


@dataclass
class Request:
    """What the model knows of a word."""

    state: str = "pending"
    attempts: int = 0
    failures: int = 0
    cancelling: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """Two runs, eight words, every outcome, deaths, zombies, and a user who changes his mind."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(Policy(max_failures=MAX_FAILURES, backoff_cap_ms=1_000))
        self.ledger.random.randint = lambda low, high: low
        self.conn = self.ledger.conn
        self.model: dict[str, Request] = {}
        self.runs = [self.ledger.run_id, self.ledger.start_run()]
        self.open: list[tuple] = []  # (run, lease, when it started)
        self.zombies: list[tuple] = []
        self.concurrency = 10
        self.paused = False

    def teardown(self):
        self.conn.close()

    @rule(words=st.lists(WORDS, max_size=5))
    def add(self, words):
        added = self.ledger.add(words)
        assert added.requests == len(set(words) - self.model.keys())
        for word in words:
            self.model.setdefault(word, Request())

    @rule(which=st.integers(0, 1), budget=st.integers(0, 12))
    def turn(self, which, budget):
        run = self.runs[which]
        rooms = self._rooms()
        leases = self.ledger.turn(run_id=run, budget=budget).leases
        pending = [word for word, request in self.model.items() if request.state == "pending"]
        assert {lease.word for lease in leases} <= set(pending)
        assert len(leases) in {min(room, budget, len(pending)) for room in rooms}
        for lease in leases:
            request = self.model[lease.word]
            request.state = "leased"
            request.attempts += 1
            assert lease.number == request.attempts
            self.open.append((run, lease, self.ledger.now_ms))

    def _rooms(self):
        """Return how many calls may start; where a call tries the gate, either of two numbers."""
        cause, opens_at_ms, closed_at_ms = self._gate()
        if self.paused or self.ledger.now_ms < opens_at_ms:
            return {0}
        room = max(0, self.concurrency - len(self.open))
        if cause is None:
            return {room}
        if any(started > closed_at_ms for *_, started in self.open):
            return {0, room}  # it may not have been refused by now: then it was let in
        return {min(room, 1)}

    def _gate(self):
        return self.ledger.row("SELECT gate_cause, gate_opens_at_ms, gate_closed_at_ms FROM limits")

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def finish(self, data, outcome):
        index = data.draw(st.integers(0, len(self.open) - 1))
        run, lease, started_at_ms = self.open.pop(index)
        done = self.ledger.turn(self.ledger.finish(lease, outcome), run_id=run, budget=0)
        assert done.late == 0
        cause, _, closed_at_ms = self._gate()
        if outcome in CLOSES_GATE:
            assert cause is not None
        elif outcome in OPENS_GATE - {Outcome.TRANSIENT} and started_at_ms > closed_at_ms:
            assert cause is None
        if outcome is not Outcome.TRANSIENT or cause != "outage":
            self._judge(self.model[lease.word], outcome)
        else:
            request = self.model[lease.word]
            request.state = "cancelled" if request.cancelling else "pending"
            request.cancelling = False

    def _judge(self, request, outcome):
        request.failures += outcome in COUNTS_AS_FAILURE
        if outcome is Outcome.SUCCEEDED:
            request.state = "succeeded"
        elif outcome in FINAL or (
            outcome in COUNTS_AS_FAILURE and request.failures >= MAX_FAILURES
        ):
            request.state = "failed"
        else:
            request.state = "cancelled" if request.cancelling else "pending"
        if outcome is not Outcome.SUCCEEDED:
            request.cancelling = False

    @rule(which=st.integers(0, 1))
    def die(self, which):
        dead = self.runs[which]
        self.runs[which] = self.ledger.start_run()
        scope = self.ledger.scope(self.runs[1 - which])
        closed = record.end_run(self.conn, scope, dead, Outcome.ABANDONED, "died")
        lost = [entry for entry in self.open if entry[0] == dead]
        assert closed == len(lost)
        self.open = [entry for entry in self.open if entry[0] != dead]
        self.zombies += lost
        for _, lease, _ in lost:
            self._judge(self.model[lease.word], Outcome.ABANDONED)

    @precondition(lambda self: self.zombies)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def late_answer(self, data, outcome):
        run, lease, _ = data.draw(st.sampled_from(self.zombies))
        done = self.ledger.turn(self.ledger.finish(lease, outcome), run_id=run)
        assert done.late == 1
        assert done.lost
        assert done.leases == []

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data):
        word = data.draw(st.sampled_from(sorted(self.model)))
        control.cancel(self.conn, [1], [control.word_id(self.conn, word)])
        request = self.model[word]
        if request.state == "pending":
            request.state = "cancelled"
        elif request.state == "leased":
            request.cancelling = True

    @rule(state=st.sampled_from(["failed", "cancelled"]))
    def retry(self, state):
        if state == "cancelled":
            for request in self.model.values():
                request.cancelling = False
        waiting = [request for request in self.model.values() if request.state == state]
        assert control.retry(self.conn, [1], None, [state]) == len(waiting)
        for request in waiting:
            request.state, request.failures = "pending", 0

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused):
        self.paused = paused
        if paused:
            control.pause(self.conn, None, self.ledger.now_ms)
        else:
            control.resume(self.conn, None, self.ledger.now_ms)

    @rule(concurrency=st.integers(1, 6))
    def limit(self, concurrency):
        control.set_concurrency(self.conn, "quota", concurrency)
        self.concurrency = concurrency

    @rule(pause_ms=st.integers(1, 40_000))
    def wait(self, pause_ms):
        self.ledger.now_ms += pause_ms

    @invariant()
    def they_agree(self):
        rows = self.conn.execute(
            "SELECT text, state, attempts, failures FROM requests JOIN words ON words.id = word_id"
        )
        assert {text: tuple(rest) for text, *rest in rows} == {
            word: (request.state, request.attempts, request.failures)
            for word, request in self.model.items()
        }

    @invariant()
    def the_audit_is_clean(self):
        assert [finding for finding in audit.check(self.conn) if finding.broken] == []


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=settings().max_examples, stateful_step_count=50, deadline=None
)
