"""Crawls of Vertex AI as a user makes them: the program, a real gRPC server, their two records."""

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest

from crawler import crawl as crawl_words
from crawler.policy import Policy
from crawler.providers.vertex import channels
from tests.emulating import emulator
from tests.program import crawler, rows

STATUS_FAULTS = {
    "invalid_argument": ("refused", 400),
    "not_found": ("refused", 404),
    "failed_precondition": ("refused", 400),
    "out_of_range": ("refused", 400),
    "unimplemented": ("refused", 501),
    "already_exists": ("transient", 409),
    "aborted": ("transient", 409),
    "cancelled": ("transient", 499),
    "data_loss": ("transient", 500),
    "deadline_exceeded": ("transient", 504),
    "internal": ("transient", 500),
    "unknown": ("transient", 500),
    "unavailable": ("transient", 503),
}
ANSWER_FAULTS = {
    "blocked": "blocked",
    "safety": "blocked",
    "prohibited_content": "blocked",
    "blocklist": "blocked",
    "spii": "blocked",
    "empty": "no_answer",
    "no_candidates": "no_answer",
    "truncated": "no_answer",
    "bad_json": "no_answer",
    "thoughts": "succeeded",
    "slow": "succeeded",
}
OUTCOMES = {
    **{kind: outcome for kind, (outcome, _) in STATUS_FAULTS.items()},
    **ANSWER_FAULTS,
    "hang": "transient",
}
PASSING = ("transient", "no_answer")
# What an end that nobody knows, or that may pass, becomes when it comes again and again.
ODD = {"other": ["no_answer"] * 3, "recitation": ["no_answer", "no_answer", "blocked"]}
SCHEMA = {"type": "object", "properties": {"definition": {"type": "string"}}}
QUICK = Policy(backoff_base_ms=1, backoff_cap_ms=1, call_timeout_ms=500)


class Crawl:
    """A database in a folder, and the program that works on it."""

    def __init__(self, folder):
        self.db = folder / "crawl.db"
        self.folder = folder

    def __call__(self, *args, code=0):
        ran = crawler("--db", self.db, *args)
        assert ran.code == code, ran
        return ran

    def prepare(self, words, *options, template='Define "{word}".'):
        path = self.folder / "words.txt"
        path.write_text("".join(f"{word}\n" for word in words), "utf-8")
        self("prompt", "add", "ask", "--template", template, "--provider", "vertex", *options)
        self("add", path, "--prompt", "ask")

    def words(self, words, policy=QUICK, **options):
        """Ask about words as a program of a user's does; return when it is done."""
        given = {"provider": "vertex", "model": "gemini-2.5-flash", "database": self.db}
        return crawl_words(words, prompt='Define "{word}".', policy=policy, **given, **options)

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
def crawl(tmp_path, monkeypatch):
    """Return a function that makes a crawl of an emulator's model."""

    def made(emulated, name="one"):
        monkeypatch.setenv("VERTEX_EMULATOR_HOST", emulated.endpoint)
        (tmp_path / name).mkdir(exist_ok=True)
        return Crawl(tmp_path / name)

    return made


def received(emulated):
    return Counter(line["word"] for line in emulated.log())


def expected(kind):
    """Return the outcomes of a word's attempts, by what goes wrong with it the first two times."""
    outcome = OUTCOMES.get(kind, "succeeded")
    return ODD.get(kind) or ([outcome] * 2 + ["succeeded"] if outcome in PASSING else [outcome])


def test_every_kind_of_fault_ends_as_the_table_says_and_nothing_permanent_is_asked_twice(crawl):
    kinds = {f"word{n:02d}": kind for n, kind in enumerate([*ODD, *OUTCOMES])}
    faults = [
        f"{word}={kind}" + ("*2" if OUTCOMES.get(kind) in PASSING else "")
        for word, kind in kinds.items()
    ]
    faults.append("last=resource_exhausted*1")
    with emulator(word_fault=faults, latency_ms=20) as emulated:
        one = crawl(emulated)
        asyncio.run(one.words(["good1", *kinds, "good2"], params={"response_schema": SCHEMA}))
        outcomes = one.outcomes()
        assert outcomes.pop("good1") == outcomes.pop("good2") == ["succeeded"]
        for word, kind in kinds.items():
            assert outcomes[word] == expected(kind), kind
        assert one.asked() == received(emulated)
        two = crawl(emulated, "two")  # of its own, because it makes all others wait
        asyncio.run(two.words(["last"]))
        assert two.outcomes() == {"last": ["throttled", "succeeded"]}
    one("check")
    codes = dict(
        one.rows(
            "SELECT text, status_code FROM attempts JOIN requests ON requests.id = request_id"
            " JOIN words ON words.id = word_id WHERE number = 1"
        )
    )
    known = {word: STATUS_FAULTS[kind][1] for word, kind in kinds.items() if kind in STATUS_FAULTS}
    assert codes | known == codes
    drafts = one.rows(
        "SELECT text FROM words WHERE id IN"
        " (SELECT word_id FROM drafts JOIN requests ON requests.id = request_id)"
    )
    assert {kinds[word] for (word,) in drafts} == {"truncated", "bad_json"}


