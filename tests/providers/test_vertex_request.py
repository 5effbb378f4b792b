"""From parameters and a prompt to what Vertex AI is sent: each parameter in its field, mistakes
told by name, and any text unchanged."""

import asyncio

import pytest
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.errors import CrawlerError, Exit
from crawler.providers.vertex.access import Access
from crawler.providers.vertex.channels import opened
from crawler.providers.vertex.messages import (
    GENERATE,
    PREDICT,
    REQUEST_TYPE_HEADER,
    STREAM,
    GenerateContentRequest,
    PredictRequest,
)
from crawler.providers.vertex.request import request, shape
from crawler.providers.vertex.service import Service, check_params
from crawler.run.executor import LocalExecutor
from tests.providers.vertex_call import CALL

MODEL = "gemini-2.5-flash"
RESOURCE = f"projects/p/locations/l/publishers/google/models/{MODEL}"
OLD = "text-bison@002"
HALF = "\ud800"
HUGE = 10**400


def sent(model=MODEL, call=CALL, **params):
    """Return the message of a call, as a dict."""
    return json_format.MessageToDict(message(model, call, params), preserving_proto_field_name=True)


def message(model, call, params):
    return request(shape(model, RESOURCE, params), call._replace(params=params))


USER = {"role": "user", "parts": [{"text": "Define abrogate."}]}


def test_without_parameters_there_is_the_prompt_alone():
    assert sent() == {"model": RESOURCE, "contents": [USER], "generation_config": {}}


JSON_SCHEMA = {"type": "object", "properties": {"gloss": {"type": "string"}}}
VERTEX_SCHEMA = {"type": "OBJECT", "properties": {"gloss": {"type": "STRING"}}}
CONFIGS = [
    ({"temperature": 0.5, "top_p": 0.25, "top_k": 40}, None),
    ({"max_output_tokens": 80, "seed": 4, "candidate_count": 1}, None),
    ({"stop_sequences": ["\n", "."]}, None),
    ({"response_mime_type": "application/json"}, None),
    ({"presence_penalty": 0.5, "frequency_penalty": -0.5}, None),
    ({"response_logprobs": True, "logprobs": 3}, None),
    ({"thinking": 128}, {"thinking_config": {"thinking_budget": 128}}),
    ({"thinking": 0}, {"thinking_config": {"thinking_budget": 0}}),
    ({"thinking": "low"}, {"thinking_config": {"thinking_level": "LOW"}}),
    (
        {"thinking": {"include_thoughts": True, "thinking_budget": 5}},
        {"thinking_config": {"include_thoughts": True, "thinking_budget": 5}},
    ),
    (
        {"response_schema": JSON_SCHEMA},
        {"response_json_schema": JSON_SCHEMA, "response_mime_type": "application/json"},
    ),
    (
        {"response_schema": VERTEX_SCHEMA},
        {
            "response_schema": {"type_": "OBJECT", "properties": {"gloss": {"type_": "STRING"}}},
            "response_mime_type": "application/json",
        },
    ),
    (
        {"response_schema": {**JSON_SCHEMA, "type": ["object", "null"]}},
        {
            "response_json_schema": {**JSON_SCHEMA, "type": ["object", "null"]},
            "response_mime_type": "application/json",
        },
    ),
    (
        {"response_schema": JSON_SCHEMA, "response_mime_type": "text/x.enum"},
        {"response_json_schema": JSON_SCHEMA, "response_mime_type": "text/x.enum"},
    ),
    ({"allow_truncated": True, "checks": ["mentions_word"], "retry_temperature": 1}, {}),
]


@pytest.mark.parametrize("method", ["generate", "stream"])
@pytest.mark.parametrize(("params", "config"), CONFIGS)
def test_a_parameter_is_in_the_field_of_its_name(params, config, method):
    found = sent(method=method, **params)
    assert found.pop("generation_config") == (params if config is None else config)
    assert found == {"model": RESOURCE, "contents": [USER]}


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"system": "Be brief."}, {"system_instruction": {"parts": [{"text": "Be brief."}]}}),
        ({"system": ""}, {"system_instruction": {"parts": [{"text": ""}]}}),
        ({"labels": {"team": "words"}}, {"labels": {"team": "words"}}),
        (
            {
                "safety_settings": {
                    "harassment": "block_only_high",
                    "HARM_CATEGORY_JAILBREAK": "OFF",
                }
            },
            {
                "safety_settings": [
                    {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"},
                    {"category": "HARM_CATEGORY_JAILBREAK", "threshold": "OFF"},
                ]
            },
        ),
        (
            {
                "safety_settings": [
                    {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF", "method": 1}
                ]
            },
            {
                "safety_settings": [
                    {
                        "category": "HARM_CATEGORY_HARASSMENT",
                        "threshold": "OFF",
                        "method": "SEVERITY",
                    }
                ]
            },
        ),
    ],
)
def test_what_is_no_part_of_the_config_is_beside_it(params, fields):
    assert sent(**params) == {
        "model": RESOURCE,
        "contents": [USER],
        "generation_config": {},
        **fields,
    }


