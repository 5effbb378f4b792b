"""The settings of a run, and the verdict on an attempt.

Rule: settings are checked when they are made, and a verdict is a pure function of integers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import NamedTuple

from crawler.states import COUNTS_AS_FAILURE, FINAL, Outcome, RequestState
from crawler.states.kinds import Kind

Draw = Callable[[int, int], int]
"""``draw(low, high)`` gives a whole number of [low, high]; the only source of chance."""

PATIENCE_MS = 2_000
"""How much longer than its time-out a call is waited for. A provider with a deadline of its own
ends the call itself, and keeps what was paid for; who has none is given up that much later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of a run; every time is in milliseconds. Raises ValueError if one makes no sense."""

    max_failures: int = 20
    """A request that fails this often by itself has failed for good."""
    max_no_answers: int = 5
    """A request whose answers were no good this often has failed: each of them was paid for."""
    max_truncated: int = 3
    """The same of answers that were cut off: the next would be cut off as well."""
    max_odd: int = 3
    """The same of answers that ended for a reason that nobody knows."""
    max_throttled: int = 5
    """A request that was throttled so often in sequence, others served between, is too large; and
    later where too few others were asked to be sure of it: see `BY_CHANCE`."""
    backoff_base_ms: int = 1_000
    backoff_cap_ms: int = 60_000
    call_timeout_ms: int = 120_000
    drain_ms: int = 60_000
    """How long a polite stop waits for the calls in flight."""
    guard_ms: int = 600
    """How long a call may need from its start to its arrival at the server."""
    lost_after_ms: int = 300_000
    """A run that lives and whose heartbeat has stood still for so long is lost to the others."""
    patience_ms: int = 900_000
    """A gate that will be closed for so long ends the run, and so does an outage of that length."""
    unreachable_strikes: int = 5
    """Refused probes after which a run that never reached its server gives up."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")
        if self.backoff_cap_ms < self.backoff_base_ms:
            raise ValueError("backoff_cap_ms must not be below backoff_base_ms")
        if self.lost_after_ms <= self.call_timeout_ms + PATIENCE_MS:
            raise ValueError(
                f"lost_after_ms must be above call_timeout_ms + {PATIENCE_MS}:"
                " a call may not outlive it"
            )


IN_SEQUENCE: Mapping[Kind, int] = MappingProxyType(
    {
        **dict.fromkeys((Kind.MONEY, Kind.SETUP, Kind.SETUP_KEY), 1),
        **dict.fromkeys((Kind.CREDENTIALS, Kind.FORBIDDEN), 3),
        **dict.fromkeys((Kind.PERMISSION_MODEL, Kind.NETWORK_BLOCKED, Kind.CERTIFICATE), 3),
    }
)
"""How many refusals of a kind in sequence, nothing served between them, are no word's fault."""
REFUSED_IN_SEQUENCE = 10
"""The same for all other kinds, and for answers that are no good in one way: of different words. A
list that is shorter counts as a whole."""
FEWEST_ANSWERED = 2
"""Of one word alone nobody can tell whether its answers are the prompt's fault: it has failed."""


BY_CHANCE = 1e-8
"""A sequence of refusals of one word that is as unlikely as this, seen from how often others were
refused meanwhile, is no chance. How often that is wrong: see docs/quota.md."""


class Verdict(NamedTuple):
    """What becomes of a request when its attempt has ended."""

    state: RequestState
    failures: int
    due_at_ms: int
    no_answers: int = 0


def is_out_of_order(outcome: Outcome, retry_after_ms: int | None) -> bool:
    """Tell whether a failure is the server's: where only its answer is no good, it says 0 ms."""
    return outcome is Outcome.TRANSIENT and retry_after_ms != 0


