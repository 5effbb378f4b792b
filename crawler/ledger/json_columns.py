"""JSON objects that rows hold: parameters, fields, options.

Rule: a file may come from anybody. What is no object, or is nested so deep that whoever walks
through it would run out of stack, is an error that says where it is, and nothing else.
"""

import json
from typing import Any

from crawler.ledger.repair import not_as_made

DEEPEST = 100
"""More than any schema needs, and less than any library can walk through."""


def json_object(text: str, where: str) -> dict[str, Any]:
    """Return the object that a column holds. Raises CrawlerError."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise not_as_made(f"{where} are nested too deep") from None
    except ValueError as error:
        raise not_as_made(f"{where} are no JSON ({error})") from error
    if not isinstance(value, dict):
        raise not_as_made(f"{where} are no JSON object")
    if is_too_deep(value):
        raise not_as_made(f"{where} are nested too deep")
    return value


def fields_of(text: str | None, word: str) -> dict[str, str]:
    """Return the fields of a word; what a person has put there that is no text, as JSON.

    Raises CrawlerError.
    """
    if not text:
        return {}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in json_object(text, f"the fields of {word!r}").items()
    }


def is_too_deep(value: object) -> bool:
    """Tell whether a value is nested deeper than it may be on record."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