def test_a_prefill_is_the_beginning_of_the_models_turn():
    found = sent(call=CALL._replace(prefill="It means"))
    assert found["contents"] == [USER, {"role": "model", "parts": [{"text": "It means"}]}]


@pytest.mark.parametrize("method", ["generate", "stream"])
@pytest.mark.parametrize(
    ("number", "seed", "temperature"), [(1, 40, 0.25), (2, 41, 0.75), (7, 46, 0.75)]
)
def test_each_attempt_has_its_own_seed_and_a_retry_its_temperature(
    number, seed, temperature, method
):
    params = {"seed": 40, "temperature": 0.25, "retry_temperature": 0.75, "method": method}
    config = sent(call=CALL._replace(number=number), **params)["generation_config"]
    assert config == {"seed": seed, "temperature": temperature}


@pytest.mark.parametrize("number", [1, 2, 20])
def test_without_a_seed_none_is_sent(number):
    call = CALL._replace(number=number)
    assert sent(call=call)["generation_config"] == {}
    assert sent(call=call, temperature=0.5)["generation_config"] == {"temperature": 0.5}


@pytest.mark.parametrize(("seed", "next_seed"), [(2**31 - 1, 0), (-1, 0), (0, 1)])
def test_a_seed_stays_one(seed, next_seed):
    call = CALL._replace(number=2)
    assert sent(call=call, seed=seed)["generation_config"] == {"seed": next_seed}
    assert sent(OLD, call, seed=seed)["parameters"]["seed"] == (seed + 1) % 2**31


def test_one_call_leaves_nothing_for_the_next():
    made = shape(MODEL, RESOURCE, {"seed": 4})
    before = request(made, CALL).SerializeToString()
    request(made, CALL._replace(number=9, prompt="other", prefill="x"))
    assert request(made, CALL).SerializeToString() == before


@pytest.mark.parametrize(
    ("model", "params", "method", "kind"),
    [
        ("gemini-2.5-flash", {}, GENERATE, GenerateContentRequest),
        ("gemini-2.5-flash", {"method": "generate"}, GENERATE, GenerateContentRequest),
        ("gemini-2.5-flash", {"method": "stream"}, STREAM, GenerateContentRequest),
        ("gemini-2.5-flash", {"method": "predict"}, PREDICT, PredictRequest),
        ("text-bison", {}, PREDICT, PredictRequest),
        ("text-bison@002", {}, PREDICT, PredictRequest),
        ("text-unicorn@001", {}, PREDICT, PredictRequest),
        ("code-bison-32k", {}, PREDICT, PredictRequest),
        ("publishers/google/models/chat-bison", {}, PREDICT, PredictRequest),
        ("text-bison", {"method": "generate"}, GENERATE, GenerateContentRequest),
        ("endpoints/123", {}, GENERATE, GenerateContentRequest),
        ("meta/not-text-bison", {}, GENERATE, GenerateContentRequest),
    ],
)
def test_the_method_is_the_models_unless_it_is_said(model, params, method, kind):
    made = shape(model, RESOURCE, params)
    assert (made.method, type(made.message)) == (method, kind)


INSTANCE = {"content": "Define abrogate."}


def test_predict_is_sent_the_prompt_as_palm_had_it():
    assert sent(OLD) == {"endpoint": RESOURCE, "instances": [INSTANCE], "parameters": {}}


def test_predict_has_its_parameters_in_camel_case_and_raw_ones_as_they_are():
    found = sent(
        OLD,
        max_output_tokens=80,
        top_k=40,
        temperature=0.5,
        stop_sequences=["."],
        parameters={"raw_name": 1, "topK": 3},
        labels={"team": "words"},
        allow_truncated=True,
        checks=[],
        text_at="x",
    )
    assert found == {
        "endpoint": RESOURCE,
        "instances": [INSTANCE],
        "parameters": {
            "maxOutputTokens": 80,
            "topK": 3,
            "temperature": 0.5,
            "stopSequences": ["."],
            "raw_name": 1,
        },
        "labels": {"team": "words"},
    }


