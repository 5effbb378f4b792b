"""The promises of the file as questions that must have no answer.

Rule: an invariant is a name, a sentence, and SQL that finds what breaks it. Users run them with
``crawler check``, and so does every test that torments the program.
"""

import sqlite3
from typing import NamedTuple


class Invariant(NamedTuple):
    """A promise; ``sql`` selects what breaks it."""

    name: str
    promise: str
    sql: str


class Finding(NamedTuple):
    """What the check of an invariant has found: how many rows break it, and some of them."""

    name: str
    promise: str
    broken: int
    examples: list[str]


INVARIANTS = (
    Invariant(
        "succeeded_has_response",
        "a request has succeeded exactly if it has a response",
        "SELECT 'request ' || requests.id FROM requests"
        " LEFT JOIN responses ON responses.request_id = requests.id"
        " WHERE (state = 'succeeded') <> (responses.request_id IS NOT NULL)",
    ),
    Invariant(
        "response_has_attempt",
        "a response was brought by an attempt that succeeded, the last of its request",
        "SELECT 'request ' || responses.request_id FROM responses"
        " LEFT JOIN attempts ON attempts.request_id = responses.request_id"
        " AND attempts.number = responses.number"
        " LEFT JOIN requests ON requests.id = responses.request_id"
        " WHERE outcome IS NOT 'succeeded' OR requests.attempts IS NOT responses.number",
    ),
    Invariant(
        "one_success",
        "a request has at most one attempt that succeeded",
        "SELECT 'request ' || request_id FROM attempts WHERE outcome = 'succeeded'"
        " GROUP BY request_id HAVING count(*) > 1",
    ),
    Invariant(
        "attempts_without_gaps",
        "the attempts of a request are numbered 1 to n, and it knows n",
        "SELECT 'request ' || requests.id FROM requests LEFT JOIN"
        " (SELECT request_id, count(*) AS n, max(number) AS last FROM attempts GROUP BY 1) AS made"
        " ON made.request_id = requests.id"
        " WHERE requests.attempts <> coalesce(n, 0) OR requests.attempts <> coalesce(last, 0)",
    ),
    Invariant(
        "leased_is_open",
        "a request is leased exactly while an attempt of it is open",
        "SELECT 'request ' || requests.id FROM requests LEFT JOIN attempts"
        " ON attempts.request_id = requests.id AND finished_at_ms IS NULL"
        " WHERE (state = 'leased') <> (attempts.request_id IS NOT NULL)",
    ),
    Invariant(
        "open_has_run",
        "an open attempt belongs to a run that has not ended",
        "SELECT 'request ' || request_id || ' attempt ' || number FROM attempts"
        " JOIN runs ON runs.id = run_id WHERE finished_at_ms IS NULL AND ended_at_ms IS NOT NULL",
    ),
    Invariant(
        "failed_has_cause",
        "a failed request ended with a failure on record",
        "SELECT 'request ' || requests.id FROM requests LEFT JOIN attempts"
        " ON attempts.request_id = requests.id AND attempts.number = requests.attempts"
        " WHERE state = 'failed' AND (outcome IS NULL OR outcome NOT IN"
        " ('transient', 'rejected', 'blocked', 'abandoned'))",
    ),
    Invariant(
        "starts_are_counted",
        "each start has a number of its own among those of its limit, which knows the last",
        "SELECT 'limit ' || limit_id || ' start ' || nth FROM attempts WHERE nth > 0"
        " GROUP BY limit_id, nth HAVING count(*) > 1 UNION ALL"
        " SELECT 'limit ' || limits.id FROM limits WHERE started <"
        " (SELECT max(nth) FROM attempts WHERE limit_id = limits.id)",
    ),
    Invariant(
        "starts_are_in_order",
        "whoever has the higher number did not start earlier",
        "SELECT 'request ' || request_id FROM (SELECT request_id, started_at_ms,"
        " lag(started_at_ms) OVER (PARTITION BY limit_id ORDER BY nth) AS before_ms"
        " FROM attempts WHERE nth > 0) WHERE before_ms > started_at_ms",
    ),
    Invariant(
        "tallies_agree",
        "the counts of a prompt agree with its requests",
        "SELECT 'prompt ' || prompt_id FROM tallies LEFT JOIN ("
        " SELECT prompt_id AS id, sum(state = 'pending') AS p, sum(state = 'leased') AS l,"
        " sum(state = 'succeeded') AS s, sum(state = 'failed') AS f, sum(state = 'cancelled') AS c"
        " FROM requests GROUP BY prompt_id) AS counted ON counted.id = prompt_id"
        " WHERE pending <> coalesce(p, 0) OR leased <> coalesce(l, 0)"
        " OR succeeded <> coalesce(s, 0) OR failed <> coalesce(f, 0)"
        " OR cancelled <> coalesce(c, 0)",
    ),
)


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
