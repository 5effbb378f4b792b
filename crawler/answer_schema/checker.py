"""Whether a JSON value is what a whole JSON Schema describes, Vertex AI's spelling among them.

Rule: nothing is fetched, a pattern is matched in linear time, and what is said of a value says
none of its words: names and keywords of the schema's own, what that wants, numbers and lengths.

The checking is jsonschema-rs's. It is imported when a schema is first used.
"""

import importlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

from crawler.errors import count_of

TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
MOST_SCHEMAS = 64
"""Schemas that are kept ready at once."""
LONGEST_PATTERN = 2_000
"""Characters; what the library says of an answer that does not match takes their square."""
_MOST_REASON = 300
_MOST_SHOWN = 40
"""Characters of one value that a complaint shows."""
_MOST_CHOICES = 5
_WANTED: Mapping[str, str] = MappingProxyType(
    {
        "const": "just",
        "enum": "one of",
        "exclusiveMaximum": "less than",
        "exclusiveMinimum": "more than",
        "format": "the format",
        "maxItems": "at most",
        "maxLength": "at most",
        "maxProperties": "at most",
        "maximum": "at most",
        "minItems": "at least",
        "minLength": "at least",
        "minProperties": "at least",
        "minimum": "at least",
        "multipleOf": "a multiple of",
        "pattern": "the pattern",
    }
)
"""How a complaint says what a keyword wants."""
_DEFAULT_DRAFT = "2020-12"

# Where a schema has schemas in it, by how they are kept there.
_ONE = frozenset(
    "additionalProperties additionalItems contains else if items not propertyNames then"
    " unevaluatedItems unevaluatedProperties".split()
)
_LIST = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_BY_NAME = frozenset("$defs definitions dependentSchemas patternProperties properties".split())

# Vertex AI's own: they say how to write an answer, not what it is.
_OF_VERTEX = frozenset({"example", "nullable", "propertyOrdering", "property_ordering"})
_FORMATS_OF_VERTEX = frozenset({"byte", "double", "enum", "float", "int32", "int64"})
_COUNTS = frozenset(
    "maxItems maxLength maxProperties minItems minLength minProperties".split()
)  # as texts, too: the library writes 64 bits so


# What drafts before the present one had, and a validator of the present one leaves out in silence.
_OF_OLD_DRAFTS: Mapping[str, str] = MappingProxyType(
    {
        "additionalItems": 'write "items" beside "prefixItems"',
        "dependencies": 'write "dependentRequired" or "dependentSchemas"',
        "$recursiveRef": 'write "$dynamicRef"',
        "id": 'write "$id"',
    }
)
_REFS = ("$ref", "$dynamicRef", "$recursiveRef")


class Checker(NamedTuple):
    """A schema that is ready."""

    is_valid: Callable[[Any], bool]
    errors: Callable[[Any], Iterator[Any]]

    def complaint(self, value: Any) -> str | None:
        """Return what keeps a value from being of the schema; None if it is.

        With what is wanted and what is given, but no text of it.
        """
        for error in self.errors(value):
            path = [str(step) for step in error.evaluation_path]
            return _sentence(path) + _difference(error.kind, error.instance)
        return None


_by_identity: OrderedDict[int, tuple[Mapping[str, Any], Checker | None]] = OrderedDict()


def checker(schema: Mapping[str, Any]) -> Checker | None:
    """Return what checks values of a schema; None for one that can't be checked.

    It is made once for a schema, and found again by the object, which nobody changes.
    """
    found = _by_identity.get(id(schema))
    if found is None or found[0] is not schema:
        found = (schema, _made_once(json.dumps(schema)))
        _by_identity[id(schema)] = found
        if len(_by_identity) > MOST_SCHEMAS:
            _by_identity.popitem(last=False)
    return found[1]


@lru_cache(MOST_SCHEMAS)
def _made_once(written: str) -> Checker | None:
    try:
        return _made(json.loads(written))
    except ValueError:
        return None


def unchecked(schema: Mapping[str, Any]) -> str | None:
    """Return what of a schema can't be checked, or what is wrong with it; None if nothing is."""
    for node in _schemas(schema):
        fault = _node_fault(node, str(schema.get("$schema", _DEFAULT_DRAFT)))
        if fault is not None:
            return fault
    try:
        _made(schema)
    except ValueError as error:
        return f"it can't be checked: {' '.join(str(error).split())[:_MOST_REASON]}"
    return None


def as_json_schema(schema: Any) -> Any:
    """Return a schema as JSON Schema writes it, whoever's way it was written in."""
    if not isinstance(schema, Mapping):
        return schema
    plain = {name: _inner(name, value) for name, value in schema.items() if name not in _OF_VERTEX}
    if plain.get("format") in _FORMATS_OF_VERTEX:
        del plain["format"]
    if "type" in plain:
        plain["type"] = _type(plain["type"])
    return _or_null(plain) if schema.get("nullable") is True else plain


