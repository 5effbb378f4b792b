"""Lists as Excel, pandas and people write them: what is in them counts, not their name."""

import datetime as dt
import gzip
import io

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.errors import CrawlerError, Exit
from crawler.lists.form import Reading
from crawler.lists.reading import read_list
from tests.program import crawler, crawler_process, told

TWO = ["abate", "abash"]


def listed(data, name="list.csv", **how):
    return read_list(
        io.BytesIO(data if isinstance(data, bytes) else data.encode()), name, Reading(**how)
    )


def texts(data, name="list.csv", **how):
    return [word.text for word in listed(data, name, **how).words]


def refused(data, name="list.csv", **how):
    with pytest.raises(CrawlerError) as error:
        listed(data, name, **how)
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(encoding):
    data = "word,level\ndéjà vu,1\n".encode(encoding)
    assert texts(data) == ["déjà vu"]
    assert texts(data, encoding="cp1252") == ["déjà vu"], "what is named is for files without one"


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-le"])
def test_an_encoding_can_be_named(encoding):
    assert texts("word\nœuvre\n".encode(encoding), encoding=encoding) == ["œuvre"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("word,level\ndéjà vu,1\n", "cp1252"),
        ("word\ncafé\n", "cp1252"),
        ("word\nnaïve\n“café”\nüber\n", "cp1252"),
        ("word\nслово\nпривет мир\nкнига\n", "cp1251"),
        ("word\nźdźbło\nżółw\nłąka\n", "cp1250"),
        ("word\nabate\nabash\n", "utf-16-le"),
        ("word\nabate\nabash\n", "utf-16-be"),
    ],
)
def test_the_error_names_the_encoding_that_is_likely(text, encoding):
    assert f"--encoding {encoding}" in refused(text.encode(encoding))


@pytest.mark.parametrize("encoding", ["nope", "zip", "ascii"])
def test_an_encoding_that_is_none_of_the_list_is_refused(encoding):
    assert "--encoding" in refused("word\né\n", encoding=encoding)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "word;level\nabate;1\nabash;2,5\n"),
        ("a.csv", "sep=;\nword;level\nabate;1\nabash;2\n"),
        ("a.csv", "sep=|\nword|level\nabate|1\nabash|2\n"),
        ("a.csv", "word\tlevel\nabate\t1\nabash\t2\n"),
        ("a.csv", 'hint;"word"\n"low; or\nlower";abate\n"";abash\n'),
        ("a.tsv", "word\tlevel\nabate\t1\nabash\t2\n"),
        ("a.tab", "level\tword\n1\tabate\n\tabash\n"),
        ("a.tsv", "word,level\nabate,1\nabash,2\n"),
        ("standard input", "word,level\nabate,1\nabash,2\n"),
        ("standard input", "level;Word\n1;abate\n2;abash\n"),
        ("standard input", "word\nabate\nabash\n"),
        ("standard input", " WORD\nabate\nabash\n"),
        ("words", "word\tlevel\nabate\t1\nabash\t2\n"),
        ("words.dat", "word|level\nabate|1\nabash|2\n"),
        ("words.txt", "word\tlevel\nabate\t1\nabash\t2\n"),
        ("words.txt", "sep=,\nword,level\nabate,1\nabash,2\n"),
        ("words.txt", "abate\nabash\n"),
        ("a.csv", "Word,Level\nabate,1\nabash,2\n"),
        ("a.csv", ' "WORD", level\nabate,1\n abash ,2\n'),
        ("a.csv", "lemma\nabate\nabash\n"),
        ("a.csv", "word,level,,\nabate,1,,\nabash,2,,,,\n"),
        ("a.csv", ",word,level\n0,abate,x\n1,abash,y\n"),
        ("a.csv", "word,level\r\nabate,1\r\n\r\nabash,2\r\n"),
        ("a.csv", "word,level\rabate,1\rabash,2\r"),
        ("a.json", '[{"word": "abate"}, {"word": "abash", "n": [1]}]'),
        ("a.json", '["abate", "abash"]'),
        ("a.json", '[\n  "abate",\n  "abash"\n]\n'),
        ("a.json", '{"words": [{"Word": "abate"}, {"Word": "abash"}], "n": 2}'),
        ("a.json", '{"word": "abate"}\n{"word": "abash"}\n'),
        ("a.jsonl", '[{"word": "abate"},\n {"word": "abash"}]\n'),
        ("a.ndjson", '{"lemma": "abate"}\n{"lemma": "abash"}\n'),
        ("standard input", '{"word": "abate"}\n{"word": "abash"}\n'),
        ("words.txt", '["abate", "abash"]'),
        ("words.log", '[\n"abate",\n"abash"]'),
    ],
)
def test_a_list_is_read_by_what_is_in_it(name, text):
    assert texts(text, name) == TWO
    assert texts(gzip.compress(text.encode()), f"{name}.gz") == TWO


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.csv", "word;level\nabate;1\n", "semicolons"),
        ("a.csv", "Word,level\nabate,1\n", "column 'Word'"),
        ("a.csv", "lemma\nabate\n", "'lemma'"),
        ("a.csv", ",word\n0,abate\n", "column 1 has no name"),
        ("words", "word,level\nabate,1\n", "commas"),
        ("a.csv", "word,level\nabate,1\n ,2\n,\n", "1 row has no word, for example row 3"),
        ("words", '["abate"]', "JSON"),
        ("a.json", '{"data": ["abate"], "n": 1}', "'data'"),
    ],
)
def test_what_was_concluded_is_told(name, text, note):
    assert any(note in one for one in listed(text, name).notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "word,level\nabate,1\n"),
        ("a.txt", "abate\n"),
        ("a.json", '["abate"]'),
        ("a", "abate\n"),
    ],
)
def test_nothing_is_told_of_a_list_that_is_what_its_name_says(name, text):
    assert listed(text, name).notes == []


