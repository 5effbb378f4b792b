"""Runs what a page shows, so that a test can compare what it prints with what the page says."""

import ast
import asyncio
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from crawler.cli import main

QUOTED = re.compile(r"""'[^']*'|"[^"$`\\]*\"""")
OF_A_SHELL = re.compile(r"[|&;<>$*`]")
ASIDE = re.compile(r"""(.+?)(?: 2(>>?) (\S+))?(; echo "exit code \$\?")?""", re.DOTALL)
"""A command, where its standard error goes, and whether its exit code is told."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


class Step(NamedTuple):
    """A command of a console session, and what the page says that it prints."""

    command: str
    shown: str


def blocks(page):
    """Return the fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [Block(*pair) for pair in found]


def steps(session):
    """Yield the steps of a console session; it goes on after a backslash at the end."""
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command = re.match(r"(?:.*\\\n)*.*", step)[0]
        yield Step(command, step.removeprefix(command))


def words(command):
    """Return the words of a command line, which may go on after a backslash at the end."""
    return shlex.split(command.replace("\\\n", " "), comments=True)


def steady(text):
    """Put marks for what differs from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    text = re.sub(r"after \d+ ms", "after <time>", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "<address>", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


class Shell:
    """A terminal in a folder of its own, where `crawler` is the program under test.

    What is `crawler` and its arguments, or a cell, runs in this process, which has made all
    imports, though its log goes to a file; what needs a shell runs in one, and the program in a
    process of its own.
    """

    def __init__(self, folder):
        shim = folder / "bin" / "crawler"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m crawler "$@"\n')
        shim.chmod(0o755)
        self._folder = folder
        self._env = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "COLUMNS": "100"}
        for name in ("CRAWLER_DB", "VERTEX_EMULATOR_HOST"):
            self._env.pop(name, None)

    def run(self, command):
        """Return what a command line prints; what is exported stays so, until it is unset."""
        exported = re.fullmatch(r"export (\w+)=(\S+)", command)
        if exported:
            self._env[exported[1]] = exported[2]
            return ""
        if forgotten := re.fullmatch(r"unset (\w+)", command):
            self._env.pop(forgotten[1], None)
            return ""
        alone, how, log, code = ASIDE.fullmatch(command).groups()
        if alone.startswith("crawler ") and not OF_A_SHELL.search(QUOTED.sub("", alone)):
            with self._here() as told, patch.object(sys, "argv", words(alone)), ExitStack() as own:
                if log:
                    file = own.enter_context(Path(log).open("a" if how == ">>" else "w"))
                    own.enter_context(redirect_stderr(file))
                try:
                    main()
                except SystemExit as end:
                    return told.getvalue() + (f"exit code {end.code}\n" if code else "")
                raise AssertionError("the program always exits")
        return self._output(["/bin/sh", "-c", command])

    def run_cell(self, code):
        """Return what a notebook's cell prints; as in notebooks, it may await."""
        compiled = compile(code, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with self._here() as told:
            awaited = eval(compiled, {"__name__": "__main__"})
            if inspect.iscoroutine(awaited):
                asyncio.run(awaited)
        return told.getvalue()

    @contextmanager
    def _here(self):
        """Be in this terminal: its folder, its environment, and (given) what is printed."""
        told = io.StringIO()
        with (
            chdir(self._folder),
            patch.dict(os.environ, self._env, clear=True),
            patch.object(sys, "stdin", io.StringIO()),
            redirect_stdout(told),
            redirect_stderr(told),
        ):
            yield told

    @contextmanager
    def emulator(self, command, lines=1):
        """Run `crawler emulator` in another terminal, at a free port, and name it in this one.

        Gives the first lines that it prints.
        """
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command} --port 0"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            told = [process.stdout.readline() for _ in range(lines)]
            self._env["VERTEX_EMULATOR_HOST"] = json.loads(told[0])["endpoint"]
            yield "".join(told)
        finally:
            process.terminate()
            process.communicate(timeout=20)

    def _output(self, command):
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.stdout
