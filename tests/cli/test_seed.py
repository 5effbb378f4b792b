"""The list of words, written by a model: on record, asked on, read anew, added."""

import signal
import threading

import pytest

from crawler.cli.builtin import list_word, word_list
from crawler.cli.seed import _put_lister, _Seeding
from crawler.ledger.intake import current_prompt
from crawler.storage.database import writing
from crawler.template import Template
from tests.emulating import emulator
from tests.program import add_prompt, crawler, rows, told

TOPIC = "vocabulary words to study for the GMAT"


FAULTS = (
    "fish=safety",
    "moss=resource_exhausted",
    "trees=invalid_argument*1",
    "shrubs=invalid_argument*1",
    "herbs=safety*1",
)
"""What goes wrong with the lists of some topics: always, or the first time."""


@pytest.fixture(scope="module")
def emulated():
    with emulator(word_fault=list(FAULTS)) as running:
        yield running


@pytest.fixture
def db(tmp_path, monkeypatch, emulated):
    monkeypatch.setenv("VERTEX_EMULATOR_HOST", emulated.endpoint)
    path = tmp_path / "crawl.db"
    add_prompt(path, "notes", "Define {word}.", provider="vertex")
    return path


def seed(db, topic=TOPIC, *options):
    return crawler("--db", db, "seed", topic, "--prompt", "notes", *options)


def words_of(db, name):
    return [
        word
        for (word,) in rows(
            db,
            "SELECT words.text FROM requests JOIN words ON words.id = word_id"
            f" JOIN prompts ON prompts.id = prompt_id WHERE name = '{name}' ORDER BY words.id",
        )
    ]


def assert_sound(db):
    assert crawler("--db", db, "check").code == 0


def test_the_list_is_a_request_like_any_other_and_its_words_are_added(db, emulated):
    before = len(emulated.log())
    ran = seed(db)
    assert (ran.code, ran.out) == (0, "")
    words = words_of(db, "notes")
    assert len(words) > 10
    assert f"{len(words)} added to notes version 1" in ran.err
    [(text, state, attempts)] = rows(
        db,
        "SELECT text, state, attempts FROM requests JOIN words ON words.id = word_id"
        " JOIN prompts ON prompts.id = prompt_id WHERE name = 'word-list'",
    )
    assert (text, state, attempts) == (list_word(TOPIC, None, []).text, "succeeded", 1)
    assert len(emulated.log()) == before + 1
    assert_sound(db)


def test_a_second_time_it_is_read_and_not_paid_for(db, emulated):
    seed(db, TOPIC, "--count", "20")
    words, asked = words_of(db, "notes"), len(emulated.log())
    assert len(words) == 20
    ran = seed(db, TOPIC, "--count", "20")
    assert "0 added to notes version 1 (vertex, gemini-2.5-flash), 20 known already" in ran.err
    assert (words_of(db, "notes"), len(emulated.log())) == (words, asked)


def test_more_are_asked_for_from_where_the_list_ends(db, emulated):
    seed(db, TOPIC, "--count", "20")
    asked = len(emulated.log())
    seed(db, TOPIC, "--count", "35")
    words = words_of(db, "notes")
    assert (len(words), len(set(words))) == (35, 35)
    assert len(emulated.log()) == asked + 1
    parts = [list_word(TOPIC, 20, []), list_word(TOPIC, 15, words[:20])]
    assert words_of(db, "word-list") == [part.text for part in parts]


def test_a_list_that_was_cut_off_is_asked_on_and_half_a_word_is_none(db):
    ran = seed(db, TOPIC, "--param", "max_output_tokens=30", "--count", "30")
    assert ran.code == 0
    assert "cut off" not in ran.err, "half a word was asked for again"
    assert ran.err.count(" added to ") == 1
    whole = db.with_name("whole.db")
    add_prompt(whole, "notes", "Define {word}.", provider="vertex")
    seed(whole, TOPIC, "--count", "300")
    known = set(words_of(whole, "notes"))
    words = words_of(db, "notes")
    assert len(words) == 30
    assert set(words) <= known, "a word that the uncut list has not is half a word"
    assert len(words_of(db, "word-list")) > 1
    assert rows(db, "SELECT sum(truncated) > 1 FROM results WHERE prompt = 'word-list'") == [(1,)]


