"""One word now: printed as it comes, on record like any other, asked once."""

import asyncio
import io
import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from crawler import crawl
from crawler.cli.ask import _Reader
from crawler.cli.one import _Aside
from crawler.cli.status import held_line
from crawler.ledger.status import LimitStatus, Status
from crawler.protocol import Call
from crawler.states import Outcome
from tests.emulating import emulator
from tests.program import add_prompt, crawler, crawler_terminal, rows, told

SCHEMA = '{"type": "object", "properties": {"definition": {"type": "string"}}}'
FILLER = "a word that the script knows by heart and explains at no."


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "crawl.db"
    add_prompt(path, "p", "Define {word}.")
    return path


def ask(db, word, *options, name="p"):
    return crawler("--db", db, "ask", word, "--prompt", name, *options)


def test_the_answer_and_nothing_else_is_printed_and_it_is_on_record(db):
    crawler("--db", db, "add", "other", "--prompt", "p")
    ran = ask(db, "laconic")
    assert ran == (0, f"Laconic: {FILLER}\n", "")
    assert rows(db, "SELECT word, text FROM results") == [("laconic", f"Laconic: {FILLER}")]
    assert rows(db, "SELECT pending, succeeded FROM progress") == [(1, 1)], "nobody else is asked"
    assert crawler("--db", db, "check").code == 0


def test_what_has_an_answer_is_printed_again_and_not_asked(db):
    first = ask(db, "laconic")
    again = ask(db, "laconic")
    assert again.out == first.out
    assert "not asked again" in again.err
    assert rows(db, "SELECT count(*) FROM attempts") == [(1,)]
    assert rows(db, "SELECT count(*) FROM runs") == [(1,)]


def test_a_prefill_is_printed_once_and_json_as_it_is_stored(db):
    add_prompt(db, "begun", "Define {word}. {answer}It is")
    ran = ask(db, "terse", name="begun")
    assert ran.out.strip() == rows(db, "SELECT text FROM results")[0][0]
    assert ran.out.count("It is") == 1


def test_a_word_that_fails_says_why_and_can_be_asked_anew(db):
    add_prompt(db, "refused", "Define {word}.", 'errors={"blocked": 1}')
    for attempts in (1, 2):
        ran = ask(db, "x", name="refused")
        assert told(ran, 3)[1] == "as scripted"
        assert rows(db, "SELECT attempts FROM requests WHERE state = 'failed'") == [(attempts,)]
    assert crawler("--db", db, "check").code == 0


def test_bad_input_changes_nothing(db, tmp_path):
    add_prompt(db, "glossed", "{word}: {gloss}")
    assert "gloss" in told(ask(db, "x", name="glossed"), 2)[1]
    assert "no prompt" in told(ask(db, "x", name="nobody"), 2)[0]
    told(ask(db, "  "), 2)
    assert rows(db, "SELECT count(*) FROM words") == [(0,)]
    other = tmp_path / "none.db"
    told(crawler("--db", other, "ask", "x", "--prompt", "nobody"), 2)
    assert not other.exists()


def test_a_prompt_that_a_python_function_answers_is_read_and_not_asked_from_here(db):
    async def main():
        async def answer(prompt):
            return prompt

        await crawl(["a"], prompt="{word}", provider=answer, model="m", database=db, name="mine")

    asyncio.run(main())
    crawler("--db", db, "add", "c", "--prompt", "mine")
    before = rows(db, "SELECT * FROM requests"), rows(db, "SELECT * FROM words")
    for word in ("b", "c"):
        assert "can't be asked from here" in told(ask(db, word, name="mine"), 2)[0]
    assert (rows(db, "SELECT * FROM requests"), rows(db, "SELECT * FROM words")) == before
    ran = ask(db, "a", name="mine")
    assert (ran.code, ran.out) == (0, "a\n"), "what it has answered is read all the same"
    assert "not asked again" in ran.err
    crawler("--db", db, "add", "a", "--prompt", "p")
    crawler("--db", db, "retry", "a")
    ran = crawler("--db", db, "run", "a", "c")
    assert ran.code == 0, "as a run of all leaves out what a function answers"
    asked = "SELECT text, name FROM attempts JOIN requests ON requests.id = request_id"
    asked += " JOIN words ON words.id = word_id JOIN prompts ON prompts.id = prompt_id"
    assert sorted(rows(db, asked)) == [("a", "mine"), ("a", "p")]


def test_on_a_terminal_it_comes_in_pieces_and_moves_no_cursor(tmp_path):
    db = tmp_path / "crawl.db"
    add_prompt(db, "p", 'Define "{word}".', provider="vertex")
    with emulator(latency_ms=1_000) as emulated:
        ours, its = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "crawler", "--db", db, "ask", "\x1b[2Jlaconic", "--prompt", "p"],
            env={**os.environ, "VERTEX_EMULATOR_HOST": emulated.endpoint},
            stdout=its,
            stderr=its,
            stdin=subprocess.DEVNULL,
        ) as running:
            os.close(its)
            pieces = []
            while True:
                try:
                    pieces.append(os.read(ours, 65_536))
                except OSError:
                    break
            assert running.wait(20) == 0
        os.close(ours)
    assert len([piece for piece in pieces if piece.strip()]) > 1
    whole = b"".join(pieces).decode().replace("\r\n", "\n").strip()
    assert "\x1b" not in whole
    assert "[emulated]" in whole


