"""Why a request is not being asked right now.

Rule: the same queries and the same plan as the turn's, so that the answer is what the next turn
will find. Nothing here writes, and nothing is asked of a process: who lives is passed in.
"""

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from crawler.ledger.budget import Allowance
from crawler.ledger.doubt import COULD_NOT_ASK, doubts, told_doubts
from crawler.ledger.limits import Limit, limits
from crawler.ledger.pacing import next_step
from crawler.ledger.runs import EVERYTHING, LiveRun, last_end, live_runs
from crawler.ledger.tokens import usual
from crawler.ledger.window import usage
from crawler.ledger.work import work
from crawler.policy import Policy
from crawler.quota.plan import Usage

MOST_AHEAD = 1_000
"""Requests that come first are counted up to this number."""


class Why(NamedTuple):
    """What keeps a request, or a limit, from starting a call.

    ``code`` is one of:

    - ``succeeded``, ``failed``, ``cancelled``: it is not to be asked any more
    - ``in_flight``: it is being asked, since ``since_ms``
    - ``superseded``: there is a newer version of its prompt
    - ``function``: only the Python program that has its function can ask it
    - ``no_run``: no run is at work; ``cause`` is why the last one ended, and ``detail`` what was
      said if its prompt is stopped, or the run could not ask. Where its limit is paused
      ``is_paused`` is true, and ``until_ms`` says until when
    - ``not_selected``: the runs at work ask something else
    - ``paused``: since ``since_ms``, until ``until_ms`` or until somebody resumes
    - ``doubt``: the server rejects every word of its prompt; ``detail`` is what it said
    - ``backoff``: it has failed, and is due again at ``until_ms``
    - ``over_budget``: it may cost ``cost``, and ``left`` is left
    - ``gate``: closed since ``since_ms`` by ``cause`` (quota, day, outage), opens at ``until_ms``
    - ``per_minute``, ``tokens_per_minute``, ``pace``: the limit lets the next start at ``until_ms``
    - ``concurrency``: as many calls are in flight as may be
    - ``next``: nothing; ``ahead`` others come first
    """

    code: str
    since_ms: int | None = None
    until_ms: int | None = None
    cause: str | None = None
    detail: str | None = None
    cost: float = 0.0
    left: float = 0.0
    is_paused: bool = False
    ahead: int = 0


class _Request(NamedTuple):
    id: int
    state: str
    due_at_ms: int
    prompt_id: int
    prompt: str
    current: int
    provider: str
    limit_id: int
    reason: str | None
    started_at_ms: int | None
    word: str
    fields: str | None


def why_not(
    conn: sqlite3.Connection, request_id: int, alive: Collection[int], policy: Policy, now_ms: int
) -> Why:
    """Return why a request is not being asked at ``now_ms``.

    Args:
        conn: the ledger.
        request_id: the request.
        alive: of the runs that have not ended on record, those whose process may be alive: the
            lock beside the file tells, see `storage.locks`.
        policy: the settings.
        now_ms: the file's time.

    """
    request = _request(conn, request_id)
    if request.state != "pending":
        code = "in_flight" if request.state == "leased" else request.state
        return Why(code, since_ms=request.started_at_ms, detail=request.reason)
    at_work = [run for run in live_runs(conn) if run.id in alive]
    asking = [run for run in at_work if _asks(run, request)]
    if not asking:
        return _unasked(conn, request, at_work, now_ms)
    limit = limits(conn, policy.guard_ms)[request.limit_id]
    asked = [prompt for prompt in work(conn, EVERYTHING) if prompt.limit_id == limit.id]
    used = usage(conn, limit, [prompt.prompt_id for prompt in asked], now_ms)
    found = (
        _paused(limit, now_ms)
        or _doubted(conn, request, asking)
        or _backing_off(request, now_ms)
        or _over_budget(conn, request, limit, asking)
        or held_back(limit, used, now_ms)
    )
    return found or Why("next", ahead=_ahead(conn, request))


