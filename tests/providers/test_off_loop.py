"""A large answer is read in a thread, whoever sends it and however; a small one in the loop."""

import asyncio
import json
import threading

import grpc
import pytest
from aiohttp import web

from crawler.protocol import Call
from crawler.providers.answers.off_loop import LARGE
from crawler.providers.openai.service import connect
from crawler.providers.vertex.access import Access
from crawler.providers.vertex.channels import opened
from crawler.providers.vertex.messages import (
    GENERATE,
    GenerateContentRequest,
    GenerateContentResponse,
)
from crawler.providers.vertex.service import Service
from tests.providers.grpc_server import grpc_serving
from tests.providers.test_openai import serving


class Noted(dict):
    """Parameters that note in which thread an answer is looked at."""

    def __init__(self):
        super().__init__({"checks": []})
        self.threads = []

    def get(self, *args):
        self.threads.append(threading.current_thread())
        return super().get(*args)


async def told_by_openai(call, text, on_text, monkeypatch, *, in_events):
    choice = {"message": {"content": text}, "delta": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}).encode()
    if in_events:
        body = b"data: " + body + b"\n\ndata: [DONE]\n\n"

    async def handle(request):
        kind = "text/event-stream" if in_events else "application/json"
        return web.Response(body=body, headers={"Content-Type": kind})

    async with serving(handle) as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        async with connect("m") as server:
            return await (server.stream(call, on_text) if in_events else server.generate(call))


class Vertex(grpc.GenericRpcHandler):
    """Answers each call with one text."""

    def __init__(self, text):
        self._answer = GenerateContentResponse()
        self._answer.candidates.add(finish_reason=1).content.parts.add().text = text

    def service(self, details):
        async def whole(request, context):
            return self._answer

        async def pieces(request, context):
            yield self._answer

        one = details.method == GENERATE
        made = grpc.unary_unary_rpc_method_handler if one else grpc.unary_stream_rpc_method_handler
        return made(
            whole if one else pieces,
            GenerateContentRequest.FromString,
            GenerateContentResponse.SerializeToString,
        )


async def told_by_vertex(call, text, on_text, monkeypatch, *, in_events):
    async with grpc_serving(Vertex(text)) as port:
        target = f"127.0.0.1:{port}"
        async with opened(target, encrypted=False) as channels:
            service = Service("m", Access(target, "m", None), channels, None)
            return await (service.stream(call, on_text) if in_events else service.generate(call))


@pytest.mark.parametrize("provider", [told_by_openai, told_by_vertex])
@pytest.mark.parametrize("in_events", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_a_large_answer_is_read_in_a_thread(provider, in_events, large, monkeypatch):
    text = "so it is " * (LARGE // 9 + 1 if large else 9)
    told = []

    def on_text(piece):
        told.append((piece, threading.current_thread()))

    params = Noted()
    call = Call(1, 1, "w", "openai", "m", "About w.", "", params, 60_000)
    answer = asyncio.run(provider(call, text, on_text, monkeypatch, in_events=in_events))
    assert answer.text == text.strip()
    here = threading.current_thread()
    assert (params.threads[-1] is here) is not large
    assert all(thread is here for _, thread in told)
    assert not in_events or "".join(piece for piece, _ in told) == text
