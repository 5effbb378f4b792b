"""The promises of the file, put to the test.

Rule: nothing here knows what is promised. Users run it with ``crawler check``, and so does every
test that torments the program.
"""

import sqlite3
from typing import NamedTuple

from crawler.ledger.invariants import INVARIANTS


class Finding(NamedTuple):
    """What the check of an invariant has found: how many rows break it, and some of them."""

    name: str
    promise: str
    broken: int
    examples: list[str]


def check(conn: sqlite3.Connection) -> list[Finding]:
    """Look for what breaks an invariant, and for damage of the file itself."""
    damage = [row for (row,) in conn.execute("PRAGMA quick_check") if row != "ok"]
    dangling = [
        f"{table} row {rowid}" for table, rowid, *_ in conn.execute("PRAGMA foreign_key_check")
    ]
    return [
        _finding("file_is_sound", "the file is a sound SQLite database", damage),
        _finding("references_hold", "every row that another names is there", dangling),
        *(
            _finding(
                invariant.name,
                invariant.promise,
                [example for (example,) in conn.execute(invariant.sql)],
            )
            for invariant in INVARIANTS
        ),
    ]


def _finding(name: str, promise: str, broken: list[str]) -> Finding:
    return Finding(name, promise, len(broken), broken[:5])