def test_an_answer_may_be_larger_than_grpc_allows_by_itself(crawl):
    with emulator(word_fault="word1=large") as emulated:
        one = crawl(emulated)
        one.prepare(["word1"])
        one("run")
        assert one.rows("SELECT length(text) > 4 * 1024 * 1024 FROM results") == [(1,)]


def test_who_is_not_let_in_stops_and_nothing_is_failed(crawl):
    kinds = ("unauthenticated", "permission_denied")
    words = {kind: [f"{kind}{n}" for n in range(20)] for kind in kinds}
    faults = [f"{word}={kind}" for kind in kinds for word in words[kind]]
    with emulator(word_fault=faults) as emulated:
        for kind in kinds:
            one = crawl(emulated, kind)
            one.prepare(words[kind])
            ran = one("run", "--concurrency", "5", code=77)
            assert kind.upper() in ran.err
            assert one.rows("SELECT pending, failed FROM progress") == [(20, 0)]
            # The third in sequence ends it; five were in flight, and two had been refused.
            assert 3 <= one.asked().total() <= 7
            again = one("run", code=77)
            assert kind.upper() in again.err
            assert one.rows("SELECT count(*) FROM attempts WHERE run_id = 2") == [(1,)]
            seen = received(emulated)
            assert one.asked() == {word: seen[word] for word in words[kind] if word in seen}


def test_a_connection_that_is_reset_costs_one_attempt(crawl):
    words = [f"word{n}" for n in range(8)]
    with emulator(word_fault=["word3=reset*2"]) as emulated:
        one = crawl(emulated)
        asyncio.run(one.words(words, concurrency=1))
        outcomes = one.outcomes()
        assert outcomes.pop("word3") == ["transient"] * 2 + ["succeeded"]
        assert set(map(tuple, outcomes.values())) == {("succeeded",)}
        assert one.asked() == received(emulated)


def test_a_limit_set_right_is_never_refused_and_one_set_too_high_loses_nothing(crawl):
    with emulator(per_minute=60, window="sliding") as emulated:
        one = crawl(emulated)
        one.prepare([f"word{n}" for n in range(65)])
        one("run", "--per-minute", "60", "--limit", "60", code=75)
        assert {line["code"] for line in emulated.log()} == {"OK"}
    with emulator(per_minute=20, window="fixed", window_ms=500) as emulated:
        two = crawl(emulated, "two")
        two.prepare([f"more{n}" for n in range(40)])
        two("run", "--per-minute", "2000")
        counts = Counter(outcome for _, all_ in two.outcomes().items() for outcome in all_)
        assert counts["throttled"] > 0
        assert two.rows("SELECT max(failures) FROM requests") == [(0,)]
        two("check")


def test_a_server_that_freezes_or_dies_fails_no_word_and_is_hardly_called(crawl, monkeypatch):
    # What is frozen is found by a ping; the run asks for it more often than for a real service.
    often = {"grpc.keepalive_time_ms": 500, "grpc.http2.ping_timeout_ms": 500}
    options = {**dict(channels.PLAIN_OPTIONS), **often}
    monkeypatch.setattr(channels, "PLAIN_OPTIONS", tuple(options.items()))
    with emulator(latency_ms=20) as emulated:
        one = crawl(emulated)
        happened = asyncio.run(_trouble(one, emulated))
    killed_ms, back_ms = happened
    away = one.rows(
        "SELECT count(*) FROM attempts"
        " WHERE started_at_ms BETWEEN ? AND ? AND outcome <> 'succeeded'",
        killed_ms,
        back_ms,
    )
    assert away[0][0] <= 20
    assert one.rows("SELECT succeeded, failed FROM progress") == [(200, 0)]
    assert one.rows("SELECT max(failures) FROM requests")[0][0] <= 2
    one("check")


async def _trouble(one, emulated):
    """Crawl while the emulator is killed, comes back and is frozen; return how long it was away."""
    words, patient = [f"word{n}" for n in range(200)], replace(QUICK, call_timeout_ms=60_000)
    crawling = asyncio.create_task(one.words(words, patient, concurrency=4))
    await asyncio.to_thread(_wait_for, lambda: len(emulated.log()) > 40)
    emulated.kill()
    killed_ms = time.time() * 1000
    struck = "SELECT max(gate_strikes) FROM limits"
    await asyncio.to_thread(_wait_for, lambda: one.rows(struck)[0][0] >= 2)
    emulated.start()
    await asyncio.to_thread(_wait_for, lambda: one.rows(struck) == [(0,)])
    back_ms = time.time() * 1000
    before = len(emulated.log())
    await asyncio.to_thread(_wait_for, lambda: len(emulated.log()) > before + 40)
    os.kill(emulated.pid, signal.SIGSTOP)
    await asyncio.to_thread(_wait_for, lambda: one.rows(struck) != [(0,)])
    os.kill(emulated.pid, signal.SIGCONT)
    await crawling
    return killed_ms, back_ms


def _wait_for(happened, within_s=30):
    """Return when something has happened: it is looked at again and again, never waited out."""
    until = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < until, "it has not happened in time"
        time.sleep(0.02)
