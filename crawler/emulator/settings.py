"""What an emulator is told: how fast it answers, what it allows, what goes wrong.

Rule: plain values, checked when they are made; nothing here knows of gRPC, so that a command line
is checked before anything heavy is imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

STATUSES = (
    "aborted",
    "already_exists",
    "cancelled",
    "data_loss",
    "deadline_exceeded",
    "failed_precondition",
    "internal",
    "invalid_argument",
    "not_found",
    "out_of_range",
    "permission_denied",
    "resource_exhausted",
    "unauthenticated",
    "unavailable",
    "unimplemented",
    "unknown",
)
"""gRPC's codes, all but OK."""

FINISHES = (
    "blocklist",
    "malformed_function_call",
    "other",
    "prohibited_content",
    "recitation",
    "safety",
    "spii",
)
"""Finish reasons of a candidate that has no content."""

ANSWERS = (
    "bad_json",
    "blocked",
    "empty",
    "large",
    "no_candidates",
    "thoughts",
    "thoughts_only",
    "truncated",
)
"""Odd answers; see `crawler.emulator.answers.spoilt`."""

KINDS = (*STATUSES, *FINISHES, *ANSWERS, "hang", "reset", "slow")
"""All that may go wrong."""

WINDOWS = ("fixed", "sliding", "bucket")
OUTAGES = ("unavailable", "refused", "resource_exhausted")
"""What who asks is told meanwhile: 503, nobody is there, 429 without a word of a quota."""


HOST = "127.0.0.1"
"""All that is served is served on loopback."""
MODELS = ("gemini-2.5-flash", "gpt-4o-mini")
"""What OpenAI's face serves where nobody names others."""


class WordFault(NamedTuple):
    """What goes wrong with a word: always, or only the first so many times."""

    kind: str
    times: int | None = None


@dataclass(frozen=True)
class Settings:
    """The behaviour of an emulator. A "minute" of its quota is ``window_ms`` long.

    ``burst`` is the capacity of a bucket, in requests (else the whole quota of a minute);
    ``tenants`` the requests a minute that others take from the same quota; ``outage_s`` when an
    outage begins and ends, in seconds since the start, and, if there is a third number, after how
    many seconds it comes again; ``tls`` where the certificate goes of a server that encrypts;
    ``http_port`` where HTTP is served (None: nowhere), with ``models`` for OpenAI's clients.
    Raises ValueError for what makes no sense.
    """

    port: int = 0
    seed: int = 0
    latency_ms: int = 0
    jitter_ms: int = 0
    per_minute: int | None = None
    tokens_per_minute: int | None = None
    per_day: int | None = None
    max_concurrent: int | None = None
    window: str = "fixed"
    window_ms: int = 60_000
    burst: int | None = None
    tenants: int = 0
    retry_info: bool = True
    faults: Mapping[str, float] = field(default_factory=dict)
    word_faults: Mapping[str, Sequence[WordFault]] = field(default_factory=dict)
    outage_s: tuple[float, ...] | None = None
    outage_kind: str = "unavailable"
    log: Path | None = None
    tls: Path | None = None
    http_port: int | None = None
    models: Sequence[str] = MODELS

    def __post_init__(self) -> None:
        """Check what is only known of all settings together."""
        quotas = (self.per_minute, self.tokens_per_minute, self.per_day, self.max_concurrent)
        _check(all(quota is None or quota > 0 for quota in quotas), "a quota is at least 1")
        _check(self.window in WINDOWS, f"a window is one of {', '.join(WINDOWS)}")
        _check(self.window_ms > 0, "a window lasts at least 1 ms")
        _check(self.outage_kind in OUTAGES, f"an outage is one of {', '.join(OUTAGES)}")
        _check(0 <= self.jitter_ms <= self.latency_ms, "the jitter is at most the latency")
        _check(
            self.burst is None or (self.window == "bucket" and self.per_minute and self.burst > 0),
            "a burst is at least 1, and belongs to a bucket of requests per minute",
        )
        _check(
            self.tenants == 0 or (self.per_minute and self.tenants > 0),
            "tenants share a quota of requests per minute, and none is set",
        )
        if self.outage_s is not None:
            begins, ends, *again = self.outage_s
            _check(0 <= begins < ends, "an outage ends after it has begun")
            _check(not again or ends <= again[0], "an outage is over before it comes again")
        self._check_faults()

    def _check_faults(self) -> None:
        by_word = [fault for faults in self.word_faults.values() for fault in faults]
        kinds = {*self.faults, *(fault.kind for fault in by_word)}
        for kind in kinds:
            _check(kind in KINDS, f"{kind!r} is no kind of fault: {', '.join(sorted(KINDS))}")
        _check("slow" not in kinds or self.latency_ms, "slow is ten times a latency: set one")
        _check(all(rate >= 0 for rate in self.faults.values()), "a rate is at least 0")
        _check(sum(self.faults.values()) <= 1 + 1e-9, "the rates of all faults are 1 at the most")
        times = [fault.times for fault in by_word if fault.times is not None]
        _check(all(number > 0 for number in times), "a fault happens at least once")


def _check(holds: object, message: str) -> None:
    if not holds:
        raise ValueError(message)
