"""The simulations, run as a user would: they find nothing, but every bug that is planted."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DAY, LONG
from tests.simulation.bugs import BUGS, FOUND_AS, SUITES

ROOT = Path(__file__).parent.parent.parent


def simulate(name, *options):
    """Run a simulation; return its exit code and what it printed."""
    jobs = "2" if LONG else "1"  # the tests have their own two processes
    done = subprocess.run(
        [sys.executable, "-m", f"tests.simulation.{name}", "--jobs", jobs, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_whatever_befalls_the_program_its_promises_are_kept():
    todays = ["--seeds", "50", "--first", str(DAY % 3 * 50), "--replays", "5"]
    code, said = simulate("program", *(["--seeds", "20000"] if LONG else todays))
    assert code == 0, said


@pytest.mark.parametrize("options", [[], ["--twice", "--items", "4"]])
def test_a_run_can_be_cancelled_at_any_step(options):
    todays = ["--every", "6", "--first", str(1 + DAY % 6)]
    sizes = ["--items", "20", "--retries"] if LONG else todays
    code, said = simulate("cancellation", *options, *sizes)
    assert code == 0, said


def todays_bugs():
    """Return the bugs to plant: three, other ones each day; all in the long version."""
    names = sorted(BUGS.keys() - {"synchronous_off"})  # test_disk_faults plants it each time
    return names if LONG else [names[(3 * DAY + n) % len(names)] for n in range(3)]


@pytest.mark.parametrize("bug", todays_bugs())
def test_a_planted_bug_is_found(bug):
    code, said = simulate(SUITES.get(bug, "program"), "--bug", bug)
    assert code == 1, said
    assert FOUND_AS[bug] in said
    assert "again: scripts/simulate" in said
