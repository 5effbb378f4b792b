"""The disk is full, or fails: the run stops calling, says why, and later goes on without loss."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from crawler.errors import Exit
from tests.conftest import LONG
from tests.crawls import CONCURRENCY, PROGRAM, Crawl, assert_witnesses_agree, told_by
from tests.loopback import serving
from tests.program import Ran, told

WORDS = [f"word{n}" for n in range(60)]
LONG_ANSWER = "x" * 2_000


@contextmanager
def crawling(folder, forks):
    with (
        serving(0.02, LONG_ANSWER) as witness,
        Crawl(folder, witness.url, WORDS, forks) as crawl,
    ):
        yield crawl, witness


def assert_it_has_stopped(crawl, run):
    """A run has ended for its disk: with the right code, the right words, and no call too many."""
    ran = Ran(run.wait(60), "", told_by(run))
    what, _, hint = told(ran, Exit.DATABASE)
    assert what == f"{crawl.path} can't be read or written"
    assert "what was recorded is safe" in hint


def assert_nothing_is_lost(crawl, witness):
    """Now the disk is well: what was asked and is not on record was in flight."""
    stored = crawl.assert_sound()
    assert stored <= witness.words.total() <= stored + CONCURRENCY
    assert crawl.fork().wait(60) == Exit.DONE
    assert assert_witnesses_agree(crawl, witness, WORDS) <= CONCURRENCY


@pytest.fixture
def small_disk(disk_path):
    """A disk of its own, and a function that sets its size; tmpfs, so only for root."""
    folder = disk_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def resize(disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.parametrize("kib_free", range(0, 300, 8) if LONG else [12, 100, 250])
def test_a_full_disk_ends_the_run_and_loses_nothing(small_disk, forks, kib_free):
    with crawling(small_disk, forks) as (crawl, witness):
        disk = os.statvfs(small_disk)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_bsize
        resize(small_disk, used + kib_free * 1024)
        assert_it_has_stopped(crawl, crawl.fork())
        resize(small_disk, "8m")
        assert_nothing_is_lost(crawl, witness)


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("kib", range(0, 300, 8) if LONG else [0, 150])
def test_a_file_that_may_not_grow_ends_the_run_and_loses_nothing(disk_path, forks, kib):
    with crawling(disk_path, forks) as (crawl, witness):
        program = [sys.executable, "-c", LIMITED, str(kib * 1024), *PROGRAM, "run"]
        assert_it_has_stopped(crawl, crawl.start(program=program))
        assert_nothing_is_lost(crawl, witness)


def strace_fails():
    """Tell why no error can be injected here; None where it can."""
    try:
        done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    except FileNotFoundError:
        return "strace is not installed"
    return done.stderr.strip() if done.returncode else None


# The first few belong to the opening of the file.
@pytest.mark.parametrize(
    "when", [f"{n}{s}" for n in range(3, 12) for s in ("", "+")] if LONG else ["3", "5+", "8"]
)
def test_a_failed_sync_ends_the_run_and_loses_nothing(disk_path, forks, when):
    if reason := strace_fails():
        pytest.skip(reason)
    calls = disk_path / "calls"
    inject = f"inject=fdatasync:error=EIO:when={when}"
    strace = ["strace", "-f", "-o", calls, "-e", "trace=fdatasync", "-e", inject]
    with crawling(disk_path, forks) as (crawl, witness):
        assert_it_has_stopped(crawl, crawl.start(program=[*strace, *PROGRAM, "run"]))
        assert "INJECTED" in calls.read_text()
        assert_nothing_is_lost(crawl, witness)
