"""What an emulator allows: windows over integer ms, and the quota that is made of them.

Rule: time is an argument and never goes back. A request that is refused costs nothing; one that
asks for more than a whole window holds is never let in.
"""

from collections import deque
from typing import NamedTuple, Protocol

from crawler.emulator.settings import Settings


class Window(Protocol):
    """Counts what is taken, and tells when there will be room again."""

    def wait_ms(self, amount: int, now_ms: int) -> int:
        """Return the ms until an amount fits if nobody takes anything; 0 if it fits now."""

    def take(self, amount: int, now_ms: int) -> None:
        """Count an amount that fits now."""

    def room(self, now_ms: int) -> "Room":
        """Return what is left."""


class Room(NamedTuple):
    """What is left of a window: most, left, and in how many ms all of it is there again."""

    most: int
    left: int
    full_in_ms: int


class FixedWindow:
    """At most so much in each window of the clock, as from 10:01:00 to 10:02:00."""

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._index = -1
        self._used = 0

    def wait_ms(self, amount: int, now_ms: int) -> int:
        """Return the ms until an amount fits: until the next window at the most."""
        index, into_ms = divmod(now_ms, self._window_ms)
        used = self._used if index == self._index else 0
        return 0 if used + amount <= self._limit else self._window_ms - into_ms

    def take(self, amount: int, now_ms: int) -> None:
        """Count an amount in the window of this moment."""
        index = now_ms // self._window_ms
        if index != self._index:
            self._index, self._used = index, 0
        self._used += amount

    def room(self, now_ms: int) -> Room:
        """Return what is left of the window of this moment."""
        index, into_ms = divmod(now_ms, self._window_ms)
        used = self._used if index == self._index else 0
        return Room(self._limit, self._limit - used, self._window_ms - into_ms if used else 0)


class SlidingWindow:
    """At most so much in any interval of the window's length."""

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._taken: deque[tuple[int, int]] = deque()  # when, how much
        self._used = 0

    def wait_ms(self, amount: int, now_ms: int) -> int:
        """Return the ms until enough of what was taken has left the window."""
        while self._taken and self._taken[0][0] <= now_ms - self._window_ms:
            self._used -= self._taken.popleft()[1]
        too_much = self._used + amount - self._limit
        if too_much <= 0:
            return 0
        for at_ms, taken in self._taken:
            too_much -= taken
            if too_much <= 0:
                return at_ms + self._window_ms - now_ms
        return self._window_ms

    def take(self, amount: int, now_ms: int) -> None:
        """Count an amount from this moment on."""
        self._taken.append((now_ms, amount))
        self._used += amount

    def room(self, now_ms: int) -> Room:
        """Return what is left beside what was taken."""
        full_in_ms = self.wait_ms(self._limit, now_ms)
        return Room(self._limit, self._limit - self._used, full_in_ms)


class Bucket:
    """A bucket that is full at first, and into which the limit of a window flows evenly."""

    def __init__(self, limit: int, window_ms: int, capacity: int) -> None:
        # Kept in shares of 1/window_ms, of which `limit` flow in each ms: whole numbers.
        self._limit = limit
        self._window_ms = window_ms
        self._full = capacity * window_ms
        self._level = self._full
        self._at_ms = 0

    def wait_ms(self, amount: int, now_ms: int) -> int:
        """Return the ms until an amount has flowed in."""
        self._level = min(self._full, self._level + (now_ms - self._at_ms) * self._limit)
        self._at_ms = now_ms
        needed = amount * self._window_ms
        if needed > self._full:
            return self._window_ms
        return max(0, -((self._level - needed) // self._limit))

    def take(self, amount: int, now_ms: int) -> None:
        """Take an amount out of the bucket."""
        del now_ms  # it fits, so somebody has asked for this moment
        self._level -= amount * self._window_ms

    def room(self, now_ms: int) -> Room:
        """Return what is in the bucket; of a minute, as all of them are told."""
        capacity = self._full // self._window_ms
        full_in_ms = self.wait_ms(capacity, now_ms)
        return Room(self._limit, self._level // self._window_ms, full_in_ms)


class Refusal(NamedTuple):
    """Which quota refused a request, and in how many ms to come again, where that is known."""

    why: str
    wait_ms: int | None = None


class Quota:
    """All that an emulator allows: calls at once, requests a day, requests and tokens a minute."""

    def __init__(self, settings: Settings, start_ms: int) -> None:
        self._settings = settings
        self._today = 0
        self._start_ms = start_ms
        self._tenants_seen = 0
        burst = settings.burst
        self._windows = [
            _window(settings, settings.per_minute, burst),
            _window(settings, settings.tokens_per_minute, None),
        ]

    def refusal(self, tokens: int, in_flight: int, now_ms: int) -> Refusal | None:
        """Let a request in and count it, or return why not.

        ``tokens`` are those of the request and its answer; ``in_flight`` are the other calls.
        """
        self._serve_tenants(now_ms)
        most_at_once, per_day = self._settings.max_concurrent, self._settings.per_day
        if most_at_once is not None and in_flight >= most_at_once:
            return Refusal("concurrency")
        if per_day is not None and self._today >= per_day:
            return Refusal("day")
        wanted = (("minute", 1), ("tokens", tokens))
        pairs = [(w, *want) for w, want in zip(self._windows, wanted, strict=True) if w]
        waits = [(window.wait_ms(amount, now_ms), why) for window, why, amount in pairs]
        longest_ms, why = max(waits, default=(0, ""))
        if longest_ms:
            return Refusal(why, longest_ms)
        for window, _, amount in pairs:
            window.take(amount, now_ms)
        self._today += 1
        return None

    def rooms(self, now_ms: int) -> dict[str, Room]:
        """Return what is left of requests and tokens, as far as they are limited."""
        pairs = zip(("requests", "tokens"), self._windows, strict=True)
        return {name: window.room(now_ms) for name, window in pairs if window}

    def _serve_tenants(self, now_ms: int) -> None:
        """Let the others take what they came for since the last request: they come evenly."""
        tenants, window_ms = self._settings.tenants, self._settings.window_ms
        requests = self._windows[0]
        if not tenants or requests is None:
            return
        # Who came more than a window ago has left no trace in any window but a bucket's, which has
        # lost as much to those who came since.
        long_ago = (now_ms - window_ms - self._start_ms) * tenants // window_ms
        for nth in range(max(self._tenants_seen, long_ago), self._came(now_ms)):
            at_ms = self._start_ms + -(-nth * window_ms // tenants)
            if requests.wait_ms(1, at_ms) == 0:
                requests.take(1, at_ms)
        self._tenants_seen = self._came(now_ms)

    def _came(self, now_ms: int) -> int:
        """Return how many requests of other tenants have come."""
        passed_ms = now_ms - self._start_ms
        return passed_ms * self._settings.tenants // self._settings.window_ms + 1


def _window(settings: Settings, limit: int | None, burst: int | None) -> Window | None:
    if limit is None:
        return None
    match settings.window:
        case "sliding":
            return SlidingWindow(limit, settings.window_ms)
        case "bucket":
            return Bucket(limit, settings.window_ms, burst or limit)
        case _:
            return FixedWindow(limit, settings.window_ms)
