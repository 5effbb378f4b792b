"""Reads lists in JSON: an array of texts or objects, or one of them a line.

Rule: numbers are texts as they are written; what is nested in a field is kept as JSON text; two
values under one name are refused.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from crawler.errors import CrawlerError
from crawler.lists.live import counted
from crawler.lists.source import no_list
from crawler.lists.tables import DEFAULT_COLUMN, find_column
from crawler.lists.words import NO_FIELDS, word_of
from crawler.protocol import Row, Word

LARGEST = 500_000_000
"""Characters of an array: it is read whole, unlike one object a line."""
_HINT = "mend the file, or name it .txt to read one word a line"


def words_of_json_lines(
    lines: Iterable[str], name: str, column: str | None
) -> Iterator[Word | None]:
    """Yield the words of JSON lines, None for a blank one. Raises CrawlerError."""
    for number, line in counted(lines):
        if not line.strip():
            yield None
            continue
        where = f"line {number}"
        yield from _word(_value(line.replace("\ufeff", ""), name, where), name, where, column)


def words_of_json(
    lines: Iterable[str], name: str, column: str | None
) -> tuple[Iterator[Word], list[str]]:
    """Return the words of a JSON document, and what has to be said of it. Raises CrawlerError."""
    value = _value(_whole(lines, name).removeprefix("\ufeff"), name, "the file")
    notes: list[str] = []
    if isinstance(value, dict) and find_column(list(value), column or DEFAULT_COLUMN) is None:
        arrays = [key for key, inner in value.items() if isinstance(inner, list)]
        if len(arrays) != 1:
            cause = "it is an object, and which of its values is the list can't be told"
            raise no_list(name, cause, 'write an array, as pandas does with orient="records"')
        notes = [f"the list is its {arrays[0]!r}"]
        value = value[arrays[0]]
    return _items(value if isinstance(value, list) else [value], name, column), notes


def _whole(lines: Iterable[str], name: str) -> str:
    pieces, length = [], 0
    for line in lines:
        pieces.append(line)
        length += len(line)
        if length > LARGEST:
            hint = "write one object a line (.jsonl): that is read line by line"
            raise no_list(
                name, f"a JSON array is read whole, and it has over {LARGEST:,} characters", hint
            )
    return "".join(pieces)


def _items(values: Iterable[Any], name: str, column: str | None) -> Iterator[Word]:
    for number, value in enumerate(values, 1):
        yield from _word(value, name, f"item {number}", column)


def _value(text: str, name: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=lambda _: None)
    except _RepeatedError as error:
        raise no_list(name, f"{where} has two values for {error.args[0]!r}", _HINT) from error
    except (RecursionError, ValueError) as error:
        raise no_list(name, f"{where} is not JSON ({error})", _HINT) from error


class _RepeatedError(Exception):
    """A name that comes twice in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _RepeatedError(next(name for name, count in counts.items() if count > 1))
    return value


def _word(value: Any, name: str, where: str, column: str | None) -> Iterator[Word]:
    """Yield the word of a value, nothing of a blank one."""
    text, fields = value, {}
    if isinstance(value, dict):
        keys = list(value)
        at = 0 if column is None and len(keys) == 1 else find_column(keys, column or DEFAULT_COLUMN)
        text = None if at is None else value.pop(keys[at])
        if text is None and at is not None:
            return
        fields = {key: _as_text(inner) for key, inner in value.items() if inner not in (None, "")}
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        wanted = column or DEFAULT_COLUMN
        raise no_list(
            name, f"{where} has no text {wanted!r}", "name the key of the words: --column KEY"
        )
    try:
        word = word_of(_as_text(text), fields or NO_FIELDS)
    except CrawlerError as error:
        raise no_list(name, f"{where}: {error.what}: {error.cause}", error.hint) from error
    if word is not None:
        yield Row(word.text, word.fields, list(value)) if isinstance(value, dict) else word


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
