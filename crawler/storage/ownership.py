"""Whose a file is: who made it, and whether the person at work has trusted it.

Rule: reading is free. A file that another user made is not written to, and nobody is asked for it,
before it was said what would be asked of whom, and the person has said --trust: once. What a file
says of other people's trust counts for nothing. It can say what it likes, also that it is ours:
who knows a login name can write it there. Then the host is another one, which is told.
"""

import json
import os
import pwd
import re
import socket
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit, count_of, quoted
from crawler.storage import waiting

RECORDED_SINCE = 11
"""The version of the schema from which on files say who made them."""
_SHOWN = 5
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_LONGEST = 60
"""Characters of a name that are told."""

trusting = False
"""The person at work has said --trust. The program sets it from its command line."""


class _Row(NamedTuple):
    user: str
    host: str
    how: str


def require_trusted(conn: sqlite3.Connection, path: Path, version: int) -> None:
    """Refuse a file that another user made, or tell of it where it is trusted now.

    Raises CrawlerError, with what would be asked of whom.
    """
    stranger = _stranger(conn, path, version)
    if not stranger:
        return
    if trusting:
        waiting.say(f"{path} {stranger}, and you trust it: {_asked(conn)}")
        return
    raise CrawlerError(
        f"{path} {stranger}, and you have not said that you trust it",
        f"with your keys, and at your cost, {_asked(conn)}",
        "you may read it: crawler status, crawler prompt list; to go on, give the same command"
        " with --trust, once",
        Exit.CONFIGURATION,
    )


def record(conn: sqlite3.Connection, path: Path, now_ms: int) -> None:
    """Put on record who works with a file; tell once what a person may not expect of it."""
    me, host = login(), socket.gethostname()
    rows = _rows(conn)
    mine = next((row for row in rows if row.user == me), None)
    how = "trusted" if trusting else "moved" if rows else "made"
    if mine is not None and mine.host != host:
        # A row for each user: in containers the name of the host is another one each time.
        conn.execute(
            "UPDATE owners SET host = ? WHERE user = ? AND host = ?", (host, me, mine.host)
        )
        waiting.say(f"{path} is yours, from another machine ({mine.host})")
    if mine is None or (trusting and mine.how != how):
        conn.execute(
            "INSERT INTO owners (user, host, how, since_ms) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (user, host)"
            " DO UPDATE SET how = excluded.how, since_ms = excluded.since_ms",
            (me, host, how, now_ms),
        )
    _tell_open(conn, path, me, host)


def whose(path: Path) -> str:
    """Return whose a file is where it is not the user's own."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return "" if found.st_uid == os.geteuid() else f" (the file belongs to user {found.st_uid})"


def login() -> str:
    """Return the name of the user that this process works for."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _stranger(conn: sqlite3.Connection, path: Path, version: int) -> str:
    """Return whose a file is where it is not the user's; empty where it is."""
    me = login()
    owner = path.stat().st_uid
    if version < RECORDED_SINCE:
        # Where nothing can be asked there is nothing to trust.
        known = (
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM prompts)"
            " OR EXISTS (SELECT 1 FROM runs WHERE host = ?)"
        )
        rows = []
        hows = {"made"} if conn.execute(known, (socket.gethostname(),)).fetchone() else set()
    else:
        rows = _rows(conn)
        hows = {row.how for row in rows if row.user == me}
    if "trusted" in hows or (hows and owner == os.geteuid()):
        return ""
    if owner != os.geteuid():
        return f"belongs to {_name_of(owner)}"
    maker = next((row for row in rows if row.how == "made"), None)
    return f"was made by {maker.user} on {maker.host}" if maker else "does not say who made it"


def _rows(conn: sqlite3.Connection) -> list[_Row]:
    rows = conn.execute("SELECT user, host, how FROM owners ORDER BY since_ms LIMIT 1000")
    return [_Row(*row) for row in rows]


def _name_of(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (user {uid})"
    except KeyError:
        return f"user {uid}"


def _asked(conn: sqlite3.Connection) -> str:
    """Return what would be asked of whom, in words."""
    rows = conn.execute(
        "SELECT provider, model, params, count(requests.id) AS words FROM prompts"
        " LEFT JOIN requests ON prompt_id = prompts.id AND state IN ('pending', 'leased')"
        " WHERE current = 1 GROUP BY prompts.id ORDER BY words DESC, prompts.id"
    ).fetchall()
    told = [
        f"{_cut(provider)} ({_cut(model)}) would be asked about {count_of(words, 'word')}"
        for provider, model, _, words in rows[:_SHOWN]
    ]
    more = [f"and {count_of(len(rows) - _SHOWN, 'prompt')} more"] if len(rows) > _SHOWN else []
    told = _secrets([(provider, params) for provider, _, params, _ in rows]) + told + more
    return "; ".join(told) or "nobody would be asked: it has no prompt"


def _secrets(prompts: Sequence[tuple[str, str]]) -> list[str]:
    """Return what would be sent of the environment; what is set comes first: nothing hides it."""
    sent = {name: provider for provider, params in prompts for name in _variables(params)}
    names = sorted(sent, key=lambda name: (name not in os.environ, name))
    told = [f"{_cut(sent[name])} would be sent ${_cut(name)}" for name in names[:_SHOWN]]
    return told + (
        [f"and {count_of(len(sent) - _SHOWN, 'variable')} more"] if len(sent) > _SHOWN else []
    )


def _variables(params: str) -> list[str]:
    """Return the variables that headers name: what they hold would be sent."""
    try:
        headers = json.loads(params).get("headers", {})
        values = list(headers.values())
    except (AttributeError, RecursionError, ValueError):
        return []  # then no header is sent, either
    found = [_VARIABLE.fullmatch(value) for value in values if isinstance(value, str)]
    return [match[1] for match in found if match]


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def _tell_open(conn: sqlite3.Connection, path: Path, me: str, host: str) -> None:
    """Say once that others may read a file."""
    if not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return
    told = conn.execute(
        "UPDATE owners SET open_told = 1 WHERE user = ? AND host = ? AND open_told = 0", (me, host)
    ).rowcount
    if told:
        waiting.say(f"others may read {path}, and all answers in it: chmod 600 {quoted(path)}")
