"""The whole schema is checked, and what can't be checked is said before it costs anything."""

import json
import time

import pytest

from crawler.answer_schema import misfit, require_schema
from crawler.answer_schema.checker import LONGEST_PATTERN, as_json_schema, unchecked
from crawler.errors import CrawlerError

VERTEX = {
    "type": "OBJECT",
    "propertyOrdering": ["definition", "level"],
    "properties": {
        "definition": {"type": "STRING", "minLength": "3", "example": "x"},
        "level": {"type": "INTEGER", "format": "int32", "nullable": True, "maximum": 6},
        "part": {"type": "STRING", "format": "enum", "enum": ["noun", "verb"], "nullable": True},
        "either": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}], "nullable": True},
    },
    "required": ["definition"],
}
PARTS = 'one of "noun", "verb", null wanted'
PLAIN = {
    "type": "object",
    "properties": {
        "definition": {"type": "string", "maxLength": 9},
        "when": {"type": "string", "format": "date"},
        "mail": {"type": "string", "format": "email"},
        "code": {"type": "string", "pattern": "^[a-z]+$"},
        "level": {"$ref": "#/$defs/level"},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        "more": {
            "type": "array",
            "maxItems": 2,
            "uniqueItems": True,
            "items": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    },
    "required": ["definition"],
    "additionalProperties": False,
    "$defs": {"level": {"enum": [1, 2]}},
}


@pytest.mark.parametrize(
    ("schema", "fields", "complaint"),
    [
        (VERTEX, {}, None),
        (VERTEX, {"level": None, "part": None, "either": None}, None),
        (VERTEX, {"level": 6, "part": "noun", "either": 1}, None),
        (
            VERTEX,
            {"definition": "ab"},
            "has 'definition' that breaks its 'minLength': 2 characters, at least 3 wanted",
        ),
        (VERTEX, {"level": 7}, "has 'level' that breaks its 'maximum': 7, at most 6 wanted"),
        (
            VERTEX,
            {"part": "secret"},
            f"has 'part' that breaks its 'enum': 6 characters, {PARTS}",
        ),
        (VERTEX, {"either": []}, "has 'either' that breaks its 'anyOf'"),
        (PLAIN, {"when": "2026-02-28", "mail": "a@b.c", "code": "a", "level": 1}, None),
        (PLAIN, {"pair": ["a"], "more": [{"text": "a"}, {}]}, None),
        (
            PLAIN,
            {"definition": "much too long"},
            "has 'definition' that breaks its 'maxLength': 13 characters, at most 9 wanted",
        ),
        (
            PLAIN,
            {"when": "2026-02-30"},
            "has 'when' that breaks its 'format': 10 characters, the format date wanted",
        ),
        (
            PLAIN,
            {"mail": "secret"},
            "has 'mail' that breaks its 'format': 6 characters, the format email wanted",
        ),
        (
            PLAIN,
            {"code": "secret!"},
            "has 'code' that breaks its 'pattern': 7 characters, the pattern \"^[a-z]+$\" wanted",
        ),
        (PLAIN, {"level": 3}, "has 'level' that breaks its 'enum': 3, one of 1, 2 wanted"),
        (PLAIN, {"pair": ["a", "secret"]}, "has 'pair' that breaks its 'items'"),
        (PLAIN, {"more": [{"text": 1}]}, "has 'more/text' that breaks its 'type'"),
        (
            PLAIN,
            {"more": [{"text": str(n)} for n in range(3)]},
            "has 'more' that breaks its 'maxItems': 3 items, at most 2 wanted",
        ),
        (PLAIN, {"more": [{}, {}]}, "has 'more' that breaks its 'uniqueItems'"),
        (PLAIN, {"secret": 1}, "breaks the 'additionalProperties'"),
        (PLAIN, {"definition": 1}, "has 'definition' of another type than string: 1"),
    ],
)
def test_an_answer_is_checked_against_the_whole_schema(schema, fields, complaint):
    require_schema({"response_schema": schema})
    assert misfit(schema, {"definition": "abc", **fields}) == complaint


@pytest.mark.parametrize(
    ("inner", "cause"),
    [
        ({"$ref": "https://example.com/a.json"}, "leads out of it"),
        ({"$ref": "other.json#/a"}, "leads out of it"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$id": "https://example.com/a"}, "'$id'"),
        ({"type": "string", "format": "odd"}, "Unknown format: 'odd'"),
        ({"type": "string", "pattern": "(?=a)b"}, "linear time"),
        ({"type": "string", "pattern": r"(a)\1"}, "linear time"),
        ({"type": "string", "pattern": "("}, "linear time"),
        ({"type": "string", "minLength": -1}, "less than the minimum of 0"),
        ({"type": "array", "items": [{"type": "string"}]}, "properties/a/items"),
        ({"type": "number", "exclusiveMinimum": True}, "exclusiveMinimum"),
        ({"anyOf": [{"type": "STRINGY"}]}, "STRINGY"),
        ({"dependencies": {}}, "older draft"),
        ({"items": {"additionalItems": False}}, "older draft"),
    ],
)
def test_what_can_not_be_checked_is_said_when_a_prompt_is_added(inner, cause):
    with pytest.raises(CrawlerError) as error:
        require_schema({"response_schema": {"type": "object", "properties": {"a": inner}}})
    assert cause in error.value.cause


def test_an_older_draft_is_checked_by_its_name():
    draft = "http://json-schema.org/draft-07/schema#"
    tuples = {"type": "array", "items": [{"type": "string"}], "additionalItems": False}
    schema = {"$schema": draft, "type": "object", "properties": {"a": tuples}}
    assert unchecked(schema) is None
    assert misfit(schema, {"a": ["x"]}) is None
    assert misfit(schema, {"a": ["x", 1]}) == "has 'a' that breaks its 'additionalItems'"


def test_a_schema_of_an_older_file_that_can_not_be_checked_still_has_its_types():
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}}
    assert misfit(schema, {"a": "x"}) is None
    assert misfit(schema, {"a": 1}) == "has 'a' of another type than string: 1"


def test_names_of_properties_are_no_keywords():
    names = {"type": {"type": "STRING"}, "nullable": {"type": "BOOLEAN"}, "enum": {"type": "NULL"}}
    assert as_json_schema({"type": "OBJECT", "properties": names}) == {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "nullable": {"type": "boolean"},
            "enum": {"type": "null"},
        },
    }
    data = {"enum": [{"type": "STRING"}], "const": {"nullable": True}}
    assert as_json_schema(data) == data


def test_a_pattern_takes_linear_time():
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    began = time.process_time()
    assert misfit(schema, {"a": "a" * 100_000 + "b"}) is not None
    assert time.process_time() - began < 1


def test_an_answer_is_checked_in_a_few_microseconds():
    answer = {"definition": "abc", "level": 1, "more": [{"text": "a"}, {"text": "b"}]}
    misfit(PLAIN, answer)
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        for _ in range(2_000):
            misfit(PLAIN, answer)
        best = min(best, (time.process_time() - began) / 2_000)
    assert best < 10e-6
    again = json.loads(json.dumps(PLAIN))  # another object, the same schema: not made again
    assert misfit(again, answer) is None


@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_a_pattern_has_a_length_that_each_answer_can_be_held_against(keyword):
    def fault(length):
        pattern = "a" * length
        inner = {keyword: pattern if keyword == "pattern" else {pattern: {}}}
        return unchecked({"type": "object", "properties": {"a": inner}})

    assert fault(LONGEST_PATTERN) is None
    assert "2,000 characters" in fault(LONGEST_PATTERN + 1)
