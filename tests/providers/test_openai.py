"""The OpenAI-compatible provider against a server on this machine: every end of a call, what is
posted, and what a server says about when to come back."""

import asyncio
import email.utils
import json
import socket
import struct
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from crawler.errors import CrawlerError, Exit
from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.check import CHECKS, complaint, ends_as_sentence, mentions_word
from crawler.providers.openai.request import request_body
from crawler.providers.openai.service import connect
from crawler.states import Outcome

KEY = "sk-verysecret/0123456789"
CALL = Call(
    request_id=1,
    number=1,
    word="abrogate",
    provider="openai",
    model="m",
    prompt="Define abrogate.",
    prefill="",
    params={},
    timeout_ms=10_000,
)


@asynccontextmanager
async def serving(handler):
    """Serve a handler on a loopback port; yield the address of its API."""
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@pytest.fixture
def ask(monkeypatch):
    """Return a function that makes a call to a handler, as a crawl would."""

    def asked(handler, call=CALL, key=KEY):
        async def once():
            async with serving(handler) as base_url:
                monkeypatch.setenv("OPENAI_BASE_URL", base_url)
                monkeypatch.setenv("OPENAI_API_KEY", key)
                async with connect(call.model) as provider:
                    return await provider.generate(call)

        return asyncio.run(once())

    return asked


@pytest.fixture
def refused(ask):
    """Return a function that makes a call which is to fail, and returns its error."""

    def failed(handler, call=CALL, key=KEY):
        with pytest.raises(ProviderError) as caught:
            ask(handler, call, key)
        assert len(caught.value.reason.splitlines()) == 1
        assert len(caught.value.reason) <= 420  # with what a person can do
        return caught.value

    return failed


