"""Lists of words: every format that is read, what is refused, and that a refusal adds nothing."""

import io
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.errors import CrawlerError, Exit
from crawler.lists.form import Reading
from crawler.lists.reading import read_list
from crawler.lists.words import as_added, look_alikes, word_of
from tests.program import crawler, crawler_process, told


def read(name, text, column=None):
    listed = read_list(io.BytesIO(text.encode()), name, Reading(column))
    return [tuple(word) for word in listed.words]


def texts(name, text, column=None):
    return [text for text, _ in read(name, text, column)]


def test_a_text_file_is_a_word_a_line():
    assert read("list.txt", "abase\n  ice cream \r\n\n \t\nzeal") == [
        ("abase", {}),
        ("ice cream", {}),
        ("zeal", {}),
    ]


@pytest.mark.parametrize("name", ["list", "list.text", "standard input", ".csv"])
def test_a_name_that_tells_no_format_is_a_word_a_line(name):
    assert texts(name, "to be, or not\nzeal\n") == ["to be, or not", "zeal"]


def test_columns_of_a_csv_are_fields():
    listed = 'gloss, word ,note\n"to lower, in rank", abase ,\n"a ""b""\nc",zeal, x \n'
    assert read("LIST.CSV", listed) == [
        ("abase", {"gloss": "to lower, in rank"}),
        ("zeal", {"gloss": 'a "b"\nc', "note": "x"}),
    ]


def test_a_tsv_is_cut_at_tabs():
    assert read("list.tsv", "word\tgloss\na,b\tc d\n") == [("a,b", {"gloss": "c d"})]


def test_a_row_may_be_short_or_blank():
    assert read("list.csv", "gloss,word\nx\n\n,\ny,zeal\n") == [("zeal", {"gloss": "y"})]


def test_json_lines_are_objects_or_texts():
    listed = '{"word": "abase", "n": 3, "tags": ["é"], "gloss": "x"}\n\n"zeal"\n{"word": " "}\n'
    assert read("list.jsonl", listed) == [
        ("abase", {"n": "3", "tags": '["é"]', "gloss": "x"}),
        ("zeal", {}),
    ]


@pytest.mark.parametrize(
    ("name", "listed"),
    [("a.csv", "term,word\nzeal,x\n"), ("a.jsonl", '{"term": "zeal", "word": "x"}')],
)
def test_the_word_may_be_in_another_column(name, listed):
    assert read(name, listed, "term") == [("zeal", {"word": "x"})]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_duplicates_stay_in_their_order(name):
    listed = {"a.txt": "b\na\nb\n", "a.csv": "word\nb\na\nb\n", "a.jsonl": '"b"\n"a"\n"b"\n'}
    assert texts(name, listed[name]) == ["b", "a", "b"]


def test_one_spelling_is_one_word():
    assert texts("a.txt", "cafe\u0301\ncaf\u00e9\n\u212b\n") == ["café", "café", "Å"]


def test_a_byte_order_mark_is_no_part_of_a_word():
    assert texts("standard input", "\ufeffabase\n") == ["abase"]
    assert read("a.csv", "\ufeffword,gloss\nabase,x\n") == [("abase", {"gloss": "x"})]


@given(text=st.text())
@example(text="\ufeff \ufeff abase")
def test_a_word_that_is_added_again_is_the_same_word(text):
    added = as_added(text)
    assert as_added(added) == added == unicodedata.normalize("NFC", added.strip())


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\ufeff", "\u3000\u00a0"])
def test_a_blank_is_no_word(text):
    assert word_of(text, {"gloss": "x"}) is None


@pytest.mark.parametrize(
    ("name", "listed", "cause"),
    [
        ("a.jsonl", '"ok"\n{"word": "zeal"\n', "line 2 is not JSON"),
        ("a.jsonl", '{"term": "zeal", "n": 1}\n', "line 1 has no text 'word'"),
        ("a.jsonl", '{"word": true}\n', "line 1 has no text 'word'"),
        ("a.jsonl", '"a"\n[1]\n', "line 2 has no text 'word'"),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", '"\\ud800"\n', "lone surrogate"),
        ("a.jsonl", '{"word": "zeal", "gloss": "\\udfff"}\n', "lone surrogate"),
        ("a.csv", "word,gloss\nzeal,x,y\n", "more cells than the header"),
        ("a.csv", 'word\n"zeal\n', "unexpected end of data"),
        ("a.csv", "word\n" + "x" * 1_000_001, "field larger than field limit"),
        ("a.csv", "term,gloss\nzeal,x\n", "columns: term, gloss"),
        ("a.csv", "", "columns: none"),
        ("a.txt", "ze\0al\n", "NUL"),
    ],
)
def test_a_list_that_is_not_what_its_name_says_is_refused(name, listed, cause):
    with pytest.raises(CrawlerError) as refused:
        read(name, listed)
    assert cause in str(refused.value)
    assert refused.value.exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'"abase"\n"zeal\n'),
        ("a.jsonl", b'"abase"\n"\\ud800"\n'),
        ("a.csv", b"word\nabase\nzeal,x\n"),
        ("a.csv", b"term,gloss\nabase,x\n"),
        ("a.txt", b"abase\nz\xe9al\n"),
        ("a.csv", "word\nabase\n".encode("utf-16-le")),
        ("a.txt", b"abase\nze\0al\n"),
    ],
)
def test_nothing_is_added_of_a_list_with_an_error(tmp_path, name, content):
    db = tmp_path / "crawl.db"
    assert crawler("--db", db, "add", "before").code == Exit.DONE
    tmp_path.joinpath(name).write_bytes(content)
    told(crawler("--db", db, "add", "good", tmp_path / name), Exit.USAGE)
    assert crawler("--db", db, "sql", "--csv", "select text from words").out == "text\nbefore\n"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    db = tmp_path / "crawl.db"
    tmp_path.joinpath("a.jsonl").write_bytes(b'\xef\xbb\xbf{"word": "abase"}\n')
    assert crawler("--db", db, "add", tmp_path / "a.jsonl").code == Exit.DONE
    assert crawler("--db", db, "sql", "--csv", "select text from words").out == "text\nabase\n"


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_standard_input_that_is_no_utf8_adds_nothing(tmp_path, encoding):
    db = tmp_path / "crawl.db"
    ran = crawler_process(
        "--db", db, "add", "-", stdin=b"abase\nz\xe9al\n", env={"PYTHONIOENCODING": encoding}
    )
    told(ran, Exit.USAGE)
    assert not db.exists()


def test_an_argument_that_is_no_utf8_adds_nothing(tmp_path):
    db = tmp_path / "crawl.db"
    told(crawler("--db", db, "add", "abase", "z\udce9al"), Exit.USAGE)
    assert not db.exists()


@pytest.mark.parametrize("text", ["\u200b", "\u2060 \u00ad", "\u3164", "\x07", "\u2800"])
def test_a_word_that_nobody_can_see_is_refused(text):
    with pytest.raises(CrawlerError, match="U\\+"):
        word_of(text, {})


def test_words_that_look_alike_are_found():
    texts = [
        "a",
        "a\u200b",
        "ice cream",
        "ice\u00a0cream",
        "ice  cream",
        "b\u200b",
        "caf\u00e9",
        "cafe",
    ]
    assert look_alikes(texts) == [
        ("a", "a\u200b"),
        ("ice cream", "ice\u00a0cream"),
        ("ice cream", "ice  cream"),
    ]


def test_a_joiner_is_part_of_a_word():
    assert look_alikes(["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "a"]) == []
