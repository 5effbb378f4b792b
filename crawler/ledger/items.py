"""Items: what tells one from another, and how one is corrected.

Rule: what was sent about an item stays readable. A correction keeps the old text and fields as a
revision, and an attempt knows from which one it was rendered.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from crawler.ledger.json_columns import fields_of
from crawler.protocol import Word
from crawler.template import Template

KEY = "\x1f"
"""How a key begins that is made of several columns. No text does: it would be stripped."""


class Corrected(NamedTuple):
    """What corrections have done."""

    words: int
    """Words that have changed."""
    stale: int
    """Answers of templates that use what has changed."""


class Renamed(NamedTuple):
    """What giving an item another text has done."""

    text: str
    """What it had."""
    identity: str
    """What tells it from others now."""
    stale: int
    """Answers of templates that use the text."""


class _Item(NamedTuple):
    id: int
    text: str
    fields: Mapping[str, str]
    key: str | None


def revised(conn: sqlite3.Connection, words: Iterable[Word], now_ms: int) -> Corrected:
    """Give known words the fields of their list; those of columns that it lacks stay as they are.

    Words that are not known are left to `add_words`.
    """
    done = Corrected(0, 0)
    for word, item, fields in _corrections(conn, words):
        stale = _revise(conn, item, word.text, fields, now_ms)
        done = Corrected(done.words + 1, done.stale + stale)
    return done


def fill_in(conn: sqlite3.Connection, words: Iterable[Word], now_ms: int) -> None:
    """Give the fields of a list to known words that have none."""
    for word in words:
        item = _item(conn, word.identity) if word.fields else None
        if item is not None and not item.fields:
            _revise(conn, item, item.text, word.fields, now_ms)


def corrections(conn: sqlite3.Connection, words: Iterable[Word]) -> int:
    """Return how many words `revised` would change."""
    return sum(1 for _ in _corrections(conn, words))


def _corrections(
    conn: sqlite3.Connection, words: Iterable[Word]
) -> Iterable[tuple[Word, _Item, Mapping[str, str]]]:
    for word in words:
        item = _item(conn, word.identity)
        if item is None:
            continue
        kept = {name: value for name, value in item.fields.items() if name not in word.columns}
        known = {name: value for name, value in item.fields.items() if value}
        fields = {**kept, **word.fields}
        if {name: value for name, value in fields.items() if value} != known:
            yield word, item, {**{n: fields[n] for n in item.fields if n in fields}, **fields}


def rename(conn: sqlite3.Connection, old: str, new: str, now_ms: int) -> Renamed:
    """Give a word another text; its fields and answers stay.

    What tells it from others is `identity_as` then, which no other word may have.
    """
    item = _item(conn, old)
    assert item is not None
    key = identity_as(conn, old, new) if item.key else None
    stale = _revise(conn, item._replace(key=key), new, item.fields, now_ms)
    return Renamed(item.text, key or new, stale)


def renamed(conn: sqlite3.Connection, listed: Iterable[str]) -> dict[str, str]:
    """Return what told known items from others before they were renamed, and what does now."""
    if conn.execute("SELECT 1 FROM revisions LIMIT 1").fetchone() is None:
        return {}
    rows = conn.execute(
        "SELECT value, coalesce(words.key, words.text) FROM json_each(?)"
        " CROSS JOIN revisions INDEXED BY revisions_by_key"
        " ON coalesce(revisions.key, revisions.text) = value"
        " CROSS JOIN words ON words.id = word_id"
        " WHERE NOT EXISTS (SELECT 1 FROM words WHERE coalesce(words.key, words.text) = value)",
        (json.dumps(list(listed)),),
    )
    return dict(rows.fetchall())


def identity_as(conn: sqlite3.Connection, identity: str, text: str) -> str:
    """Return what tells an item from others once it has another text."""
    if not identity.startswith(KEY):
        return text
    parts = parts_of_key(identity)
    columns = conn.execute("SELECT is_word FROM key_columns ORDER BY nth").fetchall()
    return key_of(
        [text if is_word else part for part, (is_word,) in zip(parts, columns, strict=True)]
    )


def identities(conn: sqlite3.Connection, named: str) -> list[str]:
    """Return what tells apart the words that a person names by their key or their text."""
    rows = conn.execute(
        "SELECT coalesce(key, text) FROM words WHERE coalesce(key, text) = ?1 UNION"
        " SELECT key FROM words INDEXED BY words_keyed WHERE text = ?1 AND key NOT NULL UNION"
        " SELECT key FROM words WHERE coalesce(key, text) = ?2",
        (named, typed_key(named)),
    )
    return [identity for (identity,) in rows]


def key_columns(conn: sqlite3.Connection) -> list[str]:
    """Return the columns of which the keys of this file's items are made; none: the text is one."""
    return [name for (name,) in conn.execute("SELECT name FROM key_columns ORDER BY nth")]


