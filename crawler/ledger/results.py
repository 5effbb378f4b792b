"""What became of items: results, and every attempt in the life of a request.

Rule: short reads that never write. The join of a request with its item, its prompt, its last
attempt and its response stands once, in the view `request_details` of the schema; which of a word's
answers counts, in `list_details`.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from crawler.ledger.intake import Prompt, prompt_by_id
from crawler.ledger.items import KEY, identities, shown_key
from crawler.ledger.json_columns import fields_of
from crawler.ledger.standing import standing_requests, versions


class TimelineRow(NamedTuple):
    """One attempt in the life of a request; all of ``attempt`` is None before the first."""

    request_id: int
    prompt: str
    version: int
    provider: str
    model: str
    limit: str
    state: str
    due_at_ms: int
    number: int | None
    started_at_ms: int | None
    finished_at_ms: int | None
    outcome: str | None
    reason: str | None
    text: str | None
    draft: str | None
    """What the model said where that was no good."""
    superseded: int
    """1: it was asked again by a newer request."""
    removed_at_ms: int | None


class Ended(NamedTuple):
    """A word, and the last call about it that has ended."""

    word: str
    prompt: str
    finished_at_ms: int
    outcome: str
    said: str | None
    """The answer, or else why there is none."""


class Result(NamedTuple):
    """What became of a word.

    ``text`` is None where there is no answer; then ``reason`` says why and ``state`` whether it is
    still to be asked (``pending``) or not (``failed``, ``cancelled``). Where it is asked again, the
    answer before counts until the new one is there, whatever ``state`` says.
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
    stale: bool = False
    """Its prompt or its word has changed since it was answered."""
    key: str = ""
    """What tells the word from others of the same text, as it is shown; empty: nothing but that."""
    review: str | None = None
    """What a person has marked the answer as: ``good`` or ``bad``."""
    note: str | None = None
    """Why."""


def timeline(conn: sqlite3.Connection, word: str) -> list[TimelineRow]:
    """Return every attempt made for a word, oldest first, and its requests without any."""
    rows = conn.execute(
        "SELECT requests.id, prompts.name, version, provider, model, limits.name, state, due_at_ms,"
        " attempts.number, started_at_ms, finished_at_ms, outcome, reason, responses.text,"
        " drafts.text, requests.superseded, requests.removed_at_ms"
        " FROM words JOIN requests ON requests.id IN ("
        " SELECT id FROM requests WHERE word_id = words.id AND superseded = 0"
        " UNION ALL SELECT id FROM requests WHERE word_id = words.id AND superseded = 1)"
        " JOIN prompts ON prompts.id = requests.prompt_id"
        " JOIN limits ON limits.id = prompts.limit_id"
        " LEFT JOIN attempts ON attempts.request_id = requests.id"
        " LEFT JOIN responses ON responses.request_id = requests.id"
        " AND responses.number = attempts.number"
        " LEFT JOIN drafts ON drafts.request_id = attempts.request_id"
        " AND drafts.number = attempts.number"
        " WHERE coalesce(words.key, words.text) IN (SELECT value FROM json_each(?))"
        " ORDER BY requests.id, attempts.number",
        (json.dumps(identities(conn, word)),),
    )
    return list(map(TimelineRow._make, rows))


def last_ended(conn: sqlite3.Connection, most: int) -> tuple[list[Ended], int]:
    """Return the words whose calls ended last, the newest first, and how many there are in all.

    Of a word that a prompt was asked about several times it is the last call. Some calls for each
    word are looked at, those that started last.
    """
    limits = conn.execute("SELECT id FROM limits").fetchall()
    newest: dict[int, Ended] = {}
    for (limit_id,) in limits:
        calls = conn.execute(_NEWEST, (limit_id, most * _CALLS_LOOKED_AT)).fetchall()
        for request_id, *ended in calls:
            newest.setdefault(request_id, Ended._make(ended))
    found = sorted(newest.values(), key=lambda row: row.finished_at_ms, reverse=True)
    (total,) = conn.execute(
        "SELECT coalesce(sum(pending + leased + succeeded + failed + cancelled), 0)"
        " FROM tallies JOIN prompts ON prompts.id = prompt_id WHERE current = 1"
    ).fetchone()
    return found[:most], total


