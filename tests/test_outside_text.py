"""Text from outside: a reader takes a large text of every awkward shape in linear time (1 MB of it
in the long form), what is quoted stays one word, a key that comes in pieces is held back."""

import asyncio
import gzip
import io
import json
import os
import re
import shlex
import subprocess
import time
import tracemalloc
import unicodedata
import zipfile
from base64 import b64encode
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.cli.terminal import as_json, printable
from crawler.errors import CrawlerError, quoted, require_name
from crawler.lists import source
from crawler.lists.form import Reading
from crawler.protocol import Call, ProviderError
from crawler.providers.local import _environment
from crawler.providers.openai.models import models_in
from crawler.providers.openai.servers import exposed_to, secrets_in
from crawler.providers.openai.stream import Gathering
from crawler.providers.vertex.access import Access
from crawler.providers.vertex.answer import read_draft, read_generated
from crawler.providers.vertex.channels import opened
from crawler.providers.vertex.messages import (
    STREAM,
    GenerateContentRequest,
    GenerateContentResponse,
)
from crawler.providers.vertex.service import Service
from crawler.redaction import HeldBack, redacted
from tests.conftest import LONG
from tests.outside import KEY, READERS, READINGS, SHAPES, error_of_list, vertex_answers
from tests.program import crawler
from tests.providers.grpc_server import grpc_serving

LARGE = 10**6 if LONG else 4_000
MOST_TIMES = 200
"""How much longer than counting its letters one reading of a text takes, at the most."""
MOST_BYTES = 1_000
"""Memory for each character of a text that is read, at the most."""


def _spent(read, text):
    began = time.thread_time()
    read(text)
    return time.thread_time() - began


def _once(text):
    """Read a text once, letter by letter."""
    sum(map(str.isalnum, text))


