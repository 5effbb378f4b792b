"""What a prompt's parameters ask of an answer: schemas to obey, and answers that obey them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.answer_schema import DEEPEST, require_schema
from crawler.answer_schema.checker import as_json_schema
from crawler.errors import CrawlerError, Exit
from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.check import accepted, examine

SCHEMA = {
    "type": "OBJECT",
    "properties": {
        "definition": {"type": "STRING"},
        "level": {"type": "integer"},
        "weight": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "known": {"type": "BOOLEAN", "nullable": True},
        "more": {"type": "object"},
        "nothing": {"type": "null"},
        "any": {"description": "no type"},
    },
    "required": ["definition"],
}


def fault(text, **params):
    """Return what is wrong with an answer that is to be JSON."""
    return examine({"response_schema": SCHEMA, **params}, "w", text)[1]


@pytest.mark.parametrize(
    "text",
    [
        '{"definition": "x"}',
        ' \n{"definition": "x"}\n',
        '\ufeff{"definition": "x"}',
        '```json\n{"definition": "x"}\n```',
        '```\n{"definition": "x"}\n```\n',
        '```JSON \r\n{"definition": "x"}\r\n```',
    ],
)
def test_what_is_stored_is_the_json_alone(text):
    assert examine({"response_schema": SCHEMA}, "w", text) == ('{"definition": "x"}', None)


@pytest.mark.parametrize(
    "fields",
    [
        {"level": 3, "weight": 1.5, "tags": [], "known": True, "more": {}, "nothing": None},
        {"level": 3.0, "weight": None, "tags": ["a", "b"], "known": None, "any": [1]},
        {"weight": 2, "any": None, "a name that is not in the schema": 1},
        {"level": 10**30, "weight": -0.0},
    ],
)
def test_fields_of_the_right_types_pass(fields):
    assert fault(json.dumps({"definition": "", **fields})) is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"definition": 1}, "has 'definition' of another type than string: 1"),
        ({"definition": None}, "has 'definition' of another type than string: null"),
        ({"level": 1.5}, "has 'level' of another type than integer: 1.5"),
        ({"level": True}, "has 'level' of another type than integer: true"),
        ({"level": "1"}, "has 'level' of another type than integer: 1 character"),
        ({"weight": False}, "has 'weight' of another type than number or null: false"),
        ({"tags": {}}, "has 'tags' of another type than array: 0 fields"),
        ({"known": 1}, "has 'known' of another type than boolean or null: 1"),
        ({"more": []}, "has 'more' of another type than object: 0 items"),
        ({"nothing": 0}, "has 'nothing' of another type than null: 0"),
    ],
)
def test_a_field_of_another_type_is_no_good(fields, complaint):
    assert fault(json.dumps({"definition": "x", **fields})) == complaint


DEEP = '{"definition": ' + "[" * 200_000


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("secret", "is not JSON (Expecting value at character 0)"),
        ('{"definition": "secret" "x"}', "is not JSON (Expecting ',' delimiter at character 24)"),
        ('{"definition": "secret', "is not JSON (Unterminated string starting at at character 15)"),
        ('{"definition": "x"} secret', "is not JSON (Extra data at character 20)"),
        ('Sure: {"definition": "x"}', "is not JSON (Expecting value at character 0)"),
        ("", "is not JSON (Expecting value at character 0)"),
        ('["secret"]', "is no JSON object"),
        ("null", "is no JSON object"),
        ("{}", "lacks 'definition'"),
        ('{"secret": 1}', "lacks 'definition'"),
        ('{"level": NaN}', "is not JSON (NaN is no number in JSON)"),
        ('{"level": -Infinity}', "is not JSON (-Infinity is no number in JSON)"),
        ('{"level": 1e400}', "is not JSON (it has a number in it that is too large)"),
        ('{"level": ' + "9" * 5_000 + "}", "is not JSON (it has a number in it that is too large)"),
        ('{"secret": 1, "secret": 2}', "is not JSON (it gives a name twice)"),
        (
            r'{"definition": "\u0000"}',
            "is not JSON (it has a NUL character in it, where SQLite would cut it off)",
        ),
        (
            r'{"\ud83d": "secret"}',
            "is not JSON (it has half a character in it, a lone surrogate)",
        ),
        (DEEP, "is not JSON (it nests too deeply)"),
        (
            '{"any": ' + "[" * DEEPEST + "]" * DEEPEST + "}",
            "is not JSON (it nests more than 100 levels deep)",
        ),
    ],
)
def test_what_sqlite_could_not_read_is_no_answer_and_no_reason_quotes_it(text, complaint):
    assert fault(text) == complaint
    assert "secret" not in complaint


def test_without_a_schema_any_json_will_do():
    params = {"response_mime_type": "application/json"}
    assert examine(params, "w", "```\n[1]\n```") == ("[1]", None)
    assert examine(params, "w", "[1")[1].startswith("is not JSON")
    assert examine({"response_mime_type": "text/plain"}, "w", "[1") == ("[1", None)


def test_text_is_stored_as_it_is_but_for_white_space():
    assert examine({}, "w", " ```\nx\n``` \n") == ("```\nx\n```", None)


def test_the_checks_look_at_what_the_model_wrote_and_json_at_all_of_it():
    params = {"response_schema": SCHEMA, "checks": ["mentions_word"]}
    kept, complaint = examine(params, "abate", ' "to lessen"}', prefill='{"definition":')
    assert kept == '{"definition": "to lessen"}'
    assert complaint == "does not mention the word"
    assert examine({"checks": ["mentions_word"]}, "abate", "it does", prefill="Abate: ")[1]


@given(text=st.text() | st.text(alphabet='{}[]",:`\n 1eE.-definto', max_size=40))
def test_any_text_is_good_json_or_told_why_not(text):
    kept, complaint = examine({"response_schema": SCHEMA}, "w", text)
    assert (complaint is None) == (kept.startswith("{") and fault(kept) is None)


PROPERTIES = {"a": {}}


@pytest.mark.parametrize(
    ("schema", "cause"),
    [
        ("{", "it is no JSON object"),
        ([], "it is no JSON object"),
        ({}, 'its "type" is not "object"'),
        ({"type": "array", "properties": PROPERTIES}, 'its "type" is not "object"'),
        ({"type": ["object", "null"], "properties": PROPERTIES}, 'its "type" is not "object"'),
        ({"type": "object"}, 'it has no "properties"'),
        ({"type": "object", "properties": {}}, 'it has no "properties"'),
        ({"type": "object", "properties": ["a"]}, 'it has no "properties"'),
        ({"type": "object", "properties": {"a": True}}, "the property 'a' is no JSON object"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "a type that there is not"),
        ({"type": "object", "properties": {"a": {"type": None}}}, "a type that there is not"),
        ({"type": "object", "properties": {"a": {}, "A": {}}}, "differ by case only"),
        ({"type": "object", "properties": {" ": {}}}, "can't be called ' '"),
        ({"type": "object", "properties": {"a\n": {}}}, r"can't be called 'a\n'"),
        ({"type": "object", "properties": {1: {}}}, "can't be called 1"),
        ({"type": "object", "properties": {"False": {}}}, "no column can be called 'False'"),
        ({"type": "object", "properties": {f"f{n}": {} for n in range(1_001)}}, "more than 1000"),
        ({"type": "object", "properties": PROPERTIES, "required": ["b"]}, '"required" is no list'),
        ({"type": "object", "properties": PROPERTIES, "required": "a"}, '"required" is no list'),
        ({"type": "object", "properties": PROPERTIES, "required": [1]}, '"required" is no list'),
        ({"type": "object", "properties": {"a": {"x": float("nan")}}}, "can't be written as JSON"),
        ({"type": "object", "properties": {"a": {"x": "\ud800"}}}, "can't be written as JSON"),
        ({"type": "object", "properties": {"a": {"x": {1}}}}, "can't be written as JSON"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema, cause):
    with pytest.raises(CrawlerError) as error:
        require_schema({"response_schema": schema})
    assert cause in error.value.cause
    assert error.value.exit_code == Exit.USAGE


def test_a_schema_without_end_is_refused():
    schema = {"type": "object", "properties": {"a": {}}}
    schema["properties"]["a"]["items"] = schema
    with pytest.raises(CrawlerError):
        require_schema({"response_schema": schema})


def test_the_schemas_of_both_houses_are_accepted():
    require_schema({})
    require_schema({"response_schema": SCHEMA})
    require_schema({"response_schema": as_json_schema(SCHEMA)})


def test_types_become_lower_case_wherever_they_stand_and_nothing_else():
    schema = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "enum": ["STRING"], "description": "A STRING"},
            "list": {"type": "ARRAY", "items": {"anyOf": [{"type": "NUMBER"}, {"type": "Odd"}]}},
        },
    }
    assert as_json_schema(schema) == {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["STRING"], "description": "A STRING"},
            "list": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "Odd"}]}},
        },
    }


@pytest.mark.parametrize(
    ("thought", "out", "said"),
    [
        (90, 10, "thinking used 90 of 100"),
        (90, None, "thinking used 90 of 90"),
        (None, 10, ""),
        (0, 10, ""),
    ],
)
def test_of_an_answer_that_is_cut_off_the_thoughts_are_told(thought, out, said):
    call = Call(1, 1, "w", "openai", "m", "Define w.", "", {}, 5_000)
    written = Answer("To", 5, out, thought, truncated=True)
    with pytest.raises(ProviderError) as raised:
        accepted(call, written, None)
    reason = raised.value.reason
    assert reason.startswith("the answer is cut off at max_output_tokens")
    assert (said in reason) if said else ("thinking" not in reason)
    assert raised.value.answer.text == "To"
