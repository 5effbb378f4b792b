"""Each benchmark in its smallest form: what it prints has the figures that it is there for.

Half of them have their turn by the day.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DAY, LONG
from tests.simulation.disk import fast_folder

BENCHMARKS = Path(__file__).parent.parent / "scripts" / "benchmarks"
HELPERS = {
    "bare_client",
    "beside",
    "by_hand",
    "harness",
    "openai_server",
    "peer_side",
    "vertex_side",
}
SMALL = {
    "all": (("--share", "0.01", "--only", "turns"), r"(?m)^ +\d+\.\d\d +\d+%   turns: crawl"),
    "turns": (("--words", "200", "--rounds", "1"), r"median .*\n.*\n +ratio \d"),
    "openai": (("--words", "100", "--rounds", "1"), r"median .* ratio \d"),
    "vertex": (
        ("--words", "100", "--rounds", "1", "--sides", "bare loop"),
        r"bare loop .* ratio 1",
    ),
    "peers": (("--words", "100", "--rounds", "1", "--peers"), r"1\.00 .* bare loop\n.* crawler"),
    "scale": (
        ("--rows", "300", "--rounds", "1", "--batches", "1", "--turns"),
        r"turn: 300 waiting: lease \d",
    ),
    "resume": (("--rows", "100", "--rounds", "1"), r"first call after \d"),
    "per_minute": (
        ("--part", "a", "--words", "30", "--latency-ms", "5"),
        r"30 requests, 0 refused",
    ),
}
IN_REAL_TIME = {"notebook", "quota"}
"""They wait for minutes of the clock."""


def run(name, *options):
    return subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *options],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent.parent)},
    )


@pytest.mark.parametrize("name", list(SMALL) if LONG else list(SMALL)[DAY % 2 :: 2])
def test_it_measures_what_it_is_there_for(tmp_path, name):
    options, told = SMALL[name]
    done = run(name, *options, "--dir", fast_folder() or tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(told, done.stdout), done.stdout


@pytest.mark.parametrize("name", sorted(IN_REAL_TIME))
def test_it_can_be_asked_what_it_does(name):
    assert f"scripts/bench {name}" in run(name, "--help").stdout


def test_no_benchmark_is_left_out():
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert names == HELPERS | SMALL.keys() | IN_REAL_TIME
