"""How far a crawl is, how fast, and what it waits for.

Rule: short reads that never write, so that they work beside a run.
"""

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from crawler.ledger.limits import Limit, limits
from crawler.ledger.runs import LiveRun, Selection, live_runs
from crawler.ledger.why import Why, held_back
from crawler.ledger.window import first_start, usage
from crawler.ledger.work import CURRENT, chosen_prompts
from crawler.quota.concurrency import at_once
from crawler.quota.state import WINDOW_MS
from crawler.quota.window import window_cap

RATE_SAMPLE = 2_000
"""The most attempts that a rate is taken from, so that asking stays cheap at any speed."""


class Progress(NamedTuple):
    """The requests of a prompt version, by state."""

    prompt: str
    version: int
    provider: str
    model: str
    pending: int
    leased: int
    succeeded: int
    failed: int
    cancelled: int
    current: bool
    removed: int = 0
    """Words that were taken off the list."""
    stale: int = 0
    """Answers whose prompt or word has changed since."""


class LimitStatus(NamedTuple):
    """What a limit allows, what is used of it, and what holds back more."""

    limit: str
    concurrency: int
    in_flight: int
    per_minute: int | None
    tokens_per_minute: int | None
    adaptive: bool
    rate: float | None
    """Calls a minute that it has learned to be right; None: nothing learned yet."""
    started_last_minute: int
    succeeded_per_minute: float
    held_by: str | None
    """``paused``, ``gate``, ``concurrency``, ``per_minute``, ``tokens_per_minute``, ``pace`` (the
    rate), ``backoff``; None: nothing."""
    until_ms: int | None
    cause: str | None
    """Of a closed gate: ``quota``, ``day`` or ``outage``."""
    reason: str | None
    concurrency_from: str = "you"
    """Who says so: ``you``, or ``learned``."""
    per_minute_from: str | None = None
    """``you``, or ``server``; None: nobody has set it, and no server has told."""
    tokens_from: str | None = None
    unfinished: int = 0
    """Requests of the current prompts under it that are still to be answered."""

    @property
    def eta_ms(self) -> int | None:
        """Milliseconds until they are, if it goes on as in the last minute; None: not known."""
        if not self.unfinished:
            return 0
        rate = self.succeeded_per_minute
        return int(self.unfinished / rate * WINDOW_MS) if rate else None


class OldestCall(NamedTuple):
    """The call that has been in flight for the longest time."""

    request_id: int
    number: int
    word: str
    prompt: str
    age_ms: int


class Status(NamedTuple):
    """The state of a crawl at one moment."""

    progress: list[Progress]
    limits: list[LimitStatus]
    runs: list[LiveRun]
    """The runs that have not ended on record."""
    now_ms: int
    oldest_call: OldestCall | None = None
    """None where no call is in flight."""

    @property
    def unfinished(self) -> int:
        """Requests of the current prompts that are still to be answered."""
        return sum(row.pending + row.leased for row in self.progress if row.current)

    @property
    def succeeded(self) -> int:
        """Requests of the current prompts that are answered."""
        return sum(row.succeeded for row in self.progress if row.current)

    @property
    def failed(self) -> int:
        """Requests of the current prompts that have failed for good."""
        return sum(row.failed for row in self.progress if row.current)

    @property
    def succeeded_per_minute(self) -> float:
        """The rate of all limits together."""
        return sum(limit.succeeded_per_minute for limit in self.limits)

    @property
    def eta_ms(self) -> int | None:
        """Milliseconds until all is done, if it goes on as in the last minute.

        None where nothing is known of that: it has just begun, is paused, or a gate is closed.
        """
        if not self.unfinished:
            return 0
        # Limits work side by side, and none takes over what is left under another.
        busy = [limit for limit in self.limits if limit.unfinished]
        left_ms = [limit.eta_ms for limit in busy if limit.eta_ms is not None]
        if len(left_ms) < len(busy) or any(row.held_by in ("gate", "paused") for row in busy):
            return None
        return max([0, *left_ms, *((row.until_ms or 0) - self.now_ms for row in busy)])


