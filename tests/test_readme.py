"""The README is true: its console sessions are run, and what they print is compared."""

import os
import re
import subprocess
import sys
from pathlib import Path

from crawler.cli import COMMANDS
from crawler.errors import Exit

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
SESSIONS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)


def steady(text):
    """Put marks for what differs from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    text = re.sub(r"after \d+ ms", "after <time>", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


def test_every_console_session_prints_what_it_shows(tmp_path):
    assert len(SESSIONS) == 3
    shim = tmp_path / "bin" / "crawler"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m crawler "$@"\n')
    shim.chmod(0o755)
    env = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    env.pop("CRAWLER_DB", None)
    for session in SESSIONS:
        for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            command, _, shown = step.partition("\n")
            done = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert steady(done.stdout) == steady(shown), command


def test_every_command_has_a_place_in_the_readme():
    for command in COMMANDS:
        assert re.search(rf"crawler[^\n]* {command}\b|`{command}`", README), command


def test_the_exit_codes_of_the_readme_are_those_of_the_program():
    told = {int(code) for code in re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)}
    assert told == {code.value for code in Exit}
