"""The ledger against a model of a few lines: they always agree, and the audit is clean.

What the model leaves to others: how fast a limit that learns lets calls start
(tests/quota/test_pace.py).
Whose fault a refusal is: tests/ledger/test_doubt.py.
While a limit learns, or counts tokens, the model says only how many may start at the most.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crawler.ledger import control, intake
from crawler.ledger import standing as standings
from crawler.ledger import turn as turns
from crawler.ledger.budget import Allowance
from crawler.ledger.check import check
from crawler.ledger.finish import end_run, released
from crawler.ledger.turn import turn
from crawler.policy import Policy
from crawler.protocol import Word
from crawler.quota.state import WINDOW_MS
from crawler.states import Outcome
from tests.conftest import PROFILE, Ledger
from tests.expected import CLOSES_GATE, COUNTS_AS_FAILURE, FINAL, OPENS_GATE, OUTCOMES

MAX_FAILURES = 2
OUTAGE_AFTER = 5
AUDIT_EVERY = 1 if PROFILE == "long" else 5
WORDS = st.sampled_from("abcdefghijklmnop")
TEXTS = ["About {word}", "On {word}", "Of {word}"]
SOME = st.integers(0, 1_000)
REACHED: Counter[str] = Counter()
"""How often each rule was followed, and each of the rare things happened."""
TO_REACH = {
    "add: known words",
    "add: new words",
    "add: what is removed stays so",
    "add: what was removed is typed",
    "ask_again: by another version",
    "ask_again: the answer before counts",
    "ask_again: what has failed",
    "ask_again: still in flight",
    "cancel: in flight",
    "cancel: pending",
    "come_to_an_end",
    "die: with calls in flight",
    "end: with calls in flight",
    "end_outage: there was one",
    "finish: cancelled in flight",
    "finish: failed too often",
    "finish: gate closed",
    "finish: gate opened",
    "finish: in an outage",
    "finish: carried to a newer version",
    "finish: of an old version",
    "finish: removed in flight",
    "hold_up: released",
    "late_answer",
    "retry: cancelled",
    "retry: failed",
    "retry: still in flight",
    "remove: answered",
    "remove: in flight",
    "remove: pending",
    "supersede: an answer stands again",
    "supersede: back to an old version",
    "supersede: carried on",
    "supersede: carried on after an attempt",
    "turn: fixed",
    "turn: gate closed",
    "turn: learns",
    "turn: over budget",
    "turn: paused",
    "turn: pause over",
    "turn: tokens",
    "turn: tries the gate",
    "turn: window full",
    "zombie_turn",
    *(f"finish: {outcome}" for outcome in OUTCOMES),
}


def reached(what):
    REACHED[what] += 1
    event(what)


@dataclass(eq=False)
class Request:
    """What the model knows of one asking about a word."""

    word: str
    version: int
    state: str = "pending"
    attempts: int = 0
    failures: int = 0
    cancelling: bool = False
    due_at_ms: int = 0
    superseded: bool = False
    removed: bool = False
    replaces: "Request | None" = None

    @property
    def on_record(self):
        facts = (self.word, self.version, self.state, self.attempts, self.failures)
        replaced = (self.replaces.version, self.replaces.attempts) if self.replaces else None
        return (*facts, self.cancelling, self.superseded, self.removed, replaced)


@dataclass
class Open:
    """A call in flight."""

    run: int
    lease: object
    request: Request


@dataclass
class Limit:
    """What the model knows of the limit."""

    concurrency: int = 10
    per_minute: int | None = None
    learns: bool = True
    counts_tokens: bool = False
    paused: bool = False
    paused_until_ms: int | None = None
    starts: dict = field(default_factory=dict)
    """When each attempt started."""
    left: list = field(default_factory=list)
    """Where in the window attempts stood that were moved."""


class LedgerMachine(RuleBasedStateMachine):
    """Two runs, sixteen words, every outcome, deaths, zombies, and a user who changes his mind."""

    def __init__(self):
        super().__init__()
        self.no_doubts = patch.object(turns, "doubts", lambda *_: {})
        self.no_doubts.start()
        self.ledger = Ledger(
            Policy(
                max_failures=MAX_FAILURES,
                backoff_cap_ms=1_000,
                max_no_answers=10**6,
                max_throttled=10**6,
            )
        )
        self.ledger.random.randint = lambda low, high: low
        self.conn = self.ledger.conn
        self.model: list[Request] = []
        self.versions = [self.ledger.prompt.id]
        self.runs = [self.ledger.run_id, self.ledger.start_run()]
        self.open: list[Open] = []
        self.zombies: list[Open] = []
        self.limit = Limit()
        self.steps = 0
        self.fix(10, 20)
        self.add("abcdefgh")

    def teardown(self):
        if sys.exc_info()[0] is None:
            self.the_audit_is_clean()
            self.come_to_an_end()
            self.they_agree()
            self.the_audit_is_clean()
        self.conn.close()
        self.no_doubts.stop()

    # What a program does.

    @precondition(lambda self: len(self._pending()) < 8)
    @rule(words=st.lists(WORDS, min_size=1, max_size=8), typed=st.booleans())
    def add(self, words, *, typed=False):
        known = {request.word for request in self.model}
        removed = [one for one in self._standing() if one.removed and one.word in words]
        rows = [Word(word, {}) for word in words]
        now_ms = self.ledger.now_ms
        added = intake.add_words(self.conn, self.version, rows, now_ms, typed=typed)
        new = [word for word in dict.fromkeys(words) if word not in known]
        assert added == (len(new), len(new), 0, len(removed))
        reached("add: new words" if added.words else "add: known words")
        self.model += [Request(word, self.version) for word in new]
        if removed:
            reached("add: what was removed is typed" if typed else "add: what is removed stays so")
        for request in removed if typed else ():
            request.removed = False
            request.cancelling = request.cancelling and request.state != "leased"
            if request.state == "cancelled":
                request.state, request.failures, request.due_at_ms = "pending", 0, 0
        if removed and typed:
            self._let_answers_stand(removed)
            self._carry_on()

    @rule(which=st.integers(0, 1), budget=st.sampled_from([12, 12, 12, 0, 1, 5]))
    def turn(self, which, budget):
        self._turn_and_compare(which, budget, None)

    @rule(which=st.integers(0, 1), left=st.floats(0, 6_000))
    def turn_within_budget(self, which, left):
        self._turn_and_compare(which, 12, left)

    def _turn_and_compare(self, which, budget, left):
        rooms = self._rooms()
        pending = self._pending()
        done = self._turn(self.runs[which], Allowance(budget, left, 1.0, 0.5))
        leases = done.leases
        assert {lease.word for lease in leases} <= set(pending)
        expected = {min(room, budget, len(pending)) for room in rooms}
        if self.limit.learns or self.limit.counts_tokens or done.over_budget:
            assert len(leases) <= max(expected)
        else:
            assert len(leases) in expected
        if left is not None:
            assert sum(lease.cost for lease in leases) <= left
        if done.over_budget:
            assert left is not None
            reached("turn: over budget")
        for lease in leases:
            assert (lease.tokens is not None) == self.limit.counts_tokens
        if leases:
            reached("turn: learns" if self.limit.learns else "turn: fixed")
            if self.limit.counts_tokens:
                reached("turn: tokens")
        self._leased(self.runs[which], leases)

    @rule(
        which=st.integers(0, 1),
        pause_ms=st.sampled_from([1, 5_000, WINDOW_MS, 2 * WINDOW_MS]),
        meanwhile=st.sampled_from(["", "lease", "lower"]),
    )
    def hold_up(self, which, pause_ms, meanwhile):
        """A run stands still before it can send what it has leased; another may go on."""
        run = self.runs[which]
        leases = self._turn(run, Allowance(12)).leases
        self._leased(run, leases)
        self.ledger.now_ms += pause_ms
        if meanwhile == "lower":
            control.set_per_minute(self.conn, "quota", 3, self.ledger.now_ms)
            self.limit.per_minute = 3
        if meanwhile == "lease":
            other = self.runs[1 - which]
            self._leased(other, self._turn(other, Allowance(12)).leases)
        if not leases:
            return
        ends = [released(lease, self.ledger.now_ms) for lease in leases]
        assert self.ledger.turn(*ends, run_id=run, budget=0).late == 0
        reached("hold_up: released")
        for lease in leases:
            self._of(lease.word).state = "pending"
        self.open = [entry for entry in self.open if entry.lease not in leases]

    @precondition(lambda self: self.open)
    @rule(
        outcome=st.sampled_from([Outcome.TRANSIENT, *Outcome]),
        calls=st.integers(1, 9),
        step=st.integers(0, 5),
    )
    def finish_several(self, outcome, calls, step=0):
        """All of them in one way, or each in another."""
        outcomes = list(Outcome)
        first = outcomes.index(outcome)
        for nth in range(min(calls, len(self.open))):
            facts = {"retry_after_ms": None, "tokens": 9, "truncated": False, "daily": False}
            self._finish_and_compare(0, outcomes[(first + nth * step) % len(outcomes)], **facts)

    @precondition(lambda self: len(self.open) >= OUTAGE_AFTER)
    @rule()
    def break_down(self):
        """A server that is out of order: all that is in flight fails, one after the other."""
        while self.open:
            self.ledger.now_ms += 100
            facts = {"retry_after_ms": None, "tokens": 9, "truncated": False, "daily": False}
            self._finish_and_compare(0, Outcome.TRANSIENT, **facts)

    @precondition(lambda self: self.open)
    @rule(
        some=SOME,
        outcome=st.sampled_from(list(Outcome)),
        retry_after_ms=st.sampled_from([None, 0, 1, 5_000]),
        tokens=st.none() | st.integers(0, 5_000),
        truncated=st.booleans(),
        daily=st.sampled_from([False, False, True]),
    )
    def finish(self, some, outcome, **facts):
        self._finish_and_compare(some, outcome, **facts)

    def _finish_and_compare(self, some, outcome, **facts):
        entry = self.open.pop(some % len(self.open))
        lease = entry.lease
        facts["tokens_in"] = facts["tokens_out"] = facts.pop("tokens")
        before, _, closed_at_ms = self._gate()
        started_at_ms = self.limit.starts[lease.request_id, lease.number]
        text = f"about {lease.word}" if outcome is Outcome.SUCCEEDED else "a draft"
        done = self.ledger.turn(
            self.ledger.finish(lease, outcome, text=text, **facts), run_id=entry.run, budget=0
        )
        assert done.late == 0
        cause = self._gate()[0]
        reached(f"finish: {outcome}")
        if started_at_ms > closed_at_ms or before is None:
            if outcome in CLOSES_GATE and started_at_ms > closed_at_ms:
                own = outcome is Outcome.THROTTLED and lease.number > 1
                assert own or cause is not None
                reached("finish: gate closed")
            elif outcome in OPENS_GATE - {"transient"}:
                assert cause is None
        if before is not None and cause is None:
            reached("finish: gate opened")
        request = entry.request
        if request.version != self.version:
            reached("finish: of an old version")
        if request.removed:
            reached("finish: removed in flight")
        if outcome is Outcome.TRANSIENT:
            request.due_at_ms = self.ledger.now_ms + (facts["retry_after_ms"] or 0)
        server = outcome is Outcome.TRANSIENT and facts["retry_after_ms"] != 0
        if server and cause == "outage":
            reached("finish: in an outage")
            self._again(request)
        else:
            self._judge(request, outcome)

    @rule(which=st.integers(0, 1))
    def die(self, which):
        lost = self._ended(which, self.runs[1 - which], Outcome.ABANDONED)
        for entry in lost:
            self._judge(entry.request, Outcome.ABANDONED)
        if lost:
            reached("die: with calls in flight")

    @rule(which=st.integers(0, 1))
    def end(self, which):
        left = self._ended(which, self.runs[which], Outcome.INTERRUPTED)
        for entry in left:
            self._again(entry.request)
        if left:
            reached("end: with calls in flight")

    @precondition(lambda self: self.zombies)
    @rule(some=SOME, outcome=st.sampled_from(list(Outcome)))
    def late_answer(self, some, outcome):
        entry = self.zombies[some % len(self.zombies)]
        finish = self.ledger.finish(entry.lease, outcome, tokens_in=1, tokens_out=1)
        done = self.ledger.turn(finish, run_id=entry.run)
        assert (done.late, done.lost, done.leases) == (1, True, [])
        reached("late_answer")

    @precondition(lambda self: self.zombies)
    @rule(some=SOME)
    def zombie_turn(self, some):
        entry = self.zombies[some % len(self.zombies)]
        done = self.ledger.turn(run_id=entry.run)
        assert (done.late, done.lost, done.leases) == (0, True, [])
        end = released(entry.lease, self.ledger.now_ms)
        assert self.ledger.turn(end, run_id=entry.run, budget=0).late == 1
        reached("zombie_turn")

    # What a user does.

    @precondition(lambda self: self.model)
    @rule(some=SOME)
    def cancel(self, some):
        self._cancel(self.model[some % len(self.model)])

    @precondition(lambda self: self.open)
    @rule(some=SOME)
    def cancel_in_flight(self, some):
        entry = self.open[some % len(self.open)]
        self._cancel(entry.request)

    def _cancel(self, request):
        if request.superseded:
            return
        word_id = control.word_id(self.conn, request.word)
        control.cancel(self.conn, [request.version], [word_id])
        if request.state == "pending":
            request.state = "cancelled"
            reached("cancel: pending")
        elif request.state == "leased":
            request.cancelling = True
            reached("cancel: in flight")

    @rule(state=st.sampled_from(["failed", "cancelled"]))
    def retry(self, state):
        mine = [
            request
            for request in self._standing()
            if request.version == self.version and not request.removed
        ]
        if state == "cancelled":
            for request in mine:
                if request.state == "leased":
                    if request.cancelling:
                        reached("retry: still in flight")
                    request.cancelling = False
        again = [request for request in mine if request.state == state]
        assert control.retry(self.conn, [self.version], None, [state]) == len(again)
        for request in again:
            request.state, request.failures, request.due_at_ms = "pending", 0, 0
            reached(f"retry: {state}")

    @precondition(lambda self: self.open)
    @rule(some=SOME)
    def change_their_mind(self, some):
        """Somebody cancels what is in flight, and takes that back."""
        entry = self.open[some % len(self.open)]
        if entry.request.version == self.version:
            self._cancel(entry.request)
            self.retry("cancelled")

    @precondition(lambda self: self.model)
    @rule(some=SOME, count=st.integers(1, 3), state=st.sampled_from(["", "succeeded"]))
    def remove(self, some, count, state):
        standing = [one for one in self._standing() if state in one.state] or self._standing()
        self._remove({one.word: one for one in (standing * 2)[some % len(standing) :][:count]})

    def _remove(self, chosen):
        ids = self._ids(chosen)
        before = [one for one in chosen.values() if not one.removed]
        done = standings.remove(self.conn, ids, self.ledger.now_ms)
        in_flight = [one for one in chosen.values() if one.state == "leased"]
        assert done == (len(before), len(in_flight))
        for request in before:
            request.removed = True
            if request.state == "leased":
                request.cancelling = True
                reached("remove: in flight")
            elif request.state == "pending":
                request.state = "cancelled"
                reached("remove: pending")
            elif request.state == "succeeded":
                reached("remove: answered")

    @precondition(lambda self: len(self._pending()) < 8)
    @rule(some=SOME, count=st.integers(1, 3))
    def ask_again(self, some, count):
        standing = self._standing()
        self._ask_again({one.word: one for one in (standing * 2)[some % len(standing) :][:count]})

    def _ask_again(self, chosen):
        asked = standings.ask_again(self.conn, self.version, self._ids(chosen))
        again = 0
        for request in chosen.values():
            if request.removed or request.state == "pending":
                continue
            if request.state == "leased":
                request.cancelling = False
                reached("ask_again: still in flight")
                continue
            again += 1
            if request.version == self.version and request.state != "succeeded":
                request.state, request.failures, request.due_at_ms = "pending", 0, 0
                reached("ask_again: what has failed")
            else:
                self._replace(request)
        assert asked == again

    def _ids(self, words):
        rows = [standings.standing_requests(self.conn, self.version, [word]) for word in words]
        return [request.id for [request] in rows]

    def _replace(self, request):
        """Have the current version ask in the place of what has ended."""
        request.superseded = True
        answered = request if request.state == "succeeded" else request.replaces
        self.model.append(Request(request.word, self.version, replaces=answered))
        if answered:
            reached("ask_again: the answer before counts")
        if request.version != self.version:
            reached("ask_again: by another version")

    def _carry_on(self):
        """Have the current version ask what is pending under others."""
        for request in self._standing():
            if request.state != "pending" or request.version == self.version:
                continue
            if request.attempts:
                request.state = "cancelled"
                self._replace(request)
                reached("supersede: carried on after an attempt")
            else:
                request.version = self.version
                reached("supersede: carried on")

    def _let_answers_stand(self, instead_of=None):
        """Have answers of the current version stand: before it carries on with what is pending."""
        for request in self._standing() if instead_of is None else instead_of:
            mine = [
                one
                for one in self.model
                if one.superseded
                and (one.word, one.version, one.state) == (request.word, self.version, "succeeded")
            ]
            ended = not (request.removed or request.superseded or request.state == "leased")
            if not mine or not ended or request.version == self.version:
                continue
            if request.state == "pending":
                request.state = "cancelled"
            request.superseded, mine[-1].superseded = True, False
            reached("supersede: an answer stands again")

    @precondition(lambda self: self.open)
    @rule(text=st.sampled_from(TEXTS))
    def supersede(self, text):
        old = self.version
        spec = intake.PromptSpec("p", text, "scripted", "m", {})
        now_ms = self.ledger.now_ms
        prompt, new = intake.put_prompt(self.conn, spec, self.ledger.limit_id, now_ms)
        assert new == (prompt.id not in self.versions)
        self.ledger.prompt = prompt
        if new:
            self.versions.append(prompt.id)
        elif prompt.id != old:
            reached("supersede: back to an old version")
        if prompt.id != old:
            self._let_answers_stand()
            self._carry_on()

    @precondition(lambda self: self.open)
    @rule(some=SOME, what=st.sampled_from(["in flight", "remove"]))
    def regret(self, some, what):
        """What is in flight is removed, or is answered and then removed."""
        request = self.open[some % len(self.open)].request
        facts = {"retry_after_ms": None, "tokens": 9, "truncated": False, "daily": False}
        if what == "in flight":
            self._remove({request.word: request})
            self._finish_and_compare(some, Outcome.INTERRUPTED, **facts)
            return
        self._finish_and_compare(some, Outcome.SUCCEEDED, **facts)
        self._remove({request.word: request})

    @precondition(lambda self: (self.open or self._answered()) and len(self._pending()) < 8)
    @rule(some=SOME, nth=st.integers(0, 1))
    def there_and_back(self, some, nth):
        """Somebody edits the prompt, has some words asked again, and takes that back."""
        if self.open:
            self.finish_several(Outcome.SUCCEEDED, 2)
        before = self.ledger.prompt.template
        words = [one.word for one in self._answered()[:3]]
        texts = [text for text in TEXTS if text != before]
        self.supersede(texts[nth])
        self._ask_again({word: self._of(word) for word in words})
        self.turn(some % 2, 12)
        if self.open:
            self.finish_several(Outcome.SUCCEEDED, 2)
        self.supersede(before)

    @rule(pause_ms=st.sampled_from([0, 0, 0, None, 5_000, 70_000]))
    def pause_or_resume(self, pause_ms):
        if pause_ms == 0:
            self._resume()
            return
        until_ms = None if pause_ms is None else self.ledger.now_ms + pause_ms
        control.pause(self.conn, None, self.ledger.now_ms, until_ms)
        self.limit.paused, self.limit.paused_until_ms = True, until_ms

    def _resume(self):
        control.resume(self.conn, None, self.ledger.now_ms)
        self.limit.paused = False

    @precondition(lambda self: self.open)
    @rule(
        concurrency=st.sampled_from([3, 6, 12]),
        per_minute=st.sampled_from([None, None, 3, 6, 20]),
    )
    def fix(self, concurrency, per_minute):
        now_ms = self.ledger.now_ms
        control.set_concurrency(self.conn, "quota", concurrency)
        control.set_per_minute(self.conn, "quota", per_minute, now_ms)
        control.set_adaptive(self.conn, "quota", now_ms, adaptive=False)
        self.limit.concurrency, self.limit.per_minute = concurrency, per_minute
        self.limit.learns = False

    @precondition(lambda self: self.open)
    @rule(learns=st.booleans(), tokens=st.sampled_from([None, 3_000, 100_000]))
    def learn_or_count_tokens(self, learns, tokens):
        now_ms = self.ledger.now_ms
        control.set_adaptive(self.conn, "quota", now_ms, adaptive=learns)
        control.set_tokens_per_minute(self.conn, "quota", tokens, now_ms)
        self.limit.learns, self.limit.counts_tokens = learns, tokens is not None

    @precondition(lambda self: self._gate()[0] is not None)
    @rule()
    def end_outage(self):
        before = self._gate()
        control.end_outage(self.conn, self.ledger.now_ms)
        if before[0] == "outage":
            assert self._gate()[:2] == (None, 0)
            reached("end_outage: there was one")
        else:
            assert self._gate() == before

    @rule(pause_ms=st.sampled_from([1, 1_000, 10_000, WINDOW_MS, 2 * WINDOW_MS]))
    def wait(self, pause_ms):
        self.ledger.now_ms += pause_ms

    @precondition(lambda self: self._gate()[1] > self.ledger.now_ms)
    @rule(which=st.integers(0, 1), outcome=st.sampled_from([Outcome.SUCCEEDED, *Outcome]))
    def try_the_gate(self, which, outcome):
        self.ledger.now_ms = self._gate()[1]
        self.turn(which, 12)
        if self.open:
            self.finish_several(outcome, len(self.open))

    def come_to_an_end(self):
        """Whatever has happened: when nobody stands in the way, every request is answered."""
        self._resume()
        self.learn_or_count_tokens(learns=False, tokens=None)
        self.fix(12, None)
        for run in self.runs:
            mine = [entry for entry in self.open if entry.run == run]
            finished = [self.ledger.finish(entry.lease, Outcome.SUCCEEDED) for entry in mine]
            self.ledger.turn(*finished, run_id=run, budget=0)
        for entry in self.open:
            self._judge(entry.request, Outcome.SUCCEEDED)
        self.open = []
        for _ in range(20):
            self.ledger.now_ms += 1_000_000
            self._leased(self.runs[0], self._turn(self.runs[0], Allowance(12)).leases)
            while self.open:
                entry = self.open.pop()
                finish = self.ledger.finish(entry.lease, Outcome.SUCCEEDED)
                self.ledger.turn(finish, run_id=entry.run, budget=0)
                self._judge(entry.request, Outcome.SUCCEEDED)
        assert self._pending() == []
        reached("come_to_an_end")

    @invariant()
    def they_agree(self):
        rows = self.conn.execute(
            "SELECT text, requests.prompt_id, requests.state, requests.attempts, requests.failures,"
            " requests.cancelling, requests.superseded, requests.removed_at_ms IS NOT NULL,"
            " old.prompt_id, old.attempts FROM requests JOIN words ON words.id = requests.word_id"
            " LEFT JOIN requests AS old ON old.id = requests.replaces"
        )
        known = Counter(
            (*rest, None if replaced[0] is None else replaced)
            for *rest, replaced in ((*row[:-2], row[-2:]) for row in rows)
        )
        assert known == Counter(request.on_record for request in self.model)
        self._answers_agree()

    def _answers_agree(self):
        """Of each word the newest answer counts, until it is removed."""
        shown = self.conn.execute("SELECT word, version FROM results").fetchall()
        expected = []
        for request in self._standing():
            answered = request if request.state == "succeeded" else request.replaces
            if answered and not request.removed:
                expected.append((request.word, self.versions.index(answered.version) + 1))
        assert sorted(shown) == sorted(expected)

    @invariant()
    def the_audit_is_clean_now_and_then(self):
        """It costs as much as a step, and most of what is broken stays so to the end."""
        self.steps += 1
        if self.steps % AUDIT_EVERY == 0:
            self.the_audit_is_clean()

    def the_audit_is_clean(self):
        assert [finding for finding in check(self.conn) if finding.broken] == []

    @property
    def version(self):
        return self.ledger.prompt.id

    def _answered(self):
        return [
            one
            for one in self._standing()
            if one.state == "succeeded" and one.version == self.version and not one.removed
        ]

    def _standing(self):
        return [request for request in self.model if not request.superseded]

    def _of(self, word):
        [request] = [request for request in self._standing() if request.word == word]
        return request

    def _pending(self):
        return [
            request.word
            for request in self._standing()
            if request.version == self.version
            and request.state == "pending"
            and request.due_at_ms <= self.ledger.now_ms
        ]

    def _gate(self):
        return self.ledger.row("SELECT gate_cause, gate_opens_at_ms, gate_closed_at_ms FROM limits")

    def _turn(self, run, allowance):
        return turn(self.conn, self.ledger.scope(run), [], allowance)

    def _leased(self, run, leases):
        for lease in leases:
            request = self._of(lease.word)
            assert request.state == "pending"
            request.state = "leased"
            request.attempts += 1
            assert lease.number == request.attempts
            self.open.append(Open(run, lease, request))
            self.limit.starts[lease.request_id, lease.number] = self.ledger.now_ms

    def _in_window(self):
        since_ms = self.ledger.now_ms - WINDOW_MS - self.ledger.policy.guard_ms
        return {key: at_ms for key, at_ms in self.limit.starts.items() if at_ms >= since_ms}

    def _rooms(self):
        """Return how many calls may start: numbers that one of must be right."""
        limit, now_ms = self.limit, self.ledger.now_ms
        cause, opens_at_ms, closed_at_ms = self._gate()
        until_ms = limit.paused_until_ms
        if limit.paused and (until_ms is None or now_ms < until_ms):
            reached("turn: paused")
            return {0}
        if limit.paused:
            reached("turn: pause over")
        if now_ms < opens_at_ms:
            reached("turn: gate closed")
            return {0}
        room = max(0, limit.concurrency - len(self.open))
        rooms = {min(room, places) for places in self._places()}
        if cause is None:
            return rooms
        reached("turn: tries the gate")
        if any(self.limit.starts[key] > closed_at_ms for key in self._keys_of_open()):
            return {0, *rooms}  # it may not have been refused by now: then it was let in
        return {min(room, 1) for room in rooms}

    def _keys_of_open(self):
        return [(entry.lease.request_id, entry.lease.number) for entry in self.open]

    def _places(self):
        """Return how many starts the window has room for; those that were moved may count twice."""
        most = self.limit.per_minute
        if most is None:
            return {12}
        since_ms = self.ledger.now_ms - WINDOW_MS - self.ledger.policy.guard_ms
        free = max(0, most - len(self._in_window()))
        if not free:
            reached("turn: window full")
        left = sum(at_ms >= since_ms for at_ms in self.limit.left)
        return set(range(max(0, free - left), free + 1))

    def _ended(self, which, by, outcome):
        """End a run, and go on with another; return what it had in flight."""
        ended = self.runs[which]
        self.runs[which] = self.ledger.start_run()
        closed = end_run(self.conn, self.ledger.scope(by), ended, outcome, "why")
        left = [entry for entry in self.open if entry.run == ended]
        assert closed == len(left)
        self.open = [entry for entry in self.open if entry.run != ended]
        self.zombies += left
        return left

    def _judge(self, request, outcome):
        request.failures += outcome in COUNTS_AS_FAILURE
        spent = outcome in COUNTS_AS_FAILURE and request.failures >= MAX_FAILURES
        if outcome is Outcome.SUCCEEDED:
            request.state = "succeeded"
        elif outcome in FINAL or spent:
            request.state, request.cancelling = "failed", False
            self._let_answers_stand([request])
            if spent:
                reached("finish: failed too often")
        else:
            self._again(request)

    def _again(self, request):
        if request.cancelling:
            reached("finish: cancelled in flight")
        request.state = "cancelled" if request.cancelling else "pending"
        request.cancelling = False
        self._let_answers_stand([request])
        if request.state == "pending" and request.version != self.version:
            reached("finish: carried to a newer version")
            self._carry_on()


EXAMPLES, STEPS = {"long": (10_000, 100), "mutation": (15, 50)}.get(PROFILE, (200, 50))
TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)


def test_the_machine_comes_everywhere():
    """A rule that is never followed proves nothing; this is for after the machine has run."""
    if PROFILE == "mutation" or not REACHED:
        pytest.skip("the machine has not run, or not for long")
    assert {what for what in TO_REACH if not REACHED[what]} == set()
