"""A file that somebody else made is read freely, and written to once a person has trusted it."""

import asyncio
import json
import os
import socket
import sqlite3

import pytest

from crawler import crawl
from crawler.errors import CrawlerError, Exit
from crawler.storage import ownership
from crawler.storage.ownership import login
from crawler.storage.upgrade import APPLICATION_ID, migrations
from tests.program import add_prompt, crawler, rows, state_of, told

READS = [
    ("status",),
    ("show", "a"),
    ("sql", "SELECT 1"),
    ("export", "--prompt", "p"),
    ("check",),
    ("limit",),
    ("prompt", "list"),
    ("add", "new", "--prompt", "p", "--dry-run"),
]
WRITES = [
    ("run", "--limit", "1"),
    ("ask", "a", "--prompt", "p"),
    ("seed", "fish", "--prompt", "p"),
    ("add", "new", "--prompt", "p"),
    ("prompt", "add", "q", "--template", "{word}", "--provider", "scripted"),
    ("retry",),
    ("cancel", "a"),
    ("pause",),
    ("resume",),
    ("limit", "scripted/scripted", "--per-minute", "9"),
    ("check", "--repair"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "c.db"
    add_prompt(path, "p", "{word}")
    assert crawler("--db", path, "add", "a", "b", "--prompt", "p").code == Exit.DONE
    return path.read_bytes()


@pytest.fixture
def ours(tmp_path, good):
    path = tmp_path / "c.db"
    path.write_bytes(good)
    path.chmod(0o600)
    return path


def change(path, script):
    conn = sqlite3.connect(path)
    conn.executescript(script)
    conn.close()


def by_another(path):
    change(path, "UPDATE owners SET user = 'mallory', host = 'hers'")


def owned_by_another(path):
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    os.chown(path, 65_534, 65_534)


def by_nobody(path):
    change(path, "DELETE FROM owners")


@pytest.mark.parametrize(
    ("give", "whose", "writes"),
    [
        (by_another, "was made by mallory on hers", WRITES),
        (owned_by_another, "belongs to ", WRITES[:1]),
        (by_nobody, "does not say who made it", WRITES[:1]),
    ],
)
def test_a_file_of_somebody_else_is_read_and_not_written_to(ours, give, whose, writes):
    give(ours)
    before = state_of(ours.parent)
    for command in READS:
        assert crawler("--db", ours, *command).code == Exit.DONE, command
        assert state_of(ours.parent) == before
    for command in writes:
        what, cause, hint = told(crawler("--db", ours, *command), Exit.CONFIGURATION)
        assert what.startswith(f"{ours} {whose}"), command
        assert "scripted (scripted) would be asked about 2 words" in cause
        assert "the same command with --trust" in hint
        assert [row for row in state_of(ours.parent).items() if row[0] != "c.db-lock"] == [
            row for row in before.items() if row[0] != "c.db-lock"
        ], command


def test_a_program_asks_nothing_for_it_either(ours):
    by_another(ours)
    before = state_of(ours.parent)
    with pytest.raises(CrawlerError, match="was made by mallory"):
        asyncio.run(crawl(["a"], provider="scripted", database=ours))
    assert {**state_of(ours.parent), "c.db-lock": 0} == {**before, "c.db-lock": 0}


@pytest.mark.parametrize(
    ("give", "command"),
    [
        *[(by_another, command) for command in WRITES[3:]],
        (owned_by_another, WRITES[3]),
        (by_nobody, WRITES[3]),
    ],
)
def test_trust_is_said_once(ours, give, command):
    give(ours)
    ran = crawler("--db", ours, *command, "--trust")
    assert ran.code == Exit.DONE, ran
    assert f"{ours} " in ran.err
    assert "and you trust it: scripted (scripted) would be asked about 2 words" in ran.err
    trusted = (login(), socket.gethostname(), "trusted")
    assert trusted in rows(ours, "SELECT user, host, how FROM owners")
    again = crawler("--db", ours, "add", "one more", "--prompt", "p")
    assert (again.code, again.err) == (Exit.DONE, "1 added to p version 1 (scripted, scripted)\n")


def test_who_else_has_trusted_a_file_counts_for_nothing(ours):
    change(
        ours,
        "UPDATE owners SET user = 'mallory'; INSERT INTO owners VALUES"
        " ('alice', 'hers', 'trusted', 2, 0), ('bob', 'his', 'moved', 3, 0)",
    )
    told(crawler("--db", ours, "add", "new", "--prompt", "p"), Exit.CONFIGURATION)


def test_whom_it_would_ask_and_what_it_would_send_is_told(ours):
    spec = ("--template", "{word}", "--provider", "openai", "--model", "dear")
    headers = 'headers={"X-Mine": "$AWS_SECRET_ACCESS_KEY", "X-Title": "$ 5"}'
    assert crawler("--db", ours, "prompt", "add", "q", *spec, "--param", headers).code == Exit.DONE
    assert crawler("--db", ours, "add", "x", "y", "z", "--prompt", "q").code == Exit.DONE
    by_another(ours)
    _, cause, _ = told(crawler("--db", ours, "run"), Exit.CONFIGURATION)
    assert cause == (
        "with your keys, and at your cost, openai would be sent $AWS_SECRET_ACCESS_KEY;"
        " openai (dear) would be asked about 3 words; scripted (scripted) would be asked about 2"
        " words"
    )


def test_nothing_hides_what_would_be_sent(ours, monkeypatch):
    """Neither spelling, nor prompts that come first, nor long names, nor variables of no one."""
    monkeypatch.setenv("MY_SECRET", "x")
    spec = ("--template", "{word}", "--provider", "openai")
    for n in range(9):
        many = {f"X-{k}": f"$AAA_{n}_{k}" for k in range(9)}
        headers = ("--param", f"headers={json.dumps(many)}", "--model", f"m{n}" * 300)
        assert crawler("--db", ours, "prompt", "add", f"q{n}", *spec, *headers).code == Exit.DONE
        crawler("--db", ours, "add", "x", "y", "z", "--prompt", f"q{n}")
    headers = ("--param", 'headers={"X-T": "$MY_SECRET"}', "--model", "m")
    assert crawler("--db", ours, "prompt", "add", "last", *spec, *headers).code == Exit.DONE
    change(
        ours,
        "DROP TRIGGER prompts_are_immutable;"
        "UPDATE prompts SET params = replace(params, '$MY', '\\u0024MY') WHERE name = 'last'",
    )
    conn = sqlite3.connect(ours)
    told_of = ownership._asked(conn)
    conn.close()
    assert "\\u0024" not in told_of
    assert told_of.startswith("openai would be sent $MY_SECRET; ")
    assert len(told_of) < 1_000


def test_ones_own_file_from_another_machine_is_told_once(ours, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    for said in [f"{ours} is yours, from another machine ({HOST})\n", ""]:
        ran = crawler("--db", ours, "add", "a", "--prompt", "p")
        assert ran.code == Exit.DONE
        before, _, _ = ran.err.partition("0 added")
        assert before == said
    assert rows(ours, "SELECT user, host, how FROM owners") == [(login(), "laptop", "made")]


HOST = socket.gethostname()


def test_that_others_may_read_a_file_is_said_once(ours):
    ours.chmod(0o644)
    said = [crawler("--db", ours, "add", "a", "--prompt", "p").err for _ in range(2)]
    assert f"others may read {ours}, and all answers in it: chmod 600 {ours}\n" in said[0]
    assert "chmod" not in said[1]


RUN = (
    "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms)"
    " VALUES (1, '{}', '0', 1, 1);"
)
PROMPT = (
    "INSERT INTO limits (id, name) VALUES (1, 'l'); INSERT INTO prompts (name, version, template,"
    " provider, model, params, limit_id, current, created_at_ms)"
    " VALUES ('p', 1, '{word}', 'scripted', 'm', '{}', 1, 1, 1);"
)


@pytest.mark.parametrize(
    ("script", "is_own"),
    [
        (RUN.format(HOST) + PROMPT, True),
        (RUN.format("hers"), True),  # nobody can be asked for it
        (RUN.format("hers") + PROMPT, False),
        (PROMPT, False),
    ],
)
def test_a_file_from_before_who_made_it_was_recorded_is_known_by_its_runs(tmp_path, script, is_own):
    path = tmp_path / "c.db"
    make_of_version(path, ownership.RECORDED_SINCE - 1)
    change(path, script)
    ran = crawler("--db", path, "add", "a")
    if is_own:
        assert ran.code == Exit.DONE
        assert rows(path, "SELECT user, how FROM owners") == [(login(), "made")]
    else:
        assert told(ran, Exit.CONFIGURATION)[0].startswith(f"{path} does not say who made it")


def make_of_version(path, version):
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(
        "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
        " sha256 TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT"
    )
    conn.execute("PRAGMA synchronous = OFF")
    for known in migrations()[:version]:
        conn.executescript(f"BEGIN; {known.sql}; COMMIT")
        row = (known.version, known.name, known.sha256)
        conn.execute("INSERT INTO migrations VALUES (?, ?, ?, 1)", row)
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    conn.execute(f"PRAGMA user_version = {version}")
    conn.close()


def test_the_program_forgets_what_was_trusted(ours):
    for _ in range(2):
        by_nobody(ours)
        told(crawler("--db", ours, "resume"), Exit.CONFIGURATION)
        assert crawler("--db", ours, "resume", "--trust").code == Exit.DONE
