"""A key is in no output, log, row, file or traceback, whatever a server makes of it."""

import asyncio
import json
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler import crawl
from crawler.errors import Exit
from crawler.policy import Policy
from crawler.protocol import Call
from crawler.providers.openai.reply import Arrived, answer_in
from crawler.providers.vertex.refusal import refused
from crawler.redaction import redacted, redacted_answer
from tests.program import crawler, rows

CANARY = "sk-canary/4f2c9a7d1e5b8036+deadbeef"
SENT = "/".join((CANARY, b64encode(CANARY.encode()).decode(), f"Bearer {CANARY}"))
ALL_FORMS = (b"canary", b64encode(CANARY.encode())[:-4], b64encode(b"me:" + CANARY.encode())[4:-4])


class Echo(BaseHTTPRequestHandler):
    """A server that says all that it was told, wherever there is room for it."""

    answer = (401, "")

    def do_POST(self):
        status, body = self.answer
        said = f"{self.headers['Authorization']} {SENT}"
        if status == 0:  # no HTTP at all
            self.wfile.write(f"{said}\r\n\r\n".encode())
            self.close_connection = True
            return
        content = body.replace("SAID", said).encode()
        self.send_response(status, said)
        self.send_header("X-Said", said)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


ANSWER = json.dumps(
    {"choices": [{"message": {"content": "SAID"}, "finish_reason": "SAID"}], "model": "SAID"}
)
ANSWERS = {
    "400": (400, "SAID"),
    "401": (401, '{"error": {"message": "SAID", "type": "SAID"}}'),
    "403 at the cut": (403, "x" * 280 + "SAID"),
    "404": (404, '{"error": "SAID"}'),
    "answer": (200, ANSWER),
    "no answer": (200, '{"SAID": "SAID"}'),
    "not JSON": (200, "SAID"),
    "a redirect": (302, "SAID"),
    "not HTTP": (0, ""),
}
# A wrong key is one that is refused three times, and an answer that is none may be better again.
CALLS = {"401": 3, "403 at the cut": 3, "answer": 3, "no answer": 5, "not JSON": 5}


@pytest.fixture
def echo():
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield http.server_port
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A word to ask an OpenAI-compatible server about, with a key that must not be seen again."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    db = tmp_path / "x.db"
    asked = ["--template", "{word}", "--provider", "openai", "--model", "m"]
    assert crawler("--db", db, "prompt", "add", "p", *asked).code == Exit.DONE
    assert crawler("--db", db, "add", "cat", "--prompt", "p").code == Exit.DONE
    return db


def seen(db, *ran):
    """Return all that is left of a run: what it printed, and each byte of its files."""
    files = b"".join(path.read_bytes() for path in db.parent.iterdir())
    printed = "".join(one.out + one.err for one in ran)
    tables = ("attempts", "responses", "drafts", "limits", "limit_changes", "runs")
    stored = json.dumps([rows(db, f"SELECT * FROM {table}") for table in tables])
    return files + printed.encode() + stored.encode()


def assert_unseen(db, *ran):
    left = seen(db, *ran)
    for form in ALL_FORMS:
        assert form not in left, left[max(0, left.find(form) - 200) :][:400]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_key_that_a_server_echoes_is_nowhere(asked, echo, monkeypatch, answer):
    monkeypatch.setattr(Echo, "answer", ANSWERS[answer])
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{echo}/v1")
    ran = crawler("--debug", "--db", asked, "run", "--max-failures", "1")
    reports = [("show", "cat"), ("status",), ("sql", "SELECT * FROM failures"), ("export",)]
    told = [crawler("--db", asked, *report) for report in reports]
    calls = rows(asked, "SELECT count(*) FROM attempts WHERE outcome IS NOT NULL")
    assert calls == [(CALLS.get(answer, 1),)]
    assert_unseen(asked, ran, *told)


