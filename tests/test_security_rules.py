"""What the code never does, whoever writes it: rules that a linter has no name for."""

import ast
import re

import pytest

from tests.test_shape import PACKAGE, trees

SQL = ("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE ", "DROP ", "PRAGMA ")

# All that is ever put into a statement beside its parameters: constants of ours, whole numbers
# (:d), and names that are quoted as SQL wants it. Nothing else comes from outside this list.
IN_STATEMENTS = {
    "ledger.columns": {"{_OF_PROMPT}"},
    "ledger.comparing": {
        "{answers}",
        "{asked}",
        "{known}",
        "{lists}",
        "{side.prompt.id:d}",
        "{superseded}",
    },
    "ledger.control": {"{changes}", "{condition}", "{name}", "{source}"},
    "ledger.doubt": {"{chosen}"},
    "ledger.draw": {"{chosen}", "{due.condition}", "{due.order}", "{index}"},
    "ledger.estimate": {"{chosen}"},
    "ledger.intake": {
        "{', '.join(map(str, ids))}",
        "{_ASKED}",
        "{condition}",
        "{known}",
        "{now_ms:d}",
        "{prompt_id:d}",
        "{superseded}",
    },
    "ledger.invariants": {"{COUNTS}"},
    "ledger.invariants_of_limits": {"{2 ** 62}", "{_SETTINGS}", "{_SET}"},
    "ledger.limits": {"{_COLUMNS}"},
    "ledger.prompt_views": {
        "{', '.join(map(str, versions))}",
        "{_quoted(old)}",
        "{_quoted(view)}",
        "{_text(name)}",
        "{known}",
        "{selected}",
        "{source}",
    },
    "ledger.repair": {"{COUNTS}", "{_ORPHANS}"},
    "ledger.results": {"{_RESULT}"},
    "ledger.selectors": {
        "{', '.join(map(str, older))}",
        "{_TEXT}",
        "{answer}",
        "{asked or _NOTHING}",
        "{condition}",
        "{first}",
        "{order}",
        "{source}",
    },
    "ledger.standing": {
        "{(by_answer if request_ids is None else by_id)}",
        "{_AFRESH}",
        "{at_ms:d}",
        "{due}",
        "{index}",
        "{name}",
        "{now_ms:d}",
        "{prompt_id:d}",
    },
    "ledger.status": {"{asked}", "{chosen}"},
    "ledger.tokens": {"{MOST_OUT}"},
    "ledger.work": {"{chosen}"},
    "storage.database": {"{checkpoint_pages}", "{most_bytes:d}"},
    "storage.upgrade": {"{APPLICATION_ID}", "{migration.version}"},
}


def nodes(kind):
    """Yield each node of a kind, and the module that it is in."""
    for path, tree in trees().items():
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield module, node


def called(node):
    """Return what is called, as it is written."""
    return ast.unparse(node.func)


def test_what_is_put_into_sql_is_a_closed_list():
    found = {}
    for module, node in nodes(ast.JoinedStr):
        texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        if any(word in text for word in SQL for text in texts):
            put = found.setdefault(module, set())
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    put.add(ast.unparse(ast.JoinedStr([part]))[2:-1])
    assert found == IN_STATEMENTS


def test_no_statement_is_put_together_in_another_way():
    for module, node in nodes(ast.BinOp):
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
            assert not isinstance(node.left.value, str), (module, ast.unparse(node))


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        # A template that is formatted reads attributes. The emulator's are its own.
        ((".format", ".format_map", "string.Formatter"), {"emulator.answers"}),
        (
            ("eval", "exec", "compile", "os.system", "os.popen", "pickle.loads", "marshal.loads"),
            set(),
        ),
        # What is recorded has one clock; these read what people and servers mean.
        (("time.time", "time.time_ns", "datetime.utcnow"), {"clock"}),
        (("datetime.now",), {"cli.options"}),
        # Chance has a seam (the scheduler's `draw`), and a seed elsewhere.
        (("random.Random",), {"providers.scripted", "emulator.fate"}),
        ((".write_text", ".write_bytes", "tempfile.mktemp", "os.chmod", ".chmod"), set()),
    ],
)
def test_what_must_not_be_called_is_not(names, allowed):
    for module, node in nodes(ast.Call):
        name = called(node)
        banned = any(name == one or (one[0] == "." and name.endswith(one)) for one in names)
        assert not banned or module in allowed, (module, node.lineno, name)


def test_chance_has_one_seam():
    users = {
        (module, ast.unparse(node))
        for module, node in nodes(ast.Attribute)
        if isinstance(node.value, ast.Name) and node.value.id == "random"
    }
    assert {(module, name) for module, name in users if name != "random.Random"} == {
        ("run.loop", "random.randint")
    }


def test_no_command_goes_through_a_shell():
    for module, node in nodes(ast.keyword):
        assert node.arg != "shell", module


def test_whatever_creates_a_file_makes_it_its_owners():
    for module, node in nodes(ast.Call):
        written = ast.unparse(node)
        if called(node) == "os.open" and "O_RDONLY" not in written:
            creates = "O_CREAT" in written or "flags" in written
            assert not creates or written.endswith(", 384)"), (module, written)  # 0o600
        elif called(node) == "open" or called(node).endswith(".open"):
            modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            assert set(modes) <= {"rb", "r"}, (module, written)


BRINGS_IN = {
    *("sys.stdin", "os.environ", ".readline", ".communicate", ".read_bytes", ".read_text"),
    *(".read_chunk", ".trailing_metadata", "sys.argv", ".FromString"),
}


def test_the_page_on_security_names_each_place_where_text_comes_in():
    page = (PACKAGE.parent / "docs" / "security.md").read_text("utf-8")
    entered = page.partition("## Where text from outside enters")[2].partition("\n## ")[0]
    for module, node in nodes(ast.Attribute):
        if module.startswith("emulator.") and module != "emulator.answers":
            continue  # what it reads, our own tests have written
        if {ast.unparse(node), f".{node.attr}"} & BRINGS_IN:
            path = PACKAGE.joinpath(*module.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            assert f"`{file.relative_to(PACKAGE.parent)}`" in entered, (module, ast.unparse(node))


def test_what_the_page_on_security_names_is_there():
    page = (PACKAGE.parent / "docs" / "security.md").read_text("utf-8")
    for path in re.findall(r"`((?:crawler|tests|scripts)/[\w/.-]*)`", page):
        assert (PACKAGE.parent / path).exists(), path
    known = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    tables = page.partition("## One function")[2].partition("## What is installed")[0]
    for name in re.findall(r"`([A-Za-z_][A-Za-z_.]*)`", tables):
        assert name.isupper() or name.rpartition(".")[2] in known, name
