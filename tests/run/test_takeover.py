"""Several runs on one file: each that has died is taken over, each that lives is left alone."""

import asyncio
import sqlite3

import pytest

from crawler.clock import boot_id
from crawler.protocol import Answer
from crawler.storage.locks import RunLock, run_is_alive
from tests.crawling import Played, a_store, crawled, put, rows

LONG_AGO_MS = 1_000_000_000_000


def leave_open(conn, run_id, request_ids, heartbeat_at_ms=LONG_AGO_MS, boot=""):
    """Leave a run behind that has calls in flight."""
    conn.execute(
        "INSERT INTO runs (id, pid, host, version, started_at_ms, heartbeat_at_ms, boot_id)"
        " VALUES (?, 1, 'host', '0', ?, ?, ?)",
        (run_id, LONG_AGO_MS, heartbeat_at_ms, boot),
    )
    for request_id in request_ids:
        conn.execute(
            "UPDATE requests SET state = 'leased', attempts = 1 WHERE id = ?", (request_id,)
        )
        conn.execute("UPDATE limits SET started = started + 1 WHERE id = 1")
        conn.execute(
            "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms, nth)"
            " SELECT ?, 1, ?, 1, ?, started FROM limits WHERE id = 1",
            (request_id, run_id, LONG_AGO_MS),
        )


RUNS = "SELECT id, reason, ended_at_ms IS NOT NULL FROM runs ORDER BY id"
ENDED = "SELECT request_id, outcome, reason FROM attempts WHERE run_id = ? ORDER BY 1"


def test_each_of_two_dead_runs_is_taken_over_and_one_that_lives_is_not(tmp_path):
    path = tmp_path / "c.db"

    async def main():
        async with a_store("abcdef", path) as store:
            for run_id, request_ids in ((11, [1]), (12, [2, 3]), (13, [4])):
                await store.run(leave_open, run_id, request_ids)
            alive = RunLock(path, 12)
            provider = Played(lambda call: Answer("x"))
            await crawled(store, provider, max_calls=4)
            assert sorted(provider.words) == ["a", "d", "e", "f"]
            *others, _ = await rows(store, RUNS)
            assert others == [(11, "killed", 1), (12, None, 0), (13, "killed", 1)]
            assert await rows(store, ENDED, 11) == [(1, "abandoned", "died")]
            assert await rows(store, ENDED, 12) == [(2, None, None), (3, None, None)]
            assert await rows(store, ENDED, 13) == [(4, "abandoned", "died")]
            paid = "SELECT word, attempts FROM results ORDER BY word"
            assert await rows(store, paid) == [("a", 2), ("d", 2), ("e", 1), ("f", 1)]
            alive.close()
            await crawled(store, provider)
            assert sorted(provider.words) == [*"abcdef"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("boot", "beat", "dead"),
    [
        ("", "now", False),
        ("", "long ago", True),
        ("this", "now", False),
        ("this", "long ago", True),
        ("another", "now", True),
        ("another", "long ago", True),
    ],
)
def test_where_no_lock_can_say_boot_and_heartbeat_do(boot, beat, dead):
    now_ms = LONG_AGO_MS + 10**9
    boots = {"": "", "this": boot_id(), "another": "another"}
    beats = {"now": now_ms - 299_000, "long ago": now_ms - 301_000}

    async def main():
        async with a_store("ab") as store:
            await store.run(leave_open, 11, [1], beats[beat], boots[boot])
            provider = Played(lambda call: Answer("x"))
            await crawled(store, provider, clock=lambda: now_ms, max_calls=1 + dead)
            assert sorted(provider.words) == (["a", "b"] if dead else ["b"])

    asyncio.run(main())


def test_a_lock_says_more_than_a_heartbeat_and_another_start_of_the_machine(tmp_path):
    """The process is there: whatever a clock or a name says, its calls are its own."""

    async def main():
        async with a_store("ab", tmp_path / "c.db") as store:
            await store.run(leave_open, 11, [1], LONG_AGO_MS, "another")
            alive = RunLock(tmp_path / "c.db", 11)
            provider = Played(lambda call: Answer("x"))
            await crawled(store, provider, max_calls=1)
            assert provider.words == ["b"]
            alive.close()

    asyncio.run(main())


def test_a_death_costs_a_word_one_failure_and_a_cancelled_one_is_cancelled(tmp_path):
    async def main():
        async with a_store("abc", tmp_path / "c.db") as store:
            await store.run(leave_open, 11, [1, 2])
            await store.run(
                lambda conn: conn.execute("UPDATE requests SET cancelling = 1 WHERE id = 2")
            )
            await crawled(store, Played(lambda call: Answer("x")))
            ends = "SELECT id, state, failures, cancelling FROM requests ORDER BY id"
            assert await rows(store, ends) == [
                (1, "succeeded", 1, 0),
                (2, "cancelled", 1, 0),
                (3, "succeeded", 0, 0),
            ]

    asyncio.run(main())


def test_a_call_is_on_the_disk_before_it_leaves_and_so_is_its_run(tmp_path):
    """As another process reads it at the moment at which the provider is asked."""
    path = tmp_path / "c.db"
    read = []

    def answer(call):
        conn = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        read.append(conn.execute("SELECT run_id, number FROM attempts").fetchall())
        read.append(conn.execute("SELECT id, ended_at_ms FROM runs").fetchall())
        conn.close()
        assert run_is_alive(path, 1) is True
        return Answer("x")

    async def main():
        async with a_store("a", path) as store:
            await crawled(store, Played(answer))
        assert run_is_alive(path, 1) is False

    asyncio.run(main())
    assert read == [[(1, 1)], [(1, None)]]


def test_two_runs_at_once_share_the_words_and_the_limit(tmp_path):
    async def main():
        async with a_store("abcdefgh", tmp_path / "c.db", concurrency=2) as store:
            await store.run(put, "abc", name="q", template="On {word}", limit="other")
            in_flight, most = [], []

            async def answer(call):
                in_flight.append(call.prompt)
                most.append(sum(prompt.startswith("About") for prompt in in_flight))
                await asyncio.sleep(0)
                in_flight.remove(call.prompt)
                return Answer("x")

            providers = [Played(answer), Played(answer)]
            await asyncio.gather(*(crawled(store, provider) for provider in providers))
            asked = [call.prompt for provider in providers for call in provider.calls]
            about = [f"About {word}" for word in "abcdefgh"]
            assert sorted(asked) == [*about, "On a", "On b", "On c"]
            assert max(most) <= 2

    asyncio.run(main())