FAULTS = {
    "truncated": "the answer is cut off at max_output_tokens",
    "bad_json": "the answer is not JSON",
    "empty": "the answer is empty",
    "reset": "UNAVAILABLE: ",
    "internal": "INTERNAL: ",
}


@pytest.fixture(scope="module")
def faulty():
    """An emulator that fails each word once, in the way that it is called."""
    with emulator(word_fault=[f"{fault}={fault}*1" for fault in FAULTS]) as emulated:
        yield emulated


@pytest.mark.parametrize("fault", FAULTS)
def test_why_an_attempt_has_failed_is_told_beside_the_answer(tmp_path, monkeypatch, faulty, fault):
    db = tmp_path / "crawl.db"
    add_prompt(db, "p", 'Define "{word}".', f"response_schema={SCHEMA}", provider="vertex")
    monkeypatch.setenv("VERTEX_EMULATOR_HOST", faulty.endpoint)
    ran = ask(db, fault)
    assert ran.code == 0, ran
    [(reason,)] = rows(db, "SELECT reason FROM attempts WHERE number = 1")
    assert reason.startswith(FAULTS[fault])
    assert ran.err.splitlines()[0] == f"attempt 1 failed: {reason}"
    assert ran.out == rows(db, "SELECT text FROM results")[0][0] + "\n"


def test_on_a_terminal_a_broken_answer_has_its_line_to_itself(tmp_path):
    db = tmp_path / "crawl.db"
    add_prompt(db, "p", 'Define "{word}".', provider="vertex")
    with emulator(word_fault="laconic=truncated*1") as emulated:
        env = {"VERTEX_EMULATOR_HOST": emulated.endpoint}
        ran = crawler_terminal("--db", db, "ask", "laconic", "--prompt", "p", env=env)
    assert ran.code == 0, ran
    broken, whole = re.split(r"^attempt 1 failed: .*\n", ran.out, flags=re.MULTILINE)
    assert broken.startswith("[emulated] Def")
    assert whole.endswith(rows(db, "SELECT text FROM results")[0][0] + "\n")


def held(cause, for_ms, now_ms=1_000_000):
    """Return the status of a crawl whose one limit holds back calls for so long."""
    limit = LimitStatus("l", 1, 0, None, None, True, None, 0, 0.0, cause, None, "quota", "429")
    return Status([], [limit._replace(until_ms=now_ms + for_ms)], [], now_ms)


def test_a_wait_has_a_line_of_its_own_and_a_short_one_none():
    call = Call(1, 1, "laconic", "vertex", "m", "", "", {}, 1)
    shown = io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown):
        aside = _Aside("l", _Reader())
        aside.read(call, "Memory se")
        aside.show(held("per_minute", 30_000))  # of the next call: this one is under way
        aside.hear("attempt_failed", {"outcome": Outcome.THROTTLED, "number": 1, "reason": "429"})
        for cause in ("backoff", "gate"):
            aside.show(held(cause, 999))
        aside.show(held("backoff", 5_000))
        aside.show(held("backoff", 4_000))
    assert shown.getvalue() == "Memory se\nwaits 5 s to try again\n"
    [short] = held("backoff", 999).limits
    assert held_line(short, 1_000_000) == ""


def test_where_nobody_is_there_the_emulator_is_named_and_the_way_on(tmp_path, monkeypatch):
    db = tmp_path / "crawl.db"
    add_prompt(db, "p", 'Define "{word}".', provider="vertex")
    crawler("--db", db, "add", "two words", "--prompt", "p")
    with sqlite3.connect(db) as conn:  # others have tried in vain
        conn.execute("UPDATE limits SET gate_cause = 'outage', gate_strikes = 4")
    conn.close()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("VERTEX_EMULATOR_HOST", address)
        what, cause, hint = told(ask(db, "two words"), 69)
    assert "can't be reached" in what
    assert cause.startswith(f"is the emulator running? Nobody answers at {address}")
    assert "VERTEX_EMULATOR_HOST" in cause
    assert hint.endswith('then crawler ask "two words" --prompt p')


def test_a_word_that_has_failed_is_named_as_the_shell_takes_it(db):
    add_prompt(db, "refused", "Define {word}.", 'errors={"blocked": 1}')
    assert told(ask(db, "it's", name="refused"), 3)[2] == (
        'crawler ask "it\'s" --prompt refused asks anew;'
        ' crawler show "it\'s" tells of every attempt'
    )
