"""`crawler status`: how far it is, how fast, and what it waits for."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import click

from crawler.cli.options import database_option
from crawler.cli.terminal import (
    as_record,
    moment,
    print_json,
    print_told,
    printable,
    span,
    tell,
)
from crawler.cli.why import held_line
from crawler.errors import count_of, quoted
from crawler.ledger.clocks import file_ms
from crawler.ledger.doubt import told_doubts
from crawler.ledger.intake import prompt_names
from crawler.ledger.runs import EVERYTHING, LiveRun, last_end
from crawler.ledger.status import LimitStatus, OldestCall, Progress, Status
from crawler.ledger.status import status as status_of
from crawler.policy import Policy
from crawler.run.ending import remedy_of
from crawler.storage.database import reading
from crawler.storage.dead_runs import lives_elsewhere
from crawler.storage.files import is_alone
from crawler.storage.locks import may_be_alive, run_is_alive


@click.command(
    epilog="Examples: crawler status · crawler status --json",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@database_option
def status(db: Path, *, as_json: bool) -> None:
    """Show how far the crawl is, how fast, and what it waits for; also while it runs."""
    alone = is_alone(db)
    with reading(db) as conn:
        now_ms = file_ms(conn)
        now = status_of(conn, Policy().guard_ms, now_ms)
        ended = last_end(conn)
        stopped = _stopped(conn)
    if as_json:
        print_json({**_as_json(db, now), "stopped": [as_record(one) for one in stopped]})
        return
    for row in now.progress:
        print_told(prompt_line(row))
    for one in stopped:
        remedy = f"; {one.remedy}" if one.remedy else ""
        print_told(f"{printable(one.prompt)} is stopped: {printable(one.reason)}{remedy}")
    for limit in now.limits:
        print_told(limit_line(limit, now.now_ms))
    if now.oldest_call is not None:
        print_told(_oldest_line(now.oldest_call))
    for run in now.runs:
        print_told(_run_line(db, run, now.now_ms - run.heartbeat_at_ms))
    for line in died_alone(db, now.runs) if alone else ():
        tell(line)
    at_work = may_be_alive(db, [run.id for run in now.runs])
    idle = now.unfinished and not at_work
    last = f" since {moment(ended.at_ms)} ({ended.reason})" if ended.reason else ""
    print_told(progress_line(now) + (f"; nobody is at work{last}: crawler run" if idle else ""))


class _Stopped(NamedTuple):
    """A prompt of which the next run asks one call first."""

    prompt: str
    reason_code: str
    reason: str
    remedy: str


def _stopped(conn: sqlite3.Connection) -> list[_Stopped]:
    """Return the prompts that are stopped, with what the server said and what a person can do."""
    names = prompt_names(conn)
    return [
        _Stopped(names[prompt_id], doubt.kind, doubt.reason, remedy_of(doubt))
        for prompt_id, doubt in told_doubts(conn, EVERYTHING).items()
    ]


def prompt_line(row: Progress) -> str:
    """Return how far a prompt version is."""
    requests = row.pending + row.leased + row.succeeded + row.failed + row.cancelled
    counts = f"{row.succeeded} succeeded, {row.failed} failed, {row.leased} in flight"
    cancelled = f", {row.cancelled} cancelled" if row.cancelled else ""
    cancelled += f"; {row.removed} removed" if row.removed else ""
    cancelled += f"; {row.stale} stale" if row.current and row.stale else ""
    if not row.current:
        return (
            f"{printable(row.prompt)} version {row.version}"
            f" ({printable(row.provider)}: {printable(row.model)}):"
            f" {row.succeeded} succeeded,{f' {row.failed} failed,' if row.failed else ''}"
            f"{f' {row.leased} in flight,' if row.leased else ''} and no longer asked: stale;"
            " again: crawler retry --stale"
        )
    return (
        f"{printable(row.prompt)} version {row.version}"
        f" ({printable(row.provider)}: {printable(row.model)}):"
        f" {count_of(requests, 'request')}, {counts}, {row.pending} pending{cancelled}"
    )


def progress_line(now: Status) -> str:
    """Return rate and time left in words."""
    if not now.unfinished:
        return "nothing left to do"
    rate = f"{now.succeeded_per_minute:.0f} a minute"
    left = f", about {span(now.eta_ms)} left" if now.eta_ms else ""
    return f"{now.unfinished} left, {rate}{left}"


def limit_line(limit: LimitStatus, now_ms: int) -> str:
    """Return what a limit allows and what holds back more."""
    per_minute = f" of {limit.per_minute}" if limit.per_minute is not None else ""
    learned = ""
    if limit.rate is not None:
        learned = f", the pace is {limit.rate:.3g} a minute"
        learned += " (learned from refusals: it may be below the real quota, which is set with"
        learned += f" crawler limit {quoted(limit.limit)} --per-minute N)"
    line = (
        f"limit {printable(limit.limit)}: {limit.in_flight} of {limit.concurrency} in flight,"
        f" {limit.started_last_minute}{per_minute} started in the last minute{learned}"
    )
    held = held_line(limit, now_ms)
    return f"{line}; {held}" if held else line


def _oldest_line(oldest: OldestCall) -> str:
    about = f"{printable(oldest.prompt)} about {printable(oldest.word)}"
    return f"the oldest call in flight: {about}, for {span(oldest.age_ms)}"


MAY_BE_A_COPY = (
    "if this is a copy that was made while it ran, what it lacks is where it was made:"
    " crawler backup makes whole copies (docs/backup.md)"
)


def died_alone(db: Path, runs: Iterable[LiveRun]) -> list[str]:
    """Return what may be wrong with a file that has runs without an end, and no log beside it."""
    lacking = [run.id for run in runs if not {"log_found", "copied"} & run.options.keys()]
    died = [run_id for run_id in lacking if run_is_alive(db, run_id) is False]
    return [f"run {run_id} has no end on record; {MAY_BE_A_COPY}" for run_id in died]


def _run_line(db: Path, run: LiveRun, silent_ms: int) -> str:
    line = f"run {run.id}: pid {run.pid} on {printable(run.host)}"
    if run_is_alive(db, run.id) is False:
        was = f"all this is as it was at {moment(run.heartbeat_at_ms)} or shortly after"
        if run.options.get("copied"):
            return f"this is a copy; {line} was at work when it was made: {was}"
        if lives_elsewhere(run.pid, run.host, run.boot_id):
            return f"{line} lives, but not on this file: this is a copy, and {was}"
        return f"{line} has died; the next run takes over what it had in flight"
    return f"{line}, seen {span(max(0, silent_ms))} ago"


def _as_json(db: Path, now: Status) -> dict[str, object]:
    return {
        "database": str(db),
        "at": moment(now.now_ms),
        "unfinished": now.unfinished,
        "succeeded_per_minute": round(now.succeeded_per_minute, 1),
        "eta_ms": now.eta_ms,
        "prompts": [as_record(row) for row in now.progress],
        "limits": [as_record(limit) for limit in now.limits],
        "oldest_call": None if now.oldest_call is None else now.oldest_call._asdict(),
        "runs": [
            {
                "run_id": run.id,
                "pid": run.pid,
                "host": run.host,
                "heartbeat_at": moment(run.heartbeat_at_ms),
                "alive": run_is_alive(db, run.id),
            }
            for run in now.runs
        ],
    }
