"""What a limit is set to, and what is learned, judged by how unlikely it is that chance did it."""

import math
from typing import NamedTuple

WINDOW_MS, US, NEVER_MS = 60_000, 1_000, -(10**9)
GAP_MS = 300  # How soon a closed gate is tried; how long an outage lasts; what a guard makes up for
TURN_US = GAP_MS * US // 6  # The time whose starts may always be made up for at once
CHANCE = 7.0  # What is less likely than exp(-7), 1 in 1,000, is no chance
SAMPLE = 12  # Calls that it takes to say something new, ...
RECENT = 4 * SAMPLE  # ... and that show what the server does at the moment


class Quota(NamedTuple):
    """What a limit is set to, or has been told by the server; None: not known."""

    per_minute: int | None = None
    tokens_per_minute: int | None = None
    adaptive: bool = True
    guard_ms: int = 600  # How much longer than the server's our minute is, for the way there
    concurrency: int | None = None  # None: it finds itself

    @property
    def window_ms(self) -> int:
        """The minute in which no more than `per_minute` calls start."""
        return WINDOW_MS + self.guard_ms

    @property
    def ceiling(self) -> float:
        """The highest rate."""
        return self.per_minute * WINDOW_MS / self.window_ms if self.per_minute else math.inf


class State(NamedTuple):
    """What is learned, and where the gate stands: the columns of ``limits`` with these names."""

    rate: float | None = None  # Calls a minute that are right now; None until a refusal taught one
    plateau: float = 0.0  # The rate believed to be right; 0: all that is known is that more is
    tat_us: int | None = None  # When the next start is due; None: a whole window may start at once
    window_seen_at_ms: int = NEVER_MS  # When a window was last found to be used up
    noise: float = 0.0  # The share of refusals that no rate explains, ...
    trial: float = 0.0  # ... the rate at which it was seen; 0: believed, a lower one has it too
    cut_at_ms: int = NEVER_MS  # Calls that started later show what the last cut has done
    gate_cause: str | None = None  # ``quota``, ``day``, ``outage``; None: the gate is open
    gate_since_ms: int = 0  # When it closed first, ...
    gate_closed_at_ms: int = 0  # ... and last: a call that started later is a probe
    gate_opens_at_ms: int = 0
    gate_strikes: int = 0  # Probes that were refused or failed, and the first of all
    tokens_tat_us: int = 0  # When all tokens that were taken have flowed in again
    width: float = 10.0  # Calls at once, where nobody sets that
    round_at_ms: int = NEVER_MS  # Calls that started later show what this width is worth
    speed: float = 0.0  # Answers a minute of the round before; below 0: its step was one down


def surprise(hits: int, calls: int, share: float) -> float:
    """Return how unlikely so many hits are at a share: Chernoff's exponent, either way."""
    seen, share = hits / calls, min(max(share, 1e-9), 1 - 1e-9)
    parts = ((seen, share), (1 - seen, 1 - share))
    return calls * sum(a * math.log(a / b) for a, b in parts if a)
