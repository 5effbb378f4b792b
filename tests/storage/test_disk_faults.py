"""A disk that fails or loses power below the real program; and a mistake that has to be found."""

import re
import subprocess
import sys

import pytest

from tests.conftest import LONG
from tests.simulation.disk import reachable

pytestmark = pytest.mark.skipif(
    not reachable(), reason="this Python hides its SQLite: nothing can be put below it"
)
JOBS = () if LONG else ("--jobs", "1")
"""The tests have their own two processes, and each has its imports to make."""


def simulate(name, *options):
    """Return exit code and summary of a simulation."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.simulation.{name}", *options],
        capture_output=True,
        text=True,
        timeout=7200 if LONG else 280,
    )
    assert done.stdout, done.stderr
    summary = done.stdout.splitlines()[-1]
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", summary)}
    return done.returncode, counts, done.stdout + done.stderr


def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged():
    least, words, every = (100_000, 26, 1) if LONG else (600, 6, 5)
    size = ("--states", str(least), "--words", str(words), "--every", str(every))
    code, counts, told = simulate("power_loss", *size, *JOBS)
    assert code == 0, told
    assert counts["states"] >= least
    assert counts["crawled"] >= least // 100


def test_a_commit_that_never_reached_the_disk_is_found_and_can_be_replayed(tmp_path):
    recording = ("--recording", str(tmp_path / "recording"))
    few = ("--states", "1", "--words", "3", "--every", "19")
    code, counts, told = simulate("power_loss", "--bug", "synchronous_off", *few, *recording, *JOBS)
    assert code == 1, told
    assert counts["lost"] > 10, told
    again = re.search(r"again: scripts/simulate power_loss --recording \S+ --only (\S+)", told)
    code, counts, told = simulate("power_loss", *recording, "--only", again[1])
    assert (code, counts["states"]) == (1, 1), told


@pytest.mark.parametrize("nth", [25, 30])
def test_a_page_that_cannot_be_read_is_not_taken_for_a_damaged_one(nth):
    code, _, told = simulate("io_errors", "--only", f"present/read/IOERR_READ/once/{nth}")
    assert code == 0, told
    assert "ended with CrawlerError" in told


def test_whatever_fails_on_the_disk_is_told_and_nothing_is_lost():
    code, counts, told = simulate("io_errors", *(["--all"] if LONG else ["--every", "17"]))
    assert code == 0, told
    assert counts["points"] >= (2_000 if LONG else 140)
    assert counts["ended"] >= 70
    assert counts["went"] >= 10
