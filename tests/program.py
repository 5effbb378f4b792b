"""Runs the program, in this process or in one of its own; reads what it says and what it leaves."""

import hashlib
import io
import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import NamedTuple

from crawler.cli import main

SHAPE = re.compile(r"error: (.+)\n  cause: (.+)\n  hint: (.+)\n")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def crawler(*args, stdin=""):
    """Run the program as ``crawler ARGS`` would."""
    out, err = io.StringIO(), io.StringIO()
    argv, stdin_before = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["crawler", *map(str, args)], io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        return Ran(int(end.code), out.getvalue(), err.getvalue())
    finally:
        sys.argv, sys.stdin = argv, stdin_before
    raise AssertionError("the program always exits")


BOUNDED = """
import resource, sys
_, name, most, *args = sys.argv
resource.setrlimit(getattr(resource, name), (int(most), int(most)))
sys.argv = ["crawler", *args]
from crawler.cli import main
main()
"""
"""The program with a bound on what it may use. It sets that itself: a function to be called between
fork and exec would run in a copy of this process, with its threads gone and their locks held."""


def crawler_process(*args, stdin=b"", env=None, bound=None):
    """Run the program in a process of its own.

    ``bound`` is the name of a limit of the system and the most that it allows.
    """
    program = ["-m", "crawler"] if bound is None else ["-c", BOUNDED, *map(str, bound)]
    done = subprocess.run(
        [sys.executable, *program, *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=150,
        env={**os.environ, **(env or {})},
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def crawler_terminal(*args, env=None):
    """Run the program in a process of its own, with a terminal for all that it prints."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "crawler", *map(str, args)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    ) as running:
        os.close(its)
        shown = b""
        with suppress(OSError):  # the terminal is gone when nobody holds it any more
            while part := os.read(ours, 65_536):
                shown += part
        os.close(ours)
        code = running.wait(60)
    return Ran(code, shown.decode().replace("\r\n", "\n"), "")


def told(ran, code):
    """Return what, cause and hint of an error; a program tells nothing else, but what it logs."""
    match = SHAPE.fullmatch(re.sub(r"^\{.*\}\n", "", ran.err, flags=re.MULTILINE))
    assert match, ran
    assert ran.code == code, ran
    assert ran.out == "", ran
    return match.groups()


def state_of(folder):
    """Return all that there is of the files of a folder: names, bytes, times, modes.

    SQLite leaves an index and an empty log beside a file in WAL mode that it has only read.
    """
    for left in folder.glob("*-wal"):
        assert left.stat().st_size == 0
        left.unlink()
        left.with_name(left.name.replace("-wal", "-shm")).unlink()
    return {
        path.name: (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in folder.iterdir()
    }


def add_prompt(db, name, template, *params, provider="scripted"):
    """Add a prompt that is known to be good."""
    options = [item for param in params for item in ("--param", param)]
    ran = crawler(
        "--db", db, "prompt", "add", name, "--template", template, "--provider", provider, *options
    )
    assert ran.code == 0, ran


def rows(db, sql, *values):
    """Return the rows of a query."""
    conn = sqlite3.connect(db)
    try:
        return conn.execute(sql, values).fetchall()
    finally:
        conn.close()
