"""Which words of a prompt's list are meant: the one reading of selectors for every command.

Rule: short reads that never write. What is found by its state is found in an index of its own.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Literal, NamedTuple

from crawler.ledger.items import shown_key
from crawler.ledger.standing import versions
from crawler.states import RequestState

NEIGHBOURS = 50
"""Words next to one that is not known, in the order of letters, that are looked at."""


class Selectors(NamedTuple):
    """Which words; all that are said must hold."""

    words: Sequence[str] | None = None
    """Their texts; None: any."""
    states: Sequence[RequestState] = ()
    """Empty: any."""
    is_stale: bool = False
    """The answer that counts is of another version than the current one, or of what has changed."""
    review: Literal["good", "bad", "none"] | None = None
    """What the answer that counts is marked as."""
    first: int | None = None
    """The first so many in the order of the list; None: all."""


class Chosen(NamedTuple):
    """A standing request."""

    id: int
    state: RequestState


class _Part(NamedTuple):
    """A question for some of the requests."""

    source: str
    condition: str
    order: str


def chosen(conn: sqlite3.Connection, prompt_id: int, selectors: Selectors) -> list[Chosen]:
    """Return the requests on the list of a prompt that are meant, in the order of the list.

    Of the first so many no more are read than that, where they are found in their order.
    """
    known = versions(conn, prompt_id)
    if selectors.words is not None:
        found = _read(conn, [_named(known, selectors)], selectors)
    else:
        standing = [version for version in known if version in _with_requests(conn)]
        found = _read(conn, _placed(known, standing, selectors), selectors)
        is_full = selectors.first is not None and len(found) == selectors.first
        before = f" AND requests.id < {found[-1].place}" if is_full else ""
        found += _read(conn, _unplaced(known, standing, selectors, before), selectors)
    found.sort(key=lambda row: row.place)
    return [Chosen(row.id, RequestState(row.state)) for row in found[: selectors.first]]


class _Found(NamedTuple):
    id: int
    state: str
    place: int


def _read(conn: sqlite3.Connection, parts: Iterable[_Part], selectors: Selectors) -> list[_Found]:
    """Return what some questions find together, the first so many of it, in the list's order."""
    first = "" if selectors.first is None else f" LIMIT {selectors.first:d}"
    asked = " UNION ALL ".join(
        "SELECT * FROM (SELECT requests.id AS id, state, coalesce(place, requests.id) AS nth"
        f" FROM {source} WHERE superseded = 0 AND removed_at_ms IS NULL AND {condition}"
        f" ORDER BY {order}{first})"
        for source, condition, order in parts
    )
    rows = conn.execute(
        f"SELECT DISTINCT id, state, nth FROM ({asked or _NOTHING}) ORDER BY nth{first}",
        {"words": json.dumps(list(selectors.words or ())), "review": selectors.review},
    )
    return list(map(_Found._make, rows))


def _with_requests(conn: sqlite3.Connection) -> set[int]:
    """Return the versions of prompts that have standing requests."""
    rows = conn.execute(
        "SELECT prompt_id FROM tallies WHERE pending + leased + succeeded + failed + cancelled > 0"
    )
    return {version for (version,) in rows}


_NAMED = (
    "SELECT words.id FROM json_each(:words) AS listed"
    " CROSS JOIN words ON coalesce(words.key, words.text) = listed.value UNION"
    " SELECT words.id FROM json_each(:words) AS listed CROSS JOIN words INDEXED BY words_keyed"
    " ON words.text = listed.value AND words.key NOT NULL"
)
"""The words of a key or a text that is named: several items may have one text."""
_NOTHING = "SELECT 0 AS id, '' AS state, 0 AS nth WHERE 0"


def _wanted(known: Sequence[int], selectors: Selectors) -> str:
    states = " OR ".join(f"state = '{state}'" for state in selectors.states) or "1"
    return f"({states}){_of_answer(known[1:], selectors)}"


def _named(known: Sequence[int], selectors: Selectors) -> _Part:
    """Return what asks for the words that are named."""
    source = (
        f"({_NAMED}) AS named CROSS JOIN requests INDEXED BY requests_of_word ON word_id = named.id"
    )
    of_versions = f"prompt_id IN ({', '.join(map(str, known))})"
    return _Part(source, f"{of_versions} AND {_wanted(known, selectors)}", "nth")