@pytest.mark.parametrize(
    "url", ["http://me:{}@127.0.0.1:{}/v1", "http://127.0.0.1:{1}/v1?key={0}", "http://{}:x/v1"]
)
@pytest.mark.parametrize("key", [CANARY, ""])
def test_a_key_in_an_address_is_nowhere_either(asked, echo, monkeypatch, url, key):
    monkeypatch.setattr(Echo, "answer", ANSWERS["400"])
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_BASE_URL", url.format(CANARY.replace("/", "%2F"), echo))
    ran = crawler("--debug", "--db", asked, "run", "--max-failures", "1")
    assert ran.code != Exit.DONE
    assert_unseen(asked, ran)


@pytest.mark.parametrize("name", ["SOME_API_KEY", "HF_TOKEN", "aws_secret", "DB_PASSWORD"])
@pytest.mark.parametrize("around", ["", "\n", " "])
def test_a_key_in_what_a_providers_own_mistake_says_is_left_out(
    tmp_path, monkeypatch, name, around
):
    """A line break that was copied with it is no part of it: no client would send that."""
    monkeypatch.setenv(name, f"{around}{CANARY}{around}")

    async def ask(prompt):
        raise RuntimeError(f"400 for url: https://example.org/v1?key={CANARY}")

    db = tmp_path / "x.db"
    options = {"provider": ask, "database": db, "policy": Policy(max_failures=1)}
    asyncio.run(crawl(["cat"], prompt="{word}", **options))
    [(reason,)] = rows(db, "SELECT reason FROM attempts")
    assert reason == "RuntimeError: 400 for url: https://example.org/v1?key=…"
    assert_unseen(db)


def test_a_token_that_google_would_echo_is_left_out_before_the_reason_is_cut():
    for before in ("", "x" * 270):
        error = grpc.aio.AioRpcError(
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(),
            f"{before} Bearer {CANARY}",
        )
        assert "canary" not in refused(error, [CANARY]).reason
        assert "Bearer" in refused(error, [CANARY]).reason


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_base64_hides_no_key(before, after):
    sent = b64encode(before + CANARY.encode() + after).decode()
    said = redacted(sent, [CANARY])
    whole = b64encode(CANARY.encode()).decode()
    assert len(said) < len(sent) - len(whole) + 8


def test_what_a_local_server_wants_for_a_key_is_an_ordinary_word():
    assert redacted("no such model: EMPTY", ["EMPTY", ""]) == "no such model: EMPTY"


KEY = "sk-abc/DEF+ghi/0123456789canary"
CALL = Call(1, 1, "w", "openai", "m", "About w.", "", {}, 1_000)


@given(st.lists(st.booleans(), min_size=len(KEY), max_size=len(KEY)), st.text())
def test_a_key_is_left_out_of_an_answer_however_its_letters_are_escaped(escaped, around):
    spelt = "".join(f"\\u{ord(c):04x}" if e else c for c, e in zip(KEY, escaped, strict=True))
    for form in (spelt, spelt.replace("/", "\\/")):
        content = f'{json.dumps(f"x{around}")[:-1]} {form} x"'
        choice = f'{{"message": {{"content": {content}}}, "finish_reason": "stop"}}'
        body = f'{{"choices": [{choice}]}}'.encode()
        assert answer_in(CALL, Arrived(200, {}, body), [KEY]).text == f"x{around} … x"


@given(st.text() | st.lists(st.text()))
def test_an_answer_without_a_key_says_what_it_said(said):
    text = said if isinstance(said, str) else json.dumps(said)
    assert redacted_answer(text, [KEY]) == text


def test_a_key_that_comes_in_pieces_of_an_answer_is_left_out_of_all_of_it():
    """Where somebody reads along and where nobody does, in events, in values and in parts."""
    pieces = (KEY[:9], "\u200b", KEY[9:])
    values = [json.dumps({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    end = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    parts = [{"type": "text", "text": piece} for piece in pieces]
    whole = json.dumps({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]})
    events = "".join(f"data: {value}\n\n" for value in (*values, end))
    for body in (events, "".join((*values, end)), whole):
        assert answer_in(CALL, Arrived(200, {}, body.encode()), [KEY]).text == "…"