@pytest.mark.parametrize(
    ("number", "seed", "temperature"), [(1, 40, 0.25), (2, 41, 0.75), (7, 46, 0.75)]
)
def test_predict_tries_again_with_another_seed_and_temperature(number, seed, temperature):
    params = {"seed": 40, "temperature": 0.25, "retry_temperature": 0.75}
    found = sent(OLD, CALL._replace(number=number), **params)
    assert found["parameters"] == {"seed": seed, "temperature": temperature}
    assert "seed" not in sent(OLD, CALL._replace(number=number))["parameters"]


def test_a_seed_that_is_no_number_is_the_services_affair():
    assert sent(OLD, CALL._replace(number=2), seed="x")["parameters"] == {"seed": "x"}


@pytest.mark.parametrize(
    ("instance", "filled"),
    [
        ("{prompt}", "P it"),
        ("<s>{prompt}</s>{prompt}", "<s>P it</s>P it"),
        ({"prompt": "{prompt}", "max": 5, "on": True, "no": None}, None),
        (
            {"messages": [{"role": "user", "content": ["a", "{prompt}"]}]},
            {"messages": [{"role": "user", "content": ["a", "P it"]}]},
        ),
        ({"{prompt}": "{prompt}"}, {"{prompt}": "P it"}),
    ],
)
def test_an_instance_has_the_prompt_within(instance, filled):
    found = sent(OLD, CALL._replace(prompt="P", prefill=" it"), instance=instance)
    expected = {**instance, "prompt": "P it"} if filled is None else filled
    assert found["instances"] == [expected]


def test_a_prompt_that_names_the_place_of_the_prompt_is_not_filled_again():
    call = CALL._replace(prompt="a {prompt} b {prompt}")
    assert sent(OLD, call)["instances"] == [{"content": "a {prompt} b {prompt}"}]


def test_the_text_of_a_prediction_is_where_it_is_said_to_be():
    assert shape(OLD, RESOURCE, {}).text_at == "content"
    assert shape(OLD, RESOURCE, {"text_at": "a.0"}).text_at == "a.0"
    assert shape(OLD, RESOURCE, {"text_at": 0}).text_at == "0"


def quoted(field):
    return (
        "x-goog-request-params",
        f"{field}=projects%2Fp%2Flocations%2Fl%2Fpublishers%2Fgoogle%2Fmodels%2F{MODEL}",
    )


@pytest.mark.parametrize("capacity", ["dedicated", "shared"])
def test_headers_name_the_capacity_that_was_bought_or_not(capacity):
    found = shape(MODEL, RESOURCE, {"request_type": capacity}).headers
    assert found == (quoted("model"), ("x-vertex-ai-llm-request-type", capacity))


def test_tools_and_caches_are_passed_on():
    cache = "projects/p/locations/l/cachedContents/1"
    functions = {"function_calling_config": {"mode": "NONE"}}
    params = {"cached_content": cache, "tool_config": functions, "google_search": True}
    message = shape(MODEL, RESOURCE, params).message
    assert message.cached_content == cache
    assert message.tool_config.function_calling_config.mode == 3
    assert message.tools[0].HasField("google_search")
    assert not shape(MODEL, RESOURCE, {"google_search": False}).message.tools
    several = {"tools": [{"code_execution": {}}], "google_search": {"exclude_domains": ["a.org"]}}
    [code, search] = shape(MODEL, RESOURCE, several).message.tools
    assert code.HasField("code_execution")
    assert search.google_search.exclude_domains == ["a.org"]


def test_names_may_be_those_of_rest():
    ours = {"max_output_tokens": 9, "top_p": 0.5, "safety_settings": {"harassment": "off"}}
    rest = {"maxOutputTokens": 9, "topP": 0.5, "safetySettings": {"harassment": "off"}}
    assert shape(MODEL, RESOURCE, rest) == shape(MODEL, RESOURCE, ours)
    with pytest.raises(ValueError, match="max_output_tokens is given twice"):
        shape(MODEL, RESOURCE, {"maxOutputTokens": 9, "max_output_tokens": 8})


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_headers_name_the_model_and_the_tier(tier):
    assert shape(MODEL, RESOURCE, {}).headers == (quoted("model"),)
    assert shape(OLD, RESOURCE, {}).headers == (quoted("endpoint"),)
    assert shape(MODEL, RESOURCE, {"request_type": tier}).headers == (
        quoted("model"),
        (REQUEST_TYPE_HEADER, tier),
    )


