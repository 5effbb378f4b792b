"""Answers of several prompts, or of several versions of one, side by side.

Rule: short reads that never write; a word is looked at when its row is written.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from crawler.ledger.intake import Prompt
from crawler.ledger.items import shown_key
from crawler.ledger.json_columns import fields_of
from crawler.ledger.standing import versions


class Side(NamedTuple):
    """Whose answers are compared: those that count of a prompt, or those of one version."""

    prompt: Prompt
    is_exact: bool
    """Only what that version has answered."""

    @property
    def name(self) -> str:
        """What it is called. Answers that count may be of several versions."""
        version = f"@{self.prompt.version}" if self.is_exact else ""
        return f"{self.prompt.name}{version}"


class Compared(NamedTuple):
    """A word, and what each side has answered; None where it has not."""

    word: str
    key: str
    fields: Mapping[str, str]
    answers: Mapping[str, str | None]

    @property
    def is_whole(self) -> bool:
        """Each side has answered."""
        return None not in self.answers.values()

    @property
    def differs(self) -> bool:
        """The answers are not all the same."""
        return len(set(self.answers.values())) > 1


def compared(conn: sqlite3.Connection, sides: Sequence[Side]) -> Iterator[Compared]:
    """Yield the words on the lists of some prompts, in their order, with each side's answer."""
    lists = ", ".join(
        str(version)
        for version in dict.fromkeys(v for side in sides for v in versions(conn, side.prompt.id))
    )
    answers = ", ".join(_answer(conn, side) for side in sides)
    rows = conn.execute(
        f"SELECT text, key, fields, {answers} FROM (SELECT word_id, min(coalesce(place, id))"
        " AS place FROM requests WHERE superseded = 0 AND removed_at_ms IS NULL"
        f" AND prompt_id IN ({lists}) GROUP BY word_id ORDER BY place) AS listed"
        " CROSS JOIN words ON words.id = listed.word_id"
    )
    names = [side.name for side in sides]
    for text, key, fields, *said in rows:
        told = dict(zip(names, said, strict=True))
        yield Compared(text, shown_key(key), fields_of(fields, text), told)


def _answer(conn: sqlite3.Connection, side: Side) -> str:
    """Return the expression for a side's answer about a word."""
    if not side.is_exact:
        known = ", ".join(map(str, versions(conn, side.prompt.id)))
        return (
            "(SELECT list_details.text FROM list_details WHERE list_details.word_id = words.id"
            f" AND asked_by_id IN ({known}) AND removed_at_ms IS NULL)"
        )
    asked = " UNION ALL ".join(
        "SELECT id FROM requests WHERE word_id = words.id"
        f" AND prompt_id = {side.prompt.id:d} AND superseded = {superseded}"
        for superseded in (0, 1)
    )
    return (
        f"(SELECT responses.text FROM ({asked}) AS asked"
        " JOIN responses ON request_id = asked.id ORDER BY asked.id DESC LIMIT 1)"
    )
