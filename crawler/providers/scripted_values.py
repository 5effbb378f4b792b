"""The value that the script answers with where a schema says what an answer is.

Rule: pure, and the same schema always has the same value. It keeps what can be kept without a
search: types, numbers of things, bounds, choices, formats, references. What else a schema asks for
(a pattern, ``not``) is for the check of the answer to find, as with any model.
"""

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from crawler.answer_schema import types
from crawler.answer_schema.checker import as_json_schema

_DEEPEST = 20
"""Schemas within one another that say one thing."""
_REFS = 2
"""How often a schema may name itself for what it can do without."""
_AT_LEAST = {"minimum": operator.ge, "exclusiveMinimum": operator.gt}
_AT_MOST = {"maximum": operator.le, "exclusiveMaximum": operator.lt}
_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "date": "2026-01-31",
        "date-time": "2026-01-31T12:00:00Z",
        "duration": "P1D",
        "email": "script@example.org",
        "hostname": "example.org",
        "idn-email": "script@example.org",
        "idn-hostname": "example.org",
        "ipv4": "192.0.2.1",
        "ipv6": "2001:db8::1",
        "iri": "https://example.org/",
        "iri-reference": "/",
        "json-pointer": "/a",
        "regex": "a",
        "relative-json-pointer": "0",
        "time": "12:00:00Z",
        "uri": "https://example.org/",
        "uri-reference": "/",
        "uri-template": "/{a}",
        "uuid": "123e4567-e89b-42d3-a456-426614174000",
    }
)
Filler = Callable[[int], str]


class _Script(NamedTuple):
    """What a value is made from."""

    whole: Any
    filler: Callable[[int], str]
    refs: int = _REFS


def value_of(schema: Any, length: int, filler: Callable[[int], str]) -> Any:
    """Return a value of a schema.

    Args:
        schema: JSON Schema, or Vertex AI's kind.
        length: the number that comes to mind: of words, and where one is asked for.
        filler: gives a text of so many words.

    """
    whole = as_json_schema(schema)
    return _value(whole, length, _Script(whole, filler))


def _value(node: Any, length: int, script: _Script) -> Any:
    if isinstance(node, Mapping) and "$ref" in node:
        script = script._replace(refs=script.refs - 1)
    node = _plain(node, script.whole)
    if "const" in node:
        return node["const"]
    if choices := node.get("enum"):
        return choices[length % len(choices)]
    match (types(node) or [_implied(node)])[0]:
        case "object":
            return _object(node, length, script)
        case "array":
            return _array(node, length, script)
        case "integer" | "number" as kind:
            return _number(node, length, node.get("multipleOf", kind == "integer"))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _text(node, script.filler(length))


def _plain(node: Any, whole: Any) -> dict[str, Any]:
    """Return a schema with what it refers to, and the first of its choices, in it."""
    plain: dict[str, Any] = dict(node) if isinstance(node, Mapping) else {}
    for _ in range(_DEEPEST):
        parts = [plain.pop(name)[0] for name in ("anyOf", "oneOf") if plain.get(name)]
        parts += plain.pop("allOf", [])
        if "$ref" in plain:
            parts.append(_referred(plain.pop("$ref"), whole))
        if not parts:
            break
        for part in parts:
            inner = part if isinstance(part, Mapping) else {}
            both = {**inner.get("properties", {}), **plain.get("properties", {})}
            plain = {**inner, **plain, **({"properties": both} if both else {})}
    return plain


def _referred(reference: str, whole: Any) -> Any:
    found = whole
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return found


def _implied(node: Mapping[str, Any]) -> str:
    """Return the type that a schema means that names none."""
    meant = {"properties": "object", "items": "array", "prefixItems": "array"}
    meant |= {"minimum": "number", "maximum": "number"}
    return next((kind for name, kind in meant.items() if name in node), "string")


def _object(node: Mapping[str, Any], length: int, script: _Script) -> dict[str, Any]:
    inner = node.get("properties", {})
    names = inner if script.refs > 0 else [n for n in inner if n in node.get("required", ())]
    value = {name: _value(inner[name], length, script) for name in names if script.refs > -_REFS}
    for n in range(int(node.get("minProperties", 0)) - len(value)):
        value[f"more_{n + 1}"] = script.filler(1)
    return value


def _array(node: Mapping[str, Any], length: int, script: _Script) -> list[Any]:
    first, items = node.get("prefixItems", []), node.get("items", {})
    usual = 0 if items is False or script.refs <= 0 else 1
    wanted = max(node.get("minItems", 0), len(first), usual)
    count = min(wanted, node.get("maxItems", wanted))
    schemas = [*first, *([items] * count)][:count]
    # One word more each time, so that no two are alike.
    return [_value(schema, length + n, script) for n, schema in enumerate(schemas)]


def _number(node: Mapping[str, Any], wanted: int, step: float) -> float:
    """Return a number within the bounds that is a multiple of a step, if there is one."""
    bounds = [node[name] for name in (*_AT_LEAST, *_AT_MOST) if name in node]
    near = [wanted, *(bound + by for bound in bounds for by in (0, 1, -1)), sum(bounds) / 2]
    if step:
        near = [whole(number / step) * step for number in near for whole in (math.floor, math.ceil)]
    tests = {**_AT_LEAST, **_AT_MOST}
    fit = (n for n in near if all(tests[name](n, node[name]) for name in tests if name in node))
    return next(fit, wanted)


def _text(node: Mapping[str, Any], text: str) -> str:
    text = _FORMATS.get(node.get("format", ""), text)
    while len(text) < node.get("minLength", 0):
        text = f"{text} {text}"
    return text[: node.get("maxLength", len(text))]
