"""What people think of answers: marks, one row each.

Rule: append-only. A mark belongs to an answer; the newest counts, and a new answer has none.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Literal, NamedTuple

Mark = Literal["good", "bad", "none"]


class Before(NamedTuple):
    """An answer that counts, and its mark."""

    standing_id: int
    mark: Mark
    note: str | None


def marks(conn: sqlite3.Connection, request_ids: Sequence[int]) -> list[Before]:
    """Return the answers that count of standing requests, in their order, with their marks."""
    rows = conn.execute(
        "SELECT standing_id, coalesce(review, 'none'), iif(review IS NULL, NULL, note)"
        " FROM json_each(?) CROSS JOIN list_details ON standing_id = value WHERE text NOT NULL",
        (json.dumps(list(request_ids)),),
    )
    return list(map(Before._make, rows))


def review(
    conn: sqlite3.Connection,
    request_ids: Sequence[int],
    mark: Mark,
    note: str | None,
    by: str,
    now_ms: int,
) -> int:
    """Mark the answers that count of standing requests; return how many there are."""
    if not request_ids:
        return 0
    return conn.executemany(
        "INSERT INTO reviews (request_id, mark, note, by, at_ms)"
        " SELECT request_id, ?, ?, ?, ? FROM list_details WHERE standing_id = ? AND text NOT NULL",
        [(mark, note, by, now_ms, request_id) for request_id in request_ids],
    ).rowcount
