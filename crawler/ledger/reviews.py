"""What people think of answers: marks, one row each.

Rule: append-only. A mark belongs to an answer; the newest counts, and a new answer has none.
"""

import sqlite3
from collections.abc import Sequence
from typing import Literal

Mark = Literal["good", "bad", "none"]


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
