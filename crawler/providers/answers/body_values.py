"""The JSON values in a response, however many and in whatever frame, as one body.

Rule: pure, in linear time, and nothing is raised: what is no JSON is left out. An event stream that
nobody asked for, several values in a row and the pieces of an answer become the one body that would
have said the same.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from crawler.providers.answers.event_stream import EventReader

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
"""Where a message has the model's thoughts, beside its text."""
MOST_VALUES = 100_000
_DONE = "[DONE]"
_STARTS_OF_STREAM = ("data:", "event:", "id:", "retry:", ":")
_BETWEEN = re.compile(r"[\s,]*")


class Body(NamedTuple):
    """The values in a response.

    Attributes:
        text: the response itself, without what surrounds it.
        values: the JSON values in it, in their order.
        is_stream: they came as events.
        has_end: the stream has said that nothing more comes.

    """

    text: str
    values: list[Any]
    is_stream: bool
    has_end: bool


def body_of(content: bytes | str) -> Body:
    """Return what is in a response."""
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    text = text.strip("\ufeff \t\r\n\0")
    if not text.startswith(_STARTS_OF_STREAM):
        return Body(text, _one_or_more(text), is_stream=False, has_end=False)
    reader = EventReader()
    values: list[Any] = []
    for event in [*reader.feed(text.encode("utf-8", "replace")), *reader.end()]:
        data = event.decode("utf-8", "replace").strip()
        if data == _DONE:
            return Body(text, values, is_stream=True, has_end=True)
        values += _in_a_row(data)
    return Body(text, values, is_stream=True, has_end=False)


def merged(values: Iterable[Any]) -> dict[str, Any]:
    """Return several JSON values as the one body that says the same.

    Pieces of an answer are put together; of whole answers the first counts, and of all other fields
    the last that says something.
    """
    values = list(values)
    if len(values) == 1 and _is_whole(values[0]):
        return dict(values[0])
    whole: dict[str, Any] = {}
    pieces: list[Mapping[str, Any]] = []
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                choices = one.get("choices")
                found = choices[0] if isinstance(choices, list) and choices else None
                if isinstance(found, dict) and not found.get("index"):
                    pieces.append(found)
                whole |= {name: field for name, field in one.items() if field or name not in whole}
    if pieces:
        whole["choices"] = [_put_together(pieces)]
    return whole


def _is_whole(value: Any) -> bool:
    """Tell whether a value is the whole answer, as nearly all are."""
    try:
        return isinstance(value["choices"][0]["message"], dict)
    except (IndexError, KeyError, TypeError):
        return False


def _put_together(pieces: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pieces of one answer as a choice with a message."""
    complete = [piece for piece in pieces if isinstance(piece.get("message"), dict | str)]
    if complete:
        # An event may repeat all that was written so far: the one that has an end is whole.
        ended = [piece for piece in complete if piece.get("finish_reason")]
        return dict((ended or complete)[0])
    choice: dict[str, Any] = {}
    texts: dict[str, list[Any]] = {}
    for piece in pieces:
        delta = piece.get("delta")
        said = delta if isinstance(delta, dict) else piece
        for name in ("content", "text", "refusal", *THOUGHTS):
            if said.get(name):
                texts.setdefault(name, []).append(said[name])
        known = {name: field for name, field in piece.items() if field is not None}
        choice |= {name: field for name, field in known.items() if name not in ("delta", "text")}
    message = {name: _joined(parts) for name, parts in texts.items()}
    if "content" not in message and "text" in message:
        message["content"] = message.pop("text")
    return {**choice, "message": message}


def _joined(parts: list[Any]) -> Any:
    """Return the pieces of one field: texts as one text, parts as one list of parts."""
    if all(isinstance(part, str) for part in parts):
        return "".join(parts)
    flat: list[Any] = []
    for part in parts:
        flat += part if isinstance(part, list) else [part]
    return flat


def _one_or_more(text: str) -> list[Any]:
    """Return the values of a text; nearly always it is one."""
    try:
        value, end = _PLAIN.raw_decode(text)
    except (RecursionError, ValueError):
        end = -1
    return [value] if end == len(text) else list(_in_a_row(text))


def _in_a_row(text: str) -> Iterator[Any]:
    """Yield JSON values that follow each other, up to what is none."""
    at = 0
    for _ in range(MOST_VALUES):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (RecursionError, ValueError):
            return
        yield value
        at = _next(text, at)


def _next(text: str, at: int) -> int:
    """Return where the next value begins."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 30 else float(digits)  # noqa: PLR2004 - digits


_PLAIN = json.JSONDecoder()
_DECODER = json.JSONDecoder(parse_int=_bounded_int)
