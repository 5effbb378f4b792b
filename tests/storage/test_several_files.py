"""A database is several files. People move, copy, restore and link them one by one: nothing is lost
by that without a word, and SQLite is not let near files that do not belong together."""

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from crawler import cli
from crawler.clock import boot_id
from crawler.errors import CrawlerError, Exit
from crawler.ledger.runs import start_run
from crawler.protocol import Answer
from crawler.storage import upgrade, waiting
from crawler.storage.database import writing
from crawler.storage.files import _file_system, is_alone, look
from crawler.storage.locks import RunLock
from crawler.storage.store import CHECKPOINTED_EVERY, open_store
from crawler.storage.upgrade import Migration, migrations
from tests.crawling import Played, a_store, crawled
from tests.program import add_prompt, crawler, rows, state_of, told

MANY = 3_000
COMMANDS = [
    ("status",),
    ("check",),
    ("export",),
    ("sql", "select 1"),
    ("add", "new", "--prompt", "p"),
    ("prompt", "add", "q", "--template", "{word}", "--provider", "scripted"),
    ("run", "--limit", "1"),
    ("retry",),
]


def put(path, first, count):
    """Add words with one transaction each ten; what is committed stays in the log."""
    for start in range(first, first + count, 10):
        values = [(f"w{n} {'x' * 200}",) for n in range(start, start + 10)]
        path.executemany("INSERT INTO words (text, added_at_ms) VALUES (?, 1)", values)


def killed(path, first=0, count=MANY, pages=0):
    """Leave what a process leaves that is killed: the file and its log."""
    folder = path.parent / "of the dead"
    folder.mkdir()
    with writing(path, 1) as writer:
        conn = writer.run(lambda conn: conn)
        conn.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        for start in range(first, first + count, 100):
            writer.run(put, start, 100)
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{path}{suffix}", folder)
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{path.name}{suffix}").replace(f"{path}{suffix}")
    folder.rmdir()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "c.db"
    add_prompt(path, "p", "{word}")
    assert crawler("--db", path, "add", "a", "b", "--prompt", "p").code == Exit.DONE
    return path


