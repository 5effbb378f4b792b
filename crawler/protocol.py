"""The plain values that go from room to room, and what a provider is.

Rule: nothing here knows a database, a loop or a network. So calls can be made by tasks in this
process, by the nodes of a cluster, or as the lines of a batch job.

    Word -> ledger -> Lease (with its Call) -> executor -> provider -> Answer or ProviderError
         -> executor -> Finish -> ledger
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from crawler.states import Outcome


class Word(NamedTuple):
    """An item of a list: its text and, from the other columns of the list, its fields."""

    text: str
    fields: Mapping[str, str]

    @property
    def key(self) -> str | None:
        """What tells it from others; None: its text."""
        return None

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return self.text if self.key is None else self.key

    @property
    def columns(self) -> Collection[str]:
        """The other columns of its list, also those in which it has nothing."""
        return self.fields.keys()


class Row(Word):
    """An item of a list that has columns."""

    def __new__(
        cls, text: str, fields: Mapping[str, str], columns: Collection[str], key: str | None = None
    ) -> Self:
        """Make one; with a key if several columns tell it from others: `ledger.items.key_of`."""
        made = super().__new__(cls, text, fields)
        made._columns = columns
        made._key = key
        return made

    @property
    def key(self) -> str | None:
        """What tells it from others; None: its text."""
        return self._key

    @property
    def columns(self) -> Collection[str]:
        """The other columns of its list, also those in which it has nothing."""
        return self._columns

    _columns: Collection[str]
    _key: str | None


class Call(NamedTuple):
    """One attempt, as it is handed to whoever makes it."""

    request_id: int
    number: int
    """1 for the first attempt of a request; a provider may draw its seed from it."""
    word: str
    provider: str
    model: str
    prompt: str
    prefill: str
    """How the answer begins; the model continues it, and it is part of the answer."""
    params: Mapping[str, Any]
    timeout_ms: int
    served_before: bool = False
    """Its prompt has had an answer: what is refused now may be the word's fault."""


class Told(NamedTuple):
    """A quota that a server tells of."""

    what: str
    """What it counts: ``requests`` or ``tokens``."""
    limit: int
    per: str | None
    """In which window: ``minute`` or ``day``; None: that is not known, so the limit is a hint."""
    remaining: int | None = None
    reset_ms: int | None = None
    """How long it takes until the quota is full again."""


class Answer(NamedTuple):
    """What a call brought."""

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    """Tokens of the text."""
    tokens_thought: int | None = None
    """Tokens that the model thought before it; providers charge for them as for the text."""
    finish_reason: str | None = None
    """Why the model stopped, in its provider's word."""
    model_version: str | None = None
    """The model that answered, in its provider's word."""
    truncated: bool = False
    """The text was cut off where no more tokens were allowed."""
    thoughts: str = ""
    """What the model thought before the text; no part of it."""
    tokens_cached: int | None = None
    """Of the tokens of the question: those that a cache had."""
    details: Mapping[str, Any] | None = None
    """What else the service says of it, in its names; JSON can hold it."""
    told: tuple[Told, ...] = ()
    """What the server tells of its quotas."""


class Lease(NamedTuple):
    """A request that may be asked now. Its open attempt is (request_id, number)."""

    call: Call
    prompt_id: int
    tokens: int | None = None
    """Estimate of the tokens that the call uses; None where its limit counts no tokens."""
    cost: float = 0.0
    """The most that the call can cost; 0 where the run has no budget."""
    revision: int | None = None
    """Of the word, from which it was rendered; None: the first."""

    @property
    def request_id(self) -> int:
        """The request."""
        return self.call.request_id

    @property
    def number(self) -> int:
        """The number of the attempt."""
        return self.call.number

    @property
    def word(self) -> str:
        """The text that is asked about."""
        return self.call.word


class Finish(NamedTuple):
    """The end of an attempt, as the executor saw it."""

    request_id: int
    number: int
    finished_at_ms: int
    outcome: Outcome
    text: str | None = None
    """The answer; of an attempt that did not succeed, what it brought all the same."""
    reason: str | None = None
    status_code: int | None = None
    retry_after_ms: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_thought: int | None = None
    finish_reason: str | None = None
    model_version: str | None = None
    truncated: bool = False
    daily: bool = False
    """The quota that refused it is one for the day."""
    reason_code: str | None = None
    """What kind of refusal it is: see `states.kinds.Kind`."""
    thoughts: str = ""
    tokens_cached: int | None = None
    details: str | None = None
    """What else the service said of the answer, as a JSON object."""
    told: tuple[Told, ...] = ()


class ProviderError(Exception):
    """A call that brought no answer.

    Args:
        outcome: how the attempt ended; see `crawler.states`.
        reason: one sentence, without the prompt, the answer or a key.
        status_code: the server's, if it gave one.
        retry_after_ms: the pause that the server asked for, if it did; 0 where the server is well
            and only its answer was no good.
        answer: what the call brought all the same: a text that is no good, what it used.
        daily: the quota that refused the call is one for the day.
        kind: what was said: see `states.kinds.Kind`.

    """

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        *,
        status_code: int | None = None,
        retry_after_ms: int | None = None,
        answer: Answer | None = None,
        daily: bool = False,
        kind: str | None = None,
    ) -> None:
        if outcome is Outcome.SUCCEEDED:
            raise ValueError("a call that succeeded is no error: return an Answer")
        if answer is not None and not isinstance(answer.text, str):
            raise TypeError("the text of an answer is a str")
        reason = str(reason)
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.status_code = status_code
        self.retry_after_ms = retry_after_ms
        self.answer = answer
        self.daily = daily
        self.kind = kind
        self.told: tuple[Told, ...] = ()
        """What the server tells of its quotas."""


class Provider(Protocol):
    """A service that answers prompts."""

    async def generate(self, call: Call) -> Answer:
        """Make one call, once. Raises ProviderError."""


@runtime_checkable
class StreamingProvider(Provider, Protocol):
    """A provider that can tell its text as it comes."""

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Make one call, once, and tell the pieces of its text in their order.

        They are the model's own words: not the prefill, and before anything is cut off or found
        wanting. Whoever has the text only as a whole may tell nothing. Raises ProviderError.
        """


@runtime_checkable
class ListingProvider(Provider, Protocol):
    """A provider that knows which models it has."""

    async def models(self) -> list[dict[str, Any]]:
        """Return the models that it lists; none where it offers no list."""
