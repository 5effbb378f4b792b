"""One file has one lock, whatever leads to it, and whoever may checkpoint has it in hand."""

import asyncio
import sqlite3
import threading

import pytest

from crawler.errors import Exit
from crawler.storage.database import reading, writing
from crawler.storage.locks import RunLock, WriteLock, run_is_alive
from crawler.storage.store import open_store
from tests.program import crawler, rows, told

A_WHILE_S = 0.1
"""Who has to wait has not gone on after it; who need not has done so long before."""
WORD = "INSERT INTO words (text, added_at_ms) VALUES (?, 1)"


@pytest.fixture
def path(tmp_path):
    """A database in a folder of its own."""
    folder = tmp_path / "home"
    folder.mkdir()
    assert crawler("--db", folder / "x.db", "add", "w").code == Exit.DONE
    return folder / "x.db"


def linked(path, tmp_path, how):
    """Return another way to the same file."""
    if how == "a link beside it":
        link = path.with_name("link.db")
        link.symlink_to(path.name)
        return link
    if how == "a link elsewhere":
        link = tmp_path / "link.db"
        link.symlink_to(path)
        return link
    if how == "a link to a link":
        (tmp_path / "first.db").symlink_to(path)
        (tmp_path / "second.db").symlink_to(tmp_path / "first.db")
        return tmp_path / "second.db"
    if how == "a folder that is a link":
        (tmp_path / "folder").symlink_to(path.parent)
        return tmp_path / "folder" / path.name
    return path.parent / ".." / path.parent.name / path.name


WAYS = [
    "a link beside it",
    "a link elsewhere",
    "a link to a link",
    "a folder that is a link",
    "a way round",
]


def waits_for(lock, act):
    """Tell whether somebody waits until a lock is free; then he has gone on."""
    acting = threading.Thread(target=act)
    with lock.held():
        acting.start()
        acting.join(A_WHILE_S)
        waited = acting.is_alive()
    acting.join(10)
    assert not acting.is_alive()
    return waited


@pytest.mark.parametrize("how", WAYS)
def test_who_writes_through_a_link_waits_for_who_writes(path, tmp_path, how):
    other = WriteLock(linked(path, tmp_path, how))
    mine = WriteLock(path)

    def write():
        with other.held():
            pass

    assert waits_for(mine, write)
    mine.close()
    other.close()


@pytest.mark.parametrize("how", WAYS)
def test_a_run_is_alive_whichever_way_one_looks(path, tmp_path, how):
    other = linked(path, tmp_path, how)
    lock = RunLock(other, 7)
    assert run_is_alive(path, 7) is True
    assert run_is_alive(path, 8) is False
    lock.close()
    assert run_is_alive(path, 7) is False
    assert run_is_alive(other, 7) is False


@pytest.mark.parametrize("how", WAYS)
def test_a_command_through_a_link_leaves_nothing_beside_it(path, tmp_path, how):
    link = linked(path, tmp_path, how)
    assert crawler("--db", link, "add", "v").code == Exit.DONE
    assert rows(path, "SELECT text FROM words ORDER BY id") == [("w",), ("v",)]
    left = {found.name for found in (*tmp_path.iterdir(), *path.parent.iterdir())}
    assert left <= {"home", "link.db", "first.db", "second.db", "folder", "x.db", "x.db-lock"}


def test_a_command_waits_until_nobody_else_writes(path):
    lock = WriteLock(path)

    def write():
        with writing(path, 1) as writer:
            writer.run(lambda conn: conn.execute(WORD, ("v",)))

    assert waits_for(lock, write)
    assert rows(path, "SELECT count(*) FROM words") == [(2,)]
    lock.close()


def test_a_file_is_not_made_ready_while_somebody_writes(path):
    """To have a write-ahead log is written to the file, at its 18th byte: 1 for none, 2 for one."""
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    conn.close()
    lock = WriteLock(path)

    def write():
        with writing(path, 1):
            pass

    acting = threading.Thread(target=write)
    with lock.held():
        acting.start()
        acting.join(A_WHILE_S)
        assert path.read_bytes()[18] == 1
    acting.join(10)
    assert path.read_bytes()[18] == 2
    lock.close()


