"""Views of prompts whose answers have fields: what they show, what they are called, and that no
name of a field is more than a name."""

import asyncio
import json
import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawler import crawl
from crawler.cli.export_forms import columns as export_columns
from crawler.errors import CrawlerError, Exit
from crawler.ledger import intake
from crawler.ledger.prompt_views import put_view, view_name
from crawler.ledger.standing import ask_again
from crawler.protocol import Call, ProviderError, Word
from crawler.providers.answers.check import examine
from crawler.providers.function import Function
from crawler.providers.scripted import Script
from crawler.states import Outcome
from crawler.storage.database import SETTINGS
from crawler.storage.upgrade import migrate
from tests.conftest import LONG
from tests.program import crawler, told

NOTES = {"type": "object", "properties": {"mnemonic": {"type": "string"}, "definition": {}}}


def put(ledger, name, schema=None, model="m"):
    """Make a prompt, with a schema or without one, the current one of its name."""
    params = {} if schema is None else {"response_schema": schema}
    spec = intake.PromptSpec(name, "About {word}", "scripted", model, params)
    ledger.prompt, _ = intake.put_prompt(ledger.conn, spec, ledger.limit_id, ledger.now_ms)
    return ledger.prompt


def answer(ledger, word, text):
    """Have a word of the current prompt answered."""
    ledger.add([word])
    [lease] = ledger.turn().leases
    ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED, text=text))


def view_names(ledger):
    rows = ledger.conn.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")
    return {name for (name,) in rows} - {
        "results",
        "failures",
        "progress",
        "request_details",
        "list_details",
        "throughput_per_minute",
        "limit_history",
    }


def columns(ledger, view):
    return [row[1] for row in ledger.conn.execute(f'PRAGMA table_info("{view}")')]


OTHERS = ["text", "model", "version", "finished_at", "word_id", "request_id"]


def test_fields_are_columns_in_the_order_of_the_schema(ledger):
    put(ledger, "study-notes", NOTES)
    answer(ledger, "abate", '{"definition": "to lessen", "mnemonic": "a bait", "more": 1}')
    answer(ledger, "zeal", '{"definition": null}')
    assert columns(ledger, "study_notes") == ["word", "mnemonic", "definition", *OTHERS]
    rows = ledger.conn.execute("SELECT word, definition, mnemonic, version FROM study_notes")
    assert rows.fetchall() == [("abate", "to lessen", "a bait", 1), ("zeal", None, None, 1)]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('"text"', "text"),
        ('""', ""),
        (r'"d\u00e9j\u00e0\n\"vu\""', 'déjà\n"vu"'),
        ("12", 12),
        ("-0.5e1", -5.0),
        ("true", 1),
        ("false", 0),
        ("null", None),
        ('[1, {"a": "b"}]', '[1,{"a":"b"}]'),
        ('{"a": [ ]}', '{"a":[]}'),
    ],
)
def test_a_value_is_what_sql_makes_of_json(ledger, said, shown):
    put(ledger, "p", {"type": "object", "properties": {"x": {}}})
    answer(ledger, "w", f'{{"y": 0, "x": {said}}}')
    assert ledger.row("SELECT x FROM p") == (shown,)


def test_a_name_that_is_written_with_escapes_is_the_same_name(ledger):
    put(ledger, "p", {"type": "object", "properties": {"né": {}}})
    answer(ledger, "w", r'{"n\u00e9": "x"}')
    assert ledger.row('SELECT "né" FROM p') == ("x",)


def test_the_word_is_that_of_the_list_and_of_names_that_are_alike_the_later_gets_a_number(ledger):
    names = ["Word", "TEXT", "request_id"]
    put(ledger, "p", {"type": "object", "properties": {name: {} for name in names}})
    answer(ledger, "cat", '{"Word": "dog", "TEXT": "t", "request_id": "r"}')
    assert columns(ledger, "p") == [
        *("word", "Word_2", "TEXT", "request_id"),
        *("text_2", "model", "version", "finished_at", "word_id", "request_id_2"),
    ]
    assert ledger.row("SELECT word, word_2, text, request_id FROM p") == ("cat", "dog", "t", "r")


