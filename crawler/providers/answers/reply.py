"""From what a server said to the answer that is stored, or to the error that ends the attempt.

Rule: pure, and the same for every provider. What a refusal means is `refusal`'s to say, and whether
an answer fits its prompt is `check`'s.
"""

from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.check import accepted, draft
from crawler.providers.answers.written import Written
from crawler.states import Outcome
from crawler.states.kinds import Action, Kind, Refusal

TOO_MANY = 429


def answer_of(call: Call, written: Written, refusal: Refusal | None) -> Answer:
    """Return what a model wrote as the answer that is stored. Raises ProviderError if it is none.

    Args:
        call: the call.
        written: all that the model wrote, without the call's prefill.
        refusal: why it is no good answer; None if it is one, as far as the server says.

    """
    answer = _answer(written, truncated=refusal is not None and refusal.kind is Kind.TRUNCATED)
    if refusal is None or refusal.kind is Kind.TRUNCATED:
        return accepted(call, answer, None)
    raise error_of(refusal, draft_of(call, written))


def draft_of(call: Call, written: Written) -> Answer:
    """Return what there is of an answer that broke off: it was paid for."""
    return draft(call, _answer(written, truncated=False))


def error_of(refusal: Refusal, answer: Answer | None = None) -> ProviderError:
    """Return the error that a refusal is, with what the call brought all the same."""
    kind = refusal.kind
    if kind is Kind.WORD and not refusal.certain:
        kind = Kind.UNCLEAR  # the verdict waits for other words
    return ProviderError(
        _outcome(refusal._replace(kind=kind)),
        _reason(refusal),
        status_code=refusal.status_code,
        retry_after_ms=0 if answer is not None and _is_well(kind) else refusal.retry_after_ms,
        answer=answer,
        daily=kind is Kind.THROTTLED_DAY,
        kind=kind,
    )


def _reason(refusal: Refusal) -> str:
    """Return what the server said; of a word that fails, with what a person can do about it."""
    fails = refusal.meaning.action is Action.FAIL and refusal.remedy
    return f"{refusal.reason} ({refusal.remedy})" if fails else refusal.reason


def _outcome(refusal: Refusal) -> Outcome:
    if refusal.kind is Kind.OVERLOADED and refusal.status_code != TOO_MANY:
        return Outcome.TRANSIENT  # the server is busy, and has not said that we are too many
    return Outcome(refusal.meaning.outcome)


def _is_well(kind: Kind) -> bool:
    """Tell whether the server is well, and only its answer is no good."""
    return kind in (Kind.HALF, Kind.ODD, Kind.RECITATION, Kind.NOT_AN_ANSWER, Kind.BLOCKED)


def _answer(written: Written, *, truncated: bool) -> Answer:
    usage = written.usage
    return Answer(
        written.text,
        usage.prompt,
        usage.text,
        usage.thoughts,
        written.finish_reason,
        written.model_version,
        truncated=truncated,
        thoughts=written.thoughts,
        tokens_cached=usage.cached,
        details=written.details,
    )
