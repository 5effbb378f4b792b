"""The script: its answers obey the prompt's schema or are checked as any other's, as its parameters
are."""

import asyncio
import json

import pytest

from crawler.answer_schema import misfit, require_schema
from crawler.errors import CrawlerError, Exit
from crawler.protocol import Call, ProviderError
from crawler.providers.scripted import Script, check_params
from crawler.states import Outcome
from tests.program import crawler, told

ADD = ("prompt", "add", "p", "--template", "{word}", "--provider", "scripted")


def answer(schema, **params):
    params = {"response_schema": schema, **params}
    require_schema(params)
    call = Call(1, 1, "cat", "scripted", "m", "About cat", "", params, 60_000)
    return asyncio.run(Script().generate(call)).text


@pytest.mark.parametrize(
    "field",
    [
        {"type": "array", "minItems": 3, "items": {"type": "string"}},
        {"type": "ARRAY", "minItems": "2", "items": {"type": "STRING", "maxLength": "5"}},
        {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"type": "integer"}},
        {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"enum": [1, 2, 3]}},
        {"type": "array", "maxItems": 0},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False},
        {"type": "integer", "minimum": 1, "maximum": 5},
        {"type": "integer", "exclusiveMinimum": 20, "multipleOf": 7},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "minLength": 200},
        {"type": "string", "maxLength": 3},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "uuid"},
        {"type": ["null", "string"]},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {
            "allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}],
            "required": ["a"],
        },
        {"$ref": "#/$defs/level"},
        {"$ref": "#/$defs/tree"},
        {"type": "object", "minProperties": 2},
        {"enum": ["A1", "B2"]},
        {"const": 7},
        True,
    ],
    ids=json.dumps,
)
def test_an_answer_obeys_its_schema(field):
    tree = {"type": "object", "properties": {"inner": {"$ref": "#/$defs/tree"}, "n": {"const": 1}}}
    field = field if isinstance(field, dict) else {}
    schema = {
        "type": "object",
        "required": ["field"],
        "properties": {"field": field},
        "$defs": {"level": {"enum": ["A1", "B2"]}, "tree": tree},
    }
    assert misfit(schema, json.loads(answer(schema))) is None


def test_an_answer_that_breaks_its_schema_is_none():
    schema = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[0-9]+$"}}}
    with pytest.raises(ProviderError, match="'code' that breaks its 'pattern'") as refused:
        answer(schema)
    assert refused.value.outcome is Outcome.NO_ANSWER


def test_what_the_checks_ask_for_is_looked_at():
    schema = {"type": "object", "properties": {"text": {"const": "no"}}}
    with pytest.raises(ProviderError, match="does not mention the word"):
        answer(schema, checks=["mentions_word"])


@pytest.mark.parametrize(
    ("params", "cause"),
    [
        ({"latency": 5}, "there is no parameter 'latency'; is latency_ms meant?"),
        ({"nonsense_of_mine": 5}, "there is no parameter 'nonsense_of_mine'"),
        ({"latency_ms": "slow"}, "latency_ms is 'slow', and has to be a number, or [low, high]"),
        ({"latency_ms": [9, 1]}, "has to be a number, or [low, high]"),
        ({"latency_ms": -1}, "has to be a number"),
        ({"words": 0}, "has to be a whole number"),
        ({"words": 1.5}, "has to be a whole number"),
        ({"errors": {"trasient": 0.1}}, "by outcome: transient, throttled"),
        ({"errors": {"succeeded": 0.1}}, "by outcome: transient, throttled"),
        ({"errors": {"transient": 0.6, "blocked": 0.5}}, "shares of at most 1 in all"),
        ({"errors": 0.5}, "shares of at most 1 in all"),
        ({"retry_after_ms": "5"}, "has to be a number"),
        ({"checks": ["spelling"]}, "a list of ends_as_sentence"),
    ],
)
def test_parameters_that_it_can_not_obey_are_refused(params, cause):
    with pytest.raises(CrawlerError) as refused:
        check_params("m", params)
    assert cause in refused.value.cause


def test_parameters_that_it_knows_and_those_of_others_are_taken():
    own = {"seed": "x", "latency_ms": [0, 5], "words": 3, "errors": {"transient": 0.3}}
    check_params("m", {**own, "retry_after_ms": 5, "temperature": 0.2, "max_output_tokens": 9})


def test_the_command_refuses_them(tmp_path):
    ran = crawler("--db", tmp_path / "crawl.db", *ADD, "--param", "eror=1")
    assert "is errors meant?" in told(ran, Exit.USAGE)[1]
    assert list(tmp_path.iterdir()) == []