def files(folder):
    """Return what is in the files of a folder; SQLite leaves an index and an empty log."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: data for name, data in found.items() if data and not name.endswith("-shm")}


def refused(path, cause, hint, commands=COMMANDS):
    before = files(path.parent)
    for command in commands:
        what, why, how = told(crawler("--db", path, *command), Exit.CONFIGURATION)
        assert what.endswith("can't be used"), command
        assert cause in why, command
        assert hint in how, command
        assert files(path.parent) == before, command


def words(path):
    return rows(path, "SELECT count(*) FROM words")[0][0]


@pytest.mark.parametrize("pages", [0, 40, 400])
def test_what_a_killed_process_leaves_is_taken_up(path, pages):
    killed(path, pages=pages)
    assert path.with_name("c.db-wal").stat().st_size > 0
    assert crawler("--db", path, "status").code == Exit.DONE
    assert crawler("--db", path, "add", "new", "--prompt", "p").code == Exit.DONE
    assert words(path) == MANY + 3
    assert crawler("--db", path, "check").code == Exit.DONE


def test_a_crawl_that_is_moved_without_its_log_is_not_followed_by_another(path):
    killed(path)
    path.rename(path.with_name("old.db"))
    before = files(path.parent)
    for command in (*COMMANDS[:4], ("add", "new"), *COMMANDS[5:]):
        _, cause, hint = told(crawler("--db", path, *command), Exit.CONFIGURATION)
        assert cause == f"{path}-wal holds answers of a crawl that was moved away"
        assert f"mv {path}-wal" in hint
        assert files(path.parent) == before
    path.with_name("c.db-wal").rename(path.with_name("old.db-wal"))
    assert words(path.with_name("old.db")) == MANY + 2


def test_an_empty_file_does_not_take_a_log_over(path):
    killed(path)
    path.write_bytes(b"")
    refused(path, "holds answers of a crawl that was moved away", "move it along")


@pytest.mark.parametrize("pages", [0, 40])
@pytest.mark.parametrize("lives", [1, 3])
def test_a_backup_is_not_mixed_with_the_log_of_what_it_replaces(path, pages, lives):
    backup = path.with_name("backup.db")
    shutil.copy(path, backup)
    for life in range(lives - 1):
        crawler("--db", path, "add", *(f"{life} {n}" for n in range(300)), "--prompt", "p")
    killed(path, pages=pages)
    if pages == 0 and lives == 1:  # the log begins where the backup ends: nothing is lost
        shutil.copy(backup, path)
        assert words(path) == MANY + 2
        return
    shutil.copy(backup, path)
    refused(path, f"{path}-wal was written for another file", f"mv {path}-wal")
    path.with_name("c.db-wal").rename(path.with_name("c.db-wal.old"))
    assert crawler("--db", path, "check").code == Exit.DONE
    assert words(path) == 2


@pytest.mark.parametrize("at", [56, 33, 25])
def test_a_log_that_was_torn_by_a_power_cut_is_nobody_else_s(path, at):
    """The first page of a log, its first frame or its own head has not reached the disk."""
    killed(path)
    with path.with_name("c.db-wal").open("r+b") as wal:
        wal.seek(at)
        wal.write(bytes(4_096 if at == 56 else 4))
    assert crawler("--db", path, "status").code == Exit.DONE
    assert words(path) == 2, "SQLite takes none of it"


def test_another_crawl_is_not_mixed_with_a_log(path, tmp_path):
    other = tmp_path / "other.db"
    for name in "pqr":
        add_prompt(other, name, "{word}")
    for n in range(5):
        crawler("--db", other, "add", *(f"{n} {m}" for m in range(900)), "--prompt", "p")
    killed(path)
    shutil.copy(other, path)
    refused(path, f"{path}-wal was written for another file", f"mv {path}-wal")


def test_a_log_of_other_pages_is_told(path):
    killed(path)
    conn = sqlite3.connect(path.with_name("big.db"))
    conn.executescript("PRAGMA page_size = 8192; CREATE TABLE t (x)")
    conn.close()
    shutil.copy(path.with_name("big.db"), path)
    refused(path, "its pages have 4096 bytes, those of the file 8192", f"mv {path}-wal")


# One file, one name, one place

WRITES = COMMANDS[4:]


def test_a_file_of_two_names_is_not_written_to(path):
    os.link(path, path.with_name("other.db"))
    for name in ("c.db", "other.db"):
        refused(path.with_name(name), "the file has 2 names (hard links)", "cp ", WRITES)
    path.with_name("other.db").unlink()
    assert crawler("--db", path, "add", "new", "--prompt", "p").code == Exit.DONE


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", "-lock"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_beside_the_database_that_is_another_file_is_not_followed(path, suffix, link):
    precious = path.with_name("precious")
    precious.write_text("mine")
    beside = path.with_name(f"c.db{suffix}")
    beside.unlink(missing_ok=True)
    link(precious, beside)
    refused(path, "it is a link", "remove the link")
    assert precious.read_text() == "mine"


def test_a_journal_that_names_another_file_is_refused(path):
    precious = path.with_name("precious")
    precious.write_text("mine")
    name = os.fsencode(precious)
    magic = bytes.fromhex("d9d505f920a163d7")
    record = bytes([0, 0, 0, 1]) + name + len(name).to_bytes(4) + sum(name).to_bytes(4) + magic
    path.with_name("c.db-journal").write_bytes(magic + bytes(504) + record)
    refused(path, "it names another file, which SQLite would delete", "don't trust this folder")
    assert precious.read_text() == "mine"


MOUNTED = """
mount --bind {folder}/c.db {folder}/inside/c.db || exit 99
{python} -m crawler --db {folder}/inside/c.db {command}
"""


def in_a_mount_space(script):
    """Run a script where mounts are its own; skip the test where that is not allowed."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount (unshare -m)")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 99:
        pytest.skip(f"this machine does not let us mount: {done.stderr}")
    return done


def test_a_file_that_is_mounted_alone_is_not_written_to(path):
    inside = path.parent / "inside"
    inside.mkdir()
    (inside / "c.db").touch()
    script = MOUNTED.format(folder=path.parent, python=sys.executable, command="add new")
    done = in_a_mount_space(script)
    assert done.returncode == Exit.CONFIGURATION
    assert "the file alone is mounted here" in done.stderr
    assert "mount the folder that it is in" in done.stderr
    whole = script.replace("/c.db ", " ", 1).replace("/c.db ||", " ||")
    assert in_a_mount_space(whole).returncode == Exit.DONE


