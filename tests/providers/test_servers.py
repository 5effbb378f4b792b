"""Servers that are known by a name, each played on loopback: where they are asked, with which key,
and what is told before anything is asked."""

import json
import re
import socket
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from crawler.errors import Exit
from crawler.providers.openai.servers import SERVERS, Address, address_of
from tests.program import crawler, rows, told

MODELS = {"data": [{"id": "models/small"}, {"id": "large-2"}]}
FINGERPRINT = "fp_44709d6fcb"


class Played:
    """A server, and what it was asked: (method, path with query, headers, body)."""

    def __init__(self, port, root="/v1", models=MODELS, keys=None, host="127.0.0.1"):
        self.at = f"http://{host}:{port}"
        self.root, self.models, self.keys = root, models, keys
        self.asked = []

    def posts(self):
        return [one for one in self.asked if one[0] == "POST"]

    def reply(self, method, path, headers, body):
        self.asked.append((method, path, headers, body))
        page = path.partition("?")[0]
        if page not in (f"{self.root}/models", f"{self.root}/chat/completions"):
            return 404, {"detail": "Not Found"}
        if method == "GET":
            return (200, self.models) if self.models else (404, {"detail": "Not Found"})
        if self.keys is not None and headers.get("authorization") not in self.keys:
            return 401, {"error": {"message": "Invalid API key"}}
        message = {"role": "assistant", "content": "A good answer."}
        answer = {"choices": [{"message": message, "finish_reason": "stop"}], "model": "small-1"}
        return 200, {**answer, "system_fingerprint": FINGERPRINT}


@contextmanager
def played(host="127.0.0.1", **facts):
    """Serve on loopback until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, said = server.reply(self.command, self.path, headers, body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = respond  # noqa: N815 - as http.server names them

        def log_message(self, *args):
            pass

    class Http(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    with Http((host, 0), Handler) as http:
        shown = f"[{host}]" if ":" in host else host
        server = Played(http.server_port, host=shown, **facts)
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Return a function that runs the program on a database with one word."""
    for name in SERVERS:
        for what in ("BASE_URL", "API_KEY", "API_KEY_FILE", "API_KEY_COMMAND"):
            monkeypatch.delenv(f"{name.upper()}_{what}", raising=False)
    monkeypatch.setenv("CRAWLER_DB", str(tmp_path / "x.db"))
    monkeypatch.chdir(tmp_path)
    return crawler


def asking(do, provider, *options, model="small", name="p", words=("cat",)):
    spec = ("--template", "Define {word}.", "--provider", provider, "--model", model)
    ran = do("prompt", "add", name, *spec, *options)
    assert ran.code == Exit.DONE, ran
    assert do("add", *words, "--prompt", name).code == Exit.DONE


def test_a_name_with_an_address_is_a_provider_and_the_address_is_nowhere(do, monkeypatch, tmp_path):
    with played() as server:
        monkeypatch.setenv("MY_VLLM_BASE_URL", f"{server.at}/v1")
        asking(do, "my-vllm")
        assert do("run").code == Exit.DONE
    assert "authorization" not in server.posts()[0][2]
    found = rows("x.db", "SELECT provider, model, text FROM results")
    assert found == [("my-vllm", "small", "A good answer.")]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert server.at.removeprefix("http://").encode() not in kept


def test_two_servers_are_compared_in_one_run_and_no_key_goes_to_the_other(do, monkeypatch):
    with played() as one, played(root="/api/v1") as other:
        for name, server in (("GROQ", one), ("OPENROUTER", other)):
            monkeypatch.setenv(f"{name}_BASE_URL", f"{server.at}{server.root}")
            monkeypatch.setenv(f"{name}_API_KEY", f"key-of-{name}")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
        asking(do, "groq", name="a")
        asking(do, "openrouter", name="b")
        assert do("run").code == Exit.DONE
    for server, name in ((one, "GROQ"), (other, "OPENROUTER")):
        assert {asked[2]["authorization"] for asked in server.asked} == {f"Bearer key-of-{name}"}
        assert "org-mine" not in str(server.asked)
        assert [method for method, *_ in server.asked] == ["GET", "POST"]
    assert rows("x.db", "SELECT provider FROM results ORDER BY 1") == [("groq",), ("openrouter",)]


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("", "/v1"),
        ("/", "/v1"),
        ("", ""),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/chat/completions", "/v1"),
        ("/team/llm/v1", "/team/llm/v1"),
        ("/team/llm", "/team/llm/v1"),
        ("/team/llm/", "/team/llm"),
    ],
)
@pytest.mark.parametrize("models", [MODELS, None])
def test_an_address_is_found_with_and_without_its_version(do, monkeypatch, given, root, models):
    with played(root=root, models=models) as server:
        monkeypatch.setenv("MINE_BASE_URL", f"{server.at}{given}")
        asking(do, "mine", words=("cat", "dog"))
        assert do("run", "--concurrency", "2").code == Exit.DONE
    assert server.posts()[-1][1] == f"{root}/chat/completions"
    assert rows("x.db", "SELECT count(*) FROM results") == [(2,)]


