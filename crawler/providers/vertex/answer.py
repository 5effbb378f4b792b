"""From what the service sends back to an answer, or to the reason why it is none.

Rule: an answer in one message and an answer in many are read alike: the messages are gathered
first. Thoughts are no part of the text.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.check import OK, accepted
from crawler.providers.answers.finish_reasons import End, end_of_vertex
from crawler.providers.answers.reply import answer_of, draft_of
from crawler.providers.answers.thoughts import cut_thoughts
from crawler.providers.answers.token_usage import vertex_usage
from crawler.providers.answers.written import Written, made, refusal_of_end
from crawler.providers.vertex.messages import Candidate, GenerateContentResponse
from crawler.redaction import redacted
from crawler.states import Outcome
from crawler.states.kinds import Kind, Refusal

MOST_CANDIDATES = 16
"""Answers to one question that are looked at; more than 8 can't be asked for."""


class Gathered(NamedTuple):
    """What the messages of one answer say together."""

    text: str
    thoughts: str
    finish_reason: str | None
    """None where there is no candidate."""
    finish_message: str
    block_reason: str | None
    block_message: str
    usage: Any
    model_version: str
    response_id: str
    avg_logprobs: float


def message_in(body: bytes | None, kind: Any = GenerateContentResponse) -> Any:
    """Return the message that some bytes are. Raises ProviderError where they are none."""
    try:
        return kind.FromString(body)
    except (DecodeError, TypeError) as error:
        raise ProviderError(
            Outcome.NO_ANSWER,
            "the answer can't be read",
            status_code=OK,
            retry_after_ms=0,
            kind=Kind.NOT_AN_ANSWER,
        ) from error


def text_of(message: Any) -> str:
    """Return the text in one message, without the model's thoughts."""
    candidate = _candidate(message, 0)
    return "" if candidate is None else _text(candidate)


def _text(candidate: Any, *, thoughts: bool = False) -> str:
    return "".join([part.text for part in candidate.content.parts if part.thought == thoughts])


def _candidate(message: Any, number: int) -> Any:
    """Return one of the answers; others to the same question may come in messages of their own."""
    for candidate in message.candidates:
        if candidate.index == number:
            return candidate
    return None


def gather(messages: Iterable[Any]) -> Gathered:
    """Read the messages of one answer: of several candidates the first good one, else the first."""
    told = list(messages)
    if len(told) == 1 and len(told[0].candidates) == 1:
        return _gathered(told, told[0].candidates[0].index)
    numbers = {candidate.index for message in told for candidate in message.candidates}
    found = [_gathered(told, number) for number in sorted(numbers or {0})[:MOST_CANDIDATES]]
    return next(filter(_is_good, found), found[0])


def _is_good(found: Gathered) -> bool:
    return end_of_vertex(found.finish_reason) is End.GOOD and bool(found.text.strip())


def _gathered(messages: Iterable[Any], number: int) -> Gathered:
    text = thoughts = ""
    finish_reason = block_reason = None
    finish_message = block_message = model_version = response_id = ""
    usage, avg_logprobs = None, 0.0
    for message in messages:
        candidate = _candidate(message, number)
        if candidate is not None:
            text += _text(candidate)
            thoughts += _text(candidate, thoughts=True)
        if candidate is not None:
            if candidate.finish_reason or finish_reason is None:
                finish_reason = _name(Candidate.FinishReason, candidate.finish_reason)
            finish_message = candidate.finish_message or finish_message
            avg_logprobs = candidate.avg_logprobs or avg_logprobs
        feedback = message.prompt_feedback
        if feedback.block_reason:
            block_reason = _name(_BLOCKED_REASON, feedback.block_reason)
            block_message = feedback.block_reason_message
        if message.HasField("usage_metadata"):
            usage = message.usage_metadata  # of all so far
        model_version = message.model_version or model_version
        response_id = message.response_id or response_id
    return Gathered(
        text,
        thoughts,
        finish_reason,
        finish_message,
        block_reason,
        block_message,
        usage,
        model_version,
        response_id,
        avg_logprobs,
    )


_LONGEST_ID = 200
_TRAFFIC_TYPE = GenerateContentResponse.UsageMetadata.TrafficType
_BLOCKED_REASON = GenerateContentResponse.PromptFeedback.BlockedReason


def read_generated(call: Call, messages: Iterable[Any], secrets: Sequence[str] = ()) -> Answer:
    """Return the answer in the messages of a call. Raises ProviderError if there is none."""
    found = _clean(gather(messages), secrets)
    written = _written(found)
    return answer_of(call, written, _refusal(found, written))