def test_a_model_that_goes_round_in_circles_is_not_asked_for_ever(db):
    ran = seed(db, TOPIC, "--count", "5000")
    assert ran.code == 0
    assert "of 5000: the model has no more" in ran.err
    assert "left out, repeated" in ran.err
    assert_sound(db)


def test_it_is_tried_again_under_the_limit(db):
    with emulator(per_minute=1, window_ms=1500) as busy:
        short = ["--param", "max_output_tokens=150", "--count", "200"]
        ran = seed(db, TOPIC, *short, "--endpoint", busy.endpoint)
        assert ran.code == 0, ran
        codes = [line["code"] for line in busy.log()]
    assert "RESOURCE_EXHAUSTED" in codes
    outcomes = rows(db, "SELECT outcome FROM attempts ORDER BY request_id, number")
    wanted = {"OK": "succeeded", "RESOURCE_EXHAUSTED": "throttled"}
    assert [outcome for (outcome,) in outcomes] == [wanted[code] for code in codes]
    assert rows(db, "SELECT max(failures) FROM requests") == [(0,)]
    assert len(words_of(db, "notes")) == 200


def test_an_answer_that_is_no_list_is_an_error_that_shows_where_to_look(tmp_path):
    db = tmp_path / "crawl.db"
    add_prompt(db, "notes", "Define {word}.")
    ran = seed(db, "anything that is long enough to be read as a sentence by everybody")
    assert ran.code == 3
    assert "there is no word in the answer" in ran.err
    assert len(words_of(db, "notes")) == 0
    [asked] = words_of(db, "word-list")
    assert f'crawler show "{asked}" shows it' in ran.err
    assert crawler("--db", db, "show", asked).code == 0


def test_bad_input_changes_nothing(db, tmp_path):
    assert told(seed(db, "  "), 2)[1] == "there is no topic"
    told(seed(db, TOPIC, "--count", "0"), 2)
    assert "temperature" in told(seed(db, TOPIC, "--param", "temprature=1"), 2)[1]
    assert "no provider" in told(seed(db, TOPIC, "--provider", "nobody"), 2)[0]
    assert "needs a model" in told(seed(db, TOPIC, "--provider", "openai"), 2)[0]
    assert "no prompt" in told(crawler("--db", db, "seed", TOPIC, "--prompt", "x"), 2)[0]
    add_prompt(db, "glossed", "Define {word}: {gloss}.", provider="vertex")
    what, cause, hint = told(crawler("--db", db, "seed", TOPIC, "--prompt", "glossed"), 2)
    assert "'glossed'" in what
    assert "gloss" in cause
    assert TOPIC not in what + cause
    assert hint.startswith("crawler add LIST.csv --prompt glossed")
    assert rows(db, "SELECT count(*) FROM words") == [(0,)]
    assert rows(db, "SELECT count(*) FROM attempts") == [(0,)]


def test_killed_in_the_middle_it_goes_on_where_it_was(db, forks):
    with emulator(latency_ms=300) as slow:
        options = ["--param", "max_output_tokens=30", "--count", "40", "--endpoint", slow.endpoint]
        running = forks.start(["--db", db, "seed", TOPIC, "--prompt", "notes", *options], {})
        with running.stderr:
            while not words_of(db, "notes"):
                assert running.poll() is None
            running.send_signal(signal.SIGKILL)
            assert running.wait(20) == -signal.SIGKILL
        assert 0 < len(words_of(db, "notes")) < 40
        ran = seed(db, TOPIC, *options)
        assert ran.code == 0, ran
        assert len(words_of(db, "notes")) == 40
        succeeded = rows(db, "SELECT count(*) FROM responses")[0][0]
        assert len(slow.log()) <= succeeded + 1, "but for the one in flight nothing was paid twice"
    assert_sound(db)


def test_an_emulator_is_told_what_goes_wrong_with_a_list_by_its_topic(db, emulated):
    before = len(emulated.log())
    assert seed(db, "fish").code == 3
    assert seed(db, "birds").code == 0
    assert [line["word"] for line in emulated.log()[before:]] == ["fish", "birds"]


