"""A view for each prompt whose answers have fields: `SELECT word, definition FROM study_notes`.

Rule: a view belongs to the name of a prompt and shows the answers that count, of all versions that
have the schema of the current one. It takes no name that is not free, and no name of a field is
ever read as SQL.

The fields are looked up with the table function json_each, and not with json_extract. Connections
that do not trust the schema of a file refuse that in a view (SQLite 3.40: "unsafe use"), and its
paths have no way to write every name. An answer that is not JSON would be an error of the whole
view: providers let none pass where there is a schema (crawler/providers/answers/check.py).
"""

import re
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from crawler.answer_schema import SCHEMA, property_names, require_schema
from crawler.errors import CrawlerError, Exit
from crawler.ledger.json_columns import json_object

_WORD = "word"
MOST_COLUMNS = 500
"""Columns of lists that a view shows: with more, SQLite could not have it."""
_OTHER_COLUMNS = {
    "text": "text",
    "model": "model",
    "version": "version",
    "finished_at": "strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_ms / 1000.0, 'unixepoch')",
    "word_id": "word_id",
    "request_id": "request_id",
}


def put_view(
    conn: sqlite3.Connection, name: str, prompt_id: int, params: Mapping[str, Any]
) -> None:
    """Give a prompt the view of its current version; none where its answers have no fields.

    Raises CrawlerError, before anything has changed, for a schema that is none and for a name that
    is taken.
    """
    require_schema(params)
    fields = property_names(params)
    view = view_name(name)
    if fields:
        _require_free(conn, name, view)
    drop_view(conn, name)
    if fields:
        conn.execute("INSERT INTO prompt_views (name, prompt) VALUES (?, ?)", (view, name))
        alike = _alike(conn, prompt_id, params)
        conn.execute(_definition(view, alike, fields, _columns(conn, name)))


def drop_view(conn: sqlite3.Connection, name: str) -> None:
    """Take the view of a prompt away, if it has one."""
    for (old,) in conn.execute(
        "SELECT name FROM prompt_views WHERE prompt = ?", (name,)
    ).fetchall():
        conn.execute(f"DROP VIEW IF EXISTS {_quoted(old)}")
    conn.execute("DELETE FROM prompt_views WHERE prompt = ?", (name,))


def note_columns(conn: sqlite3.Connection, prompt_id: int, names: Iterable[str]) -> None:
    """Show the columns of a list in the view of the prompt that its words are added to."""
    current_id, name, params = conn.execute(
        "SELECT newest.id, newest.name, newest.params FROM prompts AS own JOIN prompts AS newest"
        " ON newest.name = own.name AND newest.current = 1 WHERE own.id = ?",
        (prompt_id,),
    ).fetchone()
    known = set(_columns(conn, name))
    unknown = (column for column in names if column not in known and "\0" not in column)
    new = list(islice(unknown, MOST_COLUMNS - len(known)))
    if not new:
        return
    conn.executemany(
        "INSERT INTO prompt_columns (prompt, name, nth) VALUES (?1, ?2,"
        " (SELECT count(*) FROM prompt_columns WHERE prompt = ?1))",
        [(name, column) for column in new],
    )
    put_view(conn, name, current_id, json_object(params, f"the parameters of {name!r}"))


def _alike(conn: sqlite3.Connection, prompt_id: int, params: Mapping[str, Any]) -> list[int]:
    """Return the versions of a prompt that have the schema of this one."""
    rows = conn.execute(
        "SELECT other.id, other.params FROM prompts AS own JOIN prompts AS other USING (name)"
        " WHERE own.id = ? ORDER BY other.id",
        (prompt_id,),
    )
    return [
        version
        for version, theirs in rows
        if version == prompt_id
        or json_object(theirs, f"the parameters of version {version}").get(SCHEMA) == params[SCHEMA]
    ]


def _columns(conn: sqlite3.Connection, prompt: str) -> list[str]:
    """Return the columns of the lists that a prompt was given, as they came."""
    rows = conn.execute("SELECT name FROM prompt_columns WHERE prompt = ? ORDER BY nth", (prompt,))
    return [name for (name,) in rows]


def free_name(name: str, taken: set[str]) -> str:
    """Return a name that no column has yet, whatever its case: spreadsheets and SQL see none.

    It is taken then. The columns of a view and of an export get theirs here, in the same order.
    """
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free.casefold())
    return free


def view_name(prompt: str) -> str:
    """Return what the view of a prompt is called: a name that SQL takes without quotes."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", prompt)
    return f"_{name}" if name[:1].isdigit() else name


def _definition(view: str, versions: list[int], fields: list[str], listed: list[str]) -> str:
    found = {_WORD: "word"}
    taken = {_WORD}
    for source, names in (("text", fields), ("fields", listed)):
        for name in names:
            found[free_name(name, taken)] = (
                f"(SELECT value FROM json_each(list_details.{source}) WHERE key = {_text(name)})"
            )
    found |= {free_name(name, taken): sql for name, sql in _OTHER_COLUMNS.items()}
    selected = ", ".join(f"{sql} AS {_quoted(name)}" for name, sql in found.items())
    return (
        f"CREATE VIEW {_quoted(view)} AS SELECT {selected} FROM list_details"
        f" WHERE removed_at_ms IS NULL AND prompt_id IN ({', '.join(map(str, versions))})"
        " AND text IS NOT NULL ORDER BY place"
    )


def _require_free(conn: sqlite3.Connection, prompt: str, view: str) -> None:
    """Accept a name that nothing has, or this prompt's own view. Raises CrawlerError."""
    owner = conn.execute("SELECT prompt FROM prompt_views WHERE name = ?", (view,)).fetchone()
    if owner == (prompt,):
        return
    if owner is not None:
        cause = f"its view would be called {view}, as that of the prompt {owner[0]!r} is"
    elif _is_taken(conn, view):
        cause = f"its view would be called {view}, and that is the name of something else"
    else:
        return
    raise CrawlerError(
        f"the prompt {prompt!r} can't have a {SCHEMA}",
        cause,
        "give the prompt another name",
        Exit.USAGE,
    )


def _is_taken(conn: sqlite3.Connection, view: str) -> bool:
    # A view may take the name of a table function, and hide it from all others.
    known = "SELECT name FROM sqlite_schema UNION ALL SELECT name FROM pragma_module_list"
    taken = f"SELECT 1 FROM ({known}) WHERE name = ? COLLATE NOCASE"
    return view.lower().startswith(("sqlite_", "pragma_")) or bool(
        conn.execute(taken, (view,)).fetchone()
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
