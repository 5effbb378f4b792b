"""Which requests may start: drawn in their order, rendered, held against tokens and budget.

Rule: nothing here writes. A request that can't be sent, or that a budget can't afford, takes
nobody's place: the next one is drawn instead.
"""

import functools
import itertools
import json
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from crawler.errors import CrawlerError
from crawler.ledger.budget import Allowance
from crawler.ledger.doubt import Doubt
from crawler.ledger.json_columns import fields_of, json_object
from crawler.ledger.limits import Limit
from crawler.ledger.runs import Scope
from crawler.ledger.tokens import Usual, usual
from crawler.policy import Policy
from crawler.protocol import Call, Lease
from crawler.quota.state import Quota
from crawler.template import MissingField, Template

LOOKED_AT = 1_000
"""Requests of a prompt that one drawing looks at, at the most, while calls are in flight."""


class Room(NamedTuple):
    """What may start under a limit now."""

    calls: int
    tokens: int | None
    """But for the last call; None: any number."""
    doubts: Mapping[int, Doubt]
    """By prompt: those of which fewer calls may start."""
    fresh_first: bool = False
    looked_at_most: int | None = None
    """Requests of a prompt to look at; None: all, until there are enough."""


class Unsendable(NamedTuple):
    """A request that can't be sent, and why."""

    request_id: int
    number: int
    reason: str


@dataclass(slots=True)
class Drawn:
    """What was drawn, in its order, and what holds back the next."""

    leases: list[Lease] = field(default_factory=list)
    unsendable: list[Unsendable] = field(default_factory=list)
    over_budget: bool = False
    """A request was passed over, because the budget can't afford it."""
    out_of_tokens: bool = False
    cut_short: bool = False
    """There may be more to find: another turn goes on."""


class _Candidate(NamedTuple):
    request_id: int
    number: int
    word: str
    fields: str | None
    revision: int | None


class _Question(NamedTuple):
    """A prompt, read to be rendered."""

    provider: str
    model: str
    template: Template
    params: Mapping[str, Any]
    served_before: bool
    timeout_ms: int


class _Due(NamedTuple):
    """One of the two ways to be due, each with an index of its own."""

    name: str
    condition: str
    order: str


_FRESH = _Due("requests_fresh", "due_at_ms = 0", "requests.id")
_WAITING = _Due(
    "requests_waiting", "due_at_ms > 0 AND due_at_ms <= :now_ms", "due_at_ms, requests.id"
)


def draw(
    conn: sqlite3.Connection,
    scope: Scope,
    limit: Limit,
    prompt_ids: Sequence[int],
    room: Room,
    allowance: Allowance,
    now_ms: int,
) -> Drawn:
    """Choose requests that may start under a limit.

    Args:
        conn: the ledger.
        scope: the run's.
        limit: the limit.
        prompt_ids: the prompts that share it, in their order.
        room: what may start.
        allowance: what the run may start and spend.
        now_ms: the time.

    Those come first that have waited, unless ``room`` says otherwise; then, prompt by prompt, in
    the order in which they were added.

    """
    drawing = _Drawing(conn, scope.policy, limit.quota, room, allowance)
    dues = (_FRESH, _WAITING) if room.fresh_first else (_WAITING, _FRESH)
    for due, prompt_id in itertools.product(dues, prompt_ids):
        calls = min(room.calls, allowance.calls) - len(drawing.drawn.leases)
        if prompt_id in room.doubts:
            begun = sum(lease.prompt_id == prompt_id for lease in drawing.drawn.leases)
            calls = min(calls, room.doubts[prompt_id].may_start - begun)
        if calls > 0 and not drawing.drawn.out_of_tokens:
            with closing(_candidates(conn, scope, prompt_id, due, now_ms)) as found:
                drawing.take(prompt_id, found, calls)
    return drawing.drawn


