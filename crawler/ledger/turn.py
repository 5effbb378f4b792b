"""One turn: what has ended is recorded, what may start under each limit is leased.

Rule: a turn is one transaction and all the scheduling there is. Nothing that it decides on lives
outside the rows, so after a crash the next turn, of any process, simply goes on.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crawler.ledger.budget import NOTHING, Allowance
from crawler.ledger.doubt import Doubt, bring_back, doubts
from crawler.ledger.draw import LOOKED_AT, Drawn, Room, Unsendable, draw
from crawler.ledger.evidence import is_loading_in_vain
from crawler.ledger.finish import record
from crawler.ledger.limits import Limit, limits, save
from crawler.ledger.pacing import next_step, round_over, tried
from crawler.ledger.repair import not_as_made
from crawler.ledger.runs import Scope, beat, began_at_ms
from crawler.ledger.window import ledger_time_ms, usage
from crawler.ledger.work import Work, work
from crawler.protocol import Finish, Lease
from crawler.quota.concurrency import at_once
from crawler.quota.plan import Plan, Usage
from crawler.quota.rate import started
from crawler.quota.state import State
from crawler.quota.tokens import next_tokens_ms, used_tokens


class Gate(NamedTuple):
    """Where the gate of a limit stands; all 0 where it is open."""

    opens_at_ms: int
    closed_at_ms: int
    since_ms: int
    """Since when the run knows it closed: what came before its own start does not end it."""
    strikes: int
    cause: str
    limit: str = ""
    """The name of the limit."""
    loading: str = ""
    """What a server says that has loaded its model for longer than it asked to be waited for."""


class Turn(NamedTuple):
    """What a turn gives back."""

    leases: list[Lease]
    now_ms: int
    wake_at_ms: int | None
    """When to look again, if nothing happens before; None: only an event can change the answer."""
    gates: list[Gate]
    """Of each limit whose prompts have work left and are not stopped."""
    unfinished: int
    """Pending and leased requests of the prompts that the run asks."""
    stopped: int
    """How many of them belong to prompts that are stopped for this run."""
    stops: list[Doubt]
    """Why those prompts are stopped."""
    late: int
    """Answers that came after their attempt was taken from this run."""
    lost: bool
    """Another process has declared this run dead: it must not start another call."""
    over_budget: bool
    """There was a request that the budget may not pay for."""
    windowed: bool
    """Some of the leases have a place in a window, for a while that is agreed on."""

    @property
    def gate(self) -> Gate:
        """The gate that opens first; open where one of them is."""
        return min(self.gates, default=OPEN)


class _Share(NamedTuple):
    """What a turn has done under one limit."""

    limit: Limit
    leases: list[Lease]
    wake_at_ms: int | None
    over_budget: bool


def turn(
    conn: sqlite3.Connection, scope: Scope, finished: Sequence[Finish], allowance: Allowance
) -> Turn:
    """Record what has finished, plan, and lease what limits and allowance let start.

    Args:
        conn: the ledger, in a transaction.
        scope: the run's.
        finished: the attempts that have ended.
        allowance: what the run may still start and spend.

    """
    now_ms = ledger_time_ms(conn, scope.clock())
    before = limits(conn, scope.policy.guard_ms)
    after = dict(before)
    late = record(conn, scope, finished, after, now_ms)
    lost = not beat(conn, scope.run_id, late, allowance.budget, now_ms)
    if lost:
        allowance = NOTHING
    asked = work(conn, scope.selection)
    doubted = doubts(conn, scope.run_id, asked)
    if bring_back(conn, doubted.values()):
        asked = work(conn, scope.selection)
    shares: list[_Share] = []
    for limit_id in sorted({prompt.limit_id for prompt in asked}):
        if limit_id not in after:
            raise not_as_made(f"the limit {limit_id} of a prompt is gone")
        prompt_ids = [prompt.prompt_id for prompt in asked if prompt.limit_id == limit_id]
        share = _share(conn, scope, after[limit_id], prompt_ids, doubted, allowance, now_ms)
        after[limit_id] = share.limit
        allowance = allowance.after(share.leases)
        shares.append(share)
    save(conn, before, after, now_ms)
    return _told(conn, scope, asked, doubted, shares, now_ms, late, lost=lost)


def _told(
    conn: sqlite3.Connection,
    scope: Scope,
    asked: Sequence[Work],
    doubted: Mapping[int, Doubt],
    shares: Sequence[_Share],
    now_ms: int,
    late: int,
    *,
    lost: bool,
) -> Turn:
    stopped = {prompt_id: doubt for prompt_id, doubt in doubted.items() if doubt.is_stopped}
    going_on = {p.limit_id for p in asked if p.unfinished and p.prompt_id not in stopped}
    wakes = [share.wake_at_ms for share in shares if share.wake_at_ms is not None]
    waiting = [share.limit for share in shares if share.limit.id in going_on]
    gates = _gates(conn, scope, waiting, now_ms)
    return Turn(
        leases=[lease for share in shares for lease in share.leases],
        now_ms=now_ms,
        wake_at_ms=min(wakes, default=None),
        gates=gates,
        unfinished=sum(prompt.unfinished for prompt in asked),
        stopped=sum(prompt.unfinished for prompt in asked if prompt.prompt_id in stopped),
        stops=list(stopped.values()),
        late=late,
        lost=lost,
        over_budget=any(share.over_budget for share in shares),
        windowed=any(share.leases and share.limit.quota.per_minute is not None for share in shares),
    )


def _gates(
    conn: sqlite3.Connection, scope: Scope, limits: Sequence[Limit], now_ms: int
) -> list[Gate]:
    """Return the gates that a run waits for: of paused limits only where all are."""
    waiting = [one for one in limits if not one.is_paused(now_ms)] or limits
    return [_gate(conn, scope, limit, now_ms) for limit in waiting]


def _share(
    conn: sqlite3.Connection,
    scope: Scope,
    limit: Limit,
    prompt_ids: Sequence[int],
    doubted: Mapping[int, Doubt],
    allowance: Allowance,
    now_ms: int,
) -> _Share:
    """Lease what may start under one limit, and fail what can't be sent."""
    used = usage(conn, limit, prompt_ids, now_ms)
    limit = tried(conn, limit, used, now_ms)
    step = next_step(limit, used, now_ms)
    room = room_of(limit, used, step, doubted)
    drawn = draw(conn, scope, limit, prompt_ids, room, allowance, now_ms)
    if drawn.unsendable:
        _fail(conn, scope.run_id, limit, drawn.unsendable, now_ms)
    is_full = len(drawn.leases) == step.room
    if drawn.leases:
        held = is_full and step.held_by in ("pace", "per_minute")
        limit = _lease(conn, scope.run_id, limit, drawn.leases, now_ms, held=held)
    wake_at_ms = _wake_at_ms(limit, used, step, drawn, now_ms, is_full=is_full)
    if limit.quota.concurrency is None:
        before = at_once(limit.state, limit.quota)
        limit = round_over(conn, limit, used.in_flight + len(drawn.leases), now_ms)
        if is_full and at_once(limit.state, limit.quota) > before:
            wake_at_ms = now_ms  # there is room for more
    return _Share(limit, drawn.leases, wake_at_ms, drawn.over_budget)


