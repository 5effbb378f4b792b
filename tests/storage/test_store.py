"""The contract of the store, and of the one protected name of aiosqlite that it stands on."""

import asyncio
import fcntl
import sqlite3
import subprocess
import sys
import threading

import aiosqlite
import pytest

from crawler.errors import CrawlerError, Exit
from crawler.storage.database import transact, writing
from crawler.storage.locks import RunLock, WriteLock, run_is_alive
from crawler.storage.store import open_store
from tests.conftest import assert_no_thread_is_left
from tests.program import crawler, told

WORDS = "INSERT INTO words (text, added_at_ms) VALUES (?, 1)"


def add(conn, *words):
    conn.executemany(WORDS, [(word,) for word in words])


def words(conn):
    return [text for (text,) in conn.execute("SELECT text FROM words")]


def test_aiosqlite_still_runs_a_function_in_its_thread():
    async def main():
        async with aiosqlite.connect(":memory:") as db:
            ident = await db._execute(threading.get_ident)
            assert ident != threading.get_ident()
            assert await db._execute(lambda: db._conn.execute("SELECT 1").fetchone()) == (1,)

    asyncio.run(main())


def test_a_transaction_is_whole_or_not_there(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:

            def half(conn):
                add(conn, "lost")
                raise KeyError

            with pytest.raises(KeyError):
                await store.run(half)
            await store.run(add, "kept")
            assert await store.run(words) == ["kept"]

    asyncio.run(main())


def test_a_cancelled_caller_leaves_no_transaction_open(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:
            inside, go_on = threading.Event(), threading.Event()

            def slow(conn):
                add(conn, "whole")
                inside.set()
                go_on.wait(10)

            task = asyncio.create_task(store.run(slow))
            await asyncio.to_thread(inside.wait, 10)
            task.cancel()
            asyncio.get_running_loop().call_later(0.02, task.cancel)  # and impatiently once more
            asyncio.get_running_loop().call_later(0.05, go_on.set)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert go_on.is_set(), "the caller went on before the transaction had ended"
            assert await store.run(words) == ["whole"]
            await store.run(add, "next")

    asyncio.run(main())


def test_many_cancelled_callers_leave_the_store_usable(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:
            tasks = [asyncio.create_task(store.run(add, f"w{n}")) for n in range(100)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert set(await store.run(words)) >= {f"w{n}" for n in range(1, 100, 2)}

    asyncio.run(main())


def test_it_is_closed_whatever_happens(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:
            await store.run(add, "w")
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert_no_thread_is_left()
    assert not (tmp_path / "s.db-wal").exists(), "the last to close has put everything in the file"


def test_durable_settings_are_in_force(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:

            def pragmas(conn):
                names = (
                    "journal_mode",
                    "synchronous",
                    "foreign_keys",
                    "trusted_schema",
                    "mmap_size",
                )
                return [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

            assert await store.run(pragmas) == ["wal", 2, 1, 0, 0]

    asyncio.run(main())


def test_a_full_disk_is_explained_and_nothing_is_lost(tmp_path):
    path = tmp_path / "s.db"

    async def main():
        async with open_store(path) as store:
            await store.run(add, "before")
            await store.run(lambda c: c.execute("PRAGMA max_page_count = 40").fetchone())
            while True:
                await store.run(add, *(f"{n}" * 200 for n in range(10_000, 10_100)))

    with pytest.raises(CrawlerError, match="can't be read or written") as error:
        asyncio.run(main())
    assert error.value.exit_code == Exit.DATABASE
    assert "full" in error.value.cause
    with writing(path, 1) as writer:
        assert writer.run(words) == ["before"]


def test_a_mistake_of_ours_is_not_blamed_on_the_file(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:
            await store.run(lambda c: c.execute("SELECT nonsense"))

    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        asyncio.run(main())


def test_a_rollback_that_sqlite_has_done_is_not_done_again(tmp_path):
    conn = sqlite3.connect(tmp_path / "s.db", isolation_level=None)

    def ends_itself(conn):
        conn.execute("ROLLBACK")
        raise KeyError

    with pytest.raises(KeyError):
        transact(conn, WriteLock(None), ends_itself)
    conn.close()


def test_writers_take_turns(tmp_path):
    path = tmp_path / "s.db"
    first, second = WriteLock(path), WriteLock(path)
    got = threading.Event()

    def wait_for_it():
        with second.held():
            got.set()

    with first.held():
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert not got.wait(0.05)
    assert got.wait(10)
    thread.join()
    first.close()
    second.close()


def test_who_waits_too_long_is_told(tmp_path, monkeypatch):
    path = tmp_path / "s.db"
    with writing(path, 1):
        pass
    monkeypatch.setattr("crawler.storage.locks.WRITE_LOCK_TIMEOUT_S", 0.01)
    lock = WriteLock(path)
    with lock.held(), pytest.raises(CrawlerError, match="in use") as error, writing(path, 1):
        pass
    assert error.value.exit_code == Exit.DATABASE
    lock.close()


def test_the_lock_of_a_run_dies_with_its_process(tmp_path):
    path = tmp_path / "s.db"
    program = (
        "import sys; from pathlib import Path; from crawler.storage.locks import RunLock;"
        f"lock = RunLock(Path({str(path)!r}), 7); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"held\n"
        assert run_is_alive(path, 7) is True
        child.kill()
        child.wait()
        assert run_is_alive(path, 7) is False
    assert run_is_alive(None, 7) is None


def test_between_transactions_nobody_is_in_one_and_nobody_begins_one(tmp_path):
    async def main():
        async with open_store(tmp_path / "s.db") as store:
            inside, go_on = threading.Event(), threading.Event()
            seen = []

            def slow(conn):
                inside.set()
                assert go_on.wait(20)
                add(conn, "slow")

            def act():
                with writing(tmp_path / "s.db", 1) as other:  # nobody holds the lock
                    seen.append(other.run(words))

            first = asyncio.ensure_future(store.run(slow))
            await asyncio.to_thread(inside.wait)
            between = asyncio.ensure_future(store.between_transactions(act))
            await asyncio.sleep(0)
            later = asyncio.ensure_future(store.run(add, "later"))
            await asyncio.sleep(0)
            assert seen == [], "somebody is in the middle of one"
            go_on.set()
            await asyncio.gather(first, between, later)
            assert seen == [["slow"]]
            assert sorted(await store.run(words)) == ["later", "slow"]

    asyncio.run(main())


def test_a_released_run_leaves_the_lock_of_the_database(tmp_path):
    lock = RunLock(tmp_path / "s.db", 1)
    assert run_is_alive(tmp_path / "s.db", 1) is True
    lock.close()
    lock.close()
    assert [found.name for found in tmp_path.iterdir()] == ["s.db-lock"]
    assert run_is_alive(tmp_path / "s.db", 1) is False


@pytest.mark.parametrize("name", ["s.db-run-1", "s.db-run-77", "s.db-run-backup"])
def test_a_file_that_is_named_as_a_lock_once_was_is_left_alone(tmp_path, name):
    path, other = tmp_path / "s.db", tmp_path / name
    crawler("--db", path, "prompt", "add", "p", "--template", "{word}", "--provider", "scripted")
    crawler("--db", path, "add", "a", "--prompt", "p")
    other.write_bytes(path.read_bytes())
    assert crawler("--db", path, "run").code == Exit.DONE
    assert crawler("--db", other, "check").code == Exit.DONE


def test_the_lock_of_a_run_of_an_older_program_is_known(tmp_path):
    with (tmp_path / "s.db-run-7").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_is_alive(tmp_path / "s.db", 7) is True
    assert run_is_alive(tmp_path / "s.db", 7) is False


def test_a_lock_that_leads_elsewhere_is_refused_and_nothing_is_made_there(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "s.db-lock").symlink_to(elsewhere)
    told(crawler("--db", tmp_path / "s.db", "add", "w"), Exit.CONFIGURATION)
    assert not elsewhere.exists()


def test_a_forked_child_keeps_no_dead_run_alive(tmp_path):
    """A child that is forked, and not only started anew, has copies of all descriptors."""
    code = (
        "import os, sys, pathlib\n"
        "from crawler.storage.locks import RunLock, WriteLock\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "lock, write = RunLock(path, 7), WriteLock(path)\n"
        "child = os.fork()\n"
        "os.write(1, b'forked' + bytes([10]))\n"
        "if child == 0:\n"
        "    os.read(0, 1)\n"
        "    os._exit(0)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "c.db"
    program = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert [run.stdout.readline() for _ in range(2)] == [b"forked\n"] * 2
        run.wait()
        assert run_is_alive(path, 7) is False, "its child lives, and waits for a byte"
        run.stdin.close()
