"""The page docs/architecture.md is true: its rooms, reasons and files, and the way to answers."""

import ast
import re
from pathlib import Path

from crawler.run.ending import EXIT_CODES
from tests.sessions import blocks
from tests.test_shape import FLOORS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
MOST_FILES, MOST_LINES = 3, 300


def section(title):
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(text):
    """Return the cells of a table, row by row, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def lines_of(path, names):
    """Count the lines of definitions of a file; of the whole file where none is named."""
    text = (ROOT / path).read_text("utf-8")
    if not names:
        return len(text.splitlines())
    if path.endswith(".sql"):
        found = [re.search(rf"^CREATE \w+ {name}\b[^;]*;", text, re.MULTILINE) for name in names]
        return sum(len(match[0].splitlines()) for match in found)
    lengths = {
        written: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        for written in defined(node)
    }
    return sum(lengths[name] for name in names)


def defined(node):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    if isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target)


def test_the_rooms_are_drawn_on_their_floors():
    (drawn,) = [block.text for block in blocks(PAGE) if block.language == "text"]
    floors = [set(re.split(r" {3,}", line)[0].split()) for line in drawn.splitlines()]
    assert floors[::-1] == [{room or "__init__" for room in floor} for floor in FLOORS]


def test_the_reasons_are_those_of_the_program_with_their_codes():
    told = {cells[0].strip("`"): int(cells[1]) for cells in rows(section("Why a run ends"))}
    assert told == {reason.value: code.value for reason, code in EXIT_CODES.items()}


def test_each_question_is_answered_in_three_files_and_three_hundred_lines():
    questions = rows(section("Seven questions"))
    assert len(questions) == 7
    for question, reading, told in questions:
        found = re.findall(r"`([\w/]+\.(?:py|sql))`(?: \(([^)]*)\))?", reading)
        lines = sum(lines_of(path, re.findall(r"`(\w+)`", names)) for path, names in found)
        assert 1 <= len(found) <= MOST_FILES, question
        assert lines <= MOST_LINES, question
        assert abs(lines - int(told)) <= max(10, lines // 5), f"{question} {lines} lines by now"


def test_each_file_and_name_on_the_page_is_there():
    for path in re.findall(r"`((?:crawler|tests|migrations|scripts|docs)/[\w./]*)`", PAGE):
        assert (ROOT / path).exists(), path
    sources = [ROOT / "docs" / "schema.sql", *sorted(ROOT.glob("crawler/**/*.py"))]
    known = "\n".join(path.read_text("utf-8") for path in sources)
    for name in re.findall(r"`(?:\w+\.)*(\w+)`", PAGE):
        assert re.search(rf"\b{name}\b", known), name
