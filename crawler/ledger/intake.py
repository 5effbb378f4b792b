"""What comes in: words, prompts, and the requests that join them.

Rule: everything here is idempotent. Adding what is there changes nothing, and a prompt that
differs in anything that shapes an answer is a new version. A new version asks what was still to be
asked; what was answered stays (crawler/ledger/standing.py).
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from crawler.answer_schema import SCHEMA
from crawler.errors import CrawlerError, Exit, require_name
from crawler.ledger.items import fill_in
from crawler.ledger.json_columns import DEEPEST, fields_of, is_too_deep, json_object
from crawler.ledger.prompt_views import drop_view, note_columns, put_view
from crawler.ledger.repair import not_as_made
from crawler.ledger.standing import (
    bring_back,
    carry_on,
    let_answers_stand,
    removed_requests,
    versions,
)
from crawler.protocol import Word


class PromptSpec(NamedTuple):
    """What makes a version of a prompt: the identity of the answers that it gets."""

    name: str
    template: str
    provider: str
    model: str
    params: Mapping[str, Any]


class Prompt(NamedTuple):
    """A row of ``prompts``."""

    id: int
    name: str
    version: int
    template: str
    provider: str
    model: str
    params: Mapping[str, Any]
    limit: str
    current: bool
    removed: bool = False


class Added(NamedTuple):
    """What adding a batch of words has changed."""

    words: int
    """Words that were not known."""
    requests: int
    """Words that this prompt had not been asked to ask about."""
    other_fields: int
    """Known words whose fields were others: they keep what they had, or get what they lacked."""
    removed: int = 0
    """Words that were taken off the list of this prompt: they stay so, or are back if typed."""


def put_prompt(
    conn: sqlite3.Connection, spec: PromptSpec, limit_id: int, now_ms: int
) -> tuple[Prompt, bool]:
    """Make the version that the spec describes the current one of its name, and its view with it.

    It asks what other versions were still to ask, and what it has answered itself counts again.
    Returns it, and whether it is new. Raises CrawlerError where it can't have a view.
    """
    require_name(spec.name)
    if is_too_deep(spec.params):
        raise CrawlerError(
            f"prompt {spec.name!r} can't have these parameters",
            f"they are nested deeper than {DEEPEST} times",
            "flatten them",
            Exit.USAGE,
        )
    identity = _identity(spec)
    known = _version(conn, identity)
    if known is not None:
        make_current(conn, known)
    else:
        conn.execute("UPDATE prompts SET current = 0 WHERE name = ? AND current = 1", (spec.name,))
        conn.execute(
            "INSERT INTO prompts (name, template, provider, model, params, version, limit_id,"
            " current, created_at_ms) VALUES (?, ?, ?, ?, ?,"
            " (SELECT coalesce(max(version), 0) + 1 FROM prompts WHERE name = ?), ?, 1, ?)",
            (*identity, spec.name, limit_id, now_ms),
        )
    prompt = current_prompt(conn, spec.name)
    assert prompt is not None
    if known is None:
        carry_on(conn, prompt.id)
        put_view(conn, prompt.name, prompt.id, prompt.params)
    return prompt, known is None


def make_current(conn: sqlite3.Connection, prompt_id: int) -> None:
    """Make a version of a prompt the one that is asked; a prompt that was removed is so no more.

    Raises CrawlerError where it can't have a view.
    """
    prompt = prompt_by_id(conn, prompt_id)
    conn.execute("UPDATE prompts SET removed_at_ms = NULL WHERE name = ?", (prompt.name,))
    if not prompt.current:
        conn.execute(
            "UPDATE prompts SET current = 0 WHERE name = ? AND current = 1", (prompt.name,)
        )
        conn.execute("UPDATE prompts SET current = 1 WHERE id = ?", (prompt_id,))
        let_answers_stand(conn, prompt_id)
        carry_on(conn, prompt_id)
    put_view(conn, prompt.name, prompt_id, prompt.params)


def default_limit(conn: sqlite3.Connection, spec: PromptSpec) -> str:
    """Return the name of a prompt's limit where nobody has named one: ``provider/model``.

    What there is stays as it is: a version keeps its limit. So does a new version for the same
    model, and for another one of the same provider where they share a limit by its name. A
    provider whose prompts are counted under its bare name goes on so. A function's is its own.
    """
    if spec.provider == "function":
        return spec.model
    known = _version(conn, _identity(spec))
    if known is not None:
        return prompt_by_id(conn, known).limit
    old = current_prompt(conn, spec.name)
    if old is not None and old.provider == spec.provider:
        own = f"{old.provider}/{old.model}"
        if old.model == spec.model or old.limit != own:
            return old.limit
    bare = conn.execute(
        "SELECT 1 FROM prompts JOIN limits ON limits.id = limit_id"
        " WHERE provider = ?1 AND limits.name = ?1 LIMIT 1",
        (spec.provider,),
    )
    return spec.provider if bare.fetchone() else f"{spec.provider}/{spec.model}"


def _version(conn: sqlite3.Connection, identity: Sequence[str]) -> int | None:
    """Return the version of a prompt that has this identity, if it is on record."""
    row = conn.execute(
        "SELECT id FROM prompts"
        " WHERE name = ? AND template = ? AND provider = ? AND model = ? AND params = ?",
        identity,
    ).fetchone()
    return None if row is None else int(row[0])


def _identity(spec: PromptSpec) -> tuple[str, str, str, str, str]:
    return spec.name, spec.template, spec.provider, spec.model, _canonical(spec.params)


def remove_prompt(conn: sqlite3.Connection, name: str, now_ms: int) -> None:
    """Ask a prompt no more, and show nothing of it; all that it has stays on record."""
    conn.execute("UPDATE prompts SET removed_at_ms = ? WHERE name = ?", (now_ms, name))
    drop_view(conn, name)


def stale_answers(conn: sqlite3.Connection, prompt_id: int) -> int:
    """Return how many words have a standing answer of another version of a prompt than this."""
    (stale,) = conn.execute(
        "SELECT coalesce(sum(succeeded), 0) FROM prompts JOIN tallies ON prompt_id = id"
        " WHERE id <> ?1 AND name = (SELECT name FROM prompts WHERE id = ?1)",
        (prompt_id,),
    ).fetchone()
    return int(stale)


def waiting_words(conn: sqlite3.Connection, prompt_id: int) -> int:
    """Return how many words wait to be asked about by a version."""
    (waiting,) = conn.execute(
        "SELECT pending + leased FROM tallies WHERE prompt_id = ?", (prompt_id,)
    ).fetchone()
    return int(waiting)


def same_definition(conn: sqlite3.Connection, spec: PromptSpec) -> Prompt | None:
    """Return the version of a prompt that is defined so; None where there is none."""
    known = _version(conn, _identity(spec))
    return None if known is None else prompt_by_id(conn, known)


def current_prompt(conn: sqlite3.Connection, name: str) -> Prompt | None:
    """Return the version that a name stands for."""
    found = _prompts(conn, "prompts.name = ? AND current = 1", name)
    return found[0] if found else None


def prompt_by_id(conn: sqlite3.Connection, prompt_id: int) -> Prompt:
    """Return a prompt; it never changes. Raises CrawlerError if its limit is gone."""
    found = _prompts(conn, "prompts.id = ?", prompt_id)
    if not found:
        raise not_as_made(f"the prompt {prompt_id}, or its limit, is gone")
    return found[0]


def prompt_names(conn: sqlite3.Connection) -> dict[int, str]:
    """Return the name of each version of each prompt, whatever its parameters are."""
    return dict(conn.execute("SELECT id, name FROM prompts"))


def prompts(conn: sqlite3.Connection) -> list[Prompt]:
    """Return every version of every prompt."""
    return _prompts(conn, "?", 1)


_ASKED = " OR ".join(
    "EXISTS (SELECT 1 FROM requests"
    f" WHERE word_id = words.id AND superseded = {superseded} AND attempts > 0)"
    for superseded in (0, 1)
)
"""A word has been sent."""


def add_words(
    conn: sqlite3.Connection,
    prompt_id: int,
    words: Sequence[Word],
    now_ms: int,
    *,
    typed: bool = False,
) -> Added:
    """Add words, and a request for each of them with the prompt; what is there stays as it is.

    ``typed``: a person has named these words, and not a list. So what was removed is back.
    """
    rows = [
        (word.text, json.dumps(word.fields, ensure_ascii=False) if word.fields else None, word.key)
        for word in words
    ]
    (newest_id,) = conn.execute("SELECT coalesce(max(id), 0) FROM words").fetchone()
    # A word that had no fields gets them; what it had it keeps, but it is counted. What has been
    # asked about gets them by a revision.
    counted = conn.executemany(
        f"INSERT INTO words (text, fields, key, added_at_ms) VALUES (?, ?, ?, {now_ms:d})"
        " ON CONFLICT (coalesce(key, text))"
        f" DO UPDATE SET fields = iif(fields IS NULL AND NOT ({_ASKED}), excluded.fields, fields)"
        " WHERE excluded.fields IS NOT NULL AND fields IS NOT excluded.fields",
        rows,
    ).rowcount
    (last_id,) = conn.execute("SELECT coalesce(max(id), 0) FROM words").fetchone()
    new_words = last_id - newest_id
    if counted > new_words:
        fill_in(conn, words, now_ms)
    if new_words == len(rows):
        # Whoever is new has the newest ids: no need to look each of them up by its text.
        new_requests = conn.execute(
            "INSERT INTO requests (word_id, prompt_id) SELECT id, ? FROM words WHERE id > ?",
            (prompt_id, newest_id),
        ).rowcount
        removed = 0
    else:
        named = [word.identity for word in words]
        new_requests = _list(conn, prompt_id, named)
        removed = _removed(conn, prompt_id, named, typed=typed)
    note_columns(conn, prompt_id, dict.fromkeys(name for word in words for name in word.fields))
    return Added(new_words, new_requests, counted - new_words, removed)


def _list(conn: sqlite3.Connection, prompt_id: int, named: Sequence[str]) -> int:
    """Put words on the list of a prompt in their order; return how many were not on it."""
    known = ", ".join(map(str, versions(conn, prompt_id)))
    return conn.executemany(
        f"INSERT INTO requests (word_id, prompt_id) SELECT id, {prompt_id:d} FROM words"
        " WHERE coalesce(key, text) = ? AND NOT EXISTS"
        " (SELECT 1 FROM requests INDEXED BY requests_of_word"
        f" WHERE word_id = words.id AND superseded = 0 AND prompt_id IN ({known}))",
        [(identity,) for identity in named],
    ).rowcount


def _removed(conn: sqlite3.Connection, prompt_id: int, texts: Sequence[str], *, typed: bool) -> int:
    if typed:
        return bring_back(conn, prompt_id, texts)
    return len(removed_requests(conn, prompt_id, texts))


def known_words(
    conn: sqlite3.Connection, prompt_id: int | None, words: Iterable[Word]
) -> tuple[int, int]:
    """Return how many words are on the list of a prompt, and how many are known with other fields.

    Nothing is changed: this is what ``add_words`` would find.
    """
    ids = [] if prompt_id is None else versions(conn, prompt_id)
    asked = others = 0
    for word in words:
        row = conn.execute(
            "SELECT fields, EXISTS (SELECT 1 FROM requests WHERE word_id = words.id AND"
            f" superseded = 0 AND prompt_id IN ({', '.join(map(str, ids))}))"
            " FROM words WHERE coalesce(key, text) = ?",
            (word.identity,),
        ).fetchone()
        if row is not None:
            asked += row[1]
            others += bool(word.fields) and fields_of(row[0], word.text) != word.fields
    return asked, others


def recorded_fields(conn: sqlite3.Connection, identity: str) -> Mapping[str, str]:
    """Return the fields that a word has on record; none of one that is not known."""
    row = conn.execute(
        "SELECT fields FROM words WHERE coalesce(key, text) = ?", (identity,)
    ).fetchone()
    return fields_of(row[0], identity) if row else {}


def _canonical(params: Mapping[str, Any]) -> str:
    """Return parameters as the text that tells them from others.

    Order counts in a schema alone: a model fills in an object as its properties are listed.
    """
    ordered = json.loads(json.dumps(dict(params), sort_keys=True))
    if SCHEMA in params:
        ordered[SCHEMA] = params[SCHEMA]
    return json.dumps(ordered, ensure_ascii=False)


def _prompts(conn: sqlite3.Connection, condition: str, value: object) -> list[Prompt]:
    rows = conn.execute(
        "SELECT prompts.id, prompts.name, version, template, provider, model, params,"
        " limits.name, current, removed_at_ms FROM prompts JOIN limits ON limits.id = limit_id"
        f" WHERE {condition} ORDER BY prompts.name, version",
        (value,),
    )
    return [
        Prompt(
            id_,
            name,
            number,
            template,
            provider,
            model,
            json_object(params, f"the parameters of {name!r}"),
            limit,
            current == 1,
            removed_at_ms is not None,
        )
        for id_, name, number, template, provider, model, params, limit, current, removed_at_ms in (
            rows
        )
    ]