def test_a_view_follows_the_current_version(ledger):
    put(ledger, "q", NOTES)
    answer(ledger, "abate", '{"definition": "old"}')
    put(ledger, "q", {"type": "object", "properties": {"gloss": {}}})
    assert ledger.conn.execute("SELECT * FROM q").fetchall() == [], "it has no such field"
    ask_again(ledger.conn, ledger.prompt.id, [1])
    answer(ledger, "abate", '{"gloss": "new"}')
    assert ledger.conn.execute("SELECT word, gloss, version FROM q").fetchall() == [
        ("abate", "new", 2)
    ]
    put(ledger, "q", NOTES)
    assert ledger.conn.execute("SELECT definition, version FROM q").fetchall() == [("old", 1)]
    put(ledger, "q")
    assert view_names(ledger) == set()
    assert ledger.row("SELECT count(*) FROM prompt_views") == (0,)


def test_a_view_shows_the_answers_of_all_versions_with_its_schema(ledger):
    put(ledger, "q", NOTES)
    answer(ledger, "abate", '{"definition": "old"}')
    put(ledger, "q", NOTES, model="m2")
    answer(ledger, "zeal", '{"definition": "new"}')
    shown = "SELECT word, definition, version, model FROM q"
    assert ledger.conn.execute(shown).fetchall() == [
        ("abate", "old", 1, "m"),
        ("zeal", "new", 2, "m2"),
    ]


def test_another_order_of_properties_is_another_version(ledger):
    turned = {**NOTES, "properties": dict(reversed(NOTES["properties"].items()))}
    assert put(ledger, "q", NOTES).version == 1
    assert put(ledger, "q", {"properties": NOTES["properties"], "type": "object"}).version == 2
    assert put(ledger, "q", turned).version == 3
    assert columns(ledger, "q")[1:3] == ["definition", "mnemonic"]
    assert put(ledger, "q", NOTES).version == 1


@pytest.mark.parametrize(
    ("prompt", "view"),
    [
        ("study-notes", "study_notes"),
        ("Notes, in 2 lines!", "Notes_in_2_lines_"),
        ("2nd try", "_2nd_try"),
        ("日本", "_"),
        ('a"; DROP TABLE words; --', "a_DROP_TABLE_words_"),
        ("select", "select"),
    ],
)
def test_a_view_is_called_like_its_prompt(ledger, prompt, view):
    assert view_name(prompt) == view
    put(ledger, prompt, NOTES)
    assert view_names(ledger) == {view}
    answer(ledger, "w", '{"definition": "d"}')
    assert ledger.row(f'SELECT definition FROM "{view}"') == ("d",)


@pytest.mark.parametrize(
    "name",
    [
        "results",
        "WORDS",
        "prompt-views",
        "requests_fresh",  # an index
        "requests-insert",  # a trigger
        "sqlite_x",
        "json-each",  # else no view would find its fields
        "pragma table_info",
        "Study_Notes",
    ],
)
def test_a_name_that_is_taken_is_refused_and_nothing_changes(ledger, name):
    put(ledger, "study-notes", NOTES)
    before = list(ledger.conn.iterdump())
    ledger.conn.execute("BEGIN")
    with pytest.raises(CrawlerError, match="can't have a response_schema") as error:
        put(ledger, name, NOTES)
    ledger.conn.execute("ROLLBACK")
    assert error.value.hint == "give the prompt another name"
    assert list(ledger.conn.iterdump()) == before
    put(ledger, name)  # without fields it needs no view
    assert view_names(ledger) == {"study_notes"}


def test_a_refused_view_leaves_the_one_that_there_is(ledger):
    put(ledger, "study-notes", NOTES)
    before = ledger.row("SELECT sql FROM sqlite_schema WHERE name = 'study_notes'")
    with pytest.raises(CrawlerError):
        put_view(ledger.conn, "study-notes", 7, {"response_schema": {"type": "object"}})
    with pytest.raises(CrawlerError):
        put_view(ledger.conn, "study_notes", 7, {"response_schema": NOTES})
    assert ledger.row("SELECT sql FROM sqlite_schema WHERE name = 'study_notes'") == before


def test_a_view_that_somebody_has_dropped_is_made_again(ledger):
    put(ledger, "p", NOTES)
    ledger.conn.execute("DROP VIEW p")
    put(ledger, "p", NOTES)
    assert view_names(ledger) == {"p"}


