"""Measures what a row costs with a real HTTP provider, beside a client that does the least.

    scripts/bench openai [--words 5000] [--rounds 3] [--dir FOLDER]

Against openai_server.py on the loopback (answers of 500 characters after 5 ms), in turn:

    crawler      `crawler run --provider openai`: asks, stores the answers, keeps the ledger
    bare client  bare_client.py: as many workers, the same words, bodies and session settings;
                 it reads the JSON of the answers and stores nothing

Both are whole child processes; their CPU time is taken from the kernel at their end, so imports are
in it. Prompt and words are added before. The figures are CPU ms a row and seconds of wall time, and
the ratios crawler : bare client, round by round and as medians.
"""

import argparse
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import harness
from harness import Usage

CONCURRENCY = 100


def crawl(folder: Path, words: Path, address: str, count: int) -> Usage:
    """Measure a crawl of a new file."""
    database = folder / "crawl.db"
    harness.prepare(database, words, "--provider", "openai", "--model", "m")
    asked = ("run", "--provider", "openai", "--model", "m", "--concurrency", CONCURRENCY)
    usage = harness.measure(harness.program(database, *asked), harness.server_environment(address))
    conn = sqlite3.connect(database)
    (answers,) = conn.execute("SELECT count(*) FROM responses").fetchone()
    conn.close()
    assert answers == count, f"{answers} answers for {count} words"
    for path in folder.glob("crawl.db*"):
        path.unlink()
    return usage


def bare(words: Path, address: str) -> Usage:
    """Measure the bare client."""
    script = harness.HERE / "bare_client.py"
    return harness.measure([sys.executable, str(script), address, str(words), str(CONCURRENCY)])


def show(title: str, pairs: list[tuple[Usage, Usage]], count: int) -> None:
    """Print the medians of some rounds, and the median of their ratios."""
    ours, theirs = (
        Usage(*map(median, zip(*side, strict=True))) for side in zip(*pairs, strict=True)
    )
    cpu = median(own.cpu_s / other.cpu_s for own, other in pairs)
    wall = median(own.wall_s / other.wall_s for own, other in pairs)
    print(
        f"{title}: crawler {ours.cpu_s * 1000 / count:.3f} ms CPU a row, {ours.wall_s:.2f} s;"
        f" bare client {theirs.cpu_s * 1000 / count:.3f} ms, {theirs.wall_s:.2f} s;"
        f" ratio {cpu:.2f} of the CPU time, {wall:.2f} of the wall time"
    )


def in_turn(args: argparse.Namespace, folder: Path, address: str) -> Iterator[tuple[Usage, Usage]]:
    """Yield what the crawler and the bare client cost, round by round."""
    words = folder / "words.txt"
    harness.write_words(words, args.words)
    for _ in range(args.rounds):
        yield crawl(folder, words, address, args.words), bare(words, address)


def measure(args: argparse.Namespace, folder: Path, address: str) -> None:
    """Measure both in turn and print."""
    pairs = []
    for number, pair in enumerate(in_turn(args, folder, address), 1):
        pairs.append(pair)
        show(f"round {number}", pairs[-1:], args.words)
    show("median ", pairs, args.words)


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--words", type=int, default=5_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--latency-ms", default="5", metavar="LOW[,HIGH]", help="of the server")
    args = options.parse_args(argv)
    print(f"{args.words} words, concurrency {CONCURRENCY}, latency {args.latency_ms} ms")
    with (
        harness.workspace(args.dir) as folder,
        harness.server("--latency-ms", args.latency_ms) as address,
    ):
        measure(args, folder, address)


if __name__ == "__main__":
    main()