def test_an_address_may_be_one_of_ipv6(do, monkeypatch):
    with played(host="::1") as server:
        monkeypatch.setenv("MINE_BASE_URL", f"{server.at}/v1")
        asking(do, "mine")
        assert do("run").code == Exit.DONE


AZURE = "https://x.openai.azure.com"


@pytest.mark.parametrize(
    ("given", "base", "query"),
    [
        (f"{AZURE}/?api-version=2024-10-21", "/openai/deployments/m", "?api-version=2024-10-21"),
        (f"{AZURE}/openai?api-version=1", "/openai/deployments/m", "?api-version=1"),
        (f"{AZURE}/openai/deployments/d?api-version=1", "/openai/deployments/d", "?api-version=1"),
        (f"{AZURE}/openai/v1/?api-version=preview", "/openai/v1", "?api-version=preview"),
        (AZURE, "/openai/v1", ""),
    ],
)
def test_the_paths_of_azure(given, base, query):
    found = address_of("azure", "m", {"AZURE_BASE_URL": given})
    assert found == Address((f"{AZURE}{base}",), query)


@pytest.mark.parametrize(
    ("key", "header", "value"),
    [
        ("0123456789abcdef", "api-key", "0123456789abcdef"),
        ("eyJx.y", "authorization", "Bearer eyJx.y"),
    ],
)
def test_azure_wants_its_key_in_a_header_of_its_own(do, monkeypatch, key, header, value):
    with played(root="/openai/deployments/small") as server:
        monkeypatch.setenv("AZURE_BASE_URL", f"{server.at}?api-version=2024-10-21")
        monkeypatch.setenv("AZURE_API_KEY", key)
        asking(do, "azure")
        assert do("run").code == Exit.DONE
    [(_, path, headers, _)] = server.posts()
    assert path == "/openai/deployments/small/chat/completions?api-version=2024-10-21"
    assert headers[header] == value
    assert len({"api-key", "authorization"} & headers.keys()) == 1


def test_openai_is_sent_the_organization_and_the_project(do, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT", "proj-1")
    with played() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.at)
        asking(do, "openai")
        assert do("run").code == Exit.DONE
    sent = server.posts()[0][2]
    assert (sent["openai-organization"], sent["openai-project"]) == ("org-1", "proj-1")


HEADERS = 'headers={"X-Title": "crawl", "X-Key": "$MY_VARIABLE"}'
SECRET = "canary-0123456789-abcdef"


def test_a_header_may_be_a_variable_that_is_sent_and_never_recorded(do, monkeypatch, tmp_path):
    with played() as server:
        monkeypatch.setenv("MINE_BASE_URL", server.at)
        monkeypatch.setenv("MY_VARIABLE", SECRET)
        asking(do, "mine", "--param", HEADERS)
        server.reply = lambda *asked: (400, {"error": {"message": f"no: {asked[2].get('x-key')}"}})
        refused = do("--debug", "run", "--max-failures", "1")
        del server.reply
        assert do("run").code == Exit.DONE
    sent = server.posts()[0]
    assert (sent[2]["x-title"], sent[2]["x-key"]) == ("crawl", SECRET)
    assert "headers" not in sent[3]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + refused.err.encode()
    assert b"no: " in kept
    assert SECRET.encode() not in kept


def test_a_variable_of_a_header_that_is_missing_is_told_before_anything_is_asked(do, monkeypatch):
    with played() as server:
        monkeypatch.setenv("MINE_BASE_URL", server.at)
        asking(do, "mine", "--param", HEADERS)
        what, cause, hint = told(do("run"), Exit.CONFIGURATION)
        ran = do("run", "--model", "large-2")
    assert ("X-Key" in what, cause, hint) == (
        True,
        "MY_VARIABLE is not set",
        "export MY_VARIABLE=…",
    )
    assert ran.code == Exit.CONFIGURATION
    assert server.asked == []
    assert rows("x.db", "SELECT count(*) FROM prompts") == [(1,)]