class _Drawing:
    """One drawing: what is left of tokens and budget, and what was drawn so far."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        policy: Policy,
        quota: Quota,
        room: Room,
        allowance: Allowance,
    ) -> None:
        self.drawn = Drawn()
        self._conn = conn
        self._policy = policy
        self._quota = quota
        self._tokens = room.tokens
        self._looked_at_most = room.looked_at_most
        self._allowance = allowance
        self._budget = allowance.budget

    def take(self, prompt_id: int, found: Iterator[_Candidate], calls: int) -> None:
        """Take so many of the candidates of a prompt, or fewer."""
        question = _question(self._conn, prompt_id, self._policy)
        is_bounded = self._tokens is not None or self._budget is not None
        known = usual(self._conn, prompt_id) if is_bounded else None
        enough = len(self.drawn.leases) + calls
        for looked_at, candidate in enumerate(found):
            if looked_at == self._looked_at_most:
                self.drawn.cut_short = True
                return
            self._consider(candidate, prompt_id, question, known)
            if self.drawn.out_of_tokens or len(self.drawn.leases) >= enough:
                return

    def _consider(
        self, candidate: _Candidate, prompt_id: int, question: _Question, known: Usual | None
    ) -> None:
        """Take a candidate, pass over it, or find that it can't be sent."""
        tokens, cost = None, 0.0
        try:
            call = _call(candidate, question)
            if known is not None:
                tokens, cost = known.price(
                    candidate.word, candidate.fields, self._quota, self._allowance
                )
        except ValueError as error:
            refused = Unsendable(candidate.request_id, candidate.number, str(error))
            self.drawn.unsendable.append(refused)
            return
        if self._budget is not None and cost > self._budget:
            self.drawn.over_budget = True
        elif self._tokens is not None and self._tokens <= 0:
            self.drawn.out_of_tokens = True
        else:
            if self._budget is not None:
                self._budget -= cost
            if self._tokens is not None:
                self._tokens -= tokens or 0
            self.drawn.leases.append(Lease(call, prompt_id, tokens, cost, candidate.revision))


def _candidates(
    conn: sqlite3.Connection, scope: Scope, prompt_id: int, due: _Due, now_ms: int
) -> Generator[_Candidate, None, None]:
    """Yield the requests of a prompt that are due in one of the ways, one by one as they are read.

    Every drawing asks with this one statement. Each way is answered from an index of its own, so
    that a heap of done, waiting or fresh requests makes no drawing slower.
    """
    index, chosen = f"INDEXED BY {due.name}", ""
    asked = scope.selection.request_ids
    if asked is not None:
        # By their primary key.
        index, chosen = "NOT INDEXED", " AND requests.id IN (SELECT value FROM json_each(:asked))"
    rows = conn.execute(
        "SELECT requests.id, requests.attempts + 1, words.text, words.fields, nullif(revision, 1)"
        f" FROM requests {index} CROSS JOIN words ON words.id = word_id"
        f" WHERE prompt_id = :prompt_id AND state = 'pending' AND {due.condition}{chosen}"
        f" ORDER BY {due.order}",
        {"prompt_id": prompt_id, "now_ms": now_ms, "asked": json.dumps(asked)},
    )
    with closing(rows):
        yield from map(_Candidate._make, rows)


def _question(conn: sqlite3.Connection, prompt_id: int, policy: Policy) -> _Question:
    provider, model, template, text, served_at_ms = conn.execute(
        "SELECT provider, model, template, params, served_at_ms"
        " FROM prompts JOIN tallies ON prompt_id = id WHERE id = ?",
        (prompt_id,),
    ).fetchone()
    params = _params(text)
    timeout_ms = _timeout_ms(policy, params)
    served_before = served_at_ms > 0
    return _Question(provider, model, _template(template), params, served_before, timeout_ms)


_USUAL_TIMEOUT_MS = Policy().call_timeout_ms
FLEX_TIMEOUT_MS = 30 * 60_000
"""As the service gives such a call; unless the user has set a time-out."""

_template = functools.lru_cache(maxsize=64)(Template)


@functools.lru_cache(maxsize=64)
def _params(text: str) -> Mapping[str, Any]:
    return MappingProxyType(json_object(text, "the parameters of a prompt"))


def _timeout_ms(policy: Policy, params: Mapping[str, Any]) -> int:
    """Return how long a call may take: half an hour where it waits for capacity that is left."""
    usual_ms = policy.call_timeout_ms
    flexible = params.get("request_type") == "flex" and usual_ms == _USUAL_TIMEOUT_MS
    return FLEX_TIMEOUT_MS if flexible else usual_ms


def _call(candidate: _Candidate, question: _Question) -> Call:
    """Return the call for a request. Raises ValueError with the reason if it can't be sent."""
    try:
        fields = fields_of(candidate.fields, candidate.word)
        rendered = question.template.render(candidate.word, fields)
    except MissingField as error:
        raise ValueError(f"the template needs {{{error}}}, which this word has not") from error
    except CrawlerError as error:
        raise ValueError(f"the fields of this word can't be read ({error.cause})") from error
    return Call(
        request_id=candidate.request_id,
        number=candidate.number,
        word=candidate.word,
        provider=question.provider,
        model=question.model,
        prompt=rendered.prompt,
        prefill=rendered.prefill,
        params=question.params,
        timeout_ms=question.timeout_ms,
        served_before=question.served_before,
    )
