"""From Vertex AI's messages to an answer: every reason to stop or to block, thoughts, streams in
any pieces, and the shapes of a prediction."""

import json
from contextlib import suppress

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from crawler.protocol import Answer, ProviderError
from crawler.providers.vertex.answer import (
    gather,
    read_draft,
    read_generated,
    read_predicted,
    text_of,
)
from crawler.providers.vertex.messages import (
    Candidate,
    GenerateContentResponse,
    PredictResponse,
)
from tests.providers.vertex_call import CALL

FINISH = Candidate.FinishReason
BLOCKED = GenerateContentResponse.PromptFeedback.BlockedReason
UNKNOWN = 77


def response(*parts, finish=FINISH.STOP, usage=(5, 7, 0), version="m-001", message=""):
    """Return a message; a part is a text, or a thought in a list."""
    made = GenerateContentResponse(model_version=version)
    candidate = made.candidates.add(finish_reason=finish, finish_message=message)
    for part in parts:
        candidate.content.parts.add(text="".join(part), thought=isinstance(part, list))
    if usage:
        counts = made.usage_metadata
        counts.prompt_token_count, counts.candidates_token_count = usage[:2]
        counts.thoughts_token_count = usage[2]
    return made


def blocked(reason, message=""):
    made = GenerateContentResponse()
    made.prompt_feedback.block_reason = reason
    made.prompt_feedback.block_reason_message = message
    made.usage_metadata.prompt_token_count = made.usage_metadata.total_token_count = 5
    return made


def refused(*messages, call=CALL):
    with pytest.raises(ProviderError) as caught:
        read_generated(call, messages)
    assert caught.value.status_code == 200
    return caught.value


def test_an_answer_comes_with_all_that_is_said_of_it():
    answer = read_generated(CALL, [response(" To repeal.\n", usage=(5, 7, 11))])
    assert answer == Answer("To repeal.", 5, 7, 11, "STOP", "m-001")


def test_what_is_not_said_is_not_known():
    answer = read_generated(CALL, [response("To repeal.", usage=None, version="")])
    assert answer == Answer("To repeal.", None, None, None, "STOP", None)


def test_no_thoughts_are_none_and_not_zero():
    assert read_generated(CALL, [response("a")]).tokens_thought is None


def test_thoughts_are_no_part_of_the_text():
    thinking = response(["hm"], "To ", ["I see"], "repeal.")
    assert text_of(thinking) == "To repeal."
    assert read_generated(CALL, [thinking]).text == "To repeal."
    assert read_generated(CALL, [thinking]).thoughts == "hmI see"
    error = refused(response(["hm"]))
    assert (error.outcome, error.reason) == ("no_answer", "the answer is only thoughts (STOP)")
    assert (error.answer.text, error.answer.thoughts) == ("", "hm")


def candidates(*ends):
    made = GenerateContentResponse()
    for index, (text, finish) in enumerate(ends):
        candidate = made.candidates.add(index=index, finish_reason=finish)
        if text:
            candidate.content.parts.add(text=text)
    return made


@pytest.mark.parametrize(
    "ends",
    [
        [("", FINISH.SAFETY), ("To repeal.", FINISH.STOP)],
        [("To rep", FINISH.MAX_TOKENS), (" ", FINISH.STOP), ("To repeal.", FINISH.STOP)],
        [("To repeal.", FINISH.STOP), ("Another.", FINISH.STOP)],
    ],
)
def test_of_several_candidates_the_first_good_one_is_the_answer(ends):
    assert read_generated(CALL, [candidates(*ends)]).text == "To repeal."


def test_where_no_candidate_is_good_the_first_says_why():
    ends = ("", FINISH.SAFETY), ("To rep", FINISH.MAX_TOKENS)
    assert refused(candidates(*ends)).reason == "the answer was blocked: SAFETY"


