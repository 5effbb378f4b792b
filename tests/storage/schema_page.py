"""Writes docs/schema.sql: the schema of a new database, in a reader's order, with comments.

And migrations/at_once.sql: the same, as SQLite writes it.

Rule: what is there comes from a new database. Comments come from the migrations; `NOTES` and
`GROUPS` are for what they don't say.
"""

import re
import sqlite3
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from crawler.storage.upgrade import (
    AT_ONCE,
    mark_of,
    migrate,
    migrations,
    newest_version,
    statements,
)

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "schema.sql"
SCRIPT = ROOT / "migrations" / AT_ONCE
WIDTH = 100
COMMENTS_AT = 48

SCRIPT_HEAD = """\
-- All that the other files here add up to: a new database is made by it. Where one of them
-- is changed or added it is not used, until scripts/schema has renewed it.
"""

HEAD = """\
-- The schema of a database as the newest migration ({version}) leaves it. For readers; a database
-- is made by the files in migrations/, in their order. Renew this page: scripts/schema
--
-- Times are whole milliseconds since 1970 UTC. Views show them as ISO-8601 text.
-- The views results, failures, progress, throughput_per_minute and limit_history are for users:
-- their names and columns are kept.
"""

SECTIONS = {
    "What is asked": [
        "words",
        "revisions",
        "key_columns",
        "prompts",
        "prompt_views",
        "prompt_columns",
    ],
    "What became of it": ["requests", "attempts", "responses", "reviews", "drafts", "tallies"],
    "Who asks": ["runs", "clocks"],
    "Quotas": ["limits", "limit_changes"],
    "The file": ["migrations", "owners"],
    "Views": [
        "results",
        "failures",
        "request_details",
        "list_details",
        "progress",
        "throughput_per_minute",
        "limit_history",
    ],
}

NOTES = {
    "words": "The items that are asked about.",
    "prompts": "A version of a prompt. It never changes; a change makes a new version.",
    "prompts.limit_id": "the quota that its calls share",
    "prompts.params": "a JSON object",
    "prompts_current": "One version of a name is the current one.",
    "prompts_insert": "Each prompt has its counts.",
    "requests": "One word and one prompt: a question, and where it stands.",
    "requests.failures": "its own, since the last retry by a person",
    "requests.cancelling": "1: cancelled once its open attempt ends",
    "attempts.number": "1 for the first of its request",
    "attempts.limit_id": "that of its prompt",
    "attempts.finished_at_ms": "NULL: open, the call is in flight",
    "attempts.outcome": "see crawler/states.py",
    "attempts.retry_after_ms": "the pause that the server asked for",
    "attempts.tokens_thought": "tokens that the model thought before its answer",
    "attempts.truncated": "1: cut off where no more tokens were allowed",
    "attempts.nth": "Which start of its limit this is, counted from 1: the starts since a moment"
    " are a subtraction of two of these. Below 0: the request could not be sent, so the attempt"
    " took no place of the window; the next start has that number without its sign. 0: made before"
    " starts were numbered.",
    "attempts_open": "The open attempts of a limit or a run.",
    "attempts_started": "The starts of a limit: its window.",
    "attempts_throttled": "The refusals of a limit.",
    "responses": "The answers. Apart from requests, so that a retry never rewrites a text.",
    "tallies": "How many requests of a prompt are in each state. The triggers prompts_insert,"
    " requests_insert and requests_transition keep it, so that to ask costs the same with ten rows"
    " and with ten million.",
    "prompt_views": "The views that prompts with a schema have made for their answers.",
    "prompt_columns": "The columns of the lists that prompts were given, for their views.",
    "runs": "One life of a process that crawls.",
    "runs.reason": "why it ended: see crawler/run/ending.py",
    "runs.heartbeat_at_ms": "moves while it turns",
    "runs_live": "The runs that have not ended.",
    "limits": "A quota that prompts share, and what has been learned of it.",
    "limits.paused_at_ms": "NULL: not paused",
    "limits.gate_reason": "what the refusal or failure said",
    "limits.adaptive": "1: it learns from refusals",
    "limits.gate_opens_at_ms": "when a single call may try it",
    "limits.rate": "calls a minute that are right now; NULL: nothing was refused yet",
    "limits.plateau": "the rate believed to be right; 0: all that is known is that more is",
    "limits.window_seen_at_ms": "when a window was last found to be used up",
    "limits.tokens_tat_us": "when all tokens that were taken have flowed in again",
    "limits.gate_since_ms": "when it closed first, ...",
    "limits.gate_closed_at_ms": "... and last: a call that started later tries it",
    "limits.gate_strikes": "calls that have tried it in vain, and the first of all",
    "limit_changes.what": "set, told, paused, gate_closed, rate_lowered, concurrency_raised, …",
    "owners.how": "made, trusted, or moved from another machine",
    "migrations": "The migrations that have been applied. One whose text has changed is refused.",
    "results": "The answers: a row for each request that has succeeded.",
    "failures": "The requests that have failed for good, and why; current is 0 where the prompt"
    " has a newer version.",
    "progress": "How many requests of each prompt version are in each state.",
    "throughput_per_minute": "Calls by the minute in which they started.",
    "limit_history": "Each change of a limit.",
}
"""What is said of a table, a column, an index, a trigger or a view."""

