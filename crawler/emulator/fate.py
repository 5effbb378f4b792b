"""What becomes of a request, and when.

Rule: a pure function of seed, word and the request's number among those for the word, so that two
crawls meet the same fate whatever their concurrency.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from crawler.emulator.settings import Settings, WordFault

SLOW_FACTOR = 10
_HALF = 2**64


class Fate(NamedTuple):
    """What goes wrong with a request, if anything; how long it takes, in ms."""

    fault: str | None
    latency_ms: float


def fate(settings: Settings, word: str, nth: int) -> Fate:
    """Return the fate of the nth request (from 1) for a word."""
    text = f"{settings.seed} {nth} {word}"
    digest = blake2b(text.encode(), digest_size=16).digest()
    luck = int.from_bytes(digest[:8]) / _HALF
    spread = int.from_bytes(digest[8:]) / _HALF
    ordered = _ordered(settings.word_faults.get(word, ()), nth)
    fault = ordered or _drawn(settings.faults, luck)
    latency_ms = settings.latency_ms + settings.jitter_ms * (2 * spread - 1)
    return Fate(fault, latency_ms * SLOW_FACTOR if fault == "slow" else latency_ms)


def _ordered(faults: Iterable[WordFault], nth: int) -> str | None:
    """Return the fault that is ordered for the nth request: each of them in its turn."""
    for fault in faults:
        if fault.times is None or nth <= fault.times:
            return fault.kind
        nth -= fault.times
    return None


def _drawn(rates: Mapping[str, float], luck: float) -> str | None:
    """Return the fault on which a number from [0, 1) falls."""
    for kind, rate in rates.items():
        if luck < rate:
            return kind
        luck -= rate
    return None
