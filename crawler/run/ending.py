"""How far a run goes, why it ends, and what that tells whoever started it.

Rule: pure. Each reason for which a run ends stands here once, with its exit code and its words;
nobody else chooses a code for the end of a run. That a run ends is decided in `Loop._ending`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from crawler.errors import CrawlerError, Exit
from crawler.ledger.budget import ANYTHING, Allowance
from crawler.ledger.doubt import Doubt, Vain
from crawler.ledger.runs import EVERYTHING, Selection
from crawler.ledger.turn import Gate
from crawler.providers.openai.servers import with_variables
from crawler.states.kinds import MEANINGS, Action, Kind


class Reason(StrEnum):
    """Why a run ended; the column ``runs.reason`` holds one of these."""

    FINISHED = "finished"
    FAILURES = "failures"  # finished, but some requests have failed
    DEADLINE = "deadline"
    MAX_CALLS = "max_calls"
    MAX_TOKENS = "max_tokens"
    BUDGET = "budget"
    QUOTA_DAY = "quota_day"  # the quota is used up for longer than a run waits
    NO_MONEY = "no_money"
    CREDENTIALS = "credentials"
    CONFIGURATION = "configuration"  # the model, a parameter or an address is wrong
    UNREACHABLE = "unreachable"
    LOADING = "loading"  # the server has not loaded the model in the time that it asked for
    DISK = "disk"
    LOCKED = "locked"
    STUCK = "stuck"  # requests are left, and none can become due
    STOPPED = "stopped"  # by a signal, or its caller
    KILLED = "killed"  # its process died, failed, or was given up for dead
    DECLINED = "declined"  # a person did not agree to what it would cost


EXIT_CODES: Mapping[Reason, Exit] = MappingProxyType(
    {
        Reason.FINISHED: Exit.DONE,
        Reason.FAILURES: Exit.SOME_FAILED,
        Reason.DEADLINE: Exit.WORK_LEFT,
        Reason.MAX_CALLS: Exit.WORK_LEFT,
        Reason.MAX_TOKENS: Exit.WORK_LEFT,
        Reason.BUDGET: Exit.WORK_LEFT,
        Reason.QUOTA_DAY: Exit.WORK_LEFT,
        Reason.NO_MONEY: Exit.WORK_LEFT,
        Reason.CREDENTIALS: Exit.DENIED,
        Reason.CONFIGURATION: Exit.CONFIGURATION,
        Reason.UNREACHABLE: Exit.UNREACHABLE,
        Reason.LOADING: Exit.UNREACHABLE,
        Reason.DISK: Exit.DATABASE,
        Reason.LOCKED: Exit.DATABASE,
        Reason.STUCK: Exit.UNEXPECTED,
        Reason.STOPPED: Exit.WORK_LEFT,
        Reason.KILLED: Exit.WORK_LEFT,
        Reason.DECLINED: Exit.WORK_LEFT,
    }
)

_URGENCY = (
    Exit.DENIED,
    Exit.CONFIGURATION,
    Exit.WORK_LEFT,
    Exit.UNREACHABLE,
    Exit.SOME_FAILED,
    Exit.DONE,
)


def most_urgent(reasons: list[Reason]) -> Reason:
    """Return that of several reasons which a person must act on first: 77, 78, 75, 69, 3."""
    return min(reasons, key=lambda reason: _URGENCY.index(EXIT_CODES[reason]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How far a run goes."""

    watch: bool = False
    """Stay when all is done, and wait for more words."""
    deadline_ms: int | None = None
    """How long to start calls, counted from the start of the run."""
    max_calls: int | None = None
    """How many calls to start at the most."""
    budget: Allowance = ANYTHING
    """What to spend at the most, with the prices of a token; its calls say nothing here."""
    selection: Selection = EVERYTHING
    """What to ask."""

    def on_record(self, now_ms: int) -> dict[str, Any]:
        """Return what others may know of them: the column ``runs.options``."""
        known = {
            **self.selection._asdict(),
            "max_calls": self.max_calls,
            "deadline_at_ms": None if self.deadline_ms is None else now_ms + self.deadline_ms,
            "budget": self.budget.budget,
        }
        if self.budget.budget is not None:
            known |= {"price_in": self.budget.price_in, "price_out": self.budget.price_out}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def over_budget(self) -> Reason:
        """The reason to end when the budget is used up: it is money where there are prices."""
        priced = (self.budget.price_in, self.budget.price_out) != (1.0, 1.0)
        return Reason.BUDGET if priced else Reason.MAX_TOKENS


