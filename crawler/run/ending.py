"""How far a run goes, why it ends, and what that tells whoever started it.

Rule: pure. What ends a run is decided here or is told by the scheduler; what it means is only here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit
from crawler.ledger.lease import ANYTHING, Allowance
from crawler.ledger.report import Vain
from crawler.ledger.turn import Gate


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
    rejected, unreachable, lost, slow_disk.
    """

    reason: str
    detail: str | None
    unfinished: int
    opens_at_ms: int | None = None


def gate_ending(gate: Gate, unfinished: int, patience_ms: int, now_ms: int) -> Ending | None:
    """Return the ending that a closed gate is, if it takes too long to wait for it."""
    if gate.opens_at_ms <= now_ms:
        return None  # whether it still is closed is about to be tried
    if gate.cause == "outage":
        lasts_ms = now_ms - gate.since_ms
        return Ending("outage", None, unfinished) if lasts_ms > patience_ms else None
    if gate.opens_at_ms - gate.closed_at_ms >= patience_ms:
        return Ending("quota", gate.cause, unfinished, gate.opens_at_ms)
    return None


def raise_for(ending: Ending, again: str = "crawler run") -> None:
    """Raise the CrawlerError of an ending that somebody has to mend, or to wait for."""
    error = error_of(ending, again)
    if error is not None:
        raise error


def error_of(ending: Ending, again: str = "crawler run") -> CrawlerError | None:
    """Return what is told of an ending that somebody has to mend, or to wait for; else None.

    Args:
        ending: the run's.
        again: the command that goes on when that is done.

    """
    if ending.reason in _TO_MEND and (ending.unfinished or ending.reason != "lost"):
        what, cause, hint, code = _TO_MEND[ending.reason]
        hint = hint.replace("{again}", again)
        return CrawlerError(f"{what}; {_PENDING}", cause or ending.detail or "", hint, code)
    if ending.opens_at_ms is None:
        return None
    opens_at = datetime.fromtimestamp(ending.opens_at_ms // 1000, UTC)
    quota = "the quota of the day" if ending.detail == "day" else "the quota"
    return CrawlerError(
        f"{quota} is used up; {_PENDING}",
        f"come back at {opens_at.isoformat().replace('+00:00', 'Z')}",
        f"{again} after that, or leave crawler run --watch running",
        Exit.WORK_LEFT,
    )


_PENDING = "what is left stays pending"
_MEND_PROMPT = (
    "mend the model or the parameters (crawler prompt add, crawler run --model); the same"
    " again: crawler retry, crawler run"
)
_TO_MEND: Mapping[str, tuple[str, str | None, str, Exit]] = MappingProxyType(
    {
        "denied": (
            "the provider refuses to work for us",
            None,
            "mend that (credentials come from the environment), then {again}",
            Exit.DENIED,
        ),
        "rejected": (
            "the provider rejects one request after another",
            None,
            _MEND_PROMPT,
            Exit.CONFIGURATION,
        ),
        "unreachable": (
            "the server can't be reached",
            None,
            "check its address and the network, then {again}",
            Exit.UNREACHABLE,
        ),
        "outage": (
            "the server is out of order",
            "it has failed every call for a quarter of an hour",
            'crawler sql "select * from limit_history" shows since when; later {again}',
            Exit.UNREACHABLE,
        ),
        "slow_disk": (
            "the disk is too slow for the limit to be kept",
            "each commit took so long that its calls would have left too late for their minute",
            "{again} when the disk is less busy, or put the database on another: --db PATH",
            Exit.DATABASE,
        ),
        "lost": (
            "this run was given up for dead",
            "it was stopped, or did nothing, for so long that another has taken its calls over",
            "crawler status shows who runs; {again} to go on beside it",
            Exit.WORK_LEFT,
        ),
        "funds_used": (
            "the budget is used up",
            "another call could exceed it, at the most that it may cost",
            "{again} with another --budget; a prompt's max_output_tokens says what that most is",
            Exit.WORK_LEFT,
        ),
    }
)
"""What, cause (None: the ending's own), hint and exit code, by the reason of an ending."""


def all_rejected(vain: Vain) -> CrawlerError:
    """Return what is told of a prompt whose list was too short for the run to stop before its end.

    As with a longer one: no request of it was ever served, so it is no word's fault.
    """
    return CrawlerError(
        f"the provider has rejected every request of the prompt {vain.prompt!r}: {vain.failed}",
        vain.reason,
        _MEND_PROMPT,
        Exit.CONFIGURATION,
    )
