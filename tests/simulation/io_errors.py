"""Every operation on the disk fails, once and for ever: the program goes on, or ends and says so.

A crawl of a new file, of an older one (a migration) and of one that is there already is run with
the n-th write, sync, truncate, open or delete failing below SQLite, for n = 1, 2, ... until nothing
is left to fail. Then the disk is well again and a second run has to complete it. Exit code 1 if
anything is lost, if anything else is raised, or if a call is started after the error.
"""

import argparse
import asyncio
import faulthandler
import functools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from crawler.errors import CrawlerError, Exit
from crawler.ledger.check import check
from crawler.storage.database import writing
from tests.simulation import disk as disks
from tests.simulation.disk import Disk, Fault, fast_folder
from tests.simulation.witness import (
    CONCURRENCY,
    NOTHING,
    Ledger,
    Witness,
    add,
    crawl,
    lost,
    make_older,
    overheard,
    read_ledger,
    words,
)

QUICK = {
    "write": ("FULL",),
    "sync": ("IOERR_FSYNC", "IOERR_NOMEM"),
    "truncate": ("IOERR_TRUNCATE",),
    "open": ("CANTOPEN",),
    "delete": ("IOERR_DELETE",),
}
"""What an operation fails with."""
ALL = {
    "write": ("FULL", "IOERR_WRITE", "IOERR_NOMEM"),
    "sync": ("IOERR_FSYNC", "FULL", "IOERR_NOMEM"),
    "truncate": ("IOERR_TRUNCATE", "IOERR_NOMEM"),
    "open": ("CANTOPEN", "IOERR_NOMEM"),
    "delete": ("IOERR_DELETE",),
    "read": ("IOERR_READ", "IOERR_NOMEM"),
}
MANY = ("write", "read")
COURSES = ("new", "older", "present")
WORDS = 4
HANGS_AFTER_S = 120
SHOWN = 5


class Sweep(NamedTuple):
    """Faults that differ in the moment alone."""

    course: str
    kind: str
    code: str
    times: str
    """once, or for-ever."""

    def __str__(self) -> str:
        return "/".join(self)


class Seen(NamedTuple):
    """What was seen of a course with a fault in it."""

    error: BaseException | None
    acknowledged: Ledger
    calls: int
    calls_before_error: int | None
    """None: no transaction failed."""
    fired: int
    threads: int
    """That it left behind, or that died of an exception."""
    asked: list[tuple[int, int, str]]


class Result(NamedTuple):
    """How a sweep went."""

    points: int
    ended: int
    """Runs that the fault ended; the others went on."""
    unknown: int
    """Runs whose failing COMMIT was stored all the same."""
    broken: list[str]


