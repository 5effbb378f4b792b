"""Answers that come in events: however they are cut, they are what one body would have said."""

import asyncio
import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.event_stream import EventReader
from crawler.providers.openai.reply import Arrived, answer_in
from crawler.providers.openai.service import connect
from crawler.providers.openai.stream import Gathering
from tests.providers.test_openai import serving

CALL = Call(1, 1, "abrogate", "openai", "m", "Define abrogate.", "", {}, 5_000)
TEXT = "To répeal,\nformally 🜁."


def event(content):
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def delta(text, finish_reason=None, **more):
    return event(
        {"choices": [{"delta": {"content": text, **more}, "finish_reason": finish_reason}]}
    )


def events_of(text, finish_reason="stop"):
    yield b": a comment keeps the line open\n\n"
    yield from (delta(char) for char in text)
    yield delta("", finish_reason)
    yield event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
    yield b"data: [DONE]\n\n"


@given(cuts=st.lists(st.integers(0, 3_000)), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_where_the_bytes_are_cut_makes_no_difference(cuts, line_end):
    whole = b"".join(events_of(TEXT)).replace(b"\n", line_end)
    reader, found, start = EventReader(), [], 0
    for end in [*sorted(cut for cut in cuts if cut < len(whole)), len(whole)]:
        found += reader.feed(whole[start:end])
        start = end
    found += reader.end()
    uncut = EventReader()
    assert found == [*uncut.feed(whole), *uncut.end()]
    gathering = Gathering("content")
    assert "".join(map(gathering.add, found)) == TEXT
    assert gathering.whole
    whole = Arrived(200, {}, gathering.body())
    assert answer_in(CALL, whole, ()) == Answer(TEXT, 5, 7, finish_reason="stop")


def test_data_of_several_lines_is_one_event_and_other_fields_are_none():
    reader = EventReader()
    assert reader.feed(b"\xef\xbb\xbfid: 1\ndata: a\ndata:b\n\nevent: x\n\ndata: c") == [b"a\nb"]
    assert reader.end() == [b"c"]


def streaming(*chunks, broken=False):
    """Return a handler that streams, and then ends or breaks."""

    async def handle(request):
        assert (await request.json())["stream"] is True
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if broken:
            request.transport.abort()
        return response

    return handle


@pytest.fixture
def stream(monkeypatch):
    """Return a function that makes a call to a handler and returns its answer and its pieces."""

    def streamed(handler, call=CALL):
        told = []

        async def once():
            async with serving(handler) as base_url:
                monkeypatch.setenv("OPENAI_BASE_URL", base_url)
                monkeypatch.setenv("OPENAI_API_KEY", "key")
                async with connect(call.model) as provider:
                    try:
                        return await provider.stream(call, told.append), told
                    except ProviderError as error:
                        return error, told

        return asyncio.run(once())

    return streamed


def test_an_answer_is_told_in_its_pieces_and_is_what_it_would_be_at_once(stream):
    answer, told = stream(streaming(*events_of(TEXT)))
    assert answer == Answer(TEXT, 5, 7, finish_reason="stop")
    assert "".join(told) == TEXT
    assert len(told) > 1  # several may come at once


def test_the_model_and_its_system_are_kept_as_of_an_answer_that_comes_at_once(stream):
    chunk = {"choices": [{"delta": {"content": "To"}, "finish_reason": "stop"}]}
    answer, _ = stream(streaming(event({**chunk, "model": "m", "system_fingerprint": "fp"})))
    assert answer.model_version == "m (fp)"


def test_a_completion_has_its_text_elsewhere(stream):
    chunk = event({"choices": [{"text": " to repeal.", "finish_reason": "stop"}]})
    call = CALL._replace(params={"endpoint": "completion"}, prefill="Abrogate:")
    answer, told = stream(streaming(chunk), call)
    assert (answer.text, told) == ("Abrogate: to repeal.", [" to repeal."])


def test_a_server_that_does_not_stream_is_read_as_usual(stream):
    async def handle(request):
        message = {"role": "assistant", "content": "To repeal."}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    answer, told = stream(handle)
    assert (answer.text, told) == ("To repeal.", ["To repeal."])


@pytest.mark.parametrize(
    ("handler", "outcome", "draft"),
    [
        (streaming(delta("To rep"), broken=True), "transient", "To rep"),
        (streaming(delta("To rep")), "no_answer", "To rep"),
        (streaming(delta("To rep", "length")), "no_answer", "To rep"),
        (streaming(delta("To rep", "abort")), "no_answer", "To rep"),
        (streaming(delta("", "abort")), "transient", ""),
        (streaming(delta("", "content_filter")), "blocked", ""),
        (streaming(delta("To"), event({"error": {"message": "oh"}})), "transient", "To"),
        (streaming(delta("To"), b"data: {not json\n\n"), "no_answer", "To"),
        (streaming(b"data: [1]\n\n"), "no_answer", ""),
        (streaming(), "no_answer", ""),
    ],
)
def test_a_stream_that_brings_no_answer_says_why_and_keeps_what_came(
    stream, handler, outcome, draft
):
    error, told = stream(handler)
    assert isinstance(error, ProviderError), error
    assert error.outcome == outcome, error.reason
    assert (error.answer.text if error.answer else "") == draft
    assert "".join(told) == draft


def test_a_stream_without_its_end_is_odd(stream):
    error, _ = stream(streaming(delta("To repeal.")))
    assert (error.kind, error.reason) == ("odd", "the answer has no end")


def test_what_a_broken_stream_has_used_and_thought_is_kept(stream):
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    thought = event({"choices": [{"delta": {"reasoning_content": "hm"}}], "usage": usage})
    for pieces in ([thought], [thought, delta("To rep")]):
        error, told = stream(streaming(*pieces, broken=True))
        assert (error.outcome, error.answer.thoughts) == ("transient", "hm")
        assert (error.answer.tokens_in, error.answer.tokens_out) == (5, 9)
        assert error.answer.text == "".join(told)


def test_an_answer_that_had_its_end_before_the_connection_broke_is_whole(stream):
    answer, told = stream(streaming(delta("To repeal."), delta("", "stop"), broken=True))
    assert answer == Answer("To repeal.", finish_reason="stop")
    assert told == ["To repeal."]


def test_an_error_status_is_what_it_is_without_a_stream(stream):
    async def handle(request):
        return web.json_response(
            {"error": {"message": "slow"}}, status=429, headers={"Retry-After": "7"}
        )

    error, told = stream(handle)
    assert (error.outcome, error.retry_after_ms, told) == ("throttled", 7_000, [])


def test_an_end_that_was_said_stays_whatever_comes_after_it(stream):
    late = event({"choices": [{"delta": {}, "finish_reason": None}]})
    answer, told = stream(streaming(delta("To end."), delta("", "stop"), late, delta("")))
    assert (answer.text, answer.finish_reason, told) == ("To end.", "stop", ["To end."])
