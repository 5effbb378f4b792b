"""A file, the words in it, processes that crawl it, and what two witnesses must agree on."""

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading

from crawler.ledger.check import check
from crawler.storage.database import reading

PROGRAM = [sys.executable, "-m", "crawler"]
CONCURRENCY = 8


class Crawl:
    """A file, the words in it, and processes that crawl it."""

    def __init__(self, folder, url, words, origin=None):
        self.processes = []
        self.path = folder / "c.db"
        self.env = {"OPENAI_BASE_URL": url, "CRAWLER_DB": str(self.path)}
        self._origin = origin
        self._answers = {}
        spec = ["--template", "About {word}", "--provider", "openai", "--model", "m"]
        self.call("prompt", "add", "p", *spec)
        words_path = folder / "words.txt"
        words_path.write_text("\n".join(words))
        self.call("add", str(words_path), "--prompt", "p")
        self.call("limit", "openai", "--concurrency", str(CONCURRENCY))

    def call(self, *args):
        """Run a command to its end, which must be a good one."""
        if self._origin is not None:
            process = self._follow(self._origin.start(args, self.env))
            assert process.wait(60) == 0, told_by(process)
            return
        done = subprocess.run(
            [*PROGRAM, *args], env={**os.environ, **self.env}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.forget_the_dead()

    def forget_the_dead(self):
        """Give back what the processes hold that have ended."""
        dead = [process for process in self.processes if process.poll() is not None]
        for process in dead:
            process.reader.join()
            process.stderr.close()
            self.processes.remove(process)

    def start(self, *args, program=(*PROGRAM, "run"), env=None):
        """Start a run; `events` of it is a queue of what it logs."""
        return self._follow(
            subprocess.Popen(
                [*program, *args],
                env={**os.environ, **self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )

    def fork(self, *args, env=None):
        """Start a run as `start` does, much quicker."""
        return self._follow(self._origin.start(["run", *args], {**self.env, **(env or {})}))

    def _follow(self, process):
        process.events = queue.Queue()
        process.said = []
        process.reader = threading.Thread(target=follow, args=(process,))
        process.reader.start()
        self.processes.append(process)
        return process

    def ask(self, sql, *values):
        conn = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        rows = conn.execute(sql, values).fetchall()
        conn.close()
        return rows

    def assert_sound(self):
        """Check the file's invariants, and that no answer has changed since the last time."""
        with reading(self.path) as conn:
            assert [finding for finding in check(conn) if finding.broken] == []
            rows = conn.execute("SELECT request_id, number, text FROM responses")
            answers = {request_id: hash(tuple(answer)) for request_id, *answer in rows}
        assert self._answers.items() <= answers.items()
        self._answers = answers
        return len(answers)


def follow(process):
    for line in process.stderr:
        process.said.append(line)
        process.events.put(json.loads(line)["event"] if line.startswith("{") else line)


def until(process, event):
    """Wait until a run has logged an event."""
    while process.events.get(timeout=30) != event:
        pass


def told_by(process):
    """Return what an ended process has told, without its log."""
    process.reader.join()
    return "".join(line for line in process.said if not line.startswith("{"))


def assert_witnesses_agree(crawl, witness, words):
    """Compare what the server has seen with what is on record, at the end; return the repeats.

    Every word has one answer, that the server gave. Every request that it saw has an attempt. What
    it was asked again was in flight when somebody died.
    """
    crawl.assert_sound()
    answered = crawl.ask("SELECT word, text FROM results")
    assert sorted(word for word, _ in answered) == sorted(words)
    assert all(text in witness.answers[word] for word, text in answered)
    attempts = crawl.ask(
        "SELECT words.text, requests.attempts, count(*) FILTER (WHERE outcome = 'abandoned')"
        " FROM requests JOIN words ON words.id = word_id"
        " JOIN attempts ON attempts.request_id = requests.id GROUP BY requests.id"
    )
    for word, made, abandoned in attempts:
        assert witness.words[word] - 1 <= abandoned, word
        assert witness.words[word] <= made, word
    assert witness.most_open <= CONCURRENCY
    return witness.words.total() - len(words)
