"""What a call used, in tokens, as it is billed: read from what a server says of it.

Rule: pure. If prompt and completion are the total, the thoughts are inside the completion; if the
total is larger, the difference is billed as well (Gemini, xAI). What can't be so is unknown: the
ledger charges by estimate then.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_TOKENS = 10**9
"""No call uses more; a larger number is a mistake."""


class Usage(NamedTuple):
    """Tokens of one call; None is unknown.

    Attributes:
        prompt: all of the prompt, with what was cached, with audio and with the results of tools.
        text: of the answer, without the thoughts.
        thoughts: billed like those of the answer.
        cached: of the prompt, those that are billed for less.
        audio: of prompt and answer together.
        tools: of the prompt, those that tools brought.

    """

    prompt: int | None = None
    text: int | None = None
    thoughts: int | None = None
    cached: int | None = None
    audio: int | None = None
    tools: int | None = None

    @property
    def out(self) -> int | None:
        """What is billed as output; None where it is unknown."""
        return None if self.text is None else self.text + (self.thoughts or 0)

    @property
    def total(self) -> int | None:
        """What is billed."""
        out = self.out
        return None if self.prompt is None or out is None else self.prompt + out


UNKNOWN = Usage()


def openai_usage(usage: Any) -> Usage:
    """Read the ``usage`` of an OpenAI-like server, in whatever form it has."""
    if not isinstance(usage, dict):
        return UNKNOWN
    prompt = _first(usage, "prompt_tokens", "input_tokens")
    completion = _first(usage, "completion_tokens", "output_tokens")
    asked = _details(usage, "prompt_tokens_details", "input_tokens_details")
    wrote = _details(usage, "completion_tokens_details", "output_tokens_details")
    total, thought = _first(usage, "total_tokens"), _first(wrote, "reasoning_tokens")
    if thought is None:
        thought = _first(usage, "reasoning_tokens")
    text, thoughts = _parts(prompt, completion, thought, total)
    cached = _first(asked, "cached_tokens")
    if cached is None:
        cached = _first(usage, "prompt_cache_hit_tokens", "cached_tokens")
    audio = None
    if asked or wrote:
        audio = _sum(_first(asked, "audio_tokens"), _first(wrote, "audio_tokens"))
    return _believed(Usage(prompt, text, thoughts, cached or None, audio or None))


def vertex_usage(usage: Any) -> Usage:
    """Read the usage of Vertex AI or Gemini: a message of the library's, or JSON with its names.

    Thoughts are beside the answer there, and a tool's results beside the prompt.
    """
    if usage is None:
        return UNKNOWN
    prompt, text = _of(usage, "prompt_token_count"), _of(usage, "candidates_token_count")
    thoughts, total = _of(usage, "thoughts_token_count"), _of(usage, "total_token_count")
    tools = _of(usage, "tool_use_prompt_token_count")
    if tools is None:
        tools = _modality(usage, "tool_use_prompt_tokens_details", None)
    if text is None and (thoughts is not None or (total is not None and total == prompt)):
        text = 0  # a count of nothing is left out
    asked = _sum(prompt, tools) if prompt is not None else None
    if None not in (asked, text, total):
        thoughts = max(thoughts or 0, (total or 0) - (asked or 0) - (text or 0)) or None
    audio = _sum(
        _modality(usage, "prompt_tokens_details", "AUDIO"),
        _modality(usage, "candidates_tokens_details", "AUDIO"),
    )
    cached = _of(usage, "cached_content_token_count")
    return _believed(Usage(asked, text, thoughts, cached or None, audio or None, tools))


def _parts(
    prompt: int | None, completion: int | None, thought: int | None, total: int | None
) -> tuple[int | None, int | None]:
    """Return the tokens of the text and of the thoughts."""
    if completion is None:
        return None, thought
    beside = 0
    if prompt is not None and total is not None:
        beside = max(0, total - prompt - completion)
    if beside:
        return completion, beside
    if thought is None or (total is None and thought > completion):
        return completion, thought  # more than all: beside it, where no total says so
    return max(0, completion - thought), min(thought, completion) or None


def _believed(usage: Usage) -> Usage:
    """Return what is known of a usage: 0 tokens for a prompt and its answer were not counted."""
    return usage if usage.prompt or usage.out else UNKNOWN


def _count(value: Any) -> int | None:
    """Return a number of tokens; None for what is none, a text among it."""
    # By the type itself: a bool has another, and nearly all are whole already.
    if type(value) is int:
        return value if 0 <= value <= MOST_TOKENS else None
    if not isinstance(value, float) or not value.is_integer():
        return None
    return int(value) if 0 <= value <= MOST_TOKENS else None


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of some numbers that is there and is one."""
    for name in names:
        if name in usage:
            found = _count(usage[name])
            if found is not None:
                return found
    return None


def _details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        found = usage.get(name)
        if isinstance(found, dict):
            return found
    return {}


def _of(usage: Any, name: str) -> int | None:
    """Return a number of a message or of JSON; a field that is not set is unknown."""
    found = _field(usage, name)
    number = _count(found)
    is_message = not isinstance(usage, dict)
    return None if is_message and number == 0 and name != "prompt_token_count" else number


def _field(usage: Any, name: str) -> Any:
    if not isinstance(usage, dict):
        return getattr(usage, name, None)
    first, *rest = name.split("_")
    return usage.get("".join([first, *map(str.capitalize, rest)]), usage.get(name))


def _modality(usage: Any, name: str, modality: str | None) -> int | None:
    """Return the tokens of one modality, or of all (None), in a list of details."""
    found = [
        _of(one, "token_count")
        for one in _field(usage, name) or ()
        if modality is None or _modality_name(one) == modality
    ]
    return _sum(*found) if found else None


def _modality_name(detail: Any) -> str:
    value = _field(detail, "modality")
    return "AUDIO" if value in ("AUDIO", 4) else str(value)


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return min(sum(known), MOST_TOKENS) if known else None