def _times(reader, text):
    return _spent(READERS[reader], text) / _spent(_once, text) / READINGS.get(reader, 1)


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_takes_every_awkward_shape_in_linear_time(reader):
    for shape in SHAPES:
        text = shape * (LARGE // len(shape))
        # More than once, because the machine has other things to do.
        assert any(_times(reader, text) <= MOST_TIMES for _ in range(5)), shape


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_takes_much_more_memory_than_a_text_has(reader):
    for shape in SHAPES if LONG else ("a,",):
        text = shape * (5_000 // len(shape))
        READERS[reader](text)  # what is loaded the first time is none of it
        tracemalloc.start()
        READERS[reader](text)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= MOST_BYTES * len(text), shape


@given(st.text())
def test_what_is_quoted_is_one_word_of_a_command(text):
    [word] = shlex.split(quoted(text))
    if text.isprintable():
        assert word == text


@pytest.mark.parametrize("name", ["$(touch pwned)", "`touch pwned`", "a; touch pwned", "a\"b'c"])
def test_no_hint_runs_what_a_list_or_a_file_calls_its_own(tmp_path, name):
    db, words = tmp_path / "x.db", tmp_path / "l.csv"
    header = name.replace('"', "")
    words.write_text(f"{header}\nx\n", "utf-8")
    asked = ["--template", "{word}", "--provider", "scripted", "--limit", name]
    assert crawler("--db", db, "prompt", "add", name, *asked).code == 0
    hints = [
        crawler("--db", db, "add", words, "--prompt", name).err,
        crawler("--db", db, "pause", name).err,
        crawler("--db", tmp_path / name, "status").err,
        crawler("--db", db, "show", name).err,
    ]
    for hint in hints:
        assert header[:1] in hint
        command = re.split("hint: |with |words: ", hint)[-1].strip()
        script = f"crawler() {{ :; }}\n{command}"
        if not command.startswith("crawler"):
            script = f": {command}"
        subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert not (tmp_path / "pwned").exists()


def test_what_hides_in_a_text_is_spelt_out():
    formats = (one for one in map(chr, range(0x110000)) if unicodedata.category(one) == "Cf")
    for char in set(formats) - {"\u200c", "\u200d"}:
        assert printable(f"a{char}b").isascii(), hex(ord(char))
        assert as_json(char).isascii()
        assert json.loads(as_json(char)) == char
    assert printable("a\u200db\u200c") == "a\u200db\u200c"


@pytest.mark.parametrize(
    "name", ["", " ", "\u200b", "\u200d", "a\u200b", "\u3164", "a\nb", "\U000e0041"]
)
def test_a_name_is_seen(tmp_path, name):
    with pytest.raises(CrawlerError):
        require_name(name)
    db = tmp_path / "x.db"
    asked = ["--template", "{word}", "--provider", "scripted"]
    assert crawler("--db", db, "prompt", "add", name, *asked).code == 2
    assert crawler("--db", db, "prompt", "add", "p", *asked, "--limit", name).code == 2


def test_a_traceback_is_only_read(tmp_path):
    ran = crawler("--debug", "--db", tmp_path / "x.db", "add", f"{tmp_path}/\x1b[2Jx.csv")
    assert "Traceback" in ran.err
    assert "\x1b" not in ran.err


def test_an_error_quotes_the_beginning_of_a_long_first_line(tmp_path):
    words = tmp_path / "l.csv"
    words.write_text("x" * 300_000 + "\nabate\n", "utf-8")
    ran = crawler("--db", tmp_path / "x.db", "add", words)
    assert ran.code == 2
    assert len(ran.err) < 1500


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("form", [KEY, b64encode(KEY.encode()).decode(), KEY.replace("/", "%2F")])
def test_a_key_that_comes_in_pieces_is_never_told(form, size):
    said = f"so sk-can {form} and {form[:-1]}. {form}"
    held = HeldBack([KEY])
    whole = "".join(held.read(said[at : at + size]) for at in range(0, len(said), size))
    whole += held.end()
    assert whole == redacted(said, [KEY])
    assert whole.startswith("so sk-can ")


def test_what_begins_no_key_is_told_at_once():
    assert HeldBack([KEY]).read("a word") == "a word"


@pytest.mark.parametrize(
    "between",
    [
        *("\0", "\x1b", "\u200b", "\x7f", "\u200b\0\x08", "\ufe0f", "\u034f", "\U000e0041"),
        *("\u3164", "\u200b" * 150),
    ],
)
def test_a_key_with_what_is_not_seen_between_its_letters_is_left_out(between):
    spread = between.join(KEY)
    assert redacted(f"a {spread} b", [KEY]) == "a … b"
    held = HeldBack([KEY])
    assert "".join(map(held.read, f"a {spread} b")) + held.end() == "a … b"


@pytest.mark.parametrize("size", [21, 100, 600])
def test_a_key_in_pieces_with_much_that_is_not_seen_between_its_letters_is_held_back(size):
    unseen = "\u200b" * 20
    said = f"a {unseen.join(KEY)} b"
    held = HeldBack([KEY])
    whole = "".join(held.read(said[at : at + size]) for at in range(0, len(said), size))
    assert whole + held.end() == "a … b"


def test_a_list_of_models_may_begin_with_a_mark_of_its_byte_order():
    listed = json.dumps({"data": [{"id": "m"}]}).encode("utf-8-sig")
    assert models_in(listed, [KEY]) == [{"id": "m"}]


def test_all_of_an_address_that_lets_somebody_in_is_secret():
    for user, password in ((KEY, ""), ("me", KEY), ("someone", "password")):
        secrets = secrets_in(
            f"http://{user.replace('/', '%2F')}:{password.replace('/', '%2F')}@h/v1"
        )
        sent = b64encode(f"{user}:{password}".encode()).decode()
        assert sent.rstrip("=")[:-1] not in redacted(f"Basic {sent}", secrets)
        assert KEY not in redacted(f"{user} {password}", secrets)


def test_an_event_in_utf_16_is_none():
    with pytest.raises(ProviderError):
        Gathering("content", [KEY]).add(json.dumps({"choices": []}).encode("utf-16-le"))


def _message(text):
    answer = GenerateContentResponse(model_version=KEY)
    candidate = answer.candidates.add(finish_reason=1)
    candidate.content.parts.add().text = text
    return answer


VERTEX = Call(1, 1, "w", "vertex", "m", "About w.", "", {}, 60_000)


def test_what_vertex_sends_back_of_a_token_is_left_out():
    for read in (read_generated, read_draft):
        assert KEY not in repr(read(VERTEX, [_message(f"a {KEY[:9]}"), _message(KEY[9:])], [KEY]))


class Endless(grpc.GenericRpcHandler):
    """Sends pieces of an answer and never ends it; counts them."""

    sent = 0

    def __init__(self, piece):
        self._piece = piece

    def service(self, details):
        assert details.method == STREAM
        return grpc.unary_stream_rpc_method_handler(
            self._answer, request_deserializer=GenerateContentRequest.FromString
        )

    async def _answer(self, request, context):
        while True:
            self.sent += 1
            yield self._piece


def sent_before_it_was_too_long(piece):
    """Return how many pieces a server could send until its answer was refused for its length."""

    async def main():
        handler = Endless(piece)
        async with grpc_serving(handler) as port:
            target = f"127.0.0.1:{port}"
            async with opened(target, encrypted=False) as channels:
                service = Service("m", Access(target, "m", None), channels, None)
                with pytest.raises(ProviderError, match=r"longer than \d+ MiB"):
                    await asyncio.wait_for(service.stream(VERTEX, lambda _: None), 20)
        return handler.sent

    return asyncio.run(main())


@pytest.mark.parametrize("text", ["x" * 2**20, "x" * 9000])
def test_a_stream_without_end_is_ended(text):
    piece = _message(text).SerializeToString()
    assert sent_before_it_was_too_long(piece) * len(piece) < 80 * 2**20


def test_messages_without_a_text_make_an_answer_long_too(monkeypatch):
    """Each takes some memory."""
    monkeypatch.setattr("crawler.providers.vertex.service.LARGEST_ANSWER", 2**20)
    assert sent_before_it_was_too_long(b"") < 20_000


def test_the_local_models_server_gets_no_key_of_ours(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLAMA_ARG_HOST", "0.0.0.0")
    assert {"OPENAI_API_KEY", "LLAMA_ARG_HOST"}.isdisjoint(_environment())
    assert _environment()["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("url", "key", "exposed"),
    [
        ("http://models.example/v1", KEY, "models.example"),
        ("http://me:secret@models.example/v1", "", "models.example"),
        ("http://models.example/v1", "", ""),
        ("https://models.example/v1", KEY, ""),
        ("http://127.0.0.1:8080/v1", KEY, ""),
        ("http://localhost/v1", KEY, ""),
        ("http://[::1]/v1", KEY, ""),
        ("", KEY, ""),
    ],
)
def test_a_key_that_leaves_this_machine_in_plain_text_is_known(url, key, exposed):
    assert exposed_to("openai", {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}) == exposed


def test_a_key_that_leaves_this_machine_in_plain_text_is_told_once(tmp_path, monkeypatch):
    db = tmp_path / "x.db"
    asked = ["--template", "{word}", "--provider", "openai", "--model", "m"]
    assert crawler("--db", db, "prompt", "add", "p", *asked).code == 0
    assert crawler("--db", db, "add", "cat", "dog", "--prompt", "p").code == 0
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.invalid/v1")
    ran = crawler("--db", db, "run", "--limit", "1", "--deadline", "2s")
    assert ran.err.count("key_exposed") == 1, ran.err
    assert KEY not in ran.err


LOCKED = Path(__file__).parent.parent / "scripts" / "locked"


@pytest.mark.parametrize("path", sorted(LOCKED.glob("*.txt")), ids=lambda path: path.stem)
def test_what_the_scripts_install_is_named_by_version_and_hash_alone(path):
    lines = path.read_text("utf-8").splitlines()
    named = re.compile(
        r"[a-z0-9._-]+(\[[a-z,-]+\])?==[^ ]+( ; .*)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?"
    )
    assert [line for line in lines if not named.fullmatch(line)] == []


def test_an_error_is_short_however_long_what_it_quotes_is(tmp_path):
    db, words, name = tmp_path / "x.db", tmp_path / "l.txt", "p" * 300_000
    words.write_text("x" * 300_000, "utf-8")
    asked = ["--template", "{word} {field}", "--provider", "scripted"]
    assert crawler("--db", db, "prompt", "add", "p", *asked).code == 0
    for args in (["add", words, "--prompt", "p"], ["add", "cat", "--prompt", name]):
        ran = crawler("--db", db, *args)
        assert ran.code == 2
        assert len(ran.err) < 3_500


def zipped(body):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", body)
    return stream.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, zipped])
def test_a_small_list_does_not_become_a_huge_one(monkeypatch, pack):
    packed = pack(b"a\n" * 100_000)
    assert error_of_list(packed, "l.txt", Reading()) is None or pack is zipped
    monkeypatch.setattr(source, "MOST_UNPACKED", 100_000)
    assert "unpacks to more than" in str(error_of_list(packed, "l.txt", Reading()))


def test_what_is_found_in_a_long_text_is_found_in_linear_time():
    """Names of an object of which the last comes twice, and answers to one question."""
    names = ",".join(f'"{n}":1' for n in range(20_000))
    answer = GenerateContentResponse()
    for n in range(20_000):
        answer.candidates.add(index=n).content.parts.add().text = "x"
    text = f'[{{{names},"z":1,"z":2}}]'
    for read, written in (
        (READERS["words.json"], text),
        (lambda body: vertex_answers(body, [VERTEX]), answer.SerializeToString()),
    ):
        assert _spent(read, written) <= MOST_TIMES * _spent(_once, text)
