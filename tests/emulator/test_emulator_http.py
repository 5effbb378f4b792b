"""The emulator over HTTP, in this process: what OpenAI's and Google's clients send, and see."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from crawler import crawl
from crawler.emulator.server import serve
from crawler.emulator.settings import KINDS, Settings, WordFault
from tests.program import rows

CHAT = "/v1/chat/completions"
GOOGLE = "/v1beta1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash"
ANSWER = (
    "[emulated] Definition: markedly different from an accepted norm\n"
    "Memory sentence: Remember what is aberrant as markedly different from an accepted norm."
)


class Client:
    """Asks an emulator, and keeps nothing."""

    def __init__(self, emulator, session):
        self.tally, self.emulator = emulator.tally, emulator
        self.session = session

    async def post(self, path, body):
        """Return status, headers and body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.emulator.http_address + path, data=data) as response:
            return response.status, response.headers, await response.text()

    async def chat(self, text, model="gpt-4o-mini", **more):
        status, headers, body = await self.post(
            CHAT, {"model": model, "messages": [{"role": "user", "content": text}], **more}
        )
        return status, headers, json.loads(body) if not more.get("stream") else body

    async def google(self, text, method="generateContent", **more):
        contents = [{"role": "user", "parts": [{"text": text}]}]
        status, _, body = await self.post(f"{GOOGLE}:{method}", {"contents": contents, **more})
        return status, json.loads(body)


@asynccontextmanager
async def asked(**settings):
    async with (
        serve(Settings(http_port=0, **settings)) as emulator,
        aiohttp.ClientSession() as session,
    ):
        yield Client(emulator, session)


def run(check):
    asyncio.run(asyncio.wait_for(check(), 30))


def test_openai_s_chat_is_answered():
    async def check():
        async with asked() as client:
            _, _, said = await client.chat('Define "aberrant".')
            assert said["choices"][0]["message"]["content"] == ANSWER
            assert said["choices"][0]["finish_reason"] == "stop"
            assert said["usage"]["total_tokens"] == sum(
                said["usage"][name] for name in ("prompt_tokens", "completion_tokens")
            )
            _, _, said = await client.chat('Define "aberrant".', max_completion_tokens=3)
            assert said["choices"][0]["finish_reason"] == "length"
            schema = {"type": "object", "properties": {"gloss": {"type": "string"}}}
            form = {"type": "json_schema", "json_schema": {"name": "g", "schema": schema}}
            _, _, said = await client.chat('Define "aberrant".', response_format=form)
            assert list(json.loads(said["choices"][0]["message"]["content"])) == ["gloss"]
            status, _, said = await client.chat("x", model="gpt-9")
            assert (status, said["error"]["code"]) == (404, "model_not_found")
            async with client.session.get(client.emulator.http_address + "/v1/models") as listed:
                names = [entry["id"] for entry in (await listed.json())["data"]]
            assert names == ["gemini-2.5-flash", "gpt-4o-mini"]

    run(check)


def test_openai_s_stream_is_said_in_events():
    async def check():
        async with asked() as client:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            _, _, said = await client.chat('Define "aberrant".', **options)
            *events, done = said.removesuffix("\n\n").split("\n\n")
            chunks = [json.loads(event.removeprefix("data: ")) for event in events]
            assert done == "data: [DONE]"
            deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
            assert len(deltas) > 2
            assert "".join(delta.get("content", "") for delta in deltas) == ANSWER
            assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
            assert chunks[-1]["usage"]["completion_tokens"] > 0

    run(check)


