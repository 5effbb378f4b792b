"""A world in virtual time: a server with a quota, others who use it too, and the way between.

Rule: nothing waits and nothing is measured; time is integer ms and one seed is one history. The
server's windows are those of the emulator.
"""

import heapq
import math
import random
from typing import NamedTuple

from crawler.emulator.quota import Bucket, FixedWindow, SlidingWindow

MINUTE_MS = 60_000
KINDS = ("fixed", "sliding", "bucket", "bucket10")
"""`bucket` holds a minute, `bucket10` a tenth of it, `bucket1` (not among the four) a second."""


class World:
    """A heap of what will happen."""

    def __init__(self, seed):
        self.now_ms = 1  # a start at 0 would be no later than a gate that has never closed
        self.random = random.Random(seed)
        self.events = 0
        self._heap = []

    def at(self, when_ms, function, *args):
        """Have something happen."""
        self.events += 1
        heapq.heappush(self._heap, (when_ms, self.events, function, args))

    def run(self, until_ms):
        """Let it happen, up to a moment."""
        while self._heap and self._heap[0][0] <= until_ms:
            self.now_ms, _, function, args = heapq.heappop(self._heap)
            function(*args)
        self.now_ms = max(self.now_ms, until_ms)

    def stop(self):
        """Let nothing more happen."""
        self._heap.clear()

    def uplink_ms(self):
        """Return how long a call is on its way: 30 ms in the median, now and then 150 more."""
        seconds = self.random.lognormvariate(-3.5, 0.5)
        return round(1000 * (seconds + (0.15 if self.random.random() < 0.02 else 0)))


class Reply(NamedTuple):
    """What the server says, and after how many ms."""

    outcome: str
    after_ms: int
    retry_after_ms: int | None = None
    told: int | None = None
    """The quota that its headers tell."""


class Server:
    """A quota, a latency, chance, outages, words that it never takes, a capacity.

    ``outage`` is a time, or a function of one that tells whether the server is out of order.
    ``refused`` and ``failing`` are shares of the calls, whatever the rate. ``lie``: which call is
    refused for no reason, and its Retry-After in ms. ``capacity``: what it does with more calls at
    once than so many (``queue``, ``rising`` latency, ``429``, ``503``).
    """

    def __init__(
        self, world, quota, kind="none", *, latency_ms=1000, hints=False, outage=None, daily=None,
        refused=0.0, failing=0.0, lie=None, poison=(), capacity=None, tells=False, refuse_ms=50,
    ):  # fmt: skip
        self._world = world
        self.quota = quota
        self._window = _window(kind, quota)
        self._phase_ms = world.random.randrange(MINUTE_MS)
        self._mu = math.log(latency_ms) - 0.125 if latency_ms else None
        self._hints, self._tells, self._refuse_ms = hints, tells, refuse_ms
        begin_ms, end_ms = outage if isinstance(outage, tuple) else (0, 0)
        self._is_out = outage if callable(outage) else lambda at_ms: begin_ms <= at_ms < end_ms
        self._day_quota, self._day_ends_ms = daily or (math.inf, 0)
        self._refused, self._failing, self._lie, self._poison = refused, failing, lie, tuple(poison)
        self._capacity, self._asked, self.inside = capacity, 0, 0
        queues = capacity is not None and capacity[0] == "queue"
        self._free_ms = [0] * capacity[1] if queues else []

    def reply(self, item=None):
        """Decide about a request that arrives now."""
        self._asked += 1
        said = self._said(item)
        if said is not None:
            return said
        now_ms, served_ms = self._world.now_ms, 0
        if self._window is not None:
            wait_ms = self._window.wait_ms(1, now_ms + self._phase_ms)
            if wait_ms:
                return Reply("refused", self._refuse_ms, wait_ms if self._hints else None)
        if self._mu is not None:
            served_ms = self._world.random.lognormvariate(self._mu, 0.5)
        kind, most = self._capacity or ("", 0)
        if kind in ("429", "503") and self.inside >= most:
            return Reply("refused" if kind == "429" else "failed", self._refuse_ms)
        if self._window is not None:
            self._window.take(1, now_ms + self._phase_ms)
        return self._served(kind, most, served_ms)

    def _said(self, item):
        """Return what is said before anything is counted."""
        now_ms, chance = self._world.now_ms, self._world.random
        if self._is_out(now_ms):
            return Reply("failed", 50)
        if self._day_quota <= 0 and now_ms < self._day_ends_ms:
            return Reply("day", 50)
        if item in self._poison:
            return Reply("refused", self._refuse_ms)
        if self._lie is not None and self._asked == self._lie[0]:
            return Reply("refused", self._refuse_ms, self._lie[1])
        if self._refused and chance.random() < self._refused:
            return Reply("refused", self._refuse_ms)
        if self._failing and chance.random() < self._failing:
            return Reply("failed", 50)
        return None

    def _served(self, kind, most, served_ms):
        now_ms = self._world.now_ms
        if kind == "queue":
            begin_ms = max(now_ms, self._free_ms[0])
            heapq.heapreplace(self._free_ms, begin_ms + served_ms)
            served_ms += begin_ms - now_ms
        if kind == "rising":
            served_ms *= 1 + (self.inside / most) ** 2
        self._day_quota -= 1
        self.inside += 1
        self._world.at(now_ms + round(served_ms), self._leave)
        return Reply("ok", 30 + round(served_ms), told=self.quota if self._tells else None)

    def _leave(self):
        self.inside -= 1


