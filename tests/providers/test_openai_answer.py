"""What a body with a status code of success says, in whatever form."""

import json

import pytest

from crawler.providers.answers.finish_reasons import End
from crawler.providers.openai.answer import read_body
from crawler.providers.refusals.said import Said
from crawler.states.kinds import Action, Kind

GOOD = "A good answer."


def chat(content=GOOD, finish="stop", **more):
    message = {"role": "assistant", "content": content}
    return {
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        **more,
    }


def read(body, status=200, **more):
    content = body if isinstance(body, str) else json.dumps(body)
    return read_body(Said(status, {}, content.encode("utf-8", "surrogatepass")), **more)


def piece(name="delta", finish=None, **fields):
    return {"choices": [{"index": 0, name: fields, "finish_reason": finish}]}


def events(*values, end="data: [DONE]\n\n"):
    return "".join(f"data: {json.dumps(value)}\n\n" for value in values) + end


PIECES = [piece(content="A good "), piece(content="answer."), piece(finish="stop")]


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(finish=None),
        {"choices": [{"text": GOOD, "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": GOOD}, "finish_reason": "stop"}]},
        {"choices": [{"message": GOOD, "finish_reason": "stop"}]},
        chat(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": GOOD},
            ]
        ),
        chat(["A good ", {"text": "answer."}]),
        chat([{"text": "hm", "thought": True}, {"type": "output_text", "text": GOOD}]),
        chat(f"<think>hm</think>{GOOD}"),
        chat(error=None),
        chat(error={"code": 0, "message": "success"}),
        events(*PIECES),
        events(*PIECES, end=""),
        events(*PIECES[:2]),  # its end is [DONE]
        ": keep-alive\n\n" + events(*PIECES),
        "".join(json.dumps(one) + "\n" for one in PIECES),
        "\n\n\n" + json.dumps(chat()),
        "\ufeff" + json.dumps(chat()),
        json.dumps(chat()) + json.dumps({"usage": {}}),
        "{}" + json.dumps(chat()),
        json.dumps([chat()]),
        {"code": 0, "msg": "success", "data": chat()},
        {"result": chat(), "success": True, "errors": []},
        # Each event repeats what was written so far.
        events(piece("message", content="A good"), piece("message", "stop", content=GOOD)),
        chat([{"type": "reasoning", "summary": [{"text": "hm"}]}, {"type": "text", "text": GOOD}]),
        json.dumps(chat()) + "\ngarbage",
    ],
)
@pytest.mark.parametrize("status", [200, 201, 246])
def test_a_good_answer_is_read_in_every_form(body, status):
    reading = read(body, status)
    assert reading.refusal is None
    assert reading.written.text == GOOD
    assert reading.written.end is End.GOOD


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_stand_beside_the_text(name):
    body = chat()
    body["choices"][0]["message"][name] = "hm"
    assert read(body).written[:2] == (GOOD, "hm")
    stream = events(piece(**{name: "h"}), piece(**{name: "m"}), *PIECES)
    assert read(stream).written[:2] == (GOOD, "hm")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (chat(None, "length"), Kind.TRUNCATED),
        (chat("Half", "max_tokens"), Kind.TRUNCATED),
        (chat("Half", "max_new_tokens"), Kind.TRUNCATED),
        (chat("<|im_end|>"), Kind.NOT_AN_ANSWER),
        (chat("Half", "abort"), Kind.HALF),
        (chat("", "abort"), Kind.TRANSIENT),
        (chat("<think>hm"), Kind.HALF),
        (chat("Half", "no such end"), Kind.ODD),
        (chat("Half", {"reason": "stop"}), Kind.ODD),
        (chat(None, "tool_calls"), Kind.ODD),
        (chat("Half", "content_filter: RECITATION"), Kind.RECITATION),
        (chat("Half", "content_filter"), Kind.BLOCKED),
        (chat(None), Kind.NOT_AN_ANSWER),
        (chat(" \n"), Kind.NOT_AN_ANSWER),
        (chat("<think>hm</think>"), Kind.NOT_AN_ANSWER),
        (chat([{"type": "thinking", "thinking": "hm"}]), Kind.NOT_AN_ANSWER),
        ({"choices": []}, Kind.NOT_AN_ANSWER),
        ({"choices": [], "prompt_filter_results": [{"content_filter": {}}]}, Kind.NOT_AN_ANSWER),
        ({"choices": [{"message": {}}]}, Kind.NOT_AN_ANSWER),
        ({"choices": "overloaded"}, Kind.NOT_AN_ANSWER),
        ({"what": "is this"}, Kind.NOT_AN_ANSWER),
        ("[]", Kind.NOT_AN_ANSWER),
        ("", Kind.NOT_AN_ANSWER),
        ('{"choices": [{"message": {"content": "overloaded', Kind.NOT_AN_ANSWER),
        ("[" * 200_000, Kind.NOT_AN_ANSWER),
        ({"error": {"code": 429, "message": "Provider returned error"}}, Kind.THROTTLED_MINUTE),
        ({"error": {"code": "402", "message": "?"}}, Kind.MONEY),
        ({"error": "Unexpected endpoint or method."}, Kind.CONFIGURATION),
        (
            {"object": "error", "message": "The model x does not exist", "code": 404},
            "model_missing",
        ),
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, Kind.MONEY),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, Kind.BLOCKED),
        (chat(None, error={"code": 429, "message": "?"}), Kind.THROTTLED_MINUTE),
        ("<html>Sign in to the hotel's network</html>", Kind.NETWORK_BLOCKED),
        ("<html>Welcome to nginx</html>", Kind.CONFIGURATION),
        (events({"error": {"message": "Overloaded", "code": 503}}), Kind.OVERLOADED),
        (events(PIECES[0], {"error": {"message": "?", "code": 503}}, end=""), Kind.OVERLOADED),
        (events(*PIECES[:2], end=""), Kind.ODD),
    ],
)
def test_what_is_no_good_answer_says_why(body, kind):
    refusal = read(body).refusal
    assert refusal is not None
    assert refusal.kind == kind
    assert "secret" not in refusal.reason