GROUPS = {
    "attempts.started_at_ms": "When it began and how it ended.",
    "attempts.tokens_in": "What it used; NULL: not known.",
    "limits.name": "What a person sets.",
    "limits.gate_closed_at_ms": "The gate: a refusal or an outage closes it for all calls.",
    "limits.tokens_per_minute": "What a person sets, continued.",
    "limits.started": "How many attempts have started under it, ever.",
    "limits.tokens_tat_us": "What is learned: see crawler/quota/state.py.",
    "limits.told_per_minute": "What the server has told; NULL: nothing.",
    "limits.gate_cause": "The gate, continued.",
}
"""What is said above the first column of a group."""


class Note(NamedTuple):
    """A comment of a migration: on lines before a definition, and at its end."""

    before: str
    beside: str


def at_once_script() -> str:
    """Return the text of migrations/at_once.sql."""
    conn = sqlite3.connect(":memory:")
    for migration in migrations():
        conn.executescript(migration.sql)
    rows = conn.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL").fetchall()
    conn.close()
    made = "".join(f"\n{sql};\n" for (sql,) in rows)
    return f"{mark_of(migrations())}{SCRIPT_HEAD}{made}"


def schema_page() -> str:
    """Return the text of docs/schema.sql. Raises LookupError for a table or view without a note."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn, 0)
    rows = conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql NOT NULL")
    made = {name: (kind, table, sql) for kind, name, table, sql in rows}
    conn.close()
    told = _notes()
    listed = {name for names in SECTIONS.values() for name in names}
    others = [name for name, (kind, *_) in made.items() if kind in ("table", "view")]
    others = [name for name in others if name not in listed]
    parts = [HEAD.format(version=newest_version())]
    for title, names in {**SECTIONS, "More": others}.items():
        if names:
            parts.append(f"\n-- ---- {title} ----\n")
        for name in names:
            kind, _, sql = made[name]
            if name not in told:
                raise LookupError(f"{name} has no comment: give it one in its migration")
            text = _table(name, sql, told) if kind == "table" else f"{sql};"
            parts.append(f"\n{_comment(told[name].before)}{text}\n")
            for below in ("index", "trigger"):
                parts += [
                    _small(other, below, sql, told)
                    for other, (kind, table, sql) in made.items()
                    if kind == below and table == name
                ]
    return "".join(parts)


def _small(name: str, kind: str, sql: str, told: dict[str, Note]) -> str:
    if kind == "index":
        sql = " ".join(sql.split())
        if len(sql) >= WIDTH:
            sql = sql.replace(" WHERE", "\n    WHERE")
    return f"\n{_comment(told[name].before if name in told else '')}{sql};\n"


def _table(name: str, sql: str, told: dict[str, Note]) -> str:
    """Return a table's definition, a column a line, each with its comment."""
    head, definitions, tail = _split(sql)
    columns = [definition.partition(" ") for definition in definitions]
    width = max(len(column) for column, _, _ in columns if column.islower())
    lines = []
    for n, (column, _, rest) in enumerate(columns):
        comma = "," if n < len(columns) - 1 else ""
        note = told.get(f"{name}.{column}", Note("", ""))
        is_column = column.islower()
        written = f"{column:{width}} {rest}{comma}" if is_column else f"{column} {rest}{comma}"
        if note.before:
            lines += ["", *(f"    {line}" for line in _comment(note.before).splitlines())]
        with_note = f"    {written:{COMMENTS_AT}}  -- {note.beside}"
        if note.beside and len(with_note) <= WIDTH:
            lines.append(with_note)
            continue
        lines += [f"    {line}" for line in _comment(note.beside).splitlines()]
        lines += _wrapped(written, 4 + (width + 1 if is_column else 4))
    body = "\n".join(lines)
    return f"{head}\n{body}\n){tail};"


