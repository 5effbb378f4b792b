"""Crawls of Vertex AI as a user makes them: the program, a real gRPC server, their two records."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.emulating import emulator
from tests.program import crawler_process, rows

STATUS_FAULTS = {
    "invalid_argument": ("rejected", 400),
    "not_found": ("rejected", 404),
    "failed_precondition": ("rejected", 400),
    "out_of_range": ("rejected", 400),
    "unimplemented": ("rejected", 501),
    "already_exists": ("rejected", 409),
    "aborted": ("transient", 409),
    "cancelled": ("transient", 499),
    "data_loss": ("transient", 500),
    "deadline_exceeded": ("transient", 504),
    "internal": ("transient", 500),
    "unknown": ("transient", 500),
    "unavailable": ("transient", 503),
    "resource_exhausted": ("throttled", 429),
}
ANSWER_FAULTS = {
    "blocked": "blocked",
    "safety": "blocked",
    "recitation": "blocked",
    "prohibited_content": "blocked",
    "blocklist": "blocked",
    "spii": "blocked",
    "other": "blocked",
    "empty": "transient",
    "no_candidates": "transient",
    "truncated": "transient",
    "bad_json": "transient",
    "thoughts": "succeeded",
    "slow": "succeeded",
}
OUTCOMES = {
    **{kind: outcome for kind, (outcome, _) in STATUS_FAULTS.items()},
    **ANSWER_FAULTS,
    "hang": "transient",
}
PASSING = ("transient", "throttled")
SCHEMA = json.dumps({"type": "object", "properties": {"definition": {"type": "string"}}})


class Crawl:
    """A database in a folder, and the program that works on it."""

    def __init__(self, folder, endpoint):
        self.db = folder / "crawl.db"
        self.folder = folder
        self.env = {"VERTEX_EMULATOR_HOST": endpoint}

    def __call__(self, *args, code=0):
        ran = crawler_process("--db", self.db, *args, env=self.env)
        assert ran.code == code, ran
        return ran

    def prepare(self, words, *options, template='Define "{word}".'):
        path = self.folder / "words.txt"
        path.write_text("".join(f"{word}\n" for word in words), "utf-8")
        self("prompt", "add", "ask", "--template", template, "--provider", "vertex", *options)
        self("add", path, "--prompt", "ask")

    def start(self, *args):
        """Start the program, and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "crawler", "--db", self.db, *args],
            env={**os.environ, **self.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def rows(self, sql, *values):
        return rows(self.db, sql, *values)

    def outcomes(self):
        """Return the outcomes of every word's attempts, in their order."""
        found = {}
        for word, outcome in self.rows(
            "SELECT text, outcome FROM attempts JOIN requests ON requests.id = request_id"
            " JOIN words ON words.id = word_id ORDER BY request_id, number"
        ):
            found.setdefault(word, []).append(outcome)
        return found

    def asked(self):
        return Counter({word: len(outcomes) for word, outcomes in self.outcomes().items()})


@pytest.fixture
def crawl(tmp_path):
    return lambda emulated: Crawl(tmp_path, emulated.endpoint)


def received(emulated):
    return Counter(line["word"] for line in emulated.log())


def test_every_kind_of_fault_ends_as_the_table_says_and_nothing_permanent_is_asked_twice(crawl):
    words = [f"word{n:02d}" for n in range(100)]
    kinds = dict(zip(words, [*OUTCOMES, *OUTCOMES], strict=False))
    faults = [
        f"{word}={kind}" + ("*2" if OUTCOMES[kind] in PASSING else "")
        for word, kind in kinds.items()
    ]
    with emulator(word_fault=faults, latency_ms=20) as emulated:
        one = crawl(emulated)
        one.prepare(words, "--schema", SCHEMA)
        one("run", "--timeout", "2s", code=3)
        one("check")
        outcomes = one.outcomes()
        for word in words:
            kind = kinds.get(word)
            wanted = OUTCOMES.get(kind, "succeeded")
            if wanted in PASSING:
                assert outcomes[word] == [wanted] * 2 + ["succeeded"], (kind, outcomes[word])
            else:
                assert outcomes[word] == [wanted], (kind, outcomes[word])
        assert one.asked() == received(emulated)
    codes = dict(
        one.rows(
            "SELECT text, status_code FROM attempts JOIN requests ON requests.id = request_id"
            " JOIN words ON words.id = word_id WHERE number = 1"
        )
    )
    for word, kind in kinds.items():
        if kind in STATUS_FAULTS:
            assert codes[word] == STATUS_FAULTS[kind][1]
    drafts = dict(
        one.rows(
            "SELECT text, draft FROM words LEFT JOIN (SELECT request_id, text AS draft"
            " FROM drafts) ON request_id = words.id"
        )
    )
    for word, kind in kinds.items():
        assert (drafts[word] is not None) == (kind in ("truncated", "bad_json")), kind


def test_an_answer_may_be_larger_than_grpc_allows_by_itself(crawl):
    with emulator(word_fault="word1=large") as emulated:
        one = crawl(emulated)
        one.prepare(["word1"])
        one("run")
        assert one.rows("SELECT length(text) > 4 * 1024 * 1024 FROM results") == [(1,)]


@pytest.mark.parametrize("kind", ["unauthenticated", "permission_denied"])
def test_who_is_not_let_in_stops_and_nothing_is_failed(crawl, kind):
    with emulator(word_fault=[f"word{n}={kind}" for n in range(50)]) as emulated:
        one = crawl(emulated)
        one.prepare([f"word{n}" for n in range(50)])
        ran = one("run", "--concurrency", "5", code=77)
        assert kind.upper() in ran.err
        assert one.rows("SELECT pending, failed FROM progress") == [(50, 0)]
        assert one.asked() == received(emulated)
        assert one.asked().total() <= 5


def test_a_connection_that_is_reset_costs_one_attempt(crawl):
    with emulator(word_fault=["word3=reset", "word5=reset*2"]) as emulated:
        one = crawl(emulated)
        one.prepare([f"word{n}" for n in range(8)])
        one("run", "--concurrency", "1", "--max-failures", "3", code=3)
        outcomes = one.outcomes()
        assert outcomes.pop("word3") == ["transient"] * 3
        assert outcomes.pop("word5") == ["transient"] * 2 + ["succeeded"]
        assert set(map(tuple, outcomes.values())) == {("succeeded",)}
        assert one.asked() == received(emulated)


def test_a_limit_set_right_is_never_refused_and_one_set_too_high_loses_nothing(crawl):
    with emulator(per_minute=60, window="sliding") as emulated:
        one = crawl(emulated)
        one.prepare([f"word{n}" for n in range(65)])
        one("run", "--per-minute", "60", "--limit", "60", code=75)
        assert {line["code"] for line in emulated.log()} == {"OK"}
    with emulator(per_minute=20, window="fixed", window_ms=1500) as emulated:
        one = crawl(emulated)
        one.prepare([f"more{n}" for n in range(60)])
        one("run", "--per-minute", "800")
        counts = Counter(outcome for _, all_ in one.outcomes().items() for outcome in all_)
        assert counts["throttled"] > 0
        assert one.rows("SELECT max(failures) FROM requests") == [(0,)]
        one("check")


def test_a_server_that_freezes_or_dies_fails_no_word_and_is_hardly_called(crawl):
    with emulator(latency_ms=50) as emulated:
        one = crawl(emulated)
        one.prepare([f"word{n}" for n in range(400)])
        running = one.start("run", "--concurrency", "4")
        _wait_for(lambda: len(emulated.log()) > 40)
        emulated.kill()
        killed_ms = time.time() * 1000
        _wait_for(lambda: one.rows("SELECT max(gate_strikes) FROM limits")[0][0] >= 2)
        emulated.start()
        _wait_for(lambda: one.rows("SELECT gate_strikes FROM limits") == [(0,)])
        back_ms = time.time() * 1000
        before = len(emulated.log())
        _wait_for(lambda: len(emulated.log()) > before + 40)
        os.kill(emulated.pid, signal.SIGSTOP)
        _wait_for(lambda: one.rows("SELECT gate_strikes FROM limits") != [(0,)], 60)
        os.kill(emulated.pid, signal.SIGCONT)
        assert running.wait(60) == 0
    away = one.rows(
        "SELECT count(*) FROM attempts"
        " WHERE started_at_ms BETWEEN ? AND ? AND outcome <> 'succeeded'",
        killed_ms,
        back_ms,
    )
    assert away[0][0] <= 20
    assert one.rows("SELECT succeeded, failed FROM progress") == [(400, 0)]
    assert one.rows("SELECT max(failures) FROM requests")[0][0] <= 2
    one("check")


def _wait_for(happened, within_s=30):
    """Return when something has happened: it is looked at again and again, never waited out."""
    until = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < until, "it has not happened in time"
        time.sleep(0.02)
