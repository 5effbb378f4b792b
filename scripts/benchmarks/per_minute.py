"""Measures how well the limit per minute is kept and used, against a server that counts exactly.

    scripts/bench per_minute [--part a|b] [--per-minute 600] [--words N] [--dir FOLDER]

    a  one process, 1,000 words: seconds from the first arrival at the server to the last, and
       refusals, of which there must be none
    b  three processes on one file, 3,000 words. After 90 s (--kill-at), the first of them that
       has 10 calls in flight (--in-flight) is killed (SIGKILL), and 5 s later another takes its
       place; as calls leave in bursts, that is when the next minute begins. With --in-flight 0
       one is killed at the given time. Then: the most arrivals within any 60 s, refusals, words
       that were asked twice, which must all have been in flight at the kill, and what
       `crawler check` finds

The best possible time from first to last arrival is a minute for each time that the window has to
be filled again; a call that was lost in the kill is one more call. Part a takes a minute, part b
five or six. For a quick try: --part a --per-minute 60 --words 100, and --part b --words 700
--kill-at 30, some 60 s each.
"""

import argparse
import math
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import harness

CONCURRENCY = 100
PROCESSES = 3
RESTART_S = 5
ARRIVE_S = 0.12
"""How long calls are given to reach the server, new connections included, before the kill."""
WAIT_S = 180
GIVE_UP_S = 1_800


class Killed(NamedTuple):
    """What is known of the process that was killed."""

    at_s: float
    """Since the start."""
    run_id: int


def part_a(folder: Path, args: argparse.Namespace) -> None:
    """One process."""
    words, database = args.words or 1_000, prepared(folder, args.words or 1_000)
    with harness.server(*server_options(args)) as address:
        usage = harness.measure(run_command(database, args), harness.server_environment(address))
        stats = harness.server_stats(address)
    print(f"a: {words} words, {args.per_minute} a minute, one process")
    show(stats, args.per_minute, words)
    print(f"  the process: {usage.wall_s:.1f} s, CPU {usage.cpu_s:.1f} s")


def part_b(folder: Path, args: argparse.Namespace) -> None:
    """Three processes, one of them killed."""
    words, database = args.words or 3_000, prepared(folder, args.words or 3_000)
    with harness.server(*server_options(args)) as address:
        environment = harness.server_environment(address)
        killed = run_and_kill(database, args, environment)
        stats = harness.server_stats(address)
    lost = lost_words(database, killed.run_id)
    print(
        f"b: {words} words, {args.per_minute} a minute, {PROCESSES} processes, one killed after"
        f" {killed.at_s:.1f} s with {len(lost)} calls in flight, another {RESTART_S} s later"
    )
    show(stats, args.per_minute, words, len(lost))
    again = stats["asked_again"]
    print(
        f"  asked twice: {len(again)} words, {len(lost.intersection(again))} of them in flight at"
        f" the kill (must be all); {again_ratio(again, lost)} of those in flight had arrived"
    )
    show_file(database, words)


def again_ratio(again: list[str], lost: set[str]) -> str:
    """Return which share of the calls that were lost had reached the server."""
    return f"{len(lost.intersection(again)) / len(lost):.2f}" if lost else "none"


def server_options(args: argparse.Namespace) -> list[str]:
    """Return the options of the server."""
    return ["--per-minute", str(args.per_minute), "--latency-ms", args.latency_ms]


def prepared(folder: Path, words: int) -> Path:
    """Return a file with words to ask about."""
    database, path = folder / f"{words}.db", folder / f"{words}.txt"
    harness.write_words(path, words)
    harness.prepare(database, path, "--provider", "openai", "--model", "m")
    return database


def run_command(database: Path, args: argparse.Namespace) -> list[str]:
    """Return the command that crawls."""
    limits = ("--per-minute", args.per_minute, "--concurrency", CONCURRENCY)
    return harness.program(database, "run", *limits)