def put_key(conn: sqlite3.Connection, columns: Sequence[str], word: str) -> None:
    """Have the lists to come told apart by these columns, for good: a file has one key.

    ``word`` is the column of the word, which may be one of them.
    """
    if not key_columns(conn):
        conn.executemany(
            "INSERT INTO key_columns (name, is_word) VALUES (?, ?)",
            [(name, name == word) for name in columns],
        )


def key_of(parts: Sequence[str]) -> str:
    """Return the key of an item that several columns tell from others. No text is one."""
    return KEY + json.dumps(list(parts), ensure_ascii=False)


def shown_key(key: str | None) -> str:
    """Return a key as it is shown and typed; empty where the text is the key."""
    return "" if key is None else "/".join(map(_shown_part, parts_of_key(key)))


def shown(identity: str) -> str:
    """Return what tells an item from others as it is shown and typed."""
    return shown_key(identity) if identity.startswith(KEY) else identity


def typed_key(shown: str) -> str | None:
    """Return the key that was typed as it is shown; None where it is none."""
    parts = _PARTS.findall(f"{shown}/")
    if "".join(whole for whole, *_ in parts) != f"{shown}/":
        return None
    try:
        return key_of([json.loads(written) if written else plain for _, written, plain in parts])
    except ValueError:
        return None


_PARTS = re.compile(r'((?:("(?:[^"\\]|\\.)*")|([^/"]*))/)')
"""The parts of a key: as they are, or as JSON writes them where they have a / or " in them."""


def _shown_part(part: str) -> str:
    return json.dumps(part, ensure_ascii=False) if set(part) & set('/"') else part


def parts_of_key(key: str) -> list[str]:
    """Return the parts of a key."""
    return [str(part) for part in json.loads(key[1:])]


def _item(conn: sqlite3.Connection, identity: str) -> _Item | None:
    row = conn.execute(
        "SELECT id, text, fields, key FROM words WHERE coalesce(key, text) = ?", (identity,)
    ).fetchone()
    return None if row is None else _Item(row[0], row[1], fields_of(row[2], row[1]), row[3])


def _revise(
    conn: sqlite3.Connection, item: _Item, text: str, fields: Mapping[str, str], now_ms: int
) -> int:
    """Keep what a word was, and change it; return how many of its answers are stale by that."""
    conn.execute(
        "INSERT INTO revisions (word_id, number, text, fields, key, ended_at_ms)"
        " SELECT id, revision, text, fields, key, ? FROM words WHERE id = ?",
        (now_ms, item.id),
    )
    conn.execute(
        "UPDATE words SET text = ?, fields = ?, key = ?, revision = revision + 1 WHERE id = ?",
        (text, json.dumps(fields, ensure_ascii=False) if fields else None, item.key, item.id),
    )
    asked = conn.execute(_ASKED, (item.id,)).fetchall()
    marks = [
        (_is_other(conn, item.id, revision, template, {**fields, "word": text}), request_id)
        for request_id, template, revision in asked
    ]
    conn.executemany("UPDATE requests SET changed = ? WHERE id = ?", marks)
    answered = conn.execute(
        "SELECT count(*) FROM list_details WHERE word_id = ? AND changed = 1 AND text NOT NULL"
        " AND removed_at_ms IS NULL",
        (item.id,),
    ).fetchone()
    return int(answered[0])


_ASKED = (
    "SELECT requests.id, template, coalesce(last.revision, 1) FROM ("
    " SELECT id FROM requests WHERE word_id = ?1 AND superseded = 0 UNION ALL"
    " SELECT id FROM requests WHERE word_id = ?1 AND superseded = 1) AS own"
    " JOIN requests ON requests.id = own.id JOIN prompts ON prompts.id = prompt_id"
    " JOIN attempts AS last ON last.request_id = requests.id AND last.number = requests.attempts"
    " WHERE state = 'leased' OR state = 'succeeded'"
)


def _is_other(
    conn: sqlite3.Connection, word_id: int, revision: int, template: str, now: Mapping[str, str]
) -> bool:
    """Tell whether a template says something else of a word now than of a revision."""
    sent = conn.execute(
        "SELECT text, fields FROM revisions WHERE word_id = ? AND number = ?", (word_id, revision)
    ).fetchone()
    if sent is None:
        return False  # it is the newest one
    before = {**fields_of(sent[1], sent[0]), "word": sent[0]}
    return any(before.get(n, "") != now.get(n, "") for n in Template(template).all_names())
