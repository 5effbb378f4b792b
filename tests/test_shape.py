"""The shape of the house: layers, sizes, names. What is written in DESIGN stays so."""

import ast
import re
from pathlib import Path

import pytest

from crawler.logs import EVENTS
from crawler.states import TRANSITIONS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "crawler"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}

# A file imports only from lines above its own, or from its own line.
LAYERS = [
    ["cancellation", "clock", "errors", "redaction", "states"],
    ["failpoints", "policy"],
    ["pace"],
    ["learning"],
    ["plan", "template", "answer_schema", "model_list"],
    ["ledger.invariants", "ledger.lease", "ledger.look", "ledger.prompt_views"],
    ["ledger.pacing", "ledger.tokens"],
    ["ledger.clocks", "ledger.record", "ledger.intake"],
    ["ledger.turn", "ledger.control"],
    ["ledger.restamp"],
    ["ledger.report", "ledger.audit"],
    ["migrate", "locks", "words"],
    ["database"],
    ["store", "logs"],
    ["providers", "providers.protocol", "providers.json_answer"],
    ["providers.answer_check", "providers.event_stream", "providers.openai_refusal"],
    ["providers.openai_stream"],
    ["providers.local_params"],
    ["builtin", "providers.function", "providers.scripted", "providers.openai"],
    ["providers.local", "providers.local_child", "providers.vertex", "providers.vertex.messages"],
    [
        "providers.vertex.access",
        "providers.vertex.answer",
        "providers.vertex.channels",
        "providers.vertex.refusal",
        "providers.vertex.request",
    ],
    ["providers.vertex.service"],
    ["emulator", "emulator.settings", "emulator.connections"],
    ["emulator.fate", "emulator.quota", "emulator.answers", "emulator.tally"],
    ["emulator.wire", "emulator.refusals"],
    ["emulator.decision"],
    ["emulator.server"],
    ["brake", "calls", "ending", "executor", "funds", "recovery"],
    ["dispatch"],
    ["scheduler"],
    ["session"],
    ["api"],
    [""],
    ["cli.terminal", "cli.options"],
    ["cli.status"],
    ["cli.live"],
    ["cli.crawl"],
    ["cli.one", "cli.retarget"],
    [
        "cli.add",
        "cli.ask",
        "cli.seed",
        "cli.prompt",
        "cli.run",
        "cli.show",
        "cli.sql",
        "cli.export",
        "cli.control",
        "cli.check",
        "cli.emulator",
    ],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "base", "misc"}


def name_of(path):
    dotted = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return dotted.removesuffix("__init__").removesuffix(".")


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crawler"):
            module = (node.module or "").removeprefix("crawler").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                yield inner if inner in RANK else module


def code_lines(path):
    """Count the lines that are neither blank, comment nor docstring."""
    docs = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)
    return sum(1 for n, line in lines if n not in docs and line.strip() and line.strip()[0] != "#")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_from_layers_above(path):
    name = name_of(path)
    if name == "ledger":
        return
    late = {"", "api"}  # the Python API is imported by nobody, and imports its work when called
    for other in imported(TREES[path]):
        if (name, other) == ("", "api"):
            continue
        assert RANK[other] <= RANK[name], f"{name} imports {other}"
        assert other not in late or name in late


def test_there_are_no_import_cycles():
    graph = {name_of(path): set(imported(TREES[path])) for path in FILES}
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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_small(path):
    assert code_lines(path) <= 250
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [
                item
                for item in node.body
                if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ]
            lines = node.end_lineno - (body[0].lineno if body else node.end_lineno) + 1
            assert lines <= 40, f"{node.name} has {lines} lines"


def test_most_functions_are_very_small():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[int(len(lengths) * 0.9)] <= 32


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_say_what_is_inside(path):
    assert path.stem not in BANNED_NAMES
    assert ast.get_docstring(TREES[path])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_hidden_from_the_type_checker(path):
    source = path.read_text("utf-8")
    assert "TYPE_CHECKING" not in source
    assert "type: ignore" not in source


def test_tasks_are_made_in_one_place():
    makers = {name_of(path) for path in FILES if "create_task" in path.read_text("utf-8")}
    assert makers == {"executor"}


def test_only_the_ledger_speaks_sql():
    sql = re.compile(r'"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM) ')
    speakers = {name_of(path) for path in FILES if sql.search(path.read_text("utf-8"))}
    assert {name.partition(".")[0] for name in speakers} <= {"ledger", "migrate"}


def test_only_the_store_knows_aiosqlite():
    importers = {name_of(path) for path in FILES if "import aiosqlite" in path.read_text("utf-8")}
    assert importers == {"store"}


def test_log_events_are_a_closed_list():
    used = {
        node.args[0].value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("debug", "info", "warning", "error")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert used == EVENTS


def test_the_diagram_of_the_readme_is_the_table_of_states():
    drawn = re.findall(
        r"^\s+(\w+) --> (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    legal = {(old.value, new.value) for old, news in TRANSITIONS.items() for new in news}
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
