"""Whose a file is: who made it, and whether the person at work has trusted it.

Rule: reading is free. A file that another user made is not written to, and nobody is asked for it,
before it was said what would be asked of whom, and the person has said --trust: once. What a file
says of other people's trust counts for nothing. It can say what it likes, also that it is ours:
who knows a login name can write it there. Then the host is another one, which is told.
"""

import os
import pwd
import re
import socket
import sqlite3
import stat
from pathlib import Path
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit, quoted
from crawler.storage import waiting

RECORDED_SINCE = 11
"""The version of the schema from which on files say who made them."""
_SHOWN = 5

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
        "reading is free: crawler status, crawler prompt list; to go on, once: the same command"
        " with --trust",
        Exit.CONFIGURATION,
    )


def record(conn: sqlite3.Connection, path: Path, now_ms: int) -> None:
    """Put on record who works with a file; tell once what a person may not expect of it."""
    me, host = login(), socket.gethostname()
    rows = _rows(conn)
    mine = next((row for row in rows if (row.user, row.host) == (me, host)), None)
    how = "trusted" if trusting else "moved" if rows else "made"
    if mine is None or (trusting and mine.how != how):
        conn.execute(
            "INSERT INTO owners (user, host, how, since_ms) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (user, host)"
            " DO UPDATE SET how = excluded.how, since_ms = excluded.since_ms",
            (me, host, how, now_ms),
        )
    if mine is None and how == "moved":
        before = next((row.host for row in rows if row.user == me), "?")
        waiting.say(f"{path} is yours, from another machine ({before})")
    _tell_open(conn, path, me, host)


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
        f"{provider} ({model}) would be asked about {words} word{'' if words == 1 else 's'}"
        + "".join(f", and sent ${name}" for name in _variables(params))
        for provider, model, params, words in rows[:_SHOWN]
    ]
    more = [f"and {len(rows) - _SHOWN} prompts more"] if len(rows) > _SHOWN else []
    return "; ".join(told + more) or "nobody would be asked: it has no prompt"


def _variables(params: str) -> list[str]:
    """Return the variables of the environment that headers name: what they hold would be sent."""
    return sorted(set(re.findall(r'"\$([A-Za-z_][A-Za-z0-9_]*)"', params)))


def _tell_open(conn: sqlite3.Connection, path: Path, me: str, host: str) -> None:
    """Say once that others may read a file."""
    if not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return
    told = conn.execute(
        "UPDATE owners SET open_told = 1 WHERE user = ? AND host = ? AND open_told = 0", (me, host)
    ).rowcount
    if told:
        waiting.say(f"others may read {path}, and all answers in it: chmod 600 {quoted(path)}")
