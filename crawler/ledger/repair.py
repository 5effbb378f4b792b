"""Mends what can be computed from other rows: counts, indexes, guards, and states that hang.

Rule: nothing that was paid for is touched: attempts, responses and drafts stay as they are.
"""

import sqlite3
from collections.abc import Iterable

from crawler.errors import CrawlerError, Exit, count_of

RECOUNTED_AT_MOST = 1_000_000
"""Requests that a run counts when it begins; 0.2 s. Of more it asks only for a proof."""


COUNTS = (
    "SELECT prompt_id, sum(state = 'pending') AS p, sum(state = 'leased') AS l,"
    " sum(state = 'succeeded' AND listed) AS s, sum(state = 'failed' AND listed) AS f,"
    " sum(state = 'cancelled' AND listed) AS c,"
    " sum(superseded = 0 AND removed_at_ms NOT NULL AND state <> 'leased') AS r"
    " FROM (SELECT *, superseded = 0 AND removed_at_ms IS NULL AS listed FROM requests)"
    " GROUP BY prompt_id"
)
"""What the tallies of each prompt version are to be."""
_COUNTED = (
    "SELECT prompts.id, coalesce(p, 0), coalesce(l, 0), coalesce(s, 0), coalesce(f, 0),"
    f" coalesce(c, 0), coalesce(r, 0) FROM prompts LEFT JOIN ({COUNTS}) ON prompt_id = prompts.id"
)
_TALLIED = "SELECT prompt_id, pending, leased, succeeded, failed, cancelled, removed FROM tallies"


def recount(conn: sqlite3.Connection) -> int:
    """Count the requests of each prompt again; return of how many prompts the counts were wrong."""
    tallied = {prompt_id: counts for prompt_id, *counts in conn.execute(_TALLIED)}
    wrong = [row for row in conn.execute(_COUNTED) if tallied.get(row[0]) != list(row[1:])]
    conn.executemany("INSERT OR IGNORE INTO tallies (prompt_id) VALUES (?)", [r[:1] for r in wrong])
    conn.executemany(
        "UPDATE tallies SET pending = ?2, leased = ?3, succeeded = ?4, failed = ?5, cancelled = ?6,"
        " removed = ?7 WHERE prompt_id = ?1",
        wrong,
    )
    return len(wrong)


def recount_in_passing(conn: sqlite3.Connection) -> int:
    """Do the same at the start of a run, where the counts are not proven at less cost.

    No request is ever deleted. So a file of millions of rows is as it says when it has as many as
    their highest number, and none is left of a prompt that says so.
    """
    (newest,) = conn.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()
    if newest > RECOUNTED_AT_MOST and _is_proven(conn, newest):
        return 0
    return recount(conn)


def _is_proven(conn: sqlite3.Connection, newest: int) -> bool:
    (tallied,) = conn.execute(
        "SELECT coalesce(sum(pending + leased + succeeded + failed + cancelled + removed), 0)"
        " + (SELECT count(*) FROM requests INDEXED BY requests_superseded"
        " WHERE superseded = 1 AND state <> 'leased') FROM tallies"
    ).fetchone()
    hidden = conn.execute(
        "SELECT 1 FROM prompts LEFT JOIN tallies ON prompt_id = prompts.id"
        " WHERE coalesce(pending, 0) <= 0 AND EXISTS (SELECT 1 FROM requests"
        " INDEXED BY requests_fresh WHERE prompt_id = prompts.id"
        " AND state = 'pending' AND due_at_ms = 0)"
    ).fetchone()
    return tallied == newest and hidden is None


def mend(conn: sqlite3.Connection, schema: Iterable[tuple[str, str, str]]) -> list[str]:
    """Mend what can be; return what was done, in words. To be called inside a transaction.

    Args:
        conn: the ledger.
        schema: type, name and text of each index and trigger that a file of this version has.

    """
    done = [f"{kind} {name} made again" for kind, name in _made_again(conn, schema)]
    conn.execute("REINDEX")
    for what, statement in _HANGING:
        if count := conn.execute(statement).rowcount:
            done.append(f"{count} {what}")
    if wrong := recount(conn):
        done.append(f"the counts of {count_of(wrong, 'prompt')} were wrong")
    return done


_ORPHANS = "word_id NOT IN (SELECT id FROM words)"
_HANGING = (
    (
        "requests were in flight without an attempt: pending again",
        (
            "UPDATE requests SET due_at_ms = 0, cancelling = 0,"
            " state = iif(superseded = 0 AND removed_at_ms IS NULL, 'pending', 'cancelled')"
            " WHERE state = 'leased' AND NOT EXISTS (SELECT 1 FROM attempts"
            " WHERE request_id = requests.id AND finished_at_ms IS NULL)"
        ),
    ),
    (
        "requests were due at no time: due now",
        (
            "UPDATE requests SET due_at_ms = 0 WHERE state = 'pending'"
            " AND (due_at_ms < 0 OR due_at_ms > 253402300799999)"
        ),
    ),
    (
        "requests have no word any more: cancelled",
        f"UPDATE requests SET state = 'cancelled' WHERE state = 'pending' AND {_ORPHANS}",
    ),
)


def _made_again(
    conn: sqlite3.Connection, schema: Iterable[tuple[str, str, str]]
) -> list[tuple[str, str]]:
    there = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema")}
    lacking = [(kind, name, sql) for kind, name, sql in schema if name not in there]
    for _, _, sql in lacking:
        conn.execute(sql)
    return [(kind, name) for kind, name, _ in lacking]


def not_as_made(what: str) -> CrawlerError:
    """Return the error for a row or an index that somebody has taken away."""
    return CrawlerError(
        "the database is not as this program keeps it",
        what,
        "crawler check tells what is broken; crawler check --repair restores what can be computed",
        Exit.UNEXPECTED,
    )
