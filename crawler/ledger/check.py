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


GUARDS = frozenset(
    "attempts_are_kept attempts_doubted attempts_end_once attempts_insert attempts_lease"
    " attempts_open"
    " attempts_started attempts_throttled prompts_are_immutable prompts_current prompts_insert"
    " requests_are_kept requests_are_not_replaced requests_cancelled requests_failed requests_fresh"
    " requests_insert requests_keep_their_identity requests_transition requests_waiting"
    " responses_are_kept responses_never_change runs_live words_keep_their_identity"
    " limits_are_kept limits_are_not_replaced prompts_are_kept"
    " prompts_are_not_replaced requests_have_sane_times"
    " requests_changed requests_go_on requests_leave_the_list requests_of_word"
    " requests_in_order requests_placed requests_removed requests_replace_answers"
    " requests_superseded"
    " responses_are_not_replaced runs_are_kept tallies_are_kept words_are_kept"
    " words_are_not_replaced"
    " words_by_key words_change_by_revisions words_keyed"
    " revisions_are_kept revisions_are_not_replaced revisions_by_key revisions_never_change"
    " reviews_are_kept reviews_are_not_replaced reviews_never_change reviews_of_answer".split()
)
"""The triggers and indexes that keep others from breaking a promise."""


TABLES = frozenset(
    "attempts clocks drafts key_columns limit_changes limits migrations owners prompt_columns"
    " prompt_views prompts requests responses reviews revisions runs tallies words".split()
)


def check(conn: sqlite3.Connection) -> list[Finding]:
    """Look for what breaks an invariant, and for damage of the file itself."""
    there = set(_broken(conn, "SELECT name FROM sqlite_schema"))
    damage = [row for row in _broken(conn, "PRAGMA quick_check") if row != "ok"]
    dangling = _broken(conn, "SELECT \"table\" || ' row ' || rowid FROM pragma_foreign_key_check")
    return [
        _finding("file_is_sound", "the file is a sound SQLite database", damage),
        _finding("references_hold", "every row that another names is there", dangling),
        _finding(
            "guards_are_there",
            "the tables, and the triggers and indexes that guard them, are there",
            sorted((TABLES | GUARDS) - there),
        ),
        *(_finding(known.name, known.promise, _broken(conn, known.sql)) for known in INVARIANTS),
    ]


def _broken(conn: sqlite3.Connection, sql: str) -> list[str]:
    """Return what a question finds. What stands in its way (a page, a table) is found, too."""
    found: list[str] = []
    try:
        found += [str(example) for (example,) in conn.execute(sql)]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        found.append(f"it can't be asked: {error}")
    return found


def _finding(name: str, promise: str, broken: list[str]) -> Finding:
    return Finding(name, promise, len(broken), broken[:5])