def test_an_error_beside_a_broken_answer_is_half_of_one():
    body = chat("", "error")
    body["choices"][0]["error"] = {"code": 502, "message": "Network connection lost"}
    assert read(body).refusal.kind is Kind.TRANSIENT
    body["choices"][0]["message"]["content"] = "Half"
    reading = read(body)
    assert (reading.refusal.kind, reading.written.text) == (Kind.HALF, "Half")
    assert "Network connection lost" in reading.refusal.reason


def test_a_refusal_of_the_models_own_is_blocked():
    body = chat(None)
    body["choices"][0]["message"]["refusal"] = "I can't help with that."
    reading = read(body)
    assert reading.refusal.kind is Kind.BLOCKED
    assert reading.written.refused == "I can't help with that."


def test_what_is_not_ready_is_asked_again_later():
    refusal = read_body(Said(202, {"NVCF-POLL-SECONDS": "60"}, b"")).refusal
    assert refusal.kind is Kind.ACCEPTED_LATER
    assert refusal.retry_after_ms == 60_000
    assert refusal.meaning.action is Action.AGAIN


def test_what_is_said_beside_the_answer_is_read():
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    written = read(chat(usage=usage)).written
    assert (written.usage.prompt, written.usage.text, written.model_version) == (5, 7, "m")
    assert read(chat(usage=[], model=["a"])).written[5:7] == ((None,) * 6, None)


def test_a_server_may_repeat_the_beginning():
    assert read(chat('{"a": 1}'), prefill='{"a"').written.text == ": 1}"
    assert read(chat("hm"), prefill="<think>").refusal.kind is Kind.HALF
    assert read(chat(f"hm</think>{GOOD}"), prefill="<think>").written[:2] == (GOOD, "hm")


def test_only_the_first_of_several_answers_is_read():
    body = chat()
    body["choices"].append({"index": 1, "message": {"content": "Another."}})
    assert read(body).written.text == GOOD
    second = {"choices": [{"index": 1, "delta": {"content": "Another."}}]}
    assert read(events(PIECES[0], second, *PIECES[1:])).written.text == GOOD


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[]", "there is no answer in the body"),
        ({"choices": []}, "there is no answer in the body"),
        ('{"choices": [{"message": {"content": "half', "the answer is cut off or not JSON"),
        ("", "the server sent an empty body in place of an answer"),
    ],
)
def test_where_there_is_no_answer_the_reason_says_what_there_is(body, reason):
    assert read(body).refusal.reason == reason