@pytest.mark.parametrize(
    "headers",
    [
        *('["x"]', '{"a b": "c"}', '{"X": 1}', '{"X": "a\\nb"}', '{"Host": "h"}'),
        *('{"Authorization": "Bearer sk-123"}', '{"X": "ü"}'),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(do, headers):
    spec = ("--template", "{word}", "--provider", "openai", "--model", "m")
    told(do("prompt", "add", "p", *spec, "--param", f"headers={headers}"), Exit.USAGE)


@pytest.mark.parametrize("kind", ["FILE", "COMMAND"])
def test_a_key_that_expires_in_mid_run_is_read_again(do, monkeypatch, tmp_path, kind):
    key = tmp_path / "key of mine"
    key.write_text("key-number-1-0123456789\n")
    command = f"{sys.executable} -c \"print(open('{key}').read())\""
    monkeypatch.setenv(f"GROQ_API_KEY_{kind}", str(key) if kind == "FILE" else command)
    keys = {"Bearer key-number-1-0123456789"}
    with played(keys=keys) as server:
        monkeypatch.setenv("GROQ_BASE_URL", server.at + "/v1")
        asking(do, "groq", words=[f"word{n}" for n in range(12)])
        usual = server.reply

        def reply(method, path, headers, body):
            if len(server.posts()) == 4:
                key.write_text("key-number-2-0123456789")
                keys.clear()
                keys.add("Bearer key-number-2-0123456789")
            return usual(method, path, headers, body)

        server.reply = reply
        assert do("run", "--concurrency", "3").code == Exit.DONE
    refused = "SELECT count(*) FROM attempts WHERE status_code = 401"
    assert 1 <= rows("x.db", refused)[0][0] <= 3
    assert rows("x.db", "SELECT count(*) FROM results") == [(12,)]


def test_a_command_whose_keys_are_all_refused_ends_the_run(do, monkeypatch, tmp_path):
    command = f'{sys.executable} -c "import time; print(time.time_ns())"'
    monkeypatch.setenv("GROQ_API_KEY_COMMAND", command)
    with played(keys=set()) as server:
        monkeypatch.setenv("GROQ_BASE_URL", server.at + "/v1")
        asking(do, "groq")
        _, cause, hint = told(do("run", "--concurrency", "1"), Exit.DENIED)
    assert cause.startswith("HTTP 401: Invalid API key")
    assert hint.startswith("set a key (GROQ_API_KEY)")
    assert len(server.posts()) == 4, "one more than for a key that can't be read again"


@pytest.mark.parametrize(
    ("kind", "value", "cause"),
    [
        ("FILE", "/no/such/file", "No such file or directory"),
        ("COMMAND", "/no/such/command", "No such file or directory"),
        ("COMMAND", "false", "the command ended with code 1"),
        ("COMMAND", "true", "there is nothing in it"),
        ("COMMAND", "'", "it is no command"),
        ("COMMAND", "echo one; echo two", None),
    ],
)
def test_a_source_of_a_key_that_gives_none_is_told_by_its_name(do, monkeypatch, kind, value, cause):
    with played(keys={"Bearer one; echo two"}) as server:
        monkeypatch.setenv("GROQ_BASE_URL", server.at + "/v1")
        monkeypatch.setenv(f"GROQ_API_KEY_{kind}", value)
        asking(do, "groq")
        ran = do("run")
    if cause is None:
        assert ran.code == Exit.DONE, "it was run without a shell"
        return
    assert told(ran, Exit.DENIED)[:2] == (f"GROQ_API_KEY_{kind} gives no key", cause)
    assert server.asked == []


def test_what_is_missing_is_named(do, monkeypatch):
    asking(do, "groq")
    what, cause, hint = told(do("run"), Exit.DENIED)
    assert (what, cause) == ("there is no key for api.groq.com", "GROQ_API_KEY is not set")
    assert hint.startswith("export GROQ_API_KEY=…")
    asking(do, "azure", name="q")
    what, cause, _ = told(do("run", "--prompt", "q"), Exit.CONFIGURATION)
    assert (what, cause) == ("there is no address for azure", "AZURE_BASE_URL is not set")
    with monkeypatch.context() as once:
        once.setenv("MINE_BASE_URL", "http://127.0.0.1:1/v1")
        asking(do, "mine", name="r")
    what, cause, hint = told(do("run", "--prompt", "r"), Exit.CONFIGURATION)
    assert (what, cause) == ("there is no address for mine", "MINE_BASE_URL is not set")
    assert hint.startswith("export MINE_BASE_URL=")


@pytest.mark.parametrize(("name", "near"), [("nmae", ""), ("qroq", "groq"), ("Mistral", "mistral")])
def test_a_provider_that_there_is_not_is_told_with_the_nearest_and_how_to_make_it(do, name, near):
    spec = ("--template", "{word}", "--provider", name, "--model", "m")
    what, cause, hint = told(do("prompt", "add", "p", *spec), Exit.USAGE)
    assert what == f"there is no provider '{name}'"
    assert near in cause
    assert ("NMAE_BASE_URL=http" in hint) == (name == "nmae")


def test_a_model_that_is_not_there_is_told_before_anything_is_asked(do, monkeypatch):
    with played() as server:
        monkeypatch.setenv("MINE_BASE_URL", server.at)
        asking(do, "mine", model="smal", words=("cat", "dog"))
        what, cause, hint = told(do("run"), Exit.CONFIGURATION)
        assert what == "mine has no model 'smal'"
        assert "small" in cause
        assert "crawler prompt models mine" in hint
        assert server.posts() == []
        assert rows("x.db", "SELECT count(*) FROM attempts") == [(0,)]
        assert do("run", "--model", "small").code == Exit.DONE


@pytest.mark.parametrize(
    "models",
    [
        None,
        {"data": []},
        "no list",
        {"data": [{"id": "a.gguf", "owned_by": "llamacpp"}]},
        {"models": [{"name": "small:latest"}]},
        [{"id": "Small"}],
    ],
)
def test_there_is_no_fuss_about_a_server_that_lists_nothing_or_takes_any_name(
    do, monkeypatch, models
):
    with played(models=models) as server:
        monkeypatch.setenv("MINE_BASE_URL", server.at + "/v1")
        asking(do, "mine")
        ran = do("run")
    assert ran.code == Exit.DONE
    assert len(server.posts()) == 1
    assert "models" not in ran.err


def test_a_server_is_asked_once_for_its_models_whatever_number_of_them_is_used(do, monkeypatch):
    with played() as server:
        monkeypatch.setenv("MINE_BASE_URL", server.at + "/v1")
        for name, model in (("a", "small"), ("b", "large-2"), ("c", "small")):
            asking(do, "mine", name=name, model=model)
        assert do("run").code == Exit.DONE
    assert len(server.posts()) == 3
    assert len(server.asked) == 4


def test_the_models_of_a_server_are_listed(do, monkeypatch):
    told(do("prompt", "models"), Exit.CONFIGURATION)
    told(do("prompt", "models", "scripted"), Exit.USAGE)
    with played() as server, played(models=None) as other:
        monkeypatch.setenv("MINE_BASE_URL", server.at)
        listed = do("prompt", "models", "mine")
        assert re.findall(r"mine +(\S+)", listed.out) == ["large-2", "small"]
        assert do("prompt", "models").out == listed.out
        as_json = json.loads(do("prompt", "models", "mine", "--json").out)
        assert as_json[0] == {"provider": "mine", "model": "large-2"}
        monkeypatch.setenv("OTHER_BASE_URL", other.at)
        told(do("prompt", "models", "other"), Exit.UNREACHABLE)


@pytest.mark.parametrize("command", ["run", "ask"])
def test_the_fingerprint_of_the_system_is_kept(do, monkeypatch, command):
    with played() as server:
        monkeypatch.setenv("MINE_BASE_URL", server.at)
        asking(do, "mine")
        assert do(*(("ask", "cat", "--prompt", "p") if command == "ask" else ("run",))).code == 0
    versions = rows("x.db", "SELECT model_version FROM attempts")
    assert versions == [(f"small-1 ({FINGERPRINT})",)]


def test_the_name_of_a_server_means_all_of_its_limits(do, monkeypatch):
    asking(do, "groq", name="a", model="m/1")
    asking(do, "groq", name="b", model="m2")
    asking(do, "mistral", name="c", model="m2")
    shown = do("limit", "groq", "--per-minute", "7").out
    assert re.findall(r"^(\S+/\S+) .* 7 ", shown, re.MULTILINE) == ["groq/m/1", "groq/m2"]
    assert "mistral" not in shown


def test_each_server_of_the_table_is_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
    for name, server in SERVERS.items():
        assert f"`{name}`" in page, name
        assert server.base_url in page, name
