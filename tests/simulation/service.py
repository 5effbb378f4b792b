"""A service in virtual time that refuses, fails, hangs and bills; and remembers all of it.

Rule: the service is a witness. It knows of the program what arrives, and nothing of its database.
"""

import asyncio
import contextvars
import random
from collections import Counter
from typing import NamedTuple

from crawler.protocol import Answer, Call, ProviderError
from crawler.states import Outcome
from tests.simulation.loop import PROCESS, Loop

WINDOW_S = 60.0
LONGEST_CALL_S = 15.0
"""How long calls may be in flight: what began under an older limit has ended by then."""
UPLINK_S = (0.005, 0.25)
LATE_S = 1.0
"""How long a call may be on its way that was leased under an older limit."""

Key = tuple[int, int]
"""A call's (request_id, number)."""


class Weather(NamedTuple):
    """What goes wrong, and how often; the times are spans (from, to, kind) in seconds."""

    failing: float = 0.06
    breaking: float = 0.02
    cutting: float = 0.02
    hanging: float = 0.03
    quota: int | None = None
    """How many calls are let in in any minute; None for any number."""
    hints: bool = True
    """Refusals say when to come back."""
    spells: tuple[tuple[float, float, str], ...] = ()
    """Nobody is there, there are errors, refusals, no quota for the day, unknown credentials."""


CALM = Weather(failing=0.02, breaking=0, cutting=0, hanging=0)


class Service:
    """Answers a word with a text that tells which call it answers."""

    def __init__(self, loop: Loop, seed: int, weather: Weather) -> None:
        self.weather = weather
        self.broken: list[str] = []
        """What was promised and not kept, as far as the service can see it."""
        self.arrived: Counter[Key] = Counter()
        self.slow: set[Key] = set()
        """What takes longer than a polite stop waits."""
        self.paid: dict[Key, str] = {}
        """What was answered, and so will be on the bill."""
        self._loop = loop
        self._chance = random.Random(f"service {seed}")
        self._world = contextvars.Context()
        self._open: dict[Key, tuple[str, float]] = {}
        self._admitted_at_s: list[float] = []
        self._arrived_at_s: list[float] = []
        self._told: list[tuple[float, int, int | None]] = []
        loop.on_kill.append(self._hang_up)

    def expect(self, concurrency: int, per_minute: int | None) -> None:
        """Be told what limits the program has been given."""
        self._told.append((self._loop.now_s, concurrency, per_minute))

    async def generate(self, call: Call) -> Answer:
        """Answer a call, or don't."""
        key, process = (call.request_id, call.number), PROCESS.get()
        sent_at_s = self._loop.now_s
        await asyncio.sleep(self._chance.uniform(*UPLINK_S))
        spell = self._spell()
        if spell == "away":
            raise ProviderError(Outcome.UNAVAILABLE, "connection refused")
        self._arrive(key, process, sent_at_s)
        try:
            return await self._reply(call, spell)
        finally:
            self._hang_up_call(key)

    def _spell(self) -> str | None:
        now_s = self._loop.now_s
        return next((kind for since, to, kind in self.weather.spells if since <= now_s < to), None)

    def _arrive(self, key: Key, process: str, sent_at_s: float) -> None:
        now_s = self._loop.now_s
        self._loop.note("arrived", *key)
        self.arrived[key] += 1
        if self.arrived[key] > 1:
            self.broken.append(f"call {key} was made twice")
        self._open[key] = process, now_s
        # Who was frozen on the way is longer on it than the guard allows: that can't be helped.
        if self._loop.thawed_at_s.get(process, 0) <= sent_at_s:
            self._arrived_at_s.append(now_s)
            self._look_at_limits(now_s)

    def _look_at_limits(self, now_s: float) -> None:
        since_s = now_s - LONGEST_CALL_S
        most_open = max(concurrency for concurrency, _ in self._in_force(since_s))
        # A call of who was frozen hangs longer than he would have waited for it.
        frozen = self._loop.was_frozen
        is_open = sum(at_s > since_s or not frozen(who) for who, at_s in self._open.values())
        if is_open > most_open:
            self.broken.append(f"{is_open} calls at once, {most_open} are allowed")
        arrived = sum(now_s - at_s < WINDOW_S for at_s in self._arrived_at_s)
        told = [per_minute for _, per_minute in self._in_force(now_s - WINDOW_S - LATE_S)]
        most = max((number for number in told if number is not None), default=0)
        if None not in told and arrived > most:
            self.broken.append(f"{arrived} calls in a minute, {most} are allowed")

    def _in_force(self, since_s: float) -> list[tuple[int, int | None]]:
        """Return what limits were in force at any time since a moment."""
        before = [limits for at_s, *limits in self._told if at_s <= since_s]
        return before[-1:] + [limits for at_s, *limits in self._told if at_s > since_s]

    async def _reply(self, call: Call, spell: str | None) -> Answer:
        error = self._refusal(spell) or self._verdict(call.word)
        after_s = self._chance.uniform(0.05, 4)
        if error is not None:
            await asyncio.sleep(after_s / 10)
            raise error
        weather, drawn = self.weather, self._chance.random()
        if drawn < weather.hanging:
            after_s = self._chance.uniform(8, 60)
            self.slow.add((call.request_id, call.number))
        served = self._loop.create_future()
        key = (call.request_id, call.number)
        self._loop.call_later(after_s, self._serve, key, call.word, served, context=self._world)
        text = await served
        if weather.hanging < drawn < weather.hanging + weather.cutting:
            truncated = Answer(text, 5, 7, truncated=True)
            raise ProviderError(Outcome.TRANSIENT, "cut off", retry_after_ms=0, answer=truncated)
        return Answer(text, 5, 7)

    def _serve(self, key: Key, word: str, served: asyncio.Future[str]) -> None:
        """Answer, and bill it, whoever is still there to hear it."""
        self._loop.note("served", *key)
        self.paid[key] = f"{word}, asked in call {key[1]}"
        if not served.done():
            served.set_result(self.paid[key])

    def _refusal(self, spell: str | None) -> ProviderError | None:
        now_s, weather = self._loop.now_s, self.weather
        if spell == "denied":
            return ProviderError(Outcome.DENIED, "who are you", status_code=401)
        self._admitted_at_s = [at_s for at_s in self._admitted_at_s if now_s - at_s < WINDOW_S]
        if spell == "day":
            return ProviderError(Outcome.THROTTLED, "of the day", status_code=429, daily=True)
        full = weather.quota is not None and len(self._admitted_at_s) >= weather.quota
        if full or spell == "storm":
            wait_s = WINDOW_S - now_s + self._admitted_at_s[0] if full else 2.0
            pause_ms = round(1000 * wait_s) if weather.hints else None
            return ProviderError(
                Outcome.THROTTLED, "too many", status_code=429, retry_after_ms=pause_ms
            )
        self._admitted_at_s.append(now_s)
        if spell == "errors" or self._chance.random() < weather.failing:
            return ProviderError(Outcome.TRANSIENT, "internal", status_code=500)
        return None

    def _verdict(self, word: str) -> Exception | None:
        if word.endswith("!"):
            return ProviderError(Outcome.REJECTED, "no such thing", status_code=400)
        if word.endswith("?"):
            return ProviderError(Outcome.BLOCKED, "unsafe")
        if self._chance.random() < self.weather.breaking:
            return ConnectionResetError("reset by peer")
        return None

    def _hang_up_call(self, key: Key) -> None:
        self._open.pop(key, None)

    def _hang_up(self, process: str) -> None:
        for key in [key for key, (whose, _) in self._open.items() if whose == process]:
            self._hang_up_call(key)
