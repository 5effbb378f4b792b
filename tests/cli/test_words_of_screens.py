"""What screens say, case by case: times, numbers of one and many, and what holds a limit back."""

import io
import re
from pathlib import Path

import pytest

from crawler.cli.status import prompt_line
from crawler.cli.terminal import span, tell, tell_error
from crawler.cli.why import held_line, long, short
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, count_of
from crawler.ledger.budget import Allowance
from crawler.ledger.runs import Scope, start_run
from crawler.ledger.status import LimitStatus, Progress
from crawler.ledger.turn import turn
from crawler.ledger.why import Why
from crawler.policy import Policy
from crawler.storage.database import writing
from tests.program import crawler, told

NOW_MS = 1_000_000
SCRIPTED = ("--provider", "scripted", "--template")


@pytest.mark.parametrize(
    ("span_ms", "said"),
    [
        (0, "0 s"),
        (59_499, "59 s"),
        (59_500, "1 min 0 s"),
        (3_599_000, "59 min 59 s"),
        (3_600_000, "1 h 0 min"),
        (86_399_000, "23 h 59 min"),
        (86_400_000, "1 d 0 h"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_a_span_has_its_two_largest_units(span_ms, said):
    assert span(span_ms) == said


CAUSES = {
    "quota": "the quota is used up",
    "day": "the quota of the day is used up",
    "outage": "the server is out of order or away",
    None: "the gate is closed",
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_gate_says_by_what_it_is_closed(cause):
    why = Why("gate", NOW_MS, NOW_MS + 5_000, cause, "429")
    closed = CAUSES[cause]
    briefly = {"quota": "429", "outage": "the server is away: 429"}.get(cause, f"{closed}: 429")
    assert short(why, "one", NOW_MS) == f"waits 5 s: {briefly}"
    assert short(why, "one", NOW_MS + 4_900) == f"waits 1 s: {briefly}", "never for 0 s"
    assert short(why, "one", NOW_MS + 5_000) == f"one call tries: {briefly}"
    assert short(why._replace(detail=None), "one", NOW_MS) == f"waits 5 s: {closed}"
    since, until = "1970-01-01T00:16:40.000Z", "1970-01-01T00:16:45.000Z"
    assert (
        long(why, "p", "one") == f"{closed} since {since}, and nothing starts until {until} (429)"
    )


@pytest.mark.parametrize(
    ("held_by", "wait_ms", "said"),
    [
        (None, None, ""),
        ("per_minute", 999, ""),
        ("per_minute", 1_000, "waits 1 s for the limit per minute"),
        ("tokens_per_minute", 2_000, "waits 2 s for the limit of tokens per minute"),
        ("backoff", 2_000, "waits 2 s to try again"),
        ("backoff", 500, ""),
        ("concurrency", None, ""),
        ("paused", None, "paused: crawler resume one"),
        ("paused", 1, "paused until 1970-01-01T00:16:40.001Z: crawler resume one"),
    ],
)
def test_what_holds_a_limit_back_is_told_where_it_lasts(held_by, wait_ms, said):
    known = dict.fromkeys(LimitStatus._fields)
    until_ms = None if wait_ms is None else NOW_MS + wait_ms
    limit = LimitStatus(**{**known, "limit": "one", "held_by": held_by, "until_ms": until_ms})
    assert held_line(limit, NOW_MS) == said


@pytest.fixture
def do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    made = crawler("prompt", "add", "p", *SCRIPTED, "About {word}", "--limit", "one")
    assert made.code == Exit.DONE
    return crawler


def test_one_is_told_as_one_and_nothing_is_not_told(do):
    target = "to p version 1 (scripted, scripted)"
    assert do("add", "a", "--prompt", "p").err == f"1 added {target}\n"
    assert do("add", "a", "b", "--prompt", "p").err == f"1 added {target}, 1 known already\n"
    assert do("pause", "one").err == "one is paused; go on with crawler resume one\n"
    assert do("pause").err == "everything is paused; go on with crawler resume\n"
    new = ("prompt", "edit", "p", "--limit", "one", *SCRIPTED)
    assert do(*new, "Of {word}").err.endswith("\n2 words wait for it\n")
    do("cancel", "a")
    assert do(*new, "On {word}").err.endswith("\n1 word waits for it\n")


def test_an_old_version_without_words_has_no_line(do):
    do("prompt", "edit", "p", *SCRIPTED, "Of {word}", "--limit", "one")
    do("prompt", "add", "a", *SCRIPTED, "Of {word}", "--limit", "one")
    do("add", "w", "--prompt", "p")
    do("run", "--prompt", "p")
    do("prompt", "edit", "p", *SCRIPTED, "On {word}", "--limit", "one")
    heads = [line.split(" (")[0] for line in do("status").out.splitlines()]
    assert heads[:3] == ["a version 1", "p version 2", "p version 3"]


def lease_one(conn):
    """Put a call on record as in flight."""
    now_ms = wall_ms()
    run_id = start_run(conn, 1, "host", "0", now_ms)
    scope = Scope(run_id=run_id, policy=Policy(), clock=lambda: now_ms, draw=lambda low, _: low)
    turn(conn, scope, [], Allowance(1))


def test_a_call_in_flight_is_shown_as_that(do):
    do("add", "w", "v", "--prompt", "p")
    with writing(Path("crawl.db"), wall_ms()) as writer:
        writer.run(lease_one)
    head, attempt, *_ = do("show", "w").out.splitlines()
    assert head.endswith("· leased")
    assert re.fullmatch(r"  1\. \S+Z  in flight", attempt)
    assert "2 requests, 0 succeeded, 0 failed, 1 in flight, 1 pending" in do("status").out


def test_the_failed_are_requests_too(do):
    bad = ("On {word}", "--limit", "one", "--param", 'errors={"blocked": 1}')
    do("prompt", "edit", "p", *SCRIPTED, *bad)
    do("add", "w", "v", "--prompt", "p")
    assert do("run").code == Exit.SOME_FAILED
    assert "2 requests, 0 succeeded, 2 failed, 0 in flight, 0 pending" in do("status").out


@pytest.mark.parametrize("price", ["/2", "0.3/", "x/2", "0.3/x", "2", "-1/2"])
def test_a_price_has_two_numbers(do, price):
    do("add", "w", "--prompt", "p")
    ran = do("run", "--budget", "5", f"--price={price}")
    assert ran.code == Exit.USAGE
    assert "is not IN/OUT" in ran.err
    told(do("show", "nobody"), Exit.USAGE)


def test_one_thing_is_told_as_one(do, tmp_path):
    assert [count_of(n, "row") for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    (tmp_path / "list.csv").write_text("word,level\na,1\n,2\n")
    assert "1 row has no word, for example row 3" in do("add", "list.csv", "--prompt", "p").err
    assert ": 1 request, 0 succeeded" in do("status").out
    do("run")
    assert do("export", "-").err == "1 of 1 word has an answer\n"
    assert do("show").err.startswith("1 of 1 word;")
    assert do("backup", "copy.db").err == "copy.db holds all of crawl.db: 1 answer\n"
    assert "1 looks like another word when it is" in do("add", "-n", "a", "a\u200b").err


def test_hints_name_the_program_as_it_was_started(do, tmp_path, monkeypatch):
    do("add", "a", "--prompt", "p")
    assert do("status").out.endswith("nobody is at work: crawler run\n")
    monkeypatch.setenv("CRAWLER_PROGRAM", "scripts/crawl")
    assert do("status").out.endswith("nobody is at work: scripts/crawl run\n")
    assert "no run is at work: scripts/crawl run" in do("show", "a").out
    assert "go on with scripts/crawl resume" in do("pause").err
    assert told(do("show", "b"), Exit.USAGE)[2] == "scripts/crawl add b"
    assert told(do("add"), Exit.USAGE)[2] == "scripts/crawl add --help"
    assert told(do("stats"), Exit.USAGE)[2] == "scripts/crawl status"
    assert "  scripts/crawl add words.csv" in do("add", "--help").out
    assert "Example: scripts/crawl prompt show study-notes" in do("prompt", "show", "-h").out
    script = Path(__file__).parents[2] / "scripts" / "crawl"
    assert 'export CRAWLER_PROGRAM="$0"' in script.read_text()


@pytest.mark.parametrize(
    ("typed", "meant"), [("-concurrency", "--concurrency"), ("-per-minute=5", "--per-minute")]
)
def test_an_option_with_one_dash_is_told_with_two(do, typed, meant):
    _, cause, _ = told(do("run", typed, "5"), Exit.USAGE)
    assert cause == f"there is no option {meant[1:]}; its name has two dashes: {meant}"


def test_on_a_narrow_terminal_no_word_is_broken_and_no_command(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    command = f"crawler prompt add p --template {'x' * 70} --provider local"
    tell_error(CrawlerError("what", "words of it, and again " * 9, command, Exit.USAGE))
    *lines, hint = terminal.getvalue().splitlines()
    assert hint == f"  hint: {command}"
    assert len(lines) > 3
    assert all(len(line) <= 60 and re.match(r"error: |  cause: |    ", line) for line in lines)
    assert " ".join(lines).split().count("again") == 9
    terminal.truncate(0)
    tell(f"{'so many words ' * 5}are left: crawler run --prompt {'x' * 20} --watch")
    *lines, command = terminal.getvalue().strip("\0").splitlines()
    assert command == f"    crawler run --prompt {'x' * 20} --watch"
    assert " ".join(map(str.strip, lines)) == f"{'so many words ' * 5}are left:"


def test_calls_in_flight_of_an_old_version_are_told():
    facts = {"pending": 0, "failed": 0, "cancelled": 0, "removed": 0, "stale": 5}
    old = Progress("p", 1, "scripted", "m", leased=5, succeeded=5, current=False, **facts)
    assert ": 5 succeeded, 5 in flight, and no longer asked" in prompt_line(old)
