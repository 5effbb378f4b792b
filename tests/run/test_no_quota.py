"""Servers that refuse and fail for other reasons than a quota, over HTTP and gRPC on loopback.

Each crawl has a plain client beside it, which keeps as many calls in flight, whatever it is told.
The short form looks at what was answered; the long one (scripts/test --long) at the speed, too.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import grpc
import pytest
from aiohttp import web

from crawler import crawl
from crawler.emulator.server import serve as serve_emulator
from crawler.emulator.settings import Settings
from crawler.policy import Policy
from crawler.providers.vertex import messages
from tests.answering import chat
from tests.conftest import LONG
from tests.program import rows

MODEL = "projects/p/locations/l/publishers/google/models/gemini-2.5-flash"
BUSY = 429, {"error": {"message": "Resource exhausted, please try again later."}}, {}
OUT = 503, {"error": {"message": "The model is overloaded. Please try again later."}}, {}
LIE = 429, {"error": {"message": "Too many requests"}}, {"Retry-After": "3"}
POISON = 3


class Server(NamedTuple):
    """How a server refuses: by the number of a call, its word and the seconds since the start."""

    refuses: Callable[[random.Random, int, str, float], object]
    latency_s: float = 0.05
    words: int = 600
    share: float = 0.5
    """Of a plain client's speed: what is asserted is less than docs/quota.md shows."""
    settings: dict | None = None
    """Of an emulator that refuses alike, over gRPC."""


def noisy(share, refusal=BUSY):
    return lambda chance, nth, word, at_s: refusal if chance.random() < share else None


SERVERS = {
    "2 % get 429": Server(noisy(0.02), settings={"faults": {"resource_exhausted": 0.02}}),
    "10 % get 429": Server(noisy(0.1), share=0.3, settings={"faults": {"resource_exhausted": 0.1}}),
    "one lies of a pause of 3 s": Server(
        lambda chance, nth, word, at_s: LIE if nth == 40 else None, latency_s=0.2, share=0.6
    ),
    "70 % get 503": Server(
        noisy(0.7, OUT), words=1_000, share=0.25, settings={"faults": {"unavailable": 0.7}}
    ),
    "out for 1 s of each 5": Server(
        lambda chance, nth, word, at_s: OUT if at_s % 5 < 1 else None,
        words=1_200,
        share=0.4,
        settings={"outage_s": (0, 1, 5)},
    ),
    "busy for 1 s of each 5": Server(
        lambda chance, nth, word, at_s: BUSY if at_s % 5 < 1 else None,
        words=1_200,
        share=0.3,
        settings={"outage_s": (0, 1, 5), "outage_kind": "resource_exhausted"},
    ),
    "a word gets 429 for ever": Server(
        lambda chance, nth, word, at_s: BUSY if word == str(POISON) else None,
        words=300,
        share=0.25,
    ),
}
WORDS = 60
"""Of the short form."""
AT_ONCE = 10


@asynccontextmanager
async def http_server(server, seed):
    """Serve over HTTP as an OpenAI-compatible server; yields its address."""
    chance, began_s, calls = random.Random(seed), time.monotonic(), 0

    async def answer(request):
        nonlocal calls
        calls += 1
        word = (await request.json())["messages"][-1]["content"].split()[-1]
        refusal = server.refuses(chance, calls, word, time.monotonic() - began_s)
        if refusal is not None:
            status, body, headers = refusal
            return web.json_response(body, status=status, headers=headers)
        await asyncio.sleep(server.latency_s)
        return web.json_response(chat(f"{word} is a word"))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def plain_s(words, ask):
    """Return how long a client takes that asks again whatever it is told."""
    left, began_s = list(words), time.monotonic()

    async def work():
        while left:
            word = left.pop()
            if not await ask(word):
                left.insert(0, word)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return time.monotonic() - began_s


async def crawl_s(path, words, provider):
    """Return how long a crawl takes."""
    began_s = time.monotonic()
    what = {"prompt": "About {word}", "provider": provider, "model": "gemini-2.5-flash"}
    # Answers take little, so pauses do, too; and no word fails by chance.
    policy = Policy(backoff_base_ms=50, backoff_cap_ms=500, max_failures=99)
    await crawl(words, **what, database=path, concurrency=AT_ONCE, policy=policy)
    return time.monotonic() - began_s


def is_answered(path, asked):
    """Check that all is answered, and that nobody failed for what is no word's fault."""
    states = dict(rows(path, "SELECT state, count(*) FROM requests GROUP BY state"))
    assert states.pop("succeeded") == asked
    assert set(states) <= {"failed"}
    assert states.get("failed", 0) <= 1


def words_of(server):
    return [str(n) for n in range(server.words if LONG else WORDS)]


@pytest.mark.parametrize("name", SERVERS)
def test_over_http(tmp_path, monkeypatch, name):
    server, path = SERVERS[name], tmp_path / "c.db"
    words = words_of(server)
    is_poisoned = "for ever" in name
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    async def main():
        async with http_server(server, 1) as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            took_s = await crawl_s(path, words, "openai")
        is_answered(path, len(words) - is_poisoned)
        if not LONG:
            return
        async with http_server(server, 1) as url, aiohttp.ClientSession() as session:

            async def ask(word):
                body = {"messages": [{"content": f"About {word}"}]}
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    await response.read()
                    return response.status == 200

            others = [word for word in words if not (is_poisoned and word == str(POISON))]
            usual_s = await plain_s(others, ask)
        print(f"{name}: {took_s:.1f} s, a plain client {usual_s:.1f} s")
        assert usual_s / took_s > server.share

    asyncio.run(main())


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].settings])
def test_over_grpc(tmp_path, monkeypatch, name):
    server, path = SERVERS[name], tmp_path / "c.db"
    words = words_of(server)
    settings = Settings(latency_ms=int(server.latency_s * 1_000), **server.settings)

    async def main():
        async with serve_emulator(settings) as emulator:
            monkeypatch.setenv("VERTEX_EMULATOR_HOST", emulator.endpoint)
            took_s = await crawl_s(path, words, "vertex")
        is_answered(path, len(words))
        if not LONG:
            return
        async with (
            serve_emulator(settings) as emulator,
            grpc.aio.insecure_channel(emulator.endpoint) as channel,
        ):
            generate = channel.unary_unary(messages.GENERATE)

            async def ask(word):
                request = messages.GenerateContentRequest(model=MODEL)
                request.contents.add(role="user").parts.add(text=f"About {word}")
                try:
                    await generate(request.SerializeToString())
                except grpc.aio.AioRpcError:
                    return False
                return True

            usual_s = await plain_s(words, ask)
        print(f"{name}: {took_s:.1f} s, a plain client {usual_s:.1f} s")
        assert usual_s / took_s > server.share

    asyncio.run(main())
