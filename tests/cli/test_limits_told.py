"""What is said of limits: which were set, which hold back, and that one is paused."""

import json

import pytest

from crawler.cli.live import doing
from crawler.errors import Exit
from crawler.ledger.status import status
from crawler.storage.database import reading
from tests.program import crawler, crawler_terminal


@pytest.fixture
def do(tmp_path):
    """Run the program over a file with a prompt for two models of one provider."""

    def run(*args, program=crawler):
        ran = program("--db", tmp_path / "c.db", *args)
        assert ran.code == Exit.DONE, ran
        return ran

    for name, model in (("p", "m"), ("q", "n")):
        spec = ("--template", "{word}", "--provider", "scripted", "--model", model)
        run("prompt", "add", name, *spec)
        run("add", "a", "--prompt", name)
    run.path = tmp_path / "c.db"
    return run


def test_a_word_that_is_paused_while_no_run_is_at_work_says_both(do):
    do("pause", "scripted/m")
    paused, free = do("show", "a").out.strip().split("\n\n")
    assert "no run is at work, and the limit scripted/m is paused" in paused
    assert "crawler resume scripted/m, crawler run" in paused
    assert "paused" not in free
    do("pause", "scripted/n", "--until", "2h")
    assert "the limit scripted/n is paused until 20" in do("show", "a").out
    do("resume")
    assert "paused" not in do("show", "a").out


def test_a_run_says_which_limits_it_has_set(do):
    log = do("run", "--per-minute", "600").err.splitlines()
    (told,) = [line for line in map(json.loads, log) if line["event"] == "limits_set"]
    assert (told["limits"], told["per_minute"]) == (["scripted/m", "scripted/n"], 600)
    shown = do("run", "--per-minute", "900", "--concurrency", "3", program=crawler_terminal).out
    assert "900 per_minute, 3 concurrency for each of 2 limits: scripted/m, scripted/n" in shown
    assert "limits_set" not in do("run", "--prompt", "p", "--per-minute", "600").err


def test_the_live_line_names_limits_where_there_are_several(do):
    do("limit", "scripted/m", "--per-minute", "60")
    do("pause", "scripted/n")
    with reading(do.path) as conn:
        now = status(conn, 0, 1_000)
    assert "0/60 this minute of scripted/m" in doing(now, " · ")
    assert "scripted/n paused" in doing(now, " · ")
    alone = now._replace(limits=now.limits[:1])
    assert doing(alone, " · ") == "starts calls, 0/60 this minute"
