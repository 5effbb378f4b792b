"""Files of a killed crawl, moved, left behind and restored at random: no word is lost silently.

Whoever opens what lies there afterwards finds all words, or is refused, or is told that some may be
elsewhere; and when the hint is followed, all are there.
"""

import random
import shutil
import sqlite3

import pytest

from crawler.errors import Exit
from crawler.ledger.finish import end_run
from crawler.ledger.runs import Scope, start_run
from crawler.policy import Policy
from crawler.run.ending import Reason
from crawler.states import Outcome
from crawler.storage.backup import back_up
from crawler.storage.database import writing
from tests.conftest import LONG
from tests.program import add_prompt, crawler, rows

EPISODES = 2_000 if LONG else 24
TOLD = "no end on record; if this is a copy"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "c.db"
    add_prompt(path, "p", "{word}")
    return path


class Episode:
    """One crawl of some lives, the last of which is killed; perhaps with a backup."""

    def __init__(self, folder, made, draw):
        self.path = folder / "c.db"
        self.draw = draw
        self.words = 0
        self.backup, self.backup_words = None, 0
        shutil.copy(made, self.path)
        for _ in range(draw.randint(0, 2)):
            self.live(killed=draw.random() < 0.3)
        self.live(killed=True)

    def live(self, *, killed):
        image = self.path.parent / "image"
        image.mkdir()
        with writing(self.path, 1) as writer:
            conn = writer.run(lambda conn: conn)
            conn.execute(f"PRAGMA wal_autocheckpoint = {self.draw.choice([0, 0, 40])}")
            run_id = writer.run(start_run, 1, "host", "0", 1)
            for _ in range(self.draw.randint(1, 12)):
                self.step(writer, conn)
            if killed:
                for suffix in ("", "-wal", "-shm"):
                    shutil.copy(f"{self.path}{suffix}", image)
            else:
                scope = Scope(
                    run_id=run_id, policy=Policy(), clock=lambda: 2, draw=self.draw.randint
                )
                writer.run(end_run, scope, run_id, Outcome.ABANDONED, Reason.STOPPED)
        if killed:
            for suffix in ("", "-wal", "-shm"):
                (image / f"c.db{suffix}").replace(f"{self.path}{suffix}")
        image.rmdir()

    def step(self, writer, conn):
        if self.draw.random() < 0.15:
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if self.draw.random() < 0.15 and self.backup is None:
            self.backup, self.backup_words = self.path.with_name("backup.db"), self.words
            back_up(self.path, self.backup, lambda _: None)
        size = self.draw.randint(1, 30)
        texts = [(f"{self.words + n} {'x' * self.draw.randint(0, 900)}",) for n in range(size)]
        writer.run(add_texts, texts)
        self.words += size


def add_texts(conn, texts):
    conn.executemany("INSERT INTO words (text, added_at_ms) VALUES (?, 1)", texts)


def opened(path):
    """Return what the first command of a person says; None where it is refused."""
    ran = crawler("--db", path, "status")
    if ran.code == Exit.CONFIGURATION:
        for command in (("add", "new", "--prompt", "p"), ("run",), ("check",)):
            assert crawler("--db", path, *command).code == Exit.CONFIGURATION
        return None
    assert ran.code == Exit.DONE, ran
    return ran.err


def words_in(path):
    assert crawler("--db", path, "check").code == Exit.DONE
    return rows(path, "SELECT count(*) FROM words")[0][0]


def beside(path, suffix="-wal"):
    return path.with_name(path.name + suffix)


def nothing(it):
    assert TOLD not in opened(it.path)
    assert words_in(it.path) == it.words


def moved_along(it):
    new = it.path.with_name("new.db")
    for suffix in ("", "-wal"):
        beside(it.path, suffix).rename(beside(new, suffix))
    assert TOLD not in opened(new)
    assert words_in(new) == it.words


def moved_alone(it):
    new = it.path.with_name("new.db")
    it.path.rename(new)
    assert crawler("--db", it.path, "add", "new").code == Exit.CONFIGURATION
    beside(it.path).rename(beside(new))
    assert words_in(new) == it.words


def copied_alone(it):
    new = it.path.with_name("new.db")
    shutil.copy(it.path, new)
    nothing(it)  # first: other programs that open a file take its log up
    said = opened(new)
    lacking = it.words - rows(new, "SELECT count(*) FROM words")[0][0]
    has_open_run = rows(new, "SELECT 1 FROM runs WHERE ended_at_ms IS NULL") != []
    assert (TOLD in said) is has_open_run
    assert lacking == 0 or has_open_run or not has_begun(it, new)


def has_begun(it, copy):
    """Tell whether a copy knows of the run that was killed: its checkpoint may be older."""
    return rows(it.path, "SELECT max(id) FROM runs") == rows(copy, "SELECT max(id) FROM runs")


def restored_beside_the_log(it):
    if it.backup is None:
        return
    shutil.copy(it.backup, it.path)
    if opened(it.path) is None:
        beside(it.path).rename(beside(it.path, "-wal.old"))
        assert opened(it.path) is not None
        assert words_in(it.path) == it.backup_words
    else:
        assert words_in(it.path) >= it.backup_words


def restored(it):
    if it.backup is None:
        return
    old = it.path.with_name("old")
    old.mkdir()
    for suffix in ("", "-wal"):
        beside(it.path, suffix).rename(beside(old / "c.db", suffix))
    shutil.copy(it.backup, it.path)
    assert opened(it.path) is not None
    assert words_in(it.path) == it.backup_words
    assert words_in(old / "c.db") == it.words


MISHAPS = [nothing, moved_along, moved_alone, copied_alone, restored_beside_the_log, restored]


@pytest.mark.parametrize("mishap", MISHAPS)
def test_no_word_is_lost_silently(tmp_path, made, mishap):
    for seed in range(EPISODES // len(MISHAPS)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        episode = Episode(folder, made, random.Random(f"{mishap.__name__} {seed}"))
        try:
            mishap(episode)
        except sqlite3.Error as error:
            raise AssertionError(f"seed {seed}") from error
        except AssertionError:
            print(f"seed {seed}")
            raise
        shutil.rmtree(folder)
