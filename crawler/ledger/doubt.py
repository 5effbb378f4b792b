"""Whether a refusal is the fault of its word, or that of a prompt, an account or a network.

Rule: a query over rows, so that a doubt holds over restarts and for every process. Only what was
refused since the prompt was last served counts. When enough of it is alike, the prompt is stopped
for the runs that have seen it: the words that failed so are pending again, and a new run sends one
call. A success ends the doubt.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from crawler.ledger.runs import Selection, last_end
from crawler.ledger.work import Work, chosen_prompts
from crawler.ledger.work import work as with_work
from crawler.policy import FEWEST_ANSWERED, IN_SEQUENCE, REFUSED_IN_SEQUENCE
from crawler.states.kinds import MEANINGS, Action, Kind, Scope

_NO_RUN = 0
COULD_NOT_ASK = frozenset({"loading", "unreachable", "quota_day"})
"""Ends of a run that no prompt was at fault for."""
LOOKED_AT = 1_000
"""The newest refusals that are looked at: a prompt is stopped long before there are more."""


class Doubt(NamedTuple):
    """A prompt that may be at fault, or whose account, network or model may be."""

    prompt_id: int
    kind: Kind
    may_start: int
    """Calls that may start: one where this run has not been refused yet, else none."""
    reason: str
    """What the server said last."""
    request_ids: Collection[int]
    """The requests that were refused alike."""
    provider: str = ""
    at_ms: int = 0
    """When the server said it last."""

    @property
    def is_stopped(self) -> bool:
        """The run has been refused: it asks no more for this prompt."""
        return self.may_start < 0


class _Refused(NamedTuple):
    request_id: int
    prompt_id: int
    provider: str
    run_id: int
    kind: Kind
    reason: str
    finished_at_ms: int


def doubts(conn: sqlite3.Connection, run_id: int, work: Sequence[Work]) -> dict[int, Doubt]:
    """Return the prompts that are in doubt for a run, by their ids."""
    if not work:
        return {}
    refused = _refused(conn, min(prompt.served_at_ms for prompt in work))
    if not refused:
        return {}
    found = {prompt.prompt_id: _doubt(prompt, refused, run_id) for prompt in work}
    return {prompt_id: doubt for prompt_id, doubt in found.items() if doubt is not None}


def standing_doubts(conn: sqlite3.Connection, selection: Selection) -> dict[int, Doubt]:
    """Return the prompts of which the next run asks one call first, by their ids."""
    return doubts(conn, _NO_RUN, with_work(conn, selection))


def told_doubts(conn: sqlite3.Connection, selection: Selection) -> dict[int, Doubt]:
    """Return the standing doubts that are the newest of what a person has to know.

    A later run that could not ask at all has replaced them: its end says what is wrong now.
    """
    last = last_end(conn)
    could_not_ask = last.reason in COULD_NOT_ASK
    return {
        prompt_id: doubt
        for prompt_id, doubt in standing_doubts(conn, selection).items()
        if not (could_not_ask and last.began_at_ms > doubt.at_ms)
    }


def _refused(conn: sqlite3.Connection, since_ms: int) -> list[_Refused]:
    """Return what was refused since a moment, the newest first."""
    rows = conn.execute(
        "SELECT request_id, prompts.id, prompts.provider, run_id,"
        " CASE WHEN reason_code IS NOT NULL THEN reason_code WHEN truncated = 1 THEN 'truncated'"
        " ELSE 'credentials' END, coalesce(reason, ''), finished_at_ms FROM (SELECT * FROM attempts"
        " INDEXED BY attempts_doubted WHERE (outcome = 'refused' OR outcome = 'denied'"
        " OR outcome = 'no_money' OR outcome = 'no_answer' OR truncated = 1) AND finished_at_ms > ?"
        " ORDER BY finished_at_ms DESC LIMIT ?) AS refused"
        " JOIN requests ON requests.id = request_id JOIN prompts ON prompts.id = prompt_id",
        (since_ms, LOOKED_AT),
    )
    return [
        _Refused(request_id, prompt_id, provider, run_id, _kind(kind), reason, at_ms)
        for request_id, prompt_id, provider, run_id, kind, reason, at_ms in rows
    ]


def _kind(name: str) -> Kind:
    return Kind(name) if name in set(Kind) else Kind.UNCLEAR


def _doubt(prompt: Work, refused: Sequence[_Refused], run_id: int) -> Doubt | None:
    """Return the doubt about a prompt: of the kinds that say enough, the one said last."""
    alike: dict[Kind, list[_Refused]] = defaultdict(list)
    for one in refused:
        of_account = MEANINGS[one.kind].scope is Scope.ACCOUNT
        concerns = (
            one.provider == prompt.provider if of_account else one.prompt_id == prompt.prompt_id
        )
        if concerns and one.finished_at_ms > prompt.served_at_ms:
            alike[one.kind].append(one)
    for kind, those in alike.items():
        if _says_enough(kind, those, prompt):
            ours = any(one.run_id == run_id for one in those)
            may_start = -1 if ours else max(0, 1 - prompt.leased)
            ids = {one.request_id for one in those if one.prompt_id == prompt.prompt_id}
            said, at_ms = those[0].reason, those[0].finished_at_ms
            return Doubt(prompt.prompt_id, kind, may_start, said, ids, prompt.provider, at_ms)
    return None


def _says_enough(kind: Kind, those: Sequence[_Refused], prompt: Work) -> bool:
    """Tell whether so many refusals are more than the fault of some words.

    Of an account any calls count, else different words; a list that is shorter counts as a whole.
    """
    enough = IN_SEQUENCE.get(kind, REFUSED_IN_SEQUENCE)
    if MEANINGS[kind].scope is Scope.ACCOUNT:
        return len(those) >= enough
    words = len({one.request_id for one in those})
    if words >= enough or MEANINGS[kind].action is not Action.ANSWER_AGAIN:
        return words >= min(enough, prompt.requests)
    # The next answer may be good: a shorter list counts when the budgets of all are used up.
    return not prompt.unfinished and words == prompt.requests >= FEWEST_ANSWERED


def bring_back(conn: sqlite3.Connection, doubted: Collection[Doubt]) -> int:
    """Make pending again what failed in a sequence that was no word's fault; return how many."""
    return conn.executemany(
        "UPDATE requests SET state = 'pending', due_at_ms = 0, no_answers = 0"
        " WHERE id = ? AND state = 'failed' AND superseded = 0 AND removed_at_ms IS NULL",
        [
            (request_id,)
            for doubt in doubted
            if doubt.is_stopped
            for request_id in doubt.request_ids
        ],
    ).rowcount


class Vain(NamedTuple):
    """A prompt of which every request was rejected."""

    prompt: str
    failed: int
    reason: str
    """Of one of the rejections."""


def vain_prompts(conn: sqlite3.Connection, selection: Selection) -> list[Vain]:
    """Return the prompts of a run that a server has rejected to the last request, and never served.

    What never left this machine, because a word lacks a field, says nothing of the prompt.
    """
    chosen, values = chosen_prompts(selection)
    rows = conn.execute(
        "SELECT prompts.name, count(*), max(reason)"
        " FROM prompts JOIN tallies ON tallies.prompt_id = prompts.id"
        " JOIN requests ON requests.prompt_id = prompts.id AND state = 'failed'"
        " AND superseded = 0 AND requests.removed_at_ms IS NULL"
        " JOIN attempts ON request_id = requests.id AND number = requests.attempts"
        f" WHERE succeeded = 0 AND pending + leased = 0 AND failed BETWEEN 1 AND ? AND {chosen}"
        " GROUP BY prompts.id"
        " HAVING min(outcome = 'rejected' AND status_code IS NOT NULL) ORDER BY prompts.id",
        (LOOKED_AT, *values),
    )
    return [Vain(name, failed, reason or "") for name, failed, reason in rows]
