"""The page docs/notebook.md is true: all of it is run in its order, and its output is compared."""

import re
from contextlib import ExitStack
from pathlib import Path

from tests.sessions import Shell, blocks, steady, steps

PAGE = (Path(__file__).parent.parent / "docs" / "notebook.md").read_text("utf-8")


def compared(text):
    """Put a mark for the one count that is luck, and only where there is any."""
    return re.sub(r"(throttled +)[1-9]\d*", r"\1<some>", steady(text))


def test_every_row_prints_what_it_shows(tmp_path):
    found = blocks(PAGE)
    assert sum(block.language == "py" for block in found) >= 10, "a row for each step"
    shell = Shell(tmp_path)
    with ExitStack() as emulator:
        for block, after in zip(found, [*found[1:], None], strict=True):
            if block.language == "python":
                assert after.language == "text"
                assert compared(shell.run_cell(block.text)) == compared(after.text), block.text
            for command, shown in steps(block.text) if block.language == "console" else ():
                if command.startswith("crawler emulator"):
                    emulator.close()
                    told = emulator.enter_context(shell.emulator(command, lines=2))
                else:
                    told = shell.run(command)
                assert compared(told) == compared(shown), command
