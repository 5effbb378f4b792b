"""Long lists go in part by part; what is in is told when it ends early. A file is checked first."""

import array
import fcntl
import io
import os
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
from itertools import chain
from pathlib import Path

import pytest

import crawler.cli.add
from crawler.cli import adding
from crawler.cli.adding import Counts, parts_of
from crawler.errors import CrawlerError, Exit
from crawler.lists import live, reading
from crawler.lists.form import Reading
from crawler.lists.reading import words_of_list
from crawler.protocol import Word
from tests.program import add_prompt, crawler, rows, state_of, told

LINES = [f"w{n}" for n in range(95)]
BAD = "\n".join([*LINES, "\u200b", "last"])


@pytest.fixture(autouse=True)
def short_parts(monkeypatch):
    for module in (sys.modules["crawler.cli.add"], adding):
        monkeypatch.setattr(module, "PART", 10)


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "c.db"
    add_prompt(path, "p", "{word}")
    return path


def count(db):
    return rows(db, "SELECT count(*) FROM words")[0][0]


def test_a_long_file_is_checked_to_its_end_before_a_word_of_it_is_added(db, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_text(BAD)
    before = state_of(tmp_path)
    what, cause, _ = told(crawler("--db", db, "add", bad, "--prompt", "p"), Exit.USAGE)
    assert (what, cause[:6]) == ("bad.txt can't be read, and nothing of it was added", "row 96")
    assert state_of(tmp_path) == before


def test_a_field_that_is_lacking_late_in_a_file_is_found_first(db, tmp_path):
    add_prompt(db, "q", "{word} {level}")
    lacking = tmp_path / "lacking.jsonl"
    lines = [f'{{"word": "{word}", "level": 1}}' for word in LINES]
    lacking.write_text("\n".join([*lines, '{"word": "x"}']))
    told(crawler("--db", db, "add", lacking, "--prompt", "q"), Exit.USAGE)
    assert count(db) == 0


def test_a_long_file_is_added_and_told_as_a_whole(db, tmp_path):
    good = tmp_path / "good.csv"
    good.write_text("term,word\n" + "\n".join(f",{word}" for word in [*LINES, "w94", "w1"]))
    ran = crawler("--db", db, "add", good, "--prompt", "p")
    assert ran.code == Exit.DONE
    assert ran.err == (
        "97 words read, 95 added so far\n"
        "95 added to p version 1 (scripted, scripted), 1 known already\n"
        "1 repeated in the list: w94\n"
    )
    assert count(db) == 95
    assert "96 known already" in crawler("--db", db, "add", good, "-n", "--prompt", "p").err


def test_what_came_from_a_pipe_before_a_bad_line_is_in_and_told(db):
    ran = crawler("--db", db, "add", "-", "--prompt", "p", stdin=BAD)
    assert ran.code == Exit.USAGE
    assert ran.err.startswith(
        "it ended early: 90 added to p are in; add the list again for the rest\n"
        "error: standard input can't be read\n"
    )
    assert count(db) == 90
    again = crawler("--db", db, "add", "-", "--prompt", "p", stdin=BAD.replace("\u200b\n", ""))
    assert (
        again.err.partition("\n")[2]
        == "6 added to p version 1 (scripted, scripted), 90 known already\n"
    )


def test_how_many_are_in_is_told_when_the_disk_is_full(db, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("\n".join(f"{n} {'x' * 3_000}" for n in range(400)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        ran = crawler("--db", db, "add", long, "--prompt", "p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ran.code == Exit.DATABASE
    assert 0 < count(db) < 400
    assert ran.err.startswith(f"it ended early: {count(db)} added to p are in;")


def interrupted(words):
    yield from words
    raise KeyboardInterrupt


def test_that_nothing_is_in_is_told_too_when_a_long_list_is_interrupted(db, tmp_path, monkeypatch):
    long = tmp_path / "long.txt"
    long.write_text("\n".join(LINES))
    said = "it ended early: 0 {}are in; add the list again for the rest"
    for module, added in ((sys.modules["crawler.cli.add"], ""), (adding, "added to p ")):
        with monkeypatch.context() as interrupting:
            # While it is checked, and while its first part is about to be added.
            interrupting.setattr(module, "check_fields", lambda *_, **__: signal.raise_signal(2))
            ran = crawler("--db", db, "add", long, "--prompt", "p")
        assert (ran.code, ran.err.strip()) == (Exit.WORK_LEFT, said.format(added))
    assert count(db) == 0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_how_far_it_is_is_told_while_it_lasts_on_a_terminal(monkeypatch, is_terminal):
    terminal = io.StringIO()
    terminal.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(adding, "TOLD_EVERY_S", 0.001)
    told_twice, lines = threading.Event(), iter(["1 word", "2 words"])

    def line():
        if (text := next(lines, None)) is None:
            told_twice.set()
        return text or "more"

    with adding.meanwhile(line):
        assert told_twice.wait(20 if is_terminal else 0) is is_terminal
    assert terminal.getvalue().startswith("1 word\n2 words\n" if is_terminal else "")
    assert bool(terminal.getvalue()) is is_terminal


def test_what_was_read_of_a_pipe_before_an_interruption_is_its_last_part():
    words = [Word(text, {}) for text in LINES]
    parts = parts_of(interrupted(words), is_live=True)
    assert [len(next(parts)) for _ in range(10)] == [10] * 9 + [5]
    with pytest.raises(KeyboardInterrupt):
        next(parts)


def test_words_of_a_pipe_wait_for_some_seconds_and_no_longer(monkeypatch):
    clock = iter(range(0, 1_000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    words = [one for text in LINES[:9] for one in (Word(text, {}), None)]
    assert [len(part) for part in parts_of(words, is_live=True)] == [2, 2, 2, 2, 1]
    assert [len(part) for part in parts_of(words, is_live=False)] == [9]


def test_what_is_counted_is_bounded():
    counts = Counts()
    for _ in range(50):
        counts.take([Word(f"{n}{blank}x", {}) for n in range(50) for blank in ("", "\u200b") * 2])
    assert (counts.read, counts.unique) == (10_000, 5_000)
    assert len(counts._repeated) + len(counts._pairs) < 12


def waits_for_more(process):
    """Tell whether a process has read all of its standard input, and is reading on."""
    left = array.array("i", [1])
    fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, left)
    _, _, arguments = Path(f"/proc/{process.pid}/syscall").read_text().partition(" ")
    return left[0] == 0 and arguments.startswith("0x1 ")  # select, of descriptor 0


@pytest.mark.parametrize(
    ("head", "row"), [("", "{}\n"), ("word,level\n", '{},"a\nb"\n'), ("", '{{"word": "{}"}}\n')]
)
def test_words_of_a_slow_pipe_are_in_though_no_more_come(db, monkeypatch, head, row):
    monkeypatch.setattr(live, "TICK_S", 0.02)
    monkeypatch.setattr(reading, "SAMPLE_S", 0.02)
    monkeypatch.setattr(adding, "PART_S", 0.02)
    its, ours = os.pipe()
    with os.fdopen(its, "rb") as stream:
        words = words_of_list(stream, "standard input", Reading(), print)
        parts = parts_of(words, is_live=True)
        for n in range(3):
            os.write(ours, (head * (not n) + row.format(f"w{n}")).encode())
            assert [word.text for word in next(parts)] == [f"w{n}"]
        os.write(ours, row.format("\u200b").encode())
        os.close(ours)
        with pytest.raises(CrawlerError) as bad:
            next(parts)
    where = f"{'line' if '{{' in row else 'row'} {4 + bool(head)}:"
    assert bad.value.cause.startswith(where)


def test_the_first_lines_of_a_slow_pipe_are_added_together(monkeypatch):
    clock = iter(range(0, 1_000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = iter(["a\n", "", "b\n", "", "c\n"])
    parts = parts_of(reading._words_of_text(lines, "-", Reading(), print), is_live=True)
    assert [[word.text for word in part] for part in parts] == [["a", "b"], ["c"]]


def test_what_came_before_an_interruption_of_the_first_lines_is_given(db):
    lines = chain(["a\n", "b\n"], interrupted([]))
    words = reading._words_of_text(lines, "-", Reading(), print)
    parts = parts_of(words, is_live=True)
    assert [word.text for word in next(parts)] == ["a", "b"]
    with pytest.raises(KeyboardInterrupt):
        next(parts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_without_end_can_be_stopped(db, number):
    with subprocess.Popen(
        [sys.executable, "-m", "crawler", "--db", db, "add", "-", "--prompt", "p"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as adds:
        adds.stdin.write("\n".join(LINES) + "\n")
        adds.stdin.flush()
        while not waits_for_more(adds):
            os.sched_yield()
        adds.send_signal(number)
        assert adds.stderr.read().strip() == (
            "it ended early: 95 added to p are in; add the list again for the rest"
        )
        assert adds.wait(60) == Exit.WORK_LEFT
    assert count(db) == 95
