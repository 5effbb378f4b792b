"""Tables out: each form is read back by a program that is not ours, and by `add`."""

import csv
import io
import json
import sys

import openpyxl
import pytest
from pyarrow import parquet

from crawler.cli.export_forms import columns, write_csv, write_parquet, write_workbook
from crawler.errors import Exit
from crawler.ledger.intake import Prompt
from crawler.ledger.results import Result
from tests.program import crawler, told

SCHEMA = {
    "type": "object",
    "properties": {
        "word": {"type": "string"},
        "level": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["word", "level", "tags"],
}
NAMES = ["word", "word_2", "level", "tags", "level_2", "state", "reason", "prompt", "version"]
WORDS = ["=SUM(A1)", "ice cream"]


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """A crawl of two words with a column of their own that is called as a field of the answer."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("list.csv").write_text('word,level\n=SUM(A1),"B2\nx"\nice cream,A1\n')
    tmp_path.joinpath("schema.json").write_text(json.dumps(SCHEMA))
    add = ("prompt", "add", "p", "--template", "{word}", "--provider", "scripted")
    assert crawler(*add, "--schema", "@schema.json").code == Exit.DONE
    assert crawler("add", "list.csv", "--prompt", "p").code == Exit.DONE
    assert crawler("run").code == Exit.DONE
    assert crawler("add", "late", "--prompt", "p").code == Exit.DONE
    return tmp_path


def exported(name, *args):
    ran = crawler("export", name, "--prompt", "p", *args)
    assert ran.code == Exit.DONE, ran
    assert ran.err.endswith("2 of 3 words have an answer\n")
    return ran


def answers():
    """Return the answers as they came."""
    ran = crawler("sql", "--jsonl", "select text from results order by word_id")
    return [json.loads(json.loads(line)["text"]) for line in ran.out.splitlines()]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("A.TSV", "\t")])
def test_text_tables(answered, name, separator):
    exported(name)
    with answered.joinpath(name).open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream, delimiter=separator)
    assert header[:9] == NAMES
    assert [row[0] for row in rows] == ["'=SUM(A1)", "ice cream"]
    assert [row[4] for row in rows] == ["B2\nx", "A1"]
    for row, answer in zip(rows, answers(), strict=True):
        assert (int(row[2]), json.loads(row[3])) == (answer["level"], answer["tags"])


def test_json(answered):
    exported("a.json")
    rows = json.loads(answered.joinpath("a.json").read_text("utf-8"))
    assert [row["word"] for row in rows] == WORDS
    assert [json.loads(row["text"]) for row in rows] == answers()
    assert crawler("add", "-n", "a.json", "--prompt", "p").err.startswith("0 of 2 would be added")


def test_json_of_nothing_is_an_empty_array(answered):
    assert (
        crawler("prompt", "add", "q", "--template", "{word}?", "--provider", "scripted").code == 0
    )
    assert crawler("export", "b.json", "--prompt", "q").code == Exit.DONE
    assert json.loads(answered.joinpath("b.json").read_text()) == []


def test_a_workbook_has_no_formula_and_each_cell(answered):
    exported("a.xlsx", "--all")
    sheet = openpyxl.load_workbook(answered / "a.xlsx").active
    header, *rows = sheet.iter_rows()
    assert [cell.value for cell in header][:9] == NAMES
    assert [row[0].value for row in rows] == [*WORDS, "late"]
    assert {cell.data_type for row in rows for cell in row} <= {"s", "n"}
    assert [row[2].value for row in rows] == [*(answer["level"] for answer in answers()), None]


def test_what_a_cell_of_a_workbook_has_no_room_for_is_told(answered):
    answered.joinpath("long.csv").write_text("word,level\nlong," + "x" * 40_000 + "\nbell,\a\n")
    assert crawler("add", "long.csv", "--prompt", "p").code == Exit.DONE
    assert crawler("run").code == Exit.DONE
    ran = crawler("export", "a.xlsx", "--prompt", "p")
    assert "1 cell cut at 32,767 characters" in ran.err
    sheet = openpyxl.load_workbook(answered / "a.xlsx").active
    levels = {row[0].value: row[4].value for row in sheet.iter_rows(min_row=2)}
    assert (len(levels["long"]), levels["bell"]) == (32_767, "\\x07")


def test_a_sheet_has_so_many_rows(answered, monkeypatch):
    monkeypatch.setattr("crawler.cli.export_forms.MOST_ROWS", 2)
    exported("full.xlsx")
    told(crawler("export", "more.xlsx", "--all", "--prompt", "p"), Exit.USAGE)
    assert not list(answered.glob("*more*"))


def test_a_parquet_file(answered):
    exported("a.parquet")
    table = parquet.read_table(answered / "a.parquet").to_pydict()
    assert list(table)[:9] == NAMES
    assert table["word"] == WORDS
    assert table["level"] == [str(answer["level"]) for answer in answers()]
    assert table["attempts"] == [1, 1]


def test_a_column_of_the_list_that_is_called_like_one_of_ours_is_text(answered):
    answered.joinpath("own.csv").write_text("word,attempts,version\nbell,many,first\n")
    assert crawler("add", "own.csv", "--prompt", "p").code == Exit.DONE
    assert crawler("export", "a.parquet", "--prompt", "p", "--all").code == Exit.DONE
    table = parquet.read_table(answered / "a.parquet").to_pydict()
    assert (table["attempts"][-1], table["version"][-1]) == ("many", "first")
    assert (table["attempts_2"][-1], table["version_2"][-1]) == (0, 1)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.xlsx", "a.parquet", "a.json"])
def test_add_reads_what_export_writes(answered, name):
    exported(name)
    ran = crawler("--db", "other.db", "add", "-n", name)
    assert ran.code == Exit.DONE, ran
    assert "2 of 2 would be added" in ran.err


@pytest.mark.parametrize(
    "args",
    [("a.txt",), ("a",), ("a.csv", "--format", "xlsx"), ("-o", "a.xls"), ("a.csv", "-o", "b.csv")],
)
def test_a_name_that_tells_no_form_or_another_is_refused(answered, args):
    told(crawler("export", *args, "--prompt", "p"), Exit.USAGE)
    assert not list(answered.glob("a*"))


def test_a_switch_gives_a_name_without_a_suffix_its_form(answered):
    exported("notes", "--format", "jsonl")
    assert len(answered.joinpath("notes").read_text().splitlines()) == 2


@pytest.mark.parametrize(("form", "package"), [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
def test_a_package_that_is_missing_is_named_and_no_file_is_left(
    answered, monkeypatch, form, package
):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    what, cause, hint = told(crawler("export", f"a.{form}", "--prompt", "p"), Exit.CONFIGURATION)
    assert what == f"a.{form} can't be written: a package is missing"
    assert cause == f"{package} is not installed"
    assert f"quotacrawl[{form}]" in hint
    assert not [*answered.glob("a.*"), *answered.glob(".a.*")]


def test_names_of_columns_differ_also_where_case_does_not_count():
    properties = {"Word": {}, "TEXT": {}, "level": {}}
    params = {"response_schema": {"type": "object", "properties": properties}}
    prompt = Prompt(1, "p", 1, "{word}", "scripted", "m", params, "one", current=True)
    names = [column.name for column in columns(prompt, ["Level", "STATE", "level_2"])]
    assert len({name.casefold() for name in names}) == len(names)
    assert names[:6] == ["word", "Word_2", "TEXT", "level", "Level_2", "STATE"]


def test_each_kind_of_a_field_is_written_as_json_has_it():
    """But for a text, which is itself, for null, which is nothing, and for numbers of a sheet."""
    answer = {
        "yes": True, "no": False, "none": None, "zero": 0, "half": 0.5, "text": "True",
        "empty": "", "list": [True, "ä"], "object": {"a": None},
    }  # fmt: skip
    shown = ["true", "false", "", "0", "0.5", "True", "", '[true, "ä"]', '{"a": null}']
    properties = {name: {} for name in answer}
    params = {"response_schema": {"type": "object", "properties": properties}}
    prompt = Prompt(1, "p", 1, "{word}", "scripted", "m", params, "one", current=True)
    facts = {**dict.fromkeys(Result._fields), "word": "a", "text": json.dumps(answer), "fields": {}}
    rows = [Result(**facts)]
    table = columns(prompt, [])[1:10]
    assert [column.name for column in table] == list(answer)

    text = io.StringIO()
    write_csv(text, rows, table)
    text.seek(0)
    assert list(csv.reader(text))[1] == shown

    binary = io.BytesIO()
    write_parquet(binary, rows, table, "a.parquet")
    nothing = {2: None}  # of the order in the answer
    assert [column[0] for column in parquet.read_table(binary).to_pydict().values()] == [
        nothing.get(n, one) for n, one in enumerate(shown)
    ]

    binary = io.BytesIO()
    write_workbook(binary, rows, table, "a.xlsx")
    cells = list(openpyxl.load_workbook(binary).active.iter_rows(values_only=True))[1]
    numbers = {2: None, 3: 0, 4: 0.5, 6: None}
    assert list(cells) == [numbers.get(n, one) for n, one in enumerate(shown)]