@functools.cache
def beginning(course: str) -> bytes | None:
    """Return the file that a course begins with; made once, on a disk that is well."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        path = Path(folder) / "crawl.db"
        if course == "older":
            make_older(path, words(WORDS))
        elif course == "present":
            add(path, words(WORDS))
        return path.read_bytes() if path.exists() else None


def go(course: str, path: Path, witness: Witness) -> None:
    """Do what a person would do with the file. Raises CrawlerError."""
    if course == "new":
        add(path, words(WORDS))
    asyncio.run(crawl(path, witness))


def go_with(disk: Disk, fault: Fault, course: str, path: Path) -> Seen:
    """Run a course on a disk with a fault."""
    witness, error = Witness(), None
    acknowledged, before_error = [NOTHING], []
    threads, died = set(threading.enumerate()), []
    with (
        overheard(acknowledged.append, lambda: before_error.append(len(witness.calls))),
        patch.object(threading, "excepthook", died.append),
    ):
        disk.fault = fault
        try:
            go(course, path, witness)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is looked at
            error = raised
        disk.fault = None
        left = [thread for thread in threading.enumerate() if thread not in threads]
        for thread in left:
            thread.join(5)
    alive = sum(thread.is_alive() for thread in left) + len(died)
    calls, first = len(witness.calls), before_error[0] if before_error else None
    return Seen(error, acknowledged[-1], calls, first, fault.fired, alive, witness.calls)


def wrong(seen: Seen) -> Iterator[str]:
    """Yield what may not be in a course with a fault."""
    explained = isinstance(seen.error, CrawlerError) and seen.error.exit_code == Exit.DATABASE
    if seen.error is not None and not explained:
        code = getattr(seen.error, "exit_code", None)
        yield f"ended with {type(seen.error).__name__} {code or ''}: {seen.error}"
    if seen.threads:
        yield "left a thread behind, or one died"
    if seen.calls_before_error is not None and seen.calls > seen.calls_before_error:
        yield f"started {seen.calls - seen.calls_before_error} calls after the error"


def wrong_afterwards(course: str, path: Path, seen: Seen, before: Ledger) -> Iterator[str]:
    """Yield what may not be when the disk is well again, with this in the file."""
    gone = lost(seen.acknowledged, before)
    if gone:
        yield f"acknowledged and lost: {gone[:SHOWN]}"
    unrecorded = [call for call in seen.asked if call[:2] not in before.attempts]
    if unrecorded:
        yield f"asked, and no attempt on record: {unrecorded[:SHOWN]}"
    witness = Witness()
    asyncio.run(crawl(path, witness))
    after = _ledger(course, path)
    if len(after.final) != WORDS or lost(before, after):
        yield f"a second run has {len(after.final)} of {WORDS} words; lost: {lost(before, after)}"
    again = [call for call in witness.calls if call[0] in before.final]
    abandoned = sum(outcome == "abandoned" for outcome in after.attempts.values())
    if again or abandoned > CONCURRENCY:
        yield f"asked again: {again[:SHOWN]}, abandoned: {abandoned}"


def _ledger(course: str, path: Path) -> Ledger:
    """Open the file as the program does. Raises AssertionError if a promise of it is broken."""
    if course == "new":
        add(path, words(WORDS))
    with writing(path, 1) as writer:
        broken = [finding for finding in writer.run(check) if finding.broken]
        assert not broken, broken
        return writer.run(read_ledger)


def point(
    disk: Disk, of: Sweep, folder: str | None, nth: int
) -> tuple[Seen, Ledger | None, list[str]]:
    """Have one operation fail; return what was seen, what the file held then, what is wrong."""
    fault = Fault(of.kind, nth, getattr(disks, of.code), of.times == "for-ever")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "crawl.db"
        content = beginning(of.course)
        if content is not None:
            path.write_bytes(content)
        seen = go_with(disk, fault, of.course, path)
        found = list(wrong(seen))
        try:
            before = _ledger(of.course, path)
            found += wrong_afterwards(of.course, path, seen, before)
        except Exception as error:  # noqa: BLE001 - whatever it is, the file can't be used
            return seen, None, [*found, f"afterwards: {type(error).__name__}: {error}"]
    return seen, before, found


def sweep(of: Sweep, folder: str | None, first: int, every: int) -> Result:
    """Have one operation after another fail, until there is none left; each n-th of them here."""
    points = ended = unknown = 0
    broken = []
    nth = first
    while True:
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        seen, before, found = point(_disk(), of, folder, nth)
        faulthandler.cancel_dump_traceback_later()
        if not seen.fired:
            return Result(points, ended, unknown, broken)
        points += 1
        ended += seen.error is not None
        unknown += before is not None and before.attempts != seen.acknowledged.attempts
        broken += [f"{of}/{nth}: {what}" for what in found]
        nth += every


@functools.cache
def _disk() -> Disk:
    """Return this process's disk."""
    return Disk()


def sweeps(codes: dict[str, tuple[str, ...]]) -> list[Sweep]:
    """Return all sweeps with these codes."""
    return [
        Sweep(course, kind, code, times)
        for course in COURSES
        for kind, of_kind in codes.items()
        for code in of_kind
        for times in ("once", "for-ever")
    ]


def sweep_all(
    folders: list[str | None], codes: dict[str, tuple[str, ...]], jobs: int, every: int
) -> Result:
    """Run all sweeps; a process that hangs ends all with its traceback.

    Of the writes, which are many and much alike, each n-th fails, in each sweep other ones; of the
    other operations then each third.
    """
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        parts = [
            pool.submit(sweep, of, folder, 1 + number % step, step)
            for folder in folders
            for number, of in enumerate(sweeps(codes))
            for step in (every if of.kind in MANY else min(every, 3),)
        ]
        results = [part.result() for part in parts]
    points, ended, unknown = (sum(column) for column in list(zip(*results, strict=True))[:3])
    return Result(points, ended, unknown, [line for result in results for line in result.broken])


def replay(only: str) -> Result:
    """Run one point of a sweep."""
    *names, nth = only.split("/")
    seen, _, found = point(_disk(), Sweep(*names), fast_folder(), int(nth))
    print(f"ended with {seen.error!r}")
    return Result(1, int(seen.error is not None), 0, [f"{only}: {what}" for what in found])


def main() -> None:
    """Sweep, count."""
    parser = argparse.ArgumentParser(prog="scripts/simulate io_errors", description=__doc__)
    parser.add_argument("--all", action="store_true", help="all codes, on two file systems")
    parser.add_argument("--every", type=int, default=1, help="each n-th write alone (1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--only", help="one point: COURSE/KIND/CODE/TIMES/NTH")
    options = parser.parse_args()
    began_s = time.monotonic()
    try:
        _disk()
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    if options.only:
        result = replay(options.only)
    elif options.all:
        result = sweep_all([fast_folder(), None], ALL, options.jobs, options.every)
    else:
        result = sweep_all([fast_folder()], QUICK, options.jobs, options.every)
    for line in result.broken[:SHOWN]:
        print(line)
        print(f"  again: scripts/simulate io_errors --only {line.partition(':')[0]}")
    print(
        f"{result.points} points: {result.ended} ended by the fault,"
        f" {result.points - result.ended} went on, {result.unknown} with more in the file than was"
        f" acknowledged, {len(result.broken)} broken ({time.monotonic() - began_s:.0f} s)"
    )
    sys.exit(1 if result.broken else 0)


if __name__ == "__main__":
    main()
