"""Why a model stopped, and what that makes of its answer: closed lists.

Rule: what is in no list of good ends is no good end. A reason that nobody knows is odd: it is asked
again at most `MOST_ODD` times, and then the word has failed with the reason's name.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

MOST_ODD = 2
"""More tries after an odd end."""
_MOST_NAME = 60


class End(StrEnum):
    """What an end makes of an answer."""

    GOOD = "good"
    TRUNCATED = "truncated"
    BLOCKED = "blocked"
    HALF = "half"
    ODD = "odd"
    ODD_BLOCKED = "odd_blocked"  # odd, and blocked when it has been asked again in vain


_LISTS: Mapping[End, str] = MappingProxyType(
    {
        End.GOOD: "stop eos eos_token end_turn stop_sequence complete eosfound stopstringfound"
        " succeeded",
        End.TRUNCATED: "length max_tokens model_length model_context_window_exceeded"
        " max_output_tokens max_length max_new_tokens token_limit"
        " maxpredictedtokensreached contextlengthreached limit",
        End.BLOCKED: "content_filter content_filtered safety refusal sensitive blocklist"
        " prohibited_content spii model_armor jailbreak image_safety image_prohibited_content"
        " error_toxic guardrail_intervened content_policy content_policy_violation",
        End.HALF: "abort aborted error insufficient_system_resource network_error timeout"
        " pause_turn unload load modelunloaded failed canceled cancelled user_cancel userstopped"
        " error_limit repetition_truncation",
        End.ODD_BLOCKED: "recitation image_recitation",
    }
)
_ENDS: Mapping[str, End] = MappingProxyType(
    {name: end for end, names in _LISTS.items() for name in names.split()}
)

VERTEX_NUMBERS: tuple[str, ...] = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "MODEL_ARMOR",
)
"""What Vertex AI's numbers are called; one that is not here is unknown, and odd."""


def end_of(reason: Any, *, streamed: bool = False) -> End:
    """Return what a finish reason of an OpenAI-like server makes of an answer.

    None is good, because some servers give no reason at all; not in a stream, where it says that
    the end has not come. ``content_filter: RECITATION`` is Gemini's, which is more exact.
    """
    if reason is None or reason == "":
        return End.ODD if streamed else End.GOOD
    if not isinstance(reason, str):
        return End.ODD
    known = _ENDS.get(reason)
    if known is not None:
        return known
    name, _, more = _plain(reason).partition(":")
    if more.strip("_ ") in _LISTS[End.ODD_BLOCKED].split():
        return End.ODD_BLOCKED
    return _ENDS.get(name.strip("_ "), End.ODD)


def end_of_vertex(reason: str | int | None) -> End:
    """Return what a finish reason of Vertex AI makes of an answer, by its name or its number.

    None and FINISH_REASON_UNSPECIFIED say that the answer has not come to its end.
    """
    name = vertex_name(reason)
    return End.ODD if name is None else _ENDS.get(_plain(name), End.ODD)


def vertex_name(reason: str | int | None) -> str | None:
    """Return what a finish reason of Vertex AI is called; its number where it has no name."""
    if isinstance(reason, str) and reason.isdecimal() and len(reason) < 4:  # noqa: PLR2004 - digits
        reason = int(reason)
    if isinstance(reason, int) and 0 <= reason < len(VERTEX_NUMBERS):
        return VERTEX_NUMBERS[reason]
    return None if reason is None else str(reason)


def name_of(reason: Any) -> str | None:
    """Return a finish reason as it is kept: one short word, whatever a server puts there."""
    if reason is None or isinstance(reason, bool | dict | list | float):
        return None if reason is None else type(reason).__name__
    name = str(reason)[:_MOST_NAME]
    return (name if name.isprintable() else "".join(filter(str.isprintable, name))) or None


def _plain(reason: str) -> str:
    return reason[:_MOST_NAME].strip().lower().replace("-", "_").replace(" ", "_")