def test_thoughts_that_use_up_the_limit_are_told_with_what_helps():
    call = CALL._replace(params={"max_output_tokens": 300})
    error = refused(response("", finish=FINISH.MAX_TOKENS, usage=(5, 0, 299)), call=call)
    assert error.reason == (
        "the answer is cut off at max_output_tokens: thinking used 299 of 300:"
        " `--param thinking=0` or a larger max_output_tokens"
    )


def test_what_else_is_said_of_an_answer_is_kept():
    made = response("To repeal.")
    made.response_id, made.candidates[0].avg_logprobs = "id-1", -0.25
    made.usage_metadata.traffic_type = 3
    name = GenerateContentResponse.UsageMetadata.TrafficType.Name(3)
    assert read_generated(CALL, [made]).details == {
        "response_id": "id-1",
        "traffic_type": name,
        "avg_logprobs": -0.25,
    }
    made.response_id = "id-SECRET-0123456789"
    found = read_generated(CALL, [made], ["SECRET-0123456789"]).details
    assert "SECRET" not in found["response_id"]
    made.candidates[0].avg_logprobs = float("nan")
    assert "avg_logprobs" not in read_generated(CALL, [made]).details


def test_only_the_first_candidate_is_the_answer():
    two = response("first")
    two.candidates.add(finish_reason=FINISH.SAFETY).content.parts.add(text="second")
    assert read_generated(CALL, [two]).text == "first"


WHOLE = ("STOP", "MAX_TOKENS")
REFUSED = ("SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR")
ODD = (
    "FINISH_REASON_UNSPECIFIED",
    "MALFORMED_FUNCTION_CALL",
    "OTHER",
    "RECITATION",
)


def test_every_reason_that_the_library_knows_is_good_refused_or_odd():
    assert {*FINISH.keys()} == {*WHOLE, *REFUSED, *ODD}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("text", ["", "To rep"])
def test_a_model_that_refuses_has_blocked_the_request(name, text):
    error = refused(response(text, finish=FINISH.Value(name)))
    assert (error.outcome, error.reason) == ("blocked", f"the answer was blocked: {name}")
    assert error.answer == Answer(text, 5, 7, None, name, "m-001")


def test_a_reason_that_this_library_does_not_know_is_told_as_its_number():
    error = refused(response("", finish=UNKNOWN))
    assert (error.outcome, error.kind) == ("no_answer", "odd")
    assert error.reason.endswith(" (77)")
    assert error.answer.finish_reason == "77"


def test_a_model_may_say_why():
    error = refused(response("", finish=FINISH.SAFETY, message="It is\n rude."))
    assert error.reason == "the answer was blocked: SAFETY (It is rude.)"
    odd = refused(response("", finish=FINISH.RECITATION, message="It is\n a poem."))
    assert odd.reason == "the answer was not given out (RECITATION) (It is a poem.)"


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("text", ["", "To rep"])
def test_an_end_that_is_not_known_to_be_good_is_odd_and_has_its_name(name, text):
    error = refused(response(text, finish=FINISH.Value(name)))
    kind = "recitation" if name == "RECITATION" else "odd"
    assert (error.outcome, error.kind, error.retry_after_ms) == ("no_answer", kind, 0)
    assert error.reason.endswith(f" ({name})")
    assert (error.answer.text, error.answer.tokens_out) == (text, 7)


@pytest.mark.parametrize("name", sorted({*BLOCKED.keys()} - {"BLOCKED_REASON_UNSPECIFIED"}))
def test_a_prompt_that_is_blocked_has_its_reason(name):
    error = refused(blocked(BLOCKED.Value(name)))
    assert (error.outcome, error.reason) == ("blocked", f"the prompt was blocked: {name}")
    assert error.answer == Answer("", 5, 0)
    told = refused(blocked(BLOCKED.Value(name), "It is\n rude."))
    assert told.reason == f"the prompt was blocked: {name} (It is rude.)"


def test_a_block_that_this_library_does_not_know_is_told_as_its_number():
    assert refused(blocked(UNKNOWN)).reason == "the prompt was blocked: 77"