def _inner(name: str, value: Any) -> Any:
    """Return the value of a keyword with the schemas in it rewritten."""
    if name in _BY_NAME and isinstance(value, Mapping):
        return {key: as_json_schema(inner) for key, inner in value.items()}
    if name in _LIST and isinstance(value, list):
        return [as_json_schema(inner) for inner in value]
    if name in _ONE:
        return as_json_schema(value)
    if name in _COUNTS and isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


def _type(named: Any) -> Any:
    if isinstance(named, list):
        return [_type(one) for one in named]
    lower = named.lower() if isinstance(named, str) else named
    return lower if lower in TYPES else named


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that allows null as well."""
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*kinds, *(["null"] if "null" not in kinds else [])]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            schema[name] = [*schema[name], {"type": "null"}]
    return schema


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all in it, without recursion."""
    left = [schema]
    while left:
        node = left.pop()
        if not isinstance(node, Mapping):
            continue
        yield node
        for name, value in node.items():
            if name in _BY_NAME and isinstance(value, Mapping):
                left += value.values()
            elif name in _LIST and isinstance(value, list):
                left += value
            elif name in _ONE:
                left.append(value)


def _node_fault(node: Mapping[str, Any], draft: str) -> str | None:
    """Return what of one schema, without those in it, would not be checked."""
    for name in _REFS:
        if not str(node.get(name, "#")).startswith("#"):
            return f"its {name!r} leads out of it, and nothing is fetched: copy what is meant"
    patterns = [node.get("pattern"), *(node.get("patternProperties") or ())]
    if any(isinstance(one, str) and len(one) > LONGEST_PATTERN for one in patterns):
        return f"it has a pattern of more than {LONGEST_PATTERN:,} characters: an enum is faster"
    if "$id" in node:
        return "it has an '$id': leave it out, nothing is fetched"
    if _DEFAULT_DRAFT in draft:
        for name, instead in _OF_OLD_DRAFTS.items():
            if name in node:
                return f"its {name!r} is of an older draft: {instead}, or name the draft in $schema"
    return None


@cache
def _library() -> Any:
    return importlib.import_module("jsonschema_rs")


def _made(schema: Mapping[str, Any]) -> Checker:
    """Return a schema made ready. Raises ValueError for one that is none or can't be checked."""
    library = _library()
    try:
        made = library.validator_for(
            as_json_schema(schema),
            validate_formats=True,
            ignore_unknown_formats=False,
            pattern_options=library.RegexOptions(),
            offline=True,
        )
    except library.ValidationError as error:
        place = "/".join(map(str, error.instance_path))
        raise ValueError(f"at {place!r} {_of_its_own(error.message)}") from error
    except library.ReferencingError as error:
        raise ValueError(str(error)) from error
    return Checker(made.is_valid, made.iter_errors)


def _of_its_own(message: str) -> str:
    """Return what is said of a schema; a regular expression has to be one of the linear kind."""
    if message.endswith('is not a "regex"'):
        return "is no regular expression that takes linear time: no look-around, no back reference"
    return message.partition(". Adjust configuration")[0]


def _sentence(path: list[str]) -> str:
    """Return what is wrong by where the schema says it: names of properties, then a keyword."""
    keyword = path[-1] if path else "schema"
    names = [name for before, name in pairwise(path) if before == "properties"]
    place = f"has {'/'.join(names)!r} that breaks" if names else "breaks"
    return f"{place} {'its' if names else 'the'} {keyword!r}"


def given(value: Any) -> str:
    """Return what a value is: a number as it is, of all that may have words in it the size."""
    match value:
        case str():
            return count_of(len(value), "character")
        case list():
            return count_of(len(value), "item")
        case dict():
            return count_of(len(value), "field")
        case _:
            return _short(value)


def _short(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= _MOST_SHOWN else f"{written[:_MOST_SHOWN]}…"


def _difference(kind: Any, value: Any) -> str:
    """Return what is given and what is wanted, as the end of a sentence, where that can be said."""
    form = _WANTED.get(kind.name)
    if form is None:
        return ""
    wanted = kind.value
    if kind.name == "enum":
        wanted = ", ".join(map(_short, kind.options[:_MOST_CHOICES]))
        wanted += ", …" if len(kind.options) > _MOST_CHOICES else ""
    elif kind.name in ("const", "multipleOf", "pattern"):
        wanted = _short(getattr(kind, "expected_value", wanted))
    return f": {given(value)}, {form} {wanted} wanted"