def held_back(limit: Limit, used: Usage, now_ms: int) -> Why | None:
    """Return what keeps a limit from starting another call; None where nothing does."""
    step = next_step(limit, used, now_ms)
    if step.room or step.held_by is None:
        return None
    if step.held_by == "paused":
        return _paused(limit, now_ms)
    if step.held_by == "gate":
        state, said = limit.state, limit.gate_reason
        return Why("gate", state.gate_since_ms or None, step.wake_at_ms, state.gate_cause, said)
    return Why(step.held_by, until_ms=step.wake_at_ms)


def _request(conn: sqlite3.Connection, request_id: int) -> _Request:
    row = conn.execute(
        "SELECT request_id, state, due_at_ms, prompt_id, prompt, prompts.current,"
        " prompts.provider, limit_id, reason, started_at_ms, word, fields"
        " FROM request_details JOIN prompts ON prompts.id = prompt_id WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    return _Request._make(row)


def _asks(run: LiveRun, request: _Request) -> bool:
    """Tell whether a run asks about such requests."""
    options = run.options
    if "request_ids" in options:
        return request.id in options["request_ids"]
    if "prompt_ids" in options:
        return request.prompt_id in options["prompt_ids"]
    by_itself = request.current == 1 and request.provider != "function"
    return by_itself and options.get("prompt", request.prompt) == request.prompt


def _unasked(
    conn: sqlite3.Connection, request: _Request, at_work: list[LiveRun], now_ms: int
) -> Why:
    if not request.current:
        return Why("superseded")
    if request.provider == "function":
        return Why("function")
    if at_work:
        return Why("not_selected", detail=_selected(at_work[0].options))
    last = last_end(conn)
    limit = limits(conn, 0)[request.limit_id]
    doubted = told_doubts(conn, EVERYTHING._replace(prompt_ids=(request.prompt_id,)))
    closed = limit.gate_reason if last.reason in COULD_NOT_ASK else None
    said = next((doubt.reason for doubt in doubted.values()), closed)
    why = Why("no_run", since_ms=last.at_ms, cause=last.reason, detail=said)
    if limit.is_paused(now_ms):
        why = why._replace(is_paused=True, until_ms=limit.paused_until_ms)
    return why


def _selected(options: Mapping[str, Any]) -> str:
    return str(options.get("prompt") or "some requests alone")


def _paused(limit: Limit, now_ms: int) -> Why | None:
    if not limit.is_paused(now_ms):
        return None
    return Why("paused", limit.paused_at_ms, limit.paused_until_ms)


def _doubted(conn: sqlite3.Connection, request: _Request, asking: list[LiveRun]) -> Why | None:
    asked = work(conn, EVERYTHING._replace(prompt_ids=(request.prompt_id,)))
    for run in asking:
        for doubt in doubts(conn, run.id, asked).values():
            if doubt.may_start <= 0:
                detail = doubt.reason if doubt.is_stopped else None
                return Why("doubt", cause=doubt.kind, detail=detail)
    return None


def _backing_off(request: _Request, now_ms: int) -> Why | None:
    if request.due_at_ms <= now_ms:
        return None
    return Why("backoff", request.started_at_ms, request.due_at_ms, detail=request.reason)


def _over_budget(
    conn: sqlite3.Connection, request: _Request, limit: Limit, asking: list[LiveRun]
) -> Why | None:
    if any(run.budget_left is None for run in asking):
        return None
    richest = max(asking, key=lambda run: run.budget_left or 0.0)
    budget, options = richest.budget_left or 0.0, richest.options
    allowance = Allowance(1, budget, options.get("price_in", 1.0), options.get("price_out", 1.0))
    try:
        known = usual(conn, request.prompt_id)
        _, cost = known.price(request.word, request.fields, limit.quota, allowance)
    except ValueError:
        return None  # no minute has tokens for it: the next turn fails it
    return Why("over_budget", cost=cost, left=budget) if cost > budget else None


def _ahead(conn: sqlite3.Connection, request: _Request) -> int:
    """Count the requests of its prompt that come first."""
    (ahead,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM requests INDEXED BY requests_fresh"
        " WHERE prompt_id = ? AND state = 'pending' AND due_at_ms = 0 AND id < ? LIMIT ?)",
        (request.prompt_id, request.id if request.due_at_ms == 0 else 0, MOST_AHEAD),
    ).fetchone()
    return int(ahead)