def test_a_prompt_that_is_blocked_in_mid_stream_is_blocked():
    error = refused(response("To ", finish=0), blocked(BLOCKED.JAILBREAK))
    assert (error.outcome, error.reason) == ("blocked", "the prompt was blocked: JAILBREAK")
    assert error.answer.text == "To"


@pytest.mark.parametrize(
    "messages",
    [[], [GenerateContentResponse()], [blocked(BLOCKED.BLOCKED_REASON_UNSPECIFIED)]],
)
def test_no_candidate_and_no_reason_is_an_empty_answer(messages):
    error = refused(*messages)
    assert (error.outcome, error.retry_after_ms) == ("no_answer", 0)
    assert error.reason == "the answer is empty (no candidate)"


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_empty_answer_is_none(text):
    error = refused(response(text))
    assert (error.outcome, error.reason) == ("no_answer", "the answer is empty (STOP)")
    assert error.answer.text == ""


@pytest.mark.parametrize("text", ["To rep", ""])
def test_a_cut_off_answer_is_none(text):
    error = refused(response(text, finish=FINISH.MAX_TOKENS))
    assert (error.outcome, error.retry_after_ms) == ("no_answer", 0)
    assert error.reason == "the answer is cut off at max_output_tokens"
    assert error.answer == Answer(text, 5, 7, None, "MAX_TOKENS", "m-001", truncated=True)


def test_a_cut_off_answer_may_be_allowed_unless_nothing_is_left():
    call = CALL._replace(params={"allow_truncated": True})
    answer = read_generated(call, [response("To rep", finish=FINISH.MAX_TOKENS)])
    assert answer == Answer("To rep", 5, 7, None, "MAX_TOKENS", "m-001", truncated=True)
    error = refused(response("", ["hm"], finish=FINISH.MAX_TOKENS), call=call)
    assert error.reason == "the answer is empty (MAX_TOKENS)"


def test_the_prefill_is_part_of_the_answer():
    call = CALL._replace(prefill="Abrogate: ")
    assert read_generated(call, [response("to repeal.")]).text == "Abrogate: to repeal."


SCHEMA = {
    "response_schema": {
        "type": "OBJECT",
        "properties": {"gloss": {"type": "STRING"}},
        "required": ["gloss"],
    }
}


@pytest.mark.parametrize(
    "text", ['{"gloss": "to repeal"}', '```json\n{"gloss": "to repeal"}\n```\n']
)
def test_an_answer_in_json_is_kept_without_its_fence(text):
    answer = read_generated(CALL._replace(params=SCHEMA), [response(text)])
    assert json.loads(answer.text) == {"gloss": "to repeal"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"gloss": "to rep', "the answer is not JSON"),
        ('{"gloss": 1}', "the answer has 'gloss' of another type than string: 1"),
        ("{}", "the answer lacks 'gloss'"),
        ("[]", "the answer is no JSON object"),
    ],
)
def test_an_answer_that_is_not_the_json_asked_for_is_tried_again(text, reason):
    error = refused(response(text), call=CALL._replace(params=SCHEMA))
    assert (error.outcome, error.retry_after_ms) == ("no_answer", 0)
    assert error.reason.startswith(reason)
    assert error.answer.tokens_out == 7


def test_an_answer_that_fails_its_check_is_tried_again():
    call = CALL._replace(params={"checks": ["mentions_word"]})
    error = refused(response("To repeal."), call=call)
    assert (error.outcome, error.reason) == ("no_answer", "the answer does not mention the word")


pieces = st.lists(st.text() | st.lists(st.text(min_size=1), min_size=1, max_size=1), max_size=6)


def once(call, messages):
    """Return all that a call's messages come to."""
    try:
        return read_generated(call, messages)
    except ProviderError as error:
        return error.outcome, error.reason, error.retry_after_ms, error.answer