@pytest.mark.parametrize(
    "text",
    [
        "to lower, in rank\nto be, or not to be\nzeal\n",
        "[sic]\n[brackets] in it\n",
        "{word}\n{other}\n",
        '"quoted"\n"again"\n',
        "word\nanother word\n",
        "a; b\nc\n",
        "to be, or not\nto lower, in rank\nto abate, at last\n",
    ],
)
def test_a_text_file_stays_a_word_a_line(text):
    assert texts(text, "list.txt") == text.splitlines()


def test_no_separator_reads_a_word_a_line_whatever_it_looks_like():
    assert texts("word\tx\na\tb\nc\td\n", "a.tsv", delimiter="none") == ["word\tx", "a\tb", "c\td"]


@pytest.mark.parametrize("delimiter", [":", "tab", "\\t"])
def test_a_separator_can_be_named(delimiter):
    char = ":" if delimiter == ":" else "\t"
    assert texts(f"word{char}level\nabate{char}1,2;3\n", delimiter=delimiter) == ["abate"]


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n"])
def test_a_separator_that_is_none_is_refused(delimiter):
    assert "--delimiter" in refused("word\nabate\n", delimiter=delimiter)


@pytest.mark.parametrize(
    "text",
    [
        "abate,1\nabash,2\n",
        "abate,verb\nabash,verb\n",
        "abate,1.5,x\n",
        "abate," + "to lower " * 9 + "\n",
    ],
)
def test_a_table_without_a_header_says_so(text):
    assert "looks like data" in refused(text)
    assert "--no-header --column 1" in refused(text)
    words = listed(text, header=False).words
    assert words[0].text == "abate"
    assert words[0].fields["column_2"] == text.split(",")[1].split("\n")[0].strip()
    assert listed(text, header=False, column="2").words[0].fields["column_1"] == "abate"


NUMBERED = "     1\tabate\n     2\tabhor\n     3\tabsolve\n     4\tacme\n"


def test_of_numbered_lines_the_column_of_the_words_is_named():
    said = refused(NUMBERED, "standard input")
    assert "column 1: 1, 2, 3; column 2: abate, abhor, absolve" in said
    assert "--no-header --column 2 has the words" in said
    assert "--delimiter none takes whole lines" in said
    assert "the first column holds numbers" in refused(NUMBERED, "standard input", header=False)
    words = ["abate", "abhor", "absolve", "acme"]
    assert texts(NUMBERED, "standard input", header=False, column="2") == words
    assert texts(NUMBERED, header=False, column="1") == list("1234"), "as it was said"


