"""Why nothing is being asked right now, in words: short for a line, long for one request.

Rule: what is true is `ledger.why`'s to say; here it gets its words, the same on every screen.
"""

from crawler.cli.terminal import moment, printable, span
from crawler.errors import quoted
from crawler.ledger.status import LimitStatus
from crawler.ledger.why import MOST_AHEAD, Why

SOON_MS = 1_000
_GATES = {
    "quota": "the quota is used up",
    "day": "the quota of the day is used up",
    "outage": "the server is out of order or away",
    "": "the gate is closed",
}


def held_line(limit: LimitStatus, now_ms: int) -> str:
    """Return what holds back more calls under a limit; empty where nothing does."""
    if limit.held_by is None:
        return ""
    why = Why(limit.held_by, None, limit.until_ms, limit.cause, limit.reason)
    return short(why, limit.limit, now_ms)


def doing_line(limit: LimitStatus, now_ms: int) -> str:
    """Return what a limit waits for while a run is at work; empty where it asks.

    A closed gate is told to the moment, and while one call tries whether it can be opened.
    """
    if limit.held_by in (None, "gate") and limit.cause is not None:
        is_brief = limit.cause == "quota" and limit.in_flight and is_soon(limit, now_ms)
        why = Why("gate", None, limit.until_ms, limit.cause, limit.reason)
        return "" if is_brief else short(why, limit.limit, now_ms)
    return "" if is_soon(limit, now_ms) else held_line(limit, now_ms)


def is_soon(limit: LimitStatus, now_ms: int) -> bool:
    """Tell whether a limit holds back more calls for less than a second, which nobody notices."""
    return limit.until_ms is not None and limit.until_ms - now_ms < SOON_MS


def short(why: Why, limit: str, now_ms: int) -> str:
    """Return a part of a line; empty where it is over in less than a second.

    Args:
        why: what holds back more calls.
        limit: the name of their limit.
        now_ms: the file's time.

    """
    wait_ms = None if why.until_ms is None else why.until_ms - now_ms
    is_open = wait_ms is None or wait_ms <= 0
    waits = "one call tries" if is_open else f"waits {span(max(wait_ms or 0, SOON_MS))}"
    match why.code:
        case "paused":
            until = f" until {moment(why.until_ms)}" if why.until_ms else ""
            return f"paused{until}: crawler resume {quoted(limit)}"
        case "gate":
            return f"{waits}: {_closed_in_short(why)}"
        case _ if wait_ms is not None and wait_ms < SOON_MS:
            return ""
        case "per_minute":
            return f"{waits} for the limit per minute"
        case "tokens_per_minute":
            return f"{waits} for the limit of tokens per minute"
        case "backoff":
            return f"{waits} to try again"
        case _:
            return ""


def long(why: Why, prompt: str, limit: str) -> str:
    """Return a sentence about one request; empty where it needs none: it was answered, or failed.

    Args:
        why: why it is not being asked.
        prompt: the name of its prompt.
        limit: the name of its limit.

    """
    since = f" since {moment(why.since_ms)}" if why.since_ms else ""
    until = f" until {moment(why.until_ms)}" if why.until_ms else ""
    name = printable(prompt)
    sentences = {
        "cancelled": f"it is cancelled: crawler retry --cancelled --prompt {quoted(prompt)}",
        "in_flight": f"it is being asked{since}",
        "superseded": f"the prompt {name} has a newer version, and only that is asked",
        "function": "a Python function answers it: only the program that has it asks",
        "no_run": _no_run(why, limit, until),
        "not_selected": f"the run at work asks something else ({printable(why.detail)})",
        "paused": f"the limit {printable(limit)} is paused{since}{until}",
        "doubt": f"the prompt {name} is stopped: {_rejected(why)}",
        "backoff": f"it has failed, and waits{until}: {printable(why.detail)}",
        "over_budget": f"it may cost {why.cost:g}, and {why.left:g} of the budget are left",
        "gate": f"{_closed(why)}{since}, and nothing starts{until} ({printable(why.detail)})",
        "per_minute": f"the limit {printable(limit)} allows no more calls this minute,{until}",
        "tokens_per_minute": f"the limit {printable(limit)} has no tokens left,{until}",
        "pace": f"the limit {printable(limit)} keeps its calls apart,{until}",
        "concurrency": f"as many calls of the limit {printable(limit)} are in flight as may be",
        "next": f"nothing: {_ahead(why.ahead)}",
    }
    return sentences.get(why.code, "")


def _closed(why: Why) -> str:
    return _GATES.get(why.cause or "", _GATES[""])


def _closed_in_short(why: Why) -> str:
    """Return why a gate is closed, for a line whose end is cut off: words that are said once."""
    said = printable(why.detail)
    if not said:
        return _closed(why)
    if why.cause == "quota" or said.startswith("cannot connect"):
        return said
    return f"{'the server is away' if why.cause == 'outage' else _closed(why)}: {said}"


def _no_run(why: Why, limit: str, until: str) -> str:
    said = f" ({printable(why.detail)})" if why.detail else ""
    if not why.is_paused:
        return f"no run is at work{_last(why)}: crawler run{said}"
    paused = f"the limit {printable(limit)} is paused{until}"
    return (
        f"no run is at work{_last(why)}, and {paused}: crawler resume {quoted(limit)}, crawler run"
        f"{said}"
    )


def _last(why: Why) -> str:
    return f" since {moment(why.since_ms)} ({why.cause})" if why.cause else ""


def _rejected(why: Why) -> str:
    return f"{printable(why.detail)}" if why.detail else "one call tries whether it is in order"


def _ahead(ahead: int) -> str:
    if not ahead:
        return "the next turn asks it"
    more = "or more " if ahead == MOST_AHEAD else ""
    return f"{ahead} {more}others of its prompt come first"