def test_a_command_that_has_written_closes_when_nobody_else_writes(path):
    """The last connection to close checkpoints."""
    lock, written = WriteLock(path), threading.Event()
    go_on = threading.Event()

    def write():
        with writing(path, 1) as writer:
            writer.run(lambda conn: conn.execute(WORD, ("v",)))
            written.set()
            go_on.wait(10)

    acting = threading.Thread(target=write)
    acting.start()
    assert written.wait(10)
    with lock.held():
        go_on.set()
        acting.join(A_WHILE_S)
        assert acting.is_alive()
        assert path.with_name("x.db-wal").stat().st_size > 0, "and it is not checkpointed"
    acting.join(10)
    assert not path.with_name("x.db-wal").exists()
    lock.close()


def test_a_store_closes_when_nobody_else_writes(path):
    async def main():
        lock, leave = WriteLock(path), asyncio.Event()
        written = asyncio.Event()

        async def hold():
            async with open_store(path) as store:
                await store.run(lambda conn: conn.execute(WORD, ("v",)))
                written.set()
                await leave.wait()

        task = asyncio.create_task(hold())
        await written.wait()
        with lock.held():
            leave.set()
            _, waiting = await asyncio.wait({task}, timeout=A_WHILE_S)
            assert waiting
            assert path.with_name("x.db-wal").stat().st_size > 0, "and it is not checkpointed"
        await task
        assert not path.with_name("x.db-wal").exists()
        lock.close()

    asyncio.run(main())


def test_each_transaction_of_a_store_waits_until_nobody_else_writes(path):
    async def main():
        lock = WriteLock(path)
        async with open_store(path) as store:
            with lock.held():
                task = asyncio.create_task(store.run(lambda conn: conn.execute(WORD, ("v",))))
                _, waiting = await asyncio.wait({task}, timeout=A_WHILE_S)
                assert waiting
            await task
        lock.close()

    asyncio.run(main())


def test_who_only_reads_waits_for_nobody(path):
    lock = WriteLock(path)

    def read():
        with reading(path) as conn:
            assert conn.execute("SELECT count(*) FROM words").fetchone() == (1,)

    assert not waits_for(lock, read)
    lock.close()


SETTINGS = {
    "busy_timeout": 1_000,
    "foreign_keys": 1,
    "journal_mode": "wal",
    "mmap_size": 0,
    "synchronous": 2,  # FULL
    "temp_store": 2,  # MEMORY
    "trusted_schema": 0,
}


def settings_of(conn):
    known = {name: conn.execute(f"PRAGMA {name}").fetchone() for name in SETTINGS}
    known["mmap_size"] = known["mmap_size"] or (0,)  # nothing where a build has none
    (pages,) = conn.execute("PRAGMA wal_autocheckpoint").fetchone()
    return {name: row[0] for name, row in known.items()}, pages


def test_every_connection_that_writes_is_durable_and_one_that_only_commands_never_checkpoints(path):
    with writing(path, 1) as writer:
        assert writer.run(settings_of) == (SETTINGS, 0)

    async def main():
        async with open_store(path) as store:
            return await store.run(settings_of)

    found, pages = asyncio.run(main())
    assert found == SETTINGS
    assert pages > 0


MIGRATIONS = [
    "DELETE FROM migrations",
    "DELETE FROM migrations WHERE version = 1",
    "DELETE FROM migrations WHERE version = 2",
    "UPDATE migrations SET sha256 = '' WHERE version = 1",
    "UPDATE migrations SET sha256 = (SELECT sha256 FROM migrations WHERE version = 1)",
]


@pytest.mark.parametrize("change", MIGRATIONS)
def test_a_file_that_does_not_know_how_it_was_made_is_refused(path, change):
    with writing(path, 1) as writer:
        writer.run(lambda conn: conn.execute(change))
    what, cause, _ = told(crawler("--db", path, "add", "v"), Exit.CONFIGURATION)
    assert what.endswith("is not the one that this database was made with")
    assert "its text has changed" in cause
    assert rows(path, "SELECT text FROM words") == [("w",)]
