"""Prints one table of what the others measure, in one run of at most ten minutes.

    scripts/bench all [--share 1.0] [--dir FOLDER]

Each row is a ratio to a bare loop that was measured beside it, round by round in turn; then how far
apart the rounds of that bare loop were, from the least to the most, as a share of their median. A
ratio that has changed by less than the spread says nothing. Times of the clock stand in the last
column. With --share of 0.01 a hundredth of the words is measured: to see that it works.

What waits for minutes by the clock has a table of its own: notebook, quota, per_minute; and what
needs a million rows: scale.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import harness
import openai
import resume
import vertex

ROUNDS = 5


class Line(NamedTuple):
    """A line of the table."""

    title: str
    ratio: float
    spread: float
    """Of the bare loop."""
    figures: str


def line(title: str, ours: Sequence[float], bare: Sequence[float], figures: str) -> Line:
    """Compare two sides, round by round."""
    ratio = median(own / other for own, other in zip(ours, bare, strict=True))
    return Line(title, ratio, (max(bare) - min(bare)) / median(bare), figures)


def of_turns(folder: Path, words: int) -> Iterator[Line]:
    """Compare a crawl without latency with plain sqlite3."""
    # Not before now: it brings the package with it, see harness.
    import turns  # noqa: PLC0415

    args = argparse.Namespace(words=words, batch=100, rounds=ROUNDS)
    pairs = list(turns.in_turn(folder, args))
    for name, of in (("CPU", "cpu_us"), ("wall", "wall_us")):
        ours, bare = ([getattr(pair[side], of) for pair in pairs] for side in (0, 1))
        yield line(
            f"turns: crawl : plain sqlite3, {name}",
            ours,
            bare,
            f"{median(ours):.1f} us a request, {median(bare):.1f} us",
        )


def of_openai(folder: Path, words: int) -> Iterator[Line]:
    """Compare a crawl over HTTP with a bare client."""
    args = argparse.Namespace(words=words, rounds=ROUNDS)
    with harness.server("--latency-ms", 5) as address:
        pairs = list(openai.in_turn(args, folder, address))
    for name, of in (("CPU", "cpu_s"), ("wall", "wall_s")):
        ours, bare = ([getattr(pair[side], of) for pair in pairs] for side in (0, 1))
        yield line(
            f"openai: crawler : bare client, {name}",
            ours,
            bare,
            f"{median(ours) * 1000 / words:.3f} ms a row, {median(bare) * 1000 / words:.3f} ms",
        )


def of_vertex(folder: Path, words: int) -> Iterator[Line]:
    """Compare a crawl over gRPC with a bare loop."""
    args = argparse.Namespace(words=words, rounds=ROUNDS, sides=vertex.SIDES)
    with harness.emulator("--latency-ms", 5) as environment:
        rounds = list(vertex.in_turn(folder, args, environment))
    bare = [costs["bare loop"].cpu_s for costs in rounds]
    for side in ("crawler", "call path"):
        ours = [costs[side].cpu_s for costs in rounds]
        yield line(
            f"vertex: {side} : bare loop, CPU",
            ours,
            bare,
            f"{median(ours) * 1e6 / words:.0f} us a row, {median(bare) * 1e6 / words:.0f} us",
        )


def of_resume(folder: Path, rows: int) -> Iterator[Line]:
    """Compare the first call after a kill with the imports alone."""
    args = argparse.Namespace(rows=rows, rounds=ROUNDS)
    rounds = list(resume.in_turn(folder, args))
    ours = [found.first_call_s for found in rounds]
    bare = [found.imports_s for found in rounds]
    yield line(
        f"resume: first call : imports, wall, {rows} words",
        ours,
        bare,
        f"{median(ours):.2f} s, {median(bare):.2f} s",
    )


PARTS = ((of_resume, 100_000), (of_openai, 4_000), (of_vertex, 4_000), (of_turns, 40_000))
"""Children first: what they use of memory is not to be hidden by the package in this process."""


def main(argv: list[str] | None = None) -> None:
    """Measure all, print the table."""
    options = harness.parser(__doc__)
    options.add_argument("--share", type=float, default=1.0, help="of the words  [1]")
    options.add_argument("--only", nargs="+", choices=[part.__name__[3:] for part, _ in PARTS])
    args = options.parse_args(argv)
    began_s = time.monotonic()
    print("ratio  bare loop +-  benchmark")
    for part, words in PARTS:
        if args.only and part.__name__[3:] not in args.only:
            continue
        with harness.workspace(args.dir) as folder, contextlib.redirect_stdout(io.StringIO()):
            found = list(part(folder, max(100, round(words * args.share))))
        for row in found:
            print(f"{row.ratio:5.2f}  {row.spread:11.0%}   {row.title}: {row.figures}", flush=True)
    print(f"{ROUNDS} rounds each, {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