@pytest.mark.parametrize("column", ["0", "3", "word"])
def test_a_column_by_number_must_be_there(column):
    assert "it has 2" in refused("abate,1\n", header=False, column=column)


@pytest.mark.parametrize(
    ("name", "data", "cause"),
    [
        ("a.csv", "word,note,note\na,1,2\n", "columns 2 and 3 are both called 'note'"),
        ("a.csv", "word, note,level,note \na,1,2,3\n", "columns 2 and 4"),
        ("a.jsonl", '{"word": "a", "n": 1, "n": 2}\n', "two values for 'n'"),
        ("a.csv", "lemma,pos\na,b\n", "lemma, pos"),
        ("a.csv", "lemma:pos\na:b\n", "lemma:pos"),
        ("a.json", "{}", "object"),
        ("a.json", '{"a": [1], "b": [2]}', "object"),
        ("a.json", '{"word": {"0": "abate"}}', "no text 'word'"),
        ("a.json", "", "not JSON"),
        ("a.json", "[1, [2]]", "item 2"),
        ("a.xlsx", b"PK\x03\x04 but no workbook", "no Excel workbook"),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "picture"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
        ("a.db", b"SQLite format 3\0", "SQLite"),
        ("a.txt", b"%PDF-1.7\n", "PDF"),
        ("a.csv", "\n<!DOCTYPE html>\n<html>\n", "web"),
        ("a", b"\x7fELF\x02\x01\x01\0\0", "no text"),
        ("a.parquet", b"PAR1 and no more", "Parquet"),
        ("a.txt.gz", gzip.compress(b"abate\nabash\n" * 99, mtime=0)[:40], "cut off"),
        ("a.txt.gz", b"\x1f\x8b\x08 and no more of it", "gzip"),
        ("a.csv", "word,note\nabate,x\nabash,y,z\n", "row 3"),
        ("a.txt", "abate\n\u200b\n", "row 2"),
    ],
)
def test_what_is_no_list_is_refused(name, data, cause):
    assert cause in refused(data, name)


def test_the_only_column_without_a_header_is_the_first():
    assert texts("abate\nabash\n", header=False, column="1") == TWO
    assert "it has 1" in refused("abate\nabash\n", header=False, column="2")


def test_text_that_tabs_cut_is_a_table_whatever_its_name():
    said = refused("abate\tverb\nbe\tverb form\nzeal\tnoun\n", "list.txt")
    assert "has no column 'word'" in said


def test_the_name_of_a_column_that_can_not_be_printed_is_not_in_the_command():
    assert "--column NAME" in refused("le\vmma,pos\na,b\n")
    assert "--column 'le$mma'" in refused("le$mma,pos\na,b\n")


def test_a_named_column_makes_a_text_a_table():
    assert texts("lemma,pos\nabate,verb\n", "a.txt", column="Lemma") == ["abate"]
    assert "--column lemma" in refused("lemma,pos\nabate,verb\n", "a.txt", column="levle")


def test_a_cell_may_be_long():
    words = listed("word,note\nabate," + "x" * 300_000 + "\n").words
    assert len(words[0].fields["note"]) == 300_000


def test_numbers_are_texts_and_what_is_nested_stays_json():
    data = (
        '{"word": 42}\n{"word": 1.50, "n": 1.5, "tags": ["a", "b"], "o": {"x": null}, "y": NaN}\n'
    )
    assert [tuple(word) for word in listed(data, "a.jsonl").words] == [
        ("42", {}),
        ("1.5", {"n": "1.5", "tags": '["a", "b"]', "o": '{"x": null}'}),
    ]


def workbook(*sheets):
    book, stream = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for n, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet {n}")
        for row in rows:
            sheet.append(row)
    book.active = len(sheets) - 1  # as it was saved with the last one in front
    book.save(stream)
    return stream.getvalue()


def test_a_workbook_is_read():
    rows = [
        [],
        ["Word", "level", "day", None],
        ["abate", 3.0, dt.datetime.fromisoformat("2026-01-02")],
        [None, None],
        ["abash", 2.5, dt.datetime.fromisoformat("2026-01-02T03:00")],
    ]
    found = listed(workbook(rows), "list.xlsx")
    assert [tuple(word) for word in found.words] == [
        ("abate", {"level": "3", "day": "2026-01-02"}),
        ("abash", {"level": "2.5", "day": "2026-01-02T03:00:00"}),
    ]
    assert any("2 sheets" in note for note in listed(workbook(rows, rows), "list.xlsx").notes)
    two = workbook([["word"], ["abate"], ["abash"]], [["word"], ["other"]])
    assert texts(two, "list.xlsx") == TWO, "the first, whichever is in front"


