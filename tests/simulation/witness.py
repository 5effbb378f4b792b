"""The program's own crawl of a file, with two witnesses: of what was committed, of what was asked.

Rule: store, scheduler and ledger are the product's; only what they are told of a commit is
overheard, and the provider is ours.
"""

import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from crawler.clock import wall_ms
from crawler.ledger import intake
from crawler.ledger.limits import put_limit
from crawler.logs import silent
from crawler.policy import Policy
from crawler.protocol import Answer, ProviderError, Word
from crawler.run.ending import Ending, RunOptions
from crawler.run.session import crawl_store
from crawler.states import Outcome
from crawler.storage import database, store
from crawler.storage import upgrade as migrating
from crawler.storage.database import location, transact, writing
from crawler.storage.locks import WriteLock
from crawler.storage.store import open_store

CONCURRENCY = 4
CHECKPOINT_PAGES = 16
POLICY = Policy(
    backoff_base_ms=1, backoff_cap_ms=1, max_failures=3, call_timeout_ms=1000, lost_after_ms=5000
)


class Ledger(NamedTuple):
    """What may not be lost of a file."""

    version: int
    words: dict[int, str]
    attempts: dict[tuple[int, int], str | None]
    """By request and number: the outcome; None while open."""
    final: dict[int, str]
    """The states of the requests that are not asked again."""
    responses: dict[int, str]


NOTHING = Ledger(0, {}, {}, {}, {})


def read_ledger(conn: sqlite3.Connection) -> Ledger:
    """Read it, of a file of any version of ours."""
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    attempts = conn.execute("SELECT request_id, number, outcome FROM attempts")
    final = "SELECT id, state FROM requests WHERE state IN ('succeeded', 'failed')"
    return Ledger(
        version,
        dict(conn.execute("SELECT id, text FROM words")),
        {(request_id, number): outcome for request_id, number, outcome in attempts},
        dict(conn.execute(final)),
        dict(conn.execute("SELECT request_id, text FROM responses")),
    )


def lost(before: Ledger, after: Ledger) -> list[str]:
    """Return what was on record and no longer is, or is another."""
    found = [] if after.version >= before.version else [f"version {before.version}"]
    for name in ("words", "attempts", "final", "responses"):
        then, now = getattr(before, name), getattr(after, name)
        for key, value in then.items():
            if key not in now or (value is not None and now[key] != value):
                found.append(f"{name} {key}")
    return found


@contextmanager
def overheard(
    on_commit: Callable[[Ledger], None], on_error: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Tell of each transaction what it has put on record, once the program knows it to be there."""

    def overhearing(conn, lock, transaction, *args, **kwargs):
        ledger = NOTHING

        def within(conn, *args, **kwargs):
            nonlocal ledger
            result = transaction(conn, *args, **kwargs)
            ledger = read_ledger(conn)
            return result

        try:
            result = transact(conn, lock, within, *args, **kwargs)
        except BaseException:
            on_error()
            raise
        on_commit(ledger)
        return result

    with (
        patch.object(database, "transact", overhearing),
        patch.object(store, "transact", overhearing),
    ):
        yield


class Witness:
    """A provider that answers at once, fails some words at first and some for good."""

    def __init__(self, on_call: Callable[[int, int], None] = lambda *_: None) -> None:
        self.calls: list[tuple[int, int, str]] = []
        self._on_call = on_call

    async def generate(self, call) -> Answer:
        """Answer, or not, as the number at the end of the word says."""
        self.calls.append((call.request_id, call.number, call.word))
        self._on_call(call.request_id, call.number)
        kind = int(call.word.removeprefix("word")) % 13
        if kind == 3 and call.number <= 2:
            raise ProviderError(Outcome.TRANSIENT, "out of order", status_code=503)
        if kind == 5 and call.number == 1:
            answer = Answer("half of it", truncated=True)
            raise ProviderError(Outcome.TRANSIENT, "cut off", retry_after_ms=0, answer=answer)
        if kind == 7:
            raise ProviderError(Outcome.BLOCKED, "not that word")
        return Answer(f"{call.prompt}, try {call.number}. " * 40, tokens_in=3, tokens_out=400)


def words(count: int) -> list[str]:
    """Return so many words."""
    return [f"word{number}" for number in range(count)]


def add(path: Path, texts: list[str]) -> None:
    """Do what ``crawler add`` does. Raises CrawlerError."""
    with writing(path, wall_ms()) as writer:
        prompt = writer.run(_put_prompt)
        writer.run(intake.add_words, prompt.id, [Word(t, {}) for t in texts], wall_ms())


def _put_prompt(conn: sqlite3.Connection) -> intake.Prompt:
    limit_id = put_limit(conn, "quota", CONCURRENCY)
    spec = intake.PromptSpec("p", "About {word}", "scripted", "m", {})
    return intake.put_prompt(conn, spec, limit_id, wall_ms())[0]


def make_older(path: Path, texts: list[str]) -> None:
    """Make a file as the version before this one did, with words in it."""
    older = migrating.migrations()[:-1]
    lock = WriteLock(path)
    conn = sqlite3.connect(location(path), isolation_level=None)
    try:
        with patch.object(migrating, "migrations", lambda: older):
            database.configure(conn, lock, 0, wall_ms())
        database.transact(conn, lock, _put_older, texts)
    finally:
        conn.close()
        lock.close()


def _put_older(conn: sqlite3.Connection, texts: list[str]) -> None:
    """Put words on record in statements that every version knows."""
    # By its runs a file is known to be one's own that does not say who made it.
    conn.execute(
        "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms, ended_at_ms, reason)"
        " VALUES (1, ?, '0', 1, 1, 1, 'stopped')",
        [socket.gethostname()],
    )
    conn.execute("INSERT INTO limits (id, name, concurrency) VALUES (1, 'quota', ?)", [CONCURRENCY])
    conn.execute(
        "INSERT INTO prompts (id, name, version, template, provider, model, params, limit_id,"
        " current, created_at_ms) VALUES (1, 'p', 1, 'About {word}', 'scripted', 'm', '{}', 1, 1,"
        " 1)"
    )
    conn.executemany(
        "INSERT INTO words (text, added_at_ms) VALUES (?, 1)", [(text,) for text in texts]
    )
    conn.execute("INSERT INTO requests (word_id, prompt_id) SELECT id, 1 FROM words")


async def crawl(path: Path, witness: Witness, clock: Callable[[], int] | None = None) -> Ending:
    """Crawl a file as ``crawler run`` does. Raises CrawlerError."""
    with patch.object(store, "SCHEDULER_CHECKPOINT_PAGES", CHECKPOINT_PAGES):
        async with open_store(path) as opened:
            given = {("scripted", "m"): witness}
            return await crawl_store(
                opened, POLICY, RunOptions(), silent(), given=given, clock=clock
            )