def test_the_question_says_how_many_and_where_to_go_on():
    template = Template(word_list("vertex", "m", {}).template)
    first, later = list_word("birds", None, []), list_word("birds", 7, ["owl", "wren"])
    asked = template.render(first.text, first.fields).prompt
    assert asked.startswith("Write a list of birds.\n")
    assert "so far" not in asked
    asked_on = template.render(later.text, later.fields).prompt
    assert "Give 7 of them." in asked_on
    assert 'The list so far: owl, wren. Go on after "wren"' in asked_on
    others = [list_word("birds", 8, ["owl", "wren"]), list_word("birds", 7, ["wren"])]
    assert len({word.text for word in (first, later, *others)}) == 4
    assert all(word.text.startswith("list of birds #") for word in (first, later, *others))


def test_a_list_that_was_cut_off_is_asked_on_also_where_no_number_is_wanted(db, monkeypatch):
    monkeypatch.setattr("crawler.cli.seed.MOST_PARTS", 4)
    ran = seed(db, TOPIC, "--param", "max_output_tokens=30")
    assert ran.code == 0
    assert "stopped after 4 answers" in ran.err
    assert "1 left out, cut off" in ran.err, "of the last part alone"
    assert len(words_of(db, "word-list")) == 4
    assert len(words_of(db, "notes")) > 30