class Ending(NamedTuple):
    """Why a run ended, and what it left."""

    reason: Reason
    detail: str | None
    unfinished: int
    opens_at_ms: int | None = None
    what: str | None = None
    """What is told in place of the reason's usual words."""
    remedy: str = ""
    """What a person can do about it, as the end of a sentence."""
    limits: tuple[str, ...] = ()
    """The limits that wait."""


def gate_ending(gate: Gate, unfinished: int, patience_ms: int, now_ms: int) -> Ending | None:
    """Return the ending that a closed gate is, if it takes too long to wait for it."""
    if gate.opens_at_ms <= now_ms:
        return None  # whether it still is closed is about to be tried
    if gate.loading:
        return Ending(Reason.LOADING, gate.loading, unfinished)
    if gate.cause == "outage":
        lasts_ms = now_ms - gate.since_ms
        return Ending(Reason.UNREACHABLE, None, unfinished) if lasts_ms > patience_ms else None
    if gate.opens_at_ms - gate.closed_at_ms >= patience_ms:
        limits = (gate.limit,) if gate.limit else ()
        return Ending(Reason.QUOTA_DAY, gate.cause, unfinished, gate.opens_at_ms, limits=limits)
    return None


def held_ending(
    stops: list[Doubt], gates: list[Gate], unfinished: int, patience_ms: int, now_ms: int
) -> Ending | None:
    """Return the ending of a run none of whose prompts can go on; None where one of them can.

    They may be stopped or wait for a gate: it is what a person must act on first.
    """
    waits = [gate_ending(gate, unfinished, patience_ms, now_ms) for gate in gates]
    endings = [wait for wait in waits if wait is not None]
    if len(endings) < len(gates):
        return None
    if stops:
        endings.append(stopped_ending(stops, unfinished))
    return first_to_mend(endings) if endings else None


def first_to_mend(endings: list[Ending]) -> Ending:
    """Return that of several endings which a person must act on first.

    Of several gates it is the one that opens first, and the limits of all of them are told.
    """
    reason = most_urgent([ending.reason for ending in endings])
    alike = [ending for ending in endings if ending.reason is reason]
    first = min(alike, key=lambda ending: ending.opens_at_ms or 0)
    return first._replace(limits=tuple(name for ending in alike for name in ending.limits))


def stopped_ending(stops: list[Doubt], unfinished: int) -> Ending:
    """Return the ending of a run of which every prompt with work is stopped.

    Where they are stopped for different reasons, it is the one that a person must act on first.
    """
    by_reason = {reason_of(doubt.kind): doubt for doubt in reversed(stops)}
    reason = most_urgent(list(by_reason))
    doubt = by_reason[reason]
    meaning = MEANINGS[doubt.kind]
    what = _NO_GOOD if meaning.action is Action.ANSWER_AGAIN else None
    return Ending(reason, doubt.reason, unfinished, what=what, remedy=remedy_of(doubt))


def remedy_of(doubt: Doubt) -> str:
    """Return what a person can do about a doubt, as the end of a sentence."""
    return with_variables(MEANINGS[doubt.kind].remedy, doubt.provider)


def reason_of(kind: Kind) -> Reason:
    """Return why a run ends that is stopped by refusals of a kind."""
    return Reason(MEANINGS[kind].ends_as or Reason.CONFIGURATION)


def finished_ending(failed: int, vain: list[Vain]) -> Ending:
    """Return the ending of a run that has nothing left to do.

    Args:
        failed: requests that have failed for good.
        vain: prompts of which every request was rejected: their lists were too short for the run
            to stop before their end. As with a longer one it is no word's fault.

    """
    if vain:
        first = vain[0]
        what = (
            f"the provider has rejected every request of the prompt {first.prompt!r}:"
            f" {first.failed}"
        )
        return Ending(Reason.CONFIGURATION, first.reason, 0, what=what)
    return Ending(Reason.FAILURES if failed else Reason.FINISHED, None, 0)


