"""The official client of OpenAI asks our emulator; our program asks mock servers of others."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.emulating import emulator
from tests.judges.conftest import JUDGES
from tests.program import crawler, rows

KEY = "sk-4f0c6d1e8a2b4937a5d3c9e1"
OFFICIAL = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="k", max_retries=0)
def ask(text, model="gpt-4o-mini", **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, **more)
whole = ask("Define aberrant.")
assert whole.choices[0].finish_reason == "stop" and whole.usage.total_tokens > 0
chunks = list(ask("Define aberrant.", stream=True, stream_options={"include_usage": True}))
said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert said == whole.choices[0].message.content and chunks[-1].usage == whole.usage
assert [model.id for model in client.models.list()] == ["gemini-2.5-flash", "gpt-4o-mini"]
class Gloss(__import__("pydantic").BaseModel):
    gloss: str
parsed = client.chat.completions.parse(model="gpt-4o-mini", response_format=Gloss,
                                       messages=[{"role": "user", "content": "Define aberrant."}])
assert "norm" in parsed.choices[0].message.parsed.gloss
told = client.chat.completions.with_raw_response.create(
    model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}])
assert told.headers["x-ratelimit-limit-requests"] == "600"
for error, asked in ((openai.NotFoundError, ("x", "gpt-9")), (openai.RateLimitError, ('"busy"',)),
                     (openai.InternalServerError, ('"broken"',)),
                     (openai.APIConnectionError, ('"torn"',)),
                     (openai.BadRequestError, ('"blocked"',))):
    try:
        ask(*asked)
    except error:
        print(error.__name__)
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read()


@contextmanager
def served(command, *, port, health, folder):
    """Run a server of others until the end of the block."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [Path(JUDGES) / command[0], *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={
                "PATH": f"{JUDGES}:{os.environ['PATH']}",
                "HOME": str(folder),
                "LITELLM_MASTER_KEY": KEY,
                "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            },
        )
        try:
            until = time.monotonic() + 90
            while True:
                try:
                    get(f"http://127.0.0.1:{port}{health}")
                    break
                except OSError:
                    assert process.poll() is None, (folder / "server.log").read_text("utf-8")
                    assert time.monotonic() < until, (folder / "server.log").read_text("utf-8")
                    time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def crawl(tmp_path, monkeypatch):
    """Return a function that crawls words by a named server; it returns exit code and answers."""
    path = tmp_path / "c.db"

    def crawl(base, model, number, *options):
        monkeypatch.setenv("JUDGE_BASE_URL", base)
        monkeypatch.setenv("JUDGE_API_KEY", KEY)
        add = ("prompt", "add", "p", "--provider", "judge", "--model", model)
        assert crawler("--db", path, *add, "--template", "Define {word}.").code == 0
        words = [f"word{n}" for n in range(number)]
        assert crawler("--db", path, "add", *words, "--prompt", "p").code == 0
        done = crawler("--db", path, "run", *options)
        assert crawler("--db", path, "check").code == 0
        return done.code, rows(path, "SELECT word, text, attempts FROM results")

    return crawl


def test_the_official_client_of_openai_is_answered():
    faults = ["busy=resource_exhausted", "broken=internal", "torn=reset", "blocked=blocked"]
    with emulator(http_port=0, per_minute=600, word_fault=faults) as emulated:
        python = [Path(JUDGES) / "python", "-c", OFFICIAL, emulated.http]
        done = subprocess.run(python, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [
        "NotFoundError",
        "RateLimitError",
        "InternalServerError",
        "APIConnectionError",
        "BadRequestError",
    ]


def test_llmock_has_nothing_to_say_against_us(crawl, tmp_path):
    port = free_port()
    rates = [f"--error-rate={status}=0.1" for status in (429, 500, 503)]
    command = ["llmock", "serve", "--port", str(port), *rates]
    with served(command, port=port, health="/health", folder=tmp_path):
        code, answers = crawl(f"http://127.0.0.1:{port}/v1", "gpt-4o-mini", 300)
        verdict = json.loads(get(f"http://127.0.0.1:{port}/_llmock/verdict"))
    assert (code, len(answers)) == (0, 300)
    assert verdict["passed"], verdict
    assert verdict["faults_injected"] > 20


def test_llmock_s_quota_is_kept(crawl, tmp_path):
    port = free_port()
    command = ["llmock", "serve", "--port", str(port), "--rpm", "600"]
    with served(command, port=port, health="/health", folder=tmp_path):
        code, answers = crawl(f"http://127.0.0.1:{port}/v1", "gpt-4o-mini", 700)
        verdict = json.loads(get(f"http://127.0.0.1:{port}/_llmock/verdict"))
    assert (code, len(answers)) == (0, 700)
    assert verdict["passed"], verdict
    assert verdict["attempts"] - verdict["calls"] <= 7


def test_litellm_s_proxy_is_a_server_like_others(crawl, tmp_path):
    port = free_port()
    (tmp_path / "config.yaml").write_text(
        "model_list:\n  - model_name: mocked\n    litellm_params:\n      model: openai/mocked\n"
        "      api_key: k\n      mock_response: a word\n",
        "utf-8",
    )
    command = ["litellm", "--config", "config.yaml", "--port", str(port), "--host", "127.0.0.1"]
    with served(command, port=port, health="/health/liveliness", folder=tmp_path):
        code, answers = crawl(f"http://127.0.0.1:{port}", "mocked", 100)
        missing = crawler("--db", tmp_path / "d.db", "prompt", "models", "judge")
    assert (code, len(answers)) == (0, 100)
    assert {text for _, text, _ in answers} == {"a word"}
    assert "mocked" in missing.out


def test_fakellm_s_errors_are_the_server_s(crawl, tmp_path):
    port = free_port()
    (tmp_path / "fakellm.yaml").write_text(
        "version: 1\nrules:\n  - name: bad\n    when: {messages_contain: word7.}\n"
        "    respond: {status: 400, error: 'maximum context length exceeded'}\n"
        "  - name: good\n    respond: {content: a word}\n",
        "utf-8",
    )
    command = ["fakellm", "serve", "--port", str(port), "--config", "fakellm.yaml"]
    with served(command, port=port, health="/_fakellm/stats", folder=tmp_path):
        code, answers = crawl(f"http://127.0.0.1:{port}/v1", "gpt-4", 50)
    assert (code, len(answers)) == (3, 49)
