"""What a person asks while a crawl is running, or after: status, timelines, results.

Rule: short reads that never write, so that they work beside a running scheduler.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from crawler.ledger.intake import Prompt, prompt_by_id
from crawler.ledger.look import Limit, first_start, limits, look, served_prompts
from crawler.quota.pace import WINDOW_MS, window_cap
from crawler.quota.plan import plan

RATE_SAMPLE = 2_000
"""The most attempts that a rate is taken from, so that asking stays cheap at any speed."""


MOST_IN_VAIN = 1_000
"""Failures of a prompt up to which they are looked at: a run stops long before there are more."""


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


class Status(NamedTuple):
    """The state of a crawl at one moment."""

    progress: list[Progress]
    limits: list[LimitStatus]
    runs: list[tuple[int, int, str, int]]
    """(id, pid, host, heartbeat in ms) of the runs that have not ended on record."""
    now_ms: int

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
        if any(limit.held_by in ("gate", "paused") for limit in self.limits):
            return None
        rate = self.succeeded_per_minute
        waits_ms = max(((row.until_ms or 0) - self.now_ms for row in self.limits), default=0)
        return max(waits_ms, int(self.unfinished / rate * WINDOW_MS)) if rate else None


class Vain(NamedTuple):
    """A prompt of which every request was rejected."""

    prompt: str
    failed: int
    reason: str
    """Of one of the rejections."""


class TimelineRow(NamedTuple):
    """One attempt in the life of a request; all of ``attempt`` is None before the first."""

    request_id: int
    prompt: str
    version: int
    provider: str
    model: str
    state: str
    due_at_ms: int
    number: int | None
    started_at_ms: int | None
    finished_at_ms: int | None
    outcome: str | None
    reason: str | None
    text: str | None


class Result(NamedTuple):
    """What became of a word.

    ``text`` is None where there is no answer; then ``reason`` says why and ``state`` whether it is
    still to be asked (``pending``) or not (``failed``, ``cancelled``).
    """

    word: str
    text: str | None
    state: str
    reason: str | None
    provider: str
    model: str
    tokens_in: int | None
    tokens_out: int | None
    attempts: int
    prompt: str
    version: int
    fields: Mapping[str, str]
    truncated: bool
    """The text was cut off where no more tokens were allowed."""
    finished_at_ms: int | None


def status(conn: sqlite3.Connection, guard_ms: int, now_ms: int) -> Status:
    """Count what is done, what is left, and what it waits for."""
    progress = conn.execute(
        "SELECT name, version, provider, model, pending, leased, succeeded, failed, cancelled,"
        " current = 1"
        " FROM prompts JOIN tallies ON prompt_id = id"
        " WHERE current = 1 OR pending + leased + succeeded + failed > 0 ORDER BY name, version"
    )
    runs = conn.execute(
        "SELECT id, pid, host, heartbeat_at_ms FROM runs INDEXED BY runs_live"
        " WHERE ended_at_ms IS NULL"
    )
    served = served_prompts(conn, None)
    return Status(
        progress=[Progress._make((*row[:-1], bool(row[-1]))) for row in progress],
        limits=[
            _limit_status(
                conn,
                limit,
                [row.prompt_id for row in served if row.limit_id == limit.id],
                now_ms,
            )
            for limit in limits(conn, guard_ms).values()
        ],
        runs=runs.fetchall(),
        now_ms=now_ms,
    )


def timeline(conn: sqlite3.Connection, word: str) -> list[TimelineRow]:
    """Return every attempt made for a word, oldest first, and its requests without any."""
    rows = conn.execute(
        "SELECT requests.id, prompts.name, version, provider, model, state, due_at_ms,"
        " attempts.number, started_at_ms, finished_at_ms, outcome, reason, responses.text"
        " FROM words JOIN prompts"
        " JOIN requests ON requests.prompt_id = prompts.id AND requests.word_id = words.id"
        " LEFT JOIN attempts ON attempts.request_id = requests.id"
        " LEFT JOIN responses ON responses.request_id = requests.id"
        " AND responses.number = attempts.number"
        " WHERE words.text = ? ORDER BY requests.id, attempts.number",
        (word,),
    )
    return list(map(TimelineRow._make, rows))


def results(conn: sqlite3.Connection, prompt_id: int) -> Iterator[Result]:
    """Yield the words of a prompt version in the order in which they were added."""
    rows = conn.execute(
        f"{_RESULT} FROM requests JOIN words ON words.id = word_id {_RESULT_JOINS}"
        " WHERE prompt_id = ? ORDER BY word_id",
        (prompt_id,),
    )
    return map(_result, rows)


def result(conn: sqlite3.Connection, prompt_id: int, word: str) -> Result:
    """Return what became of one word that the prompt has a request for."""
    [found] = _results_of(conn, prompt_id, word)
    return found


def answer(conn: sqlite3.Connection, prompt_id: int, word: str) -> Result | None:
    """Return the answer about a word; None where there is none, or not yet."""
    answered = [row for row in _results_of(conn, prompt_id, word) if row.text is not None]
    return answered[0] if answered else None


def has_answers(conn: sqlite3.Connection, prompt_id: int) -> bool:
    """Tell whether a prompt version has ever been answered."""
    (succeeded,) = conn.execute(
        "SELECT succeeded FROM tallies WHERE prompt_id = ?", (prompt_id,)
    ).fetchone()
    return bool(succeeded)


def last_answered(conn: sqlite3.Connection, name: str) -> Prompt | None:
    """Return the current version of a prompt, or else the newest one, that was ever answered."""
    found = conn.execute(
        "SELECT id FROM prompts JOIN tallies ON prompt_id = id WHERE name = ? AND succeeded > 0"
        " ORDER BY current DESC, version DESC LIMIT 1",
        (name,),
    ).fetchone()
    return None if found is None else prompt_by_id(conn, found[0])


def vain_prompts(conn: sqlite3.Connection, prompt_ids: Sequence[int] | None) -> list[Vain]:
    """Return the prompts that a server has refused to the last request, and never served.

    Of the given ones, or of all that a program can serve. What never left this machine, because a
    word lacks a field, says nothing of the prompt.
    """
    chosen, values = "current = 1 AND provider <> 'function'", tuple(prompt_ids or ())
    if prompt_ids is not None:
        chosen = f"prompts.id IN ({', '.join('?' * len(values))})"
    rows = conn.execute(
        "SELECT prompts.name, count(*), max(reason)"
        " FROM prompts JOIN tallies ON tallies.prompt_id = prompts.id"
        " JOIN requests ON requests.prompt_id = prompts.id AND state = 'failed'"
        " JOIN attempts ON request_id = requests.id AND number = requests.attempts"
        f" WHERE succeeded = 0 AND pending + leased = 0 AND failed BETWEEN 1 AND ? AND {chosen}"
        " GROUP BY prompts.id"
        " HAVING min(outcome = 'rejected' AND status_code IS NOT NULL) ORDER BY prompts.id",
        (MOST_IN_VAIN, *values),
    )
    return [Vain(name, failed, reason or "") for name, failed, reason in rows]


def field_names(conn: sqlite3.Connection, prompt_id: int) -> list[str]:
    """Return the names of all fields that the words of a prompt version have, as they appear."""
    rows: list[tuple[Any]] = conn.execute(
        "SELECT key FROM requests JOIN words ON words.id = word_id, json_each(words.fields)"
        " WHERE prompt_id = ? AND words.fields IS NOT NULL"
        " GROUP BY key ORDER BY min(words.id), min(json_each.id)",
        (prompt_id,),
    ).fetchall()
    return [name for (name,) in rows]


def _results_of(conn: sqlite3.Connection, prompt_id: int, word: str) -> list[Result]:
    rows = conn.execute(
        f"{_RESULT} FROM words JOIN requests ON word_id = words.id {_RESULT_JOINS}"
        " WHERE prompt_id = ? AND words.text = ?",
        (prompt_id, word),
    )
    return list(map(_result, rows))


_RESULT = (
    "SELECT words.text, responses.text, state, last.reason, provider, model, last.tokens_in,"
    " last.tokens_out, requests.attempts, prompts.name, version, words.fields,"
    " coalesce(last.truncated, 0), last.finished_at_ms"
)
_RESULT_JOINS = (
    "JOIN prompts ON prompts.id = prompt_id"
    " LEFT JOIN attempts AS last"
    " ON last.request_id = requests.id AND last.number = requests.attempts"
    " LEFT JOIN responses ON responses.request_id = requests.id"
)


def _result(row: Sequence[Any]) -> Result:
    *plain, fields, truncated, finished_at_ms = row
    known = json.loads(fields or "{}")
    return Result._make((*plain, known, truncated == 1, finished_at_ms))


def _limit_status(
    conn: sqlite3.Connection, limit: Limit, prompt_ids: list[int], now_ms: int
) -> LimitStatus:
    outlook = look(conn, limit, prompt_ids, now_ms)
    step = plan(outlook, now_ms)
    held_by, until_ms = None if step.room else step.held_by, step.wake_at_ms
    if held_by is None and not outlook.in_flight and outlook.next_due_at_ms is not None:
        held_by, until_ms = "backoff", outlook.next_due_at_ms
    started, rate = _rate(conn, limit, now_ms)
    cap = window_cap(limit.pace, limit.quota)
    if cap is not None:
        rate = min(rate, cap)  # a burst is not what the next minutes will be like
    return LimitStatus(
        limit=limit.name,
        concurrency=limit.concurrency,
        in_flight=outlook.in_flight,
        per_minute=limit.quota.per_minute,
        tokens_per_minute=limit.quota.tokens_per_minute,
        adaptive=limit.quota.adaptive,
        rate=limit.pace.rate,
        started_last_minute=started,
        succeeded_per_minute=rate,
        held_by=held_by,
        until_ms=until_ms,
        cause=limit.pace.gate_cause if held_by == "gate" else None,
        reason=limit.pace.gate_reason if held_by == "gate" else None,
    )


def _rate(conn: sqlite3.Connection, limit: Limit, now_ms: int) -> tuple[int, float]:
    """Return the starts of the last minute, and successes a minute over the latest of them."""
    first = first_start(conn, limit.id, now_ms - WINDOW_MS)
    started = limit.started - first.nth + 1 if first else 0
    succeeded, since_ms = conn.execute(
        "SELECT sum(outcome IS 'succeeded'), min(started_at_ms) FROM ("
        " SELECT outcome, started_at_ms FROM attempts INDEXED BY attempts_started"
        " WHERE limit_id = ? AND started_at_ms > ? ORDER BY started_at_ms DESC LIMIT ?)",
        (limit.id, now_ms - WINDOW_MS, RATE_SAMPLE),
    ).fetchone()
    if not succeeded:
        return started, 0.0
    return started, succeeded * WINDOW_MS / max(now_ms - since_ms, 1_000)


def bound_memory(conn: sqlite3.Connection, most_bytes: int) -> None:
    """Bound what SQLite uses in this process from here on; beyond it raises MemoryError."""
    conn.execute(f"PRAGMA hard_heap_limit = {most_bytes:d}")


def open_table_functions(conn: sqlite3.Connection) -> None:
    """Make the table functions of JSON; to a strict authorizer that looks like a change."""
    conn.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
