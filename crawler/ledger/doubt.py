"""Whether it is a prompt, and not its words, that a server rejects.

Rule: a query over rows, so that a doubt holds over restarts and for every process. A prompt is in
doubt when nothing of it has succeeded and its first ten words were rejected. Then a run sends one
call: a success ends the doubt, a rejection stops the prompt for this run.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from crawler.ledger.runs import Selection
from crawler.ledger.work import Work, chosen_prompts

LOOKED_AT = 1_000
"""Failures of a prompt that are looked at: it is stopped long before there are more."""


class Doubt(NamedTuple):
    """A prompt that may be at fault."""

    prompt_id: int
    may_start: int
    """Calls that may start: one where none of this run has been rejected yet, else none."""
    reason: str | None
    """Of a rejection of this run: then the prompt is stopped."""


def doubts(
    conn: sqlite3.Connection, run_id: int, work: Sequence[Work], most: int
) -> dict[int, Doubt]:
    """Return the prompts that are in doubt for a run, by their ids.

    ``most`` is how many words may be rejected before any is served: `Policy.vain_rejections`.
    """
    found = {
        prompt.prompt_id: _doubt(conn, run_id, prompt, most)
        for prompt in work
        if not prompt.succeeded and prompt.failed >= most
    }
    return {prompt_id: doubt for prompt_id, doubt in found.items() if doubt is not None}


def _doubt(conn: sqlite3.Connection, run_id: int, prompt: Work, most: int) -> Doubt | None:
    failures = conn.execute(
        "SELECT outcome, run_id, reason FROM ("
        " SELECT requests.id AS request_id, requests.attempts AS number"
        " FROM requests INDEXED BY requests_failed WHERE prompt_id = ? AND state = 'failed'"
        " ORDER BY id LIMIT ?) JOIN attempts USING (request_id, number) WHERE nth >= 0",
        (prompt.prompt_id, LOOKED_AT),
    ).fetchall()
    outcomes = [outcome for outcome, _, _ in failures]
    if outcomes.count("rejected") < most or "blocked" in outcomes:
        return None  # a model that refuses a word has understood the request
    ours = [reason for outcome, run, reason in failures if outcome == "rejected" and run == run_id]
    if ours:
        return Doubt(prompt.prompt_id, 0, ours[-1] or "")
    return Doubt(prompt.prompt_id, max(0, 1 - prompt.leased), None)


class Vain(NamedTuple):
    """A prompt of which every request was rejected."""

    prompt: str
    failed: int
    reason: str
    """Of one of the rejections."""


def vain_prompts(conn: sqlite3.Connection, selection: Selection) -> list[Vain]:
    """Return the prompts of a run that a server has refused to the last request, and never served.

    Their lists were too short for a doubt. What never left this machine, because a word lacks a
    field, says nothing of the prompt.
    """
    chosen, values = chosen_prompts(selection)
    rows = conn.execute(
        "SELECT prompts.name, count(*), max(reason)"
        " FROM prompts JOIN tallies ON tallies.prompt_id = prompts.id"
        " JOIN requests ON requests.prompt_id = prompts.id AND state = 'failed'"
        " JOIN attempts ON request_id = requests.id AND number = requests.attempts"
        f" WHERE succeeded = 0 AND pending + leased = 0 AND failed BETWEEN 1 AND ? AND {chosen}"
        " GROUP BY prompts.id"
        " HAVING min(outcome = 'rejected' AND status_code IS NOT NULL) ORDER BY prompts.id",
        (LOOKED_AT, *values),
    )
    return [Vain(name, failed, reason or "") for name, failed, reason in rows]
