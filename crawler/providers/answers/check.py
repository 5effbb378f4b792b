"""Whether an answer is what its prompt's parameters ask for: the same for every provider.

Rule: pure; an answer that fails is none, with this reason, and is asked for again. A
reason says no words that the answer says: numbers and lengths at the most.

``response_schema`` and ``response_mime_type`` (``application/json``) ask for JSON, ``checks`` for
what a small model gets wrong.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from crawler.answer_schema import SCHEMA, misfit
from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.json_answer import read_json, without_fence
from crawler.providers.answers.thoughts import split_thoughts
from crawler.states import Outcome
from crawler.states.kinds import Kind

MIME_TYPE = "response_mime_type"
JSON_TYPE = "application/json"

OK = 200

STEM_SHARE = 0.6
"""How much of a word must be found: abrogate is mentioned by "abrogating"."""


def wants_json(params: Mapping[str, Any]) -> bool:
    """Tell whether an answer is to be JSON."""
    return SCHEMA in params or params.get(MIME_TYPE) == JSON_TYPE


def require_checks(call: Call) -> None:
    """Refuse a call whose answer could not be checked, before it is paid for."""
    for name in call.params.get("checks", ()):
        if name not in CHECKS:
            raise ProviderError(Outcome.REJECTED, f"there is no check {name!r}")


def examine(
    params: Mapping[str, Any], word: str, text: str, prefill: str = ""
) -> tuple[str, str | None]:
    """Look at what a model wrote.

    Args:
        params: the prompt's.
        word: what the call was about.
        text: all that the model wrote.
        prefill: how the answer began before that; it is no merit of the model's.

    Returns the answer as it is to be stored (without thoughts, and of JSON without a Markdown
    fence), and what is wrong with it as the end of a sentence that begins with "the answer"; None
    if it is good.

    """
    opened = split_thoughts(prefill)
    split = split_thoughts((opened.text if opened.is_open else prefill) + text)
    answer = split.text.strip()
    if split.is_open:
        return answer, "is not whole: its thoughts have no end"
    if wants_json(params):
        answer = without_fence(answer)
        fault = _json_fault(params.get(SCHEMA), answer)
        if fault is not None:
            return answer, fault
    return answer, complaint(params.get("checks", ()), word, text)


def accepted(call: Call, written: Answer, refused: str | None) -> Answer:
    """Return what a model wrote as the answer that is stored.

    Args:
        call: the call.
        written: all that the model wrote, without the call's prefill, and what it says of it.
        refused: why the model refused; None if it did not.

    Raises ProviderError, with the text that is no good, if it is none.

    """
    answer, fault = _kept(call, written)
    outcome, reason, kind = Outcome.NO_ANSWER, None, Kind.NOT_AN_ANSWER
    if refused is not None:
        outcome, reason, kind = Outcome.BLOCKED, refused, Kind.BLOCKED
    elif answer.truncated and not call.params.get("allow_truncated"):
        reason, kind = _cut_off(call, answer), Kind.TRUNCATED
    elif not answer.text:
        reason = f"the answer is empty ({answer.finish_reason})"
    elif fault is not None:
        reason = f"the answer {fault}"
    if reason is None:
        return answer
    # The server is well: there is nothing to wait for.
    raise ProviderError(outcome, reason, status_code=OK, retry_after_ms=0, answer=answer, kind=kind)


def _cut_off(call: Call, answer: Answer) -> str:
    """Return how an answer was cut off, and what helps: thoughts count, too."""
    said = "the answer is cut off at max_output_tokens"
    if not answer.tokens_thought:
        return said
    used = answer.tokens_thought + (answer.tokens_out or 0)
    most = call.params.get("max_output_tokens", call.params.get("maxOutputTokens", used))
    helps = "`--param thinking=0` or a larger" if call.provider == "vertex" else "it needs a larger"
    return f"{said}: thinking used {answer.tokens_thought} of {most}: {helps} max_output_tokens"


def draft(call: Call, written: Answer) -> Answer:
    """Return what a model had written before it broke off, as it is kept beside the failure."""
    return _kept(call, written)[0]


def _kept(call: Call, written: Answer) -> tuple[Answer, str | None]:
    text, fault = examine(call.params, call.word, written.text, call.prefill)
    text = text if written.text.strip() else ""
    return written if text == written.text else written._replace(text=text), fault


def _json_fault(schema: Mapping[str, Any] | None, text: str) -> str | None:
    try:
        value = read_json(text)
    except ValueError as error:
        return f"is not JSON ({error})"
    return None if schema is None else misfit(schema, value)


def ends_as_sentence(word: str, text: str) -> str | None:
    """Return what is wrong if the text stops in mid-sentence."""
    del word
    closing = text.rstrip().rstrip("\"'”’)")
    return None if closing.endswith((".", "!", "?")) else "does not end as a sentence"


def mentions_word(word: str, text: str) -> str | None:
    """Return what is wrong if the word's stem is not in the text."""
    stem = word[: max(4, round(len(word) * STEM_SHARE))].lower()
    return None if stem in text.lower() else "does not mention the word"


CHECKS: Mapping[str, Callable[[str, str], str | None]] = MappingProxyType(
    {"ends_as_sentence": ends_as_sentence, "mentions_word": mentions_word}
)


def complaint(checks: Iterable[str], word: str, text: str) -> str | None:
    """Return the first complaint of the named checks about an answer; None if it passes."""
    for name in checks:
        found = CHECKS[name](word, text)
        if found is not None:
            return found
    return None