_CALLS_LOOKED_AT = 20
_NEWEST = (
    "SELECT newest.request_id, words.text, prompts.name, finished_at_ms, outcome,"
    " coalesce(responses.text, reason) FROM (SELECT * FROM attempts INDEXED BY attempts_started"
    " WHERE limit_id = ? AND finished_at_ms IS NOT NULL ORDER BY started_at_ms DESC LIMIT ?)"
    " AS newest JOIN requests ON requests.id = newest.request_id"
    " JOIN words ON words.id = word_id JOIN prompts ON prompts.id = prompt_id"
    " LEFT JOIN responses ON responses.request_id = newest.request_id"
    " AND responses.number = newest.number ORDER BY newest.started_at_ms DESC"
)


def results_of(conn: sqlite3.Connection, request_ids: Sequence[int]) -> Iterator[Result]:
    """Yield the words of standing requests in their order, with the answers that count."""
    rows = conn.execute(
        f"SELECT {_RESULT}, stale, review, note"
        " FROM (SELECT value AS id FROM json_each(?)) AS listed"
        " CROSS JOIN list_details ON standing_id = listed.id",
        (json.dumps(list(request_ids)),),
    )
    return map(_result, rows)


def results(conn: sqlite3.Connection, prompt_id: int) -> Iterator[Result]:
    """Yield the words on the list of a prompt in its order, with the answers that count.

    Of whichever version: see `Result.stale`.
    """
    rows = conn.execute(
        # The ids alone are sorted: texts are read in the order in which they are needed.
        f"SELECT {_RESULT}, stale, review, note FROM (SELECT id FROM requests WHERE superseded = 0"
        " AND removed_at_ms IS NULL AND prompt_id IN (SELECT value FROM json_each(?))"
        " ORDER BY coalesce(place, id)) AS listed"
        " CROSS JOIN list_details ON standing_id = listed.id",
        (json.dumps(versions(conn, prompt_id)),),
    )
    return map(_result, rows)


def result(conn: sqlite3.Connection, prompt_id: int, word: str) -> Result:
    """Return what became of one word on the list of a prompt as it was asked last."""
    [request] = standing_requests(conn, prompt_id, [word])
    return _result(
        conn.execute(
            f"SELECT {_RESULT}, 0, NULL, NULL FROM request_details WHERE request_id = ?",
            (request.id,),
        ).fetchone()
    )


def answer(conn: sqlite3.Connection, prompt_id: int, word: str) -> Result | None:
    """Return the answer about a word that counts; None where there is none, or not yet."""
    for request in standing_requests(conn, prompt_id, [word]):
        found = conn.execute(
            f"SELECT {_RESULT}, stale, review, note FROM list_details WHERE standing_id = ?",
            (request.id,),
        ).fetchone()
        return _result(found) if found[1] is not None else None
    return None


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


def field_names(conn: sqlite3.Connection, prompt_id: int) -> list[str]:
    """Return the names of all fields that the words on a prompt's list have, as they appear."""
    rows: list[tuple[Any]] = conn.execute(
        "SELECT json_each.key FROM requests JOIN words ON words.id = word_id,"
        " json_each(words.fields)"
        " WHERE superseded = 0 AND removed_at_ms IS NULL"
        " AND prompt_id IN (SELECT value FROM json_each(?)) AND words.fields IS NOT NULL"
        " GROUP BY json_each.key ORDER BY min(words.id), min(json_each.id)",
        (json.dumps(versions(conn, prompt_id)),),
    ).fetchall()
    return [name for (name,) in rows]


_RESULT = (
    "word, text, state, reason, provider, model, tokens_in, tokens_out, attempts, prompt,"
    " version, key, fields, truncated, finished_at_ms"
)


def _result(row: Sequence[Any]) -> Result:
    *plain, key, fields, truncated, finished_at_ms, stale, review, note = row
    known = fields_of(fields, plain[0])
    shown = "" if key is None else shown_key(KEY + key)
    return Result._make(
        (*plain, known, truncated == 1, finished_at_ms, stale == 1, shown, review, note)
    )