def replying(body, status=200, headers=None):
    """Return a handler that always says the same."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handle(request):
        return web.Response(body=content, status=status, headers=headers)

    return handle


def chat(content="To repeal.", finish_reason="stop", **more):
    message = {"role": "assistant", "content": content, **more}
    return {
        "choices": [{"message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7},
    }


ANSWER = json.dumps(chat()).encode()


def test_a_good_answer_comes_with_its_tokens(ask):
    assert ask(replying(chat(" To repeal.\n"))) == Answer("To repeal.", 5, 7, finish_reason="stop")


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}])
def test_a_server_need_not_count_tokens(ask, usage):
    assert ask(replying({**chat(), "usage": usage})) == Answer("To repeal.", finish_reason="stop")


def test_a_completion_has_its_text_elsewhere(ask):
    reply = {"choices": [{"text": " to repeal.", "finish_reason": "stop"}]}
    call = CALL._replace(params={"endpoint": "completion"}, prefill="Abrogate:")
    assert ask(replying(reply), call).text == "Abrogate: to repeal."


@pytest.mark.parametrize("content", ["It means to repeal.", " to repeal."])
def test_a_chat_server_may_repeat_the_prefill_or_not(ask, content):
    call = CALL._replace(prefill="It means")
    assert ask(replying(chat(content)), call).text == "It means to repeal."


def test_a_prefill_that_is_repeated_and_not_continued_is_no_answer(refused):
    error = refused(replying(chat("It means")), CALL._replace(prefill="It means"))
    assert error.reason == "the answer is empty (stop)"


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        (chat(""), "no_answer", "the answer is empty (stop)"),
        (chat(None), "no_answer", "the answer is empty (stop)"),
        (chat(" \n "), "no_answer", "the answer is empty (stop)"),
        (chat("To rep", "length"), "no_answer", "the answer is cut off at max_output_tokens"),
        (chat("To", "content_filter"), "blocked", "the answer was blocked (content_filter)"),
        (chat(None, "content_filter"), "blocked", "the model refused (content_filter)"),
        (chat(None, refusal="I won't."), "blocked", "the model refused (stop)"),
    ],
)
def test_an_answer_that_is_none_has_been_paid_for(refused, reply, outcome, reason):
    error = refused(replying(reply))
    assert (error.outcome, error.reason) == (outcome, reason)
    assert (error.status_code, error.answer.tokens_in, error.answer.tokens_out) == (200, 5, 7)


def test_a_truncated_answer_may_be_allowed(ask):
    call = CALL._replace(params={"allow_truncated": True})
    assert ask(replying(chat("To rep", "length")), call).text == "To rep"


def test_an_answer_that_fails_its_check_is_none(refused):
    call = CALL._replace(params={"checks": ["ends_as_sentence", "mentions_word"]})
    error = refused(replying(chat("To repeal.")), call)
    assert (error.outcome, error.reason) == ("no_answer", "the answer does not mention the word")


def test_a_check_that_there_is_not_is_told_before_anything_is_paid_for(refused):
    async def never(request):
        raise AssertionError("nothing is to be asked")

    error = refused(never, CALL._replace(params={"checks": ["mentions_wrd"]}))
    assert error.outcome == "rejected"
    assert error.reason == "there is no check 'mentions_wrd'"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, ANSWER[:-9]])
def test_a_body_that_is_no_json_is_no_answer(refused, body):
    error = refused(replying(body))
    assert (error.outcome, error.kind) == ("no_answer", "not_an_answer")


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (b"<html>busy</html>", "configuration"),
        (b"<html>Sign in to the hotel's network</html>", "network_blocked"),
    ],
)
def test_a_web_page_is_the_fault_of_an_address_or_of_a_network_and_of_no_word(refused, page, kind):
    error = refused(replying(page))
    assert (error.outcome, error.kind) == ("refused", kind)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        [],
        None,
        "text",
        {"choices": None},
        {"choices": []},
        {"choices": [{}]},
        {"choices": ["x"]},
        {"choices": [{"message": None}]},
        chat([]),
        chat(5),
    ],
)
def test_a_body_without_a_text_is_no_answer(refused, reply):
    error = refused(replying(reply))
    assert (error.outcome, error.kind) == ("no_answer", "not_an_answer")


@pytest.mark.parametrize("content", [["a ", "list"], [{"text": "a list"}], {"text": "a list"}])
def test_a_text_may_come_in_parts(ask, content):
    assert ask(replying(chat(content))).text == "a list"


def test_201_with_an_answer_is_one(ask):
    assert ask(replying(chat(), 201)).text == "To repeal."


@pytest.mark.parametrize(
    ("status", "outcome", "kind"),
    [
        (200, "transient", "transient"),
        (201, "transient", "accepted_later"),
        (202, "transient", "accepted_later"),
        (302, "refused", "configuration"),
        (400, "refused", "unclear"),
        (401, "denied", "credentials"),
        (402, "no_money", "money"),
        (403, "denied", "credentials"),
        (404, "refused", "configuration"),
        (405, "refused", "configuration"),
        (407, "denied", "credentials"),
        (408, "transient", "timeout_upstream"),
        (409, "transient", "transient"),
        (413, "rejected", "word"),
        (422, "refused", "unclear"),
        (429, "throttled", "throttled_minute"),
        (500, "transient", "transient"),
        (502, "transient", "transient"),
        (503, "transient", "overloaded"),
        (504, "transient", "timeout_upstream"),
        (529, "transient", "overloaded"),
    ],
)
def test_every_status_that_says_nothing_else_is_one_outcome(refused, status, outcome, kind):
    error = refused(replying({"error": {"message": "because\n of\tthis"}}, status))
    assert (error.outcome, error.kind) == (outcome, kind)
    assert error.status_code == (None if status == 200 else status)
    if status != 407:  # said by a proxy, which speaks of itself
        said = "" if status == 200 else f"HTTP {status}: "
        assert error.reason.partition(" (")[0] == f"{said}because of this"
    assert error.retry_after_ms is None


def test_a_403_after_others_were_served_is_no_wrong_key(refused):
    forbidden = replying({"error": {"message": "no"}}, 403)
    error = refused(forbidden, CALL._replace(served_before=True))
    assert (error.outcome, error.kind) == ("refused", "forbidden")


@pytest.mark.parametrize("served", [False, True])
def test_a_refusal_that_is_about_the_input_is_one_words_fault(refused, served):
    flagged = replying({"error": {"message": "your input was flagged", "code": 403}}, 403)
    error = refused(flagged, CALL._replace(served_before=served))
    assert (error.outcome, error.kind) == ("blocked", "blocked")


def test_no_money_is_no_words_fault_and_the_reason_is_what_was_said(refused):
    error = refused(replying({"error": {"message": "Insufficient Balance"}}, 402))
    assert (error.outcome, error.kind) == ("no_money", "money")
    assert error.reason == "HTTP 402: Insufficient Balance"


def test_a_redirect_is_not_followed(refused):
    async def elsewhere(request):
        assert "elsewhere" not in request.path, "a key must not be taken elsewhere"
        raise web.HTTPTemporaryRedirect("/v1/elsewhere")

    error = refused(elsewhere)
    assert (error.outcome, error.kind) == ("refused", "configuration")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Internal Server Error"),
        (b"{}", "Internal Server Error"),
        (b'{"error": {"code": "E42", "reason": 7}}', '{"error": {"code": "E42", "reason": 7}}'),
        (b"<h1>Bad\nGateway</h1>", "<h1>Bad Gateway</h1>"),
        (b'{"error": "overloaded"}', "overloaded"),
        (b'{"detail": 1}', '{"detail": 1}'),
        (b"[" * 100_000, "[" * 290),
        (b"x" * 1_000, "x" * 290),
        (b"\xff", "\ufffd"),
    ],
)
def test_what_an_error_says_is_one_short_line(refused, body, message):
    assert refused(replying(body, 500)).reason == f"HTTP 500: {message}"


@pytest.mark.parametrize(
    ("headers", "pause_ms"),
    [
        ({"Retry-After": "7"}, 7_000),
        ({"Retry-After": " 0 "}, None),  # no advice: our own backoff holds
        ({"retry-after-ms": "1500.4", "Retry-After": "7"}, 1_500),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_says_when_to_come_back(refused, status, headers, pause_ms):
    assert refused(replying({}, status, headers)).retry_after_ms == pause_ms


def test_a_server_may_name_a_time_to_come_back(refused):
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    pause_ms = refused(replying({}, 429, {"Retry-After": date})).retry_after_ms
    assert 90_000 < pause_ms <= 100_000


def test_a_refused_connection_is_nobody_there(monkeypatch):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)

        async def once():
            async with connect("m") as provider:
                await provider.generate(CALL)

        with pytest.raises(ProviderError, match="cannot connect") as error:
            asyncio.run(once())
    assert error.value.outcome is Outcome.UNAVAILABLE


def reset(request):
    """End a connection as a server does that has died."""
    linger = struct.pack("ii", 1, 0)
    transport = request.transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def test_a_reset_before_the_answer_is_transient(refused):
    async def handle(request):
        await request.read()
        reset(request)
        return web.Response()

    assert refused(handle).outcome == "transient"


@pytest.mark.parametrize("end", [reset, lambda request: request.transport.close()])
def test_an_answer_that_breaks_off_is_transient(refused, end):
    async def handle(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices": ')
        end(request)
        return response

    assert refused(handle).outcome == "transient"


def test_an_encoding_that_lies_is_transient(refused):
    async def handle(request):
        response = web.StreamResponse(headers={"Content-Encoding": "gzip", "Content-Length": "4"})
        await response.prepare(request)
        await response.write(b"nope")
        return response

    assert refused(handle).outcome == "transient"


def test_the_key_is_in_the_header_and_nowhere_else(ask):
    seen = []

    async def handle(request):
        seen.append((request.headers["Authorization"], request.path, await request.text()))
        return web.json_response(chat())

    ask(handle)
    [(header, path, body)] = seen
    assert header == f"Bearer {KEY}"
    assert path == "/v1/chat/completions"
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Define abrogate."}],
    }


@pytest.mark.parametrize("before", ["", "x" * 275])
@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_that_a_server_echoes_is_in_no_reason(refused, status, before):
    async def echo(request):
        said = before + request.headers["Authorization"]
        answers = {400: said, 401: json.dumps({"error": said}).replace("/", "\\/"), 500: said}
        return web.Response(text=answers[status], status=status)

    reason = refused(echo).reason
    assert "Bearer" in reason
    assert "very" not in reason


def test_a_line_break_after_the_key_is_no_part_of_it(ask):
    async def handle(request):
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        return web.json_response(chat())

    assert ask(handle, key=f"{KEY}\r\n").text == "To repeal."


def test_without_a_key_there_is_no_header(ask):
    async def handle(request):
        assert "Authorization" not in request.headers
        return web.json_response(chat())

    assert ask(handle, key="").text == "To repeal."


@pytest.mark.parametrize(
    ("base_url", "exit_code"),
    [
        ("", Exit.DENIED),
        ("https://api.openai.com/v1", Exit.DENIED),
        ("example.org/v1", Exit.CONFIGURATION),
        ("ftp://example.org", Exit.CONFIGURATION),
        ("https://", Exit.CONFIGURATION),
        ("http://[", Exit.CONFIGURATION),
        ("http://example.org:x/v1", Exit.CONFIGURATION),
    ],
)
def test_an_environment_that_cannot_work_is_refused_at_once(monkeypatch, base_url, exit_code):
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def once():
        async with connect("m"):
            raise AssertionError("there is nobody to ask")

    with pytest.raises(CrawlerError) as error:
        asyncio.run(once())
    assert error.value.exit_code == exit_code


def test_system_and_prefill_are_messages_around_the_prompt():
    call = CALL._replace(prefill="It means", params={"system": "Be brief."})
    assert request_body(call)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Define abrogate."},
        {"role": "assistant", "content": "It means"},
    ]


def test_a_completion_continues_prompt_and_prefill():
    call = CALL._replace(prefill=" It means", params={"endpoint": "completion"})
    assert request_body(call) == {"model": "m", "prompt": "Define abrogate. It means"}


def test_parameters_of_our_own_stay_here_and_others_go_out():
    own = {"allow_truncated": True, "checks": [], "endpoint": "chat", "retry_temperature": 1}
    other = {"top_p": 0.5, "stop": ["\n"], "response_format": {"type": "json_object"}}
    body = request_body(CALL._replace(params={**own, **other, "max_output_tokens": 80}))
    assert body.pop("messages")
    assert body == {**other, "model": "m", "max_tokens": 80}


SCHEMA = {"type": "OBJECT", "properties": {"definition": {"type": "STRING"}}}


def test_a_schema_is_a_response_format_and_its_types_are_the_servers_own():
    params = {"response_schema": SCHEMA, "response_mime_type": "application/json"}
    body = request_body(CALL._replace(params=params))
    assert body.keys() == {"model", "messages", "response_format"}
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "schema": {"type": "object", "properties": {"definition": {"type": "string"}}},
        },
    }


def test_json_without_a_schema_is_a_response_format_and_plain_text_is_none():
    body = request_body(CALL._replace(params={"response_mime_type": "application/json"}))
    assert body["response_format"] == {"type": "json_object"}
    assert request_body(CALL._replace(params={"response_mime_type": "text/plain"})).keys() == {
        "model",
        "messages",
    }


def test_a_response_format_of_ones_own_is_kept():
    own = {"response_format": {"type": "text"}, "response_schema": SCHEMA}
    assert request_body(CALL._replace(params=own))["response_format"] == {"type": "text"}


def test_an_answer_with_fields_is_kept_without_its_fence(ask):
    call = CALL._replace(params={"response_schema": SCHEMA})
    said = '```json\n{"definition": "to repeal"}\n```'
    assert ask(replying(chat(said)), call).text == '{"definition": "to repeal"}'


def test_an_answer_that_is_not_the_json_asked_for_is_none_and_is_kept_as_a_draft(refused):
    call = CALL._replace(params={"response_schema": SCHEMA})
    error = refused(replying(chat('{"definition": 1}')), call)
    assert error.outcome == "no_answer"
    assert error.reason == "the answer has 'definition' of another type than string: 1"
    assert error.answer.text == '{"definition": 1}'


def test_json_that_is_cut_off_is_cut_off_before_it_is_no_json(refused):
    call = CALL._replace(params={"response_schema": SCHEMA})
    error = refused(replying(chat('{"definition": "to rep', "length")), call)
    assert error.reason == "the answer is cut off at max_output_tokens"


def test_nothing_but_the_prompt_decides_the_model():
    assert request_body(CALL._replace(params={"model": "other"}))["model"] == "m"


@pytest.mark.parametrize("first", [40, 0, -1])
@pytest.mark.parametrize("again", [0.9, 0])
@pytest.mark.parametrize("number", [1, 2, 7])
def test_each_attempt_has_its_own_seed_and_a_retry_its_temperature(first, again, number):
    params = {"seed": first, "temperature": 0.2, "retry_temperature": again}
    body = request_body(CALL._replace(number=number, params=params))
    assert body["seed"] == first + number - 1
    assert body["temperature"] == (0.2 if number == 1 else again)
    assert "retry_temperature" not in body


@pytest.mark.parametrize(
    "text", ["Done.", "Done! ", "Done?\n", 'He said: "Done."', "(Done.)\u2019"]
)
def test_a_sentence_ends_with_its_mark(text):
    assert ends_as_sentence("x", text) is None


@pytest.mark.parametrize("text", ["", '"', "Done", "Done. And", "Done,", "1) Done: (a"])
def test_half_a_sentence_does_not(text):
    assert ends_as_sentence("x", text) == "does not end as a sentence"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("abrogate", "ABROGATING a treaty"),
        ("laconic", "He laconically agreed"),
        ("zeal", "zealous"),
        ("ox", "an Ox"),
    ],
)
def test_a_word_is_mentioned_by_its_stem(word, text):
    assert mentions_word(word, text) is None


@pytest.mark.parametrize(
    ("word", "text"), [("abrogate", "to abort"), ("zeal", "a zebra"), ("ox", "")]
)
def test_another_word_is_no_mention(word, text):
    assert mentions_word(word, text) == "does not mention the word"


@given(word=st.text(min_size=1), text=st.text())
def test_checks_take_any_text(word, text):
    assert complaint([], word, text) is None
    assert ends_as_sentence(word, f"{text}.") is None
    first = complaint(CHECKS, word, text)
    assert first in {None, *(check(word, text) for check in CHECKS.values())}


def test_an_answer_that_is_no_good_need_not_be_waited_for(refused):
    cut_off = replying({"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]})

    assert refused(cut_off).retry_after_ms == 0


def test_a_try_after_the_first_asks_caches_to_stay_out(ask):
    seen = []

    async def handler(request):
        seen.append(request.headers.get("Cache-Control"))
        return web.json_response({"choices": [{"message": {"content": "x"}}]})

    ask(handler)
    ask(handler, CALL._replace(number=2))
    assert seen == [None, "no-cache"]


UNSUPPORTED = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
    " 'max_completion_tokens' instead."
)
EXTRA = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'),"
    " 'msg': 'Extra inputs are not permitted'}]"
)


def several(monkeypatch, handler, *calls):
    """Make calls to one server, one after the other; return what came of each."""

    async def once():
        async with serving(handler) as base_url:
            monkeypatch.setenv("OPENAI_BASE_URL", base_url)
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            async with connect("m") as provider:
                return [
                    (await asyncio.gather(provider.generate(call), return_exceptions=True))[0]
                    for call in calls
                ]

    return asyncio.run(once())


@pytest.mark.parametrize(
    ("params", "refused_name", "said", "wanted"),
    [
        ({"max_output_tokens": 9}, "max_tokens", UNSUPPORTED, "max_completion_tokens"),
        ({"max_completion_tokens": 9}, "max_completion_tokens", EXTRA, "max_tokens"),
    ],
)
def test_a_name_that_a_server_wants_is_learned_once(
    monkeypatch, params, refused_name, said, wanted
):
    seen = []

    async def handler(request):
        body = await request.json()
        seen.append({name: body[name] for name in body if name.startswith("max")})
        if refused_name in body:
            return web.json_response({"error": {"message": said}}, status=400)
        return web.json_response({"choices": [{"message": {"content": "x"}}]})

    call = CALL._replace(params=params)
    first, *others = several(monkeypatch, handler, call, call, call)
    assert (first.outcome, first.kind, first.status_code) == ("interrupted", "parameter", 400)
    assert [other.text for other in others] == ["x", "x"]
    assert seen == [{refused_name: 9}, {wanted: 9}, {wanted: 9}]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"temperature": 2}, "Unsupported value: 'temperature' does not support 2. Use 1 instead."),
        ({"max_output_tokens": 9}, "Unsupported parameter: 'max_tokens'"),
        ({"max_output_tokens": 9, "max_completion_tokens": 9}, UNSUPPORTED),
        ({}, UNSUPPORTED),
    ],
)
def test_what_is_no_other_name_is_not_learned(monkeypatch, params, said):
    async def handler(request):
        return web.json_response({"error": {"message": said}}, status=400)

    call = CALL._replace(params=params)
    ends = several(monkeypatch, handler, call, call)
    assert {end.outcome for end in ends} == {"refused"}


def test_a_server_that_refuses_both_names_is_not_asked_for_ever(monkeypatch):
    async def handler(request):
        old = "max_tokens" in await request.json()
        said = (
            UNSUPPORTED if old else "'max_completion_tokens' is unknown. Use 'max_tokens' instead."
        )
        return web.json_response({"error": {"message": said}}, status=400)

    call = CALL._replace(params={"max_output_tokens": 9})
    ends = several(monkeypatch, handler, call, call, call)
    assert [end.outcome for end in ends[1:]] == ["refused", "refused"]
