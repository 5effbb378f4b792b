"""Which prompts have work for a run.

Rule: nothing here writes. A prompt that is not the current version of its name is asked only by
a run that has selected that version.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.runs import Selection

YEAR_MS = 366 * 86_400_000


class Work(NamedTuple):
    """A prompt with work left."""

    prompt_id: int
    limit_id: int
    unfinished: int
    """Its requests that are pending or leased."""
    leased: int
    requests: int
    """All of them, but for those that are cancelled."""
    provider: str
    served_at_ms: int
    """When it last had an answer, or a word that the model refused; 0: never."""


CURRENT = "current = 1 AND prompts.removed_at_ms IS NULL AND provider <> 'function'"
"""What a program asks by itself. Who brings a function can ask the prompts that it answers."""

_WORK = (
    "SELECT prompts.id, limit_id, pending + leased, leased, pending + leased + succeeded + failed,"
    " provider, served_at_ms"
    " FROM prompts JOIN tallies ON tallies.prompt_id = prompts.id"
)


def work(conn: sqlite3.Connection, selection: Selection) -> list[Work]:
    """Return the prompts with work for a run, in the order in which they were added.

    Those with failed requests are among them: what failed may come back, see `doubt`.
    """
    if selection.request_ids is not None:
        return _work_of_requests(conn, selection.request_ids)
    chosen, values = chosen_prompts(selection)
    rows = conn.execute(
        f"{_WORK} WHERE pending + leased + failed > 0 AND {chosen} ORDER BY prompts.id", values
    )
    return list(map(Work._make, rows))


def failed_requests(conn: sqlite3.Connection, selection: Selection) -> int:
    """Return how many requests of the prompts that a run asks have failed for good."""
    if selection.request_ids is not None:
        found = conn.execute(
            "SELECT count(*) FROM json_each(?) CROSS JOIN requests ON requests.id = value"
            " WHERE state = 'failed'",
            (json.dumps(selection.request_ids),),
        )
    else:
        chosen, values = chosen_prompts(selection)
        found = conn.execute(
            "SELECT coalesce(sum(failed), 0) FROM prompts"
            f" JOIN tallies ON tallies.prompt_id = prompts.id WHERE {chosen}",
            values,
        )
    return int(found.fetchone()[0])


def chosen_prompts(selection: Selection) -> tuple[str, Sequence[object]]:
    """Return the condition for the prompts that a run asks, and its values."""
    if selection.request_ids is not None:
        asked = "SELECT prompt_id FROM json_each(?) CROSS JOIN requests ON requests.id = value"
        return f"prompts.id IN ({asked})", (json.dumps(selection.request_ids),)
    if selection.prompt_ids is not None:
        marks = ", ".join("?" * len(selection.prompt_ids))
        return f"prompts.id IN ({marks})", selection.prompt_ids
    if selection.prompt is not None:
        return f"{CURRENT} AND prompts.name = ?", (selection.prompt,)
    return CURRENT, ()


def _work_of_requests(conn: sqlite3.Connection, request_ids: Sequence[int]) -> list[Work]:
    """Return the prompts of requests that are still to be answered; nothing where none is."""
    rows = conn.execute(
        "SELECT prompts.id, limit_id, sum(state = 'pending' OR state = 'leased'),"
        " sum(state = 'leased'), pending + leased + succeeded + failed, provider, served_at_ms"
        " FROM json_each(?) CROSS JOIN requests ON requests.id = value"
        " JOIN prompts ON prompts.id = requests.prompt_id"
        " JOIN tallies ON tallies.prompt_id = prompts.id"
        " WHERE (state = 'pending' OR state = 'leased') AND prompts.removed_at_ms IS NULL"
        " GROUP BY prompts.id",
        (json.dumps(request_ids),),
    )
    return list(map(Work._make, rows))


def is_stuck(
    conn: sqlite3.Connection, selection: Selection, wake_at_ms: int | None, now_ms: int
) -> bool:
    """Tell whether something is left, nothing is in flight, and nothing is due within a year.

    Args:
        conn: the ledger.
        selection: what a run asks; nothing else counts.
        wake_at_ms: when a run that has found nothing to start is to look again.
        now_ms: the time.

    """
    if wake_at_ms is not None and wake_at_ms < now_ms + YEAR_MS:
        return False
    found = conn.execute(
        "WITH asked AS (SELECT value AS prompt_id FROM json_each(?))"
        " SELECT NOT EXISTS (SELECT 1 FROM tallies JOIN asked USING (prompt_id)"
        " WHERE pending + leased > 0)"
        " OR EXISTS (SELECT 1 FROM attempts INDEXED BY attempts_open"
        " JOIN requests ON requests.id = request_id JOIN asked USING (prompt_id)"
        " WHERE finished_at_ms IS NULL)"
        " OR EXISTS (SELECT 1 FROM requests JOIN asked USING (prompt_id)"
        " JOIN words ON words.id = word_id"
        " WHERE state = 'pending' AND due_at_ms BETWEEN 0 AND ? )",
        (json.dumps([prompt.prompt_id for prompt in work(conn, selection)]), now_ms + YEAR_MS),
    )
    return not found.fetchone()[0]
