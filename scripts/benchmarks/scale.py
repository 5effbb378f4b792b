"""Measures what a million rows cost: adding them, starting beside them, leasing beside them.

    scripts/bench scale [--rows 1000000] [--rounds 5] [--turns] [--dir FOLDER]

    add       `crawler add` of a .txt file in shuffled order, as a whole process: words a second,
              CPU and peak memory; and the CPU time of a word (without what any command costs)
              beside that in a list of a tenth
    start     `crawler run --provider scripted --limit 200`: seconds from the start of the process
              to the first call on record, and peak memory; with a hundredth of the rows, with all
              of them pending, and with all of them finished and 100 new ones
    turn      the ledger's own `turn`, called synchronously, in batches of 100: CPU us of leasing
              and of finishing a row and of its part in the checkpoint, and wall us of all of it,
              in a file with nothing else, beside finished rows and beside rows that wait for a
              later time; round by round in turn, as medians and ratios to the first
    commands  CPU seconds of `crawler --help` and `crawler status`, minimum and median

Finished and waiting rows are made by the ledger's functions (by_hand.py), triggers and all. A
million rows need some 2 GB of disk.
"""

import shutil
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import harness
from harness import Usage

NEW = 100
CALLS = 200
SCRIPTED = ("--provider", "scripted")


class Start(NamedTuple):
    """How a run begins."""

    first_call_s: float
    peak_mib: float
    cpu_s: float


def add(folder: Path, rows: int) -> None:
    """Measure `crawler add` of many words; leaves them pending in base.db."""
    tenth, _ = add_once(folder, "tenth.db", rows // 10)
    cpu_s, usage = add_once(folder, "base.db", rows)
    print(
        f"add: {rows} words in {usage.wall_s:.1f} s, {rows / usage.wall_s:,.0f} words/s;"
        f" CPU {usage.cpu_s:.1f} s, {usage.cpu_s / usage.wall_s:.2f} of the wall time;"
        f" peak {usage.peak_mib:.0f} MiB; a word costs {cpu_s / tenth / 10:.2f} of the CPU time"
        " that it costs in a list of a tenth"
    )


def add_once(folder: Path, name: str, rows: int) -> tuple[float, Usage]:
    """Add words to a new file; return the CPU seconds of that without those of any command."""
    database, words = folder / name, folder / f"{name}.txt"
    harness.write_words(words, rows, seed=1)
    empty = harness.prepare_prompt(database, *SCRIPTED)
    usage = harness.measure(harness.program(database, "add", words, "--prompt", "ask"))
    return usage.cpu_s - empty.cpu_s, usage


def add_new(database: Path, prefix: str, count: int) -> None:
    """Add words that are not there yet."""
    words = database.with_suffix(".new.txt")
    words.write_text("".join(f"{prefix}{number:07d}\n" for number in range(count)), "utf-8")
    harness.measure(harness.program(database, "add", words, "--prompt", "ask"))


def start_once(database: Path) -> Start:
    """Measure how a run begins."""
    command = harness.program(database, "run", *SCRIPTED, "--limit", CALLS)
    usage = harness.measure(command, codes=(0, harness.WORK_LEFT))
    conn = sqlite3.connect(database)
    (first_ms,) = conn.execute(
        "SELECT min(started_at_ms) FROM attempts WHERE run_id = (SELECT max(id) FROM runs)"
    ).fetchone()
    conn.close()
    first_call_s = (first_ms - usage.started_at_ms) / 1000
    return Start(first_call_s, usage.peak_mib, usage.cpu_s)


def start(database: Path, rounds: int, new: int = 0) -> Start:
    """Return the medians of some runs, each with some new words."""
    starts = []
    for number in range(rounds):
        if new:
            add_new(database, f"new{number}-", new)
        starts.append(start_once(database))
    return Start(*map(median, zip(*starts, strict=True)))


def starts(folder: Path, rows: int, rounds: int) -> None:
    """Measure the starts; leaves finished.db."""
    few, few_words = folder / "few.db", folder / "few.txt"
    fewest = max(rows // 100, CALLS * rounds)
    harness.write_words(few_words, fewest, seed=1)
    harness.prepare(few, few_words, *SCRIPTED)
    first = start(few, rounds)
    show_start(f"{fewest} pending", first, first)
    pending = copied(folder, "pending.db")
    show_start(f"{rows} pending", start(pending, rounds), first)
    pending.unlink()
    finished = copied(folder, "finished.db")
    fill(finished, "succeeded")
    show_start(f"{rows} finished, {NEW} new", start(finished, rounds, NEW), first)
    print(f"  (memory below {harness.own_peak_mib():.0f} MiB could not be seen)")


def show_start(title: str, got: Start, first: Start) -> None:
    """Print how a run begins, and the ratios to the smallest file."""
    print(
        f"start: {title}: first call after {got.first_call_s:.2f} s"
        f" ({got.first_call_s / first.first_call_s:.2f}), peak {got.peak_mib:.0f} MiB"
        f" ({got.peak_mib / first.peak_mib:.2f}), CPU of the run {got.cpu_s:.2f} s"
        f" ({got.cpu_s / first.cpu_s:.2f})"
    )


def copied(folder: Path, name: str) -> Path:
    """Return a copy of the file whose words are all pending."""
    return Path(shutil.copyfile(folder / "base.db", folder / name))


def fill(database: Path, outcome: str) -> None:
    """Bring every request of a file to an end, or into waiting."""
    script = harness.HERE / "by_hand.py"
    usage = harness.measure([sys.executable, str(script), str(database), "--outcome", outcome])
    print(f"  ({database.stem}: filled in {usage.wall_s:.0f} s)")


def turns(folder: Path, rows: int, rounds: int, batches: int) -> None:
    """Measure lease and finish beside other rows."""
    # Not before now: it brings the package with it, and the memory of this process would hide
    # that of its children.
    import beside  # noqa: PLC0415

    fill(copied(folder, "waiting.db"), "transient")
    harness.prepare_prompt(folder / "empty.db", *SCRIPTED)
    files = {
        "empty": folder / "empty.db",
        f"{rows} finished": folder / "finished.db",
        f"{rows} waiting": folder / "waiting.db",
    }
    for path in files.values():
        add_new(path, "fresh", rounds * batches * beside.BATCH)
    beside.compare(files, rounds, batches)


def commands(folder: Path, rows: int, rounds: int) -> None:
    """Measure the commands that people wait for."""
    shown = (
        ("crawler --help", [*harness.PROGRAM, "--help"]),
        ("crawler status, few rows", harness.program(folder / "few.db", "status")),
        (f"crawler status, {rows} finished", harness.program(folder / "finished.db", "status")),
    )
    for title, command in shown:
        show_command(title, [harness.measure(command).cpu_s for _ in range(rounds)])


def show_command(title: str, cpu_s: Sequence[float]) -> None:
    """Print what a command costs."""
    print(f"commands: {title}: CPU minimum {min(cpu_s):.3f} s, median {median(cpu_s):.3f} s")


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batches", type=int, default=20, help="of a round of turns")
    options.add_argument("--turns", action="store_true", help="no starts and no commands")
    args = options.parse_args(argv)
    with harness.workspace(args.dir) as folder:
        add(folder, args.rows)
        if args.turns:
            fill(copied(folder, "finished.db"), "succeeded")
        else:
            starts(folder, args.rows, args.rounds)
            commands(folder, args.rows, args.rounds)
        turns(folder, args.rows, args.rounds, args.batches)


if __name__ == "__main__":
    main()