class TestProgram:
    """The same, as a user comes by it."""

    SCHEMA = json.dumps(NOTES)

    @pytest.fixture
    def add(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        spec = ["--template", "About {word}", "--provider", "scripted"]
        return lambda name, *args: crawler("prompt", "add", name, *spec, *args)

    def test_a_schema_in_a_file_is_columns_of_the_answers(self, add, tmp_path):
        (tmp_path / "notes.json").write_text(self.SCHEMA)
        assert add("study-notes", "--schema", "@notes.json").code == Exit.DONE
        crawler("add", "abate", "--prompt", "study-notes")
        assert crawler("run").code == Exit.DONE
        ran = crawler("sql", "--json", "select * from study_notes")
        [row] = json.loads(ran.out)
        assert list(row) == ["word", "mnemonic", "definition", *OTHERS]
        assert row["word"] == "abate"
        assert row["definition"].startswith("a word that the script knows")

    def test_a_schema_may_be_a_parameter_and_is_the_same(self, add):
        assert add("p", "--schema", self.SCHEMA).err == "p version 1 added\n"
        assert add("p", "--param", f"response_schema={self.SCHEMA}").err == (
            "p version 1 is the current one\n"
        )

    @pytest.mark.parametrize(
        ("args", "what"),
        [
            (["--schema", "{"], "the schema is not JSON"),
            (["--schema", "[" * 100_000], "the schema is not JSON"),
            (["--schema", "@none.json"], "the schema none.json can't be read"),
            (["--schema", "[]"], "the response_schema can't be used"),
            (["--param", "response_schema={"], "the response_schema can't be used"),
            (
                ["--param", 'response_schema={"type": "object"}'],
                "the response_schema can't be used",
            ),
        ],
    )
    def test_a_schema_that_is_none_is_told_at_once(self, add, tmp_path, args, what):
        assert told(add("p", *args), Exit.USAGE)[0] == what
        assert not list(tmp_path.iterdir())

    def test_one_schema_is_enough(self, add):
        ran = add("p", "--schema", self.SCHEMA, "--param", f"response_schema={self.SCHEMA}")
        assert ran.code == Exit.USAGE
        assert "say the same" in ran.err

    def test_a_name_that_is_taken_is_told_and_the_prompt_is_not_added(self, add):
        told(add("results", "--schema", self.SCHEMA), Exit.USAGE)
        assert "results" not in crawler("prompt", "list").out

    def test_another_model_keeps_the_view(self, add):
        add("p", "--schema", self.SCHEMA)
        crawler("add", "abate", "--prompt", "p")
        assert crawler("run", "--model", "other").code == Exit.DONE
        assert crawler("sql", "--csv", "select word, model, version from p").out == (
            "word,model,version\nabate,other,2\n"
        )


def test_a_script_answers_what_any_schema_asks_for():
    everything = {
        "text": {"type": "STRING"},
        "choice": {"type": "string", "enum": ["first", "second"]},
        "number": {"type": "number"},
        "whole": {"type": ["integer", "null"]},
        "flag": {"type": "boolean"},
        "none": {"type": "null"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {}, "b": True}}},
        "tuple": {"type": "array", "items": False},
        "bare": {"type": "object"},
        "any": {},
    }
    schema = {"type": "object", "properties": everything, "required": list(everything)}
    params = {"response_schema": schema, "words": 3}
    call = Call(1, 1, "abate", "scripted", "m", "p", '{"', params, 1_000)
    text = asyncio.run(Script().generate(call)).text
    assert examine(params, "abate", text) == (text, None)
    assert json.loads(text)["list"] == [{"a": "a word that", "b": "a word that"}]
    json_only = call._replace(params={"response_mime_type": "application/json"})
    assert json.loads(asyncio.run(Script().generate(json_only)).text).keys() == {"text"}