def _window(kind, quota):
    match kind:
        case "fixed":
            return FixedWindow(quota, MINUTE_MS)
        case "sliding":
            return SlidingWindow(quota, MINUTE_MS)
        case "bucket":
            return Bucket(quota, MINUTE_MS, quota)
        case "bucket10":
            return Bucket(quota, MINUTE_MS, max(2, quota // 10))
        case "bucket1":
            return Bucket(quota, MINUTE_MS, max(1, quota // 60))
        case "none":
            return None
    raise ValueError(kind)


class Tenants:
    """Others who use the same quota: they come by chance and never come again.

    ``profile(now_ms, random)`` gives the share of the quota that they want, and until when.
    """

    def __init__(self, world, server, profile):
        self._world = world
        self._server = server
        self._profile = profile
        self._share, self._until_ms = 0.0, 0
        self.wanted = self.served = 0
        self.wanted_in_second = {}
        self._turn()

    def _turn(self):
        self._share, self._until_ms = self._profile(self._world.now_ms, self._world.random)
        self._next()

    def _next(self):
        rate = self._share * self._server.quota / MINUTE_MS
        gap_ms = self._world.random.expovariate(rate) if rate else math.inf
        if self._world.now_ms + gap_ms < self._until_ms:
            self._world.at(self._world.now_ms + max(1, round(gap_ms)), self._arrive)
        elif self._until_ms < math.inf:
            self._world.at(round(self._until_ms), self._turn)

    def _arrive(self):
        second = self._world.now_ms // 1000
        self.wanted += 1
        self.wanted_in_second[second] = self.wanted_in_second.get(second, 0) + 1
        self.served += self._server.reply().outcome == "ok"
        self._next()


def constant(share):
    """Return a profile of tenants who always want the same."""
    return lambda now_ms, random: (share, math.inf)


def bursty(share=0.9, on_ms=20_000, off_ms=40_000):
    """Return a profile of tenants who come in bursts."""
    state = {"on": False}

    def profile(now_ms, random):
        state["on"] = not state["on"]
        mean_ms = on_ms if state["on"] else off_ms
        return (share if state["on"] else 0.0), now_ms + random.expovariate(1 / mean_ms)

    return profile


def steps(*parts):
    """Return a profile of (share, until ms) steps."""

    def profile(now_ms, random):
        for share, until_ms in parts:
            if now_ms < until_ms:
                return share, until_ms
        return parts[-1][0], math.inf

    return profile
