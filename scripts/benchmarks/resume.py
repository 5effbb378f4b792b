"""Measures how soon after a `kill -9` the next run makes its first call.

    scripts/bench resume [--rows 100000] [--rounds 5] [--dir FOLDER]

Each round kills a run of `openai` against a loopback server with calls in flight, and starts the
next: from the start of that process to the first arrival at the server. Beside it, in the same
round, what a process takes that only makes the imports.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import harness

OPENAI = ("--provider", "openai", "--model", "m")
IMPORTS = "import crawler.cli.run, crawler.cli.crawl, crawler.providers.openai.service"
IN_FLIGHT = 20


class Resumed(NamedTuple):
    """How long it took, in seconds."""

    first_call_s: float
    imports_s: float


def killed(database: Path) -> float:
    """Run until calls arrive, and kill the run; return seconds from its start to the first."""
    with harness.server("--latency-ms", 200) as address:
        started_at_s = time.monotonic()
        run = subprocess.Popen(
            harness.program(database, "run"),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **harness.server_environment(address)},
        )
        while harness.server_stats(address)["requests"] < IN_FLIGHT:
            if run.poll() is not None:
                raise SystemExit(f"the run has ended with code {run.returncode}")
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
        return float(harness.server_stats(address)["first_at"]) - started_at_s


def measure(database: Path) -> Resumed:
    """Resume once, and make the imports once."""
    first_call_s = killed(database)
    return Resumed(first_call_s, harness.measure([sys.executable, "-c", IMPORTS]).wall_s)


def in_turn(folder: Path, args: argparse.Namespace) -> Iterator[Resumed]:
    """Yield how long it took, round by round."""
    words, database = folder / "words.txt", folder / "c.db"
    harness.write_words(words, args.rows)
    harness.prepare(database, words, *OPENAI)
    harness.measure(harness.program(database, "limit", "openai", "--concurrency", IN_FLIGHT))
    killed(database)  # the first life; the others find calls of a dead run
    for _ in range(args.rounds):
        yield measure(database)


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args(argv)
    with harness.workspace(args.dir) as folder:
        rounds = list(in_turn(folder, args))
    first_s = [round_.first_call_s for round_ in rounds]
    print(
        f"resume: {args.rows} words, killed with {IN_FLIGHT} calls in flight: first call after"
        f" {median(first_s):.2f} s (at the most {max(first_s):.2f} s, in {args.rounds} rounds);"
        f" a process that only makes the imports takes"
        f" {median(round_.imports_s for round_ in rounds):.2f} s"
    )


if __name__ == "__main__":
    main()
