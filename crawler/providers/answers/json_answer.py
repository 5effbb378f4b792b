"""Reads the JSON that a model has written, as SQLite is going to read it.

Rule: what is accepted here every SQLite reads, to the same values. Python alone would accept more
(NaN, half a character), lose some (a name given twice) and give up on other (deep nesting).
"""

import json
import math
import re

from crawler.answer_schema import nodes

_SPACE = "\ufeff \t\r\n"
_FENCE = re.compile(r"(`{3,9}|~{3,9})[A-Za-z]{0,20}(?=[\s{\[])")


def without_fence(text: str) -> str:
    """Return a text without the Markdown fence, the white space or byte order mark around it.

    The fence is around all of it: what stands in the middle of prose is part of the prose. One
    that is not closed is cut off as well; whether what is left is whole is for its reader to say.
    """
    text = text.strip(_SPACE)
    mark = _FENCE.match(text)
    if mark is None:
        return text
    inner = text[mark.end() :].removesuffix(mark[1]).strip(_SPACE)
    return text if f"\n{mark[1]}" in inner else inner


def read_json(text: str) -> object:
    """Return the value that a text says. Raises ValueError, which does not quote it."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once_each,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    for node in nodes(value):
        if isinstance(node, str):
            _require_text(node)
    return value


def _require_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("it has a NUL character in it, where SQLite would cut it off")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it has half a character in it, a lone surrogate") from error


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it gives a name twice")
    return fields


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _whole(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("it has a number in it that is too large")
    return number