def read_draft(call: Call, messages: Iterable[Any], secrets: Sequence[str] = ()) -> Answer:
    """Return what there is of an answer that broke off."""
    return draft_of(call, _written(_clean(gather(messages), secrets)))


def _clean(found: Gathered, secrets: Sequence[str]) -> Gathered:
    """Return what was said without some secrets."""
    return found._replace(
        text=redacted(found.text, secrets),
        thoughts=redacted(found.thoughts, secrets),
        finish_message=redacted(found.finish_message, secrets),
        block_message=redacted(found.block_message, secrets),
        model_version=redacted(found.model_version, secrets),
        response_id=redacted(found.response_id, secrets),
    )


def _written(found: Gathered) -> Written:
    return Written(
        found.text,
        cut_thoughts(found.thoughts) if found.thoughts else "",
        end_of_vertex(found.finish_reason),
        found.finish_reason,
        usage=vertex_usage(found.usage),
        model_version=found.model_version or None,
        details=_details(found),
    )


def _details(found: Gathered) -> dict[str, Any] | None:
    """Return what else is said of an answer; what is not set is left out."""
    details: dict[str, Any] = {}
    if found.response_id:
        details["response_id"] = found.response_id[:_LONGEST_ID]
    if found.usage is not None and found.usage.traffic_type:
        details["traffic_type"] = _name(_TRAFFIC_TYPE, found.usage.traffic_type)
    if found.avg_logprobs and isfinite(found.avg_logprobs):
        details["avg_logprobs"] = found.avg_logprobs
    return details or None


def _refusal(found: Gathered, written: Written) -> Refusal | None:
    """Return why what was written is no good answer; None if it is one."""
    if found.block_reason is not None:
        said = f"the prompt was blocked: {found.block_reason}"
        return made(Kind.BLOCKED, _reason(said, found.block_message))
    if found.finish_reason is None:
        return made(Kind.NOT_AN_ANSWER, "the answer is empty (no candidate)")
    if written.end is End.BLOCKED:
        said = f"the answer was blocked: {found.finish_reason}"
        return made(Kind.BLOCKED, _reason(said, found.finish_message))
    refusal = refusal_of_end(written)
    if refusal is None or not found.finish_message:
        return refusal
    return refusal._replace(reason=_reason(refusal.reason, found.finish_message))


def read_predicted(call: Call, message: Any, text_at: str, secrets: Sequence[str] = ()) -> Answer:
    """Return the answer of Predict. Raises ProviderError if there is none."""
    if not message.predictions:
        reason = "there is no prediction"
        raise ProviderError(
            Outcome.NO_ANSWER, reason, status_code=OK, retry_after_ms=0, kind=Kind.NOT_AN_ANSWER
        )
    prediction = _plain(message.predictions[0])
    text = _at(prediction, text_at)
    if not isinstance(text, str):
        reason = f"the prediction has no text at {text_at!r} (parameter text_at)"
        raise ProviderError(Outcome.REFUSED, reason, status_code=OK, kind=Kind.PARAMETER)
    metadata = _plain(message.metadata)
    written = Answer(
        redacted(text, secrets),
        _tokens(metadata, "input"),
        _tokens(metadata, "output"),
        model_version=redacted(message.model_version_id, secrets) or None,
    )
    blocked = _at(prediction, "safetyAttributes.blocked") is True
    return accepted(call, written, "the answer was blocked for safety" if blocked else None)


def _reason(what: str, message: str) -> str:
    return f"{what} ({' '.join(message.split())})" if message else what


@lru_cache(256)
def _name(enum: Any, number: int) -> str:
    """Return the name of an enum's value; the service may know more of them than we."""
    return str(enum.Name(number)) if number in enum.values() else str(number)


def _plain(value: Any) -> Any:
    """Return what a google.protobuf.Value holds; its library refuses numbers that JSON has not."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _plain(inner) for name, inner in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(inner) for inner in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _at(value: Any, path: str) -> Any:
    """Return what is at a path such as ``candidates.0.content``; None if nothing is."""
    for step in filter(None, path.split(".")):
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return None
    return value


def _tokens(metadata: Any, side: str) -> int | None:
    count = _at(metadata, f"tokenMetadata.{side}TokenCount.totalTokens")
    return int(count) if isinstance(count, float) and count.is_integer() else None