@pytest.mark.parametrize("how", ["mount", "folder"])
def test_a_finished_file_is_read_where_nobody_can_write(path, how):
    script = f"mount --bind {path.parent} {path.parent} && mount -o remount,ro,bind {path.parent}"
    if how == "folder":
        if os.geteuid() == 0:
            pytest.skip("root may write to any folder")
        script = f"chmod 500 {path.parent}"
    reads = ["status", "check", "export --prompt p", "show a"]
    for command in reads:
        ran = f"{script} || exit 99; cd /; {sys.executable} -m crawler --db {path} {command}"
        done = in_a_mount_space(ran)
        assert done.returncode == Exit.DONE, (command, done.stderr)


@pytest.mark.parametrize("kind", ["9p", "virtiofs", "fuse.rclone", "vboxsf", "lustre", "nfs4"])
def test_a_link_to_a_network_file_system_is_known_by_its_place(path, tmp_path, monkeypatch, kind):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    monkeypatch.setattr("crawler.storage.files._file_system", {path.resolve(): kind}.get)
    with pytest.raises(CrawlerError) as told_of:
        look(link, to_write=True)
    assert f"network file system ({kind})" in told_of.value.cause
    look(link, to_write=False)


def test_the_file_system_of_a_file_is_that_of_its_real_place():
    assert _file_system(Path("/proc/self/stat")) == "proc"


def test_what_was_made_from_a_dump_is_known(path, tmp_path):
    text = "\n".join(sqlite3.connect(path).iterdump())
    other = tmp_path / "other.db"
    conn = sqlite3.connect(other)
    conn.executescript(text)
    conn.close()
    before = state_of(tmp_path)
    _, cause, hint = told(crawler("--db", other, "status"), Exit.CONFIGURATION)
    assert cause == "it was made from the text of .dump, which leaves two numbers out"
    assert state_of(tmp_path) == before
    (version,) = rows(other, "SELECT max(version) FROM migrations")[0]
    assert "PRAGMA application_id = 1129464151" in hint
    conn = sqlite3.connect(other)
    conn.executescript(f"PRAGMA application_id = 1129464151; PRAGMA user_version = {version}")
    conn.close()
    assert crawler("--db", other, "check").code == Exit.DONE


# While others are at work


HOLDER = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
conn.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path):
    """Have another program hold SQLite's lock; yield a function that has it let go."""
    program = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield holder
        holder.stdin.close()


@pytest.mark.parametrize(
    "command", [("add", "new", "--prompt", "p"), ("pause",), ("run", "--limit", "1")]
)
def test_who_else_is_writing_is_waited_for_and_named(path, monkeypatch, command):
    monkeypatch.setattr(waiting, "_TOLD_AFTER_S", 0.0)
    told_of = []

    def say(text):
        told_of.append(text)
        holder.stdin.close()

    with held(path) as holder, patch.object(cli, "tell", say):
        assert crawler("--db", path, *command).code in {Exit.DONE, Exit.WORK_LEFT}
    [text] = told_of
    assert text.startswith("waiting for 'python")
    assert f"(pid {holder.pid}), which is writing to {path}; nothing is lost" in text


def test_answers_are_kept_while_another_program_holds_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "_TOLD_AFTER_S", 0.0)
    path, asked = tmp_path / "c.db", []

    async def main():
        async with a_store("abcdef", path, concurrency=3) as store:
            with held_when_asked(path, asked, monkeypatch) as provider:
                assert (await crawled(store, provider)).reason == "finished"
            assert sorted(provider.words) == [*"abcdef"], "none was paid for twice"

    asyncio.run(main())
    assert asked, "it was waited for"


@contextmanager
def held_when_asked(path, asked, monkeypatch):
    """Have another program take the lock during the second call, until that is told."""
    with ExitStack() as stack:

        def answer(call):
            if call.word == "b":
                holder = stack.enter_context(held(path))
                monkeypatch.setattr(
                    waiting, "say", lambda text: (asked.append(text), holder.stdin.close())
                )
            return Answer("x")

        yield Played(answer)