def test_what_is_left_of_a_quota_is_told_and_a_refusal_is_openai_s():
    async def check():
        async with asked(per_minute=2, tokens_per_minute=10_000, window="sliding") as client:
            left = []
            for _ in range(2):
                _, headers, _ = await client.chat("aberrant")
                left.append(headers["x-ratelimit-remaining-requests"])
                assert headers["x-ratelimit-limit-requests"] == "2"
                assert 0 < int(headers["x-ratelimit-reset-requests"].removesuffix("ms")) <= 60_000
            assert left == ["1", "0"]
            status, headers, said = await client.chat("aberrant")
            assert status == 429
            assert said["error"]["code"] == "rate_limit_exceeded"
            assert "requests per min" in said["error"]["message"]
            assert 0 < int(headers["retry-after-ms"]) <= 60_000
            status, said = await client.google("aberrant")
            assert (status, said["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
            kinds = {detail["@type"].rpartition(".")[2] for detail in said["error"]["details"]}
            assert kinds == {"ErrorInfo", "QuotaFailure", "RetryInfo"}

    run(check)


def test_google_s_rest_says_what_grpc_says():
    async def check():
        async with asked(word_faults={"odd": [WordFault("safety")]}) as client:
            _, said = await client.google('Define "aberrant".')
            assert said["candidates"][0]["content"]["parts"][0]["text"] == ANSWER
            _, said = await client.google('"odd"')
            assert said["candidates"][0]["finishReason"] == "SAFETY"
            _, said = await client.google("abcdefgh", "countTokens")
            assert said["totalTokens"] == 2
            body = {"instances": [{"prompt": 'Define "aberrant".'}], "parameters": {}}
            _, _, said = await client.post(f"{GOOGLE}:predict", body)
            assert json.loads(said)["predictions"][0]["content"] == ANSWER
            status, said = await client.google("x", "tuneModel")
            assert (status, said["error"]["status"]) == (404, "NOT_FOUND")

    run(check)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages": []}', b'{"messages": [{}], "model": 1}', b"\xff"]
)
def test_what_can_not_be_read_is_told(body):
    async def check():
        async with asked() as client:
            status, _, said = await client.post(CHAT, body)
            assert status in (400, 404), said
            assert json.loads(said)["error"]["message"]
            if body not in (b"", b'{"messages": []}', b'{"messages": [{}], "model": 1}'):
                status, _, said = await client.post(f"{GOOGLE}:generateContent", body)
                assert (status, json.loads(said)["error"]["status"]) == (400, "INVALID_ARGUMENT")

    run(check)


def test_who_hangs_up_frees_his_place_and_a_reset_is_one():
    faults = {"hang": [WordFault("hang")], "torn": [WordFault("reset")]}

    async def check():
        async with asked(word_faults=faults, max_concurrent=1) as client:
            hanging = asyncio.create_task(client.chat('"hang"'))
            while not client.tally.in_flight:
                await asyncio.sleep(0.001)
            status, _, said = await client.chat("aberrant")
            assert (status, said["error"]["message"]) == (
                429,
                "Rate limit reached on concurrent requests.",
            )
            hanging.cancel()
            while client.tally.in_flight:
                await asyncio.sleep(0.001)
            with pytest.raises(aiohttp.ClientError):
                await client.chat('"torn"')
            assert (await client.chat("aberrant"))[0] == 200

    run(check)


def test_every_fault_over_http_is_an_end_of_its_own(tmp_path, monkeypatch):
    """A crawl of one word for each kind of fault, twice: it ends, and only what may fail fails."""
    kinds = [kind for kind in KINDS if kind not in ("hang", "slow", "large")]
    faults = {f"w{kind}": [WordFault(kind, 1)] for kind in kinds}
    path = tmp_path / "c.db"

    async def check():
        async with serve(Settings(http_port=0, word_faults=faults)) as emulator:
            monkeypatch.setenv("OPENAI_BASE_URL", f"{emulator.http_address}/v1")
            monkeypatch.setenv("OPENAI_API_KEY", "k")
            what = {"provider": "openai", "model": "gpt-4o-mini", "database": path}
            await crawl(list(faults), prompt='Say "{word}"', concurrency=1, **what)

    run(check)
    outcomes = dict(rows(path, "SELECT text, state FROM requests JOIN words ON words.id = word_id"))
    failed = {word[1:] for word, state in outcomes.items() if state == "failed"}
    assert set(outcomes.values()) == {"succeeded", "failed"}
    blocked = {"blocked", "blocklist", "prohibited_content", "safety", "spii"}
    filtered = {"malformed_function_call", "other", "recitation"}  # OpenAI has no other name for it
    # A 4xx for one word, while others are served.
    refused = {"invalid_argument", "not_found", "failed_precondition", "out_of_range"}
    refused |= {"permission_denied", "unimplemented"}
    assert failed == blocked | filtered | refused


def test_a_quota_that_the_server_tells_is_met_without_a_refusal(tmp_path, monkeypatch):
    path = tmp_path / "c.db"

    async def check():
        async with serve(Settings(http_port=0, per_minute=100, window="sliding")) as emulator:
            monkeypatch.setenv("OPENAI_BASE_URL", f"{emulator.http_address}/v1")
            monkeypatch.setenv("OPENAI_API_KEY", "k")
            what = {"provider": "openai", "model": "gpt-4o-mini", "database": path}
            words = [f"w{n}" for n in range(90)]
            await crawl(words, prompt='Say "{word}"', concurrency=8, **what)
            assert emulator.tally.codes == {"OK": 90}

    run(check)
    assert rows(path, "SELECT told_per_minute FROM limits") == [(100,)]
