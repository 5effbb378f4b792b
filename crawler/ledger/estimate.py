"""What a run has before it: the words that wait, and what the last answers took.

Rule: short reads that never write; a sample stands for all.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from crawler.ledger.json_columns import fields_of
from crawler.ledger.runs import Selection

SAMPLE = 1_000
"""Words whose length stands for that of all, and calls whose time and tokens do."""


class Waiting(NamedTuple):
    """A word that waits."""

    text: str
    fields: Mapping[str, str]


class Usually(NamedTuple):
    """What an answer took, in the mean; None where it is not known."""

    tokens_in: float | None
    tokens_out: float | None
    duration_ms: float | None


def waiting(conn: sqlite3.Connection, prompt_id: int, selection: Selection) -> list[Waiting]:
    """Return the first words of a prompt that wait for a run, in the order of the list."""
    chosen = "requests"
    if selection.request_ids is not None:
        chosen = "json_each(:ids) AS listed CROSS JOIN requests ON requests.id = listed.value"
    rows = conn.execute(
        f"SELECT text, fields FROM {chosen} CROSS JOIN words ON words.id = word_id"
        " WHERE prompt_id = :prompt_id AND state = 'pending' ORDER BY requests.id LIMIT :most",
        {"ids": json.dumps(selection.request_ids), "prompt_id": prompt_id, "most": SAMPLE},
    )
    return [Waiting(text, fields_of(fields, text)) for text, fields in rows]


def usually(conn: sqlite3.Connection, prompt_id: int, limit_id: int) -> Usually:
    """Return what the last answers of a prompt took, among the last calls under its limit."""
    row = conn.execute(
        "SELECT avg(tokens_in), avg(tokens_out), avg(finished_at_ms - started_at_ms) FROM (SELECT *"
        " FROM attempts INDEXED BY attempts_started WHERE limit_id = ? ORDER BY started_at_ms DESC"
        " LIMIT ?) AS latest JOIN requests ON requests.id = request_id"
        " WHERE outcome = 'succeeded' AND prompt_id = ?",
        (limit_id, SAMPLE, prompt_id),
    ).fetchone()
    return Usually._make(row)