def _wrapped(definition: str, indent: int) -> list[str]:
    """Wrap a definition where a term ends: between the two sides of ``=`` no line is broken."""
    kept = re.sub(r" (=|<>|>=|>) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", definition)
    lines = textwrap.wrap(
        kept, WIDTH, initial_indent="    ", subsequent_indent=" " * indent, break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _split(sql: str) -> tuple[str, list[str], str]:
    """Split a table's definition: what is before its columns, these, and what is after them."""
    sql = " ".join(re.sub(r"--[^\n]*", "", sql).split())
    begin, depth, found, last = sql.index("("), 0, [], 0
    for at, char in enumerate(sql):
        depth += (char == "(") - (char == ")")
        if at == begin:
            last = at + 1
        elif (char == "," and depth == 1) or (char == ")" and depth == 0):
            found.append(sql[last:at].strip())
            last = at + 1
            if depth == 0:
                break
    return sql[: begin + 1], found, f" {sql[last:].strip()}".rstrip()


def _comment(text: str) -> str:
    return "".join(f"-- {line}\n" for line in textwrap.wrap(text, WIDTH - 8))


def _notes() -> dict[str, Note]:
    """Return the comments, by the names of what they are on; columns as ``table.column``."""
    found: dict[str, Note] = {}
    for migration in migrations():
        for statement in statements(migration.sql):
            found.update(_notes_of(statement))
    for name, text in NOTES.items():
        is_column = "." in name
        long = is_column and text[-1] == "."
        old = found.get(name, Note("", ""))
        found[name] = Note(old.before, text) if is_column and not long else Note(text, "")
    for name, text in GROUPS.items():
        found[name] = Note(text, found.get(name, Note("", "")).beside)
    return found


def _notes_of(statement: str) -> dict[str, Note]:
    """Return the comments of one statement of a migration."""
    made = re.search(r"^CREATE (?:UNIQUE )?(\w+) (\w+)", statement, re.MULTILINE)
    added = re.search(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", statement, re.MULTILINE)
    match = made or added
    if match is None:
        return {}
    before = re.search(r"((?:^--[^\n]*\n)+)\Z", statement[: match.start()], re.MULTILINE)
    block = " ".join(line.strip("- ") for line in before[1].splitlines()) if before else ""
    if added:
        beside = statement[match.start() :].partition("--")[2].strip()
        return {f"{added[1]}.{added[2]}": Note(block, beside)}
    kind, name = match.groups()
    found = {name: Note(block, "")} if block else {}
    if kind == "TABLE":
        for column, text in re.findall(r"^    ([a-z]\w*) .*-- (.*)$", statement, re.MULTILINE):
            found[f"{name}.{column}"] = Note("", text.strip())
    return found


if __name__ == "__main__":
    SCRIPT.write_text(at_once_script(), "utf-8")
    PAGE.write_text(schema_page(), "utf-8")
    sys.stderr.write(f"{SCRIPT} and {PAGE} are renewed\n")
