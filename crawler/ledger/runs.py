"""The runs on record: one row for each life of a process that crawls.

Rule: a run is on record before it leases anything, and its heartbeat moves while it turns.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from crawler.ledger.json_columns import json_object
from crawler.ledger.repair import not_as_made
from crawler.policy import Draw, Policy

HEARTBEAT_MS = 5_000


class Selection(NamedTuple):
    """What a run asks: all that a program can ask by itself, unless one of these says less."""

    prompt: str | None = None
    """The name of the only prompt, in its current version."""
    prompt_ids: tuple[int, ...] | None = None
    """The only prompt versions."""
    request_ids: tuple[int, ...] | None = None
    """The only requests: some, not thousands of thousands; each turn looks at them."""


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a run brings to each of its turns."""

    run_id: int
    policy: Policy
    clock: Callable[[], int]
    """The time, in ms."""
    draw: Draw
    selection: Selection = EVERYTHING


class LiveRun(NamedTuple):
    """A run that has not ended on record."""

    id: int
    heartbeat_at_ms: int
    boot_id: str
    """Of the machine's start that it belongs to; empty where that is not known."""
    pid: int
    host: str
    options: Mapping[str, Any]
    """What holds it back: `prompt`, `prompt_ids`, `request_ids`, `deadline_at_ms`, `max_calls`,
    `budget` with `price_in` and `price_out`. Those that were not given are not there. `log_found`:
    it died, and its log lay beside the file since. `copied`: it was at work on the file that this
    is a backup of."""
    budget_left: float | None
    """What it may still spend; None where it has no budget."""


def start_run(
    conn: sqlite3.Connection,
    pid: int,
    host: str,
    version: str,
    now_ms: int,
    boot_id: str = "",
    options: Mapping[str, Any] | None = None,
) -> int:
    """Put a run on record and return its id."""
    cursor = conn.execute(
        "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms, boot_id, options)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (pid, host, version, now_ms, now_ms, boot_id, json.dumps(dict(options or {}))),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def began_at_ms(conn: sqlite3.Connection, run_id: int) -> int:
    """Return when a run started."""
    (began,) = conn.execute("SELECT started_at_ms FROM runs WHERE id = ?", (run_id,)).fetchone()
    return int(began)


def live_runs(conn: sqlite3.Connection) -> list[LiveRun]:
    """Return the runs that have not ended on record."""
    rows = conn.execute(
        "SELECT id, heartbeat_at_ms, boot_id, pid, host, options, budget_left"
        " FROM runs INDEXED BY runs_live WHERE ended_at_ms IS NULL"
    )
    return [
        LiveRun(
            run_id,
            beat_ms,
            boot,
            pid,
            host,
            json_object(options, f"the options of run {run_id}"),
            budget_left,
        )
        for run_id, beat_ms, boot, pid, host, options, budget_left in rows
    ]


class LastEnd(NamedTuple):
    """How the run ended that was last begun; None where it has not, or there was none."""

    reason: str | None = None
    at_ms: int | None = None
    began_at_ms: int = 0


def last_end(conn: sqlite3.Connection) -> LastEnd:
    """Return why the newest run ended, and when."""
    row = conn.execute(
        "SELECT reason, ended_at_ms, started_at_ms FROM runs ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return LastEnd(*row) if row else LastEnd()


def beat(
    conn: sqlite3.Connection, run_id: int, late: int, budget_left: float | None, now_ms: int
) -> bool:
    """Show that the run is alive; return whether it still may be.

    Args:
        conn: the ledger.
        run_id: the run.
        late: answers that came after their attempt was taken from it, since the last time.
        budget_left: what it may still spend; None where it has no budget.
        now_ms: the time.

    """
    row = conn.execute(
        "SELECT heartbeat_at_ms, ended_at_ms, budget_left FROM runs WHERE id = ?", (run_id,)
    ).fetchone()
    if row is None:
        raise not_as_made(f"the row of run {run_id}, which is at work, is gone")
    heartbeat_at_ms, ended_at_ms, known_left = row
    if late or now_ms - heartbeat_at_ms >= HEARTBEAT_MS or budget_left != known_left:
        conn.execute(
            "UPDATE runs SET heartbeat_at_ms = max(heartbeat_at_ms, ?),"
            " late_answers = late_answers + ?, budget_left = ? WHERE id = ?",
            (now_ms, late, budget_left, run_id),
        )
    return ended_at_ms is None
