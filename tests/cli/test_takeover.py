"""A new limit of a prompt is no way around what a person has set for the one before it."""

import pytest

from crawler.cli import retarget
from crawler.clock import wall_ms
from crawler.ledger.check import check
from crawler.storage.database import writing
from tests.program import crawler, rows

SET = (
    "SELECT concurrency, per_minute, tokens_per_minute, adaptive, paused_at_ms IS NOT NULL,"
    " paused_until_ms FROM limits WHERE name = ?"
)


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "c.db"
    ran = crawler("--db", path, *ADD, "--provider", "openai", "--model", "a")
    assert ran.code == 0, ran
    return path


ADD = ("prompt", "add", "p", "--template", "About {word}")


def by_command(db, provider, model):
    change = ("prompt", "edit", "p", "--provider", provider, "--model", model)
    assert crawler("--db", db, *change).code == 0


def by_run(db, provider, model):
    """Do what `run --provider --model` does before it asks anybody."""
    with writing(db, wall_ms()) as writer:
        for change in writer.run(retarget.changes, None, provider, model):
            writer.run(retarget.put_change, change)


def do(db, *args):
    assert crawler("--db", db, *args).code == 0


@pytest.mark.parametrize("change", [by_command, by_run])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("limit", "openai", "--per-minute", "60"), (None, 60, None, 1, 0, None)),
        (("limit", "openai/a", "--tokens-per-minute", "9000"), (None, None, 9000, 1, 0, None)),
        (("limit", "openai", "--fixed"), (None, None, None, 0, 0, None)),
        (("limit", "openai", "--concurrency", "3"), (3, None, None, 1, 0, None)),
        (("pause", "openai"), (None, None, None, 1, 1, None)),
        (("pause",), (None, None, None, 1, 1, None)),
    ],
)
def test_another_model_has_what_was_set(db, change, said, expected):
    do(db, *said)
    change(db, "openai", "b")
    assert rows(db, SET, "openai/b") == [expected]
    (why,) = rows(
        db,
        "SELECT why FROM limit_changes JOIN limits ON limits.id = limit_id"
        " WHERE name = 'openai/b' AND what = 'set' ORDER BY limit_changes.rowid DESC LIMIT 1",
    )[0]
    assert why.startswith("taken over from openai/a: ")
    with writing(db, wall_ms()) as writer:
        assert [finding for finding in writer.run(check) if finding.broken] == []


def test_a_pause_ends_when_it_would_have_ended(db):
    do(db, "pause", "openai", "--until", "2h")
    by_command(db, "openai", "b")
    ends = "SELECT paused_until_ms FROM limits ORDER BY id"
    (first,), (second,) = rows(db, ends)
    assert first == second is not None


def test_a_pause_that_is_over_is_not_taken_over(db):
    do(db, "pause", "openai")
    do(db, "resume", "openai")
    by_command(db, "openai", "b")
    assert rows(db, SET, "openai/b")[0][4:] == (0, None)
    assert rows(db, "SELECT why FROM limit_changes WHERE limit_id = 2") == []


@pytest.mark.parametrize("change", [by_command, by_run])
def test_another_provider_has_the_cap_and_its_own_concurrency(db, change):
    do(db, "limit", "openai", "--per-minute", "60", "--concurrency", "3")
    change(db, "scripted", "b")
    concurrency, *others = rows(db, SET, "scripted/b")[0]
    assert concurrency != 3
    assert others == [60, None, 1, 0, None]


def test_a_limit_that_is_there_stays_as_it_is(db):
    by_command(db, "openai", "b")
    do(db, "limit", "openai/b", "--per-minute", "60")
    by_command(db, "openai", "a")
    assert rows(db, SET, "openai/a")[0][1] is None


def test_a_limit_that_a_person_names_takes_nothing_over(db):
    do(db, "limit", "openai", "--per-minute", "60")
    options = ("--provider", "openai", "--model", "b", "--limit", "mine")
    assert crawler("--db", db, "prompt", "edit", "p", *options).code == 0
    assert rows(db, SET, "mine")[0][1] is None


def test_of_two_prompts_that_get_one_limit_each_brings_what_was_set(db):
    other = (
        "prompt",
        "add",
        "q",
        "--template",
        "Of {word}",
        "--provider",
        "openai",
        "--model",
        "z",
    )
    assert crawler("--db", db, *other).code == 0
    do(db, "limit", "openai/z", "--per-minute", "5")
    do(db, "pause", "openai/z")
    by_run(db, "scripted", "s")
    assert rows(db, SET, "scripted/s")[0][1] == 5
    assert rows(db, SET, "scripted/s")[0][4] == 1
