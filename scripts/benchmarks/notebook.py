"""Measures the loads of docs/notebook.md, each by `crawler run` against `crawler emulator`.

    scripts/bench notebook [--quick] [--jobs 6] [--dir FOLDER]

20, 65, 180 and 200 words, with 60 and with 600 calls a minute as limit and as quota, in a fixed
and in a sliding window. All words have to succeed, and no call may be refused. Then with a limit
that is too high, 80 for a quota of 60: calls are refused, and still all words have to succeed, at
no failure of theirs.

Seconds are those from the first call to the end of the last; beside them are the best possible for
who may start so many in any 60 s. Nearly all of it is waiting, so that several loads are run at
once (--jobs); that takes four or five minutes, and with --quick (600 a minute only) half of one.
"""

import json
import math
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import harness

LOADS = (20, 65, 180, 200)
QUOTAS = (60, 600)
WINDOWS = ("fixed", "sliding")
LATENCY_MS = 300


class Load(NamedTuple):
    """What is run."""

    words: int
    limit: int
    quota: int
    window: str


class Outcome(NamedTuple):
    """What came of it."""

    seconds: float
    succeeded: int
    failures: int
    throttled: int


def loads(*, quick: bool) -> list[Load]:
    """Return what is to be run."""
    wanted = [
        Load(words, quota, quota, window)
        for quota, window, words in product(QUOTAS, WINDOWS, LOADS)
        if quota > 60 or not quick
    ]
    return wanted if quick else [*wanted, *(Load(180, 80, 60, window) for window in WINDOWS)]


def run(folder: Path, load: Load) -> Outcome:
    """Run a load in files of its own."""
    base = folder / "-".join(map(str, load))
    database, log = base.with_suffix(".db"), base.with_suffix(".jsonl")
    words = base.with_suffix(".txt")
    harness.write_words(words, load.words)
    harness.prepare(database, words, "--provider", "vertex")
    options = ("--per-minute", load.quota, "--window", load.window, "--latency-ms", LATENCY_MS)
    with harness.emulator(*options, "--log", log) as environment:
        command = harness.program(database, "run", "--per-minute", load.limit)
        harness.measure(command, environment)
    codes = [json.loads(line)["code"] for line in log.read_text("utf-8").splitlines()]
    return outcome(database, codes.count("RESOURCE_EXHAUSTED"))


def outcome(database: Path, throttled: int) -> Outcome:
    """Return what the file has on record, and how many calls the emulator has refused."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as conn:
        (took_ms,) = conn.execute(
            "SELECT max(finished_at_ms) - min(started_at_ms) FROM attempts"
        ).fetchone()
        succeeded, failures = conn.execute(
            "SELECT sum(state = 'succeeded'), sum(failures) FROM requests"
        ).fetchone()
    return Outcome(took_ms / 1000, succeeded, failures, throttled)


def best_s(load: Load) -> int:
    """Return the shortest time from the first start to the last that the quota allows."""
    return 60 * (math.ceil(load.words / load.quota) - 1)


def faults(load: Load, found: Outcome) -> list[str]:
    """Return what is not as it has to be."""
    too_high = load.limit > load.quota
    holds = {
        "not all words have succeeded": found.succeeded == load.words,
        "words were charged with failures": found.failures == 0,
        "nothing was refused": found.throttled > 0 or not too_high,
        "calls were refused": found.throttled == 0 or too_high,
    }
    return [fault for fault, is_fine in holds.items() if not is_fine]


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--quick", action="store_true", help="only the loads with 600 a minute")
    options.add_argument("--jobs", type=int, default=6, help="loads at once [6]")
    args = options.parse_args(argv)
    wanted, found_faults = loads(quick=args.quick), []
    print("words  limit  quota  window   seconds   best  succeeded  throttled")
    with harness.workspace(args.dir) as folder, ThreadPoolExecutor(args.jobs) as pool:
        for load, found in zip(wanted, pool.map(partial(run, folder), wanted), strict=True):
            wrong = faults(load, found)
            found_faults += wrong
            print(
                f"{load.words:5}  {load.limit:5}  {load.quota:5}  {load.window:7}"
                f"  {found.seconds:7.1f}  {best_s(load):5}  {found.succeeded:9}"
                f"  {found.throttled:9}  {'; '.join(wrong)}".rstrip(),
                flush=True,
            )
    if found_faults:
        raise SystemExit("it is not as it has to be")


if __name__ == "__main__":
    main()
