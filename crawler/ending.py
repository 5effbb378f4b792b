"""How far a run goes, why it ends, and what that tells whoever started it.

Rule: pure. What ends a run is decided here or is told by the scheduler; what it means is only here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit
from crawler.ledger.lease import ANYTHING, Allowance
from crawler.ledger.turn import Gate

SLACK_MS = 1_000
"""A gate that opens in a quarter of an hour less the time that it took to say so counts as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How far a run goes."""

    watch: bool = False
    """Stay when all is done, and wait for more words."""
    deadline_ms: int | None = None
    """How long to start calls, counted from the start of the run."""
    max_calls: int | None = None
    """How many calls to start at the most."""
    funds: Allowance = ANYTHING
    """What to spend at the most."""
    prompt_ids: tuple[int, ...] | None = None
    """The only prompts to serve; None for all."""
    request_id: int | None = None
    """The only request to serve; None for all of the prompts."""


class Ending(NamedTuple):
    """Why a run ended, and what it left.

    ``reason`` is one of: done, signal, deadline, calls_used, funds_used, quota, outage, denied,
    rejected, unreachable, lost.
    """

    reason: str
    detail: str | None
    unfinished: int
    opens_at_ms: int | None = None


def gate_ending(gate: Gate, unfinished: int, patience_ms: int, now_ms: int) -> Ending | None:
    """Return the ending that a closed gate is, if it takes too long to wait for it."""
    if gate.cause == "outage":
        lasts_ms = now_ms - gate.since_ms
        return Ending("outage", None, unfinished) if lasts_ms > patience_ms else None
    if gate.opens_at_ms - now_ms >= patience_ms - SLACK_MS:
        return Ending("quota", gate.cause, unfinished, gate.opens_at_ms)
    return None


class _Told(NamedTuple):
    """What an ending tells: what, why (None: the run's own detail), what to do, the exit code."""

    what: str
    cause: str | None
    hint: str
    code: Exit


_TOLD = MappingProxyType(
    {
        "denied": _Told(
            "the provider refuses to work for us",
            None,
            "mend that (credentials come from the environment) and run again",
            Exit.DENIED,
        ),
        "rejected": _Told(
            "the provider rejects one request after another",
            None,
            "mend the model or the parameters (crawler prompt add, crawler run --model); the same"
            " again: crawler retry, crawler run",
            Exit.CONFIGURATION,
        ),
        "unreachable": _Told(
            "the server can't be reached",
            None,
            "check its address and the network, then crawler run",
            Exit.UNREACHABLE,
        ),
        "outage": _Told(
            "the server is out of order",
            "it has failed every call for a quarter of an hour",
            'crawler sql "select * from limit_history" shows since when; run again later',
            Exit.UNREACHABLE,
        ),
        "funds_used": _Told(
            "the budget is used up",
            "another call could exceed it",
            "run again with another --budget",
            Exit.WORK_LEFT,
        ),
    }
)


def raise_for(ending: Ending) -> None:
    """Raise the CrawlerError of an ending that somebody has to mend, or to wait for."""
    told = _TOLD.get(ending.reason)
    if ending.opens_at_ms is not None:
        opens_at = datetime.fromtimestamp(ending.opens_at_ms // 1000, UTC)
        told = _Told(
            "the quota of the day is used up" if ending.detail == "day" else "the quota is used up",
            f"come back at {opens_at.isoformat().replace('+00:00', 'Z')}",
            "run again after that, or leave crawler run --watch running",
            Exit.WORK_LEFT,
        )
    if told is not None:
        cause = told.cause or ending.detail or ""
        raise CrawlerError(f"{told.what}; what is left stays pending", cause, told.hint, told.code)
