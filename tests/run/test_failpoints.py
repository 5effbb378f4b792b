"""The program dies at each of its named points, and goes on as if it had not."""

import ast
import json
import signal
from pathlib import Path

import pytest

from crawler.errors import Exit
from crawler.failpoints import POINTS, VARIABLE, failpoint
from tests.conftest import LONG
from tests.crawls import Crawl, assert_witnesses_agree
from tests.loopback import serving
from tests.program import Ran, crawler, crawler_process, rows, told

OF_THE_FILE = ("file_created", "migrating", "before_begin", "before_commit", "after_commit")
OF_A_TRANSACTION = ("before_begin", "before_commit", "after_commit")
PASSED_AGAIN = ("leased", "submitted", "answered", "outcomes_taken")
CALLS = 12


def deaths():
    """Yield where and when a run is to die; what the program passes once, it passes once."""
    for point in POINTS:
        if point in OF_A_TRANSACTION:
            # The first nine open the file, put the run on record and lease; then answers come.
            yield from ((point, n) for n in range(1 if LONG else 8, 15))
        elif point in PASSED_AGAIN:
            yield from ((point, n) for n in range(1, 3))
        elif point not in OF_THE_FILE:
            yield point, 1


@pytest.mark.parametrize("point", OF_THE_FILE)
def test_a_file_whose_making_was_cut_off_is_made_by_the_next(tmp_path, point):
    db = tmp_path / "c.db"
    add = ("--db", db, "prompt", "add", "p", "--template", "{word}", "--provider", "scripted")
    # In a process of its own: those that the tests fork do not migrate a new file.
    assert crawler_process(*add, env={VARIABLE: point}).code == -signal.SIGKILL
    assert crawler(*add).code == Exit.DONE
    assert crawler("--db", db, "check").code == Exit.DONE
    assert rows(db, "SELECT version FROM prompts") == [(1,)]


def test_it_dies_at_every_point_of_a_run_and_loses_nothing(tmp_path, forks):
    lives = list(deaths())
    words = [f"word{n}" for n in range(CALLS * len(lives))]
    with serving() as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        for point, number in lives:
            if point == "dead_run_ended":  # somebody has to be dead
                die_at(crawl, "submitted", 1)
            die_at(crawl, point, number)
        assert crawl.fork().wait(60) == Exit.DONE
        assert assert_witnesses_agree(crawl, witness, words) > 0
    assert not list(tmp_path.glob("*-run-*"))


def die_at(crawl, point, number):
    run = crawl.fork("--limit", str(CALLS), env={VARIABLE: f"{point}:{number}"})
    assert run.wait(30) == -signal.SIGKILL, (point, number, run.said)
    crawl.assert_sound()


@pytest.mark.parametrize("name", ["lease", "leased:0", "leased:", "leased:1x", ""])
def test_a_wrong_name_is_an_error_that_tells_the_right_ones(tmp_path, forks, name):
    add = ("prompt", "add", "p", "--template", "{word}", "--provider", "scripted")
    process = forks.start(("--db", tmp_path / "c.db", *add), {VARIABLE: name})
    with process.stderr:
        ran = Ran(process.wait(20), "", process.stderr.read())
    what, cause, _ = told(ran, Exit.CONFIGURATION)
    assert what == f"{VARIABLE}={name} names no failpoint"
    assert all(point in cause for point in POINTS)


def test_the_points_of_the_program_are_those_that_can_be_named():
    used = [
        node.args[0].value
        for path in (Path(__file__).parent.parent.parent / "crawler").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == failpoint.__name__
    ]
    assert sorted(used) == sorted(POINTS), json.dumps(used)