def test_a_file_that_is_moved_in_mid_run_gets_all_that_was_recorded(path):
    done = path.with_name("done.db")
    crawler("--db", path, "add", *(f"w{n}" for n in range(500)), "--prompt", "p")
    crawler("--db", path, "limit", "scripted", "--per-minute", "300")
    run = subprocess.Popen(
        [sys.executable, "-m", "crawler", "--db", path, "run"], stderr=subprocess.PIPE, text=True
    )
    while not rows(path, "SELECT count(*) FROM responses")[0][0]:
        assert run.poll() is None
    path.rename(done)
    _, err = run.communicate(timeout=60)
    assert run.returncode == Exit.DATABASE
    assert f"error: {path} has been moved to {done}" in err
    assert f"hint: crawler --db {done} run" in err
    log = path.with_name("c.db-wal")
    assert not log.exists() or log.stat().st_size == 0
    succeeded = rows(done, "SELECT count(*) FROM attempts WHERE outcome = 'succeeded'")
    assert rows(done, "SELECT count(*) FROM responses") == succeeded > [(0,)]
    assert crawler("--db", done, "check").code == Exit.DONE


def test_the_file_alone_lacks_only_some_seconds_of_answers(path):
    async def main():
        async with open_store(path) as store:
            await store.run(put, 0, 100)
            for _ in range(CHECKPOINTED_EVERY):
                await store.tend()
            shutil.copy(path, path.with_name("copy.db"))

    asyncio.run(main())
    assert words(path.with_name("copy.db")) == 102
    assert CHECKPOINTED_EVERY <= 5


def test_a_program_does_not_upgrade_a_file_under_an_older_one(path, monkeypatch):
    with writing(path, 1) as writer:
        run_id = writer.run(lambda conn: start_run(conn, 1, "host", "0", 1))
    alive = RunLock(path, run_id)
    more = Migration(len(migrations()) + 1, "9999_more.sql", "CREATE TABLE more (x ANY) STRICT;")
    newer = (*migrations(), more)
    monkeypatch.setattr(upgrade, "migrations", lambda: newer)
    what, _, _ = told(crawler("--db", path, "add", "new", "--prompt", "p"), Exit.DATABASE)
    assert "an older program is at work on it" in what
    assert rows(path, "PRAGMA user_version") == [(len(newer) - 1,)]
    alive.close()
    assert crawler("--db", path, "add", "new", "--prompt", "p").code == Exit.DONE
    assert rows(path, "PRAGMA user_version") == [(len(newer),)]


# Copies


def test_a_copy_that_lacks_its_log_is_told(path):
    with writing(path, 1) as writer:
        writer.run(lambda conn: start_run(conn, 1, "host", "0", 1))
    said = "run 1 has no end on record; if this is a copy that was made while it ran"
    assert said in crawler("--db", path, "status").err
    ran = crawler("--db", path, "run")
    assert ran.code == Exit.DONE
    assert said in ran.err
    assert "crawler backup makes whole copies" in ran.err
    for command in (("status",), ("run",)):
        assert "copy" not in crawler("--db", path, *command).err


def test_a_killed_run_whose_log_was_there_is_no_sign_of_a_copy(path):
    for n in (1, 2):
        with writing(path, 1) as writer:
            writer.run(lambda conn: start_run(conn, 1, "host", "0", 1))
        killed(path, n * MANY)
        before = path.with_name(f"before{n}.db")
        shutil.copy(path, before)
        ran = crawler("--db", path, "add", f"new{n}", "--prompt", "p")
        assert ran.err.startswith("1 added"), "the log is in the file now, and gone"
        assert is_alone(path)
        assert "copy" not in crawler("--db", path, "status").err
    assert "copy" not in crawler("--db", path, "run").err
    assert "run 2 has no end on record" in crawler("--db", before, "status").err


def test_a_copy_of_a_run_that_lives_while_a_command_writes_is_told(path):
    with writing(path, 1) as writer:
        run_id = writer.run(lambda conn: start_run(conn, 1, "host", "0", 1))
        alive = RunLock(path, run_id)
        crawler("--db", path, "add", "new", "--prompt", "p")
        writer.checkpoint()
        shutil.copy(path, path.with_name("copy.db"))
        alive.close()
    assert "if this is a copy" in crawler("--db", path.with_name("copy.db"), "status").err


