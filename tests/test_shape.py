"""The shape of the house: layers, sizes, names. What is written in DESIGN stays so."""

import ast
import functools
import re
from pathlib import Path

from crawler.logs import EVENTS
from tests.expected import MAY_FOLLOW

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "crawler"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"clock", "errors", "redaction", "states"},
    {"answer_schema", "failpoints", "logs", "protocol", "template"},
    {"lists", "policy", "providers", "quota", "storage"},
    {"emulator", "ledger"},
    {"run"},
    {"api", "cli"},
    {"", "__main__"},
]
"""The rooms: folders of the package, and files at its top. A room imports from floors below it."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "base", "misc"}


@functools.cache
def trees():
    """Return the files of the package, parsed; once, and only where a test asks for them."""
    return {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def name_of(path):
    dotted = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return dotted.removesuffix("__init__").removesuffix(".")


def imported(tree):
    """Yield what a file imports of the package, as whole names of modules."""
    known = {name_of(path) for path in FILES}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "crawler":
            module = (node.module or "").removeprefix("crawler").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                yield inner if inner in known else module


def room_of(name):
    return name.partition(".")[0]


def code_lines(path):
    """Count the lines that are neither blank, comment nor docstring."""
    docs = set()
    for node in ast.walk(trees()[path]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)
    return sum(1 for n, line in lines if n not in docs and line.strip() and line.strip()[0] != "#")


def arrows():
    """Return the pairs of rooms of which one imports the other."""
    pairs = {
        (room_of(name_of(path)), room_of(other))
        for path in FILES
        for other in imported(trees()[path])
    }
    # The Python API imports its work when it is called: see crawler/__init__.py.
    return {(room, other) for room, other in pairs if room != other and (room, other) != ("", "")}


def test_a_room_imports_only_from_floors_below_it():
    assert {room_of(name_of(path)) for path in FILES} == FLOOR.keys()
    for room, other in sorted(arrows()):
        assert FLOOR[other] < FLOOR[room], f"{room} imports {other}"


def test_the_rooms_are_few_and_so_are_the_arrows_between_them():
    assert len(FLOOR) <= 22
    assert len(FLOORS) <= 7
    assert len(arrows()) <= 70


def test_there_are_no_import_cycles():
    graph = {name_of(path): set(imported(trees()[path])) for path in FILES}
    graph[""].discard("api")  # inside a function: see crawler/__init__.py
    done = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def body_lines(function):
    """Count the lines of a function without its signature and its docstring."""
    body = [
        item
        for item in function.body
        if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
    ]
    return function.end_lineno - (body[0].lineno if body else function.end_lineno) + 1


def test_files_and_functions_are_small():
    for path in FILES:
        assert code_lines(path) <= 250, path
        for node in ast.walk(trees()[path]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert body_lines(node) <= 40, f"{path}: {node.name}"


def test_most_functions_are_very_small():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[int(len(lengths) * 0.9)] <= 32


def test_every_file_says_what_is_inside_and_hides_nothing_from_the_type_checker():
    for path in FILES:
        source = path.read_text("utf-8")
        assert path.stem not in BANNED_NAMES, path
        assert ast.get_docstring(trees()[path]), path
        assert "TYPE_CHECKING" not in source, path
        assert "type: ignore" not in source, path


def test_tasks_are_made_in_one_place():
    makers = {name_of(path) for path in FILES if "create_task" in path.read_text("utf-8")}
    assert makers == {"run.executor"}


def test_only_the_ledger_speaks_sql():
    sql = re.compile(r'"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM) ')
    speakers = {name_of(path) for path in FILES if sql.search(path.read_text("utf-8"))}
    assert {name.partition(".")[0] for name in speakers} <= {"ledger", "storage"}


def test_only_the_store_knows_aiosqlite():
    importers = {name_of(path) for path in FILES if "import aiosqlite" in path.read_text("utf-8")}
    assert importers == {"storage.store"}


def test_log_events_are_a_closed_list():
    used = {
        node.args[0].value
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("debug", "info", "warning", "error")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert used == EVENTS


def test_the_diagram_of_the_states_is_the_table_of_states():
    drawn = re.findall(
        r"^\s+(\w+) --> (\w+)", (ROOT / "docs" / "requests.md").read_text("utf-8"), re.MULTILINE
    )
    legal = {(old, new) for old, news in MAY_FOLLOW.items() for new in news}
    assert set(drawn) == legal


def test_the_files_of_the_project_name_no_machine():
    paths = [p for p in ROOT.iterdir() if p.suffix in (".md", ".toml")]
    paths += [
        p
        for folder in ("scripts", "tests", "crawler", "migrations", ".ci")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".py", ".sql", "")
    ]
    machine = re.compile(r"/(root|home|Users)/\w")
    for path in paths:
        if path.is_file() and path != Path(__file__):
            assert not machine.search(path.read_text("utf-8")), path
