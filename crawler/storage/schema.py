"""What a file of ours has in its schema, and what may stand beside it.

Rule: SQLite makes its schema from the texts in `sqlite_schema` and takes names without regard to
their case; so both are judged here, and not the type that a row claims to have. Tables, indexes and
views that a person has added are their own affair. What would run with our statements is not.
"""

import functools
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit

_MIGRATIONS = (
    "CREATE TABLE migrations (version INTEGER PRIMARY KEY,"
    " name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT"
)
_BEGINNINGS = {
    "table": ("CREATE TABLE ", "CREATE VIRTUAL TABLE "),
    "index": ("CREATE INDEX ", "CREATE UNIQUE INDEX "),
    "view": ("CREATE VIEW ",),
    "trigger": ("CREATE TRIGGER ",),
}
"""How SQLite itself writes the texts of its schema, by the type of their rows."""
# Possessive: a name may end as a type does, and two ways to read a column are 2 ** n ways for n.
_PLAIN_COLUMN = (
    r"""(\w++|"[^"]+") *+(TEXT|INTEGER|INT|REAL|BLOB|NUMERIC|ANY)?+"""
    r"""( NOT NULL)?+( DEFAULT ([-+]?[\d.]++|NULL|'[^']*+'))?+"""
)
_READ_BY_US = ("request_details", "list_details")
"""Views of ours that our own commands read; the others are for people, who may change them."""
_PLAIN_COLUMNS = re.compile(
    rf"\s*,\s*{_PLAIN_COLUMN}(\s*,\s*{_PLAIN_COLUMN})*\s*|({_PLAIN_COLUMN}\s*,\s*)+", re.IGNORECASE
)


class _Object(NamedTuple):
    kind: str
    sql: str


def require_our_schema(conn: sqlite3.Connection, path: Path, scripts: Sequence[str]) -> None:
    """Refuse a file of which something would run with what we ask or write. Raises CrawlerError.

    Args:
        conn: the file.
        path: where it is.
        scripts: the texts of the migrations that it has had.

    """
    known = _made_by(tuple(scripts))
    objects = "SELECT name, type, tbl_name, rootpage, sql FROM sqlite_schema"
    for name, kind, table, rootpage, sql in conn.execute(objects):
        stranger = _stranger(known, str(name), str(kind), rootpage, sql)
        if not stranger and kind == "index" and sql and str(table).lower() in known:
            stranger = _of_an_index(known, str(name), str(table), sql)
        if stranger:
            raise CrawlerError(
                f"{path} can't be used",
                stranger,
                "if it is yours, drop it with sqlite3; else don't trust this file",
                Exit.CONFIGURATION,
            )


def guards(scripts: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return type, name and text of each index and trigger that migrations make."""
    made = _made_by(tuple(scripts)).items()
    kept = ("index", "trigger")
    return [(known.kind, name, known.sql) for name, known in made if known.kind in kept]


def _stranger(
    known: Mapping[str, _Object], name: str, kind: str, rootpage: object, sql: str | None
) -> str:
    """Return what is wrong with a row of the schema; empty where it is ours or harmless."""
    ours = known.get(name.lower())
    if kind == "trigger" and ours != (kind, sql):
        return f"it has a trigger that is not ours, {name!r}: it would run with what we write"
    if sql is None and kind == "index" and name.startswith("sqlite_autoindex_"):
        return ""
    if not (sql or "").startswith(_BEGINNINGS.get(kind, ("\0",))):
        return f"its schema has a row that SQLite did not write, {name!r}"
    if ours is None or ours == (kind, sql):
        return ""
    if name.lower() in _READ_BY_US:
        return f"its view {name} is not as we make it: our commands read it"
    if ours.kind == "table" and (kind != "table" or not rootpage):
        return f"its table {name} is none"
    if kind == "table" and not _only_adds_columns(ours.sql, str(sql)):
        return f"its table {name} is not as we make it: its columns may run what we did not write"
    return ""


def _of_an_index(known: Mapping[str, _Object], name: str, table: str, sql: str) -> str:
    """Return how an index that a person has added to a table of ours may hold up what we write."""
    if name.lower() in known or (sql.startswith("CREATE INDEX") and sql.count("(") == 1):
        return ""
    return f"its table {table} has an index that may refuse or compute what we write, {name!r}"


def _only_adds_columns(ours: str, theirs: str) -> bool:
    """Tell whether a table is ours, or has only columns more that are a name and a type."""
    ours, theirs = _even(ours), _even(theirs)
    if ours == theirs:
        return True
    pairs = enumerate(zip(ours, theirs, strict=False))
    same = next((at for at, (one, other) in pairs if one != other), len(ours))
    more = theirs[same : same + len(theirs) - len(ours)]
    return theirs.endswith(ours[same:]) and _PLAIN_COLUMNS.fullmatch(more) is not None


def _even(sql: str) -> str:
    """Return a text without comments and with single blanks: those differ between versions."""
    return " ".join(re.sub(r"--[^\n]*", "", sql).split())


@functools.cache
def _made_by(scripts: tuple[str, ...]) -> Mapping[str, _Object]:
    """Return what migrations make, by its name in lower case."""
    conn = sqlite3.connect(":memory:")
    try:
        conn.executescript(";\n".join((_MIGRATIONS, *scripts)))
        rows = conn.execute("SELECT name, type, sql FROM sqlite_schema WHERE sql NOT NULL")
        return {name.lower(): _Object(kind, sql) for name, kind, sql in rows}
    finally:
        conn.close()
