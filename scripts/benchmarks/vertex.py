"""Measures what a row costs over gRPC, beside a bare loop that stores nothing.

    scripts/bench vertex [--words 5000] [--rounds 3] [--sides SIDE ...] [--dir FOLDER]

Against `crawler emulator` (5 ms, no quota), 200 calls in flight, in turn:

    crawler    a crawl of a new file, durable (synchronous=FULL): asks, stores, keeps the ledger
    call path  the provider alone: the same messages over the same connections, nothing stored
    bare loop  grpc.aio with bytes in and bytes out, over as many connections

Each is vertex_side.py in a process of its own, which counts its CPU time from where all is imported
and connected. Then, once: the CPU time from the start of the program to its end for one word, as
`crawler run` and as `crawler ask`, imports and all. With --sides only those that are
named; the bare loop, which the others are compared with, has to be among them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
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


def in_turn(
    folder: Path, args: argparse.Namespace, environment: dict[str, str]
) -> Iterator[dict[str, Cost]]:
    """Yield what the sides cost, round by round."""
    words = folder / "words.txt"
    harness.write_words(words, args.words)
    for _ in range(args.rounds):
        yield {side: cost(side, folder, words, environment) for side in args.sides}


def show(title: str, rounds: list[dict[str, Cost]], count: int) -> None:
    """Print the medians of some rounds, and the medians of their ratios to the bare loop."""
    print(title)
    for side in rounds[0]:
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
    options.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    args = options.parse_args(argv)
    if "bare loop" not in args.sides:
        options.error("the bare loop is what the others are compared with")
    with (
        harness.workspace(args.dir) as folder,
        harness.emulator("--latency-ms", args.latency_ms) as environment,
    ):
        rounds = []
        for number, costs in enumerate(in_turn(folder, args, environment), 1):
            rounds.append(costs)
            show(f"round {number}", rounds[-1:], args.words)
        show("median", rounds, args.words)
        if "crawler" in args.sides:
            show_starts(folder, environment)


if __name__ == "__main__":
    main()
