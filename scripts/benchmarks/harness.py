"""What the benchmarks share: a place to work in, the program as a child process, and its cost.

Rule: only the standard library, and little of it. The peak memory that the kernel reports of a
child is never below that of its parent, so a parent that measures stays small.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PROGRAM = (sys.executable, "-c", "from crawler.cli import main; main()")
"""What the console script does, run by this interpreter."""
WORK_LEFT = 75


class Usage(NamedTuple):
    """What a child process has cost, imports included."""

    started_at_ms: float
    """Wall time just before it was started."""
    wall_s: float
    cpu_s: float
    peak_mib: float


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--dir", type=Path, default=Path(), help="where the databases go [here, and then removed]"
    )
    return options


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Make a folder for the databases, and remove it."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent.resolve()) as folder:
        yield Path(folder)


def word(number: int) -> str:
    """Return one of the words that are asked about."""
    return f"word{number:07d}"


def write_words(path: Path, count: int, seed: int | None = None) -> None:
    """Write a list of words, one a line; with a seed, shuffled."""
    order = array("I", range(count))
    if seed is not None:
        random.Random(seed).shuffle(order)
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{word(number)}\n" for number in order)


def program(database: Path, *arguments: object) -> list[str]:
    """Return the command line of the program."""
    return [*PROGRAM, "--db", str(database), *map(str, arguments)]


def prepare(database: Path, words: Path, *prompt_options: str) -> None:
    """Add a prompt that sends the bare word, and words to ask it about."""
    prepare_prompt(database, *prompt_options)
    measure(program(database, "add", words, "--prompt", "ask"))


def prepare_prompt(database: Path, *options: str) -> Usage:
    """Add a prompt that sends the bare word."""
    return measure(program(database, "prompt", "add", "ask", "--template", "{word}", *options))


def measure(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    codes: Sequence[int] = (0,),
) -> Usage:
    """Run a child process to its end and return what it has cost."""
    with tempfile.TemporaryFile() as output:
        started_at_ms, started = time.time_ns() / 1e6, time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in codes:
            output.seek(0)
            told = output.read().decode("utf-8", "replace")[-2000:]
            raise SystemExit(f"exit code {child.returncode} of {' '.join(command[1:])}\n{told}")
    return Usage(started_at_ms, wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def own_peak_mib() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def server(*options: object) -> Iterator[str]:
    """Run openai_server.py in a process of its own and give its address."""
    command = [sys.executable, str(HERE / "openai_server.py"), *map(str, options)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit("the server has not started")
        try:
            yield address
        finally:
            process.stdin.close()


def server_stats(address: str) -> dict[str, Any]:
    """Return what the server has counted."""
    import urllib.request  # noqa: PLC0415 - large, see above

    # The address is that of our own server, by http.
    with urllib.request.urlopen(f"{address.removesuffix('/v1')}/stats") as response:  # nosec B310
        return json.load(response)


def server_environment(address: str) -> dict[str, str]:
    """Return what tells the program where the server is."""
    return {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "a-key-for-nobody"}


@contextmanager
def emulator(*options: object) -> Iterator[dict[str, str]]:
    """Run the emulator of Vertex AI on a free port and give the environment that names it."""
    command = [*PROGRAM, "emulator", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the emulator has not started")
        try:
            yield {"VERTEX_EMULATOR_HOST": json.loads(line)["endpoint"]}
        finally:
            process.terminate()