@given(name=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@example("é")
@example("a\nb: c")
@example("a&model=b")
def test_a_name_of_any_letters_is_a_header(name):
    [(_, value)] = shape(MODEL, f"projects/{name}", {}).headers
    assert value.isascii()
    assert value.isprintable()
    assert not {*" &/"} & {*value}


@pytest.mark.parametrize("name", ["", HALF, *"aé"])
def test_a_model_of_an_odd_name_can_be_asked(name):
    """Headers that gRPC refuses would fail every call, and each of them again."""
    made = shape_or_reason(name, {})
    assert made.headers if name != HALF else "surrogate" in made


def shape_or_reason(model, params):
    try:
        return shape(model, f"projects/p/locations/l/models/{model}", params)
    except ValueError as error:
        return str(error)


WRONG = [
    *[{"temperature": value} for value in ("hot", [1], {}, 1e300, float("nan"), HUGE)],
    *[{"max_output_tokens": value} for value in (1.5, "many", [], 2**31)],
    *[{"seed": value} for value in (2**40, 1.5, {})],
    *[{"stop_sequences": value} for value in (".", ["a", 1], 5, {})],
    *[{"response_mime_type": value} for value in (5, [], HALF)],
    *[{"thinking": value} for value in ([], None, 5.7, 2**70, True, HALF, "deep", {"depth": 1})],
    *[{"system": value} for value in (5, None, ["a"], {})],
    *[{"labels": value} for value in ([], "x", 5, {"a": 1}, {"a": None})],
    *[{"safety_settings": value} for value in ("x", 5, [1], {"harassment": "maybe"})],
    *[{"safety_settings": value} for value in ({"rudeness": "off"}, {"harassment": []})],
    *[{"response_schema": value} for value in ([], "x", None, {"type": "THING"})],
    *[{"retry_temperature": value} for value in ("0.9", [], None, HUGE, float("nan"))],
    *[{"method": value} for value in ("ask", None, [], {}, 5)],
    *[{"google_search": value} for value in ("yes", None, 1, {"depth": 1})],
    *[{"tools": value} for value in ("x", {}, [1], [{"hammer": {}}])],
    *[{"tool_config": value} for value in ("x", [], {"depth": 1})],
    {"cached_content": 5},
    *[{"request_type": value} for value in ("fast", None, [], {})],
    {"temprature": 1},
    {"text_at": "content"},
    {"instance": "{prompt}"},
    {"parameters": {}},
    {"model": "other"},
]
WRONG_FOR_PREDICT = [
    *[{"parameters": value} for value in ([], "x", None, {"a": HUGE}, {"a": HALF})],
    *[{"instance": value} for value in ("x", None, {}, {"{prompt}": "x"}, {"content": [1]})],
    *[{"instance": {"content": "{prompt}", "x": value}} for value in (HUGE, HALF)],
    *[{"temperature": value} for value in (HUGE, HALF)],
    *[{"labels": value} for value in ([], "x", {"a": 1})],
    *[{"retry_temperature": value} for value in ("0.9", None, HUGE)],
    *[{"method": value} for value in ("ask", None, [])],
    {"request_type": "fast"},
    {"system": "Be brief."},
    {"thinking": 5},
    {"safety_settings": {}},
]


def named(params):
    return next(iter(params))


@pytest.mark.parametrize("params", WRONG, ids=named)
def test_a_parameter_that_cannot_be_sent_is_refused_by_its_name(params):
    with pytest.raises(ValueError, match=named(params)):
        shape(MODEL, RESOURCE, params)
    with pytest.raises(CrawlerError) as error:
        check_params(MODEL, params)
    assert error.value.exit_code == Exit.USAGE


@pytest.mark.parametrize("params", WRONG_FOR_PREDICT, ids=named)
def test_predict_refuses_by_name_too(params):
    with pytest.raises(ValueError, match=named(params)):
        shape(OLD, RESOURCE, params)


def test_a_wrong_name_is_answered_with_the_right_one():
    with pytest.raises(
        ValueError, match="there is no parameter 'temprature'; is temperature meant"
    ):
        shape(MODEL, RESOURCE, {"temprature": 1})
    with pytest.raises(ValueError, match=r"there is no parameter 'xyzzy'$"):
        shape(MODEL, RESOURCE, {"xyzzy": 1})


def nested(depth):
    value = "{prompt}"
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [150, 5_000])
def test_what_is_nested_too_deeply_is_refused(depth):
    with pytest.raises(ValueError, match="instance"):
        shape(OLD, RESOURCE, {"instance": nested(depth)})
    with pytest.raises(ValueError):
        shape(MODEL, RESOURCE, {"response_schema": {"type": "object", "x": nested(depth)}})


