"""The crawler in virtual time: the product's own limiter and policy, over counts in memory.

Rule: no decision is made here. The counts are what the ledger would have counted.
"""

import bisect
import heapq
import itertools
from collections import deque

from crawler.ledger.evidence import FLOWS, is_own, is_uneven, luck
from crawler.ledger.pacing import TRIES
from crawler.policy import Policy, verdict
from crawler.quota.concurrency import widened
from crawler.quota.gate import Failure, failed, lets_in, opened, refused, verified_at_ms
from crawler.quota.plan import Usage, plan
from crawler.quota.rate import Refusal, is_noisy, is_untried, started
from crawler.quota.state import RECENT, State
from crawler.states import Outcome, RequestState

MINUTE_MS = 60_000
NEVER_MS = 10**15
HOPELESS = 1e-6
"""A word that is refused so much more often than others are has failed."""


class Try:
    """An attempt."""

    def __init__(self, item, number, at_ms, nth):
        self.item, self.number, self.at_ms, self.nth = item, number, at_ms, nth
        self.outcome, self.ended_ms = None, None


class Client:
    """A crawl of so many items.

    ``state`` and ``tries`` are what a run before it has left in the ledger; with ``slots`` None its
    concurrency finds itself.
    """

    def __init__(self, world, server, items, slots, quota, state=None, tries=(), on_done=None):
        self._world, self._server = world, server
        self._quota = quota._replace(concurrency=slots)
        self._policy = Policy()
        self.state = state or State()
        self.tries = list(tries)
        self._times = [one.at_ms for one in self.tries]
        since_ms = world.now_ms - self._quota.window_ms
        self._starts = deque(at_ms for at_ms in self._times if at_ms >= since_ms)
        self._fresh, self._waiting = items, []
        self._failures, self._refusals, self._first_refused_ms = {}, {}, {}
        self._hopeless = set()
        self._ids, self._numbers = itertools.count(), {}
        self._flying = {}  # id: its attempt
        self._wake_ms, self._newest_refused = None, (0, 0, 0)
        self._dead, self._on_done, self.draw = False, on_done, world.random.randint
        self.left = items
        self.sent = self.refused = self.failed = self.day_refused = self.lost = 0
        self.served = sum(one.outcome == "ok" for one in self.tries)
        self.most_failures = 0
        self.accepted_at_ms, self.done_at_ms = [], []
        self.finished_at_ms = None
        world.at(world.now_ms, self._turn)

    def kill(self):
        """Die: what is in flight is lost, what is in the ledger is not."""
        self._dead = True
        return self.left

    # What the ledger counts

    def _accepted(self, until_ms, since_ms=0):
        """Return (not refused, refused, first start) of the minute up to a moment."""
        low = bisect.bisect_left(self._times, max(since_ms, until_ms - MINUTE_MS))
        high = bisect.bisect_right(self._times, until_ms)
        count = sum(self.tries[n].outcome == "refused" for n in range(low, high))
        first_ms = self._times[low] if low < high else until_ms
        return high - low - count, count, first_ms

    def _since(self, after_ms, most=NEVER_MS):
        """Return (ended, refused) of the newest calls that started after a moment."""
        ended = count = 0
        for one in reversed(self.tries):
            if one.at_ms <= after_ms or ended >= most:
                break
            ended += one.outcome is not None
            count += one.outcome == "refused"
        return ended, count

    def _flows(self):
        """Return the starts between refusals since the last cut, and in how many ms they were."""
        if not is_untried(self.state):
            return []
        low = bisect.bisect_right(self._times, self.state.cut_at_ms)
        ends = [(low - 1, self.state.cut_at_ms)]
        for n, one in enumerate(self.tries[low:], low):
            ends += [(n, one.at_ms)] if one.outcome == "refused" else []
        pairs = itertools.pairwise(ends[-FLOWS - 1 :])
        return [(n - m - 1, till_ms - at_ms) for (m, at_ms), (n, till_ms) in pairs]

    def _of_request(self, item):
        """Return the refusals of a request, and (ended, refused) of others since the first."""
        times = self._refusals.get(item, 0)
        if times < 2:
            return 1, 0, 0
        ended, count = self._since(self._first_refused_ms[item] - 1)
        return times, max(0, ended - times), max(0, count - times)

    def _failure(self, one):
        """Return a failure with the row of failures that it belongs to."""
        row, before, sign_ms = [], [], None
        for old in reversed(self.tries):
            if len(before) == RECENT:
                break
            if old.outcome is None and sign_ms is None:
                row = []
            elif old.outcome == "failed" and sign_ms is None:
                row.append(old)
            elif old.outcome is not None:
                sign_ms = old.at_ms if sign_ms is None else sign_ms
                before.append(old)
        row = [old for old in row if sign_ms is None or old.at_ms > sign_ms]
        if not row:
            return Failure(one.at_ms, self._world.now_ms)
        times = {}
        for old in row:
            times[old.item] = times.get(old.item, 0) + 1
        return Failure(
            one.at_ms,
            self._world.now_ms,
            words=sum(self._failures.get(item, 0) - n < TRIES for item, n in times.items()),
            left=self.left,
            first_started_at_ms=min(old.at_ms for old in row),
            first_ended_at_ms=min(old.ended_ms for old in row),
            before=len(before),
            before_failed=sum(old.outcome == "failed" for old in before),
        )

    # The loop

    def _turn(self):
        if self._dead:
            return
        now_ms = self._world.now_ms
        while self._starts and self._starts[0] < now_ms - self._quota.window_ms:
            self._starts.popleft()
        usage = self._usage(now_ms)
        self._try_gate(usage, now_ms)
        step = plan(self.state, self._quota, usage, now_ms)
        calls = min(step.room, self._due(now_ms))
        for _ in range(calls):
            self._start()
        if calls:
            held = calls == step.room and step.held_by in ("pace", "per_minute")
            self.state = started(self.state, self._quota, calls, now_ms, held=held)
        if calls == step.room and step.wake_at_ms is not None:
            self._wake_at(max(step.wake_at_ms, now_ms))
        if self._waiting and self._waiting[0][0] > now_ms:
            self._wake_at(self._waiting[0][0])
        if self._quota.concurrency is None:
            self._end_round(now_ms, is_full=calls == step.room)

    def _usage(self, now_ms):
        closed = self.state.gate_cause is not None
        probes = [
            one.at_ms
            for one in self._flying.values()
            if closed and one.at_ms > self.state.gate_closed_at_ms
        ]
        return Usage(
            in_flight=len(self._flying),
            occupied=len(self._starts),
            place_free_at_ms=self._free_ms() if self._starts else None,
            probe_started_at_ms=min(probes, default=None),
            refusal_ms=self._newest_refused[2],
            served=self.served,
            newest_ms=self._times[-1] if self._times else 0,
        )

    def _try_gate(self, usage, now_ms):
        if usage.probe_started_at_ms is None:
            return
        at_ms = verified_at_ms(self.state, usage.probe_started_at_ms, usage.refusal_ms)
        if at_ms is not None and now_ms >= at_ms:
            self._open(now_ms)

    def _open(self, now_ms):
        since_ms = self.state.cut_at_ms + 1 if is_untried(self.state) else 0
        minute = self._accepted(self.state.gate_since_ms, since_ms)
        self.state = opened(self.state, self._quota, *minute, now_ms)

    def _end_round(self, now_ms, *, is_full):
        low = bisect.bisect_right(self._times, self.state.round_at_ms)
        ends = [one.outcome for one in self.tries[low:]]
        first_ms = self._times[low] if low < len(self._times) else now_ms
        facts = ends.count("ok"), ends.count("failed"), first_ms, len(self._flying)
        before = int(self.state.width)
        self.state = widened(self.state, *facts, now_ms)
        if is_full and int(self.state.width) > before:
            self._wake_at(now_ms)

    def _free_ms(self):
        return self._starts[0] + self._quota.window_ms + 1

    def _due(self, now_ms):
        return self._fresh + sum(due_ms <= now_ms for due_ms, _ in self._waiting)

    def _wake_at(self, when_ms):
        when_ms = max(when_ms, self._world.now_ms)
        if self._wake_ms is None or when_ms < self._wake_ms:
            self._wake_ms = when_ms
            self._world.at(when_ms, self._wake, when_ms)

    def _wake(self, when_ms):
        if when_ms == self._wake_ms:
            self._wake_ms = None
            self._turn()

    def _fresh_first(self):
        state = self.state
        if state.gate_cause == "outage":
            return state.gate_strikes % 2 == 1
        return state.gate_cause is not None

    def _start(self):
        now_ms = self._world.now_ms
        waits = bool(self._waiting) and self._waiting[0][0] <= now_ms
        if waits and not (self._fresh_first() and self._fresh):
            _, item = heapq.heappop(self._waiting)
        else:
            self._fresh -= 1
            item = next(self._ids)
        self._numbers[item] = self._numbers.get(item, 0) + 1
        one = self._flying[item] = Try(item, self._numbers[item], now_ms, len(self.tries))
        self.tries.append(one)
        self._times.append(now_ms)
        self._starts.append(now_ms)
        self.sent += 1
        self._world.at(now_ms + self._world.uplink_ms(), self._arrive, item)

    def _arrive(self, item):
        reply = self._server.reply(item)
        if reply.outcome == "ok":
            self.accepted_at_ms.append(self._world.now_ms)
        if not self._dead:
            self._world.at(self._world.now_ms + reply.after_ms, self._answer, item, reply)

    def _answer(self, item, reply):
        if self._dead:
            return
        now_ms = self._world.now_ms
        one = self._flying.pop(item)
        one.outcome, one.ended_ms = "refused" if reply.outcome == "day" else reply.outcome, now_ms
        if reply.told is not None:
            self._quota = self._quota._replace(per_minute=reply.told)
        outcome, alone = self._learn(one, reply)
        self._settle(item, outcome, alone)
        self._turn()

    def _learn(self, one, reply):
        """Learn from the end of a call; return its outcome, and how often it was refused alone."""
        now_ms, state = self._world.now_ms, self.state
        if one.outcome == "ok":
            self.served += 1
            self.done_at_ms.append(now_ms)
        is_sign = one.outcome == "ok" or (one.outcome == "failed" and state.gate_cause != "outage")
        if is_sign and lets_in(state, one.at_ms):
            self._open(now_ms)
        if one.outcome == "failed":
            self.failed += 1
            self.state = failed(self.state, self._failure(one))
            return Outcome.TRANSIENT, 0
        if one.outcome == "ok":
            return Outcome.SUCCEEDED, 0
        return Outcome.THROTTLED, self._refuse(one, reply)

    def _refuse(self, one, reply):
        now_ms = self._world.now_ms
        self.refused += 1
        self.day_refused += reply.outcome == "day"
        self._newest_refused = max(self._newest_refused, (one.at_ms, one.nth, now_ms - one.at_ms))
        self._refusals[one.item] = self._refusals.get(one.item, 0) + 1
        self._first_refused_ms.setdefault(one.item, one.at_ms)
        most = RECENT if is_noisy(self.state) else NEVER_MS
        times, others, others_refused = self._of_request(one.item)
        own = reply.outcome != "day" and is_own(times, others, others_refused)
        facts = Refusal(
            one.at_ms,
            now_ms,
            reply.retry_after_ms,
            reply.outcome == "day",
            own,
            self._free_ms() if self._starts else now_ms,
            *self._since(self.state.cut_at_ms, most),
            in_flight=len(self._flying) + 1,
            uneven=is_uneven(self._flows()),
        )
        self.state = refused(self.state, self._quota, facts)
        unlucky = luck(times, others, others_refused) < HOPELESS
        if times >= self._policy.max_throttled and unlucky:
            self._hopeless.add(one.item)
        return times if own else int(self.state.gate_cause is None)

    def _settle(self, item, outcome, alone):
        is_final = item in self._hopeless
        found = verdict(
            self._policy,
            Outcome.REJECTED if is_final else outcome,
            failures=self._failures.get(item, 0),
            retry_after_ms=None,
            now_ms=self._world.now_ms,
            draw=self.draw,
            outage=self.state.gate_cause == "outage",
            alone=alone,
        )
        if found.failures:
            self._failures[item] = found.failures
            self.most_failures = max(self.most_failures, found.failures)
        if found.state is RequestState.PENDING:
            heapq.heappush(self._waiting, (found.due_at_ms, item))
            return
        self.lost += found.state is RequestState.FAILED
        self.left -= 1
        if not self.left:
            self.finished_at_ms = self._world.now_ms
            if self._on_done:
                self._on_done()
