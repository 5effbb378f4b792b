"""Columns of lists: which there are, and whether the words of a prompt have one.

Rule: what was listed with other prompts counts, too, because the fields of a word are the word's.
"""

import sqlite3


def listed_columns(conn: sqlite3.Connection) -> list[str]:
    """Return the columns of all lists."""
    rows = conn.execute("SELECT name FROM prompt_columns GROUP BY name ORDER BY min(nth), name")
    return [name for (name,) in rows]


_OF_PROMPT = (
    "prompt_id IN (SELECT other.id FROM prompts AS own JOIN prompts AS other USING (name)"
    " WHERE own.id = ?)"
)
"""Of whichever version."""


def has_words(conn: sqlite3.Connection, prompt_id: int) -> bool:
    """Tell whether a prompt is asked about words."""
    asked = f"SELECT 1 FROM requests WHERE superseded = 0 AND {_OF_PROMPT} LIMIT 1"
    return conn.execute(asked, (prompt_id,)).fetchone() is not None


def is_filled(conn: sqlite3.Connection, prompt_id: int, name: str) -> bool:
    """Tell whether one of a prompt's words has a field; it looks at all of them where none has."""
    filled = (
        "SELECT 1 FROM requests CROSS JOIN words ON words.id = word_id WHERE superseded = 0"
        f" AND {_OF_PROMPT} AND json_valid(fields)"
        " AND EXISTS (SELECT 1 FROM json_each(fields) WHERE key = ?) LIMIT 1"
    )
    return conn.execute(filled, (prompt_id, name)).fetchone() is not None