def test_every_parameter_of_the_table_is_accepted_by_check_params():
    for params, _ in CONFIGS:
        check_params(MODEL, params)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(HALF)
    | st.just(HUGE)
    | st.sampled_from(["{prompt}", "generate", "predict", "flex", "low", "object", "OBJECT"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "harassment", "thinking_budget", "a", HALF]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
names = st.sampled_from(
    [
        *("allow_truncated", "checks", "labels", "method", "request_type", "response_schema"),
        *("retry_temperature", "safety_settings", "system", "thinking", "instance", "parameters"),
        *("text_at", "temperature", "seed", "stop_sequences", "max_output_tokens", "speech_config"),
        *("response_json_schema", "routing_config", "thinking_config", "nonsense", HALF),
    ]
)


@given(
    model=st.sampled_from([MODEL, OLD]),
    params=st.dictionaries(names, values, max_size=3),
    number=st.integers(1, 20),
)
def test_no_parameters_are_too_odd_to_be_refused(model, params, number):
    """Whatever JSON they are, they are refused at once or can be sent at every attempt."""
    try:
        made = shape(model, RESOURCE, params)
    except ValueError:
        return
    request(made, CALL._replace(number=number, params=params)).SerializeToString()


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(prompt=texts, prefill=texts, system=texts)
@example("\x00", "\ufeff", "\u2028")
def test_any_text_arrives_unchanged(prompt, prefill, system):
    call = CALL._replace(prompt=prompt, prefill=prefill)
    body = message(MODEL, call, {"system": system}).SerializeToString()
    found = GenerateContentRequest.FromString(body)
    said = [prompt, prefill] if prefill else [prompt]
    assert [content.parts[0].text for content in found.contents] == said
    assert found.system_instruction.parts[0].text == system


@given(prompt=texts, prefill=texts)
@example("{prompt}", "{prompt}")
def test_any_text_arrives_unchanged_at_predict(prompt, prefill):
    call = CALL._replace(prompt=prompt, prefill=prefill)
    body = message(OLD, call, {"instance": ["{prompt}"]}).SerializeToString()
    found = PredictRequest.FromString(body)
    assert found.instances[0].list_value.values[0].string_value == prompt + prefill


HALVES = [{"prompt": HALF}, {"prompt": "a" + HALF + "b"}, {"prefill": "\udfff"}]


@pytest.mark.parametrize("model", [MODEL, OLD])
@pytest.mark.parametrize("said", HALVES)
def test_half_a_character_is_refused(model, said):
    with pytest.raises(ValueError, match="half a character"):
        message(model, CALL._replace(**said), {})


@pytest.mark.parametrize("method", ["generate", "stream", "predict"])
@pytest.mark.parametrize("said", HALVES)
def test_half_a_character_is_rejected_once_and_not_tried_again(method, said):
    async def finish():
        async with opened("127.0.0.1:1", encrypted=False) as channels:
            service = Service(MODEL, Access("127.0.0.1:1", RESOURCE, None), channels, None)
            ended = asyncio.Event()
            executor = LocalExecutor(lambda: 0, ended.set, {("vertex", MODEL): service})
            executor.submit([CALL._replace(params={"method": method}, **said)])
            await ended.wait()
            [finish] = executor.outcomes()
            return finish

    found = asyncio.run(asyncio.wait_for(finish(), 20))
    assert found.outcome == "rejected"
    assert (
        found.reason == "the prompt can't be sent: it has half a character in it, a lone surrogate"
    )


def test_parameters_that_cannot_be_sent_stop_the_run():
    async def finish():
        async with opened("127.0.0.1:1", encrypted=False) as channels:
            service = Service(MODEL, Access("127.0.0.1:1", RESOURCE, None), channels, None)
            ended = asyncio.Event()
            executor = LocalExecutor(lambda: 0, ended.set, {("vertex", MODEL): service})
            executor.submit([CALL._replace(params={"retry_temperature": "0.9"})])
            await ended.wait()
            [finish] = executor.outcomes()
            return finish

    found = asyncio.run(asyncio.wait_for(finish(), 20))
    assert found.outcome == "denied"
    assert "retry_temperature" in found.reason