def _placed(known: Sequence[int], standing: Sequence[int], selectors: Selectors) -> Iterator[_Part]:
    """Yield what asks for those that stand in the place of others: they have an index."""
    for version in standing:
        condition = f"place NOT NULL AND prompt_id = {version} AND {_wanted(known, selectors)}"
        yield _Part("requests INDEXED BY requests_placed", condition, "requests.place")


def _unplaced(
    known: Sequence[int], standing: Sequence[int], selectors: Selectors, before: str
) -> Iterator[_Part]:
    """Yield what asks for the others."""
    for version in standing:
        of_version = f"prompt_id = {version} AND {_wanted(known, selectors)}{before}"
        for source, found in _sources(selectors, is_current=version == known[0]):
            yield _Part(source, f"place IS NULL AND {of_version} AND {found}", "requests.id")


def _of_answer(older: Sequence[int], selectors: Selectors) -> str:
    """Return the condition for the answer that counts; empty where any will do."""
    answer = "iif(requests.state = 'succeeded', requests.id, requests.replaces)"
    stale = (
        " AND EXISTS (SELECT 1 FROM requests AS old WHERE old.state = 'succeeded'"
        f" AND (old.prompt_id IN ({', '.join(map(str, older))}) OR old.changed = 1)"
        f" AND old.id = {answer})"
    )
    review = (
        f" AND {answer} NOT NULL AND coalesce((SELECT mark FROM reviews"
        f" WHERE request_id = {answer} ORDER BY reviews.id DESC LIMIT 1), 'none') = :review"
    )
    return (stale if selectors.is_stale else "") + (review if selectors.review else "")


def _sources(selectors: Selectors, *, is_current: bool) -> Sequence[tuple[str, str]]:
    """Return where requests are found that stand in no other's place, and how."""
    if selectors.review in ("good", "bad"):
        marked = "(SELECT DISTINCT request_id FROM reviews WHERE mark = :review)"
        return [(f"{marked} AS marked CROSS JOIN requests ON requests.id = marked.request_id", "1")]
    if selectors.is_stale and is_current:
        return [("requests INDEXED BY requests_changed", "changed = 1")]
    if not selectors.states:
        return [("requests", "1")]
    return [part for state in dict.fromkeys(selectors.states) for part in _FOUND_BY[state]]


_FOUND_BY = {
    RequestState.PENDING: [
        ("requests INDEXED BY requests_fresh", "state = 'pending' AND due_at_ms = 0"),
        ("requests INDEXED BY requests_waiting", "state = 'pending' AND due_at_ms > 0"),
    ],
    RequestState.LEASED: [
        (
            "attempts INDEXED BY attempts_lease CROSS JOIN requests ON requests.id = request_id",
            "finished_at_ms IS NULL AND state = 'leased'",
        )
    ],
    RequestState.SUCCEEDED: [("requests", "state = 'succeeded'")],
    RequestState.FAILED: [("requests INDEXED BY requests_failed", "state = 'failed'")],
    RequestState.CANCELLED: [("requests INDEXED BY requests_cancelled", "state = 'cancelled'")],
}


def names(conn: sqlite3.Connection, request_ids: Iterable[int]) -> list[str]:
    """Return the words of requests as a person names them, in their order."""
    rows = conn.execute(
        "SELECT text, words.key FROM json_each(?) CROSS JOIN requests ON requests.id = value"
        " CROSS JOIN words ON words.id = word_id",
        (json.dumps(list(request_ids)),),
    )
    return [shown_key(key) or text for text, key in rows]


def unknown(conn: sqlite3.Connection, words: Sequence[str]) -> list[str]:
    """Return those of some words that are in no list."""
    rows = conn.execute(
        "SELECT value FROM json_each(?) AS listed WHERE NOT EXISTS (SELECT 1 FROM words"
        " WHERE coalesce(words.key, words.text) = listed.value) AND NOT EXISTS (SELECT 1 FROM words"
        " INDEXED BY words_keyed WHERE words.text = listed.value AND words.key NOT NULL)",
        (json.dumps(list(words)),),
    )
    return [text for (text,) in rows]


_TEXT = "coalesce(key, text)"


def nearest(conn: sqlite3.Connection, text: str) -> str | None:
    """Return the word that is likely to be meant, of those next to it in the order of letters."""
    around = [
        other
        for order in (f"> ?1 ORDER BY {_TEXT}", f"< ?1 ORDER BY {_TEXT} DESC")
        for (other,) in conn.execute(
            f"SELECT text FROM words WHERE {_TEXT} {order} LIMIT ?2", (text, NEIGHBOURS)
        )
    ]
    near = get_close_matches(text, around, n=1)
    return near[0] if near else None