def backoff_ms(policy: Policy, failures: int, draw: Draw) -> int:
    """Return how long to wait after the given number of failures (at least 1), in ms.

    Full jitter: uniform between 0 and base · 2^(failures - 1), at most the cap, so that items
    which failed together don't come back together (AWS Architecture Blog, "Exponential Backoff
    And Jitter", 2015).
    """
    return draw(0, _doubled(policy.backoff_base_ms, failures, policy.backoff_cap_ms))


def verdict(
    policy: Policy,
    outcome: Outcome,
    *,
    failures: int,
    retry_after_ms: int | None,
    now_ms: int,
    draw: Draw,
    no_answers: int = 0,
    worn_out: bool = False,
    outage: bool = False,
    alone: int = 0,
) -> Verdict:
    """Judge an attempt: the next state of its request, its failures so far, when it is due.

    Args:
        policy: the settings.
        outcome: how the attempt ended.
        failures: the request's own failures before this attempt.
        retry_after_ms: the pause that the server asked for, if it did; 0 where there is nothing to
            wait for, because the server is well and only its answer was no good.
        now_ms: the time.
        draw: chance, for the jitter.
        no_answers: the request's answers that were no good before this attempt.
        worn_out: this answer was no good in a way that ends it earlier: see `Policy`.
        outage: the server is known to be out of order; then its failures are no request's.
        alone: how often the request was refused by itself, so that no gate holds it.

    """
    if outcome is Outcome.SUCCEEDED:
        return Verdict(RequestState.SUCCEEDED, failures, 0, no_answers)
    if outcome in FINAL:
        return Verdict(RequestState.FAILED, failures, 0, no_answers)
    if outcome is Outcome.NO_ANSWER:
        no_answers += 1
        if worn_out or no_answers >= policy.max_no_answers:
            return Verdict(RequestState.FAILED, failures, 0, no_answers)
    if outcome in (Outcome.NO_ANSWER, Outcome.DENIED):
        # The server is well: there is nothing to wait for but a moment.
        due_at_ms = now_ms + draw(0, policy.backoff_base_ms)
        return Verdict(RequestState.PENDING, failures, due_at_ms, no_answers)
    if outcome is Outcome.THROTTLED and alone:
        pause_ms = max(backoff_ms(policy, alone, draw), retry_after_ms or 0)
        return Verdict(RequestState.PENDING, failures, now_ms + pause_ms, no_answers)
    return _after_failure(
        policy, outcome, failures, retry_after_ms, now_ms, draw, outage=outage
    )._replace(no_answers=no_answers)


def _after_failure(
    policy: Policy,
    outcome: Outcome,
    failures: int,
    retry_after_ms: int | None,
    now_ms: int,
    draw: Draw,
    *,
    outage: bool,
) -> Verdict:
    if outcome not in COUNTS_AS_FAILURE:
        # Due now. After a 429 or an outage the gate of its limit holds it: see quota/gate.py.
        return Verdict(RequestState.PENDING, failures, now_ms)
    if outage and is_out_of_order(outcome, retry_after_ms):
        # Not at once, so that another one tries next: this one may fail whatever the server does.
        pause_ms = max(backoff_ms(policy, max(1, failures), draw), retry_after_ms or 0)
        return Verdict(RequestState.PENDING, failures, now_ms + pause_ms)
    failures += 1
    if failures >= policy.max_failures:
        return Verdict(RequestState.FAILED, failures, 0)
    if outcome is Outcome.ABANDONED:
        return Verdict(RequestState.PENDING, failures, now_ms)
    if retry_after_ms == 0:
        pause_ms = draw(0, policy.backoff_base_ms)
    else:
        pause_ms = max(backoff_ms(policy, failures, draw), retry_after_ms or 0)
    return Verdict(RequestState.PENDING, failures, now_ms + pause_ms)


def _doubled(base_ms: int, times: int, cap_ms: int) -> int:
    # The exponent is bounded because the failures are not: 2**1000 is a long number.
    return int(min(cap_ms, base_ms * 2 ** min(times - 1, 30)))