def test_status_of_a_backup_tells_that_a_run_was_at_work_and_not_that_it_died(path):
    with writing(path, 1) as writer:
        writer.run(lambda conn: start_run(conn, 1, "host", "0", 1))  # it has died
        alive = RunLock(path, writer.run(lambda conn: start_run(conn, 1, "host", "0", 1)))
        assert crawler("--db", path, "backup", path.with_name("copy.db")).code == Exit.DONE
        alive.close()
    copy = path.with_name("copy.db")
    ran = crawler("--db", copy, "status")
    assert "run 1: pid 1 on host has died" in ran.out
    assert "this is a copy; run 2: pid 1 on host was at work when it was made" in ran.out
    assert "no end on record" not in ran.err
    assert crawler("--db", copy, "run").code == Exit.DONE
    assert "copy" not in crawler("--db", copy, "status").out
    assert crawler("--db", copy, "check").code == Exit.DONE
    assert "copy" not in crawler("--db", path, "status").out, "the original knows of none"


def test_status_of_a_copy_tells_that_the_run_is_at_work_elsewhere(path):
    boot = {"boot_id": boot_id()}
    with writing(path, 1) as writer:
        pid, host = os.getpid(), socket.gethostname()
        run_id = writer.run(lambda conn: start_run(conn, pid, host, "0", 1, **boot))
        alive = RunLock(path, run_id)
        writer.checkpoint()
        shutil.copy(path, path.with_name("copy.db"))
        assert "copy" not in crawler("--db", path, "status").out
        said = crawler("--db", path.with_name("copy.db"), "status").out
        alive.close()
    assert f"pid {pid} on {host} lives, but not on this file: this is a copy" in said
    assert "died" not in said


def test_a_copy_of_the_file_alone_knows_of_the_run_that_it_was_made_in(tmp_path):
    path, copy = tmp_path / "c.db", tmp_path / "copy.db"

    def answer(call):
        shutil.copy(path, copy)
        return Answer(call.word)

    async def main():
        async with a_store(["a", "b"], path) as store:
            await crawled(store, Played(answer))

    asyncio.run(main())
    assert "no end on record; if this is a copy" in crawler("--db", copy, "status").err


def test_what_a_killed_process_leaves_is_not_taken_for_a_copy(path):
    with writing(path, 1) as writer:
        writer.run(lambda conn: start_run(conn, 1, "host", "0", 1))
    killed(path)
    for command in (("status",), ("run", "--limit", "1")):
        assert "copy" not in crawler("--db", path, *command).err


def test_counts_that_disagree_are_told_with_how_whole_copies_are_made(path):
    conn = sqlite3.connect(path)
    conn.execute("UPDATE tallies SET pending = 99")
    conn.commit()
    conn.close()
    ran = crawler("--db", path, "check")
    assert ran.code == Exit.UNEXPECTED
    assert "may be torn: crawler backup makes whole ones" in ran.out


def test_a_backup_of_a_file_that_is_written_to_is_whole(path, tmp_path):
    copy = tmp_path / "copy.db"
    with writing(path, 1) as writer:
        writer.run(put, 0, 100)
        assert crawler("--db", path, "backup", copy).code == Exit.DONE
        assert words(copy) == 102
        writer.run(put, 100, 10)
    assert crawler("--db", copy, "check").code == Exit.DONE
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {found.name for found in tmp_path.iterdir()} <= {
        *("c.db", "c.db-lock", "copy.db", "copy.db-wal", "copy.db-shm")
    }


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal", "-lock"])
def test_a_backup_replaces_nothing(path, tmp_path, suffix):
    there = tmp_path / f"copy.db{suffix}"
    there.write_text("mine")
    told(crawler("--db", path, "backup", tmp_path / "copy.db"), Exit.USAGE)
    assert there.read_text() == "mine"


def test_no_backup_is_made_of_what_is_broken(path, tmp_path):
    conn = sqlite3.connect(path)
    conn.execute("UPDATE tallies SET pending = 99")
    conn.commit()
    conn.close()
    copy = tmp_path / "copy.db"
    _, cause, _ = told(crawler("--db", path, "backup", copy), Exit.UNEXPECTED)
    assert cause == "broken: tallies_agree"
    assert not copy.exists()


@pytest.mark.parametrize("file", [".", "", "..", "folder/"])
def test_a_backup_needs_the_name_of_a_file(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    assert crawler("add", "abate").code == Exit.DONE
    before = sorted(tmp_path.iterdir())
    told(crawler("backup", file), Exit.USAGE)
    assert sorted(tmp_path.iterdir()) == before
