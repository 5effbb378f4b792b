"""Measures what a row costs over gRPC, beside a bare loop that stores nothing.

    scripts/bench vertex [--words 5000] [--rounds 3] [--dir FOLDER]

Against `crawler emulator` (5 ms, no quota), 200 calls in flight, in turn:

    crawler    a crawl of a new file, durable (synchronous=FULL): asks, stores, keeps the ledger
    call path  the provider alone: the same messages over the same connections, nothing stored
    bare loop  grpc.aio with bytes in and bytes out, over as many connections

Each is vertex_side.py in a process of its own, which counts its CPU time from where all is imported
and connected. Then, once: the CPU time from the start of the program to its end for one word, as
`crawler run` and as `crawler ask`, imports and all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

import harness

SIDES = ("crawler", "call path", "bare loop")


class Cost(NamedTuple):
    """What one side has taken."""

    cpu_s: float
    wall_s: float


def cost(side: str, folder: Path, words: Path, environment: dict[str, str]) -> Cost:
    """Run one side in a process of its own."""
    database = folder / "crawl.db"
    if side == "crawler":
        harness.prepare(database, words, "--provider", "vertex")
        limit = ("limit", "vertex", "--concurrency", 200)
        harness.measure(harness.program(database, *limit))
    script = [sys.executable, str(harness.HERE / "vertex_side.py"), side, str(words), str(database)]
    done = subprocess.run(
        script, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{side} failed\n{done.stderr[-2000:]}")
    for path in folder.glob("crawl.db*"):
        path.unlink()
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def show(title: str, rounds: list[dict[str, Cost]], count: int) -> None:
    """Print the medians of some rounds, and the medians of their ratios to the bare loop."""
    print(title)
    for side in SIDES:
        cpu_us = median(costs[side].cpu_s for costs in rounds) * 1e6 / count
        rate = count / median(costs[side].wall_s for costs in rounds)
        ratio = median(costs[side].cpu_s / costs["bare loop"].cpu_s for costs in rounds)
        print(f"  {side:10} {cpu_us:6.0f} us CPU a row, {rate:6.0f} rows/s, ratio {ratio:.2f}")


def show_starts(folder: Path, environment: dict[str, str]) -> None:
    """Print what one word costs, from the start of the program."""
    words = folder / "one.txt"
    harness.write_words(words, 1)
    for command in (["run"], ["ask", "laconic", "--prompt", "ask"]):
        database = folder / f"{command[0]}.db"
        harness.prepare(database, words, "--provider", "vertex")
        used = harness.measure(harness.program(database, *command), environment)
        print(f"start to end of crawler {command[0]} with one word: {used.cpu_s:.2f} s CPU")


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--words", type=int, default=5_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--latency-ms", type=int, default=5, help="of the emulator")
    args = options.parse_args(argv)
    with (
        harness.workspace(args.dir) as folder,
        harness.emulator("--latency-ms", args.latency_ms) as environment,
    ):
        words = folder / "words.txt"
        harness.write_words(words, args.words)
        rounds = []
        for number in range(1, args.rounds + 1):
            rounds.append({side: cost(side, folder, words, environment) for side in SIDES})
            show(f"round {number}", rounds[-1:], args.words)
        show("median", rounds, args.words)
        show_starts(folder, environment)


if __name__ == "__main__":
    main()
