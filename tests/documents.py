"""The pages in docs/ that are made, and the sessions in all of them that are run.

    python -m tests.documents           make the pages, and write into sessions what they print
    python -m tests.documents twins     put each page, as text, and llms.txt into the site

Rule: a page says nothing that was not printed by the program or read from its code.
"""

import difflib
import inspect
import re
import sqlite3
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

import crawler as library
from crawler.cli import COMMANDS, cli
from crawler.storage.upgrade import migrate
from tests.sessions import Shell, blocks, steady, steps

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = "<!-- Made by scripts/docs: a change here is lost. -->\n\n"
OWN_TEST = {"notebook.md"}
"""Pages whose cells and sessions run together: tests/test_notebook_page.py."""

VIEWS = {
    "results": (
        "The answers that count: the newest of each word on the list of a prompt.",
        {
            "word": "the word",
            "text": "the answer",
            "prompt": "the prompt's name",
            "version": "the prompt's version",
            "provider": "who was asked",
            "model": "the model that was asked",
            "fields": "the other columns of the list, as a JSON object",
            "tokens_in": "tokens of the question; NULL: not known",
            "tokens_out": "tokens of the answer, thoughts included; NULL: not known",
            "attempts": "calls that it took",
            "duration_ms": "how long the call took that brought the answer",
            "started_at": "when that call started",
            "finished_at": "when it ended",
            "word_id": "the word's row in `words`, in the order of the lists",
            "request_id": "the request's row in `requests`",
            "tokens_thought": "tokens of thoughts; NULL: not known",
            "finish_reason": "what the service called the end",
            "model_version": "what the service called the model",
            "truncated": "1: cut off at `max_output_tokens`, and wanted all the same",
            "stale": "1: its prompt, or a field that this uses, has changed since",
            "key": "the columns that tell it from others of its text, as a JSON array",
            "review": "what `crawler mark` has set: good or bad",
            "note": "the note with it",
        },
    ),
    "failures": (
        "The requests that have failed for good, and why.",
        {
            "word": "the word",
            "outcome": "how its last attempt ended",
            "reason": "what the server said, as a sentence",
            "status_code": "the HTTP status, or that of gRPC in HTTP's numbers",
            "attempts": "calls that were made",
            "failures": "those that cost it one of its 20 failures",
            "prompt": "the prompt's name",
            "version": "the prompt's version",
            "provider": "who was asked",
            "model": "the model that was asked",
            "failed_at": "when the last attempt ended",
            "word_id": "the word's row in `words`",
            "request_id": "the request's row in `requests`",
            "draft": "what a failed attempt brought all the same",
            "reason_code": "the kind of the refusal, for counting",
            "current": "0: there is a newer version of the prompt",
        },
    ),
    "progress": (
        "How many requests of each version of a prompt are in each state.",
        {
            "prompt": "the prompt's name",
            "version": "its version",
            "provider": "who is asked",
            "model": "the model that is asked",
            "requests": "all of them",
            "pending": "wait",
            "leased": "are in flight",
            "succeeded": "have an answer",
            "failed": "have failed for good",
            "cancelled": "are not to be asked",
            "removed": "were taken off the list",
        },
    ),
    "throughput_per_minute": (
        "Calls by the minute in which they started.",
        {
            "minute_at": "the minute",
            "limit": "the limit that they are counted under",
            "started": "calls that started",
            "succeeded": "that brought an answer",
            "throttled": "that were refused by a quota (429)",
            "failed": "that failed in another way, and may pass",
            "tokens_in": "tokens of the questions",
            "tokens_out": "tokens of the answers",
        },
    ),
    "limit_history": (
        "Each change of a limit.",
        {
            "changed_at": "when",
            "limit": "which limit",
            "what": "set, told, paused, resumed, gate_closed, rate_lowered, concurrency_raised, …",
            "per_minute": "calls a minute from then on",
            "until_at": "until when, of a pause and a closed gate",
            "why": "the reason",
        },
    ),
    "request_details": (
        "A row for each request, in whatever state, with its last attempt. Times are in ms.",
        {
            "request_id": "the request's row in `requests`",
            "word_id": "the word's row in `words`",
            "prompt_id": "the version's row in `prompts`",
            "word": "the word",
            "fields": "the other columns of the list, as a JSON object",
            "state": "pending, leased, succeeded, failed, cancelled",
            "due_at_ms": "when it may be asked; 0: it was never asked",
            "attempts": "calls that were made",
            "failures": "those that cost it one of its 20 failures",
            "prompt": "the prompt's name",
            "version": "the prompt's version",
            "current": "1: that version is the current one",
            "provider": "who is asked",
            "model": "the model that is asked",
            "run_id": "the run that made the last attempt",
            "started_at_ms": "when the last attempt started",
            "finished_at_ms": "when it ended; NULL: it is in flight",
            "outcome": "how it ended",
            "reason": "why, as a sentence",
            "status_code": "the HTTP status",
            "tokens_in": "tokens of the question",
            "tokens_out": "tokens of the answer",
            "tokens_thought": "tokens of thoughts",
            "finish_reason": "what the service called the end",
            "model_version": "what the service called the model",
            "truncated": "1: cut off",
            "text": "the answer",
            "draft": "what a failed attempt brought all the same",
            "reason_code": "the kind of a refusal",
            "superseded": "1: it was asked again by another request",
            "removed_at_ms": "when the word was taken off the list; NULL: it is on it",
            "key": "the columns that tell the word from others of its text, as a JSON array",
            "changed": "1: its prompt uses a field that has changed since",
            "revision": "which revision of the word was sent; NULL: the first",
        },
    ),
    "list_details": (
        "A row for each word on the list of a prompt, with the answer that counts.",
        {
            "standing_id": "the request that stands for it now",
            "place": "its place on the list",
            "word_id": "the word's row in `words`",
            "asked_by_id": "the version that asks, or has asked last",
            "state": "of that request",
            "removed_at_ms": "when it was taken off the list; NULL: it is on it",
            "stale": "1: its prompt, or a field that this uses, has changed since",
            "request_id": "the request that brought the answer; else the one that stands",
            "prompt_id": "the version of that request",
            "word": "the word",
            "fields": "the other columns of the list, as a JSON object",
            "attempts": "calls that were made",
            "prompt": "the prompt's name",
            "version": "the version that answered",
            "current": "1: that version is the current one",
            "provider": "who was asked",
            "model": "the model that was asked",
            "started_at_ms": "when the last attempt started",
            "finished_at_ms": "when it ended",
            "reason": "why there is no answer",
            "reason_code": "the kind of a refusal",
            "tokens_in": "tokens of the question",
            "tokens_out": "tokens of the answer",
            "tokens_thought": "tokens of thoughts",
            "finish_reason": "what the service called the end",
            "model_version": "what the service called the model",
            "truncated": "1: cut off",
            "text": "the answer",
            "key": "the columns that tell the word from others of its text, as a JSON array",
            "changed": "1: its prompt uses a field that has changed since",
            "review": "what `crawler mark` has set",
            "note": "the note with it",
        },
    ),
}