def test_a_topic_may_be_a_word_of_the_list_with_fields_of_its_own(db, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("word,gloss\nanimals,beasts\n", "utf-8")
    assert crawler("--db", db, "add", path, "--prompt", "notes").code == 0
    assert seed(db, "animals", "--count", "3").code == 0
    assert len(words_of(db, "notes")) == 1 + 3


def test_another_model_is_asked_for_as_many_as_are_wanted_now(db):
    seed(db, TOPIC, "--count", "3")
    ran = seed(db, TOPIC, "--count", "9", "--model", "gemini-2.5-pro")
    assert ran.code == 0, ran
    counts = rows(
        db, "SELECT model, json_extract(fields, '$.count') FROM results WHERE prompt = 'word-list'"
    )
    assert counts == [("gemini-2.5-flash", "3"), ("gemini-2.5-pro", "9")]


def test_another_model_for_the_words_writes_no_other_list(db, emulated):
    seed(db, TOPIC, "--count", "3")
    run = ("--db", db, "run", "--model", "gemini-2.5-pro")
    assert crawler(*run).code == 0
    lists = "SELECT version, model, succeeded FROM progress WHERE prompt = 'word-list'"
    assert rows(db, lists) == [(1, "gemini-2.5-flash", 1)]
    assert rows(db, "SELECT sum(succeeded) FROM progress WHERE prompt = 'notes'") == [(3,)]
    assert crawler(*run, "--prompt", "word-list").code == 0
    assert rows(db, lists) == [(1, "gemini-2.5-flash", 1), (2, "gemini-2.5-pro", 0)]


def test_who_writes_the_list_today_writes_the_next_one_too(db):
    """The current version of the prompt, though a newer one has written as well."""
    for model in ("first", "second", "first"):
        assert seed(db, TOPIC, "--model", model, "--count", "12").code == 0
    assert seed(db, "another topic", "--count", "12").err.startswith("first (vertex) lists")
    versions = "SELECT version, model, current FROM prompts WHERE name = 'word-list' ORDER BY 1"
    assert rows(db, versions) == [(1, "first", 1), (2, "second", 0)]


def test_a_topic_is_normalised_as_words_are(db):
    seed(db, "cafe\u0301 words", "--count", "3")
    ran = seed(db, "caf\u00e9 words", "--count", "3")
    assert "3 known already" in ran.err
    assert len(words_of(db, "word-list")) == 1


def seeding(db, topic, count):
    """Return what `crawler seed` has before it asks."""
    with writing(db, 1) as writer:
        target = writer.run(current_prompt, "notes")
        lister = writer.run(_put_lister, target, None, None, {})
    return _Seeding(db, topic, count, lister, target)


def asked_for(db):
    """Return how many words each part was asked for, and what became of it."""
    return rows(
        db,
        "SELECT json_extract(fields, '$.count'), state, attempts FROM requests"
        " JOIN words ON words.id = word_id JOIN prompts ON prompts.id = prompt_id"
        " WHERE name = 'word-list' ORDER BY words.id",
    )


def lister(db):
    """Return the model of the last list that was asked for."""
    return rows(db, "SELECT model FROM prompts WHERE name = 'word-list' AND current = 1")[0][0]


@pytest.mark.parametrize(("before", "topic"), [(True, "trees"), (False, "shrubs")])
def test_a_lister_that_never_listed_is_not_remembered(db, before, topic):
    if before:
        assert seed(db, "birds", "--count", "3", "--model", "gemini-2.5-pro").code == 0
    hint = seed(db, topic, "--model", "gemini-typo").err.splitlines()[-1]
    assert f"crawler seed {topic} --prompt notes asks anew" in hint
    assert "--model, --provider or --param" in hint
    ran = seed(db, topic, "--count", "3")
    assert ran.code == 0, ran
    assert lister(db) == ("gemini-2.5-pro" if before else "gemini-2.5-flash")
    assert_sound(db)


def test_a_lister_that_is_refused_stops_no_run(db, monkeypatch):
    crawler("--db", db, "add", "laconic", "--prompt", "notes")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    ran = seed(db, TOPIC, "--provider", "openai", "--model", "m")
    assert ran.code == 77, ran
    assert "OPENAI_API_KEY" in ran.err.splitlines()[-1]
    assert "--model, --provider or --param" in ran.err.splitlines()[-1]
    assert asked_for(db) == [(None, "cancelled", 0)]
    assert crawler("--db", db, "run").code == 0
    assert rows(db, "SELECT word FROM results") == [("laconic",)]


@pytest.mark.parametrize(("listed", "left"), [(True, "pending"), (False, "cancelled")])
def test_a_list_that_was_stopped_waits_only_for_who_has_listed(db, emulated, forks, listed, left):
    if listed:
        seed(db, "birds", "--count", "3")
    before = len(emulated.log())
    env = {"VERTEX_EMULATOR_HOST": emulated.endpoint}
    running = forks.start(["--db", db, "seed", "moss", "--prompt", "notes"], env)
    with running.stderr:
        while len(emulated.log()) == before:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait(20) == 75, rest
    assert rest.endswith("hint: crawler seed moss --prompt notes\n")
    assert asked_for(db)[-1][:2] == (None, left)


def test_a_part_that_failed_is_asked_for_as_many_as_are_wanted_now(db):
    assert seed(db, "herbs", "--count", "3").code == 3
    ran = seed(db, "herbs", "--count", "9")
    assert ran.code == 0, ran
    assert asked_for(db) == [("3", "failed", 1), ("9", "succeeded", 1)]
    assert len(words_of(db, "notes")) == 9
    # Of two that are the same part, the one with an answer is read.
    assert crawler("--db", db, "retry", "--prompt", "word-list").code == 0
    assert "5 known already" in seed(db, "herbs", "--count", "5").err
    assert asked_for(db) == [("3", "pending", 1), ("9", "succeeded", 1)]


def test_a_part_that_was_cancelled_is_asked_for_as_many_as_are_wanted_now(db):
    seeding(db, TOPIC, 3)._put(list_word(TOPIC, 3, []))
    assert crawler("--db", db, "cancel", "--all", "--prompt", "word-list").code == 0
    assert seed(db, TOPIC, "--count", "9").code == 0
    assert asked_for(db) == [("3", "cancelled", 0), ("9", "succeeded", 1)]


def test_a_part_that_is_waited_for_is_asked_once_whatever_is_missing_now(db):
    seeding(db, TOPIC, 3)._put(list_word(TOPIC, 3, []))
    assert seed(db, TOPIC, "--count", "9").code == 0
    assert asked_for(db) == [("3", "succeeded", 1), ("6", "succeeded", 1)]


def test_where_no_number_is_wanted_a_list_of_so_many_is_asked_on(db, emulated):
    seed(db, TOPIC, "--count", "3")
    before = len(emulated.log())
    assert "3 known already" in seed(db, TOPIC).err
    words = words_of(db, "notes")
    assert len(words) > 10
    assert asked_for(db) == [("3", "succeeded", 1), (None, "succeeded", 1)]
    assert f"{len(words)} known already" in seed(db, TOPIC).err
    assert len(emulated.log()) == before + 1, "and then the list has its end on record"


def test_two_that_want_the_same_list_at_once_ask_for_it_once(db):
    """However many each of them wants. In parallel, and often enough to be caught."""
    together = threading.Barrier(4)

    def seed_often(count):
        for n in range(10):
            one, part = seeding(db, f"topic {n}", count), list_word(f"topic {n}", count, [])
            together.wait(30)
            one._put(part)

    threads = [threading.Thread(target=seed_often, args=(count,)) for count in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked_for(db)) == 10
