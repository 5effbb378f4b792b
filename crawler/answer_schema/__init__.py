"""The JSON Schema that answers are to have: a prompt's parameter ``response_schema``.

Rule: pure, and one meaning everywhere. What is sent to a model, what its answer is checked against
and what the columns of the prompt's view are called is all read here.

Columns are read from an object's properties. An answer is checked against the whole schema, with
its patterns and formats; what can't be checked is refused when the prompt is added. Vertex AI's own
way to write a schema (``STRING`` for ``string``, ``nullable``) says the same.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from crawler.answer_schema.checker import checker, given, unchecked
from crawler.errors import CrawlerError, Exit

SCHEMA = "response_schema"
MOST_PROPERTIES = 1_000
DEEPEST = 100
"""Levels of nesting, of a schema and of an answer; SQLite reads 1,000."""

_IS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "array": lambda value: isinstance(value, list),
        "boolean": lambda value: isinstance(value, bool),
        "integer": lambda value: _IS["number"](value) and value % 1 == 0,
        "null": lambda value: value is None,
        "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        "object": lambda value: isinstance(value, dict),
        "string": lambda value: isinstance(value, str),
    }
)


def require_schema(params: Mapping[str, Any]) -> None:
    """Accept parameters with a schema that can be obeyed, or with none. Raises CrawlerError."""
    fault = _fault(params[SCHEMA]) if SCHEMA in params else None
    if fault is not None:
        raise CrawlerError(
            f"the {SCHEMA} can't be used",
            fault,
            'write one like {"type": "object", "properties": {"definition": {"type": "string"}}}',
            Exit.USAGE,
        )


def property_names(params: Mapping[str, Any]) -> list[str]:
    """Return what the fields of an answer are called, in the schema's order."""
    return list(params[SCHEMA]["properties"]) if SCHEMA in params else []


def types(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema allows; none where it names none, which allows all."""
    named = schema.get("type", [])
    kinds = [str(kind).lower() for kind in (named if isinstance(named, list) else [named])]
    return [*kinds, "null"] if kinds and schema.get("nullable") is True else kinds


def misfit(schema: Mapping[str, Any], answer: object) -> str | None:
    """Return what keeps a JSON value from being an answer of the schema; None if it is one.

    Says no words of the answer: names of the schema's own, what it wants, numbers and lengths.
    """
    if not isinstance(answer, dict):
        return "is no JSON object"
    check = checker(schema)
    if check is not None and check.is_valid(answer):
        return None
    return _first_misfit(schema, answer) or (None if check is None else check.complaint(answer))


def _first_misfit(schema: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    """Return what is wrong at first sight: a field is not there, or is of another type."""
    for name in schema.get("required", ()):
        if name not in answer:
            return f"lacks {name!r}"
    for name, inner in schema["properties"].items():
        wanted = types(inner)
        if name in answer and wanted and not any(_IS[kind](answer[name]) for kind in wanted):
            found = given(answer[name])
            return f"has {name!r} of another type than {' or '.join(wanted)}: {found}"
    return None


def nodes(value: object) -> Iterator[object]:
    """Yield a JSON value and all values and names in it. Raises ValueError if it nests too deeply.

    It takes no recursion, so that no value can exhaust the stack.
    """
    left = [(value, 1)]
    while left:
        node, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError(f"it nests more than {DEEPEST} levels deep")
        yield node
        if isinstance(node, dict):
            left += [(item, depth + 1) for pair in node.items() for item in pair]
        elif isinstance(node, list):
            left += [(item, depth + 1) for item in node]


def _fault(schema: object) -> str | None:
    """Return what is wrong with a schema."""
    if not isinstance(schema, dict):
        return "it is no JSON object"
    if types(schema) != ["object"]:
        return 'its "type" is not "object", and only an object has fields'
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return 'it has no "properties", which name the fields'
    if len(properties) > MOST_PROPERTIES:
        return f"it has more than {MOST_PROPERTIES} properties"
    required = schema.get("required", [])
    if not isinstance(required, list) or any(
        not isinstance(name, str) or name not in properties for name in required
    ):
        return 'its "required" is no list of names of its properties'
    return _property_fault(properties) or _json_fault(schema) or unchecked(schema)


def _property_fault(properties: Mapping[object, object]) -> str | None:
    """Return what keeps properties from being columns, with names and types that we know."""
    seen: dict[str, str] = {}
    for name, inner in properties.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            return f"a property can't be called {name!r}"
        if name.lower() in ("true", "false"):
            return f"no column can be called {name!r}"  # SQLite gives it another name
        # SQL makes no difference between upper and lower case in the name of a column.
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return f"the properties {other!r} and {name!r} differ by case only"
        if not isinstance(inner, dict):
            return f"the property {name!r} is no JSON object"
        unknown = [kind for kind in types(inner) if kind not in _IS]
        if unknown:
            return f"the property {name!r} has a type that there is not: {unknown[0]}"
    return None


def _json_fault(schema: object) -> str | None:
    try:
        for _ in nodes(schema):
            pass
        json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    except (RecursionError, TypeError, ValueError) as error:
        return f"it can't be written as JSON: {error}"
    return None
