"""One word now: printed as it comes, on record like any other, asked once."""

import asyncio
import os
import pty
import subprocess
import sys

import pytest

from crawler import crawl
from tests.emulating import emulator
from tests.program import add_prompt, crawler, rows, told

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


def test_on_a_terminal_it_comes_in_pieces_and_moves_no_cursor(tmp_path):
    db = tmp_path / "crawl.db"
    add_prompt(db, "p", 'Define "{word}".', provider="vertex")
    with emulator(latency_ms=200) as emulated:
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


def test_an_attempt_that_fails_is_told_and_another_one_is_made(tmp_path, monkeypatch):
    db = tmp_path / "crawl.db"
    add_prompt(db, "p", 'Define "{word}".', provider="vertex")
    with emulator(word_fault="laconic=truncated*1") as emulated:
        monkeypatch.setenv("VERTEX_EMULATOR_HOST", emulated.endpoint)
        ran = ask(db, "laconic")
        assert ran.code == 0, ran
        assert "that attempt failed; asked again" in ran.err
        assert ran.out.endswith(rows(db, "SELECT text FROM results")[0][0] + "\n")
        assert [line["method"] for line in emulated.log()] == ["StreamGenerateContent"] * 2
    assert rows(db, "SELECT outcome FROM attempts") == [("transient",), ("succeeded",)]