def commands_page():
    """Return the page of all commands: what `--help` says."""
    parts = [f"# Commands\n\n{MADE}What `crawler COMMAND --help` says.\n"]
    for name, (text, below) in _helps().items():
        parts.append(f"\n{'#' * below} {name}\n\n```text\n{text}\n```\n")
    return "".join(parts)


def _helps():
    """Return the help of each command, and how deep its heading is."""
    found = {}

    def read(command, parent, name, below):
        with click.Context(command, info_name=name, parent=parent) as ctx:
            found[ctx.command_path] = command.get_help(ctx).rstrip(), below
            if isinstance(command, click.Group):
                for inner in command.list_commands(ctx):
                    read(command.get_command(ctx, inner), ctx, inner, below + 1)

    settings = {**cli.context_settings, "terminal_width": 80, "max_content_width": 80}
    with click.Context(cli, info_name="crawler", **settings) as ctx:
        for name in COMMANDS:
            read(cli.get_command(ctx, name), ctx, name, 2)
    return found


def views_page():
    """Return the page of the views. Raises LookupError for a column that nothing is said of."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn, 0)
    times = "Times are ISO-8601 UTC, except where a name ends with `_ms`."
    kept = "Names and columns are kept from version to version; new columns come at the end."
    parts = [f"# Views\n\n{MADE}{times} {kept}\n"]
    there = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")}
    for name, (about, columns) in VIEWS.items():
        parts.append(f"\n## {name}\n\n{about}\n\n| column | is |\n|---|---|\n")
        found = [row[1] for row in conn.execute(f"PRAGMA table_info({name})")]
        if set(found) != set(columns):
            raise LookupError(f"{name}: say what {set(found) ^ set(columns)} is, in {__file__}")
        parts += [f"| `{column}` | {columns[column]} |\n" for column in found]
    if there != set(VIEWS):
        raise LookupError(f"say what {there ^ set(VIEWS)} is, in {__file__}")
    conn.close()
    return "".join(parts)


def api_page():
    """Return the page of the Python names: their docstrings."""
    how = "All names of `import crawler`. How they are used: [Python](python.md)."
    parts = [f"# Python API\n\n{MADE}{how}\n"]
    for name in sorted(library.__all__, key=lambda name: (name != "crawl", name)):
        what = getattr(library, name)
        signature = _signature(name, what)
        parts.append(
            f"\n## {name}\n\n```python\n{signature}\n```\n\n```text\n{inspect.getdoc(what)}\n```\n"
        )
        fields = getattr(what, "_fields", None) or getattr(what, "__dataclass_fields__", ())
        if fields:
            parts.append(f"\nFields: {', '.join(f'`{field}`' for field in fields)}.\n")
    return "".join(parts)


def _signature(name, what):
    if inspect.iscoroutinefunction(what):
        told = inspect.signature(what)
        lines = [str(parameter) for parameter in told.parameters.values()]
        lines.insert(1, "*")
        body = ",\n    ".join(lines)
        text = f"async def {name}(\n    {body},\n) -> {told.return_annotation}"
        return re.sub(
            r"\b(collections\.abc|typing|pathlib(\._local)?|crawler\.\w+(\.\w+)?)\.", "", text
        )
    return f"class {name}{'(Exception)' if issubclass(what, Exception) else ''}"


PAGES = {"commands.md": commands_page, "views.md": views_page, "api.md": api_page}


def pages():
    """Return the README and all pages in docs/ that a person has written."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(p for p in DOCS.glob("*.md") if p.name not in PAGES),
    ]