def status(
    conn: sqlite3.Connection, guard_ms: int, now_ms: int, selection: Selection | None = None
) -> Status:
    """Count what is done, what is left, and what it waits for.

    Args:
        conn: the ledger.
        guard_ms: see `Policy`.
        now_ms: the file's time.
        selection: what a run asks: only its prompts count, and their limits while it has work for
            them; None: all of the file.

    """
    chosen, values = ("1", ()) if selection is None else chosen_prompts(selection)
    asked = CURRENT if selection is None else chosen
    progress = conn.execute(
        "SELECT name, version, provider, model, pending, leased, succeeded, failed, cancelled,"
        " current = 1, removed, iif(current = 1, (SELECT count(*) FROM requests"
        " INDEXED BY requests_changed WHERE changed = 1 AND prompt_id = prompts.id"
        " AND state = 'succeeded' AND superseded = 0 AND requests.removed_at_ms IS NULL),"
        " succeeded)"
        " FROM prompts JOIN tallies ON tallies.prompt_id = prompts.id"
        " WHERE prompts.removed_at_ms IS NULL"
        " AND (current = 1 OR pending + leased + succeeded + failed > 0)"
        f" AND {chosen} ORDER BY name, version",
        values,
    )
    with_work = conn.execute(
        "SELECT prompts.id, limit_id, pending + leased FROM prompts"
        " JOIN tallies ON tallies.prompt_id = prompts.id"
        f" WHERE pending + leased > 0 AND {asked} ORDER BY prompts.id",
        values,
    ).fetchall()
    with_limit = {limit_id for _, limit_id, _ in with_work}
    return Status(
        progress=[Progress._make((*row[:9], row[9] == 1, *row[10:])) for row in progress],
        limits=[
            _limit_status(
                conn,
                limit,
                {prompt: left for prompt, limit_id, left in with_work if limit_id == limit.id},
                now_ms,
            )
            for limit in limits(conn, guard_ms).values()
            if selection is None or limit.id in with_limit
        ],
        runs=live_runs(conn),
        now_ms=now_ms,
        oldest_call=_oldest_call(conn, now_ms),
    )


def _oldest_call(conn: sqlite3.Connection, now_ms: int) -> OldestCall | None:
    row = conn.execute(
        "SELECT request_id, number, text, prompts.name, max(0, ? - started_at_ms) FROM"
        " (SELECT request_id, number, started_at_ms FROM attempts INDEXED BY attempts_open"
        " WHERE finished_at_ms IS NULL ORDER BY started_at_ms, request_id LIMIT 1) AS oldest"
        " JOIN requests ON requests.id = request_id JOIN words ON words.id = word_id"
        " JOIN prompts ON prompts.id = prompt_id",
        (now_ms,),
    ).fetchone()
    return None if row is None else OldestCall._make(row)


def answers(conn: sqlite3.Connection) -> int:
    """Return how many answers there are, of all versions."""
    (found,) = conn.execute("SELECT count(*) FROM responses").fetchone()
    assert isinstance(found, int)
    return found


def _limit_status(
    conn: sqlite3.Connection, limit: Limit, unfinished: Mapping[int, int], now_ms: int
) -> LimitStatus:
    """Return the status of a limit; ``unfinished``: of each prompt with work left, how much."""
    used = usage(conn, limit, list(unfinished), now_ms)
    held = held_back(limit, used, now_ms)
    if held is None and not used.in_flight and used.next_due_at_ms is not None:
        held = Why("backoff", until_ms=used.next_due_at_ms)
    if held is not None and held.code != "paused" and not unfinished:
        held = None  # nothing waits
    started, rate = _rate(conn, limit, now_ms)
    cap = window_cap(limit.state, limit.quota)
    if cap is not None:
        rate = min(rate, cap)  # a burst is not what the next minutes will be like
    return LimitStatus(
        limit=limit.name,
        concurrency=at_once(limit.state, limit.quota),
        concurrency_from="learned" if limit.quota.concurrency is None else "you",
        in_flight=used.in_flight,
        per_minute=limit.quota.per_minute,
        per_minute_from=_origin(limit.quota.per_minute, limit.per_minute),
        tokens_per_minute=limit.quota.tokens_per_minute,
        tokens_from=_origin(limit.quota.tokens_per_minute, limit.tokens_per_minute),
        adaptive=limit.quota.adaptive,
        rate=limit.state.rate,
        started_last_minute=started,
        succeeded_per_minute=rate,
        held_by=held.code if held else None,
        until_ms=held.until_ms if held else None,
        cause=held.cause if held else limit.state.gate_cause if unfinished else None,
        reason=held.detail if held else limit.gate_reason if unfinished else None,
        unfinished=sum(unfinished.values()),
    )


def _origin(in_force: int | None, own: int | None) -> str | None:
    if in_force is None:
        return None
    return "you" if in_force == own else "server"


def _rate(conn: sqlite3.Connection, limit: Limit, now_ms: int) -> tuple[int, float]:
    """Return the starts of the last minute, and successes a minute over the latest of them."""
    first = first_start(conn, limit.id, now_ms - WINDOW_MS)
    started = first.occupied(limit) if first else 0
    succeeded, since_ms = conn.execute(
        "SELECT sum(outcome IS 'succeeded'), min(started_at_ms) FROM ("
        " SELECT outcome, started_at_ms FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = ? AND started_at_ms > ? ORDER BY started_at_ms DESC LIMIT ?)",
        (limit.id, now_ms - WINDOW_MS, RATE_SAMPLE),
    ).fetchone()
    if not succeeded:
        return started, 0.0
    return started, succeeded * WINDOW_MS / max(now_ms - since_ms, 1_000)
