"""The pages are true: sessions print what they show, made pages are fresh, links lead somewhere."""

import itertools
import re

import pytest

from crawler.cli import COMMANDS
from crawler.errors import Exit
from tests.documents import DOCS, OWN_TEST, PAGES, ROOT, difference, pages, renewed
from tests.sessions import Shell, blocks

WRITTEN = {path.name: path.read_text("utf-8") for path in pages()}
RUN = [name for name, page in WRITTEN.items() if "```console" in page and name not in OWN_TEST]
ALL = "\n".join(WRITTEN.values())


@pytest.mark.parametrize("name", RUN)
def test_every_session_prints_what_it_shows(tmp_path, name):
    page = WRITTEN[name]
    new = renewed(page, tmp_path)
    assert new == page, f"scripts/docs renews it:\n{difference(page, new)}"


@pytest.mark.parametrize("name", PAGES)
def test_what_is_made_is_fresh(name):
    old, new = (DOCS / name).read_text("utf-8"), PAGES[name]()
    assert new == old, f"scripts/docs renews it:\n{difference(old, new)}"


def test_every_example_in_python_prints_what_it_shows(tmp_path):
    found = blocks(WRITTEN["python.md"])
    pairs = [(a, b) for a, b in itertools.pairwise(found) if a.language == "python"]
    assert pairs
    for code, shown in pairs:
        assert Shell(tmp_path).run_cell(code.text) == shown.text


def anchors(page):
    """Return the anchors of the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_link_leads_somewhere(name):
    folder = ROOT if name in ("README.md", "CONTRIBUTING.md") else DOCS
    for target in re.findall(r"\]\(([^)\s]+)\)", WRITTEN[name]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else folder / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), target


def test_every_page_is_in_the_site():
    site = (ROOT / "zensical.toml").read_text("utf-8")
    for path in DOCS.glob("*.md"):
        assert f'"{path.name}"' in site, path.name


def test_every_command_has_a_place():
    for command in COMMANDS:
        assert re.search(rf"crawler[^\n]* {command}\b|`{command}`", ALL), command


def test_the_exit_codes_of_the_page_are_those_of_the_program():
    told = {int(code) for code in re.findall(r"^\| (\d+) \| ", WRITTEN["running.md"], re.MULTILINE)}
    assert told == {code.value for code in Exit}


def test_the_readme_is_short():
    assert len(WRITTEN["README.md"].splitlines()) <= 150


def test_the_workflow_calls_what_is_there():
    """Of a YAML file as simple as that, the lines say enough."""
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    runs = re.findall(r"^ +- run: (\S+)(?: (--\S+))?$", workflow, re.MULTILINE)
    test = (ROOT / "scripts" / "test").read_text("utf-8")
    assert (".ci/run", "") in runs
    for program, option in runs:
        assert (ROOT / program).exists()
        assert option in test
    oldest = re.search(
        r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8")
    )
    versions = re.findall(r'"(3\.\d+)"', workflow.partition("matrix")[2].partition("steps")[0])
    assert versions[0] == oldest[1]


SENTENCE = re.compile(r"[^.!?:;|]+")


def sentences(page):
    """Return the words of each sentence of a page: of its text, not of tables and blocks."""
    text = re.sub(
        r"```.*?```|^    [^\n]*$|^\|[^\n]*$|^#[^\n]*$|<!--.*?-->",
        "\n\n",
        page,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)]*\)", "]", text))
    parts = [
        part
        for block in re.split(r"\n\s*\n|\n- |\n\d\. ", text)
        for part in SENTENCE.findall(block)
    ]
    return [found for part in parts if len(found := re.findall(r"[\w'’-]+", part)) > 2]


@pytest.mark.parametrize("name", WRITTEN)
def test_sentences_are_short(name):
    long = [" ".join(words) for words in sentences(WRITTEN[name]) if len(words) > 20]
    assert long == []