def renewed(page, folder):
    """Run the sessions of a page, in one terminal; return it with what they print."""
    shell = Shell(folder)
    started = re.findall(r"^    (crawler emulator (?!--http|--tls).*)$", page, re.MULTILINE)
    with shell.emulator(started[0]) if started else nullcontext():
        for block in blocks(page):
            if block.language != "console":
                continue
            told = "".join(f"$ {step.command}{_printed(shell, step)}" for step in steps(block.text))
            page = page.replace(f"```console\n{block.text}```", f"```console\n{told}```", 1)
    return page


def _printed(shell, step):
    """Return what a command prints, or what the page says where that is the same but for marks."""
    told = shell.run(step.command)
    if steady(told) == steady(step.shown):
        return step.shown
    return f"\n{told}" if not told or told.endswith("\n") else f"\n{told}\n"


def difference(old, new):
    """Return what differs between two texts, as lines."""
    return "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))


def main():
    """Make the pages, and renew the sessions."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), "utf-8")
    for path in pages():
        page = path.read_text("utf-8")
        if path.name in OWN_TEST or "```console" not in page:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(renewed(page, Path(folder)), "utf-8")


def twins():
    """Put each page, as it is written, into the site, and a list of them for language models."""
    site = ROOT / "site"
    lines = ["# crawler", "", "> Ask a model about every word of a list, and lose nothing.", ""]
    for path in sorted(DOCS.glob("*.md")):
        page = path.read_text("utf-8")
        (site / path.name).write_text(page, "utf-8")
        lines.append(f"- [{page.splitlines()[0].removeprefix('# ')}]({path.name})")
    (site / "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(twins() if sys.argv[1:] == ["twins"] else main())