@given(
    parts=pieces,
    cuts=st.lists(st.integers(0, 6)),
    finish=st.sampled_from([*FINISH.values(), UNKNOWN]),
    usage=st.none() | st.tuples(*[st.integers(0, 2**31 - 1)] * 3),
    tail=st.booleans(),
    allow=st.booleans(),
)
def test_an_answer_in_any_pieces_is_the_same_answer(parts, cuts, finish, usage, tail, allow):
    call = CALL._replace(params={"allow_truncated": allow})
    whole = [response(*parts, finish=finish, usage=usage)]
    ends = sorted({min(cut, len(parts)) for cut in cuts} - {0, len(parts)})
    starts = [0, *ends]
    stream = [
        response(*parts[start:end], finish=0, usage=None, version="")
        for start, end in zip(starts, [*ends, len(parts)], strict=True)
    ]
    stream.append(response(finish=finish, usage=usage))
    if tail:  # an empty message behind the reason
        stream.append(response(finish=0, usage=None, version=""))
    assert once(call, stream) == once(call, whole)


@given(text=st.text(), cuts=st.lists(st.integers(0, 100)))
def test_a_text_in_any_pieces_is_the_same_text(text, cuts):
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    starts = [0, *ends[:-1]]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert gather([response(part) for part in parts]).text == text
    assert gather([response(*parts)]).text == text


def test_the_last_count_is_that_of_the_whole_stream():
    first = response("To ", finish=0, usage=(5, 1, 0))
    answer = read_generated(CALL, [first, response("repeal.", usage=(5, 7, 0))])
    assert (answer.tokens_in, answer.tokens_out) == (5, 7)


def test_a_stream_that_ends_without_a_reason_is_odd():
    error = refused(response("To ", finish=0), response("repeal.", finish=0))
    assert (error.outcome, error.kind) == ("no_answer", "odd")
    assert error.reason.endswith(" (FINISH_REASON_UNSPECIFIED)")
    assert error.answer.text == "To repeal."


def predicted(*predictions, metadata=None, version="1"):
    made = PredictResponse(model_version_id=version)
    for prediction in predictions:
        json_format.ParseDict(prediction, made.predictions.add())
    if metadata is not None:
        json_format.ParseDict(metadata, made.metadata)
    return made


def unpredicted(message, text_at="content", call=CALL):
    with pytest.raises(ProviderError) as caught:
        read_predicted(call, message, text_at)
    assert caught.value.status_code == 200
    return caught.value


COUNTS = {
    "tokenMetadata": {
        "inputTokenCount": {"totalTokens": 5, "totalBillableCharacters": 14},
        "outputTokenCount": {"totalTokens": 7, "totalBillableCharacters": 9},
    }
}


def test_a_prediction_comes_with_its_tokens():
    message = predicted({"content": " To repeal."}, {"content": "second"}, metadata=COUNTS)
    assert read_predicted(CALL, message, "content") == Answer("To repeal.", 5, 7, model_version="1")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        [],
        "text",
        {"tokenMetadata": None},
        {"tokenMetadata": {"inputTokenCount": {"totalTokens": "5"}, "outputTokenCount": 7}},
        {"tokenMetadata": {"inputTokenCount": {"totalTokens": 1.5}}},
        {"tokenMetadata": {"inputTokenCount": {"totalTokens": True}}},
    ],
)
def test_a_prediction_need_not_count_tokens(metadata):
    message = predicted({"content": "a"}, metadata=metadata, version="")
    assert read_predicted(CALL, message, "content") == Answer("a")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_not_is_no_obstacle(number):
    message = predicted({"content": "a", "score": 1}, metadata=COUNTS)
    message.predictions[0].struct_value.fields["score"].number_value = number
    counts = message.metadata.struct_value.fields["tokenMetadata"].struct_value.fields
    counts["inputTokenCount"].struct_value.fields["totalTokens"].number_value = number
    answer = read_predicted(CALL, message, "content")
    assert (answer.text, answer.tokens_in, answer.tokens_out) == ("a", None, 7)


