"""Draws docs/at-work.svg: the program on a terminal, as it was seen when this ran.

python -m tests.at_work
"""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent.parent / "docs" / "at-work.svg"
COLUMNS = 80
FRAMES = 40
"""Until it is interrupted."""


def seen(folder, arguments, *, frames=None):
    """Return what a command shows on a terminal of its own; Ctrl-C comes after some frames."""
    program, descriptor = pty.fork()
    if not program:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-m", "crawler", *arguments])
    size = struct.pack("HHHH", 24, COLUMNS, 0, 0)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)
    told = b""
    while True:
        try:
            piece = os.read(descriptor, 65_536)
        except OSError:
            piece = b""
        if not piece:
            os.waitpid(program, 0)
            return told.decode().replace("\r\n", "\n")
        told += piece
        if frames is not None and told.count(b"asks:") >= frames:
            os.kill(program, signal.SIGINT)
            frames = None


def last_frame(told):
    """Return the two lines of a run as they stood before it was interrupted."""
    before = told.partition("stopping")[0]
    return re.findall(r"asks: .*\n[━─]+.*?(?=\r|$)", before)[-1]


def main():
    """Crawl for some seconds, and draw what a person sees of it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)

    def typed(command, shown):
        console.print(Text("$ ", "bold green") + Text(command, "bold"))
        console.print(Text(shown.rstrip("\n")))

    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words.txt"
        words.write_text("".join(f"word{n}\n" for n in range(1, 5_001)), "utf-8")
        template = ["--template", "Define {word}.", "--provider", "scripted"]
        seen(folder, ["prompt", "add", "define", *template, "--param", "latency_ms=300"])
        typed("crawler add words.txt", seen(folder, ["add", "words.txt"]))
        run = seen(folder, ["run", "--concurrency", "8"], frames=FRAMES)
        ended = run.rpartition("\x1b[2K")[2]
        typed("crawler run --concurrency 8", f"{last_frame(run)}\n^C\n{ended}")
        query = "select word, tokens_out, attempts from results limit 3"
        typed(f'crawler sql "{query}"', seen(folder, ["sql", query]))
        typed("crawler run", "…")
    picture = console.export_svg(title="crawler")
    # Nothing is fetched from anywhere, for the sake of a font.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
