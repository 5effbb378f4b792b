"""What an OpenAI-compatible server's body says: an answer, or the reason why it is none.

Rule: pure, and nothing is raised: what came is read as far as it can be, in whatever form:
``delta`` or ``text`` in place of ``message``, content in parts, several values (`body_values`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crawler.providers.answers.body_values import THOUGHTS, body_of, merged
from crawler.providers.answers.finish_reasons import End, end_of, name_of
from crawler.providers.answers.thoughts import cut_thoughts, split_thoughts
from crawler.providers.answers.token_usage import openai_usage
from crawler.providers.answers.written import Written, made, refusal_of_end
from crawler.providers.refusals.decision import refusal_of
from crawler.providers.refusals.said import SAYS_NOTHING, Said
from crawler.redaction import redacted_answer
from crawler.states.kinds import Kind, Refusal, Scope

_NO_TEXT = frozenset(
    {"thinking", "redacted_thinking", "reasoning", "reasoning_content", "tool_use"}
)


class Reading(NamedTuple):
    """What a body says.

    Attributes:
        written: what there is of an answer; it is kept even where it is no good.
        refusal: why it is no good answer; None if it is one.

    """

    written: Written
    refusal: Refusal | None


def read_body(said: Said, *, prefill: str = "", streamed: bool = False) -> Reading:
    """Read a response with a status code of success.

    Args:
        said: the response; its body is the whole one.
        prefill: how the answer was begun; some servers repeat it.
        streamed: the answer came in events that somebody read along, and without an end it is none.

    """
    body = body_of(said.body)
    whole = _unwrapped(merged(body.values))
    choice = _choice(whole)
    if choice is None:
        model = _model(whole, said.secrets)
        nothing = Written(usage=openai_usage(whole.get("usage")), model_version=model)
        return Reading(nothing, _no_answer(said, body.text, body.values))
    streamed = (streamed or body.is_stream) and not body.has_end
    opening = prefill if prefill and split_thoughts(prefill).is_open else ""
    written = _written(choice, whole, opening, said.secrets, streamed=streamed)
    if prefill and written.text.startswith(prefill):
        written = written._replace(text=written.text.removeprefix(prefill))
    return Reading(written, _refusal(said, written, choice, whole))


def _unwrapped(whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body without what a gateway has put around it."""
    for name in ("data", "result"):
        inner = whole.get(name)
        if not whole.get("choices") and isinstance(inner, dict) and inner.get("choices"):
            return inner
    return whole


