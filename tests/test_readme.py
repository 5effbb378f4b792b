"""The README is true: its console sessions are run, and what they print is compared."""

import re
from pathlib import Path

from crawler.cli import COMMANDS
from crawler.errors import Exit
from tests.sessions import Shell, blocks, steady, steps

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
SESSIONS = [block.text for block in blocks(README) if block.language == "console"]


def test_every_console_session_prints_what_it_shows(tmp_path):
    assert len(SESSIONS) == 5
    [command] = re.findall(r"^    (crawler emulator .*)$", README, re.MULTILINE)
    shell = Shell(tmp_path)
    with shell.emulator(command):
        for session in SESSIONS:
            for command, shown in steps(session):
                assert steady(shell.run(command)) == steady(shown), command


def test_every_command_has_a_place_in_the_readme():
    for command in COMMANDS:
        assert re.search(rf"crawler[^\n]* {command}\b|`{command}`", README), command


def test_the_exit_codes_of_the_readme_are_those_of_the_program():
    told = {int(code) for code in re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)}
    assert told == {code.value for code in Exit}