def test_a_function_may_answer_in_json_and_what_is_none_is_asked_for_again():
    said = iter(['```\n{"definition": "d"}\n```', "no JSON"])

    async def ask(prompt):
        return next(said)

    call = Call(1, 1, "w", "function", "m", "p", "", {"response_schema": NOTES}, 1_000)
    assert asyncio.run(Function(ask).generate(call)).text == '{"definition": "d"}'
    with pytest.raises(ProviderError, match="is not JSON") as error:
        asyncio.run(Function(ask).generate(call))
    assert error.value.outcome is Outcome.TRANSIENT
    assert error.value.answer.text == "no JSON"


def test_the_python_api_takes_a_schema_and_refuses_what_is_none(tmp_path):
    path = tmp_path / "x.db"

    def do(schema):
        params = {"response_schema": schema}
        return asyncio.run(
            crawl(["abate"], provider="scripted", params=params, database=path, name="notes")
        )

    with pytest.raises(CrawlerError, match="the response_schema can't be used"):
        do({"type": "object"})
    assert not path.exists()
    [result] = do(NOTES)
    assert json.loads(result.text).keys() == {"mnemonic", "definition"}


@pytest.mark.parametrize("trusted", ["ON", "OFF"])
def test_a_view_can_be_read_whoever_opens_the_file(ledger, trusted):
    put(ledger, "p", NOTES)
    answer(ledger, "abate", '{"definition": "d"}')
    ledger.conn.execute(f"PRAGMA trusted_schema = {trusted}")
    assert ledger.row("SELECT definition FROM p WHERE word = 'abate'") == ("d",)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE attempts ADD COLUMN new INTEGER NOT NULL DEFAULT 0 CHECK (new IN (0, 1))",
        "ALTER TABLE responses ADD COLUMN new TEXT",
        "ALTER TABLE words RENAME COLUMN text TO spelling",
        "ALTER TABLE drafts RENAME TO sketches",
        "DROP VIEW results",
    ],
)
def test_a_migration_can_change_tables_beneath_a_view(ledger, change):
    assert "PRAGMA trusted_schema = OFF" in SETTINGS
    put(ledger, "p", NOTES)
    answer(ledger, "abate", '{"definition": "d"}')
    ledger.conn.execute(change)
    assert ledger.row("SELECT word, definition FROM p") == ("abate", "d")


def test_the_most_fields_that_there_may_be_can_be_read(ledger):
    names = [f"f{n}" for n in range(1_000)]
    put(ledger, "p", {"type": "object", "properties": {name: {} for name in names}})
    answer(ledger, "w", json.dumps(dict.fromkeys(names, "x")))
    assert ledger.row("SELECT * FROM p")[1:1_001] == ("x",) * 1_000


hostile = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab\"'`[];-$. \0\n", max_size=8),
    st.sampled_from(
        ["word", "text", "a'; DROP TABLE words; --", 'a") FROM words; --', "$.a", "?1"]
    ),
)


@given(values=st.dictionaries(hostile, st.text(), min_size=1, max_size=6), name=hostile)
@example(values={"\ud800": ""}, name="p")
@example(values={"a": "", "A": ""}, name="p")
@example(values={"True": ""}, name="p")
@example(values={'"': "1", "'": "2", "''": "3"}, name='"')
@settings(max_examples=settings().max_examples if LONG else 30)
def test_any_name_of_a_field_works_or_is_refused(values, name):
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn, 1)
    tables = conn.execute("SELECT name, sql FROM sqlite_schema").fetchall()
    schema = {"type": "object", "properties": {field: {} for field in values}}
    try:
        put_view(conn, name, 1, {"response_schema": schema})
    except CrawlerError:
        assert conn.execute("SELECT name, sql FROM sqlite_schema").fetchall() == tables
        return
    made = dict(conn.execute("SELECT name, sql FROM sqlite_schema").fetchall())
    assert made.keys() - dict(tables).keys() == {view_name(name)}
    shown = [row[1] for row in conn.execute(f'PRAGMA table_info("{view_name(name)}")')]
    assert shown[0] == "word"
    assert {field for field in values if field.lower() != "word"} <= set(shown)
    conn.close()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    text=st.one_of(
        st.builds(
            lambda value, ascii_: json.dumps({"x": value}, ensure_ascii=ascii_),
            values,
            st.booleans(),
        ),
        st.text(alphabet='{}[]",:x0123.eE+-\\u truefalsnNaI\n\0\ufeff', max_size=30),
    )
)
@example(text='{"x": NaN}')
@example(text='{"x": 1e999}')
@example(text='{"x": 1, "x": 2}')
@example(text=r'{"x": "a\u0000b"}')
@example(text=r'{"x": "\ud83d\ude00"}')
@example(text=r'{"x": "\ud83d"}')
@example(text='{"x": ' + "[" * 99 + "]" * 99 + "}")
@example(text='{"x": ' + "9" * 400 + "}")
def test_what_is_taken_for_an_answer_can_be_read_by_sql(text):
    kept, fault = examine(
        {"response_schema": {"type": "object", "properties": {"x": {}}}}, "", text
    )
    if fault is not None:
        return
    conn = sqlite3.connect(":memory:")
    said = json.loads(kept).get("x")
    (shown,) = conn.execute(
        "SELECT (SELECT value FROM json_each(?) WHERE key = 'x')", (kept,)
    ).fetchone()
    conn.close()
    if isinstance(said, list | dict):
        assert json.loads(shown) == said
    else:
        assert shown == said or shown == float(said)