def exit_code(ending: Ending) -> Exit:
    """Return the code that a program ends with after a run."""
    return EXIT_CODES[ending.reason]


def raise_for(ending: Ending, again: str = "crawler run") -> None:
    """Raise the CrawlerError of an ending that left something to mend, or to wait for."""
    error = error_of(ending, again)
    if error is not None and ending.unfinished:
        raise error


def error_of(ending: Ending, again: str = "crawler run") -> CrawlerError | None:
    """Return what is told of an ending that somebody has to mend, or to wait for; else None.

    Args:
        ending: the run's.
        again: the command that goes on when that is done.

    """
    told = _told(ending)
    if told is None:
        return None
    what, cause, hint = told
    left = f"; {_PENDING}" if ending.unfinished else ""
    hint = hint.replace("{again}", again)
    if ending.remedy:
        hint = f"{ending.remedy.removesuffix(', then run again')}; then {again}"
    return CrawlerError(
        f"{ending.what or what}{left}", cause or ending.detail or "", hint, exit_code(ending)
    )


def _told(ending: Ending) -> tuple[str, str | None, str] | None:
    if ending.reason is Reason.QUOTA_DAY and ending.opens_at_ms is not None:
        opens_at = datetime.fromtimestamp(ending.opens_at_ms // 1000, UTC)
        quota = "the quota of the day" if ending.detail == "day" else "the quota"
        return (
            f"{quota} is used up{' for ' if ending.limits else ''}{', '.join(ending.limits)}",
            f"the quota opens at {opens_at.isoformat().replace('+00:00', 'Z')}",
            "{again} after that, or leave crawler run --watch running",
        )
    if ending.reason is Reason.KILLED and not ending.unfinished:
        return None
    if ending.reason is Reason.UNREACHABLE and ending.detail is None:
        return _OUTAGE
    return _WORDS.get(ending.reason)


_NO_GOOD = "answers in sequence can't be used"
_PENDING = "what is left stays pending"
_OVER_BUDGET = (
    "the budget is used up",
    "another call could exceed it, at the most that it may cost",
    "{again} with another --budget; a prompt's max_output_tokens says what that most is",
)
_OUTAGE = (
    "the server is out of order",
    "it has failed every call for a quarter of an hour",
    'crawler sql "select * from limit_history" shows since when; later {again}',
)
_WORDS: Mapping[Reason, tuple[str, str | None, str]] = MappingProxyType(
    {
        Reason.CREDENTIALS: (
            "the provider refuses the credentials",
            None,
            "mend that (credentials come from the environment), then {again}",
        ),
        Reason.CONFIGURATION: (
            "the provider rejects one request after another",
            None,
            (
                "mend the model or the parameters (crawler prompt add, crawler run --model); the"
                " same again: crawler retry, crawler run"
            ),
        ),
        Reason.NO_MONEY: (
            "the account has no money left",
            None,
            "{again} after that",
        ),
        Reason.UNREACHABLE: (
            "the server can't be reached",
            None,
            "check its address and the network, then {again}",
        ),
        Reason.LOADING: (
            "the server still loads the model",
            None,
            "{again} when it has, or leave crawler run --watch running",
        ),
        Reason.STUCK: (
            "nothing that is left can ever be asked",
            "rows were changed by hand: words are missing, or due times never come",
            (
                "crawler check tells what is broken; crawler check --repair restores what can"
                " be computed"
            ),
        ),
        Reason.DISK: (
            "the disk is too slow for the limit to be kept",
            "each commit took so long that its calls would have left too late for their minute",
            "{again} when the disk is less busy, or put the database on another: --db PATH",
        ),
        Reason.KILLED: (
            "another run has declared this run dead",
            "it was stopped, or did nothing, for so long that another has taken its calls over",
            "crawler status shows who runs; {again} to go on beside it",
        ),
        Reason.MAX_TOKENS: _OVER_BUDGET,
        Reason.BUDGET: _OVER_BUDGET,
    }
)
"""What, cause (None: the ending's own) and hint, for the reasons that somebody has to mend."""