@pytest.mark.parametrize(
    ("prediction", "text_at"),
    [
        ({"content": "found"}, "content"),
        ("found", ""),
        ({"a": {"b": ["x", {"c": "found"}]}}, "a.b.1.c"),
        (["x", "found"], "1"),
        ({"1": "found"}, "1"),
        ({"a": "found"}, ".a."),
    ],
)
def test_a_text_is_where_text_at_says(prediction, text_at):
    assert read_predicted(CALL, predicted(prediction), text_at).text == "found"


@pytest.mark.parametrize(
    ("prediction", "text_at"),
    [
        ({"contents": "x"}, "content"),
        ({"content": 5}, "content"),
        ({"content": None}, "content"),
        ({"content": ["x"]}, "content"),
        ({"content": {"x": "y"}}, "content"),
        ({"content": "x"}, ""),
        (["x"], "1"),
        (["x"], "-1"),
        (["x"], "²"),
        ("x", "0"),
        (None, ""),
        (True, ""),
        ({"a": "x"}, "a.b"),
    ],
)
def test_a_prediction_without_a_text_is_the_fault_of_a_parameter(prediction, text_at):
    error = unpredicted(predicted(prediction), text_at)
    assert (error.outcome, error.kind) == ("refused", "parameter")
    assert error.reason == f"the prediction has no text at {text_at!r} (parameter text_at)"


def test_a_prediction_that_holds_nothing_at_all_has_no_text():
    message = PredictResponse()
    message.predictions.append(struct_pb2.Value())
    assert unpredicted(message, "").kind == "parameter"


def test_no_prediction_is_no_answer():
    error = unpredicted(predicted(metadata=COUNTS))
    assert (error.outcome, error.reason) == ("no_answer", "there is no prediction")


def test_a_prediction_may_be_blocked():
    message = predicted({"content": "", "safetyAttributes": {"blocked": True}}, metadata=COUNTS)
    error = unpredicted(message)
    assert (error.outcome, error.reason) == ("blocked", "the answer was blocked for safety")
    assert error.answer == Answer("", 5, 7, model_version="1")


@pytest.mark.parametrize("attributes", [{}, {"blocked": False}, {"blocked": "true"}, [], None])
def test_a_prediction_that_is_not_blocked_is_read(attributes):
    message = predicted({"content": "a", "safetyAttributes": attributes})
    assert read_predicted(CALL, message, "content").text == "a"


def test_an_empty_prediction_is_no_answer():
    error = unpredicted(predicted({"content": ""}))
    assert (error.outcome, error.retry_after_ms) == ("no_answer", 0)


def test_a_prediction_is_checked_as_any_answer():
    call = CALL._replace(params=SCHEMA, prefill='{"gloss": ')
    assert json.loads(read_predicted(call, predicted({"content": '"x"}'}), "content").text)
    assert unpredicted(predicted({"content": "1}"}), call=call).outcome == "no_answer"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(prediction=json_values, metadata=json_values, text_at=st.text())
def test_no_prediction_is_too_odd_to_read(prediction, metadata, text_at):
    message = predicted(prediction, metadata=metadata)
    with suppress(ProviderError):
        assert read_predicted(CALL, message, text_at).text


def test_answers_that_come_beside_the_first_are_left_alone_message_by_message():
    def piece(index, text, finish=FINISH.FINISH_REASON_UNSPECIFIED):
        made = GenerateContentResponse()
        candidate = made.candidates.add(index=index, finish_reason=finish)
        candidate.content.parts.add(text=text)
        return made

    messages = [piece(0, "first "), piece(1, "OTHER", FINISH.SAFETY), piece(0, "end", FINISH.STOP)]
    assert read_generated(CALL, messages).text == "first end"
    assert [text_of(message) for message in messages] == ["first ", "", "end"]


def test_what_is_known_of_an_answer_that_broke_off_is_kept():
    call = CALL._replace(prefill="It is ")
    found = read_draft(call, [response("to re", usage=(9, 3, 500))])
    assert (found.text, found.tokens_in, found.tokens_out) == ("It is to re", 9, 3)
    assert (found.tokens_thought, found.model_version) == (500, "m-001")