def add(ledger, *words):
    """Add words with fields to the current prompt."""
    listed = [Word(text, fields) for text, fields in words]
    intake.add_words(ledger.conn, ledger.prompt.id, listed, ledger.now_ms)


def test_the_columns_of_a_list_stand_beside_the_answers(ledger):
    put(ledger, "gloss", {"type": "object", "properties": {"difficulty": {}, "level": {}}})
    add(ledger, ("abate", {"Level": "B2", "Part of speech": "verb"}), ("zeal", {}))
    listed = ["Level_2", "Part of speech"]
    assert columns(ledger, "gloss") == ["word", "difficulty", "level", *listed, *OTHERS]
    exported = [column.name for column in export_columns(ledger.prompt, ["Level", listed[1]])]
    assert exported[:5] == columns(ledger, "gloss")[:5]
    for lease in ledger.turn().leases:
        said = '{"difficulty": 3, "level": "C1"}'
        ledger.turn(ledger.finish(lease, Outcome.SUCCEEDED, text=said), budget=0)
    found = ledger.conn.execute('SELECT word, level, "Part of speech" FROM gloss').fetchall()
    assert ledger.conn.execute("SELECT level_2 FROM gloss").fetchall() == [("B2",), (None,)]
    assert found == [("abate", "C1", "verb"), ("zeal", "C1", None)], "an answer comes first"
    averages = 'SELECT "Part of speech", avg(difficulty) FROM gloss GROUP BY 1 ORDER BY 1'
    assert ledger.conn.execute(averages).fetchall() == [(None, 3.0), ("verb", 3.0)]


def test_columns_that_come_later_are_shown_too_also_of_a_prompt_that_gets_a_schema(ledger):
    put(ledger, "p")
    add(ledger, ("a", {"level": "B1"}))
    put(ledger, "other", NOTES)
    add(ledger, ("x", {"price": "3"}))
    put(ledger, "p", NOTES)
    assert columns(ledger, "p")[3:4] == ["level"]
    add(ledger, ("b", {"topic": "law", "level": "C1"}))
    assert columns(ledger, "p")[3:5] == ["level", "topic"]
    assert columns(ledger, "other")[3:4] == ["price"], "each has its own"
    before = ledger.row("PRAGMA schema_version")
    add(ledger, ("c", {"level": "B2"}))
    assert ledger.row("PRAGMA schema_version") == before, "and nothing is made again for nothing"


def test_a_column_that_no_view_can_have_stays_out_of_it(ledger):
    put(ledger, "p", NOTES)
    add(ledger, ("a", {"a\0b": "1", "level": "B2"}))
    assert columns(ledger, "p") == ["word", "mnemonic", "definition", "level", *OTHERS]


def test_a_list_of_a_thousand_columns_is_added(ledger):
    put(ledger, "p", NOTES)
    add(ledger, ("a", {f"c{n}": "1" for n in range(1_000)}))
    add(ledger, ("b", {f"d{n}": "1" for n in range(1_000)}))
    assert ledger.row("SELECT count(*) FROM p") == (0,)
    assert len(columns(ledger, "p")) == 3 + 500 + len(OTHERS)