def _choice(whole: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the answer in a body; None if it has none, or says an error in its place."""
    choices = whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    if whole.get("error") and not _text_and_thoughts(choice)[0].strip():
        return None
    return choice


def _text_and_thoughts(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a choice has as text and what it has as thoughts, in whatever fields."""
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": message} if isinstance(message, str) else choice
    content = message.get("content")
    if content is None:
        content = message.get("text")
    text, thoughts = _of_parts(content)
    # A server may write the same thoughts into two fields.
    beside = next((message[name] for name in THOUGHTS if message.get(name)), None)
    if beside is not None:
        thoughts = "\n".join(filter(None, ["".join(_of_parts(beside)), thoughts]))
    return text, thoughts


def _of_parts(content: Any) -> tuple[str, str]:
    """Return the text and the thoughts of content: a text, or a list of parts."""
    if isinstance(content, str):
        return content, ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            into = (
                thoughts if part.get("type") in _NO_TEXT or part.get("thought") is True else texts
            )
            into.append(_of_part(part))
    return "".join(texts), "".join(thoughts)


def _of_part(part: Mapping[str, Any]) -> str:
    for name in ("text", "thinking", "content", "reasoning", "summary"):
        inner = part.get(name)
        if isinstance(inner, str):
            return inner
        if isinstance(inner, list):
            return "".join(
                one if isinstance(one, str) else str(one.get("text") or "")
                for one in inner
                if isinstance(one, str | dict)
            )
    return ""


def _written(
    choice: Mapping[str, Any],
    whole: Mapping[str, Any],
    opening: str,
    secrets: Sequence[str],
    *,
    streamed: bool,
) -> Written:
    # Cleaned where it has been put together, and before anything is cut off.
    raw, beside = (redacted_answer(text, secrets) for text in _text_and_thoughts(choice))
    split = split_thoughts(opening + raw)
    reason = _reason(choice.get("finish_reason", choice.get("done_reason")), secrets)
    end = end_of(reason, streamed=streamed)
    if split.is_open and end is End.GOOD:
        end = End.HALF
    message = choice.get("message")
    refused = message.get("refusal") if isinstance(message, dict) else None
    thoughts = "\n".join(filter(None, [beside.strip(), split.thoughts]))
    return Written(
        split.text,
        cut_thoughts(thoughts) if thoughts else "",
        end,
        name_of(reason),
        refused if isinstance(refused, str) else "",
        openai_usage(whole.get("usage")),
        _model(whole, secrets),
    )


def _reason(named: Any, secrets: Sequence[str]) -> Any:
    return redacted_answer(named, secrets) if isinstance(named, str) else named


def _model(whole: Mapping[str, Any], secrets: Sequence[str]) -> str | None:
    """Return the model that answered, with the fingerprint of the system that it ran on."""
    model, fingerprint = whole.get("model"), whole.get("system_fingerprint")
    named = model if isinstance(model, str) else None
    if isinstance(fingerprint, str) and fingerprint:
        named = f"({fingerprint})" if named is None else f"{named} ({fingerprint})"
    return None if named is None else redacted_answer(named, secrets)


def _refusal(
    said: Said, written: Written, choice: Mapping[str, Any], whole: Mapping[str, Any]
) -> Refusal | None:
    """Return why what was written is no good answer; None if it is one."""
    reason = written.finish_reason or "no finish reason"
    blank = not written.text.strip()
    if written.refused or (blank and written.end is End.BLOCKED):
        return made(Kind.BLOCKED, f"the model refused ({reason})")
    if not blank and written.end is End.GOOD:
        return None
    error = choice.get("error") or whole.get("error")
    if error:
        inner = refusal_of(said._replace(body=_as_error(error)))
        is_half = not blank and bool(choice.get("error"))
        return inner._replace(kind=Kind.HALF, scope=Scope.WORD) if is_half else inner
    if blank and end_of(choice.get("finish_reason")) is End.HALF:
        return made(Kind.TRANSIENT, f"the answer ended before it began ({reason})")
    return refusal_of_end(written)


def _no_answer(said: Said, body: str, values: list[Any]) -> Refusal:
    """Return what a body means in which there is no answer.

    Its words count only where it tells of an error, or is none of the forms that an answer has: the
    beginning of one may have any words in it.
    """
    errors = [one for one in values if isinstance(one, dict) and _tells_of_error(one)]
    errors = [one for one in errors if one.get("error")] or errors
    if errors:
        feedback = errors[-1].get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason"):
            name = name_of(_reason(feedback["blockReason"], said.secrets))
            return made(Kind.BLOCKED, f"the prompt was blocked ({name})")
        return refusal_of(said._replace(body=json.dumps(errors[-1], ensure_ascii=False)))
    if said.status in (201, 202) or (not values and not body.startswith(("{", "["))):
        return _named(refusal_of(said))
    cut = "the answer is cut off or not JSON" if not values else "there is no answer in the body"
    return made(Kind.NOT_AN_ANSWER, cut)


def _tells_of_error(value: Mapping[str, Any]) -> bool:
    if value.get("error") or value.get("errors") or value.get("promptFeedback"):
        return True
    names = ("message", "detail", "base_resp", "code", "msg", "error_code", "error_msg")
    return not value.get("choices") and any(value.get(name) for name in names)


def _as_error(error: Any) -> str:
    return json.dumps({"error": error}, ensure_ascii=False)


def _named(refusal: Refusal) -> Refusal:
    """Return a refusal with a reason for a body in which there is nothing to quote."""
    if refusal.reason != SAYS_NOTHING:
        return refusal
    return refusal._replace(reason="the server sent an empty body in place of an answer")