def run_and_kill(
    database: Path, args: argparse.Namespace, environment: Mapping[str, str]
) -> Killed:
    """Crawl with three processes to the end, killing one in between."""
    command = run_command(database, args)
    with database.with_suffix(".log").open("wb") as log, running() as processes:

        def begin() -> None:
            process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=log)
            processes[process.pid] = process

        started = time.monotonic()
        for _ in range(PROCESSES):
            begin()
        time.sleep(args.kill_at)
        run_id, pid = busy_run(database, args.in_flight)
        time.sleep(ARRIVE_S)
        processes[pid].kill()
        killed = Killed(time.monotonic() - started, run_id)
        assert processes.pop(pid).wait() == -9, "it had ended by itself: an earlier --kill-at"
        time.sleep(RESTART_S)
        begin()
        codes = [process.wait(GIVE_UP_S) for process in processes.values()]
    if any(codes):
        raise SystemExit(f"exit codes {codes}\n{log_end(database)}")
    return killed


@contextmanager
def running() -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Give a place for processes, by pid, and leave none of them behind."""
    processes: dict[int, subprocess.Popen[bytes]] = {}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def busy_run(database: Path, wanted: int) -> tuple[int, int]:
    """Wait until a run has that many calls in flight on record; return its id and its pid."""
    query = (
        "SELECT runs.id, pid FROM runs LEFT JOIN attempts"
        " ON run_id = runs.id AND finished_at_ms IS NULL"
        " WHERE ended_at_ms IS NULL GROUP BY runs.id HAVING count(run_id) >= ?"
    )
    give_up_at = time.monotonic() + WAIT_S
    with opened(database) as conn:
        while (found := conn.execute(query, (wanted,)).fetchone()) is None:
            if time.monotonic() > give_up_at:
                raise SystemExit(f"none ever had {wanted} calls in flight: --in-flight FEWER")
            time.sleep(0.005)
    return found


def lost_words(database: Path, run_id: int) -> set[str]:
    """Return the words whose calls were in flight when their run was killed."""
    with opened(database) as conn:
        return {
            word
            for (word,) in conn.execute(
                "SELECT text FROM attempts JOIN requests ON requests.id = request_id"
                " JOIN words ON words.id = word_id WHERE run_id = ? AND outcome = 'abandoned'",
                (run_id,),
            )
        }


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a file to look at it."""
    conn = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        yield conn
    finally:
        conn.close()


def log_end(database: Path) -> str:
    """Return the last of what the processes have logged."""
    return database.with_suffix(".log").read_text("utf-8")[-2000:]


def show(stats: Mapping[str, Any], per_minute: int, words: int, lost: int = 0) -> None:
    """Print what the server has counted, beside the best possible."""
    print(
        f"  server: {stats['requests']} requests, {stats['refused']} refused (must be 0),"
        f" at most {stats['most_in_60_s']} within any 60 s (may be {per_minute})"
    )
    took_s = stats["last_at"] - stats["first_at"]
    print(f"  first to last arrival {took_s:.2f} s; {beside_best(took_s, words, per_minute)}")
    if lost:
        print(f"  with those lost in the kill, {beside_best(took_s, words + lost, per_minute)}")


def beside_best(took_s: float, calls: int, per_minute: int) -> str:
    """Return a time beside the best possible from the first of some calls to the last."""
    best_s = 60 * (math.ceil(calls / per_minute) - 1)
    ratio = f", ratio {took_s / best_s:.3f}" if best_s else ""
    return f"the best for {calls} calls is {best_s} s{ratio}"


def show_file(database: Path, words: int) -> None:
    """Print what became of the words, and what the program's own check finds."""
    with opened(database) as conn:
        (answers,) = conn.execute("SELECT count(*) FROM responses").fetchone()
    checked = subprocess.run(harness.program(database, "check"), capture_output=True, text=True)
    broken = [line for line in checked.stdout.splitlines() if not line.startswith("ok")]
    verdict = "nothing broken" if checked.returncode == 0 else "\n".join(broken) + checked.stderr
    print(f"  answers: {answers} for {words} words; crawler check: {verdict}")


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--part", choices=("a", "b", "both"), default="both")
    options.add_argument("--per-minute", type=int, default=600)
    options.add_argument("--words", type=int, help="[a: 1000, b: 3000]")
    options.add_argument("--latency-ms", default="100,200", metavar="LOW[,HIGH]")
    options.add_argument("--kill-at", type=float, default=90, metavar="SECONDS")
    options.add_argument("--in-flight", type=int, default=10, metavar="CALLS", help="at the kill")
    args = options.parse_args(argv)
    for part, name in ((part_a, "a"), (part_b, "b")):
        if args.part in (name, "both"):
            with harness.workspace(args.dir) as folder:
                part(folder, args)


if __name__ == "__main__":
    main()