def test_a_workbook_under_another_name_is_read():
    assert texts(workbook([["word"], ["abate"], ["abash"]]), "list.csv") == TWO


def test_a_parquet_file_is_read():
    stream = io.BytesIO()
    table = pa.table({"n": [1, None], "word": TWO, "tags": [["a"], None]})
    pyarrow.parquet.write_table(table, stream)
    assert [tuple(word) for word in listed(stream.getvalue(), "list.parquet").words] == [
        ("abate", {"n": "1", "tags": '["a"]'}),
        ("abash", {}),
    ]


@pytest.mark.parametrize("sheets", [False, True])
def test_a_pipe_is_read_as_a_file_is(tmp_path, monkeypatch, sheets):
    monkeypatch.chdir(tmp_path)
    data = workbook([["word"], ["abate"], ["abash"]]) if sheets else b"word;n\nabate;1\nabash;2\n"
    assert crawler_process("add", "-", stdin=data).code == Exit.DONE
    assert (
        crawler("sql", "--csv", "select text from words order by id").out == "text\nabate\nabash\n"
    )


@given(
    data=st.binary(max_size=200), name=st.sampled_from(["a.csv", "a.txt", "a", "a.json", "a.xlsx"])
)
def test_any_bytes_are_read_or_refused(data, name):
    try:
        words = listed(data, name).words
    except CrawlerError as error:
        words = []
        refusal = error.exit_code
    else:
        refusal = Exit.USAGE
    assert refusal == Exit.USAGE
    assert all(word.text.strip() for word in words)


@given(rows=st.lists(st.tuples(st.text("abé, ;\t\"'", min_size=1), st.text("xy;\t, ")), min_size=1))
def test_what_a_table_was_written_from_is_read_again(rows):
    lines = ["word,note"] + [
        ",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows
    ]
    expected = [word.strip() for word, _ in rows if word.strip()]
    assert texts("\n".join(lines)) == expected


@pytest.mark.parametrize(
    "name", ["verbs.cvs", "verbs.xls", "verb.csv", "verbs.jsno", "lists/verbs", "verbs.tx"]
)
def test_a_mistyped_file_is_no_word(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("verbs.csv").write_text("word\nabate\n")
    _, _, hint = told(crawler("add", name), Exit.USAGE)
    assert hint.endswith(f"crawler add -- {name}")
    assert not tmp_path.joinpath("crawl.db").exists()
    assert crawler("add", "--", name).code == Exit.DONE
    assert crawler("sql", "--csv", "select text from words").out == f"text\n{name}\n"


@pytest.mark.parametrize("word", ["Node.js", "e.g.", "Mr.X", "Dr. No", "3.5", "...", "amazon.com"])
def test_a_word_may_have_a_full_stop(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    assert crawler("add", word).code == Exit.DONE


def test_an_empty_argument_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told(crawler("add", "abate", ""), Exit.USAGE)[0] == "an argument is empty"
    assert "argument" in told(crawler("add"), Exit.USAGE)[1]


def test_a_preview_adds_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("a.csv").write_text("word;level\nabate;1\nabash;2\nabash;2\n")
    ran = crawler("add", "-n", "a.csv")
    assert ran.code == Exit.DONE
    assert "2 of 2 would be added" in ran.err
    assert not tmp_path.joinpath("crawl.db").exists()
    assert crawler("add", "abate").code == Exit.DONE
    again = crawler("add", "-n", "a.csv")
    assert "1 of 2 would be added" in again.err
    assert "1 known with other fields" in again.err
    assert again.out.startswith("abate: ")
    assert crawler("sql", "--csv", "select count(*) from words").out == "count(*)\n1\n"


def test_look_alikes_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("a.txt").write_text("a\na\u200b\n", "utf-8")
    assert r"'a\u200b'" in crawler("add", "a.txt").err