def room_of(limit: Limit, used: Usage, step: Plan, doubted: Mapping[int, Doubt]) -> Room:
    """Return what may start under a limit, as the plan says."""
    return Room(
        step.room,
        step.tokens,
        doubted,
        fresh_first=_fresh_first(limit.state),
        # Where nothing is in flight, the run may end if nothing is found.
        looked_at_most=step.room + LOOKED_AT if used.in_flight else None,
    )


def _fresh_first(state: State) -> bool:
    """Tell whether a closed gate is to be tried with a request that has never been refused.

    Whether an outage is over is tried by turns with one that has never failed and with one that
    has: either kind may fail by itself.
    """
    if state.gate_cause == "outage":
        return state.gate_strikes % 2 == 1
    return state.gate_cause is not None


def _wake_at_ms(
    limit: Limit, used: Usage, step: Plan, drawn: Drawn, now_ms: int, *, is_full: bool
) -> int | None:
    if drawn.out_of_tokens:
        return next_tokens_ms(limit.state)
    if drawn.cut_short and drawn.unsendable and not is_full:
        return now_ms  # what could not be sent is out of the way now
    return step.wake_at_ms if is_full else used.next_due_at_ms


OPEN = Gate(0, 0, 0, 0, "")


def _gate(conn: sqlite3.Connection, scope: Scope, limit: Limit, now_ms: int) -> Gate:
    """Return where the gate of a limit stands."""
    state = limit.state
    if state.gate_cause is None:
        return OPEN
    since_ms = max(state.gate_since_ms, began_at_ms(conn, scope.run_id))
    in_vain = state.gate_cause == "outage" and is_loading_in_vain(
        conn, limit.id, since_ms, scope.policy.patience_ms, now_ms
    )
    return Gate(
        state.gate_opens_at_ms,
        state.gate_closed_at_ms,
        since_ms,
        state.gate_strikes,
        state.gate_cause,
        limit.name,
        (limit.gate_reason or "") if in_vain else "",
    )


def _lease(
    conn: sqlite3.Connection,
    run_id: int,
    limit: Limit,
    leases: Sequence[Lease],
    now_ms: int,
    *,
    held: bool,
) -> Limit:
    """Lease requests: from here on they are this run's. Returns the limit after that.

    ``held``: the pace of the limit has held back others.
    """
    conn.executemany(
        "UPDATE requests SET state = 'leased', attempts = ? WHERE id = ?",
        [(lease.number, lease.request_id) for lease in leases],
    )
    corrected = [(lease.request_id,) for lease in leases if lease.revision is not None]
    if corrected:
        conn.executemany("UPDATE requests SET changed = 0 WHERE id = ? AND changed = 1", corrected)
    conn.executemany(
        "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms, nth,"
        " tokens_reserved, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                lease.request_id,
                lease.number,
                run_id,
                limit.id,
                now_ms,
                nth,
                lease.tokens,
                lease.revision,
            )
            for nth, lease in enumerate(leases, limit.started + 1)
        ],
    )
    tokens = sum(lease.tokens or 0 for lease in leases)
    state = started(limit.state, limit.quota, len(leases), now_ms, held=held)
    state = used_tokens(state, limit.quota, tokens, now_ms)
    return limit._replace(state=state, started=limit.started + len(leases))


def _fail(
    conn: sqlite3.Connection,
    run_id: int,
    limit: Limit,
    unsendable: Sequence[Unsendable],
    now_ms: int,
) -> None:
    """Fail requests that can't be sent. They take no place of the window: see `attempts.nth`."""
    conn.executemany(
        "UPDATE requests SET state = 'leased', attempts = ? WHERE id = ?",
        [(refused.number, refused.request_id) for refused in unsendable],
    )
    conn.executemany(
        "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms,"
        " finished_at_ms, nth, outcome, reason)"
        " SELECT ?1, ?2, ?3, id, ?4, ?4, -(started + 1), 'rejected', ?5 FROM limits WHERE id = ?6",
        [
            (refused.request_id, refused.number, run_id, now_ms, refused.reason, limit.id)
            for refused in unsendable
        ],
    )
    conn.executemany(
        "UPDATE requests SET state = 'failed', due_at_ms = 0 WHERE id = ?",
        [(refused.request_id,) for refused in unsendable],
    )
