"""The crawler in virtual time: the product's own plan, pace and policy, over counts in memory.

Rule: no decision is made here. The counts are what the ledger would have counted.
"""

import heapq
import itertools
from collections import deque

from crawler.policy import Policy, verdict
from crawler.quota.learning import Refusal, answered, failed, opened, refused, verified_at_ms
from crawler.quota.pace import Pace, started
from crawler.quota.plan import Usage, plan
from crawler.states import Outcome, RequestState

MINUTE_MS = 60_000


class Client:
    """A crawl of so many items. ``pace`` is what a run before it has left in the ledger."""

    def __init__(self, world, server, items, slots, quota, pace=None, starts=(), on_done=None):
        self._world = world
        self._server = server
        self._slots = slots
        self._quota = quota
        self._policy = Policy()
        self.pace = pace or Pace()
        self.starts = deque(starts)  # of the window
        self._refused_starts = deque()
        self._fresh = items
        self._waiting = []
        self._failures = {}
        self._ids = itertools.count()
        self._flying = {}  # id: when it started
        self._wake_ms = None
        self._dead = False
        self._on_done = on_done
        self.left = items
        self.sent = self.refused = self.failed = self.day_refused = self.lost = 0
        self.most_failures = 0
        self.accepted_at_ms = []
        self.finished_at_ms = None
        world.at(world.now_ms, self._turn)

    def kill(self):
        """Die: what is in flight is lost, what is in the ledger is not."""
        self._dead = True
        return self.left

    def accepted(self):
        """Count the calls of the last minute that were not refused."""
        since_ms = self._world.now_ms - MINUTE_MS
        while self._refused_starts and self._refused_starts[0] < since_ms:
            self._refused_starts.popleft()
        newer = sum(1 for start_ms in reversed(self.starts) if start_ms >= since_ms)
        return newer - len(self._refused_starts)

    def _turn(self):
        if self._dead:
            return
        now_ms = self._world.now_ms
        while self.starts and self.starts[0] < now_ms - self._quota.window_ms:
            self.starts.popleft()
        probe_ms = None
        if self.pace.gate_cause is not None:
            closed_ms = self.pace.gate_closed_at_ms
            probe_ms = min((at for at in self._flying.values() if at > closed_ms), default=None)
        if probe_ms is not None:
            at_ms = verified_at_ms(self.pace, probe_ms)
            if at_ms is not None and now_ms >= at_ms:
                self.pace = opened(self.pace, self._quota, self.accepted(), now_ms)
        step = plan(self._outlook(probe_ms), now_ms)
        calls = min(step.room, self._due(now_ms))
        for _ in range(calls):
            self._start()
        if calls:
            held = calls == step.room and step.held_by in ("pace", "per_minute")
            self.pace = started(self.pace, self._quota, calls, now_ms, held=held)
        if calls == step.room and step.wake_at_ms is not None:
            self._wake_at(max(step.wake_at_ms, now_ms))
        if self._waiting and self._waiting[0][0] > now_ms:
            self._wake_at(self._waiting[0][0])

    def _outlook(self, probe_ms):
        return Usage(
            concurrency=self._slots,
            in_flight=len(self._flying),
            quota=self._quota,
            pace=self.pace,
            occupied=len(self.starts),
            place_free_at_ms=self._free_ms() if self.starts else None,
            probe_started_at_ms=probe_ms,
            paused=False,
            paused_until_ms=None,
            next_due_at_ms=None,
        )

    def _free_ms(self):
        return self.starts[0] + self._quota.window_ms + 1

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

    def _start(self):
        now_ms = self._world.now_ms
        probing = self.pace.gate_cause == "outage" and self.pace.gate_strikes % 2 == 1
        if self._waiting and self._waiting[0][0] <= now_ms and not (probing and self._fresh):
            _, item = heapq.heappop(self._waiting)
        else:
            self._fresh -= 1
            item = next(self._ids)
        self._flying[item] = now_ms
        self.starts.append(now_ms)
        self.sent += 1
        self._world.at(now_ms + self._world.uplink_ms(), self._arrive, item)

    def _arrive(self, item):
        reply = self._server.reply()
        if reply.outcome == "ok":
            self.accepted_at_ms.append(self._world.now_ms)
        if not self._dead:
            self._world.at(self._world.now_ms + reply.after_ms, self._answer, item, reply)

    def _answer(self, item, reply):
        if self._dead:
            return
        now_ms, quota = self._world.now_ms, self._quota
        started_ms = self._flying.pop(item)
        outcome = Outcome.SUCCEEDED
        if reply.outcome == "ok":
            self.pace = answered(self.pace, quota, started_ms, self._if_shut(), now_ms)
        elif reply.outcome == "failed":
            outcome = Outcome.TRANSIENT
            self.failed += 1
            outage = self.pace.gate_cause == "outage"
            if outage or not self._failures.get(item):
                self.pace = failed(self.pace, started_ms, "503", refused=False, now_ms=now_ms)
        else:
            outcome = Outcome.THROTTLED
            self._refused_starts.append(started_ms)
            self.refused += 1
            self.day_refused += reply.outcome == "day"
            self.pace = refused(self.pace, quota, self._refusal(started_ms, reply))
        self._settle(item, outcome)
        self._turn()

    def _if_shut(self):
        return self.accepted() if self.pace.gate_cause else 0

    def _refusal(self, started_ms, reply):
        return Refusal(
            started_at_ms=started_ms,
            finished_at_ms=self._world.now_ms,
            reason="429",
            retry_after_ms=reply.retry_after_ms,
            daily=reply.outcome == "day",
            accepted=self.accepted(),
            window_free_at_ms=self._free_ms(),
        )

    def _settle(self, item, outcome):
        found = verdict(
            self._policy,
            outcome,
            failures=self._failures.get(item, 0),
            retry_after_ms=None,
            now_ms=self._world.now_ms,
            draw=self._world.random.randint,
            outage=self.pace.gate_cause == "outage",
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
