"""Which request of a word stands: asked again, carried to another version, removed, brought back.

Rule: a request is one asking, and succeeds once at the most. Of a word and the name of a prompt one
request is standing. To ask again is a new one in its place; what it has answered counts until that
has an answer, too (`requests.replaces`). Nothing is deleted.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Removed(NamedTuple):
    """What taking words off a list has done."""

    requests: int
    in_flight: int
    """Calls that had left already: their answers are kept, but they are not tried again."""


class Standing(NamedTuple):
    """The newest request of a word."""

    id: int
    word_id: int
    prompt_id: int
    state: str
    removed_at_ms: int | None


_STANDING = (
    "SELECT requests.id, word_id, prompt_id, state, removed_at_ms FROM json_each(?1) AS listed"
    " CROSS JOIN words ON coalesce(words.key, words.text) = listed.value"
    " CROSS JOIN requests INDEXED BY requests_of_word ON word_id = words.id AND superseded = 0"
    " WHERE prompt_id IN (SELECT value FROM json_each(?2))"
)
_AFRESH = "state = 'pending', due_at_ms = 0, failures = 0, no_answers = 0"
_VERSIONS = (
    "SELECT id FROM prompts WHERE name = (SELECT name FROM prompts WHERE id = ?)"
    " ORDER BY current DESC, version DESC"
)


def versions(conn: sqlite3.Connection, prompt_id: int) -> list[int]:
    """Return the ids of all versions of a prompt, the current one first."""
    return [version for (version,) in conn.execute(_VERSIONS, (prompt_id,))]


def ask_again(conn: sqlite3.Connection, prompt_id: int, request_ids: Sequence[int]) -> int:
    """Have standing requests that have ended asked again, by this version; return how many.

    What has no answer of this version's is pending again, with a new retry budget; what has one, or
    was asked by another version, is replaced.
    """
    again = _each(
        conn,
        f"UPDATE requests SET {_AFRESH} WHERE id = ? AND superseded = 0 AND removed_at_ms IS NULL"
        f" AND prompt_id = {prompt_id:d} AND (state = 'failed' OR state = 'cancelled')",
        request_ids,
    )
    # A call in flight that was not to be tried again may be.
    _each(
        conn,
        "UPDATE requests SET cancelling = 0 WHERE id = ? AND state = 'leased' AND superseded = 0"
        " AND removed_at_ms IS NULL",
        request_ids,
    )
    return again + _replace(conn, prompt_id, request_ids)


def ask_by(conn: sqlite3.Connection, prompt_id: int, texts: Iterable[str]) -> None:
    """Have this version ask about words of its list that others have asked about."""
    others = [
        request.id
        for request in standing_requests(conn, prompt_id, texts)
        if request.prompt_id != prompt_id
    ]
    _replace(conn, prompt_id, others)


def standing_requests(
    conn: sqlite3.Connection, prompt_id: int, texts: Iterable[str]
) -> list[Standing]:
    """Return the standing requests of words on the list of a prompt, also of those off it."""
    known = json.dumps(versions(conn, prompt_id))
    rows = conn.execute(_STANDING, (json.dumps(list(dict.fromkeys(texts))), known))
    return list(map(Standing._make, rows))


def carry_on(conn: sqlite3.Connection, prompt_id: int) -> int:
    """Have a version ask what other versions of its prompt are still to ask; return how many."""
    carried = 0
    for other in versions(conn, prompt_id):
        if other == prompt_id:
            continue
        carried += conn.execute(
            "UPDATE requests INDEXED BY requests_fresh SET prompt_id = ? WHERE state = 'pending'"
            " AND due_at_ms = 0 AND attempts = 0 AND prompt_id = ?",
            (prompt_id, other),
        ).rowcount
        tried = [
            request_id
            for index, due in (("fresh", "due_at_ms = 0"), ("waiting", "due_at_ms > 0"))
            for (request_id,) in conn.execute(
                f"SELECT id FROM requests INDEXED BY requests_{index}"
                f" WHERE state = 'pending' AND {due} AND prompt_id = ?",
                (other,),
            )
        ]
        _each(conn, "UPDATE requests SET state = 'cancelled' WHERE id = ?", tried)
        carried += _replace(conn, prompt_id, tried)
    return carried


def let_answers_stand(
    conn: sqlite3.Connection, prompt_id: int, request_ids: Sequence[int] | None = None
) -> int:
    """Let the answers of a version stand that others have replaced; return how many.

    To be called for the version that is asked from now on, before it carries on: what another one
    was still to ask is cancelled where this one has answered it, and what is in flight goes on.

    ``request_ids``: only in the place of these standing requests; None: of all.
    """
    pairs = _answered_before(conn, prompt_id, request_ids)
    others = [standing for standing, _ in pairs]
    _each(
        conn, "UPDATE requests SET state = 'cancelled' WHERE id = ? AND state = 'pending'", others
    )
    _each(conn, "UPDATE requests SET superseded = 1 WHERE id = ?", others)
    return _each(
        conn, "UPDATE requests SET superseded = 0 WHERE id = ?", [mine for _, mine in pairs]
    )


def answered_before(conn: sqlite3.Connection, prompt_id: int) -> list[int]:
    """Return the standing requests in whose place `let_answers_stand` lets answers stand."""
    return [standing for standing, _ in _answered_before(conn, prompt_id, None)]


def _answered_before(
    conn: sqlite3.Connection, prompt_id: int, request_ids: Sequence[int] | None
) -> list[tuple[int, int]]:
    """Return standing requests, each with the newest answer of a version that it has replaced."""
    by_answer = (
        "requests AS mine INDEXED BY requests_superseded JOIN requests AS standing"
        " INDEXED BY requests_of_word ON standing.word_id = mine.word_id"
    )
    by_id = (
        "json_each(:ids) CROSS JOIN requests AS standing ON standing.id = json_each.value"
        " CROSS JOIN requests AS mine INDEXED BY requests_superseded"
        " ON mine.word_id = standing.word_id"
    )
    return conn.execute(
        f"SELECT standing.id, max(mine.id) FROM {by_answer if request_ids is None else by_id}"
        " AND standing.superseded = 0"
        " AND standing.prompt_id IN (SELECT value FROM json_each(:known))"
        " WHERE mine.superseded = 1 AND mine.prompt_id = :own AND mine.state = 'succeeded'"
        " AND standing.removed_at_ms IS NULL AND standing.state <> 'leased'"
        " AND standing.prompt_id <> :own GROUP BY standing.id",
        {
            "known": json.dumps(versions(conn, prompt_id)),
            "own": prompt_id,
            "ids": json.dumps(request_ids),
        },
    ).fetchall()


def remove(conn: sqlite3.Connection, request_ids: Sequence[int], now_ms: int) -> Removed:
    """Take words off the list of their prompt; what was still to be asked is cancelled."""
    _each(
        conn,
        "UPDATE requests SET state = 'cancelled' WHERE id = ? AND state = 'pending'",
        request_ids,
    )
    in_flight = _each(
        conn,
        "UPDATE requests SET cancelling = 1 WHERE id = ? AND state = 'leased'",
        request_ids,
    )
    removed = _each(
        conn,
        f"UPDATE requests SET removed_at_ms = {now_ms:d} WHERE id = ? AND removed_at_ms IS NULL"
        " AND superseded = 0",
        request_ids,
    )
    return Removed(removed, in_flight)


def removed_at(prompt: str, at_ms: int) -> str:
    """Return the query for the words that were taken off the list of a prompt at a time."""
    name = prompt.replace("'", "''")
    return (
        f"SELECT word FROM list_details WHERE prompt = '{name}' AND removed_at_ms = {at_ms:d}"
        " ORDER BY place"
    )


def bring_back(conn: sqlite3.Connection, prompt_id: int, texts: Iterable[str]) -> int:
    """Put removed words on the list of a prompt again; return how many.

    What was cancelled is pending again; what has an answer is not asked again.
    """
    ids = removed_requests(conn, prompt_id, texts)
    if not ids:
        return 0
    current_id = versions(conn, prompt_id)[0]
    _each(conn, "UPDATE requests SET removed_at_ms = NULL WHERE id = ?", ids)
    let_answers_stand(conn, current_id, ids)
    _each(
        conn,
        f"UPDATE requests SET {_AFRESH} WHERE id = ? AND state = 'cancelled' AND superseded = 0",
        ids,
    )
    _each(conn, "UPDATE requests SET cancelling = 0 WHERE id = ? AND state = 'leased'", ids)
    carry_on(conn, current_id)
    return len(ids)


def removed_requests(conn: sqlite3.Connection, prompt_id: int, texts: Iterable[str]) -> list[int]:
    """Return the standing requests of those of some words that are off the list of a prompt."""
    known = json.dumps(versions(conn, prompt_id))
    some = conn.execute(
        "SELECT 1 FROM json_each(?) CROSS JOIN requests INDEXED BY requests_removed"
        " ON prompt_id = value WHERE removed_at_ms NOT NULL LIMIT 1",
        (known,),
    ).fetchone()
    if some is None:
        return []
    return [
        request.id
        for request in standing_requests(conn, prompt_id, texts)
        if request.removed_at_ms is not None
    ]


def _replace(conn: sqlite3.Connection, prompt_id: int, request_ids: Sequence[int]) -> int:
    """Put a new request of a version in the place of each that has ended; return how many."""
    replaced = 0
    for request_id in request_ids:
        ended = conn.execute(
            "UPDATE requests SET superseded = 1 WHERE id = ? AND superseded = 0"
            " AND removed_at_ms IS NULL AND state <> 'pending' AND state <> 'leased'",
            (request_id,),
        ).rowcount
        if ended:
            conn.execute(
                "INSERT INTO requests (word_id, prompt_id, replaces, place) SELECT word_id, ?,"
                " CASE state WHEN 'succeeded' THEN id ELSE replaces END, coalesce(place, id)"
                " FROM requests WHERE id = ?",
                (prompt_id, request_id),
            )
        replaced += ended
    return replaced


def _each(conn: sqlite3.Connection, statement: str, request_ids: Sequence[int]) -> int:
    """Execute a statement for each request; return how many rows it has changed."""
    if not request_ids:
        return 0
    return conn.executemany(statement, [(request_id,) for request_id in request_ids]).rowcount
